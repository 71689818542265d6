//! The home network: it lets UEs in by EAP after some rounds, late now and then, and turns some away.

use std::time::{Duration, Instant};

use gateway::control::responder::{AaaAnswer, AaaOrder, Accepted, AttemptId, Event, RejectCause};
use zeroize::Zeroizing;

use super::network::Dice;
use crate::world::World;

/// The key of everybody; only the responder looks at it.
pub const MSK: [u8; 64] = [0x42; 64];

/// Whom it turns away, in percent of all rounds.
const TURNED_AWAY: u32 = 4;

/// Answers that are on their way, by attempt.
#[derive(Default)]
pub struct Home {
    waiting: Vec<(Instant, AttemptId, AaaAnswer)>,
    /// Rounds of attempts that are under way.
    rounds: Vec<(AttemptId, u32)>,
}

impl Home {
    /// Takes what the gateway asks and gives the answers that are due. Returns whether there was anything.
    pub fn serve(&mut self, world: &mut World, dice: &mut Dice, calm: bool) -> bool {
        let (orders, rest): (Vec<Event>, Vec<Event>) =
            std::mem::take(&mut world.events).into_iter().partition(|event| matches!(event, Event::Aaa(_)));
        world.events = rest;
        for event in orders {
            let Event::Aaa(order) = event else { continue };
            match *order {
                AaaOrder::Step(step) => {
                    let late = if dice.chance(30) && !calm { dice.below(3_000) } else { 0 };
                    let answer = self.answer(step.attempt, dice);
                    let at = world.now + Duration::from_millis(late.into());
                    self.waiting.push((at, step.attempt, answer));
                }
                AaaOrder::Abandon(attempt) => {
                    self.waiting.retain(|(_, waiting, _)| *waiting != attempt);
                    self.forget(attempt);
                }
                AaaOrder::Attached(attached) => self.forget(attached.attempt),
            }
        }
        let (due, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(at, ..)| *at <= world.now);
        self.waiting = waiting;
        let due: Vec<(Instant, AttemptId, AaaAnswer)> = due;
        let some = !due.is_empty();
        for (_, attempt, answer) in due {
            world.responder.handle_aaa(world.now, attempt, answer);
            world.collect();
        }
        some
    }

    /// Attempts that it believes to be under way.
    pub fn attempts(&self) -> usize {
        self.rounds.len()
    }

    fn answer(&mut self, attempt: AttemptId, dice: &mut Dice) -> AaaAnswer {
        let round = match self.rounds.iter_mut().find(|(of, _)| *of == attempt) {
            Some((_, round)) => {
                *round += 1;
                *round
            }
            None => {
                self.rounds.push((attempt, 0));
                0
            }
        };
        if dice.chance(TURNED_AWAY) {
            self.forget(attempt);
            return AaaAnswer::Reject {
                packet: Some(vec![4, 1, 0, 4]),
                cause: RejectCause::Congestion,
                why: None,
            };
        }
        if round == 0 || dice.chance(40) {
            return AaaAnswer::Continue { packet: vec![1, 1, 0, 6, 23, 1] };
        }
        AaaAnswer::Accept(Box::new(Accepted {
            packet: vec![3, 1, 0, 4],
            msk: Zeroizing::new(MSK.to_vec()),
            identity: None,
            inner: Vec::new(),
            pool: None,
            p_cscf: Vec::new(),
            session_timeout: None,
        }))
    }

    fn forget(&mut self, attempt: AttemptId) {
        self.rounds.retain(|(of, _)| *of != attempt);
    }
}

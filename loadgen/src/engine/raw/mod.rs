//! The engine for more UEs than a process may have open files: attach, hold, detach.
//!
//! One thread, one loop, several rings. Every connection is a direct descriptor of one of them (`ring`); a UE at rest
//! is its IKE state and its SAs (`ue`), with no task, no buffer and no timer of its own. Traffic at rate belongs to the
//! other engine: here a trickle of voice shows that the held UEs live.

pub(super) mod ring;
mod rings;
mod storm;
mod trickle;
mod ue;

use super::congestion::Congestion;
use super::connect::{cause, connect};
use super::fleet::{AttachOutcome, DetachOutcome, FleetPlan, HoldOutcome, warm_up};
use super::source::SourceSpread;
use crate::error::Failure;
use crate::report::Progress;
use crate::ue::{Initiator, Subscriber, UeConfig};
use ring::Completion;
use rings::Rings;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
pub use storm::StormOutcome;
use trickle::{Trickle, draw_below};
use ue::{Common, Link, Phase, RawUe, Tally};

/// Longest wait of a turn.
const TURN: Duration = Duration::from_millis(5);
/// Time in which the IKE timers of every UE run once.
const TIMER_ROUND: Duration = Duration::from_secs(1);
/// Pause before a broken connection of an attached UE is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// Longest silence while answers to DELETE are waited for.
const DETACH_TIMEOUT: Duration = Duration::from_secs(10);
/// UEs asked before a packet of the trickle is given up.
const TRICKLE_TRIES: u32 = 8;

/// UEs, attached or on the way.
pub struct RawFleet {
    gateway: SocketAddr,
    source: SourceSpread,
    congestion: Option<Congestion>,
    config: Arc<UeConfig>,
    who: Rc<dyn Fn(u32) -> Subscriber>,
    in_flight: u64,
    rings: Rings,
    common: Common,
    /// Those begun, by index.
    ues: Vec<RawUe>,
    /// Whose timers run next.
    timer_at: usize,
    timers_ran_at: Instant,
    /// UEs to connect again, in order of time.
    reconnects_due: VecDeque<(Instant, u32)>,
    reconnect_pause: Duration,
    reconnects: u64,
}

impl RawFleet {
    /// Attaches all UEs of the plan and waits for every result.
    ///
    /// # Errors
    /// [`Failure::Environment`] when the kernel lacks what the engine needs.
    pub fn attach(plan: FleetPlan, progress: &Progress) -> Result<(Self, AttachOutcome), Failure> {
        warm_up(&plan.config);
        let (rate, total) = (plan.rate, plan.ues);
        let mut fleet = Self::new(plan)?;
        let bar = progress.bar("attaching", u64::from(total));
        let begun_at = Instant::now();
        let mut last_result_at = begun_at;
        let mut settled = 0;
        while settled < u64::from(total) {
            let due = rate.map_or(total, |rate| (begun_at.elapsed().as_secs_f64() * rate) as u32 + 1);
            let until = u64::from(due.min(total)).min(settled + fleet.in_flight);
            while (fleet.ues.len() as u64) < until {
                fleet.begin();
            }
            fleet.turn()?;
            let now_settled = fleet.common.tally.settled();
            if now_settled != settled {
                settled = now_settled;
                last_result_at = Instant::now();
                bar.set_position(settled);
            }
        }
        bar.finish_and_clear();
        let outcome = fleet.outcome((last_result_at - begun_at).as_secs_f64());
        Ok((fleet, outcome))
    }

    fn new(plan: FleetPlan) -> Result<Self, Failure> {
        Ok(Self {
            gateway: plan.gateway,
            source: plan.source,
            congestion: plan.congestion,
            in_flight: u64::from(plan.in_flight),
            rings: Rings::new(plan.ues)?,
            common: Common {
                random: plan.random,
                replay_window: plan.config.replay_window,
                tally: Tally::new(),
            },
            config: plan.config,
            who: plan.who,
            ues: Vec::with_capacity(plan.ues as usize),
            timer_at: 0,
            timers_ran_at: Instant::now(),
            reconnects_due: VecDeque::new(),
            reconnect_pause: RECONNECT_PAUSE,
            reconnects: 0,
        })
    }

    /// Keeps the UEs attached for so long; `trickle_per_s` voice packets per second leave from random ones.
    ///
    /// # Errors
    /// [`Failure::Environment`] when the kernel refuses the rings.
    pub fn hold(&mut self, time: Duration, trickle_per_s: f64) -> Result<HoldOutcome, Failure> {
        let begun_at = Instant::now();
        let (lost, reconnects) = (self.common.tally.lost, self.reconnects);
        let mut trickle = (trickle_per_s > 0.0).then(|| Trickle::new(trickle_per_s));
        while begun_at.elapsed() < time {
            if let Some(trickle) = &mut trickle {
                self.send_trickle(trickle);
            }
            self.turn()?;
        }
        Ok(HoldOutcome {
            seconds: begun_at.elapsed().as_secs_f64(),
            lost: self.common.tally.lost - lost,
            reconnects: self.reconnects - reconnects,
            trickle_sent: trickle.map_or(0, |trickle| trickle.sent),
        })
    }

    /// Deletes every IKE SA, as many at once as attach at once, and waits for the answers.
    ///
    /// # Errors
    /// [`Failure::Environment`] when the kernel refuses the rings.
    pub fn detach(mut self) -> Result<DetachOutcome, Failure> {
        let attached: Vec<u32> = self.attached().collect();
        let total = attached.len() as u64;
        let over_before = self.common.tally.detached + self.common.tally.lost;
        let begun_at = Instant::now();
        let (mut begun, mut over, mut last_answer_at) = (0, 0, begun_at);
        while over < total && last_answer_at.elapsed() < DETACH_TIMEOUT {
            let until = (over + self.in_flight).min(total);
            for ue in &attached[begun as usize..until as usize] {
                self.ues[*ue as usize].detach(&mut self.common);
                self.flush(*ue);
            }
            begun = until;
            self.turn()?;
            let now_over = self.common.tally.detached + self.common.tally.lost - over_before;
            if now_over != over {
                (over, last_answer_at) = (now_over, Instant::now());
            }
        }
        let ok = self.common.tally.detached;
        Ok(DetachOutcome {
            ok,
            unanswered: total.saturating_sub(ok),
            span_s: (last_answer_at - begun_at).as_secs_f64(),
        })
    }

    /// Returns how many UEs are attached now.
    pub fn attached_count(&self) -> usize {
        self.attached().count()
    }

    /// Returns how many ESP packets the UEs dropped: for no SA, replayed or not authentic.
    pub fn esp_dropped(&self) -> u64 {
        self.common.tally.esp_dropped
    }

    fn attached(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.ues).filter(|(_, ue)| ue.phase == Phase::Attached).map(|(index, _)| index)
    }

    fn outcome(&mut self, span_s: f64) -> AttachOutcome {
        let tally = &mut self.common.tally;
        let latencies = std::mem::take(&mut tally.latencies);
        AttachOutcome {
            ok: tally.attached,
            failed: tally.failed.clone(),
            span_s,
            latencies,
            fast: tally.fast,
        }
    }

    /// Begins the next UE.
    fn begin(&mut self) {
        let index = self.ues.len() as u32;
        self.ues.push(RawUe::new(Initiator::new(self.config.clone(), (self.who)(index))));
        self.connect(index);
    }

    /// Opens a connection; a failure ends an attach under its cause, or is tried again later.
    fn connect(&mut self, index: u32) {
        match self.open(index) {
            Ok(local) => {
                self.ues[index as usize].connected(local, self.gateway, &mut self.common);
                self.flush(index);
            }
            Err(error) => {
                let ue = &mut self.ues[index as usize];
                ue.disconnected(&cause(&error), &mut self.common);
                self.connect_later(index);
            }
        }
    }

    fn open(&mut self, index: u32) -> io::Result<SocketAddr> {
        let (socket, local) = connect(self.gateway, self.source.address(index), self.congestion, false)?;
        let (ring, slot) = self.rings.place(index);
        ring.open(slot, socket.as_fd())?;
        Ok(local)
    }

    fn connect_later(&mut self, index: u32) {
        if self.ues[index as usize].phase != Phase::Ended {
            self.reconnects_due.push_back((Instant::now() + self.reconnect_pause, index));
        }
    }

    /// One turn of the loop: timers, then what the kernel has done.
    fn turn(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        while self.reconnects_due.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, index)) = self.reconnects_due.pop_front() {
                self.reconnects += 1;
                self.connect(index);
            }
        }
        self.run_timers(now);
        self.rings.turn(TURN)?;
        while let Some((first, completion)) = self.rings.complete() {
            self.on_completion(first, completion);
        }
        Ok(())
    }

    fn on_completion(&mut self, first: u32, completion: Completion) {
        match completion {
            Completion::Received { slot, incoming } => {
                let index = first + slot;
                let (ring, _) = self.rings.place(index);
                let ue = &mut self.ues[index as usize];
                let taken = ue.on_octets(ring.bytes_mut(&incoming), &mut self.common);
                ring.release(incoming);
                match taken {
                    Ok(()) => self.flush(index),
                    Err(failure) => self.disconnect(index, &failure),
                }
            }
            Completion::Sent { slot } => {
                if let Link::Up { sending, .. } = &mut self.ues[(first + slot) as usize].link {
                    *sending = false;
                }
                self.flush(first + slot);
            }
            Completion::Broken { slot, errno: 0 } => self.disconnect(first + slot, "closed by gateway"),
            Completion::Broken { slot, errno } => {
                self.disconnect(first + slot, &cause(&io::Error::from_raw_os_error(errno)));
            }
            Completion::Closed { slot } => {
                self.ues[(first + slot) as usize].link = Link::Down;
                self.connect_later(first + slot);
            }
        }
    }

    /// Sends what a UE has to say; closes the connection of one that is over and has nothing left.
    fn flush(&mut self, index: u32) {
        let ue = &mut self.ues[index as usize];
        let Link::Up { sending: false, .. } = ue.link else { return };
        let (ring, slot) = self.rings.place(index);
        let mut block = ring.block();
        ue.fill(&mut block);
        if !block.is_empty() {
            ue.link = Link::Up { greeted: true, sending: true };
            return ring.send(slot, block);
        }
        ring.give_back(block);
        if ue.phase == Phase::Ended {
            ue.link = Link::Closing;
            ring.shut(slot);
        }
    }

    fn disconnect(&mut self, index: u32, failure: &str) {
        let ue = &mut self.ues[index as usize];
        if let Link::Up { .. } = ue.link {
            ue.disconnected(failure, &mut self.common);
            ue.link = Link::Closing;
            let (ring, slot) = self.rings.place(index);
            ring.shut(slot);
        }
    }

    /// Runs the timers of as many UEs as the time since the last turn is worth.
    fn run_timers(&mut self, now: Instant) {
        let share = (now - self.timers_ran_at).as_secs_f64() / TIMER_ROUND.as_secs_f64();
        let count = ((self.ues.len() as f64 * share) as usize).min(self.ues.len());
        if count == 0 {
            return;
        }
        self.timers_ran_at = now;
        for _ in 0..count {
            self.timer_at = (self.timer_at + 1) % self.ues.len();
            self.ues[self.timer_at].tick(&mut self.common);
            self.flush(self.timer_at as u32);
        }
    }

    /// Sends the voice packets that are due.
    fn send_trickle(&mut self, trickle: &mut Trickle) {
        for _ in 0..trickle.due() {
            let Some(index) = self.draw_talker() else { return };
            let ue = &mut self.ues[index as usize];
            let Some(packet) = ue.inner().and_then(|inner| trickle.packet(index, inner)) else { return };
            let (ring, slot) = self.rings.place(index);
            let mut block = ring.block();
            if ue.seal(packet, &mut block) {
                ue.link = Link::Up { greeted: true, sending: true };
                ring.send(slot, block);
                trickle.sent += 1;
            }
        }
    }

    /// Draws a UE that can send at once, if there is one among a few.
    fn draw_talker(&mut self) -> Option<u32> {
        (0..TRICKLE_TRIES).find_map(|_| {
            let index = draw_below(self.ues.len() as u32, &mut *self.common.random);
            self.can_talk(index).then_some(index)
        })
    }

    /// Returns whether a UE is attached over a connection that is at rest.
    fn can_talk(&self, index: u32) -> bool {
        let ue = &self.ues[index as usize];
        ue.phase == Phase::Attached && ue.link == Link::Up { greeted: true, sending: false }
    }
}

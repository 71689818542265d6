//! Plays cases one after the other, those that wait beside the others, and serves an innocent peer after each.

use super::handshake::Handshake;
use super::packet::{echo_request, is_reply};
use super::seen::{Kind, Seen, Verdict};
use super::session::Ue;
use super::stage::Stage;
use super::wire::Wire;
use super::{Case, Run};
use crate::ue::{Subscriber, UeConfig};
use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a run has.
pub struct Plan {
    /// Where cases without keys play.
    pub stage: Stage,
    /// Settings of UEs.
    pub config: Arc<UeConfig>,
    /// Who each UE is.
    pub who: Rc<dyn Fn(u32) -> Subscriber>,
    /// Whether those credentials are real; otherwise cases that need a session are not run.
    pub credentials: bool,
    /// A host behind the gateway that answers echo requests.
    pub far: Option<Ipv4Addr>,
}

/// What became of a case.
pub struct Outcome {
    /// The case.
    pub case: &'static Case,
    /// What was seen, and what innocent peers missed.
    pub seen: String,
    /// What it comes to.
    pub verdict: Verdict,
    /// How long it took, with its control.
    pub took: Duration,
}

/// What cases with keys play with.
pub struct Lab {
    plan: Plan,
    /// Number of the next UE.
    next: Cell<u32>,
}

impl Lab {
    /// Returns where cases without keys play.
    pub fn stage(&self) -> &Stage {
        &self.plan.stage
    }

    /// Returns the settings of UEs.
    pub fn config(&self) -> &UeConfig {
        &self.plan.config
    }

    /// Returns the host behind the gateway.
    pub fn far(&self) -> Option<Ipv4Addr> {
        self.plan.far
    }

    fn next_ue(&self) -> Subscriber {
        let number = self.next.get();
        self.next.set(number + 1);
        (self.plan.who)(number)
    }

    /// Attaches another UE.
    ///
    /// # Errors
    /// What went wrong.
    pub fn attach(&self) -> Result<Ue, String> {
        let wire = Wire::prefixed(self.plan.stage.gateway).map_err(|error| error.to_string())?;
        self.attach_on(wire)
    }

    /// Attaches another UE over a connection that has the prefix behind it.
    ///
    /// # Errors
    /// What went wrong.
    pub fn attach_on(&self, wire: Wire) -> Result<Ue, String> {
        Ue::attach(wire, self.plan.stage.gateway, &self.plan.config, self.next_ue())
    }

    fn handshake(&self) -> Result<Handshake, String> {
        Handshake::begin(self.plan.stage.gateway, &self.plan.config, self.next_ue())
    }

    /// Adds to a session that lives whether its traffic passes.
    pub fn with_traffic(&self, ue: &mut Ue, lives: Seen) -> Seen {
        let stuck = lives.last() == Some(Kind::Kept) && !self.echoes(ue);
        if stuck { lives.then_odd("no traffic through the tunnel") } else { lives }
    }

    /// Whether traffic of a UE comes back from the far host; true without one.
    pub fn echoes(&self, ue: &mut Ue) -> bool {
        let (Some(far), Some(inner)) = (self.plan.far, ue.inner) else { return true };
        let number = u32::MAX;
        // The first packet of a host may wait for its neighbour's address.
        (0..3).any(|_| {
            let frame = ue.seal(&echo_request(inner, far, number, 0));
            ue.wire.send(&frame);
            ue.count(|packet| is_reply(packet, number)) > 0
        })
    }
}

/// An innocent peer, which must not notice anything.
struct Control<'a> {
    lab: &'a Lab,
    bystander: Option<Ue>,
}

impl<'a> Control<'a> {
    fn begin(lab: &'a Lab) -> Result<Self, String> {
        let bystander = lab.plan.credentials.then(|| lab.attach()).transpose()?;
        Ok(Self { lab, bystander })
    }

    /// Returns what an innocent peer missed: a new one, and with credentials one that was there before.
    fn missed(&mut self) -> Option<String> {
        if !self.lab.plan.credentials {
            return self.lab.stage().innocent().err();
        }
        let newcomer = self.lab.attach().and_then(|mut ue| {
            let lives = ue.lives();
            let lives = self.lab.with_traffic(&mut ue, lives);
            ue.detach();
            if lives.last() == Some(Kind::Kept) { Ok(()) } else { Err(format!("a new session: {lives}")) }
        });
        let bystander = match &mut self.bystander {
            Some(ue) => match ue.lives() {
                seen if seen.last() == Some(Kind::Kept) => Ok(()),
                seen => Err(format!("a session from before: {seen}")),
            },
            None => Err("no session from before".into()),
        };
        // The next case is judged by a bystander of its own.
        if bystander.is_err() {
            self.bystander = self.lab.attach().ok();
        }
        newcomer.and(bystander).err()
    }
}

/// Plays the cases; `said` is called with each outcome. Returns them in the order of the list.
///
/// # Errors
/// When there is nobody to connect to, or the plan has credentials that do not work.
pub fn play(
    plan: Plan,
    cases: &[&'static Case],
    mut said: impl FnMut(&Outcome),
) -> Result<Vec<Outcome>, String> {
    Wire::connect(plan.stage.gateway).map_err(|error| error.to_string())?;
    let lab = Lab { plan, next: Cell::new(0) };
    let mut control = Control::begin(&lab)?;
    let mut outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let stage = lab.stage();
        let waiting: Vec<_> = cases
            .iter()
            .filter_map(|case| match case.run {
                Run::Wait(run) => Some((*case, scope.spawn(move || timed(|| run(stage))))),
                _ => None,
            })
            .collect();
        let active = cases.iter().filter(|case| !matches!(case.run, Run::Wait(_)));
        let mut outcomes: Vec<Outcome> = active
            .map(|case| {
                let outcome = play_one(&lab, &mut control, case);
                said(&outcome);
                outcome
            })
            .collect();
        for (case, thread) in waiting {
            let (seen, took) = thread.join().expect("cases do not panic");
            let outcome = judge(case, &seen, took, &mut control);
            said(&outcome);
            outcomes.push(outcome);
        }
        outcomes
    });
    if let Some(mut ue) = control.bystander {
        ue.detach();
    }
    let place = |outcome: &Outcome| cases.iter().position(|case| case.name == outcome.case.name);
    outcomes.sort_by_key(place);
    Ok(outcomes)
}

fn play_one(lab: &Lab, control: &mut Control<'_>, case: &'static Case) -> Outcome {
    if case.needs_session() && !lab.plan.credentials {
        let (seen, verdict) = ("needs credentials".to_owned(), Verdict::NotRun);
        return Outcome { case, seen, verdict, took: Duration::ZERO };
    }
    let (seen, took) = timed(|| match case.run {
        Run::Stream(run) | Run::Wait(run) => run(lab.stage()),
        Run::Keys(run) => match lab.handshake() {
            Ok(mut handshake) => run(&mut handshake),
            Err(cause) => Seen::odd(format!("no IKE_SA_INIT: {cause}")),
        },
        Run::Session(run) => match lab.attach() {
            Ok(mut ue) => {
                let seen = run(&mut ue, lab);
                if matches!(seen.last(), Some(Kind::Kept | Kind::Inapplicable)) {
                    ue.detach();
                }
                seen
            }
            Err(cause) => Seen::odd(format!("no session: {cause}")),
        },
    });
    judge(case, &seen, took, control)
}

/// Serves innocent peers, and judges.
fn judge(case: &'static Case, seen: &Seen, took: Duration, control: &mut Control<'_>) -> Outcome {
    let (missed, control_took) = timed(|| control.missed());
    let verdict = seen.judge(case.expected, missed.as_deref());
    let seen = match missed {
        Some(missed) => format!("{seen}; innocent peers: {missed}"),
        None => seen.to_string(),
    };
    Outcome { case, seen, verdict, took: took + control_took }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    (work(), begun.elapsed())
}

//! What a peer can see on the wire, and what a case allows of it.

use super::stage::read;
use super::wire::Arrival;
use codec::ike::{IkeSpi, NotifyType};
use std::fmt;
use std::time::Duration;

/// One thing that happened, as far as a verdict needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An innocent IKE_SA_INIT got its response.
    Served,
    /// The message under test got the response of a good one.
    Taken,
    /// A notification, in clear or protected.
    Notify(NotifyType),
    /// A cookie, maybe with a puzzle, was asked for.
    Challenge,
    /// The responder asks for EAP.
    EapAsked,
    /// EAP has failed, and the responder says so.
    EapFailure,
    /// The request under test was answered without an error.
    Answered,
    /// Nothing came, and the connection is open.
    Silent,
    /// The responder closed or reset the connection.
    Closed,
    /// The responder took no connection.
    Refused,
    /// The session goes on.
    Kept,
    /// The case does not apply to what was negotiated.
    Inapplicable,
    /// Anything else: never as expected.
    Odd,
}

impl Kind {
    /// Whether it takes the responder to say something.
    fn is_answer(self) -> bool {
        !matches!(self, Self::Silent | Self::Closed | Self::Refused | Self::Odd)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Served => "innocent IKE_SA_INIT served",
            Self::Taken => "answered as a good one",
            Self::Notify(kind) => return kind.fmt(f),
            Self::Challenge => "cookie asked for",
            Self::EapAsked => "EAP begun",
            Self::EapFailure => "EAP failure",
            Self::Answered => "answered without an error",
            Self::Silent => "no answer, connection open",
            Self::Closed => "connection closed",
            Self::Refused => "connection refused",
            Self::Kept => "session goes on",
            Self::Inapplicable => "does not apply",
            Self::Odd => "something else",
        })
    }
}

/// What was seen in the course of a case, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    steps: Vec<(Kind, String)>,
}

impl Seen {
    /// Begins with one thing.
    pub fn one(kind: Kind) -> Self {
        Self::default().then(kind)
    }

    /// What an arrival is; `innocent` is the SPI of the innocent request, if there was one.
    pub fn of(arrival: Arrival, innocent: Option<IkeSpi>) -> Self {
        match arrival {
            Arrival::Ike(message) => match read(&message) {
                Some((_, Kind::Odd)) => Self::odd("an answer that is neither a good one nor an error"),
                Some((spi, kind)) if Some(spi) == innocent => match kind {
                    Kind::Taken => Self::one(Kind::Served),
                    Kind::Notify(kind) => Self::odd(format!("{kind} to an innocent IKE_SA_INIT")),
                    other => Self::one(other),
                },
                Some((_, kind)) => Self::one(kind),
                None => Self::odd("an answer that does not decode"),
            },
            Arrival::Esp(_) => Self::odd("ESP for nobody"),
            Arrival::Broken(text) => Self::odd(text),
            Arrival::Closed(after) => {
                let mut seen = Self::default();
                seen.push_closed(after);
                seen
            }
            Arrival::Silence => Self::one(Kind::Silent),
        }
    }

    /// Begins with something that no case expects.
    pub fn odd(text: impl Into<String>) -> Self {
        Self::default().then_odd(text)
    }

    /// Adds a thing; repetitions are noted once.
    pub fn push(&mut self, kind: Kind) {
        self.push_noted(kind, String::new());
    }

    /// Adds a thing with a few words on it.
    pub fn push_noted(&mut self, kind: Kind, note: String) {
        if self.steps.last() != Some(&(kind, note.clone())) {
            self.steps.push((kind, note));
        }
    }

    /// Adds the end of the connection, so long after its beginning.
    pub fn push_closed(&mut self, after: Duration) {
        self.push_noted(Kind::Closed, format!("after {:.1} s", after.as_secs_f64()));
    }

    /// Adds a thing.
    pub fn then(mut self, kind: Kind) -> Self {
        self.push(kind);
        self
    }

    /// Adds something that no case expects.
    pub fn then_odd(mut self, text: impl Into<String>) -> Self {
        self.push_noted(Kind::Odd, text.into());
        self
    }

    /// Adds that the rest of the case does not apply, and why.
    pub fn then_inapplicable(mut self, why: &str) -> Self {
        self.push_noted(Kind::Inapplicable, why.to_owned());
        self
    }

    /// Adds all of another one.
    pub fn then_all(mut self, other: Self) -> Self {
        for (kind, note) in other.steps {
            self.push_noted(kind, note);
        }
        self
    }

    /// Returns the last thing.
    pub fn last(&self) -> Option<Kind> {
        self.steps.last().map(|(kind, _)| *kind)
    }

    /// Judges it by what the case expects; `control` is what went wrong with innocent peers, if anything.
    pub fn judge(&self, expected: &[Kind], control: Option<&str>) -> Verdict {
        let applies = self.last() != Some(Kind::Inapplicable);
        let allowed = |kind: &Kind| *kind == Kind::Inapplicable || expected.contains(kind);
        let strange = self.steps.iter().find(|(kind, _)| !allowed(kind));
        match (strange, control) {
            (None, None) if !applies => Verdict::NotRun,
            (None, None) if !self.steps.is_empty() => Verdict::AsExpected,
            // Where the connection is to be closed, one that stays open differs.
            (Some((Kind::Silent, _)), None)
                if expected.iter().any(|kind| kind.is_answer()) && !expected.contains(&Kind::Closed) =>
            {
                Verdict::NoAnswer
            }
            _ => Verdict::Differs,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (kind, note)) in self.steps.iter().enumerate() {
            f.write_str(if at > 0 { ", then " } else { "" })?;
            match (kind, note.as_str()) {
                (Kind::Odd, note) => f.write_str(note)?,
                (kind, "") => kind.fmt(f)?,
                (kind, note) => write!(f, "{kind} {note}")?,
            }
        }
        Ok(())
    }
}

/// Says what a case expects, as it is judged: any of these, and nothing else.
pub fn describe(expected: &[Kind]) -> String {
    let texts: Vec<String> = expected.iter().map(ToString::to_string).collect();
    format!("nothing but {}", texts.join(", "))
}

/// What a case comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All that was seen is allowed, and innocent peers were served.
    AsExpected,
    /// Something else was seen, or an innocent peer was not served.
    Differs,
    /// An answer is due and none came, on a connection that stayed open.
    NoAnswer,
    /// Left out: credentials are missing, or it does not apply.
    NotRun,
}

impl Verdict {
    /// Whether the run as a whole may still succeed.
    pub fn is_good(self) -> bool {
        matches!(self, Self::AsExpected | Self::NotRun)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsExpected => "as expected",
            Self::Differs => "differs",
            Self::NoAnswer => "no answer",
            Self::NotRun => "not run",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNTAX: Kind = Kind::Notify(NotifyType::INVALID_SYNTAX);

    #[test]
    fn every_step_and_the_control_count() {
        let expected = [SYNTAX, Kind::Served];
        let served = Seen::one(Kind::Served);
        assert_eq!(served.judge(&expected, None), Verdict::AsExpected);
        assert_eq!(Seen::one(SYNTAX).then(Kind::Served).judge(&expected, None), Verdict::AsExpected);
        assert_eq!(served.judge(&expected, Some("closed")), Verdict::Differs);
        assert_eq!(Seen::one(SYNTAX).then(Kind::Closed).judge(&expected, None), Verdict::Differs);
        assert_eq!(Seen::one(SYNTAX).then(Kind::Silent).judge(&expected, None), Verdict::NoAnswer);
        let stays = Seen::one(Kind::Silent).then(Kind::Kept);
        assert_eq!(stays.judge(&[Kind::Closed, Kind::Kept], None), Verdict::Differs);
        assert_eq!(Seen::default().judge(&expected, None), Verdict::Differs);
        assert_eq!(Seen::odd("?").judge(&expected, None), Verdict::Differs);
    }

    #[test]
    fn what_does_not_apply_is_not_run_unless_something_is_wrong() {
        let expected = [SYNTAX, Kind::Kept];
        let inapplicable = Seen::one(Kind::Inapplicable);
        assert_eq!(inapplicable.judge(&expected, None), Verdict::NotRun);
        assert_eq!(inapplicable.judge(&expected, Some("closed")), Verdict::Differs);
        let unseen = |seen: Seen| seen.then_inapplicable("").judge(&expected, None);
        assert_eq!(unseen(Seen::one(Kind::Kept)), Verdict::NotRun);
        assert_eq!(unseen(Seen::one(Kind::Closed).then(Kind::Kept)), Verdict::Differs);
    }

    #[test]
    fn texts() {
        assert_eq!(describe(&[SYNTAX, Kind::Closed]), "nothing but INVALID_SYNTAX, connection closed");
        assert_eq!(describe(&[SYNTAX]), "nothing but INVALID_SYNTAX");
        let mut seen = Seen::one(SYNTAX);
        seen.push_closed(Duration::from_millis(1_500));
        assert_eq!(seen.to_string(), "INVALID_SYNTAX, then connection closed after 1.5 s");
    }
}

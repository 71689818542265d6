//! `abuse`: malformed, slow and hostile peers, and what a responder does with them.
//!
//! Each [`Case`] names its source, what it sends and what a responder may do; `run` says what was seen on the wire, and
//! nothing else is looked at, so any RFC 9329 responder can be tried. After every case an innocent peer must be served
//! as ever: that is part of the verdict. `run` plays the cases, `cases` holds them by family, `stage`, `session` and
//! `wire` are what they are made of.
//!
//! What it costs the responder is bounded: a dozen connections at most but for floods, whose size is
//! [`Bounds::flood`], and at most [`FLOOD_RATE_MAX`] new connections per second in those.

mod cases;
mod draft;
mod handshake;
mod packet;
mod run;
mod seen;
mod session;
mod stage;
mod wire;

pub use handshake::Handshake;
pub use run::{Outcome, Plan, play};
pub use seen::{Kind, Seen, Verdict, describe};
pub use session::Ue;
pub use stage::{Bounds, Stage};

use run::Lab;
use std::net::IpAddr;

/// Most new connections per second in a flood.
pub const FLOOD_RATE_MAX: u32 = 1_000;

/// One kind of abuse.
pub struct Case {
    /// Its name: that of its family, a dash, and its own.
    pub name: &'static str,
    /// Where what is expected comes from: a section of an RFC with its level, or a decision of
    /// `docs/conformance.md` where the texts are silent.
    pub source: &'static str,
    /// What is sent.
    pub sent: &'static str,
    /// What the responder may do.
    pub expected: &'static [Kind],
    /// Plays it.
    pub run: Run,
}

/// How a case is played.
#[derive(Clone, Copy)]
pub enum Run {
    /// On bare streams.
    Stream(fn(&Stage) -> Seen),
    /// On a bare stream, mostly waiting: such cases are played beside others.
    Wait(fn(&Stage) -> Seen),
    /// After IKE_SA_INIT, with its keys and no credentials.
    Keys(fn(&mut Handshake) -> Seen),
    /// With an attached UE.
    Session(fn(&mut Ue, &Lab) -> Seen),
}

impl Case {
    /// Returns the family of the case.
    pub fn family(&self) -> &'static str {
        self.name.split('-').next().unwrap_or(self.name)
    }

    /// Whether it needs credentials.
    pub fn needs_session(&self) -> bool {
        matches!(self.run, Run::Session(_))
    }
}

/// Returns all cases in the order they are played.
pub fn all() -> impl Iterator<Item = &'static Case> {
    cases::FAMILIES.iter().copied().flatten()
}

/// Whether `address` is one's own: loopback, private, link-local or shared address space.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            // RFC 6598: 100.64/10 is a carrier's own.
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_every_case_says_what_it_wants() {
        let names: HashSet<_> = all().map(|case| case.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(names.len() >= 60, "{}", names.len());
        for case in all() {
            assert!(!case.expected.is_empty() && !case.source.is_empty() && !case.sent.is_empty());
            assert!(!case.expected.contains(&Kind::Odd), "{} could not fail", case.name);
        }
    }

    #[test]
    fn only_private_addresses_pass() {
        for (text, private) in [
            ("127.0.0.1", true),
            ("10.20.0.1", true),
            ("100.64.0.1", true),
            ("::ffff:192.168.0.1", true),
            ("fd20::1", true),
            ("fe80::1", true),
            ("100.128.0.1", false),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_private(text.parse().unwrap()), private, "{text}");
        }
    }
}

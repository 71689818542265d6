//! Resumption tickets (RFC 5723 §6): the state of an IKE SA by value, sealed with a key of ours, so that nothing of it is
//! kept here.
//!
//! ```text
//! | version (1) | epoch (4) | nonce (12) | AES-256-GCM: numbers (5 x 8), then SK_d, suite, profile, IDi, IDr,
//! | each behind its length (2) | tag (16) |
//! ```
//!
//! The sealing key is HMAC-SHA-256(master, label | epoch) and changes every day; the master is drawn at start or read from
//! a file that several gateways share. A ticket is good once: those used are remembered until they expire, and when the
//! memory for that is full, tickets as old as the forgotten one are refused. Each process remembers for itself: with a
//! shared master a ticket works once at each gateway, and once more after a restart, within its lifetime. A peer needs the
//! SK_d inside to use it, so a ticket that was overheard is worth nothing.

use std::collections::VecDeque;

use ahash::AHashSet;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use codec::Random;
use codec::crypto::{Additional, IkeProposal, IkeSuite, Secret};
use codec::ike::IdType;
use zeroize::Zeroizing;

use super::config::Resumption;
use super::identity::Identity;
use crate::types::SessionId;

const VERSION: u8 = 1;

/// Life of a sealing key, in seconds.
const EPOCH_S: u64 = 86_400;

const LABEL: &[u8] = b"swugate resumption ticket";
const NONCE_LEN: usize = 12;
const HEAD_LEN: usize = 1 + 4;

/// Octets of the longest ticket that is looked at; those we make have some hundreds.
const TICKET_LEN_MAX: usize = 4096;

/// The state of an IKE SA that a ticket carries.
#[derive(Clone)]
pub(super) struct Ticket {
    /// Tells it from all others.
    pub(super) id: [u8; NONCE_LEN],
    /// When it was made; this and the next two in seconds since 1970.
    pub(super) issued: u64,
    pub(super) expires: u64,
    /// When the peer authenticated in full.
    pub(super) authenticated: u64,
    /// The process and session that gave it.
    pub(super) origin: (u64, SessionId),
    pub(super) sk_d: Secret,
    pub(super) suite: IkeSuite,
    pub(super) additional: Additional,
    pub(super) profile: String,
    pub(super) idi: Identity,
    pub(super) idr: Identity,
}

/// Why a ticket is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TicketError {
    /// Not sealed by us, or not what we seal.
    Invalid,
    Expired,
    Reused,
}

/// What makes and takes tickets.
pub(super) struct Tickets {
    master: hmac::Key,
    /// Tells this process from others with the same master.
    instance: u64,
    /// Used ones that have not expired: their time of issue, and the time they expire.
    order: VecDeque<(u64, u64, [u8; NONCE_LEN])>,
    used: AHashSet<[u8; NONCE_LEN]>,
    /// Tickets issued up to here are refused: it is no longer known whether they were used.
    forgotten: u64,
}

impl Tickets {
    pub(super) fn new(config: Option<&Resumption>, random: &mut dyn Random) -> Self {
        let (mut drawn, mut instance) = (Zeroizing::new([0; 32]), [0; 8]);
        random.fill(&mut *drawn);
        random.fill(&mut instance);
        let mut tickets = Self {
            master: hmac::Key::new(hmac::HMAC_SHA256, &*drawn),
            instance: u64::from_be_bytes(instance),
            order: VecDeque::new(),
            used: AHashSet::new(),
            forgotten: 0,
        };
        tickets.set_key(config);
        tickets
    }

    /// Follows a changed configuration; without a key in it the present one stays.
    pub(super) fn set_key(&mut self, config: Option<&Resumption>) {
        if let Some(key) = config.and_then(|config| config.key.as_ref()) {
            self.master = hmac::Key::new(hmac::HMAC_SHA256, key.octets());
        }
    }

    /// Where a ticket for `session` comes from.
    pub(super) fn origin(&self, session: SessionId) -> (u64, SessionId) {
        (self.instance, session)
    }

    /// The session of this process that gave a ticket.
    pub(super) fn session_of(&self, ticket: &Ticket) -> Option<SessionId> {
        let (instance, session) = ticket.origin;
        (instance == self.instance).then_some(session)
    }

    /// Seals a ticket under a number of its own, which replaces its `id`.
    pub(super) fn seal(&self, ticket: &Ticket, random: &mut dyn Random) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce);
        let epoch = u32::try_from(ticket.issued / EPOCH_S).ok()?;
        let head = head(epoch);
        let mut plain = Zeroizing::new(ticket.encode()?);
        let key = self.key(epoch)?;
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(head), &mut plain)
            .ok()?;
        Some([&head[..], &nonce, &plain, tag.as_ref()].concat())
    }

    /// Opens a ticket that is to be used at `now`.
    pub(super) fn open(&self, octets: &[u8], now: u64) -> Result<Ticket, TicketError> {
        let ticket = self.unseal(octets, now).ok_or(TicketError::Invalid)?;
        if now >= ticket.expires {
            return Err(TicketError::Expired);
        }
        if self.is_used(&ticket) {
            return Err(TicketError::Reused);
        }
        Ok(ticket)
    }

    fn unseal(&self, octets: &[u8], now: u64) -> Option<Ticket> {
        let (head, rest) = octets.split_at_checked(HEAD_LEN)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let &[VERSION, a, b, c, d] = head else { return None };
        let epoch = u32::from_be_bytes([a, b, c, d]);
        // No key is derived for a day that has not come.
        if octets.len() > TICKET_LEN_MAX || u64::from(epoch) > now / EPOCH_S {
            return None;
        }
        let mut plain = Zeroizing::new(sealed.to_vec());
        let key = self.key(epoch)?;
        let opened =
            key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(head), &mut plain).ok()?;
        Ticket::decode(*nonce, opened)
    }

    fn key(&self, epoch: u32) -> Option<LessSafeKey> {
        let mut context = hmac::Context::with_key(&self.master);
        context.update(LABEL);
        context.update(&epoch.to_be_bytes());
        let tag = context.sign();
        UnboundKey::new(&AES_256_GCM, tag.as_ref()).ok().map(LessSafeKey::new)
    }

    /// Whether a ticket was used, or may have been.
    pub(super) fn is_used(&self, ticket: &Ticket) -> bool {
        ticket.issued <= self.forgotten || self.used.contains(&ticket.id)
    }

    /// Remembers that a ticket has been used, with `max` others at most.
    pub(super) fn spend(&mut self, ticket: &Ticket, now: u64, max: usize) {
        while let Some(&(issued, expires, id)) = self.order.front()
            && (expires <= now || self.order.len() >= max.max(1))
        {
            if expires > now {
                self.forgotten = self.forgotten.max(issued);
            }
            self.used.remove(&id);
            self.order.pop_front();
        }
        self.used.insert(ticket.id);
        self.order.push_back((ticket.issued, ticket.expires, ticket.id));
    }
}

fn head(epoch: u32) -> [u8; HEAD_LEN] {
    let [a, b, c, d] = epoch.to_be_bytes();
    [VERSION, a, b, c, d]
}

impl Ticket {
    fn encode(&self) -> Option<Vec<u8>> {
        let suite = format!("{}{}", self.suite, self.additional);
        let (idi, idr) = (self.idi.key(), self.idr.key());
        let fields = [self.sk_d.as_bytes(), suite.as_bytes(), self.profile.as_bytes(), &idi, &idr];
        // Sized at once, so that the secret leaves no copy behind.
        let len: usize = fields.iter().map(|field| 2 + field.len()).sum();
        let mut out = Vec::with_capacity(5 * 8 + len + AES_256_GCM.tag_len());
        let (instance, session) = self.origin;
        for number in [self.issued, self.expires, self.authenticated, instance, session.0] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        for field in fields {
            out.extend_from_slice(&u16::try_from(field.len()).ok()?.to_be_bytes());
            out.extend_from_slice(field);
        }
        Some(out)
    }

    fn decode(id: [u8; NONCE_LEN], mut octets: &[u8]) -> Option<Self> {
        let mut numbers = [0_u64; 5];
        for number in &mut numbers {
            let (taken, rest) = octets.split_first_chunk()?;
            *number = u64::from_be_bytes(*taken);
            octets = rest;
        }
        let [issued, expires, authenticated, instance, session] = numbers;
        let mut take = || {
            let (len, rest) = octets.split_first_chunk()?;
            let (taken, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            octets = rest;
            Some(taken)
        };
        let sk_d = Secret::from(take()?);
        let suite: IkeProposal = std::str::from_utf8(take()?).ok()?.parse().ok()?;
        let (suite, additional) = suite.first_suite()?;
        let profile = std::str::from_utf8(take()?).ok()?.to_owned();
        let (idi, idr) = (identity(take()?)?, identity(take()?)?);
        let origin = (instance, SessionId(session));
        Some(Self { id, issued, expires, authenticated, origin, sk_d, suite, additional, profile, idi, idr })
    }
}

/// An identity from its key in tables.
fn identity(key: &[u8]) -> Option<Identity> {
    let (&kind, data) = key.split_first()?;
    Identity::new(IdType(kind), data)
}

#[cfg(test)]
mod tests {
    use codec::SeededRandom;

    use super::*;
    use crate::control::responder::Psk;

    const NOW: u64 = 1_782_000_000;

    fn ticket(suite: &str) -> Ticket {
        let proposal: IkeProposal = suite.parse().expect("a suite");
        let (suite, additional) = proposal.first_suite().expect("one of each");
        Ticket {
            id: [0; NONCE_LEN],
            issued: NOW,
            expires: NOW + 3_600,
            authenticated: NOW - 5,
            origin: (7, SessionId(9)),
            sk_d: Secret::from(&[0x5a; 32][..]),
            suite,
            additional,
            profile: "lab".into(),
            idi: "ue@test".parse().expect("an identity"),
            idr: "192.0.2.1".parse().expect("an identity"),
        }
    }

    fn tickets(seed: u64, key: Option<&str>) -> Tickets {
        let second = std::time::Duration::from_secs(1);
        let key = key.and_then(Psk::from_text);
        let config = Resumption { lifetime: second, reauth: second, key };
        Tickets::new(Some(&config), &mut SeededRandom::new(seed))
    }

    fn same(a: &Ticket, b: &Ticket) -> bool {
        let numbers = |t: &Ticket| (t.issued, t.expires, t.authenticated, t.origin);
        numbers(a) == numbers(b)
            && a.sk_d == b.sk_d
            && (a.suite, a.additional) == (b.suite, b.additional)
            && (&a.profile, &a.idi, &a.idr) == (&b.profile, &b.idi, &b.idr)
    }

    #[test]
    fn r5723_6_1_a_ticket_opens_as_it_was_sealed_and_hides_its_secret() {
        let (tickets, mut random) = (tickets(1, None), SeededRandom::new(2));
        for suite in ["aes128gcm16-prfsha256-x25519", "aes256-sha512-ecp384-ke1_mlkem768-ke3_mlkem1024"] {
            let ticket = ticket(suite);
            let sealed = tickets.seal(&ticket, &mut random).expect("sealed");
            let opened = tickets.open(&sealed, NOW).unwrap_or_else(|error| panic!("{error:?}"));
            assert!(same(&ticket, &opened));
            assert!(!sealed.windows(8).any(|octets| octets == [0x5a; 8]));
            assert_ne!(sealed, tickets.seal(&ticket, &mut random).expect("sealed"));
            assert_eq!(tickets.open(&sealed, NOW + 3_600).err(), Some(TicketError::Expired));
        }
    }

    #[test]
    fn r5723_6_1_a_changed_ticket_is_none() {
        let (tickets, mut random) = (tickets(1, None), SeededRandom::new(2));
        let sealed = tickets.seal(&ticket("aes128gcm16-prfsha256-x25519"), &mut random).expect("sealed");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.open(&changed, NOW).err(), Some(TicketError::Invalid), "octet {at}");
            assert_eq!(tickets.open(&sealed[..at], NOW).err(), Some(TicketError::Invalid), "{at} octets");
        }
        assert_eq!(tickets.open(&[1; TICKET_LEN_MAX + 1], NOW).err(), Some(TicketError::Invalid));
    }

    #[test]
    fn r5723_6_2_gateways_with_one_key_take_each_others_tickets_and_others_do_not() {
        let key = "0123456789abcdef0123456789abcdef";
        let (one, other, stranger) = (tickets(1, Some(key)), tickets(2, Some(key)), tickets(3, None));
        let ticket = ticket("aes128gcm16-prfsha256-x25519");
        let sealed = one.seal(&ticket, &mut SeededRandom::new(4)).expect("sealed");
        assert!(other.open(&sealed, NOW).is_ok());
        assert_eq!(stranger.open(&sealed, NOW).err(), Some(TicketError::Invalid));
        let ours = Ticket { origin: one.origin(SessionId(9)), ..ticket };
        assert_eq!((one.session_of(&ours), other.session_of(&ours)), (Some(SessionId(9)), None));
    }

    #[test]
    fn r5723_6_2_the_sealing_key_changes_every_day_and_older_ones_still_open() {
        let (tickets, mut random) = (tickets(1, None), SeededRandom::new(2));
        let mut ticket = ticket("aes128gcm16-prfsha256-x25519");
        ticket.expires = NOW + 3 * EPOCH_S;
        let today = tickets.seal(&ticket, &mut random).expect("sealed");
        ticket.issued += EPOCH_S;
        let tomorrow = tickets.seal(&ticket, &mut random).expect("sealed");
        assert_ne!(today[..HEAD_LEN], tomorrow[..HEAD_LEN]);
        assert!(tickets.open(&today, NOW + EPOCH_S).is_ok());
        assert_eq!(tickets.open(&tomorrow, NOW).err(), Some(TicketError::Invalid), "not yet");
    }

    #[test]
    fn r5723_6_2_a_ticket_is_good_once_even_when_the_memory_is_full() {
        let (mut tickets, mut random) = (tickets(1, None), SeededRandom::new(2));
        let mut make = |issued: u64| {
            let ticket = Ticket { issued, expires: issued + 3_600, ..ticket("aes128gcm16-prfsha256-x25519") };
            tickets.seal(&ticket, &mut random).expect("sealed")
        };
        let sealed: Vec<_> = (0..4).map(|age| make(NOW + age)).collect();
        let old = make(NOW - 1);
        for octets in &sealed {
            let ticket = tickets.open(octets, NOW + 4).unwrap_or_else(|error| panic!("{error:?}"));
            tickets.spend(&ticket, NOW + 4, 3);
            assert_eq!(tickets.open(octets, NOW + 4).err(), Some(TicketError::Reused));
        }
        assert_eq!((tickets.used.len(), tickets.order.len()), (3, 3));
        assert_eq!(
            tickets.open(&sealed[0], NOW + 4).err(),
            Some(TicketError::Reused),
            "forgotten, and refused"
        );
        assert_eq!(tickets.open(&old, NOW + 4).err(), Some(TicketError::Reused), "it might have been");
    }
}

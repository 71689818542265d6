//! Cookies and puzzles for IKE_SA_INIT (RFC 7296 §2.6, RFC 8019 §7): under load, no state and no key exchange for a
//! source that has not proved that it receives there (UDP), or has not spent some computation (TCP, which proves the
//! address itself, so that a cookie alone shows nothing; RFC 9329 §6.3).
//!
//! A cookie is the version of its secret, the puzzle that went with it, and
//! HMAC-SHA-256(secret, puzzle | Ni | IPi | SPIi), truncated. The port is not in it: it may change with the transport
//! (RFC 9329 §6.3). A solution is good for its cookie, so for one SPIi and nonce from one address, of which there is one
//! half-open IKE SA at a time, for as long as the secret is honoured: keeping it for later gains nothing.
//!
//! IKE_AUTH gets no puzzle of its own: RFC 8019 §7.2 offers one against peers that solve the first and then send
//! garbage, which here costs them their connection and us one HMAC, with the keys kept (§4.4).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use codec::Random;
use codec::crypto::Puzzle;
use codec::ike::{Flags, IkeHeader, IkeSpi, MessageBuilder, NotifyType};
use zeroize::Zeroizing;

use super::inner::Payloads;
use super::{Arrived, Core, Event};
use crate::types::Transport;

/// How long cookies are made with one secret. They are honoured that long again.
const SECRET_LIFE: Duration = Duration::from_secs(60);

/// Octets of a PUZZLE notification's data.
const PUZZLE_LEN: usize = 3;

/// Octets of the MAC in a cookie; a cookie has 1 to 64 octets in all.
const MAC_LEN: usize = 24;

/// A cookie as we make it.
type Cookie = [u8; 1 + PUZZLE_LEN + MAC_LEN];

/// What an IKE_SA_INIT has to show before anything is kept of it.
pub(super) enum Challenge {
    /// Nothing, or it has shown it.
    Passed,
    /// More than it brought: it has been told.
    Sent,
    /// A solution, but it brought a cookie only: it waits for its turn (RFC 8019 §7.1.4).
    Wait,
}

/// What a cookie stands for.
struct Claim<'a> {
    nonce: &'a [u8],
    source: IpAddr,
    spi_i: IkeSpi,
}

/// The secret of one version.
struct Secret {
    version: u8,
    key: hmac::Key,
}

impl Secret {
    fn new(version: u8, random: &mut dyn Random) -> Self {
        let mut octets = Zeroizing::new([0; 32]);
        random.fill(&mut *octets);
        Self { version, key: hmac::Key::new(hmac::HMAC_SHA256, &*octets) }
    }

    /// `puzzle` is the data of the PUZZLE beside the cookie; all zeros without one.
    fn cookie(&self, claim: &Claim<'_>, puzzle: [u8; PUZZLE_LEN]) -> Cookie {
        let mut mac = hmac::Context::with_key(&self.key);
        mac.update(&puzzle);
        // One length in front keeps the nonce from running into what follows, which is of fixed length.
        mac.update(&(claim.nonce.len() as u32).to_be_bytes());
        mac.update(claim.nonce);
        mac.update(&canonical(claim.source));
        mac.update(&claim.spi_i.0);
        let tag = mac.sign();
        let mut cookie = [self.version; 1 + PUZZLE_LEN + MAC_LEN];
        cookie[1..1 + PUZZLE_LEN].copy_from_slice(&puzzle);
        cookie[1 + PUZZLE_LEN..].copy_from_slice(&tag.as_ref()[..MAC_LEN]);
        cookie
    }
}

fn canonical(source: IpAddr) -> [u8; 16] {
    match source {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The secrets cookies are made of.
pub(super) struct Cookies {
    current: Secret,
    previous: Option<Secret>,
    since: Instant,
}

impl Cookies {
    pub(super) fn new(random: &mut dyn Random, now: Instant) -> Self {
        Self { current: Secret::new(0, random), previous: None, since: now }
    }

    /// Replaces secrets that are too old.
    fn rotate(&mut self, random: &mut dyn Random, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age < SECRET_LIFE {
            return;
        }
        let next = Secret::new(self.current.version.wrapping_add(1), random);
        let replaced = std::mem::replace(&mut self.current, next);
        self.previous = (age < 2 * SECRET_LIFE).then_some(replaced);
        self.since = now;
    }

    /// The data of the PUZZLE that a cookie of ours went with, all zeros without one; `None` when it is not ours.
    fn puzzle_of(&self, cookie: &[u8], claim: &Claim<'_>) -> Option<[u8; PUZZLE_LEN]> {
        let (&version, rest) = cookie.split_first()?;
        let puzzle = *rest.first_chunk()?;
        let [current, previous] = [Some(&self.current), self.previous.as_ref()];
        let secrets = [current, previous].into_iter().flatten();
        let mut same = secrets.filter(|secret| secret.version == version);
        same.any(|secret| verify_slices_are_equal(&secret.cookie(claim, puzzle), cookie).is_ok())
            .then_some(puzzle)
    }
}

impl Core {
    /// Whether an IKE_SA_INIT or IKE_SESSION_RESUME goes on with `half_open` half-open IKE SAs about; if not, it is
    /// answered with a cookie, over TCP with a puzzle, and nothing is kept.
    pub(super) fn challenge(
        &mut self,
        at: &Arrived,
        header: &IkeHeader,
        payloads: &Payloads<'_>,
        half_open: usize,
    ) -> Challenge {
        // draft-ietf-ipsecme-ike-tcp §2.2: no challenge there; the limits of half-open IKE SAs hold all the same.
        if at.path.transport == Transport::IkeTcp {
            return Challenge::Passed;
        }
        let limits = &self.config.limits;
        let over_udp = at.path.transport == Transport::Udp;
        let from = if over_udp { limits.cookies_from } else { limits.puzzles_from };
        // Without a nonce it is malformed, which is answered as such.
        let Some(nonce) = payloads.nonce.filter(|_| half_open >= from) else { return Challenge::Passed };
        self.cookies.rotate(&mut *self.random, at.now);
        let claim = Claim { nonce: nonce.data, source: at.path.remote.ip(), spi_i: header.spi_i };
        if let Some(returned) = payloads.notify(NotifyType::COOKIE) {
            if let Some(puzzle) = self.cookies.puzzle_of(returned.data, &claim) {
                self.counters.exchanges.cookies_returned += 1;
                return match over_udp {
                    true => Challenge::Passed,
                    false => self.examine(payloads.puzzle_solution, returned.data, puzzle),
                };
            }
            self.counters.drops.bad_cookie += 1;
        }
        let puzzle = match over_udp {
            true => None,
            // What the UE cannot have is not asked for: it is refused as it would be anyway.
            false => match self.puzzle_for(payloads) {
                None => return Challenge::Passed,
                puzzle => puzzle,
            },
        };
        self.send_challenge(at, header, &claim, puzzle);
        Challenge::Sent
    }

    /// What a solution, or none, is worth to the bearer of a cookie that came with `puzzle`.
    fn examine(&mut self, solution: Option<&[u8]>, cookie: &[u8], puzzle: [u8; PUZZLE_LEN]) -> Challenge {
        let puzzle = Puzzle::from_data(&puzzle);
        match (puzzle, solution) {
            (Some(puzzle), Some(keys)) if puzzle.is_solved(cookie, keys) => {
                self.counters.exchanges.puzzles_solved += 1;
                return Challenge::Passed;
            }
            // RFC 8019 §7.1.4: as good as none. Where no puzzle was given, its solution is not looked at.
            (Some(_), Some(_)) => self.counters.drops.bad_puzzle += 1,
            _ => {}
        }
        Challenge::Wait
    }

    /// The puzzle for an offer: with the PRF that we would choose (RFC 8019 §7.1.1.1).
    fn puzzle_for(&self, payloads: &Payloads<'_>) -> Option<Puzzle> {
        let (sa, ke) = (payloads.sa?, payloads.ke?);
        let chosen = codec::crypto::select_ike(&self.offers, &sa, ke.group)?;
        Some(Puzzle { prf: chosen.suite.prf, bits: self.config.limits.puzzle_bits })
    }

    fn send_challenge(
        &mut self,
        at: &Arrived,
        header: &IkeHeader,
        claim: &Claim<'_>,
        puzzle: Option<Puzzle>,
    ) {
        let data = puzzle.map(Puzzle::to_data);
        let cookie = self.cookies.current.cookie(claim, data.unwrap_or_default());
        let flags = Flags::new(false, true);
        let mut builder =
            MessageBuilder::new(header.spi_i, IkeSpi::ZERO, header.exchange, flags, header.message_id);
        builder.notify(NotifyType::COOKIE, &cookie);
        match data {
            Some(data) => {
                self.counters.exchanges.puzzles_sent += 1;
                builder.notify(NotifyType::PUZZLE, &data);
                // RFC 9329 §6.3: who does not come back loses the connection.
                let within = self.config.limits.challenge_timeout;
                self.events.push_back(Event::Challenged { conn: at.conn, within });
            }
            None => self.counters.exchanges.cookies_sent += 1,
        }
        if let Ok(message) = builder.finish() {
            self.transmit(at.conn, &at.path, message.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use codec::SeededRandom;

    use super::*;

    const PLAIN: [u8; PUZZLE_LEN] = [0; PUZZLE_LEN];

    fn claim<'a>(nonce: &'a [u8], source: &str) -> Claim<'a> {
        Claim { nonce, source: source.parse().expect("an address"), spi_i: IkeSpi([7; 8]) }
    }

    #[test]
    fn r7296_2_6_a_cookie_belongs_to_its_nonce_address_and_spi() {
        let cookies = Cookies::new(&mut SeededRandom::new(1), Instant::now());
        let cookie = cookies.current.cookie(&claim(b"nonce", "192.0.2.1"), PLAIN);
        assert!((1..=64).contains(&cookie.len()));
        assert!(cookies.puzzle_of(&cookie, &claim(b"nonce", "192.0.2.1")) == Some(PLAIN));
        assert!(cookies.puzzle_of(&cookie, &claim(b"other", "192.0.2.1")).is_none());
        assert!(cookies.puzzle_of(&cookie, &claim(b"nonce", "192.0.2.2")).is_none());
        let other_spi = Claim { spi_i: IkeSpi([8; 8]), ..claim(b"nonce", "192.0.2.1") };
        assert!(cookies.puzzle_of(&cookie, &other_spi).is_none());
        for cut in 0..cookie.len() {
            assert!(
                cookies.puzzle_of(&cookie[..cut], &claim(b"nonce", "192.0.2.1")).is_none(),
                "{cut} octets"
            );
        }
        let mut longer = cookie.to_vec();
        longer.push(0);
        assert!(cookies.puzzle_of(&longer, &claim(b"nonce", "192.0.2.1")).is_none());
    }

    #[test]
    fn r7296_2_6_the_previous_secret_is_honoured_for_a_while() {
        let (mut random, start) = (SeededRandom::new(1), Instant::now());
        let mut cookies = Cookies::new(&mut random, start);
        let claim = claim(b"nonce", "2001:db8::1");
        let cookie = cookies.current.cookie(&claim, PLAIN);
        cookies.rotate(&mut random, start + SECRET_LIFE / 2);
        assert_eq!(cookies.current.cookie(&claim, PLAIN), cookie, "not yet");
        cookies.rotate(&mut random, start + SECRET_LIFE);
        assert_ne!(cookies.current.cookie(&claim, PLAIN), cookie);
        assert!(cookies.puzzle_of(&cookie, &claim).is_some());
        cookies.rotate(&mut random, start + 2 * SECRET_LIFE);
        assert!(cookies.puzzle_of(&cookie, &claim).is_none());
    }

    #[test]
    fn r7296_2_6_a_secret_unused_for_long_is_not_honoured() {
        let (mut random, start) = (SeededRandom::new(1), Instant::now());
        let mut cookies = Cookies::new(&mut random, start);
        let claim = claim(b"nonce", "192.0.2.1");
        let cookie = cookies.current.cookie(&claim, PLAIN);
        cookies.rotate(&mut random, start + 10 * SECRET_LIFE);
        assert!(cookies.puzzle_of(&cookie, &claim).is_none());
    }

    #[test]
    fn r8019_7_1_1_2_the_difficulty_is_under_the_mac() {
        let cookies = Cookies::new(&mut SeededRandom::new(1), Instant::now());
        let claim = claim(b"nonce", "192.0.2.1");
        let mut cookie = cookies.current.cookie(&claim, [0, 5, 20]);
        assert_eq!(cookies.puzzle_of(&cookie, &claim), Some([0, 5, 20]));
        cookie[3] = 1;
        assert_eq!(cookies.puzzle_of(&cookie, &claim), None);
        cookie[3] = 0;
        assert_eq!(cookies.puzzle_of(&cookie, &claim), None);
    }
}

//! Cookies for IKE_SA_INIT over UDP (RFC 7296 §2.6): under load, no state and no key exchange for a source address
//! that has not proved that it receives there.
//!
//! A cookie is the version of its secret and HMAC-SHA-256(secret, Ni | IPi | SPIi), truncated. The port is not in
//! it: it may change with the transport (RFC 9329 §6.3). TCP proves the address itself.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use codec::Random;
use codec::ike::{IkeHeader, IkeSpi, NotifyType};
use zeroize::Zeroizing;

use super::inner::Payloads;
use super::{Arrived, Core};
use crate::types::Transport;

/// How long cookies are made with one secret. They are honoured that long again.
const SECRET_LIFE: Duration = Duration::from_secs(60);

/// Octets of the MAC in a cookie; a cookie has 1 to 64 octets in all.
const MAC_LEN: usize = 24;

/// A cookie as we make it.
type Cookie = [u8; 1 + MAC_LEN];

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

    fn cookie(&self, claim: &Claim<'_>) -> Cookie {
        let mut mac = hmac::Context::with_key(&self.key);
        // One length in front keeps the nonce from running into what follows, which is of fixed length.
        mac.update(&(claim.nonce.len() as u32).to_be_bytes());
        mac.update(claim.nonce);
        mac.update(&canonical(claim.source));
        mac.update(&claim.spi_i.0);
        let tag = mac.sign();
        let mut cookie = [self.version; 1 + MAC_LEN];
        cookie[1..].copy_from_slice(&tag.as_ref()[..MAC_LEN]);
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

    fn is_ours(&self, cookie: &[u8], claim: &Claim<'_>) -> bool {
        let [current, previous] = [Some(&self.current), self.previous.as_ref()];
        let secrets = [current, previous].into_iter().flatten();
        let mut same = secrets.filter(|secret| cookie.first() == Some(&secret.version));
        same.any(|secret| verify_slices_are_equal(&secret.cookie(claim), cookie).is_ok())
    }
}

impl Core {
    /// Answers an IKE_SA_INIT over UDP with a cookie if there are many half-open IKE SAs and it brought none that
    /// is ours. Returns whether it did; nothing of the request is kept then.
    pub(super) fn challenge(
        &mut self,
        at: &Arrived,
        header: &IkeHeader,
        payloads: &Payloads<'_>,
        half_open: usize,
    ) -> bool {
        if at.path.transport != Transport::Udp || half_open < self.config.limits.cookies_from {
            return false;
        }
        // Without a nonce it is malformed, which is answered as such.
        let Some(nonce) = payloads.nonce else { return false };
        self.cookies.rotate(&mut *self.random, at.now);
        let source = at.path.remote.ip();
        let claim = Claim { nonce: nonce.data, source, spi_i: header.spi_i };
        if let Some(returned) = payloads.notify(NotifyType::COOKIE) {
            if self.cookies.is_ours(returned.data, &claim) {
                self.counters.exchanges.cookies_returned += 1;
                return false;
            }
            self.counters.drops.bad_cookie += 1;
        }
        let cookie = self.cookies.current.cookie(&claim);
        self.counters.exchanges.cookies_sent += 1;
        self.answer_init(at, header, NotifyType::COOKIE, &cookie);
        true
    }
}

#[cfg(test)]
mod tests {
    use codec::SeededRandom;

    use super::*;

    fn claim<'a>(nonce: &'a [u8], source: &str) -> Claim<'a> {
        Claim { nonce, source: source.parse().expect("an address"), spi_i: IkeSpi([7; 8]) }
    }

    #[test]
    fn r7296_2_6_a_cookie_belongs_to_its_nonce_address_and_spi() {
        let cookies = Cookies::new(&mut SeededRandom::new(1), Instant::now());
        let cookie = cookies.current.cookie(&claim(b"nonce", "192.0.2.1"));
        assert!((1..=64).contains(&cookie.len()));
        assert!(cookies.is_ours(&cookie, &claim(b"nonce", "192.0.2.1")));
        assert!(!cookies.is_ours(&cookie, &claim(b"other", "192.0.2.1")));
        assert!(!cookies.is_ours(&cookie, &claim(b"nonce", "192.0.2.2")));
        let other_spi = Claim { spi_i: IkeSpi([8; 8]), ..claim(b"nonce", "192.0.2.1") };
        assert!(!cookies.is_ours(&cookie, &other_spi));
        for cut in 0..cookie.len() {
            assert!(!cookies.is_ours(&cookie[..cut], &claim(b"nonce", "192.0.2.1")), "{cut} octets");
        }
        let mut longer = cookie.to_vec();
        longer.push(0);
        assert!(!cookies.is_ours(&longer, &claim(b"nonce", "192.0.2.1")));
    }

    #[test]
    fn r7296_2_6_the_previous_secret_is_honoured_for_a_while() {
        let (mut random, start) = (SeededRandom::new(1), Instant::now());
        let mut cookies = Cookies::new(&mut random, start);
        let claim = claim(b"nonce", "2001:db8::1");
        let cookie = cookies.current.cookie(&claim);
        cookies.rotate(&mut random, start + SECRET_LIFE / 2);
        assert_eq!(cookies.current.cookie(&claim), cookie, "not yet");
        cookies.rotate(&mut random, start + SECRET_LIFE);
        assert_ne!(cookies.current.cookie(&claim), cookie);
        assert!(cookies.is_ours(&cookie, &claim));
        cookies.rotate(&mut random, start + 2 * SECRET_LIFE);
        assert!(!cookies.is_ours(&cookie, &claim));
    }

    #[test]
    fn r7296_2_6_a_secret_unused_for_long_is_not_honoured() {
        let (mut random, start) = (SeededRandom::new(1), Instant::now());
        let mut cookies = Cookies::new(&mut random, start);
        let claim = claim(b"nonce", "192.0.2.1");
        let cookie = cookies.current.cookie(&claim);
        cookies.rotate(&mut random, start + 10 * SECRET_LIFE);
        assert!(!cookies.is_ours(&cookie, &claim));
    }
}

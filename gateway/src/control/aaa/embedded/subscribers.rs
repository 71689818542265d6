//! Who the embedded back end knows: the entries of a file of secrets.

use std::fmt;

use ahash::AHashMap;
use zeroize::Zeroizing;

/// Digits of an IMSI (TS 23.003 §2.2).
pub const IMSI_DIGITS: std::ops::RangeInclusive<usize> = 6..=15;

/// Subscribers by IMSI and users by name.
#[derive(Default)]
pub struct Subscribers {
    by_imsi: AHashMap<Box<str>, Subscriber>,
    users: AHashMap<Box<str>, Zeroizing<String>>,
}

/// One SIM. Holds secrets: no `Debug`.
pub struct Subscriber {
    /// The secret shared with the SIM: 16 octets, or 32 with TUAK.
    pub k: Zeroizing<Vec<u8>>,
    /// The operator's variant, bound to K: OPc (16 octets) of Milenage, TOPc (32) of TUAK.
    pub opc: Zeroizing<Vec<u8>>,
    /// The authentication functions.
    pub algorithm: Algorithm,
    /// Authentication management field (TS 33.102 Annex H).
    pub amf: [u8; 2],
    /// The SQN that it begins with, where the store has none.
    pub sqn: Option<u64>,
    /// APNs it may have, in lower case; none allows every one.
    pub apns: Option<Vec<Box<str>>>,
}

/// The authentication and key generation functions of a SIM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// TS 35.206.
    #[default]
    Milenage,
    /// TS 35.231.
    Tuak,
}

impl Subscribers {
    /// Adds a SIM; `false` when there is one with this IMSI.
    pub fn add(&mut self, imsi: &str, subscriber: Subscriber) -> bool {
        self.by_imsi.insert(imsi.into(), subscriber).is_none()
    }

    /// Adds a user with a password; `false` when there is one of this name. Case is ignored.
    pub fn add_user(&mut self, name: &str, password: Zeroizing<String>) -> bool {
        self.users.insert(name.to_lowercase().into(), password).is_none()
    }

    /// The SIM with an IMSI.
    pub fn sim(&self, imsi: &str) -> Option<&Subscriber> {
        self.by_imsi.get(imsi)
    }

    /// A user's password.
    pub fn password(&self, name: &str) -> Option<&str> {
        self.users.get(&*name.to_lowercase()).map(|password| password.as_str())
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.by_imsi.is_empty() && self.users.is_empty()
    }

    /// How many SIMs.
    pub fn sims(&self) -> usize {
        self.by_imsi.len()
    }

    /// How many users.
    pub fn users(&self) -> usize {
        self.users.len()
    }
}

impl fmt::Debug for Subscribers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} SIMs, {} users", self.sims(), self.users())
    }
}

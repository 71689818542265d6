//! Keys of a full authentication (RFC 4187 §7, RFC 9048 §3.3).

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use zeroize::Zeroizing;

use super::reauth::ReauthKeys;
use super::{Variant, fips186};
use crate::crypto::{Prf, Secret};

/// The one key derivation function of RFC 9048 §3.3: CK' and IK' of TS 33.402.
pub const KDF_CK_IK_PRIME: u16 = 1;

/// FC of CK' and IK' (TS 33.402 Annex A.2).
const FC_CK_IK_PRIME: u8 = 0x20;

/// Octets of K_encr, MSK and EMSK.
pub(super) const K_ENCR_LEN: usize = 16;
pub(super) const MSK_LEN: usize = 64;

/// What a full authentication makes.
pub struct FullKeys {
    /// Master Session Key, 64 octets: IKEv2's AUTH is made with it.
    pub msk: Secret,
    /// Extended Master Session Key, 64 octets.
    pub emsk: Secret,
    /// Keys of the packets, kept for fast re-authentication too.
    pub keys: ReauthKeys,
}

impl FullKeys {
    /// EAP-AKA: `identity` is the one the peer gave last, octet for octet.
    ///
    /// Source: RFC 4187 §7.
    pub fn aka(identity: &[u8], ck: &[u8], ik: &[u8]) -> Self {
        let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        for part in [identity, ik, ck] {
            context.update(part);
        }
        let mut master = Zeroizing::new([0; fips186::SEED_LEN]);
        master.copy_from_slice(context.finish().as_ref());
        let mut material = Zeroizing::new([0; 2 * K_ENCR_LEN + 2 * MSK_LEN]);
        fips186::generate(&master, &mut material[..]);
        Self::cut(Variant::Aka, &material[..], Some(&master[..]))
    }

    /// EAP-AKA', from CK' and IK' (see [`prime_ck_ik`]).
    ///
    /// Source: RFC 9048 §3.3.
    pub fn aka_prime(identity: &[u8], ck_prime: &[u8], ik_prime: &[u8]) -> Self {
        let key = Zeroizing::new([ik_prime, ck_prime].concat());
        let seed = [b"EAP-AKA'", identity].concat();
        let material = Prf::HmacSha2_256.plus(&key, &seed, 16 + 32 + 32 + 64 + 64);
        Self::cut(Variant::AkaPrime, material.as_bytes(), None)
    }

    /// Cuts the material: K_encr, K_aut, K_re (in EAP-AKA', where it is no master key of its own), MSK, EMSK.
    fn cut(variant: Variant, material: &[u8], master: Option<&[u8]>) -> Self {
        let (k_encr, rest) = material.split_at(K_ENCR_LEN);
        let (k_aut, rest) = rest.split_at(variant.k_aut_len());
        let (root, rest) = match master {
            Some(master) => (master, rest),
            None => rest.split_at(32),
        };
        let (msk, emsk) = rest.split_at(MSK_LEN);
        Self {
            msk: Secret::from(msk),
            emsk: Secret::from(emsk),
            keys: ReauthKeys {
                variant,
                k_encr: Secret::from(k_encr),
                k_aut: Secret::from(k_aut),
                root: Secret::from(root),
            },
        }
    }
}

/// CK' and IK': CK and IK bound to the name of the access network and to the challenge's concealed sequence number, the
/// first six octets of AUTN.
///
/// Source: TS 33.402 Annex A.2, RFC 9048 §3.3.
pub fn prime_ck_ik(ck: &[u8], ik: &[u8], network_name: &[u8], autn: &[u8; 16]) -> (Secret, Secret) {
    let key = Zeroizing::new([ck, ik].concat());
    let name_len = (network_name.len() as u16).to_be_bytes();
    let parts: [&[u8]; 5] = [&[FC_CK_IK_PRIME], network_name, &name_len, &autn[..6], &[0, 6]];
    let both = Prf::HmacSha2_256.compute(&key, &parts);
    let (ck_prime, ik_prime) = both.as_bytes().split_at(16);
    (Secret::from(ck_prime), Secret::from(ik_prime))
}

/// Whether a network name that a server gives is the one a peer is connected to: equal field by field between colons, as
/// far as the shorter of them goes.
///
/// Source: RFC 9048 §3.1.
pub fn network_name_matches(received: &[u8], local: &[u8]) -> bool {
    let colon = |octet: &u8| *octet == b':';
    received.split(colon).zip(local.split(colon)).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r9048_3_1_names_compare_by_fields() {
        for (received, local) in
            [("WLAN", "WLAN"), ("WLAN:x", "WLAN"), ("WLAN", "WLAN:x:y"), ("A:b:c", "A:b")]
        {
            assert!(network_name_matches(received.as_bytes(), local.as_bytes()), "{received} {local}");
        }
        for (received, local) in [("WLAN", "HRPD"), ("WLAN2", "WLAN"), ("WLAN:x", "WLAN:y"), ("", "WLAN")] {
            assert!(!network_name_matches(received.as_bytes(), local.as_bytes()), "{received} {local}");
        }
    }
}

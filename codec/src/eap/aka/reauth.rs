//! Keys of a fast re-authentication (RFC 4187 §7, RFC 9048 §3.3).

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use zeroize::Zeroizing;

use super::keys::MSK_LEN;
use super::{Variant, fips186};
use crate::crypto::{Prf, Secret};

/// What lives on from a full authentication: the keys of its packets, and what new MSKs are made from.
#[derive(Clone)]
pub struct ReauthKeys {
    /// The method that made them; only this method may use them.
    pub variant: Variant,
    /// Encrypts attributes, 16 octets.
    pub k_encr: Secret,
    /// Authenticates packets: 16 octets, 32 in EAP-AKA'.
    pub k_aut: Secret,
    /// MK (20 octets) in EAP-AKA, K_re (32 octets) in EAP-AKA'.
    pub(super) root: Secret,
}

/// What a fast re-authentication makes.
pub struct ReauthMsk {
    /// Master Session Key, 64 octets.
    pub msk: Secret,
    /// Extended Master Session Key, 64 octets.
    pub emsk: Secret,
}

impl ReauthKeys {
    /// New session keys; `identity` is the re-authentication identity as the peer sent it.
    pub fn derive(&self, identity: &[u8], counter: u16, nonce_s: &[u8; 16]) -> ReauthMsk {
        let counter = counter.to_be_bytes();
        match self.variant {
            Variant::Aka => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                for part in [identity, &counter, nonce_s, self.root.as_bytes()] {
                    context.update(part);
                }
                let mut xkey = Zeroizing::new([0; fips186::SEED_LEN]);
                xkey.copy_from_slice(context.finish().as_ref());
                let mut material = Zeroizing::new([0; 2 * MSK_LEN]);
                fips186::generate(&xkey, &mut material[..]);
                ReauthMsk::cut(&material[..])
            }
            Variant::AkaPrime => {
                let seed = [b"EAP-AKA' re-auth", identity, &counter, nonce_s].concat();
                let material = Prf::HmacSha2_256.plus(self.root.as_bytes(), &seed, 2 * MSK_LEN);
                ReauthMsk::cut(material.as_bytes())
            }
        }
    }
}

impl ReauthMsk {
    fn cut(material: &[u8]) -> Self {
        let (msk, emsk) = material.split_at(MSK_LEN);
        Self { msk: Secret::from(msk), emsk: Secret::from(emsk) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eap::aka::FullKeys;

    /// Both methods make other keys for another counter, nonce or identity, and the same for the same.
    #[test]
    fn r4187_7_session_keys_depend_on_everything() {
        for full in [FullKeys::aka(b"id", &[1; 16], &[2; 16]), FullKeys::aka_prime(b"id", &[1; 16], &[2; 16])]
        {
            let keys = full.keys;
            let base = keys.derive(b"4x", 1, &[5; 16]);
            assert!(base.msk == keys.derive(b"4x", 1, &[5; 16]).msk && base.msk != base.emsk);
            for other in [
                keys.derive(b"4y", 1, &[5; 16]),
                keys.derive(b"4x", 2, &[5; 16]),
                keys.derive(b"4x", 1, &[6; 16]),
            ] {
                assert!(base.msk != other.msk && base.emsk != other.emsk);
            }
        }
    }

    fn octets(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
            .collect()
    }

    /// RFC 4186 Appendix A: the re-authentication of EAP-SIM, whose keys are made as those of EAP-AKA.
    #[test]
    fn r4186_a_keys_of_a_fast_reauthentication() {
        let keys = ReauthKeys {
            variant: Variant::Aka,
            k_encr: Secret::from(&[0; 16][..]),
            k_aut: Secret::from(&[0; 16][..]),
            root: Secret::new(octets("e576d5ca332e9930018bf1baee2763c795b3c712")),
        };
        let identity = b"Y24fNSrz8BP274jOJaF17WfxI8YO7QX00pMXk9XMMVOw7broaNhTczuFq53aEpOkk3L0dm@eapsim.foo";
        let nonce_s = octets("0123456789abcdeffedcba9876543210").try_into().expect("16 octets");
        let made = keys.derive(identity, 1, &nonce_s);
        let expected = "6263f614 973895e1 335f7e30 cff028ee 2176f519 002c9abe 732fe0ef 00cf167c
                        756d9e4c ed6d5ed6 40eb3fe3 8565ca07 6e7fb8a8 17cfe8d9 adbce441 d47c4f5e";
        assert!(made.msk.as_bytes() == octets(expected));
    }
}

//! Key exchange: MODP groups 14 to 16 (RFC 3526), 1, 2 and 5 (RFC 2409, RFC 3526) where an operator names them, NIST curves 19 to 21 (RFC 5903), X25519 (RFC 8031);
//! ML-KEM is in [`super::kem`].

use aws_lc_rs::agreement::{self, Algorithm, UnparsedPublicKey};
use aws_lc_rs::kem::DecapsulationKey;
use codec_native::modp::{ModpError, ModpGroup, ModpSecret};
use zeroize::Zeroizing;

use super::kem;
use super::secret::Secret;
use crate::Random;
use crate::ike::KeGroup;

/// Diffie-Hellman groups that [`KeyExchange`] implements, strongest of their kind first.
pub const SUPPORTED_GROUPS: [KeGroup; 7] = [
    KeGroup::CURVE25519,
    KeGroup::ECP_521,
    KeGroup::ECP_384,
    KeGroup::ECP_256,
    KeGroup::MODP_4096,
    KeGroup::MODP_3072,
    KeGroup::MODP_2048,
];

/// Draws of a secret scalar before giving up. A draw fails with probability below 2^-32 on every curve.
const DRAWS_MAX: usize = 16;

/// First octet of an uncompressed point (SEC 1 §2.3.3); IKE leaves it out (RFC 5903 §7).
const UNCOMPRESSED: u8 = 4;

/// Groups for peers that know no others (RFC 8247 §2.4): never offered or taken unless an operator names them.
pub const LEGACY_GROUPS: [KeGroup; 3] = [KeGroup::MODP_1536, KeGroup::MODP_1024, KeGroup::MODP_768];

/// g^ir, the result of a key exchange.
pub type SharedSecret = Secret;

/// Why a key exchange failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeError {
    /// The group is not implemented here.
    #[error("group {0} is not supported")]
    UnsupportedGroup(KeGroup),
    /// The peer's value is not a valid public value of the group (RFC 6989 §2).
    #[error("public value is not valid in its group")]
    BadPublic,
    /// The library refused to make a key.
    #[error("no key could be made")]
    NoKey,
}

/// Our half of one key exchange. It agrees once and is gone.
pub struct KeyExchange {
    group: KeGroup,
    secret: SecretHalf,
    public: Vec<u8>,
}

enum SecretHalf {
    Curve(&'static Algorithm, agreement::PrivateKey),
    Modp(ModpSecret),
    Kem(DecapsulationKey),
}

impl KeyExchange {
    /// Draws a key pair of `group`.
    ///
    /// # Errors
    /// [`KeError::UnsupportedGroup`], or [`KeError::NoKey`] when the library fails.
    pub fn generate(group: KeGroup, random: &mut dyn Random) -> Result<Self, KeError> {
        if let Some(algorithm) = kem::algorithm(group) {
            let (secret, public) = kem::generate(algorithm)?;
            return Ok(Self { group, secret: SecretHalf::Kem(secret), public });
        }
        match modp_group(group) {
            Some(modp) => Self::generate_modp(group, modp, random),
            None => Self::generate_curve(group, random),
        }
    }

    /// The responder's part in one step: our public value or ciphertext, and the secret.
    ///
    /// # Errors
    /// As [`Self::generate`] and [`Self::agree`]; [`KeError::BadPublic`] also for an encapsulation key that fails
    /// the checks of FIPS 203 §7.2.
    pub fn answer(
        group: KeGroup,
        peer: &[u8],
        random: &mut dyn Random,
    ) -> Result<(Vec<u8>, SharedSecret), KeError> {
        if let Some(algorithm) = kem::algorithm(group) {
            return kem::encapsulate(algorithm, peer);
        }
        let own = Self::generate(group, random)?;
        let public = own.public.clone();
        own.agree(peer).map(|shared| (public, shared))
    }

    /// Whether the responder of an exchange in `group` needs the initiator's value before it can send its own.
    pub fn is_encapsulation(group: KeGroup) -> bool {
        kem::algorithm(group).is_some()
    }

    /// The group.
    pub fn group(&self) -> KeGroup {
        self.group
    }

    /// Our public value as a KE payload carries it.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Completes the exchange with the peer's public value.
    ///
    /// For the NIST curves the result is the x coordinate alone (RFC 5903 §7).
    ///
    /// # Errors
    /// [`KeError::BadPublic`] for a value of the wrong length, a MODP value outside 2 to p - 2, a point off
    /// the curve (RFC 6989 §2), or an X25519 value that leads to all zeros (RFC 7748 §6.1).
    pub fn agree(self, peer: &[u8]) -> Result<SharedSecret, KeError> {
        match self.secret {
            SecretHalf::Kem(secret) => kem::decapsulate(&secret, peer),
            SecretHalf::Modp(secret) => match secret.agree(peer) {
                Ok(mut shared) => Ok(Secret::new(std::mem::take(&mut *shared))),
                Err(ModpError::BadPublic) => Err(KeError::BadPublic),
                Err(_) => Err(KeError::NoKey),
            },
            SecretHalf::Curve(algorithm, secret) => {
                let point = point(self.group, peer);
                if point.len() != public_len(self.group) {
                    return Err(KeError::BadPublic);
                }
                agreement::agree(
                    &secret,
                    UnparsedPublicKey::new(algorithm, &point),
                    KeError::BadPublic,
                    |shared| Ok(Secret::from(shared)),
                )
            }
        }
    }

    fn generate_modp(group: KeGroup, modp: ModpGroup, random: &mut dyn Random) -> Result<Self, KeError> {
        let mut exponent = Zeroizing::new(vec![0; modp.exponent_len()]);
        random.fill(&mut exponent);
        let secret = ModpSecret::new(modp, &exponent).map_err(|_| KeError::NoKey)?;
        let public = secret.public().map_err(|_| KeError::NoKey)?;
        Ok(Self { group, secret: SecretHalf::Modp(secret), public })
    }

    fn generate_curve(group: KeGroup, random: &mut dyn Random) -> Result<Self, KeError> {
        let (algorithm, scalar_len, top_mask) = curve(group).ok_or(KeError::UnsupportedGroup(group))?;
        let mut scalar = Zeroizing::new(vec![0; scalar_len]);
        for _ in 0..DRAWS_MAX {
            random.fill(&mut scalar);
            scalar[0] &= top_mask;
            // A scalar of 0 or beyond the order is refused, and drawn again (SP 800-56A §5.6.1.2.2).
            let Ok(secret) = agreement::PrivateKey::from_private_key(algorithm, &scalar) else { continue };
            let public = secret.compute_public_key().map_err(|_| KeError::NoKey)?;
            let public = match group {
                KeGroup::CURVE25519 => public.as_ref(),
                _ => public.as_ref().strip_prefix(&[UNCOMPRESSED]).ok_or(KeError::NoKey)?,
            };
            return Ok(Self { group, public: public.to_vec(), secret: SecretHalf::Curve(algorithm, secret) });
        }
        Err(KeError::NoKey)
    }
}

fn modp_group(group: KeGroup) -> Option<ModpGroup> {
    match group {
        KeGroup::MODP_768 => Some(ModpGroup::Modp768),
        KeGroup::MODP_1024 => Some(ModpGroup::Modp1024),
        KeGroup::MODP_1536 => Some(ModpGroup::Modp1536),
        KeGroup::MODP_2048 => Some(ModpGroup::Modp2048),
        KeGroup::MODP_3072 => Some(ModpGroup::Modp3072),
        KeGroup::MODP_4096 => Some(ModpGroup::Modp4096),
        _ => None,
    }
}

/// Library algorithm, octets of a scalar, and the bits its first octet may use.
fn curve(group: KeGroup) -> Option<(&'static Algorithm, usize, u8)> {
    match group {
        KeGroup::ECP_256 => Some((&agreement::ECDH_P256, 32, 0xff)),
        KeGroup::ECP_384 => Some((&agreement::ECDH_P384, 48, 0xff)),
        KeGroup::ECP_521 => Some((&agreement::ECDH_P521, 66, 0x01)),
        KeGroup::CURVE25519 => Some((&agreement::X25519, 32, 0xff)),
        _ => None,
    }
}

/// Octets of a curve's public value as the library takes it.
fn public_len(group: KeGroup) -> usize {
    match group {
        KeGroup::ECP_256 => 1 + 64,
        KeGroup::ECP_384 => 1 + 96,
        KeGroup::ECP_521 => 1 + 132,
        _ => 32,
    }
}

/// The peer's value as the library takes it.
fn point(group: KeGroup, peer: &[u8]) -> Vec<u8> {
    match group {
        KeGroup::CURVE25519 => peer.to_vec(),
        _ => [&[UNCOMPRESSED], peer].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRandom;

    /// Replays fixed octets as randomness.
    struct Fixed<'a>(&'a [u8]);

    impl Random for Fixed<'_> {
        fn fill(&mut self, out: &mut [u8]) {
            let (now, rest) = self.0.split_at(out.len());
            out.copy_from_slice(now);
            self.0 = rest;
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn pair(group: KeGroup, seed: u64) -> (KeyExchange, KeyExchange) {
        let mut random = SeededRandom::new(seed);
        let a = KeyExchange::generate(group, &mut random).expect("supported");
        let b = KeyExchange::generate(group, &mut random).expect("supported");
        (a, b)
    }

    #[test]
    fn r7296_2_both_ends_agree_in_every_group() {
        for group in SUPPORTED_GROUPS.into_iter().chain(LEGACY_GROUPS) {
            let (a, b) = pair(group, 1);
            let public_len = match group {
                KeGroup::MODP_768 => 96,
                KeGroup::MODP_1024 => 128,
                KeGroup::MODP_1536 => 192,
                KeGroup::MODP_2048 => 256,
                KeGroup::MODP_3072 => 384,
                KeGroup::MODP_4096 => 512,
                KeGroup::ECP_256 => 64,
                KeGroup::ECP_384 => 96,
                KeGroup::ECP_521 => 132,
                _ => 32,
            };
            assert_eq!((a.public().len(), a.group()), (public_len, group));
            let (a_public, b_public) = (a.public().to_vec(), b.public().to_vec());
            assert_ne!(a_public, b_public);
            let shared = a.agree(&b_public).expect("a valid value");
            assert!(shared == b.agree(&a_public).expect("a valid value"), "{group}");
            let curve = (KeGroup::ECP_256.0..=KeGroup::ECP_521.0).contains(&group.0);
            let coordinates = if curve { 2 } else { 1 };
            assert_eq!(shared.as_bytes().len(), public_len / coordinates, "{group}");
        }
    }

    #[test]
    fn same_randomness_gives_the_same_key() {
        for group in SUPPORTED_GROUPS {
            assert_eq!(pair(group, 3).0.public(), pair(group, 3).0.public(), "{group}");
        }
    }

    /// RFC 5903 §8.1 to §8.3: i, gi, gr, and the x coordinate of g^ir.
    #[test]
    fn r5903_8_known_answers() {
        let vectors = [
            (
                KeGroup::ECP_256,
                "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
                "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180\
                 5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3",
                "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63\
                 56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB",
                "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE",
            ),
            (
                KeGroup::ECP_384,
                "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655\
                 E35B538041E649EE3FAEF896783AB194",
                "667842D7D180AC2CDE6F74F37551F55755C7645C20EF73E31634FE72B4C55EE6\
                 DE3AC808ACB4BDB4C88732AEE95F41AA9482ED1FC0EEB9CAFC4984625CCFC23F\
                 65032149E0E144ADA024181535A0F38EEB9FCFF3C2C947DAE69B4C634573A81C",
                "E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D\
                 0D1AC43A0336DEF96FDA41D0774A3571DCFBEC7AACF3196472169E838430367F\
                 66EEBE3C6E70C416DD5F0C68759DD1FFF83FA40142209DFF5EAAD96DB9E6386C",
                "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4\
                 D603135569B9E9D09CF5D4A270F59746",
            ),
            (
                KeGroup::ECP_521,
                "0037ADE9319A89F4DABDB3EF411AACCCA5123C61ACAB57B5393DCE47608172A0\
                 95AA85A30FE1C2952C6771D937BA9777F5957B2639BAB072462F68C27A57382D4A52",
                "0015417E84DBF28C0AD3C278713349DC7DF153C897A1891BD98BAB4357C9ECBE\
                 E1E3BF42E00B8E380AEAE57C2D107564941885942AF5A7F4601723C4195D176CED3E\
                 017CAE20B6641D2EEB695786D8C946146239D099E18E1D5A514C739D7CB4A10A\
                 D8A788015AC405D7799DC75E7B7D5B6CF2261A6A7F1507438BF01BEB6CA3926F9582",
                "00D0B3975AC4B799F5BEA16D5E13E9AF971D5E9B984C9F39728B5E5739735A21\
                 9B97C356436ADC6E95BB0352F6BE64A6C2912D4EF2D0433CED2B6171640012D9460F\
                 015C68226383956E3BD066E797B623C27CE0EAC2F551A10C2C724D9852077B87\
                 220B6536C5C408A1D2AEBB8E86D678AE49CB57091F4732296579AB44FCD17F0FC56A",
                "01144C7D79AE6956BC8EDB8E7C787C4521CB086FA64407F97894E5E6B2D79B04\
                 D1427E73CA4BAA240A34786859810C06B3C715A3A8CC3151F2BEE417996D19F3DDEA",
            ),
        ];
        for (group, secret, public, peer, shared) in vectors {
            let secret = hex(secret);
            let ours = KeyExchange::generate(group, &mut Fixed(&secret)).expect("a valid scalar");
            assert_eq!(ours.public(), hex(public), "{group}");
            assert_eq!(ours.agree(&hex(peer)).expect("valid").as_bytes(), hex(shared), "{group}");
        }
    }

    /// RFC 7748 §6.1, as RFC 8031 §2 uses it.
    #[test]
    fn r8031_x25519_known_answer() {
        let secret = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let ours = KeyExchange::generate(KeGroup::CURVE25519, &mut Fixed(&secret)).expect("any scalar");
        let public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
        assert_eq!(ours.public(), hex(public));
        let peer = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
        assert_eq!(ours.agree(&peer).expect("valid").as_bytes(), hex(shared));
    }

    #[test]
    fn r6989_2_invalid_public_values_are_refused() {
        for group in SUPPORTED_GROUPS.into_iter().chain(LEGACY_GROUPS) {
            let refuse = |peer: &[u8], why: &str| {
                let ours = pair(group, 2).0;
                assert_eq!(ours.agree(peer).err(), Some(KeError::BadPublic), "{group}: {why}");
            };
            let good = pair(group, 2).1.public().to_vec();
            refuse(&[], "empty");
            refuse(&good[1..], "an octet less");
            refuse(&[&good[..], &[0]].concat(), "an octet more");
            refuse(&vec![0; good.len()], "zero");
            if group == KeGroup::CURVE25519 {
                continue;
            }
            refuse(&vec![0xff; good.len()], "beyond the prime");
            if group.0 >= KeGroup::ECP_256.0 {
                let mut off = good.clone();
                off[good.len() - 1] ^= 1;
                refuse(&off, "off the curve");
                refuse(&[&[4], &good[..good.len() - 1]].concat(), "with the format octet");
            } else {
                let mut one = vec![0; good.len()];
                one[good.len() - 1] = 1;
                refuse(&one, "one");
            }
        }
    }

    /// Points of small order lead to zero whatever the scalar (RFC 7748 §6.1).
    #[test]
    fn r8031_3_x25519_points_of_small_order_are_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        let order_eight = hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
        for peer in [&one[..], &minus_one, &order_eight] {
            let ours = pair(KeGroup::CURVE25519, 4).0;
            assert_eq!(ours.agree(peer).err(), Some(KeError::BadPublic), "{peer:02x?}");
        }
    }

    #[test]
    fn r8031_2_x25519_ignores_the_top_bit_of_a_value() {
        let (a, b) = pair(KeGroup::CURVE25519, 5);
        let mut peer = b.public().to_vec();
        let shared = pair(KeGroup::CURVE25519, 5).0.agree(&peer).expect("valid");
        peer[31] ^= 0x80;
        assert!(a.agree(&peer).expect("the bit is masked") == shared);
    }

    #[test]
    fn r8247_2_4_weak_groups_are_not_there() {
        // Those with small subgroups; 1, 2 and 5 are there for operators who name them.
        for group in [KeGroup::NONE, KeGroup(22), KeGroup(23), KeGroup(24)] {
            let made = KeyExchange::generate(group, &mut SeededRandom::new(1));
            assert_eq!(made.err(), Some(KeError::UnsupportedGroup(group)));
        }
    }
}

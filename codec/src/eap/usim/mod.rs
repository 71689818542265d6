//! What a USIM and an authentication centre compute from K: AKA of TS 33.102 §6.3 over Milenage or TUAK.

mod milenage;
mod tuak;

pub use milenage::Milenage;
pub use tuak::{Tuak, TuakOutputs};

use crate::crypto::Secret;

/// A sequence number: 48 bits, SEQ in the upper 43 and IND in the lower 5 (TS 33.102 Annex C.1.1.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Sqn(u64);

impl Sqn {
    /// Bits of the index.
    pub const IND_BITS: u32 = 5;
    /// The greatest sequence number.
    pub const MAX: Self = Self((1 << 48) - 1);

    /// Takes the lower 48 bits.
    pub fn new(value: u64) -> Self {
        Self(value & Self::MAX.0)
    }

    /// Takes six octets, big-endian.
    pub fn from_octets([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// Six octets, big-endian.
    pub fn octets(self) -> [u8; 6] {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// As an integer below 2^48.
    pub fn value(self) -> u64 {
        self.0
    }

    /// The part that must grow.
    pub fn seq(self) -> u64 {
        self.0 >> Self::IND_BITS
    }

    /// The entry of the USIM's array that `seq` is compared with, 0 to 31.
    pub fn ind(self) -> u8 {
        (self.0 & ((1 << Self::IND_BITS) - 1)) as u8
    }
}

/// Random challenge.
pub type Rand = [u8; 16];

/// SQN xor AK (6 octets), AMF (2), MAC-A (8).
pub type Autn = [u8; 16];

/// SQN_MS xor AK* (6 octets), MAC-S (8).
pub type Auts = [u8; 14];

/// The AMF under which MAC-S is computed (TS 33.102 §6.3.3).
const AMF_RESYNC: [u8; 2] = [0, 0];

/// A quintet, as an authentication centre hands it out once.
pub struct AuthVector {
    /// Challenge.
    pub rand: Rand,
    /// The network's proof.
    pub autn: Autn,
    /// What the USIM answers, 4 to 16 octets.
    pub xres: Secret,
    /// Cipher key, 16 octets.
    pub ck: Secret,
    /// Integrity key, 16 octets.
    pub ik: Secret,
}

/// What a USIM says to an authentic challenge.
pub struct Answer {
    /// The network's sequence number: the caller compares it with its own.
    pub sqn: Sqn,
    /// Its authentication management field; the highest bit is the separation bit (TS 33.402 §6.1).
    pub amf: [u8; 2],
    /// The response.
    pub res: Secret,
    /// Cipher key, 16 octets.
    pub ck: Secret,
    /// Integrity key, 16 octets.
    pub ik: Secret,
}

/// AUTN or AUTS was not made with our K.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrongMac;

/// The functions f1 to f5* with a subscriber's keys.
#[derive(Clone)]
pub enum Usim {
    /// TS 35.206, on AES.
    Milenage(Milenage),
    /// TS 35.231, on Keccak.
    Tuak(Tuak),
}

/// f2 to f5 of one challenge.
struct Outputs {
    res: Secret,
    ck: Secret,
    ik: Secret,
    ak: [u8; 6],
}

impl Usim {
    /// Makes the quintet of `rand` and `sqn`.
    pub fn vector(&self, rand: &Rand, sqn: Sqn, amf: [u8; 2]) -> AuthVector {
        let outputs = self.f2345(rand);
        let mut autn = [0; 16];
        let [concealed @ .., _, _, _, _, _, _, _, _, _, _] = &mut autn;
        *concealed = xor(sqn.octets(), outputs.ak);
        autn[6..8].copy_from_slice(&amf);
        autn[8..].copy_from_slice(&self.f1(rand, sqn, amf));
        AuthVector { rand: *rand, autn, xres: outputs.res, ck: outputs.ck, ik: outputs.ik }
    }

    /// Answers a challenge; whether its sequence number is fresh is for the caller to say.
    ///
    /// # Errors
    /// [`WrongMac`]: the network does not know K.
    pub fn answer(&self, rand: &Rand, autn: &Autn) -> Result<Answer, WrongMac> {
        let [a, b, c, d, e, f, amf @ .., _, _, _, _, _, _, _, _] = *autn;
        let outputs = self.f2345(rand);
        let sqn = Sqn::from_octets(xor([a, b, c, d, e, f], outputs.ak));
        if !codec_native::constant_time_eq(&self.f1(rand, sqn, amf), &autn[8..]) {
            return Err(WrongMac);
        }
        Ok(Answer { sqn, amf, res: outputs.res, ck: outputs.ck, ik: outputs.ik })
    }

    /// Tells the network the sequence number that this USIM is at.
    pub fn auts(&self, rand: &Rand, sqn_ms: Sqn) -> Auts {
        let mut auts = [0; 14];
        auts[..6].copy_from_slice(&xor(sqn_ms.octets(), self.f5_star(rand)));
        auts[6..].copy_from_slice(&self.f1_star(rand, sqn_ms, AMF_RESYNC));
        auts
    }

    /// Reads the sequence number that a USIM is at from its answer to the challenge `rand`.
    ///
    /// # Errors
    /// [`WrongMac`]: it is not from this USIM, or not about this challenge.
    pub fn resynchronise(&self, rand: &Rand, auts: &Auts) -> Result<Sqn, WrongMac> {
        let [a, b, c, d, e, f, mac_s @ ..] = *auts;
        let sqn_ms = Sqn::from_octets(xor([a, b, c, d, e, f], self.f5_star(rand)));
        let expected = self.f1_star(rand, sqn_ms, AMF_RESYNC);
        if codec_native::constant_time_eq(&expected, &mac_s) { Ok(sqn_ms) } else { Err(WrongMac) }
    }

    fn f1(&self, rand: &Rand, sqn: Sqn, amf: [u8; 2]) -> [u8; 8] {
        match self {
            Self::Milenage(milenage) => milenage.f1_both(rand, sqn, amf).0,
            Self::Tuak(tuak) => tuak.mac_64(false, rand, sqn, amf),
        }
    }

    fn f1_star(&self, rand: &Rand, sqn: Sqn, amf: [u8; 2]) -> [u8; 8] {
        match self {
            Self::Milenage(milenage) => milenage.f1_both(rand, sqn, amf).1,
            Self::Tuak(tuak) => tuak.mac_64(true, rand, sqn, amf),
        }
    }

    fn f2345(&self, rand: &Rand) -> Outputs {
        match self {
            Self::Milenage(milenage) => milenage.f2345(rand),
            Self::Tuak(tuak) => tuak.f2345_for_aka(rand),
        }
    }

    fn f5_star(&self, rand: &Rand) -> [u8; 6] {
        match self {
            Self::Milenage(milenage) => milenage.f5_star(rand),
            Self::Tuak(tuak) => tuak.f5_star(rand),
        }
    }
}

fn xor<const N: usize>(a: [u8; N], b: [u8; N]) -> [u8; N] {
    std::array::from_fn(|at| a[at] ^ b[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> [Usim; 2] {
        [
            Usim::Milenage(Milenage::with_op(&[0x46; 16], &[0xcd; 16])),
            Usim::Tuak(Tuak::with_top(&[0xab; 16], &[0x55; 32], 1, 8).expect("16 octets of K")),
        ]
    }

    #[test]
    fn ts33102_6_3_a_usim_answers_what_its_centre_asked() {
        for usim in both() {
            let sqn = Sqn::new(0x0000_1234_5678);
            let vector = usim.vector(&[7; 16], sqn, [0x80, 0]);
            let answer = usim.answer(&vector.rand, &vector.autn).expect("our own");
            assert_eq!((answer.sqn, answer.amf), (sqn, [0x80, 0]));
            assert!(answer.res == vector.xres && answer.ck == vector.ck && answer.ik == vector.ik);
            for at in 0..16 {
                let mut autn = vector.autn;
                autn[at] ^= 1;
                assert!(usim.answer(&vector.rand, &autn).is_err(), "octet {at}");
            }
        }
    }

    #[test]
    fn ts33102_6_3_5_resynchronisation_tells_where_the_usim_is() {
        for usim in both() {
            let mut auts = usim.auts(&[7; 16], Sqn::new(0xff_0000_0021));
            assert_eq!(usim.resynchronise(&[7; 16], &auts), Ok(Sqn::new(0xff_0000_0021)));
            assert_eq!(usim.resynchronise(&[8; 16], &auts), Err(WrongMac), "of another challenge");
            auts[13] ^= 1;
            assert_eq!(usim.resynchronise(&[7; 16], &auts), Err(WrongMac));
        }
    }

    #[test]
    fn sequence_numbers_have_48_bits() {
        let sqn = Sqn::new(u64::MAX);
        assert_eq!((sqn, sqn.ind(), sqn.seq()), (Sqn::MAX, 31, (1 << 43) - 1));
        assert_eq!(Sqn::from_octets(sqn.octets()), sqn);
        assert_eq!(Sqn::from_octets([0, 0, 0, 0, 0, 0x21]).seq(), 1);
    }
}

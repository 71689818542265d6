//! TUAK (TS 35.231): f1 to f5* on Keccak-f[1600].

use keccak::Keccak;
use zeroize::Zeroizing;

use super::{Outputs, Rand, Sqn};
use crate::crypto::Secret;

/// Octets of the permutation's state, and its lanes.
const STATE_LEN: usize = 200;
const LANES: usize = STATE_LEN / 8;

/// "TUAK1.0" (TS 35.231 §6.1).
const ALGONAME: &[u8; 7] = b"TUAK1.0";

/// Where the inputs stand in the state (TS 35.231 §6.1).
const INSTANCE_AT: usize = 32;
const ALGONAME_AT: usize = 33;
const RAND_AT: usize = 40;
const AMF_AT: usize = 56;
const SQN_AT: usize = 58;
const KEY_AT: usize = 64;

/// The padding of the sponge with its domain bits.
const PADDING_FIRST: (usize, u8) = (96, 0x1f);
const PADDING_LAST: (usize, u8) = (135, 0x80);

/// Where the outputs stand.
const CK_AT: usize = 32;
const IK_AT: usize = 64;
const AK_AT: usize = 96;

/// INSTANCE of the functions, without the lengths (TS 35.231 §6.2 to §6.6).
const F1: u8 = 0x00;
const F1_STAR: u8 = 0x80;
const F2345: u8 = 0x40;
const F5_STAR: u8 = 0xc0;

/// Most iterations of Keccak-f that a subscriber is given; TS 35.231 has 1, or a few where an operator wants margin.
const ITERATIONS_MAX: u8 = 16;

/// A subscriber's K with the operator's constant folded in.
#[derive(Clone)]
pub struct Tuak {
    /// 16 or 32 octets.
    k: Secret,
    /// 32 octets.
    topc: Secret,
    iterations: u8,
    res_len: usize,
}

/// f2, f3, f4 and f5 with lengths as asked.
pub struct TuakOutputs {
    /// Response: 4, 8, 16 or 32 octets.
    pub res: Secret,
    /// Cipher key: 16 or 32 octets.
    pub ck: Secret,
    /// Integrity key: 16 or 32 octets.
    pub ik: Secret,
    /// Anonymity key.
    pub ak: [u8; 6],
}

impl Tuak {
    /// With TOPc, as SIM vendors deliver it. `None` unless K has 16 or 32 octets, the response 4, 8 or 16 (which is what
    /// EAP-AKA carries, RFC 4187 §10.8) and there are 1 to 16 iterations.
    pub fn with_topc(k: &[u8], topc: &[u8; 32], iterations: u8, res_len: usize) -> Option<Self> {
        let possible = matches!(k.len(), 16 | 32)
            && matches!(res_len, 4 | 8 | 16)
            && (1..=ITERATIONS_MAX).contains(&iterations);
        possible.then(|| Self { k: Secret::from(k), topc: Secret::from(&topc[..]), iterations, res_len })
    }

    /// With the operator's TOP; bounds as for [`Self::with_topc`].
    pub fn with_top(k: &[u8], top: &[u8; 32], iterations: u8, res_len: usize) -> Option<Self> {
        let mut tuak = Self::with_topc(k, top, iterations, res_len)?;
        let out = tuak.permuted(F1 | tuak.key_code(), &[0; 16], [0; 2], Sqn::default());
        tuak.topc = pulled(&out, 0, 32);
        Some(tuak)
    }

    /// TOPc, to be checked against a SIM vendor's.
    pub fn topc(&self) -> &[u8] {
        self.topc.as_bytes()
    }

    /// MAC-A of f1, or MAC-S of f1* if `star`: 8, 16 or 32 octets.
    ///
    /// # Panics
    /// If TUAK has no MAC of that length.
    pub fn mac(&self, star: bool, rand: &Rand, sqn: Sqn, amf: [u8; 2], len: usize) -> Secret {
        let function = if star { F1_STAR } else { F1 };
        let out = self.permuted(function | length_code(len) | self.key_code(), rand, amf, sqn);
        pulled(&out, 0, len)
    }

    /// f2 to f5 with the lengths asked for.
    ///
    /// # Panics
    /// If TUAK has no output of such a length.
    pub fn f2345(&self, rand: &Rand, res_len: usize, ck_len: usize, ik_len: usize) -> TuakOutputs {
        let long = |len, code| if len == 32 { code } else { 0 };
        let code = length_code(res_len) | long(ck_len, 0x04) | long(ik_len, 0x02);
        let out = self.permuted(F2345 | code | self.key_code(), rand, [0; 2], Sqn::default());
        TuakOutputs {
            res: pulled(&out, 0, res_len),
            ck: pulled(&out, CK_AT, ck_len),
            ik: pulled(&out, IK_AT, ik_len),
            ak: anonymity_key(&out),
        }
    }

    /// AK*, which conceals the sequence number of a resynchronisation.
    pub fn f5_star(&self, rand: &Rand) -> [u8; 6] {
        anonymity_key(&self.permuted(F5_STAR | self.key_code(), rand, [0; 2], Sqn::default()))
    }

    /// MACs of the length that AUTN and AUTS carry.
    pub(super) fn mac_64(&self, star: bool, rand: &Rand, sqn: Sqn, amf: [u8; 2]) -> [u8; 8] {
        self.mac(star, rand, sqn, amf, 8).as_bytes().try_into().expect("8 octets asked for")
    }

    /// Keys of the length that EAP-AKA uses.
    pub(super) fn f2345_for_aka(&self, rand: &Rand) -> Outputs {
        let TuakOutputs { res, ck, ik, ak } = self.f2345(rand, self.res_len, 16, 16);
        Outputs { res, ck, ik, ak }
    }

    fn key_code(&self) -> u8 {
        u8::from(self.k.as_bytes().len() == 32)
    }

    /// Fills the state and permutes it.
    fn permuted(&self, instance: u8, rand: &Rand, amf: [u8; 2], sqn: Sqn) -> Zeroizing<[u8; STATE_LEN]> {
        let mut state = Zeroizing::new([0; STATE_LEN]);
        push(&mut state[..], 0, self.topc.as_bytes());
        state[INSTANCE_AT] = instance;
        push(&mut state[..], ALGONAME_AT, ALGONAME);
        push(&mut state[..], RAND_AT, rand);
        push(&mut state[..], AMF_AT, &amf);
        push(&mut state[..], SQN_AT, &sqn.octets());
        push(&mut state[..], KEY_AT, self.k.as_bytes());
        for (at, octet) in [PADDING_FIRST, PADDING_LAST] {
            state[at] = octet;
        }
        let mut lanes = Zeroizing::new([0u64; LANES]);
        for (lane, octets) in lanes.iter_mut().zip(state.as_chunks().0) {
            *lane = u64::from_le_bytes(*octets);
        }
        for _ in 0..self.iterations {
            Keccak::new().with_f1600(|f1600| f1600(&mut lanes));
        }
        for (lane, octets) in lanes.iter().zip(state.as_chunks_mut().0) {
            *octets = lane.to_le_bytes();
        }
        state
    }
}

/// Bits 3 to 5 of INSTANCE: the length of a MAC or response.
fn length_code(len: usize) -> u8 {
    match len {
        4 => 0x00,
        8 => 0x08,
        16 => 0x10,
        32 => 0x20,
        other => panic!("TUAK has no output of {other} octets"),
    }
}

/// Values stand in the state with their last octet first.
fn push(state: &mut [u8], at: usize, value: &[u8]) {
    for (place, octet) in state[at..].iter_mut().zip(value.iter().rev()) {
        *place = *octet;
    }
}

fn pulled(state: &[u8; STATE_LEN], at: usize, len: usize) -> Secret {
    let mut value = state[at..at + len].to_vec();
    value.reverse();
    Secret::new(value)
}

fn anonymity_key(state: &[u8; STATE_LEN]) -> [u8; 6] {
    pulled(state, AK_AT, 6).as_bytes().try_into().expect("6 octets asked for")
}

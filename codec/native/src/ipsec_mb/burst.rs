//! AES-CBC and HMAC over many packets at once.

use std::mem::MaybeUninit;
use std::process;

use super::ffi::{RawCipherJob, RawHashJob, mb_aes_expand, mb_cipher, mb_hash};
use super::{BURST_MAX, CipherJob, Direction, HashJob, IpsecMb, JOB_LEN_MAX, Vectors};
use crate::cbc::BLOCK_LEN;
use crate::cleanse;
use crate::hmac::{HmacAlgorithm, HmacKey};

/// Octets of the longest chaining value.
const CHAIN_LEN_MAX: usize = 64;

/// Octets of the longest AES key schedule: 14 rounds and the key.
const SCHEDULE_LEN: usize = 15 * BLOCK_LEN;

/// The chaining values of an HMAC key as the library wants them. Wiped on drop.
#[repr(C, align(16))]
pub struct HmacPads {
    inner: [u8; CHAIN_LEN_MAX],
    outer: [u8; CHAIN_LEN_MAX],
    algorithm: HmacAlgorithm,
}

impl HmacPads {
    /// Takes over what `key` has hashed.
    pub fn new(_library: IpsecMb, key: &HmacKey) -> Self {
        let (inner, outer) = key.pads();
        let algorithm = key.algorithm();
        let mut pads = Self { inner: [0; CHAIN_LEN_MAX], outer: [0; CHAIN_LEN_MAX], algorithm };
        for (from, to) in [(inner, &mut pads.inner), (outer, &mut pads.outer)] {
            to[..from.len()].copy_from_slice(from);
            // The one library exports big-endian words, the other works on the processor's: little-endian.
            to.chunks_exact_mut(algorithm.word_len()).for_each(<[u8]>::reverse);
        }
        pads
    }
}

impl Drop for HmacPads {
    fn drop(&mut self) {
        // SAFETY: plain octets, both.
        unsafe {
            cleanse(&mut self.inner);
            cleanse(&mut self.outer);
        }
    }
}

/// An AES key schedule for one direction. Wiped on drop.
#[repr(C, align(16))]
pub struct CbcSchedule {
    rounds: [u8; SCHEDULE_LEN],
    key_len: usize,
    direction: Direction,
}

impl CbcSchedule {
    /// Expands a key of 16, 24 or 32 octets; `None` for any other length.
    pub fn new(library: IpsecMb, direction: Direction, key: &[u8]) -> Option<Self> {
        if ![16, 24, 32].contains(&key.len()) {
            return None;
        }
        let mut schedule = Self { rounds: [0; SCHEDULE_LEN], key_len: key.len(), direction };
        let mut other = Self { rounds: [0; SCHEDULE_LEN], key_len: key.len(), direction };
        let (encrypt, decrypt) = match direction {
            Direction::Encrypt => (&mut schedule, &mut other),
            Direction::Decrypt => (&mut other, &mut schedule),
        };
        // SAFETY: the key has one of the three lengths; both schedules have room for the longest and the
        // alignment of their type.
        unsafe {
            let (encrypt, decrypt) = (encrypt.rounds.as_mut_ptr(), decrypt.rounds.as_mut_ptr());
            mb_aes_expand(library.functions(), key.len(), key.as_ptr(), encrypt, decrypt);
        }
        Some(schedule)
    }

    /// Octets of the key.
    pub fn key_len(&self) -> usize {
        self.key_len
    }
}

impl Drop for CbcSchedule {
    fn drop(&mut self) {
        // SAFETY: plain octets.
        unsafe { cleanse(&mut self.rounds) };
    }
}

impl IpsecMb {
    /// Computes the truncated HMACs of `jobs`, whatever their number.
    ///
    /// # Panics
    /// Unless every text has 1 to [`JOB_LEN_MAX`] octets and every key is for `algorithm`.
    pub fn hash<'a>(
        self,
        vectors: Vectors,
        algorithm: HmacAlgorithm,
        jobs: impl IntoIterator<Item = HashJob<'a>>,
    ) {
        let raw = jobs.into_iter().map(|job| {
            assert!((1..=JOB_LEN_MAX).contains(&job.text.len()), "a text fits a lane");
            assert!(job.pads.algorithm == algorithm, "one hash per burst");
            RawHashJob {
                inner: job.pads.inner.as_ptr(),
                outer: job.pads.outer.as_ptr(),
                text: job.text.as_ptr(),
                text_len: job.text.len(),
                icv: job.icv.as_mut_ptr(),
            }
        });
        let icv_len = algorithm.truncated_len();
        in_bursts(raw, |raw, count| {
            // SAFETY: `count` jobs are filled in and every pointer in them comes from a borrow that lasts
            // longer than this call; lengths were checked; an ICV has room for the longest truncation; the
            // pads have the layout of the hash and the alignment of their type.
            self.with_lanes(vectors, |lanes| unsafe { mb_hash(lanes, icv_len, raw, count) })
        });
    }

    /// Runs AES-CBC in place over `jobs`, whatever their number.
    ///
    /// # Panics
    /// Unless every text is one block of initialisation vector and then 1 or more whole blocks, at most
    /// [`JOB_LEN_MAX`] octets, and every schedule is for `direction` and keys of `key_len` octets.
    pub fn cbc<'a>(
        self,
        vectors: Vectors,
        direction: Direction,
        key_len: usize,
        jobs: impl IntoIterator<Item = CipherJob<'a>>,
    ) {
        let raw = jobs.into_iter().map(|job| {
            let (iv, text) = job.text.split_at_mut(BLOCK_LEN);
            assert!(text.len() % BLOCK_LEN == 0, "whole blocks");
            assert!((BLOCK_LEN..=JOB_LEN_MAX).contains(&text.len()), "a text fits a lane");
            let schedule = job.schedule;
            assert!(
                schedule.key_len == key_len && schedule.direction == direction,
                "one kind of key per burst"
            );
            RawCipherJob {
                schedule: schedule.rounds.as_ptr(),
                iv: iv.as_ptr(),
                text: text.as_mut_ptr(),
                text_len: text.len(),
            }
        });
        let encrypt = (direction == Direction::Encrypt).into();
        in_bursts(raw, |raw, count| {
            // SAFETY: as in `hash`; texts are whole blocks, each schedule is for this key length and direction,
            // and no two jobs share a text, which is borrowed exclusively.
            self.with_lanes(vectors, |lanes| unsafe { mb_cipher(lanes, encrypt, key_len, raw, count) })
        });
    }
}

/// Collects jobs on the stack and hands them to `submit` as many at a time as the library takes.
fn in_bursts<Job>(jobs: impl Iterator<Item = Job>, mut submit: impl FnMut(*const Job, usize) -> usize) {
    let mut raw = [const { MaybeUninit::<Job>::uninit() }; BURST_MAX];
    let mut count = 0;
    let mut submit = |raw: &[MaybeUninit<Job>; BURST_MAX], count: usize| {
        if submit(raw.as_ptr().cast(), count) != count {
            // The library still holds pointers into borrowed memory: there is no way on.
            process::abort();
        }
    };
    for job in jobs {
        raw[count].write(job);
        count += 1;
        if count == BURST_MAX {
            submit(&raw, count);
            count = 0;
        }
    }
    if count > 0 {
        submit(&raw, count);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ICV_LEN_MAX, available};
    use super::*;
    use crate::cbc::CbcEncryptKey;

    const HASHES: [HmacAlgorithm; 4] =
        [HmacAlgorithm::Sha1, HmacAlgorithm::Sha256, HmacAlgorithm::Sha384, HmacAlgorithm::Sha512];

    fn text(seed: usize, len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 + seed) as u8).collect()
    }

    #[test]
    fn bursts_of_every_size_hash_as_single_packets_do() {
        let Some(library) = available() else { return };
        for algorithm in HASHES {
            for vectors in [Vectors::Narrow, Vectors::Wide] {
                for count in [1, 2, 7, 8, 16, 17, 128, 129, 300] {
                    let texts: Vec<_> = (0..count).map(|at| text(at, 1 + at * 13 % 1500)).collect();
                    let keys: Vec<_> = (0..count)
                        .map(|at| HmacKey::new(algorithm, &text(at, algorithm.tag_len())))
                        .collect();
                    let pads: Vec<_> = keys.iter().map(|key| HmacPads::new(library, key)).collect();
                    let mut icvs = vec![[0; ICV_LEN_MAX]; count];
                    let jobs = pads.iter().zip(&texts).zip(&mut icvs);
                    library.hash(
                        vectors,
                        algorithm,
                        jobs.map(|((pads, text), icv)| HashJob { pads, text, icv }),
                    );
                    let len = algorithm.truncated_len();
                    for ((key, text), icv) in keys.iter().zip(&texts).zip(&icvs) {
                        assert_eq!(icv[..len], key.tag(&[text])[..len], "{algorithm:?} {vectors:?} {count}");
                    }
                }
            }
        }
    }

    #[test]
    fn bursts_of_every_size_run_cbc_as_single_packets_do() {
        let Some(library) = available() else { return };
        for key_len in [16, 24, 32] {
            for vectors in [Vectors::Narrow, Vectors::Wide] {
                for count in [1, 5, 16, 31, 130] {
                    let keys: Vec<_> = (0..count).map(|at| text(at, key_len)).collect();
                    let plain: Vec<_> = (0..count).map(|at| text(at, 32 + 16 * (at * 7 % 90))).collect();
                    let mut texts = plain.clone();
                    run(library, vectors, Direction::Encrypt, &keys, &mut texts);
                    for ((key, plain), text) in keys.iter().zip(&plain).zip(&texts) {
                        let mut want = plain.clone();
                        let (iv, body) = want.split_first_chunk_mut().unwrap();
                        CbcEncryptKey::new(key).unwrap().encrypt_in_place(&mut iv.clone(), body).unwrap();
                        assert_eq!(text, &want, "{key_len}-octet key, {vectors:?}, {count}");
                    }
                    run(library, vectors, Direction::Decrypt, &keys, &mut texts);
                    assert_eq!(texts, plain, "{key_len}-octet key, {vectors:?}, {count}");
                }
            }
        }
    }

    fn run(library: IpsecMb, vectors: Vectors, way: Direction, keys: &[Vec<u8>], texts: &mut [Vec<u8>]) {
        let schedules: Vec<_> = keys.iter().map(|key| CbcSchedule::new(library, way, key).unwrap()).collect();
        let jobs = schedules.iter().zip(texts);
        library.cbc(vectors, way, keys[0].len(), jobs.map(|(schedule, text)| CipherJob { schedule, text }));
    }

    #[test]
    fn the_longest_job_is_right_and_one_octet_more_is_refused() {
        let Some(library) = available() else { return };
        let key = HmacKey::new(HmacAlgorithm::Sha256, &[1; 32]);
        let pads = HmacPads::new(library, &key);
        let long = text(0, JOB_LEN_MAX + 1);
        let hash = |text: &[u8]| {
            let mut icv = [0; ICV_LEN_MAX];
            library.hash(
                Vectors::Wide,
                HmacAlgorithm::Sha256,
                [HashJob { pads: &pads, text, icv: &mut icv }],
            );
            icv
        };
        assert_eq!(hash(&long[1..])[..16], key.tag(&[&long[1..]])[..16]);
        assert!(std::panic::catch_unwind(|| hash(&long)).is_err());
        assert!(std::panic::catch_unwind(|| hash(&[])).is_err());
    }
}

//! A short contest of the libraries at start.

use std::time::{Duration, Instant};

use codec_native::aead::{AeadAlgorithm, AeadKey, NONCE_LEN};
use codec_native::cbc::{BLOCK_LEN, CbcEncryptKey};
use codec_native::hmac::{HmacAlgorithm, HmacKey};
use codec_native::ipsec_mb::{
    CbcSchedule, CipherJob, Direction, GcmKey, HashJob, HmacPads, ICV_LEN_MAX, IpsecMb, Vectors,
};

use super::backend::{ALGORITHMS, Backend, BySize, Choice, Engine, SIZES};

/// Octets of a packet in the contest: between voice and bulk, and whole blocks.
const PACKET_LEN: usize = 768;

/// Runs of each candidate, of which the best counts: the others were interrupted.
const RUNS: usize = 4;

/// Packets of an AEAD run: some tens of microseconds.
const AEAD_PACKETS: usize = 64;

const KEY_FITS: &str = "a key of the right length";

/// What is fastest here.
pub(super) fn fastest(library: IpsecMb) -> Choice {
    Choice {
        aes128_gcm: gcm(library, AeadAlgorithm::Aes128Gcm),
        aes256_gcm: gcm(library, AeadAlgorithm::Aes256Gcm),
        hash: ALGORITHMS.map(|algorithm| hash(library, algorithm)),
        encrypt: encrypt(library),
    }
}

fn gcm(library: IpsecMb, algorithm: AeadAlgorithm) -> Backend {
    let raw = vec![1; algorithm.key_len()];
    let (aws_lc, ipsec_mb) =
        (AeadKey::new(algorithm, &raw).expect(KEY_FITS), GcmKey::new(library, &raw).expect(KEY_FITS));
    let mut text = [0; PACKET_LEN];
    let nonce = [0; NONCE_LEN];
    best([Backend::AwsLc, Backend::IpsecMb], |backend| {
        for _ in 0..AEAD_PACKETS {
            match backend {
                Backend::AwsLc => aws_lc.seal_in_place(&nonce, &[0; 8], &mut text),
                Backend::IpsecMb => ipsec_mb.seal_in_place(&nonce, &[0; 8], &mut text),
            };
        }
    })
}

fn hash(library: IpsecMb, algorithm: HmacAlgorithm) -> BySize {
    let key = HmacKey::new(algorithm, &[1; 64]);
    let pads = HmacPads::new(library, &key);
    let texts = [[0; PACKET_LEN]; SIZES[SIZES.len() - 1]];
    SIZES.map(|count| {
        best(engines(library), |engine| match engine {
            Engine::Single => texts[..count].iter().for_each(|text| {
                key.tag(&[text]);
            }),
            Engine::Burst(vectors) => {
                let mut icvs = [[0; ICV_LEN_MAX]; SIZES[SIZES.len() - 1]];
                let jobs = texts[..count].iter().zip(&mut icvs);
                library.hash(vectors, algorithm, jobs.map(|(text, icv)| HashJob { pads: &pads, text, icv }));
            }
        })
    })
}

fn encrypt(library: IpsecMb) -> BySize {
    let raw = [1; 32];
    let key = CbcEncryptKey::new(&raw).expect(KEY_FITS);
    let schedule = CbcSchedule::new(library, Direction::Encrypt, &raw).expect(KEY_FITS);
    let mut texts = [[0; PACKET_LEN]; SIZES[SIZES.len() - 1]];
    SIZES.map(|count| {
        best(engines(library), |engine| {
            let texts = texts[..count].iter_mut();
            match engine {
                Engine::Single => texts.for_each(|text| {
                    key.encrypt_in_place(&mut [0; BLOCK_LEN], text).expect("whole blocks");
                }),
                Engine::Burst(vectors) => {
                    let jobs = texts.map(|text| CipherJob { schedule: &schedule, text });
                    library.cbc(vectors, Direction::Encrypt, raw.len(), jobs);
                }
            }
        })
    })
}

/// What can run here.
fn engines(library: IpsecMb) -> impl Iterator<Item = Engine> {
    let wide = library.is_wide().then_some(Engine::Burst(Vectors::Wide));
    [Engine::Single, Engine::Burst(Vectors::Narrow)].into_iter().chain(wide)
}

/// The candidate whose best run is the shortest; the first of equals.
fn best<Candidate: Copy>(
    candidates: impl IntoIterator<Item = Candidate>,
    mut run: impl FnMut(Candidate),
) -> Candidate {
    let mut timed = |candidate| {
        let once = |run: &mut dyn FnMut(Candidate)| {
            let start = Instant::now();
            run(candidate);
            start.elapsed()
        };
        // The first run also makes lanes and fills caches.
        (0..=RUNS).map(|_| once(&mut run)).min().unwrap_or(Duration::MAX)
    };
    let by_time = |candidate| (timed(candidate), candidate);
    let fastest = candidates.into_iter().map(by_time).min_by_key(|(time, _)| *time);
    fastest.expect("there are candidates").1
}

#[cfg(test)]
mod tests {
    use codec_native::ipsec_mb;

    use super::*;

    #[test]
    fn the_shorter_run_wins() {
        let spin = |until: u64| {
            std::hint::black_box((0..until).fold(0, |sum: u64, at| std::hint::black_box(sum ^ at)));
        };
        assert_eq!(best([100_000, 10, 50_000], spin), 10);
    }

    #[test]
    fn the_contest_is_short() {
        let Some(library) = ipsec_mb::available() else { return };
        let start = Instant::now();
        fastest(library);
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    }
}

//! Which library does the work: by what the processor has and by what measures fastest on it.
//!
//! The choice is made once per process, at first use or when [`choose`] is called, and takes some milliseconds.
//! [`force`] overrides it for what is expanded or run from then on. Both libraries produce the same octets.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};
use std::sync::OnceLock;

use codec_native::aead::AeadAlgorithm;
use codec_native::hmac::HmacAlgorithm;
use codec_native::ipsec_mb::{self, Vectors};

use super::measure;

/// A library of ciphers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// aws-lc: every cipher on every machine.
    AwsLc,
    /// intel-ipsec-mb: AES-GCM, and AES-CBC with HMAC in batches, on x86-64 with AVX2 where it was there when
    /// this was built.
    IpsecMb,
}

impl Backend {
    /// Tells whether the library can be used here.
    pub fn is_available(self) -> bool {
        self == Self::AwsLc || ipsec_mb::available().is_some()
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AwsLc => "aws-lc",
            Self::IpsecMb => "intel-ipsec-mb",
        })
    }
}

/// The library cannot be used here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} is not available: not there at build time, or the processor lacks AVX2")]
pub struct Unavailable(pub Backend);

/// How a number of packets is hashed or encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Engine {
    /// One by one, by aws-lc.
    Single,
    /// Side by side, by intel-ipsec-mb.
    Burst(Vectors),
}

/// Batch sizes from which on another engine may be the fastest.
pub(super) const SIZES: [usize; 6] = [1, 2, 4, 8, 12, 16];

/// The engine for each of [`SIZES`].
pub(super) type BySize = [Engine; SIZES.len()];

/// What does the work. `Display` is a line for the log.
#[derive(Clone, Debug)]
pub struct Choice {
    pub(super) aes128_gcm: Backend,
    pub(super) aes256_gcm: Backend,
    /// By [`hash_index`].
    pub(super) hash: [BySize; 4],
    pub(super) encrypt: BySize,
}

/// Only aws-lc.
const AWS_LC: Choice = Choice {
    aes128_gcm: Backend::AwsLc,
    aes256_gcm: Backend::AwsLc,
    hash: [[Engine::Single; SIZES.len()]; 4],
    encrypt: [Engine::Single; SIZES.len()],
};

/// intel-ipsec-mb wherever it has the cipher.
const IPSEC_MB: Choice = {
    use Vectors::{Narrow, Wide};
    let by_size = [Narrow, Narrow, Narrow, Narrow, Wide, Wide];
    let mut engines = [Engine::Single; SIZES.len()];
    let mut at = 0;
    while at < SIZES.len() {
        engines[at] = Engine::Burst(by_size[at]);
        at += 1;
    }
    Choice {
        aes128_gcm: Backend::IpsecMb,
        aes256_gcm: Backend::IpsecMb,
        hash: [engines; 4],
        encrypt: engines,
    }
};

/// 0, or 1 and the forced back end.
static FORCED: AtomicU8 = AtomicU8::new(0);

/// Uses one library for everything it has, or again the fastest for each.
///
/// # Errors
/// [`Unavailable`] when it is not there or the processor cannot run it; nothing changes.
pub fn force(backend: Option<Backend>) -> Result<(), Unavailable> {
    let forced = match backend {
        Some(backend) if !backend.is_available() => return Err(Unavailable(backend)),
        Some(Backend::AwsLc) => 1,
        Some(Backend::IpsecMb) => 2,
        None => 0,
    };
    FORCED.store(forced, Ordering::Relaxed);
    Ok(())
}

/// Measures, unless that was done before, and returns what is used from now on.
pub fn choose() -> &'static Choice {
    current()
}

pub(super) fn current() -> &'static Choice {
    static MEASURED: OnceLock<Choice> = OnceLock::new();
    match FORCED.load(Ordering::Relaxed) {
        1 => &AWS_LC,
        2 => &IPSEC_MB,
        _ => MEASURED.get_or_init(|| ipsec_mb::available().map_or(AWS_LC, measure::fastest)),
    }
}

impl Choice {
    pub(super) fn aead(&self, algorithm: AeadAlgorithm) -> Backend {
        match algorithm {
            AeadAlgorithm::Aes128Gcm => self.aes128_gcm,
            AeadAlgorithm::Aes256Gcm => self.aes256_gcm,
            // Its ChaCha20-Poly1305 has no faster call.
            AeadAlgorithm::ChaCha20Poly1305 => Backend::AwsLc,
        }
    }

    /// What hashes `count` packets.
    pub(super) fn hash(&self, algorithm: HmacAlgorithm, count: usize) -> Engine {
        by_size(&self.hash[hash_index(algorithm)], count)
    }

    /// What encrypts `count` packets.
    pub(super) fn encrypt(&self, count: usize) -> Engine {
        by_size(&self.encrypt, count)
    }

    /// Tells whether any batch is not run packet by packet.
    pub(super) fn has_bursts(&self) -> bool {
        self.hash.iter().chain([&self.encrypt]).flatten().any(|engine| *engine != Engine::Single)
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AES-128-GCM {}, AES-256-GCM {}", self.aes128_gcm, self.aes256_gcm)?;
        let bursts_from = |engines: &BySize| {
            let first = engines.iter().position(|engine| *engine != Engine::Single)?;
            Some(SIZES[first])
        };
        let hashes = ALGORITHMS.iter().map(|algorithm| ("HMAC", Some(*algorithm)));
        for (name, algorithm) in hashes.chain([("AES-CBC", None)]) {
            let engines = algorithm.map_or(&self.encrypt, |algorithm| &self.hash[hash_index(algorithm)]);
            write!(f, ", {name}")?;
            if let Some(algorithm) = algorithm {
                write!(f, "-{algorithm:?}")?;
            }
            match bursts_from(engines) {
                Some(from) => write!(f, " {} from {from} packets", Backend::IpsecMb)?,
                None => write!(f, " {}", Backend::AwsLc)?,
            }
        }
        Ok(())
    }
}

/// The hashes of ESP, in the order of [`hash_index`].
pub(super) const ALGORITHMS: [HmacAlgorithm; 4] =
    [HmacAlgorithm::Sha1, HmacAlgorithm::Sha256, HmacAlgorithm::Sha384, HmacAlgorithm::Sha512];

fn hash_index(algorithm: HmacAlgorithm) -> usize {
    match algorithm {
        HmacAlgorithm::Sha1 => 0,
        HmacAlgorithm::Sha256 => 1,
        HmacAlgorithm::Sha384 => 2,
        HmacAlgorithm::Sha512 => 3,
    }
}

fn by_size(engines: &BySize, count: usize) -> Engine {
    let after = SIZES.partition_point(|size| *size <= count);
    engines[after.saturating_sub(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gets_the_engine_of_the_largest_size_it_reaches() {
        let mut engines = [Engine::Single; SIZES.len()];
        engines[3] = Engine::Burst(Vectors::Narrow);
        engines[4] = Engine::Burst(Vectors::Wide);
        engines[5] = Engine::Burst(Vectors::Wide);
        for (count, want) in [(0, 0), (1, 0), (7, 2), (8, 3), (11, 3), (12, 4), (64, 5)] {
            assert_eq!(by_size(&engines, count), engines[want], "{count} packets");
        }
    }

    #[test]
    fn the_choice_reads_as_a_line() {
        assert_eq!(
            AWS_LC.to_string(),
            "AES-128-GCM aws-lc, AES-256-GCM aws-lc, HMAC-Sha1 aws-lc, HMAC-Sha256 aws-lc, \
             HMAC-Sha384 aws-lc, HMAC-Sha512 aws-lc, AES-CBC aws-lc"
        );
        let measured = choose().to_string();
        assert!(!measured.contains('\n') && measured.starts_with("AES-128-GCM "));
    }

    #[test]
    fn aws_lc_is_everywhere() {
        assert!(Backend::AwsLc.is_available());
        assert!(!AWS_LC.has_bursts());
        assert!(IPSEC_MB.has_bursts());
    }
}

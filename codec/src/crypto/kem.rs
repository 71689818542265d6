//! Key encapsulation: ML-KEM (FIPS 203, draft-ietf-ipsecme-ikev2-mlkem). The initiator's KE payload carries an
//! encapsulation key, the responder's a ciphertext. The library draws the randomness itself.

use aws_lc_rs::kem::{
    Algorithm, Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_512, ML_KEM_768, ML_KEM_1024,
};

use super::dh::{KeError, SharedSecret};
use super::secret::Secret;
use crate::ike::KeGroup;

/// Key encapsulation methods that are implemented.
pub const SUPPORTED_KEMS: [KeGroup; 3] = [KeGroup::ML_KEM_768, KeGroup::ML_KEM_1024, KeGroup::ML_KEM_512];

/// The prime of ML-KEM: coefficients of a key are below it.
const Q: u16 = 3329;

/// Octets behind the coefficients of an encapsulation key.
const SEED_LEN: usize = 32;

/// The library's algorithm for a method; `None` when it is no key encapsulation.
pub(super) fn algorithm(group: KeGroup) -> Option<&'static Algorithm> {
    match group {
        KeGroup::ML_KEM_512 => Some(&ML_KEM_512),
        KeGroup::ML_KEM_768 => Some(&ML_KEM_768),
        KeGroup::ML_KEM_1024 => Some(&ML_KEM_1024),
        _ => None,
    }
}

/// Makes a key pair; the second is the encapsulation key as a KE payload carries it.
pub(super) fn generate(algorithm: &'static Algorithm) -> Result<(DecapsulationKey, Vec<u8>), KeError> {
    let secret = DecapsulationKey::generate(algorithm).map_err(|_| KeError::NoKey)?;
    let public =
        secret.encapsulation_key().and_then(|key| key.key_bytes().map(|octets| octets.as_ref().to_vec()));
    public.map(|public| (secret, public)).map_err(|_| KeError::NoKey)
}

/// Opens the responder's ciphertext. One that was altered leads to another secret, not to an error.
pub(super) fn decapsulate(secret: &DecapsulationKey, ciphertext: &[u8]) -> Result<SharedSecret, KeError> {
    let shared = secret.decapsulate(Ciphertext::from(ciphertext)).map_err(|_| KeError::BadPublic)?;
    Ok(Secret::from(shared.as_ref()))
}

/// Answers the initiator's encapsulation key: the ciphertext and the secret.
pub(super) fn encapsulate(
    algorithm: &'static Algorithm,
    key: &[u8],
) -> Result<(Vec<u8>, SharedSecret), KeError> {
    if !is_canonical(key) {
        return Err(KeError::BadPublic);
    }
    let key = EncapsulationKey::new(algorithm, key).map_err(|_| KeError::BadPublic)?;
    let (ciphertext, shared) = key.encapsulate().map_err(|_| KeError::BadPublic)?;
    Ok((ciphertext.as_ref().to_vec(), Secret::from(shared.as_ref())))
}

/// The modulus check of FIPS 203 §7.2: every 12-bit coefficient is below q. The length is for the library.
fn is_canonical(key: &[u8]) -> bool {
    let coefficients = key.len().checked_sub(SEED_LEN).and_then(|len| key.get(..len)).unwrap_or_default();
    coefficients.as_chunks::<3>().0.iter().all(|&[a, b, c]| {
        let (low, high) = (u16::from(a) | u16::from(b & 0x0f) << 8, u16::from(b >> 4) | u16::from(c) << 4);
        low < Q && high < Q
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRandom;
    use crate::crypto::KeyExchange;

    /// Octets of the encapsulation key and of the ciphertext.
    const LENS: [(KeGroup, usize, usize); 3] = [
        (KeGroup::ML_KEM_512, 800, 768),
        (KeGroup::ML_KEM_768, 1184, 1088),
        (KeGroup::ML_KEM_1024, 1568, 1568),
    ];

    #[test]
    fn r9370_both_ends_agree_by_encapsulation() {
        let mut random = SeededRandom::new(1);
        for (group, key_len, ciphertext_len) in LENS {
            let own = KeyExchange::generate(group, &mut random).expect("supported");
            assert_eq!((own.public().len(), own.group()), (key_len, group));
            let (ciphertext, theirs) =
                KeyExchange::answer(group, own.public(), &mut random).expect("a good key");
            assert_eq!(ciphertext.len(), ciphertext_len);
            let ours = own.agree(&ciphertext).expect("a good ciphertext");
            assert!(ours == theirs && ours.as_bytes().len() == 32);
        }
    }

    #[test]
    fn r6989_2_5_bad_lengths_and_coefficients_are_refused() {
        let mut random = SeededRandom::new(1);
        for (group, key_len, ciphertext_len) in LENS {
            let answer =
                |key: &[u8], random: &mut SeededRandom| KeyExchange::answer(group, key, random).err();
            for len in [0, 1, 31, key_len - 1, key_len + 1] {
                assert_eq!(answer(&vec![0; len], &mut random), Some(KeError::BadPublic), "{group} {len}");
            }
            // A coefficient of q or more.
            assert_eq!(answer(&vec![0xff; key_len], &mut random), Some(KeError::BadPublic));
            for len in [0, ciphertext_len - 1, ciphertext_len + 1] {
                let own = KeyExchange::generate(group, &mut random).expect("supported");
                assert_eq!(own.agree(&vec![0; len]).err(), Some(KeError::BadPublic), "{group} {len}");
            }
        }
    }

    #[test]
    fn an_altered_ciphertext_leads_to_another_secret() {
        let mut random = SeededRandom::new(1);
        let own = KeyExchange::generate(KeGroup::ML_KEM_768, &mut random).expect("supported");
        let (mut ciphertext, theirs) =
            KeyExchange::answer(KeGroup::ML_KEM_768, own.public(), &mut random).expect("a good key");
        ciphertext[100] ^= 1;
        assert!(own.agree(&ciphertext).expect("implicit rejection") != theirs);
    }

    #[test]
    fn the_first_coefficients_are_read_as_fips_203_packs_them() {
        // Two coefficients in three octets, low one first: q - 1 = 0xd00.
        let key = |octets: [u8; 3]| [&octets[..], &[0; SEED_LEN]].concat();
        assert!(is_canonical(&key([0x00, 0x0d, 0xd0])));
        assert!(!is_canonical(&key([0x01, 0x0d, 0x00])));
        assert!(!is_canonical(&key([0x00, 0x10, 0xd0])));
    }
}

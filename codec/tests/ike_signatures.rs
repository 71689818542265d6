//! Signatures of AUTH payloads: our own in every form, those that OpenSSL made, and those to refuse.

use codec::crypto::{
    HashSet, KeyLoadError, PrivateKey, PublicKey, RsaScheme, SignatureError, SignaturePolicy,
};
use codec::ike::{AuthMethod, HashId};

const OCTETS: &[u8] = b"octets to sign";

const STRICT: SignaturePolicy = SignaturePolicy { allow_rsa_sha1: false };

/// Keys of every kind that is used.
const KEYS: [&str; 5] = ["rsa2048", "p256", "p384", "p521", "ed25519"];

fn file(name: &str) -> Vec<u8> {
    let path: std::path::PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/keys", name].iter().collect();
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn private(name: &str) -> PrivateKey {
    PrivateKey::from_pem(&file(&format!("{name}.pem"))).expect("a good key")
}

fn certificate(name: &str) -> Vec<u8> {
    file(&format!("{name}.crt.der"))
}

fn all_hashes() -> HashSet {
    HashSet::OURS.into_iter().collect()
}

/// A method 14 payload: length, AlgorithmIdentifier, signature.
fn digital(identifier: &[u8], signature: &[u8]) -> Vec<u8> {
    [&[u8::try_from(identifier.len()).expect("short")], identifier, signature].concat()
}

fn verify(certificate: &[u8], method: AuthMethod, data: &[u8]) -> Result<(), SignatureError> {
    PublicKey::from_certificate(certificate).expect("a good key").verify(method, data, OCTETS, STRICT)
}

#[test]
fn r7427_3_our_signatures_verify_with_every_key() {
    for name in KEYS {
        let certificate = certificate(name);
        let public = PublicKey::from_certificate(&certificate).expect("a good key");
        for scheme in [RsaScheme::Pss, RsaScheme::Pkcs1] {
            let auth = private(name).sign(Some(all_hashes()), scheme, OCTETS).expect("a common hash");
            assert_eq!(auth.method, AuthMethod::DIGITAL_SIGNATURE);
            assert_eq!(public.verify(auth.method, &auth.data, OCTETS, STRICT), Ok(()), "{name}");
            assert_eq!(
                public.verify(auth.method, &auth.data, b"other octets", STRICT),
                Err(SignatureError::BadSignature),
                "{name}"
            );
            for at in 0..auth.data.len() {
                let mut damaged = auth.data.clone();
                damaged[at] ^= 1;
                assert!(public.verify(auth.method, &damaged, OCTETS, STRICT).is_err(), "{name}: octet {at}");
                assert!(public.verify(auth.method, &auth.data[..at], OCTETS, STRICT).is_err(), "{name}: cut");
            }
        }
    }
}

#[test]
fn r7427_4_the_hash_is_one_of_the_peers() {
    let sign = |name: &str, hashes: &[HashId]| {
        let auth = private(name).sign(Some(hashes.iter().copied().collect()), RsaScheme::Pkcs1, OCTETS);
        auth.map(|auth| verify(&certificate(name), auth.method, &auth.data))
    };
    assert_eq!(sign("rsa2048", &[HashId::SHA2_512]), Ok(Ok(())));
    assert_eq!(sign("rsa2048", &[HashId::SHA1]), Err(SignatureError::NoCommonHash));
    assert_eq!(sign("p256", &[HashId::SHA2_384]), Err(SignatureError::NoCommonHash));
    assert_eq!(sign("p384", &[HashId::SHA2_384]), Ok(Ok(())));
    assert_eq!(sign("rsa2048", &[]), Err(SignatureError::NoCommonHash));
    // RFC 8420 §2: Ed25519 only where Identity was announced.
    assert_eq!(sign("ed25519", &[HashId::SHA2_256, HashId::SHA2_512]), Err(SignatureError::NoCommonHash));
    assert_eq!(sign("ed25519", &[HashId::IDENTITY]), Ok(Ok(())));
}

#[test]
fn r4754_7_ecdsa_of_the_older_methods_has_fixed_length() {
    for (name, method, len) in [
        ("p256", AuthMethod::ECDSA_P256_SHA256, 64),
        ("p384", AuthMethod::ECDSA_P384_SHA384, 96),
        ("p521", AuthMethod::ECDSA_P521_SHA512, 132),
    ] {
        let auth = private(name).sign(None, RsaScheme::Pss, OCTETS).expect("an older method");
        assert_eq!((auth.method, auth.data.len()), (method, len));
        assert_eq!(verify(&certificate(name), method, &auth.data), Ok(()));
        let other = certificate(if name == "p256" { "p384" } else { "p256" });
        assert_eq!(verify(&other, method, &auth.data), Err(SignatureError::WrongMethod(method)));
    }
    let der = file("p256-sha256.sig");
    let refused = verify(&certificate("p256"), AuthMethod::ECDSA_P256_SHA256, &der);
    assert_eq!(refused, Err(SignatureError::BadSignature), "DER is for method 14");
}

#[test]
fn r7296_3_8_rsa_without_method_14() {
    let auth = private("rsa2048").sign(None, RsaScheme::Pss, OCTETS).expect("an older method");
    assert_eq!(auth.method, AuthMethod::RSA_SIGNATURE);
    assert_eq!(verify(&certificate("rsa2048"), auth.method, &auth.data), Ok(()));
    assert_eq!(verify(&certificate("rsa2048"), auth.method, &file("rsa2048-sha512.sig")), Ok(()));
    let ed25519 = private("ed25519").sign(None, RsaScheme::Pss, OCTETS);
    assert_eq!(ed25519, Err(SignatureError::NoCommonHash), "Ed25519 has no older method");
}

#[test]
fn r8247_3_sha1_is_refused_unless_allowed() {
    let (certificate, signature) = (certificate("rsa2048"), file("rsa2048-sha1.sig"));
    let key = PublicKey::from_certificate(&certificate).expect("a good key");
    let verify = |policy| key.verify(AuthMethod::RSA_SIGNATURE, &signature, OCTETS, policy);
    assert_eq!(verify(STRICT), Err(SignatureError::BadSignature));
    assert_eq!(verify(SignaturePolicy { allow_rsa_sha1: true }), Ok(()));
    let identifier = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5, 5, 0];
    let data = digital(&identifier, &signature);
    let allowed = SignaturePolicy { allow_rsa_sha1: true };
    assert_eq!(
        key.verify(AuthMethod::DIGITAL_SIGNATURE, &data, OCTETS, allowed),
        Err(SignatureError::UnsupportedAlgorithm),
        "never under method 14"
    );
}

#[test]
fn r7427_3_signatures_of_openssl_verify() {
    let ecdsa = |hash| [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, hash];
    let check = |key: &str, identifier: &[u8], signature: &str| {
        verify(&certificate(key), AuthMethod::DIGITAL_SIGNATURE, &digital(identifier, &file(signature)))
    };
    assert_eq!(check("p256", &ecdsa(2), "p256-sha256.sig"), Ok(()));
    assert_eq!(check("p256", &ecdsa(3), "p256-sha384.sig"), Ok(()), "any hash goes with any curve");
    assert_eq!(check("p256", &ecdsa(3), "p256-sha256.sig"), Err(SignatureError::BadSignature));
    assert_eq!(check("ed25519", &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70], "ed25519.sig"), Ok(()));
    let rsa_sha512 = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13, 5, 0];
    assert_eq!(check("rsa2048", &rsa_sha512, "rsa2048-sha512.sig"), Ok(()));
    assert_eq!(check("p256", &rsa_sha512, "rsa2048-sha512.sig"), Err(SignatureError::KeyMismatch));
    let pss = |salt_len| {
        let sha384 = [0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2, 5, 0];
        let mgf1 = [0x30, 26, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];
        let params =
            [&[0xa0, 15], &sha384[..], &[0xa1, 28], &mgf1, &sha384, &[0xa2, 3, 2, 1, salt_len]].concat();
        [&[0x30, 65, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10, 0x30, 52][..], &params].concat()
    };
    assert_eq!(check("rsa2048", &pss(20), "rsa2048-pss-sha384-salt20.sig"), Ok(()));
    let wrong_salt = check("rsa2048", &pss(48), "rsa2048-pss-sha384-salt20.sig");
    assert_eq!(wrong_salt, Err(SignatureError::BadSignature));
}

#[test]
fn r8247_3_rsa_below_2048_bits_and_other_curves_are_refused() {
    let refused = |name: &str| PublicKey::from_certificate(&certificate(name)).err();
    assert_eq!(refused("rsa1024"), Some(SignatureError::UnsupportedKey));
    assert_eq!(refused("k256"), Some(SignatureError::UnsupportedKey));
    let load = |name: &str| PrivateKey::from_pem(&file(name)).err();
    assert_eq!(load("rsa1024.pem"), Some(KeyLoadError::Unsupported));
    assert_eq!(load("k256.pem"), Some(KeyLoadError::Unsupported));
    assert_eq!(load("rsa2048-encrypted.pem"), Some(KeyLoadError::NoKey));
    assert_eq!(PrivateKey::from_pem(b"").err(), Some(KeyLoadError::NoKey));
    assert_eq!(
        PrivateKey::from_pem(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").err(),
        Some(KeyLoadError::Unsupported)
    );
}

#[test]
fn keys_load_from_every_form_and_know_their_certificate() {
    for (form, name) in
        [("rsa2048-pkcs1", "rsa2048"), ("p256-sec1", "p256")].into_iter().chain(KEYS.map(|it| (it, it)))
    {
        let key = private(form);
        for other in KEYS {
            let certificate = certificate(other);
            let public = PublicKey::from_certificate(&certificate).expect("a good key");
            assert_eq!(key.is_of(&public), other == name, "{form} and the certificate of {other}");
        }
    }
    let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let pem = [parameters.as_bytes(), &file("p256-sec1.pem")].concat();
    assert!(PrivateKey::from_pem(&pem).is_ok(), "as openssl ecparam -genkey writes it");
}

#[test]
fn cut_or_damaged_certificates_never_panic() {
    for name in KEYS {
        let certificate = certificate(name);
        for at in 0..certificate.len() {
            let _ = PublicKey::from_certificate(&certificate[..at]);
            for bit in 0..8 {
                let mut damaged = certificate.clone();
                damaged[at] ^= 1 << bit;
                let _ = PublicKey::from_certificate(&damaged);
            }
        }
    }
}

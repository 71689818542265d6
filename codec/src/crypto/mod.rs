//! Cryptography of IKE SAs: what to offer and take, key exchange, key derivation, the Encrypted payload and
//! authentication. Primitives come from aws-lc, 3DES from the crate `des`; nothing here implements one.
//!
//! Secrets live in [`Secret`]: wiped on drop, compared in constant time, never printed.

mod algorithm;
mod auth;
mod dh;
mod kem;
mod keymat;
mod prf;
mod proposal;
mod puzzle;
mod secret;
mod select;
mod signature;
mod sk;
mod triple_des;

pub use algorithm::Prf;
pub use auth::{int_auth, psk_auth, signed_octets, verify_psk_auth};
pub use dh::{KeError, KeyExchange, LEGACY_GROUPS, SUPPORTED_GROUPS, SharedSecret};
pub use kem::SUPPORTED_KEMS;
pub use keymat::{ChildKeymat, IkeKeys, SaNonces, child_keymat, child_keymat_with};
pub use proposal::{ADDITIONAL_MAX, Additional, EspProposal, IkeProposal, IkeSuite, ProposalError};
pub use puzzle::Puzzle;
pub use secret::Secret;
pub use select::{
    ChosenEsp, ChosenIke, GroupPolicy, select_esp, select_esp_several, select_ike, select_ike_plain,
};
pub use signature::{
    AuthSignature, HashSet, KeyLoadError, PrivateKey, PublicKey, RsaScheme, SignatureError, SignaturePolicy,
};
pub use sk::{Opened, OpenedFragment, SkError, SkKey, open_sk, open_skf};

pub(crate) use sk::{seal_fragment, seal_fragments, seal_message};
pub(crate) use triple_des::{BLOCK_LEN as TRIPLE_DES_BLOCK_LEN, KEY_LEN as TRIPLE_DES_KEY_LEN, TripleDes};

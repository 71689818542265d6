//! Cryptography of IKE SAs: what to offer and take, key exchange, key derivation, the Encrypted payload and
//! authentication. Primitives come from aws-lc; nothing here implements one.
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

pub use algorithm::Prf;
pub use auth::{int_auth, psk_auth, signed_octets, verify_psk_auth};
pub use dh::{KeError, KeyExchange, SUPPORTED_GROUPS, SharedSecret};
pub use kem::SUPPORTED_KEMS;
pub use keymat::{ChildKeymat, IkeKeys, SaNonces, child_keymat};
pub use proposal::{ADDITIONAL_MAX, Additional, EspProposal, IkeProposal, IkeSuite, ProposalError};
pub use puzzle::Puzzle;
pub use secret::Secret;
pub use select::{ChosenEsp, ChosenIke, GroupPolicy, select_esp, select_ike, select_ike_plain};
pub use signature::{
    AuthSignature, HashSet, KeyLoadError, PrivateKey, PublicKey, RsaScheme, SignatureError, SignaturePolicy,
};
pub use sk::{Opened, OpenedFragment, SkError, SkKey, open_sk, open_skf};

pub(crate) use sk::{seal_fragments, seal_message};

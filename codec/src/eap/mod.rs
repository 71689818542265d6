//! EAP (RFC 3748) and its methods for SIM cards: EAP-AKA (RFC 4187) and EAP-AKA' (RFC 9048).
//!
//! Formats and keys only: who speaks when is the business of the gateway's server and of loadgen's peer. The USIM's
//! algorithms are in [`usim`], the names subscribers go by in [`identity`].

pub mod aka;
pub mod identity;
pub mod mschapv2;
mod packet;
pub mod usim;

pub use packet::{Code, EapPacket, HEADER_LEN, Method, PACKET_LEN_MAX};

//! Plays thousands of RFC 9329 UEs against any IKEv2 responder and measures what they see.
//!
//! `ue` is the sans-IO IKEv2 initiator, `engine` runs many of them on one io_uring, `probe` is the test traffic and its
//! checks, `sink` the far end behind the gateway, `demo` a whole network on one machine, `abuse` the
//! peers that mean no good. Nothing here knows the gateway's
//! code: a fault in its view of the protocol cannot hide behind the same fault here.
//!
//! Unsafe code is denied except in `engine::raw::ring`, where memory belongs to the kernel until an operation completes.

pub mod abuse;
pub mod cli;
pub mod command;
pub mod demo;
pub mod engine;
pub mod error;
pub mod host;
pub mod lab;
pub mod path;
pub mod probe;
pub mod profile;
pub mod program;
pub mod report;
pub mod sink;
pub mod tun;
pub mod ue;

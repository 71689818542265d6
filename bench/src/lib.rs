//! Criterion benches, one per stage; the code is in `benches/`, figures and method in `README.md`.
//!
//! | bench | what it times |
//! |---|---|
//! | `deframer` | cutting a stream into frames, whole and split into segments |
//! | `esp` | sealing and opening packets, per suite and size |
//! | `replay` | the replay window |
//! | `ike` | key exchange, Encrypted payload, decoding, signatures |
//! | `handshake` | the responder's cost of IKE_SA_INIT and IKE_AUTH |
//!
//! The whole path is measured by `loadgen demo` and `loadgen traffic`.

//! The RFC 9329 stream.

/// Cuts the stream into frames.
pub struct Deframer {}

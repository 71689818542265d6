//! What can be wrong with octets that claim to be an IKE message.

/// Why octets do not decode. Names the field, so that a log line or a peer's vendor can act on it.
///
/// A message that fails to decode after its integrity check answers INVALID_SYNTAX (RFC 7296 §2.21.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The field does not fit into what is left.
    #[error("{field}: {needed} octets needed, {available} left")]
    Truncated {
        /// The field that could not be read.
        field: &'static str,
        /// Octets it takes.
        needed: usize,
        /// Octets there were.
        available: usize,
    },
    /// A length contradicts the structure it belongs to.
    #[error("{field}: length {length} is not possible here")]
    BadLength {
        /// The field that carries the length, or whose length it is.
        field: &'static str,
        /// The offending length in octets.
        length: usize,
    },
    /// A value is not allowed where it stands.
    #[error("{field}: value {value} is not possible here")]
    BadValue {
        /// The field.
        field: &'static str,
        /// The offending value.
        value: u32,
    },
    /// More items than a message of this kind can need.
    #[error("{field}: more than {limit}")]
    TooMany {
        /// What there are too many of.
        field: &'static str,
        /// The bound.
        limit: usize,
    },
}

impl DecodeError {
    /// The field at fault.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Truncated { field, .. }
            | Self::BadLength { field, .. }
            | Self::BadValue { field, .. }
            | Self::TooMany { field, .. } => field,
        }
    }
}

/// A message or payload of our own outgrew the 16-bit lengths of IKE.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("message outgrew the 16-bit lengths of its payloads or frame")]
pub struct MessageTooLong;

//! IKEv2 messages (RFC 7296 §3): header, payloads, and the numbers in them.
//!
//! Decoding borrows from the message and allocates nothing; every view is checked when it is made, so its
//! iterators only yield what lies inside. Encoding appends to a `Vec`. Nothing here knows keys: see
//! [`crate::crypto`] for the Encrypted payload.

mod builder;
mod error;
mod header;
mod message;
pub mod payload;
pub(crate) mod reader;
mod registry;

pub use builder::MessageBuilder;
pub use error::{DecodeError, MessageTooLong};
pub use header::{Flags, HEADER_LEN, IkeHeader, IkeSpi, MessageId, Version};
pub use message::Message;
pub use registry::{
    AttributeType, AuthMethod, CertEncoding, CfgAttrType, CfgType, EncrId, EsnId, ExchangeType, HashId,
    IdType, IntegId, KeGroup, NotifyType, PayloadType, PrfId, ProtocolId, TransformType, TsType,
};

pub(crate) use builder::MESSAGE_LEN_MAX;
pub(crate) use header::{LENGTH_AT, NEXT_PAYLOAD_AT};

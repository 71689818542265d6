//! TLS around the stream (RFC 9329 Appendix A), for workers, relay and originate alike.
//!
//! [`Session`] is the record layer of one connection, sans-IO: octets of the socket go in, octets of the
//! stream come out, and the other way round. [`Front`] is what stands before it on a listening port: which
//! protocol the first octets are of, and the HTTP CONNECT that may precede TLS on a port for FTT. The
//! protocol itself, its keys and its arithmetic are rustls's; nothing here looks into a record.
//!
//! Versions and suites follow RFC 9325: TLS 1.3, and 1.2 with ephemeral key exchange and AEAD only, no
//! renegotiation, no compression, no early data. There is no NULL cipher among them (RFC 9329 Appendix A
//! would allow one): TLS 1.3 has none, and a path that needs TLS to pass inspects it.

mod front;
mod http;
mod session;
mod settings;

pub use front::{Front, FrontError, Refusal, Said, StreamKind, StreamListener};
pub use session::{CARRY_MAX, SEALED_ROOM, Session, TlsError, sealed_len_max};
pub use settings::{SettingsError, TlsClient, TlsServer};

//! How an IKE SA ends, or never begins.

use codec::ike::NotifyType;

/// Why a UE has no IKE SA any more. Its text is the failure cause in reports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndCause {
    /// We deleted it.
    #[error("detached")]
    Detached,
    /// The gateway deleted it.
    #[error("deleted-by-gateway")]
    DeletedByGateway,
    /// The gateway refused with an error notification.
    #[error("{0}")]
    Refused(NotifyType),
    /// No answer in time; names the exchange.
    #[error("timeout in {0}")]
    Timeout(&'static str),
    /// The answer breaks the protocol or chose what was not offered.
    #[error("bad answer: {0}")]
    BadAnswer(&'static str),
    /// The gateway did not prove its identity.
    #[error("gateway not authenticated: {0}")]
    Unauthenticated(&'static str),
    /// The EAP method failed; says what the server told, or why we did not go on.
    #[error("EAP: {0}")]
    Eap(String),
    /// A real handset of this profile gives the tunnel up here.
    #[error("handset: {0}")]
    Handset(String),
    /// Something on our side failed.
    #[error("local: {0}")]
    Local(&'static str),
    /// The TCP connection failed before the attach was done.
    #[error("connection: {0}")]
    Connection(String),
}

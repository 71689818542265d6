//! What all UEs of a run have in common, and what is each one's own.

use super::handset::Handset;
use super::trust::GatewayTrust;
use codec::crypto::{EspProposal, IkeProposal, PrivateKey};
use codec::eap::aka::Variant;
use codec::ike::IdType;
use codec::ike::payload::IdView;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Settings shared by all UEs of a run.
pub struct UeConfig {
    /// IKE proposals in order of preference; never empty.
    pub ike: Vec<IkeProposal>,
    /// ESP proposals in order of preference; never empty.
    pub esp: Vec<EspProposal>,
    /// How the UE proves who it is, and how it checks the gateway.
    pub credentials: Credentials,
    /// IDr sent in the request (the APN), if any.
    pub idr: Option<Identity>,
    /// Identity the gateway must prove; any that its credential covers when absent.
    pub gateway_id: Option<Identity>,
    /// Longest wait for any response.
    pub response_timeout: Duration,
    /// After so long without anything from the gateway the UE asks whether it lives; never when absent.
    pub dpd: Option<Duration>,
    /// Anti-replay window of the inbound SAs in packets.
    pub replay_window: u32,
    /// What sets this kind of phone apart.
    pub handset: Handset,
}

/// Kinds of authentication.
pub enum Credentials {
    /// A pre-shared key for both ends.
    Psk(Zeroizing<Vec<u8>>),
    /// Certificates for both ends.
    Certificate(Box<CertificateCredentials>),
    /// EAP with the SIM of each UE; a certificate for the gateway.
    Eap(Box<EapCredentials>),
}

/// EAP authentication. The SIM is each UE's own ([`Subscriber`](super::Subscriber)).
pub struct EapCredentials {
    /// The one method that UEs accept; they answer others by a Nak.
    pub variant: Variant,
    /// Name of the access network, with which EAP-AKA' binds its keys.
    pub network_name: Arc<str>,
    /// Whom to believe; any certificate whose key signs when absent.
    pub trust: Option<GatewayTrust>,
    /// Whether the gateway may do without a certificate (EAP_ONLY_AUTHENTICATION, RFC 5998).
    pub alone: bool,
}

/// Certificate authentication.
pub struct CertificateCredentials {
    /// DER certificates: the UE's own first, then intermediates.
    pub chain: Vec<Vec<u8>>,
    /// Key of the first certificate.
    pub key: PrivateKey,
    /// Whom to believe.
    pub trust: GatewayTrust,
}

/// An identity as IKE carries it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// What `data` is.
    pub kind: IdType,
    /// The identity without terminator.
    pub data: Vec<u8>,
}

impl Identity {
    /// Reads an IP address, `user@realm` or a domain name, as the gateway's configuration does.
    pub fn parse(text: &str) -> Self {
        if let Ok(address) = text.parse::<IpAddr>() {
            return match address {
                IpAddr::V4(v4) => Self { kind: IdType::IPV4_ADDR, data: v4.octets().to_vec() },
                IpAddr::V6(v6) => Self { kind: IdType::IPV6_ADDR, data: v6.octets().to_vec() },
            };
        }
        let kind = if text.contains('@') { IdType::RFC822_ADDR } else { IdType::FQDN };
        Self { kind, data: text.as_bytes().to_vec() }
    }

    /// Takes over a DER distinguished name.
    pub fn distinguished_name(der: &[u8]) -> Self {
        Self { kind: IdType::DER_ASN1_DN, data: der.to_vec() }
    }

    /// Borrows it for a payload.
    pub fn view(&self) -> IdView<'_> {
        IdView { kind: self.kind, data: &self.data }
    }

    /// Returns whether a received identity is this one; names compare without regard to case.
    pub fn is(&self, received: &IdView<'_>) -> bool {
        self.kind == received.kind && self.data.eq_ignore_ascii_case(received.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_by_their_form() {
        assert_eq!(Identity::parse("gw.test").kind, IdType::FQDN);
        assert_eq!(Identity::parse("ue@gw.test").kind, IdType::RFC822_ADDR);
        assert_eq!(Identity::parse("10.0.0.1").data, [10, 0, 0, 1]);
        assert_eq!(Identity::parse("::1").data.len(), 16);
    }

    #[test]
    fn names_compare_without_case_but_with_kind() {
        let id = Identity::parse("GW.test");
        assert!(id.is(&IdView { kind: IdType::FQDN, data: b"gw.TEST" }));
        assert!(!id.is(&IdView { kind: IdType::RFC822_ADDR, data: b"gw.test" }));
    }
}

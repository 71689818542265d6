//! IKE_AUTH (RFC 7296 §1.2, §2.15): proof of both identities, the inner address, the first Child SA.

use super::child::ChildOffer;
use super::config::{CertificateCredentials, Credentials};
use super::sa::IkeSa;
use super::{
    Attached, ChildSpis, EndCause, Established, Event, Identity, Initiator, NONCE_LEN, State, UeConfig,
};
use bytes::Bytes;
use codec::Random;
use codec::crypto::{
    HashSet, PublicKey, RsaScheme, Secret, SignaturePolicy, psk_auth, signed_octets, verify_psk_auth,
};
use codec::ike::payload::{AuthView, CertReqView, CertView, ConfigAttr, ConfigView, IdView, Payload};
use codec::ike::{
    AuthMethod, CertEncoding, CfgAttrType, CfgType, ExchangeType, IkeHeader, MessageBuilder, NotifyType,
};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

/// Most certificates taken from a response.
const CERTS_MAX: usize = 16;

/// What both ends sign, from IKE_SA_INIT.
pub(super) struct Proof {
    /// The first request as sent.
    pub(super) request: Bytes,
    /// The first response as received.
    pub(super) response: Bytes,
    pub(super) nonce_i: [u8; NONCE_LEN],
    pub(super) nonce_r: Vec<u8>,
    pub(super) sk_pi: Secret,
    pub(super) sk_pr: Secret,
    /// Hashes the gateway verifies, when it speaks RFC 7427.
    pub(super) gateway_hashes: Option<HashSet>,
}

/// An IKE_AUTH in flight.
pub(super) struct Authenticating {
    sa: IkeSa,
    proof: Proof,
    offer: ChildOffer,
    sent_at: Instant,
}

/// Payloads of a response that matter.
#[derive(Default)]
struct Received<'a> {
    idr: Option<(&'a [u8], IdView<'a>)>,
    auth: Option<AuthView<'a>>,
    certs: Vec<&'a [u8]>,
    config: Option<ConfigView<'a>>,
    error: Option<NotifyType>,
}

impl Authenticating {
    pub(super) fn pending_request(&self) -> Option<Bytes> {
        self.sa.pending.as_ref().map(|pending| pending.message.clone())
    }

    pub(super) fn sent_at(&self) -> Instant {
        self.sent_at
    }
}

impl Initiator {
    /// Sends IKE_AUTH.
    pub(super) fn start_auth(&mut self, now: Instant, sa: IkeSa, proof: Proof, random: &mut dyn Random) {
        let offer = ChildOffer::first(&proof.nonce_i, random);
        let mut auth = Authenticating { sa, proof, offer, sent_at: now };
        match auth.send(now, &self.config, &self.idi, random) {
            Ok(message) => {
                self.transmits.push_back(message);
                self.state = State::Auth(Box::new(auth));
            }
            Err(cause) => self.end(cause),
        }
    }

    /// Takes the response: established, or over.
    pub(super) fn handle_auth_response(
        &mut self,
        now: Instant,
        header: &IkeHeader,
        message: &mut [u8],
        random: &mut dyn Random,
    ) {
        let State::Auth(auth) = &self.state else { return };
        if !auth.sa.owns(header) || !auth.sa.is_answer(header) {
            return;
        }
        // Not authentic: as if it had not come (RFC 7296 §2.21).
        let Ok(opened) = auth.sa.open(message) else {
            self.forged = true;
            return;
        };
        let State::Auth(auth) = std::mem::replace(&mut self.state, State::Ended) else { return };
        match auth.finish(&self.config, opened.payloads(message)) {
            Ok((attached, child, mut sa)) => {
                sa.pending = None;
                let children = vec![ChildSpis { spi_in: child.spi_in, spi_out: child.spi_out }];
                self.state = State::Up(Box::new(Established {
                    sa,
                    old: None,
                    children,
                    exchange: None,
                    wishes: VecDeque::new(),
                    heard_at: now,
                }));
                self.events.push_back(Event::Established(Box::new(attached)));
                self.events.push_back(Event::Install(Box::new(child)));
                self.next_wish(now, random);
            }
            Err(cause) => self.end(cause),
        }
    }
}

impl Authenticating {
    fn send(
        &mut self,
        now: Instant,
        config: &UeConfig,
        idi: &Identity,
        random: &mut dyn Random,
    ) -> Result<Bytes, EndCause> {
        let mut id_body = Vec::new();
        idi.view().encode(&mut id_body);
        let prf = self.sa.suite.prf;
        let proof = &self.proof;
        let octets = signed_octets(prf, &proof.request, &proof.nonce_r, &proof.sk_pi, &id_body);
        let (method, auth_data) = match &config.credentials {
            Credentials::Psk(psk) => {
                (AuthMethod::SHARED_KEY, psk_auth(prf, psk, &octets).as_bytes().to_vec())
            }
            Credentials::Certificate(certificate) => {
                let signature = certificate
                    .key
                    .sign(proof.gateway_hashes, RsaScheme::default(), &octets)
                    .map_err(|_| EndCause::Local("gateway accepts no signature of our key"))?;
                (signature.method, signature.data)
            }
        };
        let offer = &self.offer;
        self.sa
            .request(now, ExchangeType::IKE_AUTH, random, |builder| {
                builder.id_i(&idi.view());
                if let Credentials::Certificate(certificate) = &config.credentials {
                    add_certificates(builder, certificate);
                }
                if let Some(idr) = &config.idr {
                    builder.id_r(&idr.view());
                }
                builder.auth(&AuthView { method, data: &auth_data });
                builder.config(CfgType::REQUEST, &CONFIG_REQUEST);
                offer.encode_first(config, builder);
            })
            .ok_or(EndCause::Local("IKE_AUTH too long"))
    }

    /// Verifies the response and takes what it gives.
    fn finish(
        self: Box<Self>,
        config: &UeConfig,
        payloads: codec::ike::payload::PayloadIter<'_>,
    ) -> Result<(Attached, super::ChildSa, IkeSa), EndCause> {
        const MALFORMED: EndCause = EndCause::BadAnswer("malformed IKE_AUTH");
        let mut received = Received::default();
        let mut answer = super::child::ChildAnswer::default();
        for raw in payloads {
            let raw = raw.map_err(|_| MALFORMED)?;
            match raw.decode().map_err(|_| MALFORMED)? {
                Payload::IdR(view) => received.idr = Some((raw.body, view)),
                Payload::Auth(view) => received.auth = Some(view),
                Payload::Cert(view) if view.encoding == CertEncoding::X509_SIGNATURE => {
                    if received.certs.len() < CERTS_MAX {
                        received.certs.push(view.data);
                    }
                }
                Payload::Config(view) if view.kind == CfgType::REPLY => received.config = Some(view),
                Payload::Notify(view) if view.kind.is_error() => received.error = Some(view.kind),
                other => answer.take(&other),
            }
        }
        if let (Some(error), None) = (received.error, received.auth) {
            return Err(EndCause::Refused(error));
        }
        self.verify(config, &received)?;
        // Authentic, but without a Child SA: useless to a UE.
        if let Some(error) = received.error {
            return Err(EndCause::Refused(error));
        }
        let attached = received.config.map(|view| read_config(&view)).unwrap_or_default();
        let nonces =
            codec::crypto::SaNonces { initiator: &self.proof.nonce_i, responder: &self.proof.nonce_r };
        let child = self.offer.finish_first(config, &answer, &self.sa, nonces)?;
        Ok((attached, child, self.sa))
    }

    /// RFC 7296 §2.15: the gateway's AUTH over its first message, our nonce and its identity.
    fn verify(&self, config: &UeConfig, received: &Received<'_>) -> Result<(), EndCause> {
        let (Some((id_body, idr)), Some(auth)) = (received.idr, received.auth) else {
            return Err(EndCause::Unauthenticated("no IDr or no AUTH"));
        };
        if config.gateway_id.as_ref().is_some_and(|wanted| !wanted.is(&idr)) {
            return Err(EndCause::Unauthenticated("another identity than expected"));
        }
        let proof = &self.proof;
        let prf = self.sa.suite.prf;
        let octets = signed_octets(prf, &proof.response, &proof.nonce_i, &proof.sk_pr, id_body);
        match &config.credentials {
            Credentials::Psk(psk) => {
                let proven =
                    auth.method == AuthMethod::SHARED_KEY && verify_psk_auth(prf, psk, &octets, auth.data);
                if proven { Ok(()) } else { Err(EndCause::Unauthenticated("wrong AUTH")) }
            }
            Credentials::Certificate(certificate) => {
                let (leaf, intermediates) =
                    received.certs.split_first().ok_or(EndCause::Unauthenticated("no certificate"))?;
                certificate
                    .trust
                    .verify(leaf, intermediates, &idr)
                    .map_err(|error| EndCause::Unauthenticated(error.reason()))?;
                PublicKey::from_certificate(leaf)
                    .and_then(|key| key.verify(auth.method, auth.data, &octets, SignaturePolicy::default()))
                    .map_err(|_| EndCause::Unauthenticated("wrong signature"))
            }
        }
    }
}

/// Asks for an address of each family and name servers; empty values mean any (RFC 7296 §3.15.1).
const CONFIG_REQUEST: [ConfigAttr<'static>; 4] = [
    ConfigAttr { kind: CfgAttrType::INTERNAL_IP4_ADDRESS, value: &[] },
    ConfigAttr { kind: CfgAttrType::INTERNAL_IP4_DNS, value: &[] },
    ConfigAttr { kind: CfgAttrType::INTERNAL_IP6_ADDRESS, value: &[] },
    ConfigAttr { kind: CfgAttrType::INTERNAL_IP6_DNS, value: &[] },
];

fn add_certificates(builder: &mut MessageBuilder, certificate: &CertificateCredentials) {
    for data in &certificate.chain {
        builder.cert(&CertView { encoding: CertEncoding::X509_SIGNATURE, data });
    }
    builder.cert_req(&CertReqView {
        encoding: CertEncoding::X509_SIGNATURE,
        authorities: certificate.trust.authorities(),
    });
}

fn read_config(view: &ConfigView<'_>) -> Attached {
    let mut attached = Attached::default();
    for attribute in view.attributes() {
        let address = address(attribute.value);
        match attribute.kind {
            CfgAttrType::INTERNAL_IP4_ADDRESS | CfgAttrType::INTERNAL_IP6_ADDRESS => {
                attached.inner.extend(address)
            }
            CfgAttrType::INTERNAL_IP4_DNS | CfgAttrType::INTERNAL_IP6_DNS => attached.dns.extend(address),
            _ => {}
        }
    }
    attached
}

/// Reads an address; an IPv6 one may carry its prefix length behind it (RFC 7296 §3.15.1).
fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    match value.split_first_chunk::<16>() {
        Some((v6, [] | [_])) => Some(IpAddr::V6(Ipv6Addr::from(*v6))),
        _ => None,
    }
}

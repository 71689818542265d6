//! IKE_AUTH (RFC 7296 §1.2, §2.15): proof of both identities, the inner address, the first Child SA.

use super::auth_eap::EapRun;
use super::child::{ChildAnswer, ChildOffer};
use super::config::{CertificateCredentials, Credentials};
use super::sa::IkeSa;
use super::trust::GatewayTrust;
use super::{
    Attached, ChildSpis, EndCause, Established, Event, Identity, Initiator, NONCE_LEN, State, UeConfig,
};
use bytes::Bytes;
use codec::Random;
use codec::crypto::{HashSet, RsaScheme, Secret, psk_auth, signed_octets};
use codec::ike::payload::{
    AuthView, CertReqView, CertView, ConfigAttr, ConfigView, EapView, IdView, Payload, PayloadIter,
};
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
    pub(super) sa: IkeSa,
    pub(super) proof: Proof,
    offer: ChildOffer,
    pub(super) sent_at: Instant,
    /// Rounds of EAP, if that is how the UE authenticates.
    pub(super) eap: Option<Box<EapRun>>,
}

/// Payloads of a response that matter.
#[derive(Default)]
pub(super) struct Received<'a> {
    pub(super) idr: Option<(&'a [u8], IdView<'a>)>,
    pub(super) auth: Option<AuthView<'a>>,
    pub(super) certs: Vec<&'a [u8]>,
    pub(super) eap: Option<EapView<'a>>,
    pub(super) device_identity: Option<&'a [u8]>,
    pub(super) error: Option<NotifyType>,
    config: Option<ConfigView<'a>>,
    child: ChildAnswer<'a>,
}

impl<'a> Received<'a> {
    pub(super) fn read(payloads: PayloadIter<'a>) -> Result<Self, EndCause> {
        const MALFORMED: EndCause = EndCause::BadAnswer("malformed IKE_AUTH");
        let mut received = Self::default();
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
                Payload::Eap(view) => received.eap = Some(view),
                Payload::Config(view) if view.kind == CfgType::REPLY => received.config = Some(view),
                Payload::Notify(view) if view.kind.is_error() => received.error = Some(view.kind),
                Payload::Notify(view) if view.kind == NotifyType::DEVICE_IDENTITY => {
                    received.device_identity = Some(view.data);
                }
                other => received.child.take(&other),
            }
        }
        Ok(received)
    }
}

impl Authenticating {
    pub(super) fn pending_request(&self) -> Option<Bytes> {
        self.sa.pending.as_ref().map(|pending| pending.message.clone())
    }

    pub(super) fn sent_at(&self) -> Instant {
        self.sent_at
    }
}

/// What a response leads to.
pub(super) enum AuthStep {
    /// Another request, which has been sealed.
    Again(Bytes),
    /// The IKE SA and its child are up.
    Up(Box<(Attached, super::ChildSa)>),
}

impl Initiator {
    /// Sends IKE_AUTH.
    pub(super) fn start_auth(&mut self, now: Instant, sa: IkeSa, proof: Proof, random: &mut dyn Random) {
        let eap = match EapRun::begin(&self.config, &self.who) {
            Ok(eap) => eap,
            Err(cause) => return self.end(cause),
        };
        let offer = ChildOffer::first(&proof.nonce_i, random);
        let mut auth = Authenticating { sa, proof, offer, sent_at: now, eap };
        match auth.send(now, &self.config, &self.who.idi, random) {
            Ok(message) => {
                self.transmits.push_back(message);
                self.state = State::Auth(Box::new(auth));
            }
            Err(cause) => self.end(cause),
        }
    }

    /// Takes the response: established, another round of EAP, or over.
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
        self.take_auth_response(now, opened.payloads(message), random);
    }

    /// Takes the payloads of an authentic response.
    pub(super) fn take_auth_response(
        &mut self,
        now: Instant,
        payloads: PayloadIter<'_>,
        random: &mut dyn Random,
    ) {
        let State::Auth(mut auth) = std::mem::replace(&mut self.state, State::Ended) else { return };
        let step = Received::read(payloads).and_then(|received| match auth.eap.take() {
            Some(run) => auth.go_on(now, &self.config, &self.who, run, &received, random),
            None => {
                auth.check(&received)?;
                auth.verify(&self.config, &received)?;
                auth.finish(&self.config, &received, false)
            }
        });
        match step {
            Ok(AuthStep::Again(message)) => {
                self.transmits.push_back(message);
                self.state = State::Auth(auth);
            }
            Ok(AuthStep::Up(up)) => self.established(now, auth.sa, *up, random),
            Err(cause) => self.end(cause),
        }
    }

    fn established(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        (attached, child): (Attached, super::ChildSa),
        random: &mut dyn Random,
    ) {
        sa.pending = None;
        let children = vec![ChildSpis { spi_in: child.spi_in, spi_out: child.spi_out }];
        self.state = State::Up(Box::new(Established {
            sa,
            old: None,
            children,
            exchange: None,
            wishes: VecDeque::new(),
            heard_at: now,
            ike_since: now,
            child_since: now,
        }));
        self.events.push_back(Event::Established(Box::new(attached)));
        self.events.push_back(Event::Install(Box::new(child)));
        self.next_wish(now, random);
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
        let proof = self.own_proof(config, &id_body)?;
        let offer = &self.offer;
        self.sa
            .request(now, ExchangeType::IKE_AUTH, random, |builder| {
                builder.id_i(&idi.view());
                match &config.credentials {
                    Credentials::Certificate(certificate) => add_certificates(builder, certificate),
                    Credentials::Eap(eap) => add_cert_req(builder, eap.trust.as_ref()),
                    Credentials::Psk(_) => {}
                }
                if let Some(idr) = &config.idr {
                    builder.id_r(&idr.view());
                }
                if let Some((method, data)) = &proof {
                    builder.auth(&AuthView { method: *method, data });
                }
                let asked: Vec<ConfigAttr<'_>> =
                    config.handset.asks.iter().map(|kind| ConfigAttr { kind: *kind, value: &[] }).collect();
                builder.config(CfgType::REQUEST, &asked);
                offer.encode_first(config, builder);
                add_notifies(builder, config);
            })
            .ok_or(EndCause::Local("IKE_AUTH too long"))
    }

    /// Our AUTH; `None` for EAP, where it comes last.
    fn own_proof(
        &self,
        config: &UeConfig,
        id_body: &[u8],
    ) -> Result<Option<(AuthMethod, Vec<u8>)>, EndCause> {
        let prf = self.sa.suite.prf;
        let proof = &self.proof;
        let octets = signed_octets(prf, &proof.request, &proof.nonce_r, &proof.sk_pi, id_body);
        Ok(Some(match &config.credentials {
            Credentials::Eap(_) => return Ok(None),
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
        }))
    }

    /// A response that is an error and nothing else.
    pub(super) fn check(&self, received: &Received<'_>) -> Result<(), EndCause> {
        match (received.error, received.auth) {
            (Some(error), None) => Err(EndCause::Refused(error)),
            _ => Ok(()),
        }
    }

    /// Takes what an authentic gateway gives.
    pub(super) fn finish(
        &self,
        config: &UeConfig,
        received: &Received<'_>,
        fast: bool,
    ) -> Result<AuthStep, EndCause> {
        // Authentic, but without a Child SA: useless to a UE.
        if let Some(error) = received.error {
            return Err(EndCause::Refused(error));
        }
        if let Some(view) = &received.config {
            config.handset.check_answers(view)?;
        }
        let attached = received.config.map(|view| read_config(&view)).unwrap_or_default();
        let attached = Attached { fast, ..attached };
        let nonces =
            codec::crypto::SaNonces { initiator: &self.proof.nonce_i, responder: &self.proof.nonce_r };
        let child = self.offer.finish_first(config, &received.child, &self.sa, nonces)?;
        Ok(AuthStep::Up(Box::new((attached, child))))
    }
}

/// Asks for a certificate of an authority that we believe.
fn add_cert_req(builder: &mut MessageBuilder, trust: Option<&GatewayTrust>) {
    if let Some(trust) = trust {
        builder.cert_req(&CertReqView {
            encoding: CertEncoding::X509_SIGNATURE,
            authorities: trust.authorities(),
        });
    }
}

/// What the first request says about the UE.
fn add_notifies(builder: &mut MessageBuilder, config: &UeConfig) {
    if matches!(&config.credentials, Credentials::Eap(eap) if eap.alone) {
        builder.notify(NotifyType::EAP_ONLY_AUTHENTICATION, &[]);
    }
    if let Some(session) = config.handset.pdu_session {
        builder.notify(NotifyType::N1_MODE_CAPABILITY, &[1, session]);
    }
    if config.handset.p_cscf_reselection {
        builder.notify(NotifyType::P_CSCF_RESELECTION_SUPPORT, &[]);
    }
}

fn add_certificates(builder: &mut MessageBuilder, certificate: &CertificateCredentials) {
    for data in &certificate.chain {
        builder.cert(&CertView { encoding: CertEncoding::X509_SIGNATURE, data });
    }
    add_cert_req(builder, Some(&certificate.trust));
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
            CfgAttrType::P_CSCF_IP4_ADDRESS
            | CfgAttrType::P_CSCF_IP6_ADDRESS
            | CfgAttrType::P_CSCF_IP4_ADDRESS_LEGACY
            | CfgAttrType::P_CSCF_IP6_ADDRESS_LEGACY
            | CfgAttrType::P_CSCF_IP6_ADDRESS_LEGACY_2 => attached.p_cscf.extend(address),
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

//! IKE_SA_INIT (RFC 7296 §1.2), with its retries for COOKIE and INVALID_KE_PAYLOAD.

use super::auth::Proof;
use super::sa::IkeSa;
use super::{EndCause, Initiator, NONCE_LEN, State, UeConfig, draw_ike_spi, draw_nonce};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use bytes::Bytes;
use codec::Random;
use codec::crypto::{HashSet, IkeKeys, IkeProposal, KeyExchange, SaNonces, Secret, select_ike};
use codec::ike::payload::{KeView, Payload, Proposal, SaView, Transform};
use codec::ike::{
    ExchangeType, Flags, IkeHeader, IkeSpi, KeGroup, Message, MessageBuilder, MessageId, NotifyType,
    ProtocolId,
};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Most IKE_SA_INIT requests of one attach: the first, a cookie, another group, and both again.
const REQUESTS_MAX: u32 = 5;

/// No UE's address.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// An IKE_SA_INIT in flight.
pub(super) struct Initiating {
    spi_i: IkeSpi,
    nonce_i: [u8; NONCE_LEN],
    group: KeGroup,
    /// Our half; gone once the response has been taken.
    exchange: Option<KeyExchange>,
    cookie: Vec<u8>,
    local: SocketAddr,
    remote: SocketAddr,
    requests: u32,
    /// Whether the request is a corrected one, whose connection has not been lost yet.
    corrected: bool,
    pub(super) request: Bytes,
    pub(super) sent_at: Instant,
}

/// What the answer says.
enum Answer {
    Cookie(Vec<u8>),
    Group(KeGroup),
    Accepted(Box<Agreed>),
}

/// What IKE_SA_INIT has settled.
struct Agreed {
    sa: IkeSa,
    nonce_r: Vec<u8>,
    sk_pi: Secret,
    sk_pr: Secret,
    gateway_hashes: Option<HashSet>,
}

impl Initiator {
    /// Sends the first IKE_SA_INIT.
    pub(super) fn start_init(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        random: &mut dyn Random,
    ) {
        let Some(group) = first_group(&self.config) else {
            return self.end(EndCause::Local("no IKE proposal"));
        };
        let Ok(exchange) = KeyExchange::generate(group, random) else {
            return self.end(EndCause::Local("key exchange"));
        };
        let mut init = Initiating {
            spi_i: draw_ike_spi(random),
            nonce_i: draw_nonce(random),
            group,
            exchange: Some(exchange),
            cookie: Vec::new(),
            local,
            remote,
            requests: 0,
            corrected: false,
            request: Bytes::new(),
            sent_at: now,
        };
        match init.encode(&self.config) {
            Some(request) => self.transmits.push_back(request),
            None => return self.end(EndCause::Local("IKE_SA_INIT too long")),
        }
        self.state = State::Init(Box::new(init));
    }

    /// Takes the response: goes on to IKE_AUTH, tries again as asked, or ends.
    pub(super) fn handle_init_response(
        &mut self,
        now: Instant,
        header: &IkeHeader,
        message: &[u8],
        random: &mut dyn Random,
    ) {
        let State::Init(init) = &mut self.state else { return };
        let ours = header.spi_i == init.spi_i
            && header.exchange == ExchangeType::IKE_SA_INIT
            && header.flags.is_response()
            && header.message_id == MessageId(0);
        if !ours {
            return;
        }
        let retried = match init.read_response(&self.config, header, message) {
            Ok(Answer::Accepted(agreed)) => {
                let proof = Proof {
                    request: init.request.clone(),
                    response: Bytes::copy_from_slice(message),
                    nonce_i: init.nonce_i,
                    nonce_r: agreed.nonce_r,
                    sk_pi: agreed.sk_pi,
                    sk_pr: agreed.sk_pr,
                    gateway_hashes: agreed.gateway_hashes,
                };
                return self.start_auth(now, agreed.sa, proof, random);
            }
            Ok(Answer::Cookie(cookie)) => {
                // RFC 7296 §2.6: the same request again, the cookie in front.
                init.cookie = cookie;
                Ok(())
            }
            Ok(Answer::Group(group)) => KeyExchange::generate(group, random)
                .map(|exchange| (init.group, init.exchange) = (group, Some(exchange)))
                .map_err(|_| EndCause::Local("key exchange")),
            Err(cause) => Err(cause),
        };
        if let Err(cause) = retried {
            return self.end(cause);
        }
        if init.requests >= REQUESTS_MAX {
            return self.end(EndCause::BadAnswer("endless IKE_SA_INIT retries"));
        }
        init.corrected = true;
        match init.encode(&self.config) {
            Some(request) => self.transmits.push_back(request),
            None => self.end(EndCause::Local("IKE_SA_INIT too long")),
        }
    }

    /// Repeats the request on a new connection.
    pub(super) fn repeat_init(&mut self, local: SocketAddr) {
        let State::Init(init) = &mut self.state else { return };
        // RFC 7296 §2.6: with a cookie nothing else changes.
        if init.cookie.is_empty() {
            init.local = local;
        }
        match init.encode(&self.config) {
            Some(request) => self.transmits = VecDeque::from([request]),
            None => self.end(EndCause::Local("IKE_SA_INIT too long")),
        }
    }
}

impl Initiating {
    /// Whether the attach goes on on another connection, once for each correction. A gateway SHOULD keep the one that it
    /// has asked for a corrected request on (RFC 9329 §6.4); not all do.
    pub(super) fn outlives_connection(&mut self) -> bool {
        std::mem::take(&mut self.corrected)
    }

    /// Builds the request from the current cookie and key exchange.
    fn encode(&mut self, config: &UeConfig) -> Option<Bytes> {
        let flags = Flags::new(true, false);
        let mut builder =
            MessageBuilder::new(self.spi_i, IkeSpi::ZERO, ExchangeType::IKE_SA_INIT, flags, MessageId(0));
        if !self.cookie.is_empty() {
            builder.notify(NotifyType::COOKIE, &self.cookie);
        }
        let transforms: Vec<Vec<Transform>> = config.ike.iter().map(IkeProposal::transforms).collect();
        let offers: Vec<Proposal<'_>> = (1..)
            .zip(&transforms)
            .map(|(number, transforms)| Proposal { number, protocol: ProtocolId::IKE, spi: &[], transforms })
            .collect();
        builder.sa(&offers);
        let exchange = self.exchange.as_ref()?;
        builder.ke(&KeView { group: self.group, data: exchange.public() });
        builder.nonce(&self.nonce_i);
        // RFC 9329 §6.5: computed over the addresses and ports of the TCP connection.
        // A phone that wants UDP around ESP whatever the path is says an address that is not its own.
        let local = if config.handset.fakes_nat { NOWHERE } else { self.local };
        builder.notify(NotifyType::NAT_DETECTION_SOURCE_IP, &nat_digest(self.spi_i, local));
        builder.notify(NotifyType::NAT_DETECTION_DESTINATION_IP, &nat_digest(self.spi_i, self.remote));
        builder.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS, &HashSet::notify_data());
        if config.handset.fragmentation {
            builder.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[]);
        }
        self.request = Bytes::from(builder.finish().ok()?);
        self.requests += 1;
        Some(self.request.clone())
    }

    fn read_response(
        &mut self,
        config: &UeConfig,
        header: &IkeHeader,
        message: &[u8],
    ) -> Result<Answer, EndCause> {
        const MALFORMED: EndCause = EndCause::BadAnswer("malformed IKE_SA_INIT");
        let mut received = Received::default();
        for payload in Message::decode(message).map_err(|_| MALFORMED)?.payloads() {
            match payload.and_then(|raw| raw.decode()).map_err(|_| MALFORMED)? {
                Payload::Sa(view) => received.sa = Some(view),
                Payload::Ke(view) => received.ke = Some(view),
                Payload::Nonce(view) => received.nonce = Some(view.data),
                Payload::Notify(notify) => match notify.kind {
                    NotifyType::COOKIE if config.handset.fears_cookies => {
                        return Err(EndCause::Handset("cookie".into()));
                    }
                    NotifyType::COOKIE if self.cookie != notify.data => {
                        return Ok(Answer::Cookie(notify.data.to_vec()));
                    }
                    NotifyType::COOKIE => return Err(EndCause::BadAnswer("cookie refused")),
                    NotifyType::INVALID_KE_PAYLOAD => return self.other_group(config, notify.ke_group()),
                    NotifyType::SIGNATURE_HASH_ALGORITHMS => {
                        received.hashes = Some(notify.hash_ids().collect())
                    }
                    kind if kind.is_error() => return Err(EndCause::Refused(kind)),
                    _ => {}
                },
                _ => {}
            }
        }
        self.accept(config, header, &received)
    }

    /// RFC 7296 §1.3: the group that the gateway names, if we offered it and did not just use it.
    fn other_group(&self, config: &UeConfig, group: Option<KeGroup>) -> Result<Answer, EndCause> {
        let offered = |group: &KeGroup| config.ike.iter().any(|proposal| proposal.groups().contains(group));
        match group.filter(offered) {
            Some(group) if group != self.group => Ok(Answer::Group(group)),
            _ => Err(EndCause::BadAnswer("asks for a group that was not offered")),
        }
    }

    fn accept(
        &mut self,
        config: &UeConfig,
        header: &IkeHeader,
        received: &Received<'_>,
    ) -> Result<Answer, EndCause> {
        const MALFORMED: EndCause = EndCause::BadAnswer("malformed IKE_SA_INIT");
        let (Some(sa), Some(ke), Some(nonce_r)) = (received.sa, received.ke, received.nonce) else {
            return Err(MALFORMED);
        };
        let chosen = select_ike(&config.ike, &sa, self.group)
            .filter(|chosen| chosen.suite.group == self.group && ke.group == self.group && sa.is_answer())
            .ok_or(EndCause::BadAnswer("suite was not offered"))?;
        if header.spi_r.is_zero() {
            return Err(EndCause::BadAnswer("responder SPI is zero"));
        }
        let exchange = self.exchange.take().ok_or(EndCause::Local("key exchange"))?;
        let shared = exchange.agree(ke.data).map_err(|_| EndCause::BadAnswer("public value"))?;
        let nonces = SaNonces { initiator: &self.nonce_i, responder: nonce_r };
        let keys = IkeKeys::derive(&chosen.suite, nonces, &shared, self.spi_i, header.spi_r);
        Ok(Answer::Accepted(Box::new(Agreed {
            nonce_r: nonce_r.to_vec(),
            sk_pi: keys.sk_pi.clone(),
            sk_pr: keys.sk_pr.clone(),
            gateway_hashes: received.hashes,
            sa: IkeSa::new(chosen.suite, keys, self.spi_i, header.spi_r, 1),
        })))
    }
}

/// Payloads of a response that matter.
#[derive(Default)]
struct Received<'a> {
    sa: Option<SaView<'a>>,
    ke: Option<KeView<'a>>,
    nonce: Option<&'a [u8]>,
    hashes: Option<HashSet>,
}

fn first_group(config: &UeConfig) -> Option<KeGroup> {
    config.ike.first()?.groups().first().copied()
}

/// NAT_DETECTION digest: SHA-1 of SPIi, SPIr (zero here), address and port (RFC 7296 §2.23).
fn nat_digest(spi_i: IkeSpi, address: SocketAddr) -> [u8; 20] {
    let mut octets = [spi_i.0, IkeSpi::ZERO.0].concat();
    match address.ip() {
        IpAddr::V4(v4) => octets.extend(v4.octets()),
        IpAddr::V6(v6) => octets.extend(v6.octets()),
    }
    octets.extend(address.port().to_be_bytes());
    let mut out = [0; 20];
    out.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, &octets).as_ref());
    out
}

//! A scripted gateway: the least that answers an initiator, with the faults a test asks for.
//!
//! It is built on `codec` alone and keeps one IKE SA. It holds keys and Message IDs, and nothing else of a real responder.

pub mod eap;
pub mod phone;
pub mod tcp;

use codec::crypto::{
    ChildKeymat, EspProposal, GroupPolicy, IkeKeys, IkeProposal, IkeSuite, KeyExchange, SaNonces, Secret,
    SkKey, child_keymat, open_sk, psk_auth, select_esp, select_ike, signed_octets, verify_psk_auth,
};
use codec::esp::EspSpi;
use codec::ike::payload::{
    AuthView, CertView, ConfigAttr, EapView, IdView, KeView, Payload, TrafficSelector,
};
use codec::ike::{
    AuthMethod, CertEncoding, CfgAttrType, CfgType, ExchangeType, Flags, IdType, IkeHeader, IkeSpi, KeGroup,
    Message, MessageBuilder, MessageId, NotifyType, PayloadType, ProtocolId,
};
use codec::{Random, SeededRandom};
use eap::{EapServer, Said};

/// Identity of the scripted gateway.
pub const GATEWAY_ID: &[u8] = b"gw.test";
/// The address it assigns.
pub const INNER: [u8; 4] = [10, 64, 0, 7];

/// What the script does wrong, or asks for first.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    pub cookie: bool,
    pub other_group: Option<KeGroup>,
    pub refuse_init: Option<NotifyType>,
    pub refuse_auth: Option<NotifyType>,
    pub wrong_auth: bool,
    pub wrong_suite: bool,
}

/// The first IKE_AUTH request by EAP.
pub struct FirstAuth {
    id_body: Vec<u8>,
    sa_body: Vec<u8>,
    /// IDr: type and name.
    pub idr: Option<(IdType, Vec<u8>)>,
    /// Attributes asked for.
    pub asked: Vec<CfgAttrType>,
    /// Notifications by type and data.
    pub notifies: Vec<(NotifyType, Vec<u8>)>,
}

struct Keys {
    suite: IkeSuite,
    sk_d: Secret,
    key_in: SkKey,
    key_out: SkKey,
}

pub struct Script {
    pub ike: Vec<IkeProposal>,
    pub esp: Vec<EspProposal>,
    pub psk: Vec<u8>,
    pub faults: Faults,
    pub random: SeededRandom,
    /// Keys of the Child SAs, newest last: SPI the UE writes, SPI it receives under.
    pub children: Vec<(EspSpi, EspSpi, ChildKeymat)>,
    /// Exchange types of the requests seen.
    pub seen: Vec<ExchangeType>,
    pub deleted: bool,
    /// EAP in the place of the PSK.
    pub eap: Option<EapServer>,
    /// What the first IKE_AUTH request by EAP said.
    pub first: Option<FirstAuth>,
    /// Cuts what is sealed into fragments of so many octets (RFC 7383).
    pub fragment_len: Option<usize>,
    /// The last answer, cut.
    fragments: Vec<Vec<u8>>,
    /// Leaves the paired SPIs out of the answer to a Delete.
    pub empty_deletes: bool,
    /// The Configuration reply.
    pub config: Vec<(CfgAttrType, Vec<u8>)>,
    spi_r: IkeSpi,
    spi_i: IkeSpi,
    keys: Option<Keys>,
    old: Option<(IkeSpi, IkeSpi, Keys)>,
    sk_p: Option<(Secret, Secret)>,
    init: (Vec<u8>, Vec<u8>),
    nonces: (Vec<u8>, Vec<u8>),
    next_request: u32,
}

impl Script {
    pub fn new(ike: &str, esp: &str, psk: &[u8]) -> Self {
        Self {
            ike: vec![ike.parse().unwrap()],
            esp: vec![esp.parse().unwrap()],
            psk: psk.to_vec(),
            faults: Faults::default(),
            random: SeededRandom::new(99),
            children: Vec::new(),
            seen: Vec::new(),
            deleted: false,
            eap: None,
            first: None,
            fragment_len: None,
            fragments: Vec::new(),
            empty_deletes: false,
            config: vec![
                (CfgAttrType::INTERNAL_IP4_ADDRESS, INNER.to_vec()),
                (CfgAttrType::INTERNAL_IP4_DNS, vec![10, 64, 0, 1]),
            ],
            spi_r: IkeSpi([0x52; 8]),
            spi_i: IkeSpi::ZERO,
            keys: None,
            old: None,
            sk_p: None,
            init: (Vec::new(), Vec::new()),
            nonces: (Vec::new(), Vec::new()),
            next_request: 0,
        }
    }

    /// Answers one message of the UE in as many messages as it takes.
    pub fn answers(&mut self, message: &[u8]) -> Vec<Vec<u8>> {
        let answer = self.answer(message);
        let fragments = std::mem::take(&mut self.fragments);
        if fragments.is_empty() { answer.into_iter().collect() } else { fragments }
    }

    /// Answers one message of the UE; `None` for a response.
    pub fn answer(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let header = IkeHeader::decode(message).unwrap();
        assert!(header.flags.is_initiator(), "the UE is the original initiator");
        if header.flags.is_response() {
            return None;
        }
        self.seen.push(header.exchange);
        match header.exchange {
            ExchangeType::IKE_SA_INIT => Some(self.answer_init(&header, message)),
            ExchangeType::IKE_AUTH => Some(self.answer_auth(&header, message)),
            ExchangeType::CREATE_CHILD_SA => Some(self.answer_create(&header, message)),
            ExchangeType::INFORMATIONAL => Some(self.answer_informational(&header, message)),
            other => panic!("unexpected {other}"),
        }
    }

    /// Makes a request of the gateway's own.
    pub fn request(&mut self, exchange: ExchangeType, fill: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
        let id = MessageId(self.next_request);
        self.next_request += 1;
        let mut builder = MessageBuilder::new(self.spi_i, self.spi_r, exchange, Flags::new(false, false), id);
        fill(&mut builder);
        builder.seal(&mut self.keys.as_mut().unwrap().key_out, &mut self.random).unwrap()
    }

    /// Opens a response of the UE and returns the types of its payloads.
    pub fn open_response(&mut self, message: &[u8]) -> Vec<PayloadType> {
        let mut message = message.to_vec();
        let opened = open_sk(&mut message, &self.keys.as_ref().unwrap().key_in).unwrap();
        opened.payloads(&message).map(|raw| raw.unwrap().kind).collect()
    }

    fn answer_init(&mut self, header: &IkeHeader, message: &[u8]) -> Vec<u8> {
        let (mut sa, mut ke, mut nonce, mut cookie) = (None, None, None, None);
        for (place, raw) in Message::decode(message).unwrap().payloads().enumerate() {
            match raw.unwrap().decode().unwrap() {
                Payload::Sa(view) => sa = Some(view),
                Payload::Ke(view) => ke = Some(view),
                Payload::Nonce(view) => nonce = Some(view.data.to_vec()),
                Payload::Notify(view) if view.kind == NotifyType::COOKIE => {
                    assert_eq!(place, 0, "RFC 7296 §2.6: the cookie is the first payload");
                    cookie = Some(view.data.to_vec());
                }
                _ => {}
            }
        }
        let (sa, ke, nonce_i) = (sa.unwrap(), ke.unwrap(), nonce.unwrap());
        let refuse = |kind: NotifyType, data: &[u8]| {
            let mut builder = clear_answer(header, IkeSpi::ZERO);
            builder.notify(kind, data);
            builder.finish().unwrap()
        };
        if let Some(kind) = self.faults.refuse_init {
            return refuse(kind, &[]);
        }
        if self.faults.cookie && cookie.is_none() {
            return refuse(NotifyType::COOKIE, b"crumbs");
        }
        if let Some(group) = self.faults.other_group.filter(|group| *group != ke.group) {
            return refuse(NotifyType::INVALID_KE_PAYLOAD, &group.0.to_be_bytes());
        }
        let chosen = select_ike(&self.ike, &sa, ke.group).expect("the test offers what the script takes");
        let exchange = KeyExchange::generate(ke.group, &mut self.random).unwrap();
        let public = exchange.public().to_vec();
        let shared = exchange.agree(ke.data).unwrap();
        let nonce_r = self.nonce();
        let nonces = SaNonces { initiator: &nonce_i, responder: &nonce_r };
        let keys = IkeKeys::derive(&chosen.suite, nonces, &shared, header.spi_i, self.spi_r);
        self.sk_p = Some((keys.sk_pi.clone(), keys.sk_pr.clone()));
        self.keys = Some(take_keys(chosen.suite, keys));
        self.spi_i = header.spi_i;
        let mut builder = clear_answer(header, self.spi_r);
        let body = &mut Vec::new();
        chosen.encode(&[], body);
        if self.faults.wrong_suite {
            // Key Length 256 where 128 was offered: the last octet of the attribute of the first transform.
            let at = body.windows(4).position(|octets| octets == [0x80, 14, 0, 128]).unwrap();
            body[at + 2..at + 4].copy_from_slice(&[1, 0]);
        }
        builder.payload(PayloadType::SA, |out| out.extend_from_slice(body));
        builder.ke(&KeView { group: ke.group, data: &public }).nonce(&nonce_r);
        let answer = builder.finish().unwrap();
        self.init = (message.to_vec(), answer.clone());
        self.nonces = (nonce_i, nonce_r);
        answer
    }

    fn answer_auth(&mut self, header: &IkeHeader, message: &[u8]) -> Vec<u8> {
        if self.eap.is_some() {
            return self.answer_eap(header, message);
        }
        let mut message = message.to_vec();
        let opened = open_sk(&mut message, &self.keys.as_ref().unwrap().key_in).unwrap();
        let suite = self.keys.as_ref().unwrap().suite;
        let sk_pi = self.sk_p.clone().unwrap().0;
        let (mut idi, mut auth, mut sa, mut asks_address) = (None, None, None, false);
        for raw in opened.payloads(&message) {
            let raw = raw.unwrap();
            match raw.decode().unwrap() {
                Payload::IdI(_) => idi = Some(raw.body),
                Payload::Auth(view) => auth = Some(view),
                Payload::Sa(view) => sa = Some(view),
                Payload::Config(view) => asks_address = view.kind == CfgType::REQUEST,
                _ => {}
            }
        }
        assert!(asks_address);
        let octets = signed_octets(suite.prf, &self.init.0, &self.nonces.1, &sk_pi, idi.unwrap());
        let proven = verify_psk_auth(suite.prf, &self.psk, &octets, auth.unwrap().data);
        if let Some(kind) = self.faults.refuse_auth.or((!proven).then_some(NotifyType::AUTHENTICATION_FAILED))
        {
            return self.sealed(header, |builder| {
                builder.notify(kind, &[]);
            });
        }
        let sa = sa.unwrap();
        let psk = if self.faults.wrong_auth { b"another".to_vec() } else { self.psk.clone() };
        self.answer_up(header, &sa, &psk, true)
    }

    /// IKE_AUTH with EAP inside (RFC 7296 §2.16).
    fn answer_eap(&mut self, header: &IkeHeader, message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        let opened = open_sk(&mut message, &self.keys.as_ref().unwrap().key_in).unwrap();
        let (mut idi, mut auth, mut eap, mut first) = (None, None, None, None);
        let (mut idr, mut asked, mut notifies) = (None, Vec::new(), Vec::new());
        for raw in opened.payloads(&message) {
            let raw = raw.unwrap();
            match raw.decode().unwrap() {
                Payload::IdI(view) => idi = Some((raw.body.to_vec(), view.data.to_vec())),
                Payload::IdR(view) => idr = Some((view.kind, view.data.to_vec())),
                Payload::Auth(view) => auth = Some(view),
                Payload::Eap(view) => eap = Some(view.packet.to_vec()),
                Payload::Sa(_) => first = Some(raw.body.to_vec()),
                Payload::Config(view) => asked = view.attributes().map(|it| it.kind).collect(),
                Payload::Notify(view) => notifies.push((view.kind, view.data.to_vec())),
                _ => {}
            }
        }
        let mut server = self.eap.take().unwrap();
        let answer = match (idi, first, auth, eap) {
            (Some((id_body, name)), Some(sa_body), None, None) => {
                self.first = Some(FirstAuth { id_body, sa_body, idr, asked, notifies });
                let said = server.begin(&name);
                self.introduce(header, &server, said)
            }
            (None, None, None, Some(packet)) => {
                for (kind, data) in notifies {
                    assert_eq!(kind, NotifyType::DEVICE_IDENTITY);
                    server.device = Some(data);
                }
                let said = server.respond(&packet);
                self.say(header, said)
            }
            (None, None, Some(auth), None) => {
                let msk = server.msk.clone().expect("EAP-Success");
                let first = self.first.as_ref().unwrap();
                let (prf, sk_pi) = (self.keys.as_ref().unwrap().suite.prf, &self.sk_p.as_ref().unwrap().0);
                let octets = signed_octets(prf, &self.init.0, &self.nonces.1, sk_pi, &first.id_body);
                assert_eq!(auth.method, AuthMethod::SHARED_KEY);
                assert!(verify_psk_auth(prf, msk.as_bytes(), &octets, auth.data), "AUTH by the MSK");
                let key = if server.faults.wrong_msk { vec![0; 64] } else { msk.as_bytes().to_vec() };
                let sa_body = first.sa_body.clone();
                let sa = codec::ike::payload::SaView::decode(&sa_body).unwrap();
                self.answer_up(header, &sa, &key, false)
            }
            _ => panic!("payloads that do not go together"),
        };
        self.eap = Some(server);
        answer
    }

    /// The first response: who the gateway is, its proof unless it does without, the first EAP request.
    fn introduce(&mut self, header: &IkeHeader, server: &EapServer, said: Said) -> Vec<u8> {
        let Said::Packet(packet) = said else { return self.say(header, said) };
        let id = IdView { kind: IdType::FQDN, data: GATEWAY_ID };
        let mut id_body = Vec::new();
        id.encode(&mut id_body);
        let (prf, sk_pr) = (self.keys.as_ref().unwrap().suite.prf, &self.sk_p.as_ref().unwrap().1);
        let mut octets = signed_octets(prf, &self.init.1, &self.nonces.0, sk_pr, &id_body);
        if server.faults.wrong_signature {
            octets.push(0);
        }
        let proof = server.certificate.as_ref().filter(|_| !server.faults.no_auth).map(|(der, key)| {
            (der.clone(), key.sign(None, codec::crypto::RsaScheme::default(), &octets).unwrap())
        });
        let device = server.ask_device;
        self.sealed(header, |builder| {
            builder.id_r(&id);
            if let Some((data, signature)) = &proof {
                builder.cert(&CertView { encoding: CertEncoding::X509_SIGNATURE, data });
                builder.auth(&AuthView { method: signature.method, data: &signature.data });
            }
            builder.eap(&EapView { packet: &packet });
            if let Some(kind) = device {
                builder.notify(NotifyType::DEVICE_IDENTITY, &[0, 1, kind]);
            }
        })
    }

    fn say(&mut self, header: &IkeHeader, said: Said) -> Vec<u8> {
        let refusal = self.faults.refuse_auth.unwrap_or(NotifyType::AUTHENTICATION_FAILED);
        self.sealed(header, |builder| match &said {
            Said::Packet(packet) | Said::Done(packet) => {
                builder.eap(&EapView { packet });
            }
            Said::Over(packet) => {
                builder.eap(&EapView { packet }).notify(refusal, &[]);
            }
        })
    }

    /// The last response: our AUTH by `key`, and what the UE asked for; IDr where it was not sent before.
    fn answer_up(
        &mut self,
        header: &IkeHeader,
        sa: &codec::ike::payload::SaView<'_>,
        key: &[u8],
        with_id: bool,
    ) -> Vec<u8> {
        let suite = self.keys.as_ref().unwrap().suite;
        let sk_pr = self.sk_p.as_ref().unwrap().1.clone();
        let chosen = select_esp(&self.esp, sa, GroupPolicy::Ignore).unwrap();
        let nonces = SaNonces { initiator: &self.nonces.0, responder: &self.nonces.1 };
        let keymat = child_keymat(suite.prf, &self.keys.as_ref().unwrap().sk_d, None, nonces, &chosen.suite);
        let spi = EspSpi(0x1000 + self.children.len() as u32);
        self.children.push((spi, chosen.peer_spi, keymat));
        let id = IdView { kind: IdType::FQDN, data: GATEWAY_ID };
        let mut id_body = Vec::new();
        id.encode(&mut id_body);
        let octets = signed_octets(suite.prf, &self.init.1, &self.nonces.0, &sk_pr, &id_body);
        let proof = psk_auth(suite.prf, key, &octets);
        let config = self.config.clone();
        let config: Vec<ConfigAttr<'_>> =
            config.iter().map(|(kind, value)| ConfigAttr { kind: *kind, value }).collect();
        self.sealed(header, |builder| {
            if with_id {
                builder.id_r(&id);
            }
            builder.auth(&AuthView { method: AuthMethod::SHARED_KEY, data: proof.as_bytes() });
            builder.config(CfgType::REPLY, &config);
            builder.payload(PayloadType::SA, |out| chosen.encode(spi, out));
            builder.ts_i(&[TrafficSelector::ANY_IPV4]).ts_r(&[TrafficSelector::ANY_IPV4]);
        })
    }

    fn answer_create(&mut self, header: &IkeHeader, message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        let opened = open_sk(&mut message, &self.keys.as_ref().unwrap().key_in).unwrap();
        let (mut sa, mut ke, mut nonce_i) = (None, None, Vec::new());
        for raw in opened.payloads(&message) {
            match raw.unwrap().decode().unwrap() {
                Payload::Sa(view) => sa = Some(view),
                Payload::Ke(view) => ke = Some(view),
                Payload::Nonce(view) => nonce_i = view.data.to_vec(),
                _ => {}
            }
        }
        let sa = sa.unwrap();
        let nonce_r = self.nonce();
        let nonces = SaNonces { initiator: &nonce_i, responder: &nonce_r };
        let exchanged = ke.map(|ke| {
            let exchange = KeyExchange::generate(ke.group, &mut self.random).unwrap();
            let public = exchange.public().to_vec();
            (ke.group, public, exchange.agree(ke.data).unwrap())
        });
        let keys = self.keys.as_ref().unwrap();
        let is_ike = sa.proposals().next().unwrap().protocol == ProtocolId::IKE;
        let mut body = Vec::new();
        let mut new_keys = None;
        if is_ike {
            let (group, _, shared) = exchanged.as_ref().unwrap();
            let chosen = select_ike(&self.ike, &sa, *group).unwrap();
            let (spi_i, spi_r) = (chosen.peer_spi.unwrap(), IkeSpi([0x53; 8]));
            let fresh =
                IkeKeys::rekey(&chosen.suite, keys.suite.prf, &keys.sk_d, nonces, shared, spi_i, spi_r);
            chosen.encode(&spi_r.0, &mut body);
            new_keys = Some((spi_i, spi_r, take_keys(chosen.suite, fresh)));
        } else {
            let ke = exchanged.as_ref().map(|(group, _, _)| *group);
            let groups = GroupPolicy::Negotiate { any: ke.as_slice(), ke };
            let chosen = select_esp(&self.esp, &sa, groups).unwrap();
            let shared = exchanged.as_ref().map(|(_, _, shared)| shared);
            let keymat = child_keymat(keys.suite.prf, &keys.sk_d, shared, nonces, &chosen.suite);
            let spi = EspSpi(0x1000 + self.children.len() as u32);
            chosen.encode(spi, &mut body);
            self.children.push((spi, chosen.peer_spi, keymat));
        }
        let answer = self.sealed(header, |builder| {
            builder.payload(PayloadType::SA, |out| out.extend_from_slice(&body)).nonce(&nonce_r);
            if let Some((group, public, _)) = &exchanged {
                builder.ke(&KeView { group: *group, data: public });
            }
            if !is_ike {
                builder.ts_i(&[TrafficSelector::ANY_IPV4]).ts_r(&[TrafficSelector::ANY_IPV4]);
            }
        });
        if let Some((spi_i, spi_r, fresh)) = new_keys {
            self.old = Some((self.spi_i, self.spi_r, self.keys.replace(fresh).unwrap()));
            (self.spi_i, self.spi_r) = (spi_i, spi_r);
            self.next_request = 0;
        }
        answer
    }

    fn answer_informational(&mut self, header: &IkeHeader, message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        if header.spi_i != self.spi_i {
            let (spi_i, spi_r, mut keys) = self.old.take().expect("a message of the SA before");
            assert_eq!((header.spi_i, header.spi_r), (spi_i, spi_r));
            open_sk(&mut message, &keys.key_in).unwrap();
            return seal_answer(header, &mut keys.key_out, &mut self.random, |_| {});
        }
        let opened = open_sk(&mut message, &self.keys.as_ref().unwrap().key_in).unwrap();
        let mut gone = Vec::new();
        for raw in opened.payloads(&message) {
            if let Payload::Delete(view) = raw.unwrap().decode().unwrap() {
                self.deleted |= view.protocol == ProtocolId::IKE;
                for spi in view.esp_spis() {
                    let at =
                        self.children.iter().position(|(_, to_ue, _)| *to_ue == spi).expect("a known child");
                    gone.push(self.children.remove(at).0);
                }
            }
        }
        let empty = self.empty_deletes;
        self.sealed(header, |builder| {
            if !gone.is_empty() && !empty {
                builder.delete_esp(&gone);
            }
        })
    }

    fn sealed(&mut self, header: &IkeHeader, fill: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
        let key = &mut self.keys.as_mut().unwrap().key_out;
        if let Some(len) = self.fragment_len {
            let mut builder = clear_answer(header, header.spi_r);
            fill(&mut builder);
            self.fragments = builder.seal_fragments(key, &mut self.random, len).unwrap();
            // The last arrives first.
            self.fragments.reverse();
            return Vec::new();
        }
        seal_answer(header, key, &mut self.random, fill)
    }

    fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; 32];
        self.random.fill(&mut nonce);
        nonce
    }
}

fn clear_answer(header: &IkeHeader, spi_r: IkeSpi) -> MessageBuilder {
    MessageBuilder::new(header.spi_i, spi_r, header.exchange, Flags::new(false, true), header.message_id)
}

fn seal_answer(
    header: &IkeHeader,
    key: &mut SkKey,
    random: &mut SeededRandom,
    fill: impl FnOnce(&mut MessageBuilder),
) -> Vec<u8> {
    let mut builder = clear_answer(header, header.spi_r);
    fill(&mut builder);
    builder.seal(key, random).unwrap()
}

fn take_keys(suite: IkeSuite, keys: IkeKeys) -> Keys {
    Keys { suite, key_in: keys.initiator_key(&suite), key_out: keys.responder_key(&suite), sk_d: keys.sk_d }
}

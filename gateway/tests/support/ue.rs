//! A small IKEv2 initiator for tests, on the codec alone. It trusts nothing: every answer it accepts is
//! checked against what it asked for.

use std::net::{IpAddr, Ipv4Addr};

use codec::crypto::{
    ChildKeymat, ChosenEsp, EspProposal, GroupPolicy, IkeKeys, IkeProposal, IkeSuite, KeyExchange,
    PrivateKey, PublicKey, RsaScheme, SaNonces, Secret, SignaturePolicy, SkKey, child_keymat,
    child_keymat_with, int_auth, open_sk, open_skf, psk_auth, select_esp, select_esp_several, select_ike,
    signed_octets, verify_psk_auth,
};
use codec::esp::{EspSpi, EspSuite};
use codec::ike::payload::{
    AuthView, CertView, ConfigAttr, ConfigView, DeleteView, IdView, KeView, NotifyView, Payload, PayloadIter,
    Proposal, SaView, TrafficSelector, Transform, TsView,
};
use codec::ike::{
    AuthMethod, CertEncoding, CfgAttrType, CfgType, ExchangeType, Flags, HEADER_LEN, IdType, IkeHeader,
    IkeSpi, KeGroup, Message, MessageBuilder, MessageId, NotifyType, PayloadType, ProtocolId,
};
use codec::{Random, SeededRandom};

#[path = "ue_eap.rs"]
mod eap;

/// How the UE proves its identity, and how it checks the gateway's.
pub enum UeAuth {
    Psk(Vec<u8>),
    Certificate {
        chain: Vec<Vec<u8>>,
        key: PrivateKey,
    },
    /// By EAP; the gateway's certificate is checked unless the UE does without it (RFC 5998).
    Eap {
        alone: bool,
    },
    /// With the SK_d of a ticket, which is in the keys (RFC 5723 §5.2).
    Ticket,
}

/// A post-quantum pre-shared key of the UE (RFC 8784).
pub struct UePpk {
    /// The data of PPK_IDENTITY: type, then the PPK_ID.
    pub id: Vec<u8>,
    pub key: Vec<u8>,
    /// Whether NO_PPK_AUTH is sent as well.
    pub optional: bool,
}

/// What a UE keeps to resume a session.
#[derive(Clone)]
pub struct Resumable {
    pub ticket: Vec<u8>,
    pub suite: IkeSuite,
    pub sk_d: Secret,
}

/// What a UE is and wants. Tests change the fields they are about.
pub struct UeConfig {
    pub seed: u64,
    pub id: (IdType, Vec<u8>),
    pub asked: Option<(IdType, Vec<u8>)>,
    pub auth: UeAuth,
    pub ike: Vec<&'static str>,
    pub group: KeGroup,
    pub esp: Vec<&'static str>,
    pub hashes: bool,
    pub config: Vec<(CfgAttrType, Vec<u8>)>,
    pub ts_i: Vec<TrafficSelector>,
    pub ts_r: Vec<TrafficSelector>,
    pub initial_contact: bool,
    /// Whether it says that it can be told other P-CSCFs.
    pub reselects: bool,
    /// Whether IKE_INTERMEDIATE is announced.
    pub intermediate: bool,
    /// Whether IKE fragmentation is announced.
    pub fragmentation: bool,
    pub ppk: Option<UePpk>,
    /// Longest protected message; longer ones become fragments in a row.
    pub room: Option<usize>,
}

impl UeConfig {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            id: (IdType::FQDN, format!("ue{seed}.test").into_bytes()),
            asked: Some((IdType::FQDN, b"gw.test".to_vec())),
            auth: UeAuth::Psk(b"test-secret".to_vec()),
            ike: vec!["aes128gcm16-prfsha256-x25519"],
            group: KeGroup::CURVE25519,
            esp: vec!["aes128gcm16"],
            hashes: true,
            config: vec![
                (CfgAttrType::INTERNAL_IP4_ADDRESS, vec![]),
                (CfgAttrType::INTERNAL_IP4_DNS, vec![]),
            ],
            ts_i: vec![TrafficSelector::ANY_IPV4],
            ts_r: vec![TrafficSelector::ANY_IPV4],
            initial_contact: false,
            reselects: false,
            intermediate: false,
            fragmentation: false,
            ppk: None,
            room: None,
        }
    }
}

/// One IKE SA as the UE sees it.
pub struct UeSa {
    /// Whether the UE is its original initiator.
    initiator: bool,
    room: Option<usize>,
    pub spi_i: IkeSpi,
    pub spi_r: IkeSpi,
    pub suite: IkeSuite,
    sk_d: Secret,
    key_in: SkKey,
    key_out: SkKey,
    pub next_out: u32,
}

/// A Child SA as the UE sees it.
pub struct UeChild {
    pub spi_in: EspSpi,
    pub spi_out: EspSpi,
    pub suite: EspSuite,
    pub keys: ChildKeymat,
    pub ts_i: Vec<TrafficSelector>,
    pub ts_r: Vec<TrafficSelector>,
}

/// A decoded message with its payloads copied out.
#[derive(Debug)]
pub struct Decoded {
    pub header: IkeHeader,
    pub payloads: Vec<(PayloadType, Vec<u8>)>,
}

impl Decoded {
    pub fn clear(message: &[u8]) -> Self {
        let decoded = Message::decode(message).expect("a well-formed message");
        let payloads = decoded.payloads().map(|raw| {
            let raw = raw.expect("a well-formed payload");
            (raw.kind, raw.body.to_vec())
        });
        Self { header: decoded.header, payloads: payloads.collect() }
    }

    pub fn body(&self, kind: PayloadType) -> Option<&[u8]> {
        self.payloads.iter().find(|(found, _)| *found == kind).map(|(_, body)| &body[..])
    }

    pub fn notify(&self, kind: NotifyType) -> Option<NotifyView<'_>> {
        self.notifies().find(|notify| notify.kind == kind)
    }

    pub fn notifies(&self) -> impl Iterator<Item = NotifyView<'_>> {
        let bodies = self.payloads.iter().filter(|(kind, _)| *kind == PayloadType::NOTIFY);
        bodies.map(|(_, body)| NotifyView::decode(body).expect("a notify"))
    }

    /// The first error notification.
    pub fn error(&self) -> Option<NotifyType> {
        self.notifies().map(|notify| notify.kind).find(|kind| kind.is_error())
    }

    pub fn deleted(&self) -> Vec<EspSpi> {
        self.body(PayloadType::DELETE)
            .map(|body| DeleteView::decode(body).expect("a delete").esp_spis().collect())
            .unwrap_or_default()
    }

    pub fn config(&self) -> Vec<(CfgAttrType, Vec<u8>)> {
        let Some(body) = self.body(PayloadType::CONFIG) else { return Vec::new() };
        let view = ConfigView::decode(body).expect("a configuration");
        assert_eq!(view.kind, CfgType::REPLY);
        view.attributes().map(|attribute| (attribute.kind, attribute.value.to_vec())).collect()
    }
}

struct Init {
    own: Option<KeyExchange>,
    request: Vec<u8>,
    nonce: Vec<u8>,
}

struct Derived {
    response: Vec<u8>,
    nonce_r: Vec<u8>,
    keys: IkeKeys,
    /// Both shares of what AUTH covers of IKE_INTERMEDIATE.
    int_auth: Option<(Secret, Secret)>,
    /// Keys with the UE's PPK in them, when both ends announced PPKs.
    mixed: Option<IkeKeys>,
}

/// An exchange the UE has started and whose answer it waits for.
struct Pending {
    nonce: Vec<u8>,
    ke: Option<KeyExchange>,
    spi: Vec<u8>,
}

/// A rekey of the IKE SA that takes several exchanges.
pub struct FollowUp {
    pub link: Vec<u8>,
    pub methods: Vec<KeGroup>,
    own: Option<KeyExchange>,
    shared: Secret,
    additional: Vec<Secret>,
    suite: IkeSuite,
    spi_i: IkeSpi,
    spi_r: IkeSpi,
    nonces: (Vec<u8>, Vec<u8>),
}

/// A Child SA of CREATE_CHILD_SA that takes several exchanges.
pub struct ChildFollowUp {
    pub link: Vec<u8>,
    pub methods: Vec<KeGroup>,
    own: Option<KeyExchange>,
    shared: Secret,
    additional: Vec<Secret>,
    chosen: ChosenEsp,
    spi_in: EspSpi,
    nonces: (Vec<u8>, Vec<u8>),
    /// Selectors of the initiator of the exchange and of its responder.
    selectors: (Vec<TrafficSelector>, Vec<TrafficSelector>),
    /// Whether the UE asked.
    ours: bool,
}

pub struct Ue {
    pub config: UeConfig,
    pub random: SeededRandom,
    pub sa: Option<UeSa>,
    pub old: Option<UeSa>,
    /// One that came out of a simultaneous rekey.
    pub spare: Option<UeSa>,
    pub children: Vec<UeChild>,
    pub addresses: Vec<IpAddr>,
    /// Additional key exchanges that are still to come.
    pub additional: Vec<KeGroup>,
    pub spi_i: IkeSpi,
    init: Option<Init>,
    derived: Option<Derived>,
    pending: Option<Pending>,
    eap: Option<eap::Eap>,
}

impl Ue {
    pub fn new(config: UeConfig) -> Self {
        let mut random = SeededRandom::new(config.seed);
        let mut spi_i = IkeSpi::ZERO;
        random.fill(&mut spi_i.0);
        Self {
            config,
            random,
            sa: None,
            old: None,
            spare: None,
            children: Vec::new(),
            addresses: Vec::new(),
            additional: Vec::new(),
            spi_i,
            init: None,
            derived: None,
            pending: None,
            eap: None,
        }
    }

    pub fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; 32];
        self.random.fill(&mut nonce);
        nonce
    }

    fn spi(&mut self) -> EspSpi {
        let mut octets = [0; 4];
        self.random.fill(&mut octets);
        EspSpi(u32::from_be_bytes(octets) | 0x1000_0000)
    }

    fn ike_offer(&self) -> Vec<IkeProposal> {
        self.config.ike.iter().map(|text| text.parse().expect("a proposal")).collect()
    }

    fn esp_offer(&self) -> Vec<EspProposal> {
        self.config.esp.iter().map(|text| text.parse().expect("a proposal")).collect()
    }

    /// The IKE_SA_INIT request; a second call makes another one with the same SPI.
    pub fn init(&mut self) -> Vec<u8> {
        self.init_with(|_| {})
    }

    /// [`Self::init`] with further payloads.
    pub fn init_with(&mut self, more: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
        let own = KeyExchange::generate(self.config.group, &mut self.random).expect("a key");
        let nonce = self.nonce();
        self.write_init(own, nonce, |_| {}, more)
    }

    /// The last IKE_SA_INIT request again, with further payloads in front (RFC 7296 §2.6).
    pub fn repeat_init(&mut self, first: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
        let last = self.init.take().expect("a request to repeat");
        self.write_init(last.own.expect("not answered yet"), last.nonce, first, |_| {})
    }

    fn write_init(
        &mut self,
        own: KeyExchange,
        nonce: Vec<u8>,
        first: impl FnOnce(&mut MessageBuilder),
        more: impl FnOnce(&mut MessageBuilder),
    ) -> Vec<u8> {
        let flags = Flags::new(true, false);
        let mut builder =
            MessageBuilder::new(self.spi_i, IkeSpi::ZERO, ExchangeType::IKE_SA_INIT, flags, MessageId(0));
        first(&mut builder);
        let transforms: Vec<_> = self.ike_offer().iter().map(IkeProposal::transforms).collect();
        let offers: Vec<_> =
            transforms.iter().zip(1..).map(|(list, number)| offer(number, &[], list)).collect();
        builder.sa(&offers).ke(&KeView { group: self.config.group, data: own.public() }).nonce(&nonce);
        if self.config.hashes {
            builder.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS, &codec::crypto::HashSet::notify_data());
        }
        if self.config.intermediate {
            builder.notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, &[]);
        }
        if self.config.fragmentation {
            builder.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[]);
        }
        if self.config.ppk.is_some() {
            builder.notify(NotifyType::USE_PPK, &[]);
        }
        more(&mut builder);
        let request = builder.finish().expect("short");
        self.init = Some(Init { own: Some(own), request: request.clone(), nonce });
        request
    }

    /// Takes the IKE_SA_INIT response and derives keys; the error notification if it is one.
    pub fn on_init(&mut self, response: &[u8]) -> Result<(), NotifyType> {
        let decoded = Decoded::clear(response);
        assert_eq!(decoded.header.spi_i, self.spi_i);
        assert_eq!(decoded.header.flags, Flags::new(false, true));
        if let Some(error) = decoded.error() {
            if error == NotifyType::INVALID_KE_PAYLOAD {
                let notify = decoded.notify(error).expect("just found");
                self.config.group = notify.ke_group().expect("a group");
            }
            return Err(error);
        }
        let spi_r = decoded.header.spi_r;
        assert!(!spi_r.is_zero());
        let sa = SaView::decode(decoded.body(PayloadType::SA).expect("SAr1")).expect("an SA");
        assert!(sa.is_answer());
        let ke = KeView::decode(decoded.body(PayloadType::KE).expect("KEr")).expect("a KE");
        let chosen = select_ike(&self.ike_offer(), &sa, ke.group).expect("part of the offer");
        let suite = chosen.suite;
        assert_eq!((ke.group, suite.group), (self.config.group, self.config.group));
        let nonce_r = decoded.body(PayloadType::NONCE).expect("Nr").to_vec();
        let init = self.init.as_mut().expect("asked before");
        let shared = init.own.take().expect("once").agree(ke.data).expect("a good value");
        let nonces = SaNonces { initiator: &init.nonce, responder: &nonce_r };
        let keys = IkeKeys::derive(&suite, nonces, &shared, self.spi_i, spi_r);
        self.sa = Some(UeSa {
            initiator: true,
            room: self.config.room,
            spi_i: self.spi_i,
            spi_r,
            suite,
            sk_d: keys.sk_d.clone(),
            key_in: keys.responder_key(&suite),
            key_out: keys.initiator_key(&suite),
            next_out: 1,
        });
        self.additional = chosen.additional.methods().collect();
        let ppk = self.config.ppk.as_ref().filter(|_| decoded.notify(NotifyType::USE_PPK).is_some());
        let mixed = ppk.map(|ppk| keys.with_ppk(suite.prf, &ppk.key));
        self.derived = Some(Derived { response: response.to_vec(), nonce_r, keys, int_auth: None, mixed });
        Ok(())
    }

    /// What is kept of the session to resume it with `ticket`.
    pub fn resumable(&self, ticket: &[u8]) -> Resumable {
        let sa = self.sa.as_ref().expect("established");
        Resumable { ticket: ticket.to_vec(), suite: sa.suite, sk_d: sa.sk_d.clone() }
    }

    /// The IKE_SESSION_RESUME request.
    pub fn resume(&mut self, from: &Resumable) -> Vec<u8> {
        let nonce = self.nonce();
        let flags = Flags::new(true, false);
        let exchange = ExchangeType::IKE_SESSION_RESUME;
        let mut builder = MessageBuilder::new(self.spi_i, IkeSpi::ZERO, exchange, flags, MessageId(0));
        builder.nonce(&nonce).notify(NotifyType::TICKET_OPAQUE, &from.ticket);
        let request = builder.finish().expect("short");
        self.init = Some(Init { own: None, request: request.clone(), nonce });
        request
    }

    /// Takes the answer to it and derives keys; IKE_AUTH follows with [`Self::auth`].
    pub fn on_resume(&mut self, from: &Resumable, response: &[u8]) -> Result<(), NotifyType> {
        let decoded = Decoded::clear(response);
        if decoded.notify(NotifyType::TICKET_NACK).is_some() {
            assert!(decoded.header.spi_r.is_zero());
            return Err(NotifyType::TICKET_NACK);
        }
        let nonce_r = decoded.body(PayloadType::NONCE).expect("Nr").to_vec();
        let init = self.init.as_ref().expect("asked before");
        let nonces = SaNonces { initiator: &init.nonce, responder: &nonce_r };
        let (suite, spi_r) = (from.suite, decoded.header.spi_r);
        let keys = IkeKeys::resume(&suite, &from.sk_d, nonces, self.spi_i, spi_r);
        self.sa = Some(UeSa {
            initiator: true,
            room: self.config.room,
            spi_i: self.spi_i,
            spi_r,
            suite,
            sk_d: keys.sk_d.clone(),
            key_in: keys.responder_key(&suite),
            key_out: keys.initiator_key(&suite),
            next_out: 1,
        });
        self.config.auth = UeAuth::Ticket;
        self.derived =
            Some(Derived { response: response.to_vec(), nonce_r, keys, int_auth: None, mixed: None });
        Ok(())
    }

    /// The next IKE_INTERMEDIATE request, with the next additional key exchange if there is one.
    pub fn intermediate(&mut self) -> Vec<u8> {
        let method = self.additional.first().copied();
        let own = method.map(|method| KeyExchange::generate(method, &mut self.random).expect("a key"));
        let sa = self.sa.as_mut().expect("IKE_SA_INIT first");
        let header = sa.header(ExchangeType::IKE_INTERMEDIATE, false);
        let mut builder = sa.builder(ExchangeType::IKE_INTERMEDIATE);
        if let Some(own) = &own {
            builder.ke(&KeView { group: own.group(), data: own.public() });
        }
        let derived = self.derived.as_mut().expect("IKE_SA_INIT first");
        let (first, inner) = builder.inner();
        let before = derived.int_auth.as_ref().map(|(initiator, _)| initiator);
        let share = int_auth(sa.suite.prf, &derived.keys.sk_pi, before, &header, first, inner);
        self.pending = Some(Pending { nonce: share.as_bytes().to_vec(), ke: own, spi: Vec::new() });
        sa.seal(builder, &mut self.random)
    }

    /// Takes the answer and goes over to the new keys.
    pub fn on_intermediate(&mut self, response: &[u8]) -> Decoded {
        let decoded = self.open(response).expect("authentic");
        let pending = self.pending.take().expect("asked before");
        if decoded.error().is_some() {
            return decoded;
        }
        let sa = self.sa.as_mut().expect("IKE_SA_INIT first");
        let derived = self.derived.as_mut().expect("IKE_SA_INIT first");
        let (prf, suite) = (sa.suite.prf, sa.suite);
        let before = derived.int_auth.as_ref().map(|(_, responder)| responder);
        let mut inner = MessageBuilder::new(
            sa.spi_i,
            sa.spi_r,
            decoded.header.exchange,
            decoded.header.flags,
            decoded.header.message_id,
        );
        for (kind, body) in &decoded.payloads {
            inner.payload(*kind, |out| out.extend_from_slice(body));
        }
        let (first, chain) = inner.inner();
        let responder = int_auth(prf, &derived.keys.sk_pr, before, &decoded.header, first, chain);
        derived.int_auth = Some((Secret::new(pending.nonce), responder));
        if let Some(own) = pending.ke {
            self.additional.remove(0);
            let ke = KeView::decode(decoded.body(PayloadType::KE).expect("KEr")).expect("a KE");
            assert_eq!(ke.group, own.group());
            let shared = own.agree(ke.data).expect("a good value");
            let init = self.init.as_ref().expect("IKE_SA_INIT first");
            let nonces = SaNonces { initiator: &init.nonce, responder: &derived.nonce_r };
            derived.keys = derived.keys.update(&suite, nonces, &shared, sa.spi_i, sa.spi_r);
            sa.sk_d = derived.keys.sk_d.clone();
            sa.key_in = derived.keys.responder_key(&suite);
            sa.key_out = derived.keys.initiator_key(&suite);
        }
        decoded
    }

    /// What AUTH covers of the IKE_INTERMEDIATE exchanges.
    fn int_auth(derived: &Derived, auth_id: u32) -> Vec<u8> {
        let Some((initiator, responder)) = &derived.int_auth else { return Vec::new() };
        [initiator.as_bytes(), responder.as_bytes(), &auth_id.to_be_bytes()].concat()
    }

    /// The IKE_AUTH request.
    pub fn auth(&mut self) -> Vec<u8> {
        self.auth_with(|_| {})
    }

    /// [`Self::auth`] with further payloads.
    pub fn auth_with(&mut self, more: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
        let spi = self.spi();
        let init = self.init.as_ref().expect("IKE_SA_INIT first");
        let derived = self.derived.as_ref().expect("IKE_SA_INIT first");
        let suite = self.sa.as_ref().expect("IKE_SA_INIT first").suite;
        let (kind, data) = self.config.id.clone();
        let id = IdView { kind, data: &data };
        let mut id_body = Vec::new();
        id.encode(&mut id_body);
        let auth_id = self.sa.as_ref().expect("IKE_SA_INIT first").next_out;
        let octets_with = |keys: &IkeKeys| {
            let mut octets = signed_octets(suite.prf, &init.request, &derived.nonce_r, &keys.sk_pi, &id_body);
            octets.extend(Self::int_auth(derived, auth_id));
            octets
        };
        let octets = octets_with(derived.mixed.as_ref().unwrap_or(&derived.keys));
        let mut without_ppk = None;
        let (certs, method, auth) = match &self.config.auth {
            UeAuth::Psk(psk) => {
                let auth = psk_auth(suite.prf, psk, &octets).as_bytes().to_vec();
                without_ppk = Some(psk_auth(suite.prf, psk, &octets_with(&derived.keys)).as_bytes().to_vec());
                (Vec::new(), AuthMethod::SHARED_KEY, auth)
            }
            UeAuth::Eap { .. } => (Vec::new(), AuthMethod::SHARED_KEY, Vec::new()),
            UeAuth::Ticket => {
                let auth = suite.prf.compute(derived.keys.sk_pi.as_bytes(), &[&octets]).as_bytes().to_vec();
                (Vec::new(), AuthMethod::SHARED_KEY, auth)
            }
            UeAuth::Certificate { chain, key } => {
                let response = Decoded::clear(&derived.response);
                let hashes = response
                    .notify(NotifyType::SIGNATURE_HASH_ALGORITHMS)
                    .map(|notify| notify.hash_ids().collect());
                let signed = key.sign(hashes, RsaScheme::Pss, &octets).expect("signs");
                (chain.clone(), signed.method, signed.data)
            }
        };
        let esp: Vec<_> = self.esp_offer().iter().map(|esp| esp.transforms(&[])).collect();
        let spi_octets = spi.0.to_be_bytes();
        let offers: Vec<_> = esp
            .iter()
            .zip(1..)
            .map(|(transforms, number)| Proposal {
                number,
                protocol: ProtocolId::ESP,
                spi: &spi_octets,
                transforms,
            })
            .collect();
        let config = &self.config;
        let attributes: Vec<_> =
            config.config.iter().map(|(kind, value)| ConfigAttr { kind: *kind, value }).collect();
        self.pending = Some(Pending { nonce: init.nonce.clone(), ke: None, spi: spi_octets.to_vec() });
        let ppk = self.config.ppk.as_ref().filter(|_| derived.mixed.is_some());
        let sa = self.sa.as_mut().expect("checked above");
        let mut builder = sa.builder(ExchangeType::IKE_AUTH);
        builder.id_i(&id);
        for cert in &certs {
            builder.cert(&CertView { encoding: CertEncoding::X509_SIGNATURE, data: cert });
        }
        if let Some((kind, data)) = &config.asked {
            builder.id_r(&IdView { kind: *kind, data });
        }
        match config.auth {
            UeAuth::Eap { alone: true } => {
                builder.notify(NotifyType::EAP_ONLY_AUTHENTICATION, &[]);
            }
            UeAuth::Eap { alone: false } => {}
            _ => {
                builder.auth(&AuthView { method, data: &auth });
            }
        }
        if let Some(ppk) = ppk {
            builder.notify(NotifyType::PPK_IDENTITY, &ppk.id);
            if let Some(auth) = without_ppk.filter(|_| ppk.optional) {
                builder.notify(NotifyType::NO_PPK_AUTH, &auth);
            }
        }
        if config.initial_contact {
            builder.notify(NotifyType::INITIAL_CONTACT, &[]);
        }
        if config.reselects {
            builder.notify(NotifyType::P_CSCF_RESELECTION_SUPPORT, &[]);
        }
        if !attributes.is_empty() {
            builder.config(CfgType::REQUEST, &attributes);
        }
        if !offers.is_empty() {
            builder.sa(&offers).ts_i(&config.ts_i).ts_r(&config.ts_r);
        }
        more(&mut builder);
        sa.seal(builder, &mut self.random)
    }

    /// Takes the IKE_AUTH response: checks the gateway's proof, learns addresses and the Child SA.
    pub fn on_auth(&mut self, response: &[u8]) -> Decoded {
        let decoded = self.open(response).expect("authentic");
        let Some(auth) = decoded.body(PayloadType::AUTH) else { return decoded };
        let mut derived = self.derived.take().expect("IKE_SA_INIT first");
        if decoded.notify(NotifyType::PPK_IDENTITY).is_some() {
            derived.keys = derived.mixed.take().expect("offered");
            self.sa.as_mut().expect("IKE_SA_INIT first").sk_d = derived.keys.sk_d.clone();
        }
        let init = self.init.as_ref().expect("IKE_SA_INIT first");
        let auth = AuthView::decode(auth).expect("AUTH");
        let id_body = decoded.body(PayloadType::ID_R).expect("IDr");
        let prf = self.sa.as_ref().expect("IKE_SA_INIT first").suite.prf;
        let mut octets = signed_octets(prf, &derived.response, &init.nonce, &derived.keys.sk_pr, id_body);
        octets.extend(Self::int_auth(&derived, decoded.header.message_id.0));
        match &self.config.auth {
            UeAuth::Eap { .. } => panic!("EAP ends otherwise"),
            UeAuth::Psk(psk) => assert!(verify_psk_auth(prf, psk, &octets, auth.data)),
            UeAuth::Ticket => {
                let expected = prf.compute(derived.keys.sk_pr.as_bytes(), &[&octets]);
                assert_eq!((auth.method, auth.data), (AuthMethod::SHARED_KEY, expected.as_bytes()));
                assert!(decoded.body(PayloadType::CERT).is_none());
            }
            UeAuth::Certificate { .. } => {
                let cert = CertView::decode(decoded.body(PayloadType::CERT).expect("CERT")).expect("CERT");
                let key = PublicKey::from_certificate(cert.data).expect("a key");
                key.verify(auth.method, auth.data, &octets, SignaturePolicy::default()).expect("verifies");
            }
        }
        for (kind, value) in decoded.config() {
            if kind == CfgAttrType::INTERNAL_IP4_ADDRESS {
                let octets: [u8; 4] = value.try_into().expect("an address");
                self.addresses.push(Ipv4Addr::from(octets).into());
            }
        }
        self.learn_child(&decoded, &derived.nonce_r);
        decoded
    }

    /// Takes the SA, nonce and selectors of an answer as a new Child SA.
    fn learn_child(&mut self, decoded: &Decoded, nonce_r: &[u8]) {
        let pending = self.pending.take().expect("asked before");
        let Some(sa) = decoded.body(PayloadType::SA) else { return };
        let sa = SaView::decode(sa).expect("an SA");
        assert!(sa.is_answer());
        let ke = decoded.body(PayloadType::KE).map(|body| KeView::decode(body).expect("a KE"));
        let groups = [self.config.group];
        let policy = match pending.ke {
            None => GroupPolicy::Ignore,
            Some(_) => GroupPolicy::Negotiate { any: &groups, ke: ke.map(|ke| ke.group) },
        };
        let chosen = select_esp(&self.esp_offer(), &sa, policy).expect("part of the offer");
        let shared = match (pending.ke, ke) {
            (Some(own), Some(ke)) => Some(own.agree(ke.data).expect("a good value")),
            _ => None,
        };
        let ike = self.sa.as_ref().expect("an IKE SA");
        let nonces = SaNonces { initiator: &pending.nonce, responder: nonce_r };
        let keys = child_keymat(ike.suite.prf, &ike.sk_d, shared.as_ref(), nonces, &chosen.suite);
        let selectors = |kind| {
            let body = decoded.body(kind).expect("selectors");
            TsView::decode(body).expect("selectors").selectors().collect::<Vec<_>>()
        };
        self.children.push(UeChild {
            spi_in: EspSpi(u32::from_be_bytes(pending.spi.try_into().expect("four octets"))),
            spi_out: chosen.peer_spi,
            suite: chosen.suite,
            keys,
            ts_i: selectors(PayloadType::TS_I),
            ts_r: selectors(PayloadType::TS_R),
        });
    }

    /// A request for a further Child SA, or for a successor of the one with inbound SPI `rekeyed`.
    pub fn create_child(&mut self, rekeyed: Option<EspSpi>, pfs: bool) -> Vec<u8> {
        let (spi, nonce) = (self.spi(), self.nonce());
        let groups: &[KeGroup] = if pfs { &[self.config.group] } else { &[] };
        let ke = pfs.then(|| KeyExchange::generate(self.config.group, &mut self.random).expect("a key"));
        let transforms = |esp: &EspProposal| match pfs && !esp.allows_plain() {
            true => esp.all_transforms(),
            false => esp.transforms(groups),
        };
        let transforms: Vec<_> = self.esp_offer().iter().map(transforms).collect();
        let spi_octets = spi.0.to_be_bytes();
        let offers: Vec<_> = transforms
            .iter()
            .zip(1..)
            .map(|(transforms, number)| Proposal {
                number,
                protocol: ProtocolId::ESP,
                spi: &spi_octets,
                transforms,
            })
            .collect();
        let sa = self.sa.as_mut().expect("established");
        let mut builder = sa.builder(ExchangeType::CREATE_CHILD_SA);
        if let Some(rekeyed) = rekeyed {
            builder.notify_view(&NotifyView {
                protocol: ProtocolId::ESP,
                spi: &rekeyed.0.to_be_bytes(),
                kind: NotifyType::REKEY_SA,
                data: &[],
            });
        }
        builder.sa(&offers).nonce(&nonce);
        if let Some(ke) = &ke {
            builder.ke(&KeView { group: ke.group(), data: ke.public() });
        }
        builder.ts_i(&self.config.ts_i).ts_r(&self.config.ts_r);
        let message = sa.seal(builder, &mut self.random);
        self.pending = Some(Pending { nonce, ke, spi: spi_octets.to_vec() });
        message
    }

    pub fn on_create_child(&mut self, response: &[u8]) -> Decoded {
        let decoded = self.open(response).expect("authentic");
        let nonce = decoded.body(PayloadType::NONCE).unwrap_or_default().to_vec();
        self.learn_child(&decoded, &nonce);
        decoded
    }

    /// A request to rekey the IKE SA.
    pub fn rekey_ike(&mut self) -> Vec<u8> {
        let mut spi = IkeSpi::ZERO;
        self.random.fill(&mut spi.0);
        let nonce = self.nonce();
        let ke = KeyExchange::generate(self.config.group, &mut self.random).expect("a key");
        let transforms: Vec<_> = self.ike_offer().iter().map(IkeProposal::transforms).collect();
        let offers: Vec<_> =
            transforms.iter().zip(1..).map(|(list, number)| offer(number, &spi.0, list)).collect();
        let sa = self.sa.as_mut().expect("established");
        let mut builder = sa.builder(ExchangeType::CREATE_CHILD_SA);
        builder.sa(&offers).nonce(&nonce).ke(&KeView { group: ke.group(), data: ke.public() });
        let message = sa.seal(builder, &mut self.random);
        self.pending = Some(Pending { nonce, ke: Some(ke), spi: spi.0.to_vec() });
        message
    }

    /// Takes the answer: on success the new IKE SA is in use and the old one waits to be deleted.
    pub fn on_rekey_ike(&mut self, response: &[u8]) -> Decoded {
        let decoded = self.open(response).expect("authentic");
        let pending = self.pending.take().expect("asked before");
        let Some(body) = decoded.body(PayloadType::SA) else { return decoded };
        let view = SaView::decode(body).expect("an SA");
        let ke = KeView::decode(decoded.body(PayloadType::KE).expect("KEr")).expect("a KE");
        let chosen = select_ike(&self.ike_offer(), &view, ke.group).expect("part of the offer");
        let spi_i = IkeSpi(pending.spi.try_into().expect("eight octets"));
        let spi_r = chosen.peer_spi.expect("a rekey names the new SPI");
        let shared = pending.ke.expect("made one").agree(ke.data).expect("a good value");
        let nonce_r = decoded.body(PayloadType::NONCE).expect("Nr");
        let nonces = SaNonces { initiator: &pending.nonce, responder: nonce_r };
        let old = self.sa.take().expect("established");
        let keys = IkeKeys::rekey(&chosen.suite, old.suite.prf, &old.sk_d, nonces, &shared, spi_i, spi_r);
        self.sa = Some(UeSa {
            initiator: true,
            room: self.config.room,
            spi_i,
            spi_r,
            suite: chosen.suite,
            sk_d: keys.sk_d.clone(),
            key_in: keys.responder_key(&chosen.suite),
            key_out: keys.initiator_key(&chosen.suite),
            next_out: 0,
        });
        self.old = Some(old);
        decoded
    }

    /// The response to a rekey of a Child SA that the gateway started. The new child is the last one; the lower
    /// nonce of the exchange is returned beside the response.
    pub fn accept_child(&mut self, request: &Decoded) -> (Vec<u8>, Vec<u8>) {
        let (spi_in, nonce_r) = (self.spi(), self.nonce());
        let offer = SaView::decode(request.body(PayloadType::SA).expect("SA")).expect("an SA");
        let ke = request.body(PayloadType::KE).map(|body| KeView::decode(body).expect("a KE"));
        let groups = [self.config.group];
        let policy = GroupPolicy::Negotiate { any: &groups, ke: ke.map(|ke| ke.group) };
        let chosen = select_esp(&self.esp_offer(), &offer, policy).expect("acceptable");
        let own = chosen.group.map(|group| KeyExchange::generate(group, &mut self.random).expect("a key"));
        let public = own.as_ref().map(|own| own.public().to_vec());
        let shared = own.map(|own| own.agree(ke.expect("KE").data).expect("a good value"));
        let nonce_i = request.body(PayloadType::NONCE).expect("Ni");
        let ike = self.sa.as_ref().expect("an IKE SA");
        let nonces = SaNonces { initiator: nonce_i, responder: &nonce_r };
        let keys = child_keymat(ike.suite.prf, &ike.sk_d, shared.as_ref(), nonces, &chosen.suite);
        let selectors = |kind| {
            let body = request.body(kind).expect("selectors");
            TsView::decode(body).expect("selectors").selectors().collect::<Vec<_>>()
        };
        let (ts_i, ts_r) = (selectors(PayloadType::TS_I), selectors(PayloadType::TS_R));
        let response = self.respond(request, |builder| {
            builder.payload(PayloadType::SA, |out| chosen.encode(spi_in, out)).nonce(&nonce_r);
            if let (Some(group), Some(data)) = (chosen.group, &public) {
                builder.ke(&KeView { group, data });
            }
            builder.ts_i(&ts_i).ts_r(&ts_r);
        });
        // The gateway asked, so keys and selectors of the initiator are its own.
        let keys = ChildKeymat { initiator: keys.responder, responder: keys.initiator };
        let (suite, spi_out) = (chosen.suite, chosen.peer_spi);
        self.children.push(UeChild { spi_in, spi_out, suite, keys, ts_i: ts_r, ts_r: ts_i });
        (response, nonce_i.min(&nonce_r[..]).to_vec())
    }

    /// The response to a rekey of the IKE SA that the gateway started, the new IKE SA and the lower nonce.
    pub fn accept_ike(&mut self, request: &Decoded) -> (Vec<u8>, UeSa, Vec<u8>) {
        let nonce_r = self.nonce();
        let mut spi_r = IkeSpi::ZERO;
        self.random.fill(&mut spi_r.0);
        let offer = SaView::decode(request.body(PayloadType::SA).expect("SA")).expect("an SA");
        let ke = KeView::decode(request.body(PayloadType::KE).expect("KE")).expect("a KE");
        let chosen = select_ike(&self.ike_offer(), &offer, ke.group).expect("acceptable");
        let suite = chosen.suite;
        assert_eq!(suite.group, ke.group, "the gateway offers what it uses");
        let own = KeyExchange::generate(suite.group, &mut self.random).expect("a key");
        let public = own.public().to_vec();
        let shared = own.agree(ke.data).expect("a good value");
        let nonce_i = request.body(PayloadType::NONCE).expect("Ni");
        let nonces = SaNonces { initiator: nonce_i, responder: &nonce_r };
        let spi_i = chosen.peer_spi.expect("a rekey names the new SPI");
        let old = self.sa.as_ref().expect("established");
        let keys = IkeKeys::rekey(&suite, old.suite.prf, &old.sk_d, nonces, &shared, spi_i, spi_r);
        let response = self.respond(request, |builder| {
            builder.payload(PayloadType::SA, |out| chosen.encode(&spi_r.0, out)).nonce(&nonce_r);
            builder.ke(&KeView { group: suite.group, data: &public });
        });
        let sa = UeSa {
            initiator: false,
            room: self.config.room,
            spi_i,
            spi_r,
            suite,
            sk_d: keys.sk_d.clone(),
            key_in: keys.initiator_key(&suite),
            key_out: keys.responder_key(&suite),
            next_out: 0,
        };
        (response, sa, nonce_i.min(&nonce_r[..]).to_vec())
    }

    /// The response to a rekey of the IKE SA that the gateway started and that takes several exchanges, and what is
    /// to come.
    pub fn accept_ike_begun(&mut self, request: &Decoded, link: &[u8]) -> (Vec<u8>, FollowUp) {
        let nonce_r = self.nonce();
        let mut spi_r = IkeSpi::ZERO;
        self.random.fill(&mut spi_r.0);
        let offer = SaView::decode(request.body(PayloadType::SA).expect("SA")).expect("an SA");
        let ke = KeView::decode(request.body(PayloadType::KE).expect("KE")).expect("a KE");
        let chosen = select_ike(&self.ike_offer(), &offer, ke.group).expect("acceptable");
        let suite = chosen.suite;
        let (public, shared) =
            KeyExchange::answer(suite.group, ke.data, &mut self.random).expect("a good value");
        let response = self.respond(request, |builder| {
            builder.payload(PayloadType::SA, |out| chosen.encode(&spi_r.0, out)).nonce(&nonce_r);
            builder.ke(&KeView { group: suite.group, data: &public });
            builder.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, link);
        });
        let follow_up = FollowUp {
            link: link.to_vec(),
            methods: chosen.additional.methods().collect(),
            own: None,
            shared,
            additional: Vec::new(),
            suite,
            spi_i: chosen.peer_spi.expect("a rekey names the new SPI"),
            spi_r,
            nonces: (request.body(PayloadType::NONCE).expect("Ni").to_vec(), nonce_r),
        };
        (response, follow_up)
    }

    /// The response to an IKE_FOLLOWUP_KE of the gateway; the new IKE SA with the last one.
    pub fn accept_follow_up(
        &mut self,
        rekey: &mut FollowUp,
        request: &Decoded,
        link: &[u8],
    ) -> (Vec<u8>, Option<UeSa>) {
        assert_eq!(request.header.exchange, ExchangeType::IKE_FOLLOWUP_KE);
        let named = request.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE).expect("the link");
        assert_eq!(named.data, rekey.link);
        let ke = KeView::decode(request.body(PayloadType::KE).expect("KE")).expect("a KE");
        assert_eq!(ke.group, rekey.methods.remove(0), "in their order");
        let (public, shared) =
            KeyExchange::answer(ke.group, ke.data, &mut self.random).expect("a good value");
        rekey.additional.push(shared);
        rekey.link = link.to_vec();
        let more = !rekey.methods.is_empty();
        let group = ke.group;
        let response = self.respond(request, |builder| {
            builder.ke(&KeView { group, data: &public });
            if more {
                builder.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, link);
            }
        });
        if more {
            return (response, None);
        }
        let (suite, spi_i, spi_r) = (rekey.suite, rekey.spi_i, rekey.spi_r);
        let nonces = SaNonces { initiator: &rekey.nonces.0, responder: &rekey.nonces.1 };
        let old = self.sa.as_ref().expect("established");
        let secrets = (&rekey.shared, &rekey.additional[..]);
        let keys = IkeKeys::rekey_with(&suite, old.suite.prf, &old.sk_d, nonces, secrets, spi_i, spi_r);
        let sa = UeSa {
            initiator: false,
            room: self.config.room,
            spi_i,
            spi_r,
            suite,
            sk_d: keys.sk_d.clone(),
            key_in: keys.initiator_key(&suite),
            key_out: keys.responder_key(&suite),
            next_out: 0,
        };
        (response, Some(sa))
    }

    /// Goes over to an IKE SA.
    pub fn adopt(&mut self, sa: UeSa) {
        self.old = self.sa.replace(sa);
    }

    /// The nonce of the request that waits for its answer.
    pub fn pending_nonce(&self) -> Option<&[u8]> {
        self.pending.as_ref().map(|pending| &pending.nonce[..])
    }

    /// The IKE SA with a pair of SPIs.
    fn sa_of(&mut self, header: &IkeHeader) -> Option<&mut UeSa> {
        let all = [self.sa.as_mut(), self.old.as_mut(), self.spare.as_mut()];
        all.into_iter().flatten().find(|sa| sa.spi_i == header.spi_i && sa.spi_r == header.spi_r)
    }

    /// Takes the first answer to a rekey that takes several exchanges: its link, and what is still to come.
    pub fn on_rekey_begun(&mut self, response: &[u8]) -> FollowUp {
        let decoded = self.open(response).expect("authentic");
        let pending = self.pending.take().expect("asked before");
        let view = SaView::decode(decoded.body(PayloadType::SA).expect("SA")).expect("an SA");
        let ke = KeView::decode(decoded.body(PayloadType::KE).expect("KEr")).expect("a KE");
        let chosen = select_ike(&self.ike_offer(), &view, ke.group).expect("part of the offer");
        let link = decoded.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE).expect("a link").data.to_vec();
        FollowUp {
            link,
            methods: chosen.additional.methods().collect(),
            own: None,
            shared: pending.ke.expect("made one").agree(ke.data).expect("a good value"),
            additional: Vec::new(),
            suite: chosen.suite,
            spi_i: IkeSpi(pending.spi.try_into().expect("eight octets")),
            spi_r: chosen.peer_spi.expect("a rekey names the new SPI"),
            nonces: (pending.nonce, decoded.body(PayloadType::NONCE).expect("Nr").to_vec()),
        }
    }

    /// The next IKE_FOLLOWUP_KE request.
    pub fn follow_up(&mut self, rekey: &mut FollowUp) -> Vec<u8> {
        let own = KeyExchange::generate(rekey.methods.remove(0), &mut self.random).expect("a key");
        let public = own.public().to_vec();
        let (link, group) = (rekey.link.clone(), own.group());
        rekey.own = Some(own);
        self.request(ExchangeType::IKE_FOLLOWUP_KE, |builder| {
            builder.ke(&KeView { group, data: &public }).notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, &link);
        })
    }

    /// Takes its answer; with the last one the new IKE SA is in use.
    pub fn on_follow_up(&mut self, rekey: &mut FollowUp, response: &[u8]) -> Decoded {
        let decoded = self.open(response).expect("authentic");
        if decoded.error().is_some() {
            return decoded;
        }
        let ke = KeView::decode(decoded.body(PayloadType::KE).expect("KEr")).expect("a KE");
        let own = rekey.own.take().expect("asked before");
        rekey.additional.push(own.agree(ke.data).expect("a good value"));
        let link = decoded.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE).map(|notify| notify.data.to_vec());
        assert_eq!(link.is_none(), rekey.methods.is_empty(), "a link while there is more to come");
        if let Some(link) = link {
            assert_ne!(link, rekey.link);
            rekey.link = link;
            return decoded;
        }
        let (suite, spi_i, spi_r) = (rekey.suite, rekey.spi_i, rekey.spi_r);
        let nonces = SaNonces { initiator: &rekey.nonces.0, responder: &rekey.nonces.1 };
        let old = self.sa.take().expect("established");
        let secrets = (&rekey.shared, &rekey.additional[..]);
        let keys = IkeKeys::rekey_with(&suite, old.suite.prf, &old.sk_d, nonces, secrets, spi_i, spi_r);
        self.sa = Some(UeSa {
            initiator: true,
            room: self.config.room,
            spi_i,
            spi_r,
            suite,
            sk_d: keys.sk_d.clone(),
            key_in: keys.responder_key(&suite),
            key_out: keys.initiator_key(&suite),
            next_out: 0,
        });
        self.old = Some(old);
        decoded
    }

    /// The payloads of a request that we sealed ourselves, which is opened in place.
    pub fn open_own(&self, request: &mut [u8]) -> Vec<(PayloadType, Vec<u8>)> {
        let sa = self.sa.as_ref().expect("established");
        let opened = open_sk(request, &sa.key_out).expect("just sealed");
        let payloads = opened.payloads(request).map(|raw| {
            let raw = raw.expect("a well-formed payload");
            (raw.kind, raw.body.to_vec())
        });
        payloads.collect()
    }

    /// What AUTH covers as our IKE_SA_INIT, when the test has sent another one than we made.
    pub fn set_init_request(&mut self, request: Vec<u8>) {
        self.init.as_mut().expect("asked before").request = request;
    }

    /// Takes the first answer to a Child SA that takes several exchanges.
    pub fn on_child_begun(&mut self, response: &[u8]) -> ChildFollowUp {
        let decoded = self.open(response).expect("authentic");
        assert_eq!(decoded.error(), None);
        let pending = self.pending.take().expect("asked before");
        let sa = SaView::decode(decoded.body(PayloadType::SA).expect("SA")).expect("an SA");
        let ke = KeView::decode(decoded.body(PayloadType::KE).expect("KEr")).expect("a KE");
        let policy = GroupPolicy::Negotiate { any: &[], ke: Some(ke.group) };
        let chosen = select_esp_several(&self.esp_offer(), &sa, policy).expect("part of the offer");
        let spi_in = EspSpi(u32::from_be_bytes(pending.spi.try_into().expect("four octets")));
        let shared = pending.ke.expect("made one").agree(ke.data).expect("a good value");
        let nonces = (pending.nonce, decoded.body(PayloadType::NONCE).expect("Nr").to_vec());
        let link = decoded.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE).expect("a link").data.to_vec();
        ChildFollowUp::new(link, chosen, spi_in, shared, nonces, &decoded, true)
    }

    /// The next IKE_FOLLOWUP_KE request for it.
    pub fn follow_up_child(&mut self, child: &mut ChildFollowUp) -> Vec<u8> {
        let own = KeyExchange::generate(child.methods.remove(0), &mut self.random).expect("a key");
        let (public, group, link) = (own.public().to_vec(), own.group(), child.link.clone());
        child.own = Some(own);
        self.request(ExchangeType::IKE_FOLLOWUP_KE, |builder| {
            builder.ke(&KeView { group, data: &public }).notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, &link);
        })
    }

    /// Takes its answer; with the last one the Child SA is the last of ours.
    pub fn on_follow_up_child(&mut self, child: &mut ChildFollowUp, response: &[u8]) -> Decoded {
        let decoded = self.open(response).expect("authentic");
        if decoded.error().is_some() {
            return decoded;
        }
        let ke = KeView::decode(decoded.body(PayloadType::KE).expect("KEr")).expect("a KE");
        let own = child.own.take().expect("asked before");
        child.additional.push(own.agree(ke.data).expect("a good value"));
        match decoded.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE) {
            Some(link) => child.link = link.data.to_vec(),
            None => self.add_child(child),
        }
        decoded
    }

    /// The first response to a Child SA of the gateway that takes several exchanges.
    pub fn accept_child_begun(&mut self, request: &Decoded, link: &[u8]) -> (Vec<u8>, ChildFollowUp) {
        let (spi_in, nonce_r) = (self.spi(), self.nonce());
        let offer = SaView::decode(request.body(PayloadType::SA).expect("SA")).expect("an SA");
        let ke = KeView::decode(request.body(PayloadType::KE).expect("KE")).expect("a KE");
        let policy = GroupPolicy::Negotiate { any: &[], ke: Some(ke.group) };
        let chosen = select_esp_several(&self.esp_offer(), &offer, policy).expect("acceptable");
        let (public, shared) =
            KeyExchange::answer(ke.group, ke.data, &mut self.random).expect("a good value");
        let nonces = (request.body(PayloadType::NONCE).expect("Ni").to_vec(), nonce_r.clone());
        let child = ChildFollowUp::new(link.to_vec(), chosen, spi_in, shared, nonces, request, false);
        let group = ke.group;
        let response = self.respond(request, |builder| {
            builder.payload(PayloadType::SA, |out| child.chosen.encode(spi_in, out)).nonce(&nonce_r);
            builder.ke(&KeView { group, data: &public });
            builder.ts_i(&child.selectors.0).ts_r(&child.selectors.1);
            builder.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, link);
        });
        (response, child)
    }

    /// The response to an IKE_FOLLOWUP_KE of the gateway for it; with the last one the Child SA is the last of ours.
    pub fn accept_child_follow_up(
        &mut self,
        child: &mut ChildFollowUp,
        request: &Decoded,
        link: &[u8],
    ) -> Vec<u8> {
        let named = request.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE).expect("the link");
        assert_eq!(named.data, child.link);
        let ke = KeView::decode(request.body(PayloadType::KE).expect("KE")).expect("a KE");
        assert_eq!(ke.group, child.methods.remove(0), "in their order");
        let (public, shared) =
            KeyExchange::answer(ke.group, ke.data, &mut self.random).expect("a good value");
        child.additional.push(shared);
        child.link = link.to_vec();
        let (more, group) = (!child.methods.is_empty(), ke.group);
        let response = self.respond(request, |builder| {
            builder.ke(&KeView { group, data: &public });
            if more {
                builder.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, link);
            }
        });
        if !more {
            self.add_child(child);
        }
        response
    }

    fn add_child(&mut self, child: &ChildFollowUp) {
        let ike = self.sa.as_ref().expect("established");
        let nonces = SaNonces { initiator: &child.nonces.0, responder: &child.nonces.1 };
        let secrets = (Some(&child.shared), &child.additional[..]);
        let keys = child_keymat_with(ike.suite.prf, &ike.sk_d, secrets, nonces, &child.chosen.suite);
        let (initiator, responder) = child.selectors.clone();
        // Keys and selectors as the UE knows them: its own first.
        let (keys, ts_i, ts_r) = match child.ours {
            true => (keys, initiator, responder),
            false => {
                let keys = ChildKeymat { initiator: keys.responder, responder: keys.initiator };
                (keys, responder, initiator)
            }
        };
        let (spi_in, spi_out, suite) = (child.spi_in, child.chosen.peer_spi, child.chosen.suite);
        self.children.push(UeChild { spi_in, spi_out, suite, keys, ts_i, ts_r });
    }

    /// Any request on the current IKE SA.
    pub fn request(&mut self, exchange: ExchangeType, payloads: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
        let sa = self.sa.as_mut().expect("established");
        let mut builder = sa.builder(exchange);
        payloads(&mut builder);
        sa.seal(builder, &mut self.random)
    }

    /// An INFORMATIONAL on the current IKE SA.
    pub fn informational(&mut self, payloads: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
        self.request(ExchangeType::INFORMATIONAL, payloads)
    }

    /// An INFORMATIONAL on the IKE SA that was replaced.
    pub fn informational_on_old(&mut self, payloads: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
        Self::informational_on(self.old.as_mut().expect("replaced"), &mut self.random, payloads)
    }

    /// An INFORMATIONAL on the IKE SA that a simultaneous rekey made one too many.
    pub fn informational_on_spare(&mut self, payloads: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
        Self::informational_on(self.spare.as_mut().expect("made"), &mut self.random, payloads)
    }

    fn informational_on(
        sa: &mut UeSa,
        random: &mut SeededRandom,
        payloads: impl FnOnce(&mut MessageBuilder),
    ) -> Vec<u8> {
        let mut builder = sa.builder(ExchangeType::INFORMATIONAL);
        payloads(&mut builder);
        sa.seal(builder, random)
    }

    /// The response to a request of the gateway.
    pub fn respond(&mut self, request: &Decoded, payloads: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
        let header = request.header;
        let mut random = std::mem::replace(&mut self.random, SeededRandom::new(0));
        let sa = self.sa_of(&header).expect("one of ours");
        let flags = Flags::new(sa.initiator, true);
        let mut builder = MessageBuilder::new(sa.spi_i, sa.spi_r, header.exchange, flags, header.message_id);
        payloads(&mut builder);
        let message = sa.seal(builder, &mut random);
        self.random = random;
        message
    }

    /// Opens a protected message of the gateway; `None` when it is not authentic under any of our keys.
    pub fn open(&self, message: &[u8]) -> Option<Decoded> {
        let header = IkeHeader::decode(message).expect("a header");
        let sa = [self.sa.as_ref(), self.old.as_ref(), self.spare.as_ref()]
            .into_iter()
            .flatten()
            .find(|sa| sa.spi_i == header.spi_i && sa.spi_r == header.spi_r)?;
        assert_ne!(header.flags.is_initiator(), sa.initiator, "one end is the original initiator");
        let mut chain = Vec::new();
        let mut first = PayloadType::NONE;
        if header.next_payload == PayloadType::ENCRYPTED_FRAGMENT {
            for (number, mut fragment) in split(message).into_iter().enumerate() {
                let opened = open_skf(&mut fragment, &sa.key_in).ok()?;
                assert_eq!(usize::from(opened.number), number + 1, "in order, as we send them");
                assert_ne!(opened.total, 1, "7383: a small message is not a fragment");
                if number == 0 {
                    first = opened.first;
                } else {
                    assert_eq!(opened.first, PayloadType::NONE, "only fragment 1 names a payload");
                }
                chain.extend_from_slice(&fragment[opened.inner]);
            }
        } else {
            let mut copy = message.to_vec();
            let opened = open_sk(&mut copy, &sa.key_in).ok()?;
            first = opened.first;
            chain.extend_from_slice(&copy[opened.inner]);
        }
        let payloads = PayloadIter::new(first, &chain).map(|raw| {
            let raw = raw.expect("a well-formed payload");
            assert!(!raw.critical, "no critical bit on payloads of RFC 7296");
            assert!(!matches!(raw.decode().expect("a well-formed payload"), Payload::Unknown { .. }));
            (raw.kind, raw.body.to_vec())
        });
        Some(Decoded { header, payloads: payloads.collect() })
    }
}

impl ChildFollowUp {
    fn new(
        link: Vec<u8>,
        chosen: ChosenEsp,
        spi_in: EspSpi,
        shared: Secret,
        nonces: (Vec<u8>, Vec<u8>),
        message: &Decoded,
        ours: bool,
    ) -> Self {
        let selectors = |kind| {
            let body = message.body(kind).expect("selectors");
            TsView::decode(body).expect("selectors").selectors().collect::<Vec<_>>()
        };
        let methods = chosen.additional.methods().collect();
        let selectors = (selectors(PayloadType::TS_I), selectors(PayloadType::TS_R));
        let additional = Vec::new();
        Self { link, methods, own: None, shared, additional, chosen, spi_in, nonces, selectors, ours }
    }
}

impl UeSa {
    /// The header of our next message, as IntAuth takes it.
    fn header(&self, exchange: ExchangeType, response: bool) -> IkeHeader {
        IkeHeader {
            spi_i: self.spi_i,
            spi_r: self.spi_r,
            next_payload: PayloadType::ENCRYPTED,
            version: codec::ike::Version::IKEV2,
            exchange,
            flags: Flags::new(self.initiator, response),
            message_id: MessageId(self.next_out),
            length: 0,
        }
    }

    fn builder(&mut self, exchange: ExchangeType) -> MessageBuilder {
        let id = MessageId(self.next_out);
        self.next_out += 1;
        MessageBuilder::new(self.spi_i, self.spi_r, exchange, Flags::new(self.initiator, false), id)
    }

    /// Divides messages from now on, or not.
    pub fn set_room(&mut self, room: Option<usize>) {
        self.room = room;
    }

    fn seal(&mut self, builder: MessageBuilder, random: &mut SeededRandom) -> Vec<u8> {
        match self.room {
            None => builder.seal(&mut self.key_out, random).expect("short"),
            Some(room) => builder.seal_fragments(&mut self.key_out, random, room).expect("short").concat(),
        }
    }

    /// Seals octets that need not be a payload chain, whose first type is `first`.
    pub fn seal_raw(&mut self, exchange: ExchangeType, chain: &[u8], random: &mut SeededRandom) -> Vec<u8> {
        let mut builder = self.builder(exchange);
        builder.payload(PayloadType::NOTIFY, |out| out.extend_from_slice(chain));
        assert!(chain.len() + 4 < usize::from(u16::MAX) - HEADER_LEN);
        self.seal(builder, random)
    }
}

/// The messages in `octets`: one, whatever it is, or fragments in a row.
pub fn split(octets: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut rest = octets;
    while let Ok(header) = IkeHeader::decode(rest) {
        let length = header.length as usize;
        if length < HEADER_LEN || length > rest.len() {
            break;
        }
        let (message, left) = rest.split_at(length);
        messages.push(message.to_vec());
        rest = left;
    }
    if messages.is_empty() || !rest.is_empty() { vec![octets.to_vec()] } else { messages }
}

/// A proposal for an IKE SA.
pub fn offer<'a>(number: u8, spi: &'a [u8], transforms: &'a [Transform]) -> Proposal<'a> {
    Proposal { number, protocol: ProtocolId::IKE, spi, transforms }
}

/// Adds an empty payload of type `kind` with the critical bit.
pub fn critical(builder: &mut MessageBuilder, kind: PayloadType) {
    builder.payload(kind, |out| {
        let flags_at = out.len() - 3;
        out[flags_at] = 0x80;
    });
}

/// The inner payloads of the IKE_AUTH request that `ue` would send now, by type.
pub fn inner_payloads(ue: &mut Ue) -> Vec<(PayloadType, Vec<u8>)> {
    let mut message = ue.auth();
    let sa = ue.sa.as_mut().expect("IKE_SA_INIT first");
    // The UE's own key opens what it sealed.
    let opened = open_sk(&mut message, &sa.key_out).expect("just sealed");
    sa.next_out -= 1;
    let payloads = opened.payloads(&message).map(|raw| {
        let raw = raw.expect("a well-formed payload");
        (raw.kind, raw.body.to_vec())
    });
    payloads.collect()
}

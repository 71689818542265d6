//! What the responder is told: identity, profiles, limits.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use codec::crypto::{EspProposal, IkeProposal};
use codec::ike::NotifyType;
use codec::ike::payload::GatewayId;
use zeroize::Zeroizing;

use super::aaa::EapMethod;
use super::handset::Handset;
use super::identity::{Glob, Identity};
use crate::control::pki::CertificateStore;
use crate::control::pool::PoolConfig;
use crate::types::{NetworkId, Transport, TsRange};

/// Everything a [`super::Responder`] follows. Replaced whole on reload; sessions keep the profile they
/// attached with.
pub struct ResponderConfig {
    /// Our identity (IDr).
    pub identity: Identity,
    /// Our certificate and the CAs of clients; needed by profiles with [`AuthKind::Certificate`].
    pub certificates: Option<Arc<CertificateStore>>,
    /// Profiles, first match wins.
    pub profiles: Vec<Arc<Profile>>,
    /// Address pools, named by profiles.
    pub pools: Vec<PoolConfig>,
    /// DNS servers given to UEs that ask, by network.
    pub dns: Vec<Vec<IpAddr>>,
    /// Tickets with which UEs come back without full authentication; `None` gives and takes none.
    pub resumption: Option<Resumption>,
    /// Where UEs go that are not to be served here; `None` sends nobody anywhere.
    pub redirect: Option<Redirect>,
    /// Our addresses at which emergency calls arrive: no pace holds them back.
    pub emergency_listen: Vec<SocketAddr>,
    /// What IKE_SA_INIT says about IKE over TCP, if anything.
    pub ike_tcp: Option<IkeTcpOffer>,
    /// Whether keys leave the responder as [`super::Event::KeyLog`].
    pub keylog: bool,
    /// Bounds.
    pub limits: Limits,
}

/// IKE_TCP_SUPPORTED: a notification without a number of its own, since its draft has expired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IkeTcpOffer {
    /// Its type, a status of the private range.
    pub notify: NotifyType,
    /// The TCP port at which we, or the NAT in front of us, take IKE.
    pub port: u16,
}

/// A class of subscribers.
pub struct Profile {
    /// Its name in the configuration.
    pub name: String,
    /// Pattern of the initiator's identity.
    pub idi: Glob,
    /// Pattern of the responder's identity that the initiator asks for (an APN); only `*` fits when it
    /// asks for none.
    pub idr: Glob,
    /// How both sides authenticate.
    pub auth: AuthKind,
    /// Name of the pool of inner addresses.
    pub pool: String,
    /// The network of that pool: where the uplink of its sessions goes.
    pub network: NetworkId,
    /// What UEs may reach.
    pub local_ts: Vec<TsRange>,
    /// IKE proposals in order of preference.
    pub ike: Vec<IkeProposal>,
    /// ESP proposals in order of preference.
    pub esp: Vec<EspProposal>,
    /// Transports it may be used on.
    pub transports: Vec<Transport>,
    /// The IKE SA is rekeyed after this time, up to a tenth earlier, unless the peer does; it ends at 1.2
    /// times this.
    pub rekey_ike: Duration,
    /// A Child SA is rekeyed after this time, up to a tenth earlier, unless the peer does; it ends at 1.2
    /// times this.
    pub rekey_child: Duration,
    /// A liveness check is sent after this time without any inbound traffic; zero sends none.
    pub dpd: Duration,
    /// Whether MOBIKE is agreed to (RFC 4555).
    pub mobike: bool,
    /// Whether a peer that moves to a UDP address must show that it receives there before the downlink follows
    /// (RFC 4555 §3.7).
    pub return_routability: bool,
    /// Replay window of inbound ESP, in packets.
    pub replay_window: u32,
    /// Post-quantum pre-shared keys, and whether a UE may do without; `None` uses none.
    pub ppk: Option<PpkPolicy>,
    /// Another gateway that serves these UEs: they are sent there once they have authenticated.
    pub redirect: Option<Gateway>,
    /// What phones are told.
    pub handset: Handset,
}

/// Session resumption (RFC 5723).
pub struct Resumption {
    /// Life of a ticket; that of the IKE SA bounds it too.
    pub lifetime: Duration,
    /// How long after full authentication tickets are given and taken.
    pub reauth: Duration,
    /// What tickets are sealed with, for gateways that take each other's; `None` draws a key at start.
    pub key: Option<Psk>,
}

/// Use of post-quantum pre-shared keys in a profile (RFC 8784).
pub struct PpkPolicy {
    /// Whether a UE without one is turned away.
    pub required: bool,
    /// The keys by their PPK_ID, without its type.
    pub keys: AHashMap<Box<[u8]>, Psk>,
}

/// Redirection to other gateways (RFC 5685).
pub struct Redirect {
    /// The others, taken in turn; never empty.
    pub to: Vec<Gateway>,
    /// Sessions from which on new UEs are sent there; 0 sends them only while draining.
    pub from_sessions: usize,
    /// How long a UE that was sent elsewhere may take to delete its session before we do.
    pub wait: Duration,
}

/// Another gateway, by its address or name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gateway {
    /// Its address.
    Address(IpAddr),
    /// Its name, 1 to 255 octets.
    Fqdn(Box<str>),
}

impl Gateway {
    /// It as a notification carries it.
    pub fn id(&self) -> GatewayId<'_> {
        match self {
            Self::Address(addr) => GatewayId::Address(*addr),
            Self::Fqdn(name) => GatewayId::Fqdn(name),
        }
    }

    /// Whether a peer means this gateway; the case of names is ignored.
    pub fn is(&self, other: &GatewayId<'_>) -> bool {
        match (self, other) {
            (Self::Address(own), GatewayId::Address(addr)) => own == addr,
            (Self::Fqdn(own), GatewayId::Fqdn(name)) => own.eq_ignore_ascii_case(name),
            _ => false,
        }
    }
}

impl From<GatewayId<'_>> for Gateway {
    fn from(id: GatewayId<'_>) -> Self {
        match id {
            GatewayId::Address(addr) => Self::Address(addr),
            GatewayId::Fqdn(name) => Self::Fqdn(name.into()),
        }
    }
}

/// Reads the configuration's form: an IP address or else an FQDN.
impl FromStr for Gateway {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(addr) = text.parse() {
            return Ok(Self::Address(addr));
        }
        let letter = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
        let name = (1..=255).contains(&text.len()) && text.bytes().all(letter);
        name.then(|| Self::Fqdn(text.into())).ok_or("an FQDN or an IP address")
    }
}

/// How both sides of a profile authenticate.
pub enum AuthKind {
    /// Pre-shared keys.
    Psk(PskStore),
    /// Certificates.
    Certificate,
    /// We by certificate, the UE by EAP (RFC 7296 §2.16).
    Eap(EapPolicy),
}

/// How a profile uses EAP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EapPolicy {
    /// The method.
    pub method: EapMethod,
    /// Name of the back end that decides.
    pub backend: Arc<str>,
    /// Whether a UE may do without our certificate (RFC 5998).
    pub alone: bool,
    /// Who says what the UE is called.
    pub identity: EapIdentity,
    /// Whether the back end keeps track of sessions (accounting, their time, their end at its wish): then none may
    /// come back by a ticket, of which it would not hear.
    pub tracked: bool,
    /// Whether the back end is asked about a UE that names itself by its device, as a phone without a SIM does for an
    /// emergency (TS 23.003 §19.3.6). Who has no SIM proves nothing: only a server can know what to make of it.
    pub imei: bool,
}

impl EapPolicy {
    /// Whether a profile's sessions are the business of a back end.
    pub(super) fn tracks(auth: &AuthKind) -> bool {
        matches!(auth, AuthKind::Eap(policy) if policy.tracked)
    }
}

/// Where the name that the back end is told comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EapIdentity {
    /// IDi, unless it is an address or a distinguished name; then the UE is asked.
    #[default]
    Auto,
    /// IDi (3GPP TS 33.402 §8.2.2).
    Idi,
    /// The UE is asked by EAP.
    Ask,
}

/// Whether a phone is asked for the number of its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DeviceIdentity {
    /// It is not.
    #[default]
    Never,
    /// For its IMEI.
    Imei,
    /// For its IMEISV, which ends in the version of its software.
    Imeisv,
}

/// A pre-shared key. Zeroized when dropped, no `Debug`.
pub struct Psk(Zeroizing<Vec<u8>>);

impl Psk {
    /// Reads a key from the configuration: text, or octets in hexadecimal behind `0x` (RFC 7296 §2.15).
    /// `None` when empty or not hexadecimal.
    pub fn from_text(text: &str) -> Option<Self> {
        let Some(hex) = text.strip_prefix("0x") else {
            return (!text.is_empty()).then(|| Self(Zeroizing::new(text.as_bytes().to_vec())));
        };
        if hex.is_empty() || hex.len() % 2 != 0 {
            return None;
        }
        let octets = hex.as_bytes().chunks(2).map(|pair| {
            let digits = std::str::from_utf8(pair).ok()?;
            digits.chars().all(|c| c.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())?
        });
        octets.collect::<Option<Vec<u8>>>().map(|octets| Self(Zeroizing::new(octets)))
    }

    /// The key's octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

/// Pre-shared keys of a profile: one for everybody and entries for single identities, which win.
#[derive(Default)]
pub struct PskStore {
    default: Option<Psk>,
    by_id: AHashMap<String, Psk>,
}

impl PskStore {
    /// Makes a store with a key for identities without an entry, or none.
    pub fn new(default: Option<Psk>) -> Self {
        Self { default, by_id: AHashMap::new() }
    }

    /// Adds the key of one identity, given as its text; case is ignored.
    pub fn insert(&mut self, id: &str, psk: Psk) {
        self.by_id.insert(id.to_lowercase(), psk);
    }

    /// The key for an identity's text.
    pub fn find(&self, id: &str) -> Option<&Psk> {
        self.by_id.get(&id.to_lowercase()).or(self.default.as_ref())
    }
}

/// Bounds of the responder. The worst case of its memory is about
/// `half_open_max` × 4 KiB + `unsolved_max` × 4 KiB + `sessions_max` × (2 KiB + `children_max` × 64 octets) + `lingering_max` × 1 KiB,
/// where certificates in a response add their size to a session for three minutes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Established sessions.
    pub sessions_max: usize,
    /// Half-open IKE SAs in all.
    pub half_open_max: usize,
    /// Half-open IKE SAs of one source address; NATs and hotspots put many UEs behind one.
    pub half_open_per_source_max: usize,
    /// Life of a half-open IKE SA.
    pub half_open_timeout: Duration,
    /// The same while the UE authenticates by EAP: servers and people take their time.
    pub eap_timeout: Duration,
    /// Failed attempts kept for the operator.
    pub failed_attempts_max: usize,
    /// Child SAs of one session, those about to be replaced not counted.
    pub children_max: usize,
    /// Longest IKE message handled, in octets.
    pub message_len_max: usize,
    /// Payloads of one message, in clear or inside the Encrypted payload.
    pub payloads_max: usize,
    /// CERT payloads looked at in one message.
    pub certificates_max: usize,
    /// Traffic selectors of one kind kept for a Child SA.
    pub selectors_max: usize,
    /// Half-open IKE SAs from which on an IKE_SA_INIT over UDP is answered with a cookie first.
    pub cookies_from: usize,
    /// Half-open IKE SAs from which on an IKE_SA_INIT over TCP is answered with a puzzle first.
    pub puzzles_from: usize,
    /// Zero bits that a solution must show; each one more doubles the UE's work.
    pub puzzle_bits: u8,
    /// How long a connection may take to come back with a solution.
    pub challenge_timeout: Duration,
    /// IKE_SA_INIT requests per second that are served with a cookie but no solution.
    pub unsolved_per_s: u32,
    /// Such requests that wait for their turn.
    pub unsolved_max: usize,
    /// IKE_SA_INIT requests per second that are served; as many may come at once.
    pub paced_per_s: u32,
    /// The same for the requests of one network.
    pub paced_per_prefix_per_s: u32,
    /// Requests beyond that which wait for their turn.
    pub paced_max: usize,
    /// How long they wait.
    pub paced_wait: Duration,
    /// Half-open IKE SAs, and sessions, kept free for emergencies where a profile serves them; an eighth of all at most.
    pub emergency_reserved: usize,
    /// How long a request of ours waits over UDP before it is sent again; twice as long each time after.
    pub retransmit_first: Duration,
    /// How long the peer may take to answer a request of ours before its session is deleted.
    pub request_timeout: Duration,
    /// The same for a request that deletes the session.
    pub delete_timeout: Duration,
    /// How long an SA that was replaced may stay before it is deleted from here.
    pub replaced_timeout: Duration,
    /// Unprotected error notifications per second.
    pub unprotected_replies_per_s: u32,
    /// Longest IP packet, in octets, that carries a message of ours over UDP where the peer takes fragments.
    pub fragment_packet_len: usize,
    /// Octets of all fragments that wait for others.
    pub fragment_memory: usize,
    /// How long fragments wait for others.
    pub fragment_timeout: Duration,
    /// Tickets remembered because they have been used.
    pub used_tickets_max: usize,
    /// Ended IKE SAs whose last response is still repeated on a retransmitted request.
    pub lingering_max: usize,
    /// For how long.
    pub lingering_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_max: 1_000_000,
            half_open_max: 32_768,
            half_open_per_source_max: 8_192,
            half_open_timeout: Duration::from_secs(30),
            eap_timeout: Duration::from_secs(60),
            failed_attempts_max: 1_024,
            children_max: 16,
            message_len_max: 65_529,
            payloads_max: 64,
            certificates_max: 8,
            selectors_max: 32,
            cookies_from: 1_024,
            puzzles_from: 16_384,
            puzzle_bits: 14,
            challenge_timeout: Duration::from_secs(8),
            unsolved_per_s: 64,
            unsolved_max: 1_024,
            paced_per_s: 10_000,
            paced_per_prefix_per_s: 10_000,
            paced_max: 16_384,
            paced_wait: Duration::from_secs(4),
            emergency_reserved: 256,
            retransmit_first: Duration::from_secs(1),
            request_timeout: Duration::from_secs(30),
            delete_timeout: Duration::from_secs(5),
            replaced_timeout: Duration::from_secs(60),
            unprotected_replies_per_s: 100,
            fragment_packet_len: 1_280,
            fragment_memory: 16 << 20,
            fragment_timeout: Duration::from_secs(15),
            used_tickets_max: 262_144,
            lingering_max: 16_384,
            lingering_timeout: Duration::from_secs(15),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7296_2_15_keys_are_text_or_hexadecimal() {
        assert_eq!(Psk::from_text("secret").map(|psk| psk.octets().to_vec()), Some(b"secret".to_vec()));
        assert_eq!(Psk::from_text("0x00fF").map(|psk| psk.octets().to_vec()), Some(vec![0, 0xff]));
        for bad in ["", "0x", "0x1", "0xzz", "0x+1", "0x\u{e9}"] {
            assert!(Psk::from_text(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn r7296_2_15_an_entry_wins_over_the_default() {
        let mut store = PskStore::new(Psk::from_text("default"));
        store.insert("Alice@Test", Psk::from_text("own").expect("a key"));
        let key = |id| store.find(id).map(|psk| psk.octets().to_vec());
        assert_eq!(key("alice@test"), Some(b"own".to_vec()));
        assert_eq!(key("bob@test"), Some(b"default".to_vec()));
        assert!(PskStore::default().find("bob@test").is_none());
    }
}

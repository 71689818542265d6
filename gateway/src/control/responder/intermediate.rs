//! What comes between IKE_SA_INIT and the end of IKE_AUTH: protected messages of half-open IKE SAs, and
//! IKE_INTERMEDIATE (RFC 9242) with the additional key exchanges of RFC 9370.

use codec::crypto::{KeyExchange, SaNonces, SharedSecret, SkError, int_auth, open_sk};
use codec::ike::payload::KeView;
use codec::ike::{ExchangeType, Flags, IkeHeader, IkeSpi, MessageBuilder, MessageId};

use super::fragment::{self, Joined, Whole};
use super::inner::Payloads;
use super::protect::Malformed;
use super::sa::{DerivedKeys, HalfOpen, Secrets};
use super::window::{self, Arrival};
use super::{Arrived, Core, Responder, Verdict};
use crate::types::CloseReason;

/// IKE_INTERMEDIATE exchanges of one IKE SA: as many as there can be additional key exchanges, and a few for what
/// a later document may want (RFC 9242 §5).
const EXCHANGES_MAX: u8 = 10;

/// What became of a protected message.
enum Unsealed {
    /// Authentic.
    Whole(Whole),
    /// Authentic, but its padding is not.
    Malformed,
    /// A fragment that waits for others.
    Waiting,
    /// A fragment that cannot be used; counted.
    Refused,
    BadIcv,
    Unprotected,
}

/// Why an exchange ends the half-open IKE SA; the peer learns INVALID_SYNTAX.
struct Refused;

impl Responder {
    /// Takes a protected request on a half-open IKE SA.
    pub(super) fn open_half(
        &mut self,
        at: &Arrived,
        spi: IkeSpi,
        header: &IkeHeader,
        message: &mut [u8],
    ) -> Verdict {
        let half = self.half_open.get_mut(&spi).expect("the caller found it");
        let core = &mut self.core;
        core.traced = half.traced;
        let digest = window::digest(&core.hasher, message);
        if let Some(asked) = half.eap.as_ref().and_then(|eap| eap.waits_with()) {
            // Its answer is on the way, and goes to where the UE asked last: over TCP it asks once per connection, and its
            // old one may be dead without our knowing (RFC 9329 §6.2).
            if asked == digest {
                let moved = half.conn != at.conn;
                half.conn = at.conn;
                half.path = at.path;
                if moved {
                    core.carry_half_open(at, spi);
                }
                return Verdict::Good;
            }
            if fragment::is_fragment(header) {
                return Verdict::Good;
            }
        }
        match half.window.arrival(header.message_id, digest) {
            Arrival::Fresh => {}
            Arrival::Repeated(response) => {
                core.counters.exchanges.retransmissions_answered += 1;
                core.transmit(at.conn, &at.path, response);
                return Verdict::Good;
            }
            // A late fragment of the request answered last.
            Arrival::Altered if fragment::is_fragment(header) => return Verdict::Good,
            Arrival::Altered | Arrival::Outside => {
                core.counters.drops.out_of_window += 1;
                return Verdict::Bad;
            }
        }
        let known = matches!(half.secrets, Some(Secrets::Keys(_)));
        if half.derive_keys().is_none() {
            // RFC 6989 §2.5: a forbidden value is never used; there is nothing to answer with.
            core.counters.drops.bad_ke_value += 1;
            self.remove_half_open(spi);
            return Verdict::Bad;
        }
        let whole = match core.unseal(at, half, header, digest, message) {
            Unsealed::Whole(whole) => Some(whole),
            Unsealed::Malformed => None,
            Unsealed::Waiting => return Verdict::Good,
            Unsealed::Refused => return Verdict::Bad,
            Unsealed::Unprotected => {
                core.counters.drops.unprotected += 1;
                return Verdict::Bad;
            }
            Unsealed::BadIcv => {
                core.counters.drops.bad_icv_half_open += 1;
                // The first failure may be a mere guess; later ones are a broken or hostile connection.
                if known {
                    core.close_conn(at.conn, CloseReason::IkeAuthFailed);
                }
                return Verdict::Bad;
            }
        };
        if header.exchange == ExchangeType::IKE_INTERMEDIATE {
            self.on_intermediate(at, spi, header, whole.as_ref(), digest);
            return Verdict::Good;
        }
        let digest = whole.as_ref().map_or(digest, |whole| whole.digest);
        if half.eap.is_some() {
            return self.continue_eap(at, spi, header, whole, digest);
        }
        // Without AUTH the UE wants EAP (RFC 7296 §2.16).
        let wants_eap = |payloads: &Payloads<'_>| payloads.auth.is_none() && payloads.id_i.is_some();
        let whole = match whole {
            Some(whole) if half.resumed.is_none() && core.read(&whole).is_ok_and(|read| wants_eap(&read)) => {
                return self.begin_eap(at, spi, header, whole, digest);
            }
            whole => whole,
        };
        let half = self.remove_half_open(spi).expect("still there");
        let payloads = whole.as_ref().map_or(Err(Malformed), |whole| self.core.read(whole));
        self.answer_ike_auth(at, header, half, digest, payloads);
        Verdict::Good
    }

    /// Answers one IKE_INTERMEDIATE: the IKE SA goes on with new keys, or is gone.
    fn on_intermediate(
        &mut self,
        at: &Arrived,
        spi: IkeSpi,
        header: &IkeHeader,
        whole: Option<&Whole>,
        digest: u64,
    ) {
        let Some(half) = self.half_open.get_mut(&spi) else { return };
        let core = &mut self.core;
        half.conn = at.conn;
        half.path = at.path;
        let flags = Flags::new(false, true);
        let mut builder =
            MessageBuilder::new(half.spi_i, half.spi_r, header.exchange, flags, header.message_id);
        let read = whole.and_then(|whole| core.read(whole).ok().map(|payloads| (whole, payloads)));
        let done = match &read {
            Some((_, payloads)) => core.exchange_keys(half, payloads, &mut builder),
            None => Err(Refused),
        };
        let room = core.message_room(half.fragmentation, &at.path);
        match (done, read) {
            (Ok(shared), Some((whole, _))) => {
                half.cover(header, whole, &builder);
                let Some(Secrets::Keys(keys)) = &mut half.secrets else { return };
                let response = core.seal(builder, &mut keys.key_out, room);
                half.window.answered(at.now, whole.digest, &response);
                core.transmit(at.conn, &at.path, response);
                core.counters.exchanges.intermediates += 1;
                if let Some(shared) = shared {
                    half.update_keys(&shared);
                }
            }
            _ => {
                core.refuse_syntax(&mut builder);
                let Some(Secrets::Keys(keys)) = &mut half.secrets else { return };
                let response = core.seal(builder, &mut keys.key_out, room);
                let digest = whole.map_or(digest, |whole| whole.digest);
                core.lingering.keep(at.now, spi, digest, (*response).into());
                core.transmit(at.conn, &at.path, response);
                self.remove_half_open(spi);
            }
        }
    }
}

impl Core {
    /// Opens a message, or takes it as a fragment of one.
    fn unseal(
        &mut self,
        at: &Arrived,
        half: &mut HalfOpen,
        header: &IkeHeader,
        digest: u64,
        message: &mut [u8],
    ) -> Unsealed {
        let spi = half.spi_r;
        if fragment::is_fragment(header) && half.fragmentation {
            let mut list = std::mem::take(&mut half.fragments);
            let key = fragment::Key { spi, response: false, message_id: header.message_id };
            let Some(keys) = half.derive_keys() else { return Unsealed::Refused };
            let joined = self.join(at, key, &keys.key_in, &mut list, message);
            half.fragments = list;
            return match joined {
                Joined::Whole(whole) => Unsealed::Whole(whole),
                Joined::Waiting => Unsealed::Waiting,
                Joined::Refused => Unsealed::Refused,
                Joined::BadIcv => Unsealed::BadIcv,
            };
        }
        let Some(keys) = half.derive_keys() else { return Unsealed::Refused };
        match open_sk(message, &keys.key_in) {
            Ok(opened) => {
                let chain = message.get(opened.inner).unwrap_or_default().to_vec();
                Unsealed::Whole(Whole { first: opened.first, chain, digest })
            }
            Err(SkError::BadPadding) => Unsealed::Malformed,
            Err(SkError::BadIcv) => Unsealed::BadIcv,
            Err(SkError::Malformed(_) | SkError::Missing | SkError::TooShort) => Unsealed::Unprotected,
        }
    }

    /// Runs the next additional key exchange, if one is due, and writes our half of it (RFC 9370 §2.2.2).
    fn exchange_keys(
        &mut self,
        half: &mut HalfOpen,
        payloads: &Payloads<'_>,
        builder: &mut MessageBuilder,
    ) -> Result<Option<SharedSecret>, Refused> {
        // What is encrypted must be all there is: IntAuth covers nothing else here.
        if !half.intermediate || half.steps == EXCHANGES_MAX || payloads.unknown_critical.is_some() {
            return Err(Refused);
        }
        half.steps += 1;
        let method = half.pending.first().copied();
        let (method, ke) = match (method, payloads.ke) {
            (None, None) => return Ok(None),
            (Some(method), Some(ke)) if ke.group == method => (method, ke),
            _ => return Err(Refused),
        };
        let (public, shared) = KeyExchange::answer(method, ke.data, &mut *self.random).map_err(|_| {
            self.counters.drops.bad_ke_value += 1;
            Refused
        })?;
        half.pending.remove(0);
        builder.ke(&KeView { group: method, data: &public });
        Ok(Some(shared))
    }
}

impl HalfOpen {
    /// Takes an exchange into what AUTH covers, under the keys that protected it (RFC 9242 §3.3.2).
    fn cover(&mut self, request: &IkeHeader, whole: &Whole, response: &MessageBuilder) {
        let Some(Secrets::Keys(keys)) = &self.secrets else { return };
        let prf = self.suite.prf;
        let (before_i, before_r) = match self.int_auth.as_deref() {
            Some((initiator, responder)) => (Some(initiator), Some(responder)),
            None => (None, None),
        };
        let initiator = int_auth(prf, &keys.ike.sk_pi, before_i, request, whole.first, &whole.chain);
        let header = IkeHeader { flags: Flags::new(false, true), ..*request };
        let (first, chain) = response.inner();
        let responder = int_auth(prf, &keys.ike.sk_pr, before_r, &header, first, chain);
        self.int_auth = Some(Box::new((initiator, responder)));
    }

    /// Goes over to the keys that an additional key exchange gives.
    fn update_keys(&mut self, shared: &SharedSecret) {
        let Some(Secrets::Keys(keys)) = &mut self.secrets else { return };
        let nonces = SaNonces { initiator: &self.nonce_i, responder: &self.nonce_r };
        let updated = keys.ike.update(&self.suite, nonces, shared, self.spi_i, self.spi_r);
        **keys = DerivedKeys::new(updated, &self.suite);
    }

    /// IntAuth: what AUTH covers of the IKE_INTERMEDIATE exchanges; nothing if there were none. `auth_id` is the
    /// Message ID of the first IKE_AUTH request.
    pub(super) fn int_auth(&self, auth_id: MessageId) -> Vec<u8> {
        let Some((initiator, responder)) = self.int_auth.as_deref() else { return Vec::new() };
        [initiator.as_bytes(), responder.as_bytes(), &auth_id.0.to_be_bytes()].concat()
    }
}

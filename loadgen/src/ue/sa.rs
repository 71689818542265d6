//! One IKE SA from the UE's side: keys, Message IDs, the request that waits for its response.

use bytes::Bytes;
use codec::Random;
use codec::crypto::{IkeKeys, IkeSuite, Opened, OpenedFragment, Secret, SkError, SkKey, open_sk, open_skf};
use codec::ike::{ExchangeType, Flags, IkeHeader, IkeSpi, MessageBuilder, MessageId};
use std::time::Instant;

/// An IKE SA.
pub(super) struct IkeSa {
    /// Whether we are its original initiator; not after a rekey that the gateway started.
    initiator: bool,
    pub(super) spi_i: IkeSpi,
    pub(super) spi_r: IkeSpi,
    pub(super) suite: IkeSuite,
    pub(super) sk_d: Secret,
    key_out: SkKey,
    key_in: SkKey,
    /// Message ID of our next request.
    next_request: u32,
    /// Message ID of the gateway's next request.
    next_peer_request: u32,
    /// Our answer to the gateway's last request, for when it asks again.
    last_response: Option<Bytes>,
    /// The request that waits; the window is one (RFC 7296 §2.3).
    pub(super) pending: Option<Box<Pending>>,
}

/// A request in flight: kept as sent, because a new connection must carry the same octets (RFC 9329 §6.2).
pub(super) struct Pending {
    pub(super) message: Bytes,
    pub(super) message_id: u32,
    pub(super) exchange: ExchangeType,
    pub(super) sent_at: Instant,
}

/// What a request of the gateway is, by its Message ID.
pub(super) enum PeerRequest {
    /// New: process and answer.
    New,
    /// Repeated: send the cached response again.
    Repeated(Bytes),
    /// Outside the window.
    Stray,
}

impl IkeSa {
    /// Creates the SA from its keys; `first_request` is 1 after IKE_SA_INIT, 0 after a rekey.
    pub(super) fn new(
        suite: IkeSuite,
        keys: IkeKeys,
        spi_i: IkeSpi,
        spi_r: IkeSpi,
        first_request: u32,
    ) -> Self {
        Self {
            initiator: true,
            spi_i,
            spi_r,
            key_out: keys.initiator_key(&suite),
            key_in: keys.responder_key(&suite),
            sk_d: keys.sk_d,
            suite,
            next_request: first_request,
            next_peer_request: 0,
            last_response: None,
            pending: None,
        }
    }

    /// Creates the SA that the gateway asked for by a rekey.
    pub(super) fn of_gateway(suite: IkeSuite, keys: IkeKeys, spi_i: IkeSpi, spi_r: IkeSpi) -> Self {
        let (key_out, key_in) = (keys.responder_key(&suite), keys.initiator_key(&suite));
        Self { initiator: false, key_out, key_in, ..Self::new(suite, keys, spi_i, spi_r, 0) }
    }

    /// Seals a request, remembers it as pending and returns its octets; `None` when it does not fit a frame.
    pub(super) fn request(
        &mut self,
        now: Instant,
        exchange: ExchangeType,
        random: &mut dyn Random,
        fill: impl FnOnce(&mut MessageBuilder),
    ) -> Option<Bytes> {
        let message_id = self.next_request;
        let flags = Flags::new(self.initiator, false);
        let mut builder = MessageBuilder::new(self.spi_i, self.spi_r, exchange, flags, MessageId(message_id));
        fill(&mut builder);
        let message = Bytes::from(builder.seal(&mut self.key_out, random).ok()?);
        self.next_request += 1;
        self.pending =
            Some(Box::new(Pending { message: message.clone(), message_id, exchange, sent_at: now }));
        Some(message)
    }

    /// Seals the answer to the gateway's request `header` and remembers it.
    pub(super) fn respond(
        &mut self,
        header: &IkeHeader,
        random: &mut dyn Random,
        fill: impl FnOnce(&mut MessageBuilder),
    ) -> Option<Bytes> {
        let flags = Flags::new(self.initiator, true);
        let mut builder =
            MessageBuilder::new(self.spi_i, self.spi_r, header.exchange, flags, header.message_id);
        fill(&mut builder);
        // Kept until the gateway's next request: without the builder's spare room.
        let message = Bytes::from(builder.seal(&mut self.key_out, random).ok()?.into_boxed_slice());
        self.next_peer_request = header.message_id.0.wrapping_add(1);
        self.last_response = Some(message.clone());
        Some(message)
    }

    /// The key that seals what we send.
    pub(super) fn forging_key(&mut self) -> &mut SkKey {
        &mut self.key_out
    }

    /// Returns whether we are its original initiator.
    pub(super) fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// Returns the Message ID of our next request.
    pub(super) fn next_message_id(&self) -> u32 {
        self.next_request
    }

    /// Takes the Message ID of our next request for one that is not made here.
    pub(super) fn use_message_id(&mut self) -> u32 {
        let id = self.next_request;
        self.next_request += 1;
        id
    }

    /// Opens a message of the gateway in place.
    pub(super) fn open(&self, message: &mut [u8]) -> Result<Opened, SkError> {
        open_sk(message, &self.key_in)
    }

    /// Opens a fragment of a message of the gateway in place.
    pub(super) fn open_fragment(&self, message: &mut [u8]) -> Result<OpenedFragment, SkError> {
        open_skf(message, &self.key_in)
    }

    /// Returns whether `header` belongs to this SA.
    pub(super) fn owns(&self, header: &IkeHeader) -> bool {
        header.spi_i == self.spi_i && header.spi_r == self.spi_r
    }

    /// Returns whether `header` answers the pending request.
    pub(super) fn is_answer(&self, header: &IkeHeader) -> bool {
        self.pending.as_ref().is_some_and(|pending| {
            header.flags.is_response()
                && header.message_id.0 == pending.message_id
                && header.exchange == pending.exchange
        })
    }

    /// Sorts a request of the gateway by its Message ID.
    pub(super) fn sort_request(&self, header: &IkeHeader) -> PeerRequest {
        let id = header.message_id.0;
        if id == self.next_peer_request {
            return PeerRequest::New;
        }
        match &self.last_response {
            Some(response) if id.wrapping_add(1) == self.next_peer_request => {
                PeerRequest::Repeated(response.clone())
            }
            _ => PeerRequest::Stray,
        }
    }
}

//! The Encrypted payload: opening what arrives, sealing what leaves.

use bytes::Bytes;
use codec::crypto::{SkError, SkKey, open_sk};
use codec::ike::{DecodeError, ExchangeType, MessageBuilder, MessageId};

use super::inner::Payloads;
use super::sa::IkeSa;
use super::{Arrived, Core};

/// Our messages are bounded by the configuration (certificate chain, selectors, DNS servers), which loading
/// keeps far below a frame.
const FITS: &str = "our messages fit a frame";

/// An authentic message whose content is malformed.
pub(super) struct Malformed;

impl From<DecodeError> for Malformed {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

/// Why nothing was opened.
pub(super) enum OpenError {
    /// Not a protected message at all.
    Unprotected,
    /// Not from the peer, or damaged.
    BadIcv,
}

/// Opens a message in place and sorts its payloads. The inner result tells about an authentic message.
pub(super) fn open<'m>(
    message: &'m mut [u8],
    key: &SkKey,
    payloads_max: usize,
) -> Result<Result<Payloads<'m>, Malformed>, OpenError> {
    match open_sk(message, key) {
        Ok(opened) => {
            let chain = message.get(opened.inner).unwrap_or_default();
            Ok(Payloads::decode(opened.first, chain, payloads_max).map_err(Malformed::from))
        }
        Err(SkError::BadPadding) => Ok(Err(Malformed)),
        Err(SkError::BadIcv) => Err(OpenError::BadIcv),
        Err(SkError::Malformed(_) | SkError::Missing | SkError::TooShort) => Err(OpenError::Unprotected),
    }
}

impl Core {
    /// Opens a message of an established IKE SA; `None` when it is not authentic, which has been counted.
    pub(super) fn open<'m>(
        &mut self,
        at: &Arrived,
        sa: &IkeSa,
        message: &'m mut [u8],
    ) -> Option<Result<Payloads<'m>, Malformed>> {
        match open(message, &sa.key_in, self.config.limits.payloads_max) {
            Ok(opened) => Some(opened),
            Err(OpenError::Unprotected) => {
                self.counters.drops.unprotected += 1;
                None
            }
            Err(OpenError::BadIcv) => {
                self.on_bad_icv(at);
                None
            }
        }
    }

    /// Ends a protected message. One longer than `room` becomes fragments in a row.
    pub(super) fn seal(&mut self, builder: MessageBuilder, key: &mut SkKey, room: Option<usize>) -> Bytes {
        self.trace_out(&builder);
        let Some(room) = room else { return builder.seal(key, &mut *self.random).expect(FITS).into() };
        let fragments = builder.seal_fragments(key, &mut *self.random, room).expect(FITS);
        self.counters.exchanges.messages_divided += u64::from(fragments.len() > 1);
        fragments.concat().into()
    }

    /// Builds a protected request of ours.
    pub(super) fn seal_request(
        &mut self,
        sa: &mut IkeSa,
        exchange: ExchangeType,
        message_id: MessageId,
        room: Option<usize>,
        payloads: impl FnOnce(&mut MessageBuilder),
    ) -> Bytes {
        let flags = sa.flags(false);
        let mut builder = MessageBuilder::new(sa.spi_i, sa.spi_r, exchange, flags, message_id);
        payloads(&mut builder);
        self.seal(builder, &mut sa.key_out, room)
    }

    /// A fresh nonce, long enough for every supported PRF (RFC 7296 §2.10).
    pub(super) fn new_nonce(&mut self) -> [u8; 32] {
        let mut nonce = [0; 32];
        self.random.fill(&mut nonce);
        nonce
    }
}

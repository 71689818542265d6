//! Messages with the keys of an IKE SA that no honest UE sends, and a look at what comes back.

use super::sa::IkeSa;
use super::{Initiator, State};
use codec::Random;
use codec::ike::payload::PayloadIter;
use codec::ike::{ExchangeType, Flags, MessageBuilder, MessageId, PayloadType};

/// Header of a message that is made up.
#[derive(Clone, Copy, Debug)]
pub struct Forgery {
    /// What exchange it claims to be of.
    pub exchange: ExchangeType,
    /// Its Message ID; the next one, which is used up, when absent.
    pub message_id: Option<u32>,
    /// Whether it claims to be a response.
    pub response: bool,
}

impl Forgery {
    /// A request with the next Message ID.
    pub fn request(exchange: ExchangeType) -> Self {
        Self { exchange, message_id: None, response: false }
    }

    /// The same with another Message ID.
    pub fn with_id(self, message_id: u32) -> Self {
        Self { message_id: Some(message_id), ..self }
    }
}

impl Initiator {
    /// Seals a message with whatever `fill` puts into it; `None` without keys, or when it is too long.
    ///
    /// The initiator does not wait for an answer to it.
    pub fn forge(
        &mut self,
        forgery: Forgery,
        random: &mut dyn Random,
        fill: impl FnOnce(&mut MessageBuilder),
    ) -> Option<Vec<u8>> {
        let (sa, builder) = self.begin_forgery(forgery, fill)?;
        builder.seal(sa.forging_key(), random).ok()
    }

    /// Seals the same as fragment `place.0` of `place.1` (RFC 7383), which need not make sense.
    pub fn forge_fragment(
        &mut self,
        forgery: Forgery,
        random: &mut dyn Random,
        place: (u16, u16),
        fill: impl FnOnce(&mut MessageBuilder),
    ) -> Option<Vec<u8>> {
        let (sa, builder) = self.begin_forgery(forgery, fill)?;
        builder.seal_fragment(sa.forging_key(), random, place).ok()
    }

    /// Leaves the message as it is, in clear.
    pub fn forge_clear(
        &mut self,
        forgery: Forgery,
        fill: impl FnOnce(&mut MessageBuilder),
    ) -> Option<Vec<u8>> {
        let (_, builder) = self.begin_forgery(forgery, fill)?;
        builder.finish().ok()
    }

    /// Opens a message of the gateway, which has no effect here; `None` when it is not authentic.
    pub fn read(&self, message: &[u8]) -> Option<Vec<(PayloadType, Vec<u8>)>> {
        let sa = self.sa()?;
        let mut message = message.to_vec();
        let opened = sa.open(&mut message).ok()?;
        let payloads = PayloadIter::new(opened.first, message.get(opened.inner)?);
        payloads.map(|raw| raw.ok().map(|raw| (raw.kind, raw.body.to_vec()))).collect()
    }

    /// Returns the Message ID of the next request.
    pub fn next_message_id(&self) -> Option<u32> {
        self.sa().map(IkeSa::next_message_id)
    }

    fn sa(&self) -> Option<&IkeSa> {
        match &self.state {
            State::Auth(auth) => Some(&auth.sa),
            State::Up(up) => Some(&up.sa),
            _ => None,
        }
    }

    fn begin_forgery(
        &mut self,
        forgery: Forgery,
        fill: impl FnOnce(&mut MessageBuilder),
    ) -> Option<(&mut IkeSa, MessageBuilder)> {
        let sa = match &mut self.state {
            State::Auth(auth) => &mut auth.sa,
            State::Up(up) => &mut up.sa,
            _ => return None,
        };
        let id = MessageId(forgery.message_id.unwrap_or_else(|| sa.use_message_id()));
        let flags = Flags::new(sa.is_initiator(), forgery.response);
        let mut builder = MessageBuilder::new(sa.spi_i, sa.spi_r, forgery.exchange, flags, id);
        fill(&mut builder);
        Some((sa, builder))
    }
}

//! Building messages: header, payload chain, and the Encrypted payload around it.

use super::error::MessageTooLong;
use super::header::{Flags, HEADER_LEN, IkeHeader, IkeSpi, LENGTH_AT, MessageId, NEXT_PAYLOAD_AT, Version};
use super::payload::{
    AuthView, CertReqView, CertView, ConfigAttr, ConfigView, DeleteView, EapView, GENERIC_HEADER_LEN, IdView,
    KeView, NotifyView, Proposal, SaView, TrafficSelector, TsView,
};
use super::registry::{CfgType, ExchangeType, NotifyType, PayloadType};
use crate::Random;
use crate::crypto::{SkKey, seal_fragment, seal_fragments, seal_message};
use crate::esp::EspSpi;

/// A message under construction. Payloads are chained in the order they are added.
///
/// [`finish`](Self::finish) gives it in clear, [`seal`](Self::seal) with all payloads inside one Encrypted
/// payload.
pub struct MessageBuilder {
    octets: Vec<u8>,
    /// Where the type of the next payload goes.
    next_at: usize,
    too_long: bool,
}

impl MessageBuilder {
    /// Starts a message without payloads.
    pub fn new(
        spi_i: IkeSpi,
        spi_r: IkeSpi,
        exchange: ExchangeType,
        flags: Flags,
        message_id: MessageId,
    ) -> Self {
        let header = IkeHeader {
            spi_i,
            spi_r,
            next_payload: PayloadType::NONE,
            version: Version::IKEV2,
            exchange,
            flags,
            message_id,
            length: 0,
        };
        let mut octets = Vec::with_capacity(512);
        header.encode(&mut octets);
        Self { octets, next_at: NEXT_PAYLOAD_AT, too_long: false }
    }

    /// Adds a payload whose body `body` appends.
    pub fn payload(&mut self, kind: PayloadType, body: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.octets.len();
        self.octets[self.next_at] = kind.0;
        self.octets.extend_from_slice(&[PayloadType::NONE.0, 0, 0, 0]);
        body(&mut self.octets);
        match u16::try_from(self.octets.len() - start) {
            Ok(length) => self.octets[start + 2..start + 4].copy_from_slice(&length.to_be_bytes()),
            Err(_) => self.too_long = true,
        }
        self.next_at = start;
        self
    }

    /// Adds an SA payload.
    pub fn sa(&mut self, proposals: &[Proposal<'_>]) -> &mut Self {
        self.payload(PayloadType::SA, |out| SaView::encode(proposals, out))
    }

    /// Adds a KE payload.
    pub fn ke(&mut self, ke: &KeView<'_>) -> &mut Self {
        self.payload(PayloadType::KE, |out| ke.encode(out))
    }

    /// Adds a Nonce payload.
    pub fn nonce(&mut self, nonce: &[u8]) -> &mut Self {
        self.payload(PayloadType::NONCE, |out| out.extend_from_slice(nonce))
    }

    /// Adds a Notify payload without an SPI.
    pub fn notify(&mut self, kind: NotifyType, data: &[u8]) -> &mut Self {
        self.notify_view(&NotifyView::new(kind, data))
    }

    /// Adds a Notify payload.
    pub fn notify_view(&mut self, notify: &NotifyView<'_>) -> &mut Self {
        self.payload(PayloadType::NOTIFY, |out| notify.encode(out))
    }

    /// Adds an Identification payload of the original initiator.
    pub fn id_i(&mut self, id: &IdView<'_>) -> &mut Self {
        self.payload(PayloadType::ID_I, |out| id.encode(out))
    }

    /// Adds an Identification payload of the original responder.
    pub fn id_r(&mut self, id: &IdView<'_>) -> &mut Self {
        self.payload(PayloadType::ID_R, |out| id.encode(out))
    }

    /// Adds a Certificate payload.
    pub fn cert(&mut self, cert: &CertView<'_>) -> &mut Self {
        self.payload(PayloadType::CERT, |out| cert.encode(out))
    }

    /// Adds a Certificate Request payload.
    pub fn cert_req(&mut self, request: &CertReqView<'_>) -> &mut Self {
        self.payload(PayloadType::CERTREQ, |out| request.encode(out))
    }

    /// Adds an Authentication payload.
    pub fn auth(&mut self, auth: &AuthView<'_>) -> &mut Self {
        self.payload(PayloadType::AUTH, |out| auth.encode(out))
    }

    /// Adds the Traffic Selectors of the initiator of the exchange.
    pub fn ts_i(&mut self, selectors: &[TrafficSelector]) -> &mut Self {
        self.payload(PayloadType::TS_I, |out| TsView::encode(selectors, out))
    }

    /// Adds the Traffic Selectors of the responder of the exchange.
    pub fn ts_r(&mut self, selectors: &[TrafficSelector]) -> &mut Self {
        self.payload(PayloadType::TS_R, |out| TsView::encode(selectors, out))
    }

    /// Adds a Configuration payload.
    pub fn config(&mut self, kind: CfgType, attributes: &[ConfigAttr<'_>]) -> &mut Self {
        self.payload(PayloadType::CONFIG, |out| ConfigView::encode(kind, attributes.iter().copied(), out))
    }

    /// Adds a Delete payload for the IKE SA of the message.
    pub fn delete_ike(&mut self) -> &mut Self {
        self.payload(PayloadType::DELETE, DeleteView::encode_ike)
    }

    /// Adds a Delete payload for ESP SAs inbound to us.
    pub fn delete_esp(&mut self, spis: &[EspSpi]) -> &mut Self {
        self.payload(PayloadType::DELETE, |out| DeleteView::encode_esp(spis, out))
    }

    /// Adds an EAP payload.
    pub fn eap(&mut self, eap: &EapView<'_>) -> &mut Self {
        self.payload(PayloadType::EAP, |out| eap.encode(out))
    }

    /// The header so far; its length is not known yet.
    pub fn header(&self) -> IkeHeader {
        IkeHeader::decode(&self.octets).expect("written by `new`")
    }

    /// The payload chain so far, and the type of its first payload.
    pub fn inner(&self) -> (PayloadType, &[u8]) {
        (PayloadType(self.octets[NEXT_PAYLOAD_AT]), &self.octets[HEADER_LEN..])
    }

    /// Ends the message in clear.
    ///
    /// # Errors
    /// A payload or the message is too long for IKE over RFC 9329.
    pub fn finish(mut self) -> Result<Vec<u8>, MessageTooLong> {
        if self.too_long || self.octets.len() > MESSAGE_LEN_MAX {
            return Err(MessageTooLong);
        }
        let length = u32::try_from(self.octets.len()).map_err(|_| MessageTooLong)?;
        self.octets[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
        Ok(self.octets)
    }

    /// Ends the message with all its payloads inside one Encrypted payload.
    ///
    /// # Errors
    /// A payload or the message is too long for IKE over RFC 9329.
    pub fn seal(self, key: &mut SkKey, random: &mut dyn Random) -> Result<Vec<u8>, MessageTooLong> {
        seal_message(&self.finish()?, key, random)
    }

    /// Ends the message as Encrypted Fragment payloads in messages of at most `message_len_max` octets, or
    /// as [`seal`](Self::seal) does when one message is enough (RFC 7383 §2.5). For UDP; streams need none.
    ///
    /// # Errors
    /// A payload or the message is too long, or `message_len_max` leaves no room for content.
    pub fn seal_fragments(
        self,
        key: &mut SkKey,
        random: &mut dyn Random,
        message_len_max: usize,
    ) -> Result<Vec<Vec<u8>>, MessageTooLong> {
        seal_fragments(&self.finish()?, key, random, message_len_max)
    }

    /// Ends the message as one Encrypted Fragment payload that says it is fragment `number` of `total`, whether that
    /// makes sense or not: for peers under test.
    ///
    /// # Errors
    /// A payload or the message is too long for IKE over RFC 9329.
    pub fn seal_fragment(
        self,
        key: &mut SkKey,
        random: &mut dyn Random,
        (number, total): (u16, u16),
    ) -> Result<Vec<u8>, MessageTooLong> {
        seal_fragment(&self.finish()?, key, random, (number, total))
    }
}

/// Octets an IKE message can have in a frame of RFC 9329: 65,535 less Length and Non-ESP Marker.
pub(crate) const MESSAGE_LEN_MAX: usize = 65_529;

const _: () = assert!(MESSAGE_LEN_MAX + GENERIC_HEADER_LEN <= u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::payload::Payload;
    use crate::ike::{KeGroup, Message};

    fn builder() -> MessageBuilder {
        MessageBuilder::new(
            IkeSpi([1; 8]),
            IkeSpi([2; 8]),
            ExchangeType::INFORMATIONAL,
            Flags::new(false, true),
            MessageId(3),
        )
    }

    #[test]
    fn r7296_3_2_built_chain_decodes_in_order() {
        let mut message = builder();
        message
            .nonce(&[5; 32])
            .ke(&KeView { group: KeGroup::ECP_256, data: &[1; 64] })
            .notify(NotifyType::COOKIE, b"cookie")
            .delete_esp(&[EspSpi(0x1000)]);
        let octets = message.finish().expect("short");
        let payloads: Vec<_> = Message::decode(&octets)
            .expect("our own")
            .payloads()
            .map(|payload| payload.expect("in bounds").decode().expect("well formed"))
            .collect();
        assert!(matches!(
            payloads[..],
            [Payload::Nonce(_), Payload::Ke(_), Payload::Notify(_), Payload::Delete(_)]
        ));
    }

    #[test]
    fn oversized_payloads_and_messages_are_refused() {
        let mut message = builder();
        message.notify(NotifyType::COOKIE, &vec![0; 65_536]);
        assert_eq!(message.finish(), Err(MessageTooLong));
        let mut message = builder();
        message.notify(NotifyType::COOKIE, &[0; 40_000]).notify(NotifyType::COOKIE, &[0; 40_000]);
        assert_eq!(message.finish(), Err(MessageTooLong));
    }
}

//! IKE messages taken apart, changed and put together again, right or wrong.

use codec::ike::payload::RawPayload;
use codec::ike::{ExchangeType, HEADER_LEN, IkeHeader, Message, MessageId, NotifyType, PayloadType};

/// Where Length, which ends an IKE header, lies in it.
const LENGTH_AT: usize = HEADER_LEN - 4;
/// Critical bit of a payload.
const CRITICAL: u8 = 0x80;

/// One payload, whose Length may lie.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it claims to be.
    pub kind: PayloadType,
    /// Whether it must be understood.
    pub critical: bool,
    /// What follows its header.
    pub body: Vec<u8>,
    /// Length in the place of the right one.
    pub length: Option<u16>,
}

impl Part {
    /// A payload whose Length is right.
    pub fn new(kind: PayloadType, body: impl Into<Vec<u8>>) -> Self {
        Self { kind, critical: false, body: body.into(), length: None }
    }

    /// A Notify payload without SPI.
    pub fn notify(kind: NotifyType, data: &[u8]) -> Self {
        Self::new(PayloadType::NOTIFY, [&[0, 0], &kind.0.to_be_bytes()[..], data].concat())
    }
}

/// A message in clear.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its header; the first payload's type is filled in.
    pub header: IkeHeader,
    /// Its payloads.
    pub parts: Vec<Part>,
    /// Added to the right Length of the header.
    pub length_off: i64,
}

impl Draft {
    /// Takes a message apart.
    ///
    /// # Panics
    /// When it is not well formed; only our own are taken apart.
    pub fn of(message: &[u8]) -> Self {
        let header = IkeHeader::decode(message).expect("our own message");
        let payloads = Message::decode(message).expect("our own message").payloads();
        let part = |raw: RawPayload<'_>| Part { critical: raw.critical, ..Part::new(raw.kind, raw.body) };
        let parts = payloads.map(|raw| part(raw.expect("our own message"))).collect();
        Self { header, parts, length_off: 0 }
    }

    /// Changes the body of the payload of a kind.
    pub fn alter(mut self, kind: PayloadType, change: impl FnOnce(&mut Part)) -> Self {
        if let Some(part) = self.parts.iter_mut().find(|part| part.kind == kind) {
            change(part);
        }
        self
    }

    /// Leaves payloads of a kind out.
    pub fn without(mut self, kind: PayloadType) -> Self {
        self.parts.retain(|part| part.kind != kind);
        self
    }

    /// Adds a payload at the end.
    pub fn with(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }

    /// Puts a payload in front.
    pub fn with_first(mut self, part: Part) -> Self {
        self.parts.insert(0, part);
        self
    }

    /// Puts the cookie in front that the responder asked for (RFC 7296 §2.6).
    pub fn with_cookie(self, cookie: &[u8]) -> Self {
        self.with_first(Part::notify(NotifyType::COOKIE, cookie))
    }

    /// Changes the header.
    pub fn header(mut self, change: impl FnOnce(&mut IkeHeader)) -> Self {
        change(&mut self.header);
        self
    }

    /// Makes it a request of an IKE SA that nobody has.
    pub fn stray(self, exchange: ExchangeType) -> Self {
        self.header(|header| {
            header.spi_r.0 = [0x5a; 8];
            header.exchange = exchange;
            header.message_id = MessageId(1);
        })
    }

    /// Puts it together.
    pub fn octets(&self) -> Vec<u8> {
        let mut header = self.header;
        header.next_payload = self.parts.first().map_or(PayloadType::NONE, |part| part.kind);
        let mut out = Vec::new();
        header.encode(&mut out);
        for (at, part) in self.parts.iter().enumerate() {
            let next = self.parts.get(at + 1).map_or(PayloadType::NONE, |part| part.kind);
            let right = u16::try_from(part.body.len() + 4).unwrap_or(u16::MAX);
            out.extend([next.0, if part.critical { CRITICAL } else { 0 }]);
            out.extend(part.length.unwrap_or(right).to_be_bytes());
            out.extend(&part.body);
        }
        let length = (out.len() as i64 + self.length_off).max(0) as u32;
        out[LENGTH_AT..HEADER_LEN].copy_from_slice(&length.to_be_bytes());
        out
    }
}

/// Cuts a message after `len` octets, or fills it up with zeros, and makes the header's Length fit.
pub fn resized(message: &[u8], len: usize) -> Vec<u8> {
    let mut message = message.to_vec();
    message.resize(len.max(HEADER_LEN), 0);
    let length = message.len() as u32;
    message[LENGTH_AT..HEADER_LEN].copy_from_slice(&length.to_be_bytes());
    message
}

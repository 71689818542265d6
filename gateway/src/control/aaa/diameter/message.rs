//! Messages (RFC 6733 §3): where one ends, what its header says, and how ours are written.
//!
//! ```text
//!  0         1                4         5              8                 12            16           20
//!  | Version | Length (u24)   | R P E T | Code (u24)   | Application-Id  | Hop-by-Hop  | End-to-End | AVPs
//! ```

use super::avp::{Avp, AvpWriter, Avps, BadLength};
use super::names::Name;
use crate::limits::DIAMETER_MESSAGE_MAX;

/// Octets of the header.
pub const HEADER: usize = 20;

const VERSION: u8 = 1;
/// It is a request.
const REQUEST: u8 = 0x80;
/// Agents may pass it on.
const PROXIABLE: u8 = 0x40;
/// It is an answer by the grammar of errors (RFC 6733 §7.2).
const ERROR: u8 = 0x20;
/// It may have been seen before.
const RETRANSMITTED: u8 = 0x10;

/// Octets that are no Diameter: the connection they came on cannot be read any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Another version.
    #[error("version {0}")]
    Version(u8),
    /// A length below the header's, above what we take, or not a multiple of four.
    #[error("message length {0}")]
    Length(usize),
}

/// Length of the message that `octets` begin with, once its first four octets are there.
///
/// # Errors
/// [`FrameError`] when nothing that follows can be made out.
pub fn frame_len(octets: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some((&[version, l0, l1, l2], _)) = octets.split_first_chunk::<4>() else { return Ok(None) };
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let len = u32::from_be_bytes([0, l0, l1, l2]) as usize;
    if !(HEADER..=DIAMETER_MESSAGE_MAX).contains(&len) || !len.is_multiple_of(4) {
        return Err(FrameError::Length(len));
    }
    Ok(Some(len))
}

/// The header of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    flags: u8,
    /// Command Code.
    pub command: u32,
    /// Application-Id.
    pub application: u32,
    /// Ties an answer to the request on one connection.
    pub hop_by_hop: u32,
    /// Ties it to the request of its originator, whatever the way.
    pub end_to_end: u32,
}

impl Header {
    /// Whether it is a request.
    pub fn is_request(&self) -> bool {
        self.flags & REQUEST != 0
    }

    /// Whether it is an answer by the grammar of errors.
    pub fn is_error(&self) -> bool {
        self.flags & ERROR != 0
    }

    /// Whether it may have been seen before.
    #[cfg(test)]
    pub fn is_retransmitted(&self) -> bool {
        self.flags & RETRANSMITTED != 0
    }

    /// That of a request of ours. `hop_by_hop` is filled in when it is sent.
    pub fn request(command: u32, application: u32, end_to_end: u32) -> Self {
        // RFC 6733 §5.3, §5.4, §5.5: what concerns a connection alone stays on it.
        let flags =
            if application == super::names::application::COMMON { REQUEST } else { REQUEST | PROXIABLE };
        Self { flags, command, application, hop_by_hop: 0, end_to_end }
    }

    /// That of the answer to this request. T is for requests alone.
    pub fn answer(&self, error: bool) -> Self {
        let flags = (self.flags & PROXIABLE) | if error { ERROR } else { 0 };
        Self { flags, ..*self }
    }
}

/// A message whose AVPs all fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    body: &'a [u8],
}

/// A message that is none: its header, and the AVP that does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed<'a> {
    /// Its header.
    pub header: Header,
    /// What there is of the AVP.
    pub avp: BadLength<'a>,
}

impl<'a> Message<'a> {
    /// Parses `octets`, exactly a message by [`frame_len`].
    ///
    /// # Errors
    /// [`Malformed`] when an AVP does not fit, or there is no whole header.
    pub fn parse(octets: &'a [u8]) -> Result<Self, Malformed<'a>> {
        let word = |at: usize| {
            octets.get(at..at + 4).map_or(0, |word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
        };
        let header = Header {
            flags: octets.get(4).copied().unwrap_or(0),
            command: word(4) & 0x00ff_ffff,
            application: word(8),
            hop_by_hop: word(12),
            end_to_end: word(16),
        };
        let Some(body) = octets.get(HEADER..) else { return Err(Malformed { header, avp: BadLength(&[]) }) };
        match Avps::new(body).find_map(Result::err) {
            Some(avp) => Err(Malformed { header, avp }),
            None => Ok(Self { header, body }),
        }
    }

    /// Its AVPs.
    pub fn avps(&self) -> impl Iterator<Item = Avp<'a>> {
        Avps::new(self.body).map_while(Result::ok)
    }

    /// The first AVP that `name` names.
    pub fn find(&self, name: Name) -> Option<Avp<'a>> {
        self.avps().find(|avp| avp.is(name))
    }

    /// Its text.
    pub fn text(&self, name: Name) -> Option<&'a str> {
        self.find(name)?.text()
    }

    /// Its number.
    pub fn number(&self, name: Name) -> Option<u32> {
        self.find(name)?.number()
    }

    /// An AVP that must be understood and is not (RFC 6733 §4.1).
    pub fn unacceptable(&self) -> Option<Avp<'a>> {
        self.avps().find(|avp| !avp.is_acceptable())
    }
}

/// Writes a message.
pub struct MessageWriter {
    avps: AvpWriter,
}

impl MessageWriter {
    /// Begins with `header`.
    pub fn new(header: Header) -> Self {
        let [_, c0, c1, c2] = header.command.to_be_bytes();
        let mut octets = Vec::with_capacity(512);
        octets.extend_from_slice(&[VERSION, 0, 0, 0, header.flags, c0, c1, c2]);
        octets.extend_from_slice(&header.application.to_be_bytes());
        octets.extend_from_slice(&header.hop_by_hop.to_be_bytes());
        octets.extend_from_slice(&header.end_to_end.to_be_bytes());
        Self { avps: AvpWriter::after(octets) }
    }

    /// Its AVPs.
    pub fn avps(&mut self) -> &mut AvpWriter {
        &mut self.avps
    }

    /// The message.
    pub fn finish(self) -> Vec<u8> {
        let mut octets = self.avps.into_octets();
        let [_, l0, l1, l2] = (octets.len() as u32).to_be_bytes();
        octets[1..4].copy_from_slice(&[l0, l1, l2]);
        octets
    }
}

/// Makes a written request ready for a connection: its Hop-by-Hop Identifier there, and whether it may have been seen.
pub fn address_request(octets: &mut [u8], hop_by_hop: u32, retransmitted: bool) {
    if let Some(flags) = octets.get_mut(4) {
        *flags = (*flags & !RETRANSMITTED) | if retransmitted { RETRANSMITTED } else { 0 };
    }
    if let Some(place) = octets.get_mut(12..16) {
        place.copy_from_slice(&hop_by_hop.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::names::{self, application, command};
    use super::*;

    fn request() -> Vec<u8> {
        let mut writer =
            MessageWriter::new(Header::request(command::DIAMETER_EAP, application::SWM, 0x0102_0304));
        writer.avps().text(names::SESSION_ID, "epdg;1;2").octets(names::EAP_PAYLOAD, &[2, 1, 0, 5, 1]);
        writer.finish()
    }

    /// By hand from RFC 6733 §3.
    #[test]
    fn r6733_3_header() {
        let mut octets = request();
        address_request(&mut octets, 0x0a0b_0c0d, true);
        let head = [1, 0, 0, 52, 0xd0, 0, 1, 12, 1, 0, 0, 0x30, 0x0a, 0x0b, 0x0c, 0x0d, 1, 2, 3, 4];
        assert_eq!(octets[..HEADER], head);
        let message = Message::parse(&octets).expect("well formed");
        assert!(
            message.header.is_request() && message.header.is_retransmitted() && !message.header.is_error()
        );
        assert_eq!((message.header.command, message.header.application), (268, 16_777_264));
        assert_eq!(message.text(names::SESSION_ID), Some("epdg;1;2"));
        let answer = message.header.answer(true);
        assert!(!answer.is_request() && answer.is_error() && !answer.is_retransmitted());
    }

    #[test]
    fn r6733_3_frames() {
        let octets = request();
        assert_eq!(frame_len(&octets[..3]), Ok(None));
        assert_eq!(frame_len(&octets), Ok(Some(octets.len())));
        assert_eq!(frame_len(&[2, 0, 0, 20]), Err(FrameError::Version(2)));
        assert_eq!(frame_len(&[1, 0, 0, 16]), Err(FrameError::Length(16)));
        assert_eq!(frame_len(&[1, 0, 0, 22]), Err(FrameError::Length(22)));
        assert_eq!(frame_len(&[1, 255, 255, 252]), Err(FrameError::Length(0xff_fffc)));
    }

    #[test]
    fn cut_messages_are_malformed() {
        let octets = request();
        for len in (0..octets.len()).step_by(4) {
            let parsed = Message::parse(&octets[..len]);
            // Where an AVP ends, a shorter message does.
            assert_eq!(parsed.is_ok(), [20, 36].contains(&len), "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_octets(octets in prop::collection::vec(any::<u8>(), 0..400)) {
            super::super::fuzz(&octets);
        }
    }
}

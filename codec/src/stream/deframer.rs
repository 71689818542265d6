//! Finds frames in a stream that arrives in arbitrary pieces.

use core::ops::Range;

use super::{LENGTH_LEN, STREAM_PREFIX};

/// Cuts a stream into frames, wherever the pieces it arrives in are split.
///
/// ```text
///   input:   ...tail of a frame | LL LL body | LL LL body | LL LL first half...
///            Carried              InPlace      InPlace      Pending: copied into `carry`
/// ```
///
/// Only a frame that straddles two inputs is copied, into a buffer the caller keeps beside the connection.
/// The deframer itself is a few octets of progress, so it can move between threads with its connection.
#[derive(Clone, Debug)]
pub struct Deframer {
    /// Octets of the prefix still to come.
    prefix_left: u8,
    /// The stream may begin with a frame instead.
    prefix_optional: bool,
    pub(super) length: LengthState,
    /// The stream is one of IKE messages alone.
    pub(super) ike_only: bool,
    /// Set by the first fatal error: nothing behind it is ever parsed.
    failed: Option<FrameError>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum LengthState {
    /// At a frame boundary.
    Unread,
    /// One octet of the Length was seen.
    Half(u8),
    /// The Length is known; this many octets of body make the frame, at least 1.
    Body(u16),
}

/// What [`Deframer::next`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// The input is used up; the frame, if one was begun, continues in the next input.
    Pending,
    /// A body that lies whole in the input, at this range; empty for a frame of Length 2.
    InPlace(Range<usize>),
    /// A body that straddled inputs: all of `carry`, valid until the next call.
    Carried,
}

/// A fatal error of the stream: the connection must be closed, its SAs stay (RFC 9329 §3.1, §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream does not start with [`STREAM_PREFIX`].
    #[error("the stream does not start with its prefix")]
    PrefixMismatch,
    /// A Length of 0 or 1, which cannot count itself.
    #[error("frame length {0} cannot hold itself")]
    BadLength(u16),
    /// On a stream of IKE messages alone, a Length in an IKE header that no message has.
    #[error("IKE message length {0} is not possible here")]
    BadIkeLength(u32),
}

impl Deframer {
    /// For the TCP Responder: the stream starts with the prefix.
    pub fn responder() -> Self {
        Self { prefix_left: STREAM_PREFIX.len() as u8, ..Self::originator() }
    }

    /// For the TCP Originator: the Responder sends no prefix, so frames start at once.
    pub fn originator() -> Self {
        Self {
            prefix_left: 0,
            prefix_optional: false,
            length: LengthState::Unread,
            ike_only: false,
            failed: None,
        }
    }

    /// For a Responder whose peers may leave the prefix out. A stream that begins like it is taken to have it:
    /// without, its first frame would be one of 18,763 octets of an SPI chosen to look so.
    pub fn lenient() -> Self {
        Self { prefix_optional: true, ..Self::responder() }
    }

    /// Tells whether the prefix has been seen whole (always, for an Originator).
    pub fn prefix_complete(&self) -> bool {
        self.prefix_left == 0
    }

    /// Tells whether a frame has been begun and not finished; a connection that ends here loses it
    /// (RFC 9329 §6.1).
    pub fn mid_frame(&self) -> bool {
        !matches!(self.length, LengthState::Unread)
    }

    /// Returns the next frame of `input[*at..]` and advances `at` behind it.
    ///
    /// Call it until [`Next::Pending`] with the same `input`, then with the next one and `at` at its start.
    /// `carry` must be the same buffer for the life of the stream; it holds an unfinished body between
    /// inputs, is cleared when the body was taken, and its capacity follows the octets received, at most to
    /// the frame's own Length.
    ///
    /// # Errors
    /// [`FrameError`]; it is final, every later call returns it again.
    pub fn next(&mut self, input: &[u8], at: &mut usize, carry: &mut Vec<u8>) -> Result<Next, FrameError> {
        let found = self.advance(input, at, carry);
        if let Err(error) = found {
            self.failed = Some(error);
        }
        found
    }

    fn advance(&mut self, input: &[u8], at: &mut usize, carry: &mut Vec<u8>) -> Result<Next, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.ike_only {
            return self.advance_ike(input, at, carry);
        }
        // RFC 9329 §6.1: nothing is parsed before the whole prefix.
        if !self.skip_prefix(input, at, carry)? {
            return Ok(Next::Pending);
        }
        if !self.mid_frame() {
            carry.clear();
        }
        let Some(body_len) = self.read_length(input, at)? else {
            return Ok(Next::Pending);
        };
        let rest = input.get(*at..).unwrap_or_default();
        let wanted = body_len - carry.len();
        if rest.len() < wanted {
            extend_bounded(carry, rest, body_len);
            *at += rest.len();
            return Ok(Next::Pending);
        }
        self.length = LengthState::Unread;
        let body = *at..*at + wanted;
        *at = body.end;
        if carry.is_empty() {
            return Ok(Next::InPlace(body));
        }
        extend_bounded(carry, &rest[..wanted], body_len);
        Ok(Next::Carried)
    }

    /// Consumes what is left of the prefix; `false` when the input ends before it does.
    fn skip_prefix(&mut self, input: &[u8], at: &mut usize, carry: &mut Vec<u8>) -> Result<bool, FrameError> {
        while self.prefix_left > 0 {
            let Some(octet) = input.get(*at) else {
                return Ok(false);
            };
            let matched = STREAM_PREFIX.len() - usize::from(self.prefix_left);
            if *octet != STREAM_PREFIX[matched] {
                if !self.prefix_optional {
                    return Err(FrameError::PrefixMismatch);
                }
                self.begin_frame(&STREAM_PREFIX[..matched], carry);
                return Ok(true);
            }
            self.prefix_left -= 1;
            *at += 1;
        }
        Ok(true)
    }

    /// There is no prefix: what looked like its beginning is that of a frame.
    fn begin_frame(&mut self, begun: &[u8], carry: &mut Vec<u8>) {
        self.prefix_left = 0;
        carry.clear();
        self.length = match *begun {
            [] => LengthState::Unread,
            [high] => LengthState::Half(high),
            [high, low, ref body @ ..] => {
                carry.extend_from_slice(body);
                LengthState::Body(u16::from_be_bytes([high, low]) - LENGTH_LEN as u16)
            }
        };
    }

    /// Octets of the current frame's body, or `None` when the input ends inside its Length.
    fn read_length(&mut self, input: &[u8], at: &mut usize) -> Result<Option<usize>, FrameError> {
        let (high, low_at) = match self.length {
            LengthState::Body(body_len) => return Ok(Some(usize::from(body_len))),
            LengthState::Half(high) => (high, *at),
            LengthState::Unread => match input.get(*at) {
                Some(high) => (*high, *at + 1),
                None => return Ok(None),
            },
        };
        let Some(low) = input.get(low_at) else {
            *at = low_at;
            self.length = LengthState::Half(high);
            return Ok(None);
        };
        *at = low_at + 1;
        let length = u16::from_be_bytes([high, *low]);
        // RFC 9329 §3.1: a Length that cannot count itself is fatal.
        let body_len = length.checked_sub(LENGTH_LEN as u16).ok_or(FrameError::BadLength(length))?;
        self.length = LengthState::Body(body_len);
        Ok(Some(usize::from(body_len)))
    }
}

/// Appends `octets` to a buffer that grows with what arrived, never beyond `len_max`.
pub(super) fn extend_bounded(buffer: &mut Vec<u8>, octets: &[u8], len_max: usize) {
    let needed = buffer.len() + octets.len();
    if needed > buffer.capacity() {
        let target = needed.max(buffer.len() * 2).min(len_max);
        buffer.reserve_exact(target - buffer.len());
    }
    buffer.extend_from_slice(octets);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a stream through a deframer in the given pieces; the bodies, and how it ended.
    fn run(mut deframer: Deframer, pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Result<Deframer, FrameError>) {
        let (mut bodies, mut carry) = (Vec::new(), Vec::new());
        for piece in pieces {
            let mut at = 0;
            loop {
                match deframer.next(piece, &mut at, &mut carry) {
                    Ok(Next::Pending) => break assert_eq!(at, piece.len()),
                    Ok(Next::InPlace(range)) => bodies.push(piece[range].to_vec()),
                    Ok(Next::Carried) => bodies.push(carry.clone()),
                    Err(error) => return (bodies, Err(error)),
                }
            }
        }
        (bodies, Ok(deframer))
    }

    fn frame(body: &[u8]) -> Vec<u8> {
        let length = (body.len() + LENGTH_LEN) as u16;
        [&length.to_be_bytes(), body].concat()
    }

    #[test]
    fn r9329_6_1_1_prefix_at_every_split() {
        let stream = [STREAM_PREFIX.as_slice(), &frame(b"abcdefgh"), &frame(b"x")].concat();
        for split in 0..=stream.len() {
            let (bodies, end) = run(Deframer::responder(), &[&stream[..split], &stream[split..]]);
            assert_eq!(bodies, [b"abcdefgh".as_slice(), b"x"], "split at {split}");
            assert!(!end.unwrap().mid_frame());
            let (bodies, end) = run(Deframer::responder(), &[&stream[..split.min(5)]]);
            assert!(bodies.is_empty());
            assert!(!end.unwrap().prefix_complete());
        }
        let octets: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(run(Deframer::responder(), &octets).0, [b"abcdefgh".as_slice(), b"x"]);
    }

    #[test]
    fn r9329_4_1_every_wrong_prefix_octet_is_fatal_at_once() {
        for at in 0..STREAM_PREFIX.len() {
            let mut prefix = STREAM_PREFIX;
            prefix[at] ^= 0x20;
            let stream = [prefix.as_slice(), &frame(b"abcd")].concat();
            let (bodies, end) = run(Deframer::responder(), &[&stream[..=at]]);
            assert!(bodies.is_empty());
            assert_eq!(end.unwrap_err(), FrameError::PrefixMismatch, "octet {at}");
        }
    }

    #[test]
    fn a_lenient_deframer_takes_streams_with_and_without_the_prefix_at_every_split() {
        let frames = [frame(b"abcdefgh"), frame(b""), frame(b"x")].concat();
        let with = [STREAM_PREFIX.as_slice(), &frames].concat();
        // First frames that begin like the prefix: in their Length alone, and beyond it.
        let high = [&[0x49, 3], vec![b'a'; 0x4901].as_slice(), &frames].concat();
        let both = [b"IKET".as_slice(), &vec![b'b'; 0x494b - 4], &frames].concat();
        for stream in [with, frames, high, both] {
            let expected = run(Deframer::lenient(), &[&stream]).0;
            assert!(
                expected.len() >= 3 && expected.ends_with(&[b"abcdefgh".to_vec(), vec![], b"x".to_vec()])
            );
            for split in 0..10.min(stream.len()) {
                let (bodies, end) = run(Deframer::lenient(), &[&stream[..split], &stream[split..]]);
                assert!(bodies == expected, "split at {split}");
                assert!(!end.unwrap().mid_frame());
            }
        }
        let begun = run(Deframer::lenient(), &[b"IKETCP"]).1.unwrap();
        assert!(begun.prefix_complete() && !begun.mid_frame());
        assert!(!run(Deframer::lenient(), &[b"IKET"]).1.unwrap().prefix_complete());
    }

    #[test]
    fn r9329_4_1_prefix_repeated_in_the_stream_is_a_length() {
        let stream = [STREAM_PREFIX, STREAM_PREFIX].concat();
        let (bodies, end) = run(Deframer::responder(), &[&stream]);
        assert!(bodies.is_empty());
        assert!(end.unwrap().mid_frame(), "0x494b is the Length of a long frame");
    }

    #[test]
    fn r9329_10_7_other_protocols_are_refused() {
        for opening in [
            b"\x16\x03\x01\x02\x00\x01".as_slice(),
            b"GET / HTTP/1.1\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"IKEUDP",
            b"iketcp",
        ] {
            assert_eq!(run(Deframer::responder(), &[opening]).1.unwrap_err(), FrameError::PrefixMismatch);
        }
    }

    #[test]
    fn r9329_3_2_length_two_is_ignored() {
        let mut stream = STREAM_PREFIX.to_vec();
        for _ in 0..1000 {
            stream.extend(frame(b""));
        }
        stream.extend(frame(b"next"));
        let (bodies, end) = run(Deframer::responder(), &[&stream]);
        assert_eq!(bodies.len(), 1001);
        assert!(bodies[..1000].iter().all(Vec::is_empty));
        assert_eq!(bodies[1000], b"next");
        assert!(end.is_ok());
    }

    #[test]
    fn r9329_3_1_2_length_zero_or_one_is_fatal() {
        for length in [0u16, 1] {
            for split in 0..=2 {
                let bad = [&length.to_be_bytes(), frame(b"behind").as_slice()].concat();
                let good = frame(b"before");
                let pieces: [&[u8]; 3] = [&good, &bad[..split], &bad[split..]];
                let (bodies, end) = run(Deframer::originator(), &pieces);
                assert_eq!(bodies, [b"before"], "nothing behind the error is parsed");
                assert_eq!(end.unwrap_err(), FrameError::BadLength(length));
            }
        }
    }

    #[test]
    fn a_fatal_error_is_final() {
        let mut deframer = Deframer::originator();
        let mut carry = Vec::new();
        assert_eq!(deframer.next(&[0, 1], &mut 0, &mut carry), Err(FrameError::BadLength(1)));
        assert_eq!(deframer.next(&frame(b"abcd"), &mut 0, &mut carry), Err(FrameError::BadLength(1)));
    }

    #[test]
    fn only_straddling_frames_are_copied_and_their_buffer_follows_the_octets() {
        let mut deframer = Deframer::originator();
        let mut carry = Vec::new();
        let whole = frame(&[7; 300]);
        let mut at = 0;
        assert_eq!(deframer.next(&whole, &mut at, &mut carry), Ok(Next::InPlace(2..302)));
        assert_eq!(carry.capacity(), 0);

        // A Length alone buys no memory, and a body that comes whole in the next input is not copied.
        let longest = frame(&[7; super::super::BODY_LEN_MAX]);
        assert_eq!(deframer.next(&longest[..2], &mut 0, &mut carry), Ok(Next::Pending));
        assert_eq!(carry.capacity(), 0);
        assert!(deframer.mid_frame());
        assert_eq!(deframer.next(&longest[2..], &mut 0, &mut carry), Ok(Next::InPlace(0..65533)));

        assert_eq!(deframer.next(&longest[..102], &mut 0, &mut carry), Ok(Next::Pending));
        assert!(carry.capacity() <= 200);
        assert_eq!(deframer.next(&longest[102..], &mut 0, &mut carry), Ok(Next::Carried));
        assert_eq!(carry.len(), 65533);
        assert_eq!(carry.capacity(), 65533);
        assert_eq!(deframer.next(&[], &mut 0, &mut carry), Ok(Next::Pending));
        assert!(carry.is_empty());
    }
}

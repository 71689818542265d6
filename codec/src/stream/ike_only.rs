//! The stream of draft-ietf-ipsecme-ike-tcp: IKE messages and nothing else, one behind the other.
//!
//! ```text
//! both ways, repeated:  IKE header (28 octets, of which the last four are its Length) | payloads
//! ```
//!
//! No prefix, no Length in front, no non-ESP marker, no keepalive, no ESP. The header is read first, then what its
//! Length says; a Length that is too small for the header, or larger than any message we take, leaves nothing to
//! find the next message by.

use super::deframer::{Deframer, FrameError, LengthState, Next, extend_bounded};
use super::{IKE_HEADER_LEN, IKE_MESSAGE_LEN_MAX};

/// Where the header has its Length.
const LENGTH_AT: usize = IKE_HEADER_LEN - 4;

impl Deframer {
    /// For a stream of IKE messages alone, on either side.
    pub fn ike_only() -> Self {
        let mut deframer = Self::originator();
        deframer.ike_only = true;
        deframer
    }

    /// [`Deframer::next`] for such a stream: a body is a whole IKE message.
    pub(super) fn advance_ike(
        &mut self,
        input: &[u8],
        at: &mut usize,
        carry: &mut Vec<u8>,
    ) -> Result<Next, FrameError> {
        if !self.mid_frame() {
            carry.clear();
        }
        loop {
            let rest = input.get(*at..).unwrap_or_default();
            let total = match self.length {
                LengthState::Body(total) => usize::from(total),
                LengthState::Unread | LengthState::Half(_) => IKE_HEADER_LEN,
            };
            let wanted = total - carry.len();
            if rest.len() < wanted {
                if !rest.is_empty() && !self.mid_frame() {
                    // The header itself straddles inputs; which half of a Length is missing does not matter here.
                    self.length = LengthState::Half(0);
                }
                extend_bounded(carry, rest, total);
                *at += rest.len();
                return Ok(Next::Pending);
            }
            if matches!(self.length, LengthState::Body(_)) {
                self.length = LengthState::Unread;
                let body = *at..*at + wanted;
                *at = body.end;
                if carry.is_empty() {
                    return Ok(Next::InPlace(body));
                }
                extend_bounded(carry, &rest[..wanted], total);
                return Ok(Next::Carried);
            }
            self.length = LengthState::Body(if carry.is_empty() {
                message_len(rest)?
            } else {
                extend_bounded(carry, &rest[..wanted], IKE_HEADER_LEN);
                *at += wanted;
                message_len(carry)?
            });
        }
    }
}

/// The Length in an IKE header.
fn message_len(header: &[u8]) -> Result<u16, FrameError> {
    let octets = header.get(LENGTH_AT..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
    let length = u32::from_be_bytes(octets);
    let fits = (IKE_HEADER_LEN as u32..=IKE_MESSAGE_LEN_MAX as u32).contains(&length);
    match u16::try_from(length) {
        Ok(short) if fits => Ok(short),
        _ => Err(FrameError::BadIkeLength(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: u32) -> Vec<u8> {
        let mut message: Vec<u8> = (0..len).map(|at| at as u8).collect();
        message[LENGTH_AT..IKE_HEADER_LEN].copy_from_slice(&len.to_be_bytes());
        message
    }

    /// The messages of a stream in pieces, and how it ended.
    fn run(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Result<bool, FrameError>) {
        let (mut deframer, mut found, mut carry) = (Deframer::ike_only(), Vec::new(), Vec::new());
        for piece in pieces {
            let mut at = 0;
            loop {
                match deframer.next(piece, &mut at, &mut carry) {
                    Ok(Next::Pending) => break assert_eq!(at, piece.len()),
                    Ok(Next::InPlace(range)) => found.push(piece[range].to_vec()),
                    Ok(Next::Carried) => found.push(carry.clone()),
                    Err(error) => return (found, Err(error)),
                }
            }
        }
        (found, Ok(deframer.mid_frame()))
    }

    #[test]
    fn nir_2_4_1_the_header_first_and_then_what_its_length_says_at_every_split() {
        let wanted = [message(28), message(100), message(29)];
        let stream = wanted.concat();
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(run(&pieces), (wanted.to_vec(), Ok(false)), "split at {first} and {second}");
            }
        }
        let octets: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(run(&octets).0, wanted);
        assert_eq!(run(&[&stream[..27]]), (vec![], Ok(true)));
    }

    #[test]
    fn nir_2_4_1_a_length_that_cannot_be_ends_the_stream_and_buys_no_memory() {
        for length in [0, 1, 27, 65_530, u32::MAX] {
            let mut bad = message(28);
            bad[LENGTH_AT..].copy_from_slice(&length.to_be_bytes());
            bad.extend(message(40));
            let stream = [message(30), bad].concat();
            for split in 0..=stream.len() {
                let (found, end) = run(&[&stream[..split], &stream[split..]]);
                assert_eq!((found, end), (vec![message(30)], Err(FrameError::BadIkeLength(length))));
            }
        }
        let longest = message(IKE_MESSAGE_LEN_MAX as u32);
        let (mut deframer, mut carry) = (Deframer::ike_only(), Vec::new());
        assert_eq!(deframer.next(&longest[..28], &mut 0, &mut carry), Ok(Next::Pending));
        assert!(carry.capacity() <= 28, "a Length alone buys no memory");
        assert_eq!(deframer.next(&longest[28..], &mut 0, &mut carry), Ok(Next::Carried));
        assert_eq!(carry, longest);
    }

    #[test]
    fn nir_2_4_1_neither_prefix_nor_marker_is_known_here() {
        let (found, end) = run(&[b"IKETCP", &[0; 60]]);
        assert!(found.is_empty());
        assert_eq!(end, Err(FrameError::BadIkeLength(0)), "those are the first octets of an SPI");
    }
}

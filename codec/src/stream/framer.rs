//! Makes frames of IKE messages; ESP frames are made where the packet is sealed
//! ([`crate::esp::OutboundSa::seal_frame`]).

use super::{IKE_MESSAGE_LEN_MAX, LENGTH_LEN, NON_ESP_MARKER};

/// The message does not fit a frame; it must not be cut (RFC 9329 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} octets do not fit a frame")]
pub struct FrameTooLong(pub usize);

/// Appends Length, Non-ESP Marker and `message` to `out`.
///
/// # Errors
/// [`FrameTooLong`] above [`IKE_MESSAGE_LEN_MAX`] octets; `out` is unchanged.
///
/// Source: RFC 9329 §3.1.
pub fn frame_ike(message: &[u8], out: &mut Vec<u8>) -> Result<(), FrameTooLong> {
    if message.len() > IKE_MESSAGE_LEN_MAX {
        return Err(FrameTooLong(message.len()));
    }
    let length = LENGTH_LEN + NON_ESP_MARKER.len() + message.len();
    out.reserve(length);
    out.extend_from_slice(&(length as u16).to_be_bytes());
    out.extend_from_slice(&NON_ESP_MARKER);
    out.extend_from_slice(message);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r9329_3_1_1_length_counts_itself_and_is_never_below_six() {
        let mut out = vec![0xaa];
        frame_ike(&[], &mut out).unwrap();
        frame_ike(&[7; 28], &mut out).unwrap();
        assert_eq!(out[..11], [0xaa, 0, 6, 0, 0, 0, 0, 0, 34, 0, 0]);
        assert_eq!(out[13..], [7; 28]);
    }

    #[test]
    fn r9329_3_the_largest_message_fills_the_length_and_one_more_is_refused() {
        let mut out = Vec::new();
        let message = vec![7; IKE_MESSAGE_LEN_MAX + 1];
        assert_eq!(frame_ike(&message, &mut out), Err(FrameTooLong(65530)));
        assert!(out.is_empty());
        frame_ike(&message[1..], &mut out).unwrap();
        assert_eq!(out[..2], [0xff, 0xff]);
        assert_eq!(out.len(), 65535);
    }
}

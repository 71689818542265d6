//! Tells what a frame's body is, from its length and first octets.

use super::{KEEPALIVE, NON_ESP_MARKER};
use crate::esp::{self, EspSpi};

/// Octets of an IKE header (RFC 7296 §3.1).
const IKE_HEADER_LEN: usize = 28;

/// What a frame's body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameKind {
    /// Length 2: silently ignored (RFC 9329 §3).
    Empty,
    /// A NAT-keepalive: silently dropped, no sign of life (RFC 9329 §6.6).
    Keepalive,
    /// An IKE message, which starts at octet 4 of the body and is at least a header long.
    Ike,
    /// An ESP packet: the whole body, at least an ESP header long. SPIs 1 to 255 are reserved and known to
    /// no table (RFC 4303 §2.1).
    Esp(EspSpi),
    /// Nothing that can be handed on: dropped and counted.
    Unparseable(UnparseableFrame),
}

/// Why a body is neither IKE nor ESP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UnparseableFrame {
    /// One octet that is no keepalive.
    OneOctet,
    /// Two or three octets: neither a marker nor an SPI.
    NoMarker,
    /// Four octets: a marker or an SPI and nothing behind it.
    Bare,
    /// A marker and less than an IKE header; there is no header to answer.
    IkeTooShort,
    /// An SPI and less than an ESP header.
    EspTooShort,
}

/// Tells what `body` is by its length and its first four octets.
///
/// Source: RFC 9329 §3.
pub fn classify(body: &[u8]) -> FrameKind {
    let Some(first) = body.first_chunk::<4>() else {
        return match body {
            [] => FrameKind::Empty,
            [KEEPALIVE] => FrameKind::Keepalive,
            [_] => FrameKind::Unparseable(UnparseableFrame::OneOctet),
            _ => FrameKind::Unparseable(UnparseableFrame::NoMarker),
        };
    };
    let is_ike = *first == NON_ESP_MARKER;
    if body.len() == first.len() {
        FrameKind::Unparseable(UnparseableFrame::Bare)
    } else if is_ike && body.len() < NON_ESP_MARKER.len() + IKE_HEADER_LEN {
        FrameKind::Unparseable(UnparseableFrame::IkeTooShort)
    } else if is_ike {
        FrameKind::Ike
    } else if body.len() < esp::HEADER_LEN {
        FrameKind::Unparseable(UnparseableFrame::EspTooShort)
    } else {
        FrameKind::Esp(EspSpi(u32::from_be_bytes(*first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r9329_3_bodies_of_every_small_length() {
        use UnparseableFrame::*;
        assert_eq!(classify(&[]), FrameKind::Empty);
        for octet in 0..=254 {
            assert_eq!(classify(&[octet]), FrameKind::Unparseable(OneOctet));
        }
        for len in 2..100 {
            let ike = match len {
                2 | 3 => FrameKind::Unparseable(NoMarker),
                4 => FrameKind::Unparseable(Bare),
                5..32 => FrameKind::Unparseable(IkeTooShort),
                _ => FrameKind::Ike,
            };
            let esp = match len {
                2 | 3 => FrameKind::Unparseable(NoMarker),
                4 => FrameKind::Unparseable(Bare),
                5..8 => FrameKind::Unparseable(EspTooShort),
                _ => FrameKind::Esp(EspSpi(0x0101_0101)),
            };
            assert_eq!(classify(&vec![0; len]), ike, "{len} octets of 0");
            assert_eq!(classify(&vec![1; len]), esp, "{len} octets of 1");
        }
    }

    #[test]
    fn r9329_6_6_2_keepalive_is_one_octet_of_ff() {
        assert_eq!(classify(&[0xff]), FrameKind::Keepalive);
        assert_eq!(classify(&[0xff; 2]), FrameKind::Unparseable(UnparseableFrame::NoMarker));
        assert_eq!(classify(&[0xff; 8]), FrameKind::Esp(EspSpi(0xffff_ffff)));
    }

    #[test]
    fn r4303_2_1_reserved_spis_are_esp_of_that_spi() {
        for spi in 1..=255u8 {
            let body = [0, 0, 0, spi, 0, 0, 0, 1];
            assert_eq!(classify(&body), FrameKind::Esp(EspSpi(u32::from(spi))));
        }
    }
}

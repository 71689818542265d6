//! The sending side of a Child SA.

use codec_native::cbc::BLOCK_LEN;
use zeroize::Zeroizing;

use super::context::SealContext;
use super::suite::{EspKeys, EspSuite};
use super::{EspSpi, HEADER_LEN, SealError, TRAILER_LEN, next_header};
use crate::Random;
use crate::stream::{BODY_LEN_MAX, LENGTH_LEN};

/// Padding of the longest alignment: 1, 2, 3 and so on (RFC 4303 §2.4).
const PADDING: [u8; BLOCK_LEN - 1] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// An outbound SA: keys, sequence number and counters of what is sent under one SPI of the peer's.
pub struct OutboundSa {
    spi: EspSpi,
    suite: EspSuite,
    /// The last sequence number used; 0 before the first packet.
    sequence: u64,
    keys: EspKeys,
    /// Makes CBC's IVs; never leaves this SA.
    iv_key: Option<Zeroizing<[u8; BLOCK_LEN]>>,
    hot: Option<SealContext>,
    packets: u64,
    bytes: u64,
}

impl OutboundSa {
    /// An SA that has sent nothing. `random` keys CBC's initialisation vectors and is unused for an AEAD.
    ///
    /// # Panics
    /// When `keys` were made for another suite.
    pub fn new(spi: EspSpi, suite: EspSuite, keys: EspKeys, random: &mut dyn Random) -> Self {
        assert!(keys.suite() == suite, "keys belong to the suite");
        let iv_key = (!suite.cipher.is_aead()).then(|| {
            let mut key = Zeroizing::new([0; BLOCK_LEN]);
            random.fill(key.as_mut_slice());
            key
        });
        Self { spi, suite, sequence: 0, keys, iv_key, hot: None, packets: 0, bytes: 0 }
    }

    /// The SPI its packets carry.
    pub fn spi(&self) -> EspSpi {
        self.spi
    }

    /// The algorithms.
    pub fn suite(&self) -> EspSuite {
        self.suite
    }

    /// The last sequence number used; 0 before the first packet.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The last sequence number this SA may ever use.
    pub fn sequence_max(&self) -> u64 {
        if self.suite.esn { u64::MAX } else { u64::from(u32::MAX) }
    }

    /// Packets sealed.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Octets of inner packets sealed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Drops the expanded keys of an idle SA; the next packet builds them again.
    pub fn cool(&mut self) {
        self.hot = None;
    }

    /// Octets that [`Self::seal_frame`] writes for an inner packet of `inner_len` octets.
    pub fn frame_len(&self, inner_len: usize) -> usize {
        LENGTH_LEN + HEADER_LEN + self.suite.iv_len() + self.suite.text_len(inner_len) + self.suite.icv_len()
    }

    /// Seals `inner` into the front of `out` as a frame: Length, then the ESP packet. Returns its octets,
    /// exactly [`Self::frame_len`]; what lies behind stays untouched.
    ///
    /// Octets of `inner` behind the IP packet's own length are traffic flow confidentiality padding to the
    /// receiver (RFC 4303 §2.7).
    ///
    /// # Errors
    /// [`SealError`]; no sequence number is used then and `out` is unchanged.
    ///
    /// Source: RFC 4303 §3.3, RFC 9329 §3.2.
    pub fn seal_frame(&mut self, inner: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let next_header = match inner.first().map(|octet| octet >> 4) {
            Some(4) => next_header::IPV4,
            Some(6) => next_header::IPV6,
            _ => return Err(SealError::NotIp),
        };
        if inner.len() > BODY_LEN_MAX || self.frame_len(inner.len()) > LENGTH_LEN + BODY_LEN_MAX {
            return Err(SealError::TooLong);
        }
        let frame_len = self.frame_len(inner.len());
        let frame = out.get_mut(..frame_len).ok_or(SealError::OutputTooSmall)?;
        // RFC 4303 §3.3.3: the first packet has number 1 and numbers never repeat.
        if self.sequence == self.sequence_max() {
            return Err(SealError::SequenceExhausted);
        }
        self.sequence += 1;

        let (length, packet) = frame.split_at_mut(LENGTH_LEN);
        length.copy_from_slice(&(frame_len as u16).to_be_bytes());
        packet[..4].copy_from_slice(&self.spi.0.to_be_bytes());
        packet[4..8].copy_from_slice(&(self.sequence as u32).to_be_bytes());
        let pad_len = self.suite.text_len(inner.len()) - inner.len() - TRAILER_LEN;
        let mut trailer = [0; PADDING.len() + TRAILER_LEN];
        trailer[..pad_len].copy_from_slice(&PADDING[..pad_len]);
        trailer[pad_len] = pad_len as u8;
        trailer[pad_len + 1] = next_header;
        let trailer = &trailer[..pad_len + TRAILER_LEN];

        let hot = self.hot.get_or_insert_with(|| SealContext::new(&self.keys, self.iv_key.as_deref()));
        hot.seal(packet, self.sequence, self.suite.esn, inner, trailer);
        self.packets += 1;
        self.bytes += inner.len() as u64;
        Ok(frame_len)
    }
}

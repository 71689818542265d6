//! The sending side of a Child SA.

use codec_native::cbc::BLOCK_LEN;
use zeroize::Zeroizing;

use super::batch::SealBatch;
use super::context::{Kept, Lent, SealContext};
use super::suite::{EspKeys, EspSuite};
use super::{EspSpi, HEADER_LEN, SealError, TRAILER_LEN, next_header};
use crate::Random;
use crate::stream::{BODY_LEN_MAX, LENGTH_LEN};

/// Padding of the longest alignment: 1, 2, 3 and so on (RFC 4303 §2.4).
const PADDING: [u8; BLOCK_LEN - 1] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// An outbound SA: keys, sequence number and counters of what is sent under one SPI of the peer's.
///
/// 90 to 140 octets with keys, and 1.2 KB of expanded keys while it is in use and
/// [there is room](super::keep_contexts).
pub struct OutboundSa {
    spi: EspSpi,
    /// The last sequence number used; 0 before the first packet.
    sequence: u64,
    keys: EspKeys,
    /// Makes CBC's IVs; never leaves this SA.
    iv_key: Option<Zeroizing<[u8; BLOCK_LEN]>>,
    hot: Option<Kept<SealContext>>,
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
        Self { spi, sequence: 0, keys, iv_key, hot: None, bytes: 0 }
    }

    /// The SPI its packets carry.
    pub fn spi(&self) -> EspSpi {
        self.spi
    }

    /// The algorithms.
    pub fn suite(&self) -> EspSuite {
        self.keys.suite()
    }

    /// The last sequence number used; 0 before the first packet.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The last sequence number this SA may ever use.
    pub fn sequence_max(&self) -> u64 {
        if self.suite().esn { u64::MAX } else { u64::from(u32::MAX) }
    }

    /// Packets sealed.
    pub fn packets(&self) -> u64 {
        self.sequence
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
        LENGTH_LEN
            + HEADER_LEN
            + self.suite().iv_len()
            + self.suite().text_len(inner_len)
            + self.suite().icv_len()
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
        let (frame, trailer) = self.begin_frame(inner, out)?;
        let (sequence, high) = (self.sequence, self.high());
        self.context().get().seal(&mut frame[LENGTH_LEN..], sequence, high, inner, trailer.octets());
        Ok(frame.len())
    }

    /// Lays `inner` out in the front of `out` as [`Self::seal_frame`] does, in the clear, and enters the frame
    /// into `batch`; returns its octets. It must not be sent before [`SealBatch::run`], which gets the frames in
    /// the order they were begun.
    ///
    /// # Errors
    /// As [`Self::seal_frame`]; the frame is then not in the batch.
    ///
    /// # Panics
    /// When the batch is full.
    pub fn begin_seal(
        &mut self,
        inner: &[u8],
        out: &mut [u8],
        batch: &mut SealBatch,
    ) -> Result<usize, SealError> {
        assert!(!batch.is_full(), "the batch has run when it was full");
        let (frame, trailer) = self.begin_frame(inner, out)?;
        let text_at = LENGTH_LEN + HEADER_LEN + self.suite().iv_len();
        let (text, padding) = frame[text_at..].split_at_mut(inner.len());
        text.copy_from_slice(inner);
        padding[..trailer.octets().len()].copy_from_slice(trailer.octets());
        let (sequence, high, frame_len) = (self.sequence, self.high(), frame.len());
        batch.push(self.context(), (sequence, high), frame_len);
        Ok(frame_len)
    }

    /// Takes a sequence number and writes Length, SPI and number of the frame for `inner` to the front of `out`.
    fn begin_frame<'a>(
        &mut self,
        inner: &[u8],
        out: &'a mut [u8],
    ) -> Result<(&'a mut [u8], Trailer), SealError> {
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
        self.bytes += inner.len() as u64;

        let (length, packet) = frame.split_at_mut(LENGTH_LEN);
        length.copy_from_slice(&(frame_len as u16).to_be_bytes());
        packet[..4].copy_from_slice(&self.spi.0.to_be_bytes());
        packet[4..8].copy_from_slice(&(self.sequence as u32).to_be_bytes());
        let pad_len = self.suite().text_len(inner.len()) - inner.len() - TRAILER_LEN;
        Ok((frame, Trailer::new(pad_len, next_header)))
    }

    fn context(&mut self) -> Lent<'_, SealContext> {
        Lent::of(&mut self.hot, || SealContext::new(&self.keys, self.iv_key.as_deref()))
    }

    /// The unsent half of an extended sequence number.
    fn high(&self) -> Option<u32> {
        self.suite().esn.then_some((self.sequence >> 32) as u32)
    }
}

/// Padding, Pad Length and Next Header.
struct Trailer {
    octets: [u8; PADDING.len() + TRAILER_LEN],
    len: usize,
}

impl Trailer {
    fn new(pad_len: usize, next_header: u8) -> Self {
        let mut octets = [0; PADDING.len() + TRAILER_LEN];
        octets[..pad_len].copy_from_slice(&PADDING[..pad_len]);
        octets[pad_len] = pad_len as u8;
        octets[pad_len + 1] = next_header;
        Self { octets, len: pad_len + TRAILER_LEN }
    }

    fn octets(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::OpenContext;
    use super::super::suite::tests::all_suites;
    use super::super::{
        EspCipher, EspError, EspInteg, InboundSa, OpenedKind, REPLAY_WINDOW_DEFAULT, ReplayWindow,
    };
    use super::*;
    use crate::SeededRandom;

    fn pair(suite: EspSuite) -> (OutboundSa, InboundSa) {
        let keymat: Vec<u8> = (0..suite.keymat_len() as u8).collect();
        let keys = || EspKeys::new(&suite, &keymat).unwrap();
        let spi = EspSpi(0x1234_5678);
        let outbound = OutboundSa::new(spi, suite, keys(), &mut SeededRandom::new(1));
        (outbound, InboundSa::new(spi, suite, keys(), 128))
    }

    fn ipv4(len: usize) -> Vec<u8> {
        let mut packet = vec![0x5a; len];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet
    }

    fn seal(outbound: &mut OutboundSa, inner: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; outbound.frame_len(inner.len())];
        assert_eq!(outbound.seal_frame(inner, &mut frame), Ok(frame.len()));
        frame
    }

    #[test]
    fn r4303_2_2_the_first_packet_has_number_one() {
        for suite in all_suites() {
            let (mut outbound, _) = pair(suite);
            assert_eq!(outbound.sequence(), 0);
            for sequence in 1..=3u32 {
                let frame = seal(&mut outbound, &ipv4(40));
                assert_eq!(frame[6..10], sequence.to_be_bytes(), "{suite}");
            }
            assert_eq!((outbound.packets(), outbound.bytes()), (3, 120));
        }
    }

    #[test]
    fn r4303_3_3_3_numbers_never_wrap() {
        for suite in all_suites() {
            let (mut outbound, _) = pair(suite);
            outbound.sequence = outbound.sequence_max() - 1;
            seal(&mut outbound, &ipv4(40));
            let mut out = vec![0; 200];
            assert_eq!(outbound.seal_frame(&ipv4(40), &mut out), Err(SealError::SequenceExhausted));
            assert_eq!(outbound.sequence(), outbound.sequence_max());
            assert_eq!(out, [0; 200], "{suite}");
        }
    }

    #[test]
    fn r4303_2_2_1_extended_numbers_cross_two_to_the_32() {
        for suite in all_suites().into_iter().filter(|suite| suite.esn) {
            let (mut outbound, mut inbound) = pair(suite);
            let mut open = |frame: &[u8]| inbound.open(&mut frame[2..].to_vec());
            outbound.sequence = (1 << 31) - 1;
            assert!(open(&seal(&mut outbound, &ipv4(60))).is_ok(), "{suite}: half a subspace ahead");
            outbound.sequence = (1 << 32) - 3;
            let frames: Vec<_> = (0..6).map(|_| seal(&mut outbound, &ipv4(60))).collect();
            assert_eq!(frames[2][6..10], [0; 4], "low half of 2^32");
            for at in [0, 3, 1, 5, 2, 4] {
                assert!(open(&frames[at]).is_ok(), "{suite}: frame {at}");
                assert_eq!(open(&frames[at]), Err(EspError::Replayed), "{suite}: frame {at}");
            }
        }
    }

    #[test]
    fn r4303_a2_2_a_very_old_packet_is_left_of_the_window_not_a_bad_icv() {
        for suite in all_suites() {
            let (mut outbound, mut inbound) = pair(suite);
            let old = seal(&mut outbound, &ipv4(60));
            outbound.sequence = 100_000;
            let new = seal(&mut outbound, &ipv4(60));
            assert!(inbound.open(&mut new[2..].to_vec()).is_ok());
            assert_eq!(inbound.open(&mut old[2..].to_vec()), Err(EspError::LeftOfWindow), "{suite}");
            assert_eq!(inbound.replay_drops(), 1);
            let mut forged = seal(&mut outbound, &ipv4(60));
            *forged.last_mut().unwrap() ^= 1;
            assert_eq!(inbound.open(&mut forged[2..]), Err(EspError::BadIcv), "{suite}");
            assert_eq!(inbound.replay_drops(), 1);
        }
    }

    #[test]
    fn r3602_3_cbc_vectors_neither_repeat_nor_follow_from_one_another() {
        for suite in all_suites().into_iter().filter(|suite| !suite.cipher.is_aead()) {
            let (mut outbound, _) = pair(suite);
            let ivs: Vec<[u8; 16]> =
                (0..50).map(|_| seal(&mut outbound, &ipv4(40))[10..26].try_into().unwrap()).collect();
            for (at, iv) in ivs.iter().enumerate() {
                assert!(!ivs[..at].contains(iv));
                let same = ivs[0].iter().zip(iv).filter(|(a, b)| a == b).count();
                assert!(at == 0 || same < 8, "{suite}: vectors resemble a counter");
            }
        }
    }

    #[test]
    fn r4106_3_1_explicit_ivs_of_an_aead_never_repeat() {
        for suite in all_suites().into_iter().filter(|suite| suite.cipher.is_aead()) {
            let (mut outbound, _) = pair(suite);
            outbound.sequence = u64::from(u32::MAX) - 2;
            let last = |outbound: &mut OutboundSa| seal(outbound, &ipv4(40))[10..18].to_vec();
            let ivs = [last(&mut outbound), last(&mut outbound)];
            assert_ne!(ivs[0], ivs[1]);
            assert_eq!(ivs[1], u64::from(u32::MAX).to_be_bytes());
        }
    }

    #[test]
    fn r9329_3_the_longest_frame_is_sealed_and_one_octet_more_is_refused() {
        for suite in all_suites() {
            let (mut outbound, mut inbound) = pair(suite);
            let mut out = vec![0; 70_000];
            let longest = (0..=65535).rev().find(|len| outbound.frame_len(*len) <= 65535).unwrap();
            assert_eq!(outbound.seal_frame(&ipv4(longest + 1), &mut out), Err(SealError::TooLong));
            let len = outbound.seal_frame(&ipv4(longest), &mut out).unwrap();
            assert_eq!(out[..2], (len as u16).to_be_bytes());
            assert_eq!(inbound.open(&mut out[2..len]).unwrap().payload.len(), longest, "{suite}");
            assert_eq!(outbound.seal_frame(&[0x45; 100_000], &mut out), Err(SealError::TooLong));
        }
    }

    #[test]
    fn what_cannot_be_sealed_uses_no_number() {
        let suite = EspSuite { cipher: EspCipher::Aes128Gcm16, integ: None, esn: false };
        let (mut outbound, _) = pair(suite);
        let frame_len = outbound.frame_len(40);
        let mut out = vec![0; frame_len - 1];
        assert_eq!(outbound.seal_frame(&ipv4(40), &mut out), Err(SealError::OutputTooSmall));
        for inner in [[].as_slice(), &[0; 40], &[0x55; 40]] {
            assert_eq!(outbound.seal_frame(inner, &mut [0; 200]), Err(SealError::NotIp));
        }
        assert_eq!(outbound.sequence(), 0);
    }

    #[test]
    fn overhead_max_bounds_every_length_and_is_reached() {
        for suite in all_suites() {
            let (outbound, _) = pair(suite);
            let overheads: Vec<_> = (20..100).map(|len| outbound.frame_len(len) - len - LENGTH_LEN).collect();
            assert_eq!(overheads.iter().max(), Some(&suite.overhead_max()), "{suite}");
        }
    }

    #[test]
    fn cooling_changes_nothing_but_memory() {
        for suite in all_suites() {
            let (mut outbound, mut inbound) = pair(suite);
            for _ in 0..3 {
                let frame = seal(&mut outbound, &ipv4(77));
                let mut packet = frame[2..].to_vec();
                let opened = inbound.open(&mut packet).unwrap();
                assert_eq!(opened.kind, OpenedKind::Inner4);
                assert_eq!(packet[opened.payload], ipv4(77));
                outbound.cool();
                inbound.cool();
            }
            assert_eq!((inbound.packets(), inbound.bytes()), (3, 231));
        }
    }

    #[test]
    fn a_million_pairs_of_sas_fit_in_320_mb() {
        let records = size_of::<OutboundSa>() + size_of::<InboundSa>();
        let suite = |cipher, integ| EspSuite { cipher, integ, esn: true };
        for (suite, octets_max) in [
            (suite(EspCipher::Aes128Gcm16, None), 232),
            (suite(EspCipher::Aes256Gcm16, None), 264),
            (suite(EspCipher::Aes256Cbc, Some(EspInteg::HmacSha2_256_128)), 320),
        ] {
            let window = ReplayWindow::new(REPLAY_WINDOW_DEFAULT).heap_len();
            let octets = records + 2 * suite.keymat_len() + window;
            println!("{suite}: {octets} octets, of which {records} are records and {window} a window");
            assert!(octets <= octets_max, "{suite}: {octets}");
        }
        println!("contexts: {} and {}", size_of::<OpenContext>(), size_of::<SealContext>());
        assert!(size_of::<OpenContext>().max(size_of::<SealContext>()) <= 1216);
    }

    #[test]
    fn sas_move_between_threads() {
        fn is_send<T: Send>() {}
        is_send::<OutboundSa>();
        is_send::<InboundSa>();
    }
}

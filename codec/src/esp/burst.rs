//! AES-CBC with HMAC over the packets of a batch, side by side.
//!
//! Two passes over all packets: hash, then cipher, or the other way round to seal. Between the passes of
//! opening, packets whose ICV fails leave the line-up, so that nothing of theirs is decrypted.

use core::ops::Range;

use codec_native::cbc::{BLOCK_LEN, CbcDecryptKey};
use codec_native::constant_time_eq;
use codec_native::hmac::HmacAlgorithm;
use codec_native::ipsec_mb::{CipherJob, Direction, HashJob, ICV_LEN_MAX, IpsecMb, JOB_LEN_MAX, Vectors};

use super::backend::{ALGORITHMS, Choice, Engine};
use super::batch::BATCH_MAX;
use super::cbc::{BurstKeys, CbcHmac, CbcSeal};
use super::{EspError, HEADER_LEN};

/// Octets of the high half of a sequence number.
const HIGH_LEN: usize = 4;

/// Octets of AES keys.
const KEY_LENS: [usize; 3] = [16, 24, 32];

/// The packets of a batch that take part, each in its position.
pub(super) type LineUp<'a, Context> = [Option<Place<'a, Context>>; BATCH_MAX];

/// Keys of one packet.
pub(super) struct Place<'a, Context> {
    context: &'a Context,
    keys: &'a BurstKeys,
    algorithm: HmacAlgorithm,
    icv_len: usize,
    high: Option<u32>,
}

impl<'a> Place<'a, CbcHmac<CbcDecryptKey>> {
    /// `None` when the packet must be opened alone.
    pub(super) fn to_open(
        context: &'a CbcHmac<CbcDecryptKey>,
        high: Option<u32>,
        packet_len: usize,
    ) -> Option<Self> {
        let (keys, algorithm) = (context.burst.as_ref()?, context.hmac().algorithm());
        let fits = packet_len <= JOB_LEN_MAX;
        fits.then_some(Self { context, keys, algorithm, icv_len: context.icv_len, high })
    }
}

impl<'a> Place<'a, CbcSeal> {
    /// `None` when the packet must be sealed alone.
    pub(super) fn to_seal(context: &'a CbcSeal, high: Option<u32>, packet_len: usize) -> Option<Self> {
        let (keys, algorithm) = (context.cipher.burst.as_ref()?, context.cipher.hmac().algorithm());
        let fits = packet_len <= JOB_LEN_MAX;
        fits.then_some(Self { context, keys, algorithm, icv_len: context.cipher.icv_len, high })
    }
}

impl<Context> Place<'_, Context> {
    /// Where IV and text lie.
    fn ciphered(&self, packet: &[u8]) -> Range<usize> {
        HEADER_LEN..packet.len() - self.icv_len
    }

    /// What is hashed: the high half of the number follows the packet, in the place of the ICV's first octets
    /// (RFC 4303 §2.2.1).
    fn hashed(&self, packet: &[u8]) -> Range<usize> {
        0..packet.len() - self.icv_len + self.high.map_or(0, |_| HIGH_LEN)
    }

    /// Where the high half goes.
    fn high_place<'p>(&self, packet: &'p mut [u8]) -> &'p mut [u8] {
        let icv_at = packet.len() - self.icv_len;
        &mut packet[icv_at..icv_at + HIGH_LEN]
    }
}

/// Opens the packets in `line_up` and enters their outcomes.
pub(super) fn open(
    (library, choice): (IpsecMb, &Choice),
    line_up: &mut LineUp<'_, CbcHmac<CbcDecryptKey>>,
    packets: &mut [&mut [u8]],
    outcomes: &mut [Result<Range<usize>, EspError>],
) {
    for algorithm in ALGORITHMS {
        let count = count(line_up, |place| place.algorithm == algorithm);
        match choice.hash(algorithm, count) {
            _ if count == 0 => {}
            Engine::Single => open_singly(algorithm, line_up, packets, outcomes),
            Engine::Burst(vectors) => verify(library, vectors, algorithm, line_up, packets, outcomes),
        }
    }
    // RFC 4303 §3.4.4.1: only what has verified is still in the line-up.
    for key_len in KEY_LENS {
        if count(line_up, |place| place.keys.schedule.key_len() == key_len) > 0 {
            let jobs = cipher_jobs(key_len, line_up, packets);
            library.cbc(Vectors::Wide, Direction::Decrypt, key_len, jobs);
        }
    }
}

/// Opens the packets under `algorithm` one by one and takes them out of the line-up.
fn open_singly(
    algorithm: HmacAlgorithm,
    line_up: &mut LineUp<'_, CbcHmac<CbcDecryptKey>>,
    packets: &mut [&mut [u8]],
    outcomes: &mut [Result<Range<usize>, EspError>],
) {
    for ((place, packet), outcome) in line_up.iter_mut().zip(packets).zip(outcomes) {
        if let Some(place) = place.take_if(|place| place.algorithm == algorithm) {
            *outcome = place.context.open(packet, place.high);
        }
    }
}

/// Verifies the packets under `algorithm` and takes those that fail out of the line-up.
fn verify(
    library: IpsecMb,
    vectors: Vectors,
    algorithm: HmacAlgorithm,
    line_up: &mut LineUp<'_, CbcHmac<CbcDecryptKey>>,
    packets: &mut [&mut [u8]],
    outcomes: &mut [Result<Range<usize>, EspError>],
) {
    let mut covered = [[0; HIGH_LEN]; BATCH_MAX];
    for ((place, packet), covered) in line_up.iter().zip(&mut *packets).zip(&mut covered) {
        if let Some((place, high)) = extended(place, algorithm) {
            covered.copy_from_slice(place.high_place(packet));
            place.high_place(packet).copy_from_slice(&high);
        }
    }
    let mut icvs = [[0; ICV_LEN_MAX]; BATCH_MAX];
    library.hash(vectors, algorithm, hash_jobs(algorithm, line_up, packets, &mut icvs));
    let results = line_up.iter_mut().zip(packets).zip(covered.iter().zip(&icvs)).zip(outcomes);
    for (((slot, packet), (covered, right)), outcome) in results {
        if let Some((place, _)) = extended(slot, algorithm) {
            place.high_place(packet).copy_from_slice(covered);
        }
        let Some(place) = slot.as_ref().filter(|place| place.algorithm == algorithm) else { continue };
        let text = place.ciphered(packet);
        if constant_time_eq(&right[..place.icv_len], &packet[text.end..]) {
            *outcome = Ok(text.start + BLOCK_LEN..text.end);
        } else {
            *outcome = Err(EspError::BadIcv);
            *slot = None;
        }
    }
}

/// Seals the packets in `line_up`, whose vectors are in place.
pub(super) fn seal(
    (library, choice): (IpsecMb, &Choice),
    line_up: &LineUp<'_, CbcSeal>,
    packets: &mut [&mut [u8]],
) {
    for key_len in KEY_LENS {
        let count = count(line_up, |place| place.keys.schedule.key_len() == key_len);
        match choice.encrypt(count) {
            _ if count == 0 => {}
            Engine::Single => each(line_up, packets, |place, packet| {
                if place.keys.schedule.key_len() == key_len {
                    place.context.encrypt(packet);
                }
            }),
            Engine::Burst(vectors) => {
                let jobs = cipher_jobs(key_len, line_up, packets);
                library.cbc(vectors, Direction::Encrypt, key_len, jobs);
            }
        }
    }
    for algorithm in ALGORITHMS {
        let count = count(line_up, |place| place.algorithm == algorithm);
        match choice.hash(algorithm, count) {
            _ if count == 0 => {}
            Engine::Single => each(line_up, packets, |place, packet| {
                if place.algorithm == algorithm {
                    place.context.sign(packet, place.high);
                }
            }),
            Engine::Burst(vectors) => sign(library, vectors, algorithm, line_up, packets),
        }
    }
}

/// Puts the ICVs of the packets under `algorithm` in place.
fn sign(
    library: IpsecMb,
    vectors: Vectors,
    algorithm: HmacAlgorithm,
    line_up: &LineUp<'_, CbcSeal>,
    packets: &mut [&mut [u8]],
) {
    for (place, packet) in line_up.iter().zip(&mut *packets) {
        if let Some((place, high)) = extended(place, algorithm) {
            place.high_place(packet).copy_from_slice(&high);
        }
    }
    let mut icvs = [[0; ICV_LEN_MAX]; BATCH_MAX];
    library.hash(vectors, algorithm, hash_jobs(algorithm, line_up, packets, &mut icvs));
    for ((place, packet), icv) in line_up.iter().zip(packets).zip(&icvs) {
        if let Some(place) = place.as_ref().filter(|place| place.algorithm == algorithm) {
            let text_end = place.ciphered(packet).end;
            packet[text_end..].copy_from_slice(&icv[..place.icv_len]);
        }
    }
}

/// A place under `algorithm` with extended sequence numbers, and the high half to hash.
fn extended<'p, 'a, Context>(
    place: &'p Option<Place<'a, Context>>,
    algorithm: HmacAlgorithm,
) -> Option<(&'p Place<'a, Context>, [u8; HIGH_LEN])> {
    let place = place.as_ref().filter(|place| place.algorithm == algorithm)?;
    place.high.map(|high| (place, high.to_be_bytes()))
}

fn count<Context>(line_up: &LineUp<'_, Context>, is: impl Fn(&Place<'_, Context>) -> bool) -> usize {
    line_up.iter().flatten().filter(|place| is(place)).count()
}

fn each<Context>(
    line_up: &LineUp<'_, Context>,
    packets: &mut [&mut [u8]],
    act: impl Fn(&Place<'_, Context>, &mut [u8]),
) {
    for (place, packet) in line_up.iter().zip(packets) {
        if let Some(place) = place {
            act(place, packet);
        }
    }
}

fn hash_jobs<'j, Context>(
    algorithm: HmacAlgorithm,
    line_up: &'j LineUp<'_, Context>,
    packets: &'j [&mut [u8]],
    icvs: &'j mut [[u8; ICV_LEN_MAX]; BATCH_MAX],
) -> impl Iterator<Item = HashJob<'j>> {
    line_up.iter().zip(packets).zip(icvs).filter_map(move |((place, packet), icv)| {
        let place = place.as_ref().filter(|place| place.algorithm == algorithm)?;
        Some(HashJob { pads: &place.keys.pads, text: &packet[place.hashed(packet)], icv })
    })
}

fn cipher_jobs<'j, Context>(
    key_len: usize,
    line_up: &'j LineUp<'_, Context>,
    packets: &'j mut [&mut [u8]],
) -> impl Iterator<Item = CipherJob<'j>> {
    line_up.iter().zip(packets).filter_map(move |(place, packet)| {
        let place = place.as_ref().filter(|place| place.keys.schedule.key_len() == key_len)?;
        let text = place.ciphered(packet);
        Some(CipherJob { schedule: &place.keys.schedule, text: &mut packet[text] })
    })
}

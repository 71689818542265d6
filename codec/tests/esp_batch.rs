//! Batches of packets of many SAs against the same packets one by one.

use codec::SeededRandom;
use codec::esp::{
    BATCH_MAX, EspCipher, EspError, EspInteg, EspKeys, EspSpi, EspSuite, InboundSa, OpenBatch, Opened,
    OutboundSa, SealBatch, SealError,
};

/// Every suite that can be negotiated, both sequence number sizes.
fn suites() -> Vec<EspSuite> {
    use EspCipher::*;
    use EspInteg::*;
    let mut pairs: Vec<_> = [Aes128Gcm16, Aes256Gcm16, ChaCha20Poly1305].map(|cipher| (cipher, None)).into();
    for cipher in [Aes128Cbc, Aes192Cbc, Aes256Cbc, TripleDesCbc] {
        pairs.extend(
            [HmacSha1_96, HmacSha2_256_128, HmacSha2_384_192, HmacSha2_512_256]
                .map(|integ| (cipher, Some(integ))),
        );
    }
    let with = |esn| pairs.iter().map(move |&(cipher, integ)| EspSuite { cipher, integ, esn });
    with(false).chain(with(true)).collect()
}

/// Both ends of one direction; `seed` makes keys and SPI.
fn pair(suite: EspSuite, seed: u8) -> (OutboundSa, InboundSa) {
    let keymat: Vec<u8> = (0..suite.keymat_len() as u8).map(|octet| octet.wrapping_mul(7) ^ seed).collect();
    let keys = || EspKeys::new(&suite, &keymat).unwrap();
    let spi = EspSpi(0x1000 + u32::from(seed));
    let outbound = OutboundSa::new(spi, suite, keys(), &mut SeededRandom::new(seed.into()));
    (outbound, InboundSa::new(spi, suite, keys(), 128))
}

fn ipv4(len: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..len).map(|at| at as u8).collect();
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet
}

fn seal(outbound: &mut OutboundSa, inner: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; outbound.frame_len(inner.len())];
    outbound.seal_frame(inner, &mut frame).unwrap();
    frame
}

/// Opens one frame per SA as a batch.
fn open_batch(sas: &mut [&mut InboundSa], frames: &mut [Vec<u8>]) -> Vec<Result<Opened, EspError>> {
    let mut batch = OpenBatch::new();
    let begun: Vec<_> =
        sas.iter_mut().zip(&*frames).map(|(sa, frame)| sa.begin_open(&frame[2..], &mut batch)).collect();
    let mut packets: Vec<&mut [u8]> = frames
        .iter_mut()
        .zip(&begun)
        .filter(|(_, begun)| begun.is_ok())
        .map(|(frame, _)| &mut frame[2..])
        .collect();
    batch.run(&mut packets);
    let finish = |((sa, frame), begun): ((&mut &mut InboundSa, &Vec<u8>), Result<usize, EspError>)| {
        begun.and_then(|position| sa.finish_open(&batch, position, &frame[2..]))
    };
    sas.iter_mut().zip(&*frames).zip(begun).map(finish).collect()
}

#[test]
fn a_batch_of_all_suites_seals_what_single_packets_would() {
    let lens = [20, 21, 40, 160, 576, 1399, 1400, 9000];
    for chunk in suites().chunks(8) {
        let mut batch = SealBatch::new();
        let (mut frames, mut want) = (Vec::new(), Vec::new());
        for (at, suite) in chunk.iter().enumerate() {
            let (mut batched, mut single) = (pair(*suite, at as u8).0, pair(*suite, at as u8).0);
            for len in lens {
                let mut frame = vec![0xee; batched.frame_len(len) + 1];
                assert_eq!(batched.begin_seal(&ipv4(len), &mut frame, &mut batch), Ok(frame.len() - 1));
                frames.push(frame);
                want.push(seal(&mut single, &ipv4(len)));
            }
            assert_eq!((batched.sequence(), batched.bytes()), (single.sequence(), single.bytes()));
        }
        let mut out: Vec<&mut [u8]> =
            frames.iter_mut().map(|frame| frame.split_last_mut().unwrap().1).collect();
        batch.run(&mut out);
        assert!(batch.is_empty());
        for (frame, want) in frames.iter().zip(&want) {
            assert_eq!(frame.split_last(), Some((&0xee, want.as_slice())));
        }
    }
}

#[test]
fn a_forged_packet_in_a_batch_fails_alone_and_stays_encrypted() {
    for suite in suites() {
        let (mut outbound, mut inbound) = pair(suite, 1);
        let mut frames: Vec<_> = (0..20).map(|at| seal(&mut outbound, &ipv4(100 + 50 * at))).collect();
        let forged = [0, 7, 8, 19];
        for at in forged {
            let middle = frames[at].len() / 2;
            frames[at][middle] ^= 0x10;
        }
        let before = frames.clone();
        let mut batch = OpenBatch::new();
        for (at, frame) in frames.iter().enumerate() {
            assert_eq!(inbound.begin_open(&frame[2..], &mut batch), Ok(at));
        }
        batch.run(&mut frames.iter_mut().map(|frame| &mut frame[2..]).collect::<Vec<_>>());
        for (at, frame) in frames.iter().enumerate() {
            let opened = inbound.finish_open(&batch, at, &frame[2..]);
            if forged.contains(&at) {
                assert_eq!(opened, Err(EspError::BadIcv), "{suite}");
                assert!(suite.integ.is_none() || *frame == before[at], "{suite}: decrypted a forgery");
            } else {
                assert_eq!(frame[2..][opened.unwrap().payload], ipv4(100 + 50 * at), "{suite}");
            }
        }
        assert_eq!(inbound.packets(), 16);
    }
}

#[test]
fn r4303_3_4_3_a_duplicate_inside_a_batch_is_accepted_once() {
    for suite in suites() {
        let (mut outbound, mut inbound) = pair(suite, 2);
        let frame = seal(&mut outbound, &ipv4(200));
        let mut batch = OpenBatch::new();
        let mut frames = vec![frame; 3];
        for (at, frame) in frames.iter().enumerate() {
            assert_eq!(inbound.begin_open(&frame[2..], &mut batch), Ok(at));
        }
        batch.run(&mut frames.iter_mut().map(|frame| &mut frame[2..]).collect::<Vec<_>>());
        assert!(inbound.finish_open(&batch, 0, &frames[0][2..]).is_ok(), "{suite}");
        for at in [1, 2] {
            assert_eq!(inbound.finish_open(&batch, at, &frames[at][2..]), Err(EspError::Replayed), "{suite}");
        }
        assert_eq!((inbound.packets(), inbound.replay_drops()), (1, 2));
    }
}

#[test]
fn batches_mix_sas_suites_and_outcomes() {
    let mut pairs: Vec<_> =
        suites().into_iter().enumerate().map(|(at, suite)| pair(suite, at as u8)).collect();
    let mut frames: Vec<_> =
        pairs.iter_mut().enumerate().map(|(at, (out, _))| seal(out, &ipv4(20 + at * 37))).collect();
    frames[3].truncate(9);
    *frames[10].last_mut().unwrap() ^= 1;
    let mut sas: Vec<_> = pairs.iter_mut().map(|(_, inbound)| inbound).collect();
    let outcomes = open_batch(&mut sas, &mut frames);
    for (at, (outcome, frame)) in outcomes.into_iter().zip(&frames).enumerate() {
        match at {
            3 => assert_eq!(outcome, Err(EspError::TooShort)),
            10 => assert_eq!(outcome, Err(EspError::BadIcv)),
            _ => assert_eq!(frame[2..][outcome.unwrap().payload], ipv4(20 + at * 37)),
        }
    }
}

#[test]
fn what_cannot_be_begun_is_not_in_the_batch_and_uses_no_number() {
    for suite in suites() {
        let (mut outbound, mut inbound) = pair(suite, 3);
        let (mut opening, mut sealing) = (OpenBatch::new(), SealBatch::new());
        assert_eq!(inbound.begin_open(&[0; 11], &mut opening), Err(EspError::TooShort));
        assert_eq!(outbound.begin_seal(&ipv4(40), &mut [0; 9], &mut sealing), Err(SealError::OutputTooSmall));
        assert_eq!(outbound.begin_seal(&[0; 40], &mut [0; 900], &mut sealing), Err(SealError::NotIp));
        assert!(opening.is_empty() && sealing.is_empty());
        assert_eq!(outbound.sequence(), 0);
    }
}

#[test]
fn a_full_batch_says_so() {
    let (mut outbound, _) = pair(suites()[0], 4);
    let mut batch = SealBatch::new();
    for at in 0..BATCH_MAX {
        assert_eq!(batch.len(), at);
        outbound.begin_seal(&ipv4(40), &mut [0; 200], &mut batch).unwrap();
    }
    assert!(batch.is_full());
}

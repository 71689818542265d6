//! Opens every ESP packet of the captured libreswan and strongSwan runs, and seals some back.

use codec::SeededRandom;
use codec::esp::{
    EspCipher, EspError, EspInteg, EspKeys, EspSpi, EspSuite, InboundSa, OpenBatch, OpenedKind, OutboundSa,
};

mod common;
use common::forced::{BOTH, Forced};
use common::{ChildSa, Frame, RUNS, hex};

fn spi(text: &str) -> EspSpi {
    EspSpi(u32::from_str_radix(text, 16).unwrap())
}

/// The suite by its IANA numbers.
fn suite(child: &ChildSa) -> EspSuite {
    let cipher = match child.encr {
        (20, 128) => EspCipher::Aes128Gcm16,
        (20, 256) => EspCipher::Aes256Gcm16,
        (12, 128) => EspCipher::Aes128Cbc,
        (12, 256) => EspCipher::Aes256Cbc,
        other => panic!("no captured run uses {other:?}"),
    };
    let integ = child.integ.map(|id| match id {
        12 => EspInteg::HmacSha2_256_128,
        other => panic!("no captured run uses integrity {other}"),
    });
    EspSuite { cipher, integ, esn: child.esn == 1 }
}

/// SPI and keys of each direction.
fn directions(child: &ChildSa) -> [(EspSpi, Vec<u8>); 2] {
    [
        (spi(&child.spi_r), [hex(&child.encr_i), hex(&child.integ_i)].concat()),
        (spi(&child.spi_i), [hex(&child.encr_r), hex(&child.integ_r)].concat()),
    ]
}

fn inbound_sas(run: &common::Run) -> Vec<InboundSa> {
    let mut sas = Vec::new();
    for child in &run.child_sa {
        let suite = suite(child);
        for (spi, keymat) in directions(child) {
            let keys = EspKeys::new(&suite, &keymat).expect("the run's keys fit its suite");
            sas.push(InboundSa::new(spi, suite, keys, 128));
        }
    }
    sas
}

/// The SA that `frame` selects.
fn sa_of<'a>(sas: &'a mut [InboundSa], frame: &Frame) -> &'a mut InboundSa {
    let number = spi(frame.spi.as_deref().unwrap());
    sas.iter_mut().find(|sa| sa.spi() == number).expect("a child SA has this SPI")
}

#[test]
fn r4303_3_4_every_captured_packet_opens_to_its_inner_packet() {
    for backend in BOTH {
        let Some(_forced) = Forced::new(backend) else { continue };
        open_captured_singly();
        open_captured_in_batches();
    }
}

fn open_captured_in_batches() {
    for name in RUNS {
        let run = common::run(name);
        let mut sas = inbound_sas(&run);
        let mut batch = OpenBatch::new();
        let frames: Vec<_> = run.frames.iter().filter(|frame| frame.kind == "esp").collect();
        for frames in frames.chunks(16) {
            let mut packets: Vec<_> = frames.iter().map(|frame| hex(&frame.payload)).collect();
            for (frame, packet) in frames.iter().zip(&packets) {
                sa_of(&mut sas, frame).begin_open(packet, &mut batch).unwrap();
            }
            batch.run(&mut packets.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
            for (at, (frame, packet)) in frames.iter().zip(&packets).enumerate() {
                let opened = sa_of(&mut sas, frame).finish_open(&batch, at, packet).unwrap();
                assert_eq!(packet[opened.payload], hex(frame.inner_packet.as_deref().unwrap()), "{name}");
            }
            batch.clear();
        }
    }
}

fn open_captured_singly() {
    for name in RUNS {
        let run = common::run(name);
        let mut sas = inbound_sas(&run);
        let mut opened_count = 0;
        for frame in run.frames.iter().filter(|frame| frame.kind == "esp") {
            let sa = sa_of(&mut sas, frame);
            let mut packet = hex(&frame.payload);
            let mut forged = packet.clone();
            *forged.last_mut().unwrap() ^= 1;
            assert_eq!(sa.open(&mut forged), Err(EspError::BadIcv), "{name}");
            let opened =
                sa.open(&mut packet).unwrap_or_else(|error| panic!("{name} {}: {error}", frame.payload));
            assert_eq!(opened.kind, OpenedKind::Inner4);
            assert_eq!(packet[opened.payload], hex(frame.inner_packet.as_deref().unwrap()), "{name}");
            assert_eq!(sa.open(&mut hex(&frame.payload)), Err(EspError::Replayed), "{name}");
            opened_count += 1;
        }
        assert!(opened_count >= 18, "{name}: {opened_count} packets");
    }
}

/// With the run's keys and sequence numbers our sealing differs from theirs in IV alone, so it has the same
/// length and opens to the same packet.
#[test]
fn r4303_3_3_captured_inner_packets_seal_to_packets_of_the_same_length() {
    for name in RUNS {
        let run = common::run(name);
        for child in &run.child_sa {
            let suite = suite(child);
            for (number, keymat) in directions(child) {
                let keys = || EspKeys::new(&suite, &keymat).unwrap();
                let mut outbound = OutboundSa::new(number, suite, keys(), &mut SeededRandom::new(1));
                let mut inbound = InboundSa::new(number, suite, keys(), 128);
                for frame in &run.frames {
                    if frame.spi.as_deref().map(spi) != Some(number) {
                        continue;
                    }
                    let inner = hex(frame.inner_packet.as_deref().unwrap());
                    let mut sealed = vec![0; outbound.frame_len(inner.len())];
                    outbound.seal_frame(&inner, &mut sealed).unwrap();
                    assert_eq!(sealed.len() - 2, hex(&frame.payload).len(), "{name}");
                    assert_eq!(outbound.sequence(), frame.seq.unwrap(), "{name}");
                    let opened = inbound.open(&mut sealed[2..]).unwrap();
                    assert_eq!(sealed[2..][opened.payload], inner);
                }
            }
        }
    }
}

//! Frames found in real TCP streams, and any stream cut at any octet.

use codec::stream::{
    Deframer, FrameKind, LENGTH_LEN, NON_ESP_MARKER, Next, STREAM_PREFIX, classify, frame_ike,
};
use proptest::prelude::*;

mod common;
use common::{Frame, TCP_RUNS, hex};

/// The payloads of one direction of the captured connection, in order, as the segments carried them.
fn segments(pcap: &[u8], towards_gateway: bool) -> Vec<Vec<u8>> {
    let u32_le = |at: usize| u32::from_le_bytes(pcap[at..at + 4].try_into().unwrap()) as usize;
    let mut at = 24;
    let (mut next_sequence, mut segments) = (None, Vec::new());
    while at < pcap.len() {
        let packet = &pcap[at + 16..at + 16 + u32_le(at + 8)];
        at += 16 + packet.len();
        let ip = &packet[14..];
        if packet[12..14] != [8, 0] || ip[9] != 6 {
            continue;
        }
        let total_len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let tcp = &ip[usize::from(ip[0] & 15) * 4..total_len];
        if (tcp[2..4] == 4500u16.to_be_bytes()) != towards_gateway {
            continue;
        }
        let sequence = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
        let data = &tcp[usize::from(tcp[12] >> 4) * 4..];
        let expected = *next_sequence.get_or_insert(sequence.wrapping_add(1));
        let seen = expected.wrapping_sub(sequence) as usize;
        if tcp[13] & 2 == 0 && seen < data.len() {
            segments.push(data[seen..].to_vec());
            next_sequence = Some(expected.wrapping_add((data.len() - seen) as u32));
        }
    }
    segments
}

fn deframe(mut deframer: Deframer, pieces: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (mut bodies, mut carry) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut at = 0;
        loop {
            match deframer.next(piece, &mut at, &mut carry).expect("a sound stream") {
                Next::Pending => break,
                Next::InPlace(range) => bodies.push(piece[range].to_vec()),
                Next::Carried => bodies.push(carry.clone()),
            }
        }
    }
    bodies
}

fn deframer(towards_gateway: bool) -> Deframer {
    if towards_gateway { Deframer::responder() } else { Deframer::originator() }
}

fn frames(run: &common::Run, towards_gateway: bool) -> Vec<&Frame> {
    run.frames.iter().filter(|frame| (frame.to == "responder") == towards_gateway).collect()
}

#[test]
fn r9329_3_captured_streams_deframe_to_the_captured_frames() {
    for name in TCP_RUNS {
        let run = common::run(name);
        let pcap = common::read(&format!("{name}.pcap"));
        for towards_gateway in [true, false] {
            let segments = segments(&pcap, towards_gateway);
            let want: Vec<_> = frames(&run, towards_gateway).iter().map(|it| hex(&it.payload)).collect();
            let bodies = deframe(deframer(towards_gateway), &segments);
            assert!(bodies.len() >= want.len() && want.len() > 5, "{name}");
            assert_eq!(bodies[..want.len()], want, "{name}");

            let octets: Vec<_> = segments.concat().iter().map(|octet| vec![*octet]).collect();
            assert_eq!(deframe(deframer(towards_gateway), &octets), bodies, "{name}: octet by octet");
            assert_eq!(deframe(deframer(towards_gateway), &[segments.concat()]), bodies, "{name}: at once");
        }
    }
}

#[test]
fn r9329_3_captured_frames_classify_and_reframe_to_the_captured_stream() {
    for name in TCP_RUNS {
        let run = common::run(name);
        let pcap = common::read(&format!("{name}.pcap"));
        for towards_gateway in [true, false] {
            let mut stream = if towards_gateway { STREAM_PREFIX.to_vec() } else { Vec::new() };
            for frame in frames(&run, towards_gateway) {
                let body = hex(&frame.payload);
                match classify(&body) {
                    FrameKind::Ike => {
                        assert_eq!(frame.kind, "ike");
                        frame_ike(&body[NON_ESP_MARKER.len()..], &mut stream).unwrap();
                    }
                    FrameKind::Esp(spi) => {
                        assert_eq!(frame.spi.as_deref(), Some(&format!("{:08x}", spi.0)[..]));
                        let length = (body.len() + LENGTH_LEN) as u16;
                        stream.extend_from_slice(&length.to_be_bytes());
                        stream.extend_from_slice(&body);
                    }
                    other => panic!("{name}: {other:?}"),
                }
            }
            assert!(segments(&pcap, towards_gateway).concat().starts_with(&stream), "{name}");
        }
    }
}

fn bodies() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let body = prop_oneof![
        Just(vec![]),
        Just(vec![0xff]),
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(any::<u8>(), 1000..1500),
    ];
    prop::collection::vec(body, 0..12)
}

fn stream_of(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = STREAM_PREFIX.to_vec();
    for body in bodies {
        stream.extend_from_slice(&((body.len() + LENGTH_LEN) as u16).to_be_bytes());
        stream.extend_from_slice(body);
    }
    stream
}

proptest! {
    #[test]
    fn r9329_6_1_1_any_cuts_give_the_frames_of_the_whole_stream(
        bodies in bodies(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let stream = stream_of(&bodies);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|cut| stream[cut[0]..cut[1]].to_vec()).collect();
        prop_assert_eq!(deframe(Deframer::responder(), &pieces), bodies);
    }

    #[test]
    fn r9329_6_1_1_every_single_cut_of_a_short_stream(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6),
    ) {
        let stream = stream_of(&bodies);
        for cut in 0..=stream.len() {
            let pieces = [stream[..cut].to_vec(), stream[cut..].to_vec()];
            prop_assert_eq!(&deframe(Deframer::responder(), &pieces), &bodies, "cut at {}", cut);
        }
    }

    #[test]
    fn r9329_6_1_7_a_broken_off_frame_is_never_yielded(bodies in bodies(), keep in any::<prop::sample::Index>()) {
        let stream = stream_of(&bodies);
        let kept = &stream[..keep.index(stream.len() + 1)];
        let found = deframe(Deframer::responder(), &[kept.to_vec()]);
        prop_assert!(bodies.starts_with(&found));
        prop_assert!(stream_of(&found).len() <= kept.len().max(STREAM_PREFIX.len()));
    }
}

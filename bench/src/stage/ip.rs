//! Inner packets: headers, checksums, super-packets.

use super::Stage;
use codec::ip::{Checksum, Gso, InnerHeader, Joined, Run, Segment, Segmenter, VirtioHeader};
use std::hint::black_box;
use std::net::Ipv4Addr;

/// Octets of an IPv4 header without options.
const IP_LEN: usize = 20;
/// Packets of a super-packet: as many of 1,400 octets as fit into 64 KiB.
const SEGMENTS: usize = 46;
/// The inner MTU.
const MTU: u16 = 1400;
const UE: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 2);
const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// A TCP packet from `source` to `destination` that stands for `segments` packets of `len` octets, and its
/// virtio-net header; the checksum is left to whoever cuts it.
pub fn super_packet(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    segments: usize,
    len: usize,
) -> (VirtioHeader, Vec<u8>) {
    // Ports 4000 and 5201, data offset 5, ACK.
    let tcp = [0x0f, 0xa0, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];
    joined(
        source,
        destination,
        (segments, len),
        Transport { protocol: 6, gso: Gso::Tcp4, checksum_at: 16 },
        tcp,
    )
}

/// The same of UDP, to `port`.
pub fn udp_super_packet(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    port: u16,
    segments: usize,
    len: usize,
) -> (VirtioHeader, Vec<u8>) {
    let mut udp = [0x0f, 0xa0, 0, 0, 0, 0, 0, 0];
    let udp_len = udp.len() + (len - IP_LEN - udp.len()) * segments;
    udp[2..4].copy_from_slice(&port.to_be_bytes());
    udp[4..6].copy_from_slice(&(udp_len as u16).to_be_bytes());
    joined(
        source,
        destination,
        (segments, len),
        Transport { protocol: 17, gso: Gso::Udp, checksum_at: 6 },
        udp,
    )
}

/// What a super-packet is of.
struct Transport {
    protocol: u8,
    gso: Gso,
    /// Offset of the checksum in its header.
    checksum_at: usize,
}

fn joined<const N: usize>(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    (segments, len): (usize, usize),
    transport: Transport,
    mut head: [u8; N],
) -> (VirtioHeader, Vec<u8>) {
    let (headers_len, at) = (IP_LEN + N, transport.checksum_at);
    let payload_len = (len - headers_len) * segments;
    let header = VirtioHeader {
        flags: VirtioHeader::NEEDS_CSUM,
        gso: if segments > 1 { transport.gso } else { Gso::None },
        hdr_len: headers_len as u16,
        gso_size: if segments > 1 { (len - headers_len) as u16 } else { 0 },
        csum_start: IP_LEN as u16,
        csum_offset: at as u16,
        ..VirtioHeader::default()
    };
    let total_len = (headers_len + payload_len) as u16;
    let mut ip = [0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, transport.protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ip[2..4].copy_from_slice(&total_len.to_be_bytes());
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&destination.octets());
    let sum = Checksum::new().with(&ip).finish();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let (from, to, len) = (source.into(), destination.into(), (N + payload_len) as u32);
    let sum = Checksum::new().with_pseudo_header(from, to, transport.protocol, len).partial();
    head[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    (header, [&ip[..], &head, &vec![0x33; payload_len]].concat())
}

fn segmenter(packet: &[u8], header: &VirtioHeader) -> Segmenter {
    let inner = InnerHeader::parse(packet).expect("a sound packet");
    Segmenter::new(packet, &inner, header, MTU).expect("a super-packet that fits")
}

/// The packets of a super-packet, each for itself.
fn segments(len: usize) -> Vec<Vec<u8>> {
    let (header, mut packet) = super_packet(UE, FAR, SEGMENTS, len);
    let mut cut = segmenter(&packet, &header);
    std::iter::from_fn(|| cut.next(&mut packet, false).map(|range| packet[range].to_vec())).collect()
}

/// A super-packet cut into its segments.
pub struct Cut {
    header: VirtioHeader,
    original: Vec<u8>,
    packet: Vec<u8>,
}

impl Cut {
    pub fn new(len: usize) -> Self {
        let (header, original) = super_packet(UE, FAR, SEGMENTS, len);
        Self { header, packet: original.clone(), original }
    }
}

impl Stage for Cut {
    fn prepare(&mut self) {
        self.packet.copy_from_slice(&self.original);
    }

    fn run(&mut self) {
        let mut cut = segmenter(&self.packet, &self.header);
        let mut count = 0;
        while let Some(range) = cut.next(&mut self.packet, false) {
            black_box(&self.packet[range]);
            count += 1;
        }
        assert_eq!(count, SEGMENTS);
    }

    fn packets(&self) -> usize {
        SEGMENTS
    }
}

/// Segments put together.
pub struct Coalesce {
    segments: Vec<Vec<u8>>,
    head: Vec<u8>,
}

impl Coalesce {
    pub fn new(len: usize) -> Self {
        Self { segments: segments(len), head: Vec::new() }
    }
}

impl Stage for Coalesce {
    fn prepare(&mut self) {
        self.head.clone_from(&self.segments[0]);
    }

    fn run(&mut self) {
        let inner = InnerHeader::parse(&self.head).expect("a sound packet");
        let segment = Segment::of(&self.head, &inner).expect("part of a flow");
        let mut run = Run::new(&self.head, segment).expect("a sound packet");
        for packet in &self.segments[1..] {
            let joined = run.join(packet);
            assert!(matches!(joined, Joined::Yes | Joined::Last));
        }
        black_box(run.finish(&mut self.head));
    }

    fn packets(&self) -> usize {
        SEGMENTS
    }
}

/// Packets summed.
pub struct Sum(Vec<Vec<u8>>);

impl Sum {
    pub fn new(len: usize) -> Self {
        Self(segments(len))
    }
}

impl Stage for Sum {
    fn prepare(&mut self) {}

    fn run(&mut self) {
        for packet in &self.0 {
            black_box(Checksum::new().with(black_box(packet)).partial());
        }
    }

    fn packets(&self) -> usize {
        self.0.len()
    }
}

/// Headers parsed.
pub struct Parse(Vec<Vec<u8>>);

impl Parse {
    pub fn new(len: usize) -> Self {
        Self(segments(len))
    }
}

impl Stage for Parse {
    fn prepare(&mut self) {}

    fn run(&mut self) {
        for packet in &self.0 {
            black_box(InnerHeader::parse(black_box(packet)).expect("a sound packet"));
        }
    }

    fn packets(&self) -> usize {
        self.0.len()
    }
}

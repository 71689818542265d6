use proptest::prelude::*;

use super::*;

const FIN_PSH_ACK_CWR: u8 = 0x99;

/// What a super-packet is made of.
#[derive(Clone, Debug)]
struct Shape {
    version: u8,
    tcp: bool,
    ip_options: usize,
    tcp_options: usize,
    gso_size: u16,
    payload: Vec<u8>,
    tos: u8,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let payload = prop::collection::vec(any::<u8>(), 0..6000);
    (any::<bool>(), any::<bool>(), 0..3usize, 0..11usize, 1..1300u16, payload, any::<u8>()).prop_map(
        |(v4, tcp, ip_options, tcp_options, gso_size, payload, tos)| Shape {
            version: if v4 { 4 } else { 6 },
            tcp,
            ip_options: ip_options * if v4 { 4 } else { 8 },
            tcp_options: if tcp { tcp_options * 4 } else { 0 },
            gso_size,
            payload,
            tos,
        },
    )
}

fn any_gso(kind: u8) -> Gso {
    [Gso::None, Gso::Tcp4, Gso::Tcp6, Gso::Udp].get(usize::from(kind)).copied().unwrap_or(Gso::Other(kind))
}

fn ip_header(shape: &Shape, transport_len: usize) -> Vec<u8> {
    let proto = if shape.tcp { 6 } else { 17 };
    let mut ip = vec![0; if shape.version == 4 { 20 } else { 40 } + shape.ip_options];
    if shape.version == 4 {
        let words = (ip.len() / 4) as u8;
        ip[..2].copy_from_slice(&[0x40 | words, shape.tos]);
        let total_len = (ip.len() + transport_len) as u16;
        ip[2..4].copy_from_slice(&total_len.to_be_bytes());
        ip[4..10].copy_from_slice(&[0xff, 0xfe, 0x40, 0, 64, proto]);
        ip[12..20].copy_from_slice(&[192, 0, 2, 1, 10, 64, 0, 7]);
    } else {
        ip[..2].copy_from_slice(&[0x60 | shape.tos >> 4, shape.tos << 4 | 0x0a]);
        let payload_len = (shape.ip_options + transport_len) as u16;
        ip[4..6].copy_from_slice(&payload_len.to_be_bytes());
        ip[6..8].copy_from_slice(&[proto, 64]);
        ip[8..40].copy_from_slice(&[0xfd; 32]);
        if shape.ip_options > 0 {
            // Destination options: next header, length beyond the first 8 octets, PadN over the rest.
            ip[6] = 60;
            let pad = shape.ip_options - 4;
            ip[40..44].copy_from_slice(&[proto, (shape.ip_options / 8 - 1) as u8, 1, pad as u8]);
        }
    }
    ip
}

/// The super-packet as the kernel hands it over, and its virtio-net header.
fn build(shape: &Shape) -> (Vec<u8>, VirtioHeader) {
    let mut transport = vec![0x30, 0x39, 0, 80];
    if shape.tcp {
        transport.extend([0xff, 0xff, 0xff, 0, 1, 2, 3, 4]);
        transport.extend([(5 + shape.tcp_options as u8 / 4) << 4, FIN_PSH_ACK_CWR, 0x20, 0, 0, 0, 0, 0]);
        transport.extend(std::iter::repeat_n(1, shape.tcp_options));
    } else {
        let len = (8 + shape.payload.len()) as u16;
        transport.extend(len.to_be_bytes());
        transport.extend([0, 0]);
    }
    let hdr_len = transport.len();
    transport.extend(&shape.payload);
    let mut packet = ip_header(shape, transport.len());
    let csum_start = packet.len();
    let csum_offset = if shape.tcp { 16 } else { 6 };
    let pseudo = pseudo_header(&packet, shape.tcp, transport.len());
    let partial = !plain_sum(&pseudo);
    transport[csum_offset..csum_offset + 2].copy_from_slice(&partial.to_be_bytes());
    packet.extend(&transport);
    let gso = match (shape.tcp, shape.version) {
        (true, 4) => Gso::Tcp4,
        (true, _) => Gso::Tcp6,
        (false, _) => Gso::Udp,
    };
    let header = VirtioHeader {
        flags: VirtioHeader::NEEDS_CSUM,
        gso,
        gso_ecn: shape.tcp,
        hdr_len: (csum_start + hdr_len) as u16,
        gso_size: shape.gso_size,
        csum_start: csum_start as u16,
        csum_offset: csum_offset as u16,
    };
    (packet, header)
}

fn pseudo_header(packet: &[u8], tcp: bool, len: usize) -> Vec<u8> {
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    let mut pseudo = addresses.to_vec();
    pseudo.extend((len as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, if tcp { 6 } else { 17 }]);
    pseudo
}

/// The checksum word by word, as RFC 1071 §1 words it.
fn plain_sum(octets: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in octets.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Everything the segments are, as copies made before the next one is cut.
fn cut(packet: &[u8], virtio: &VirtioHeader, mtu: u16, ce: bool) -> Result<Vec<Vec<u8>>, SegmentError> {
    let inner = InnerHeader::parse(packet).unwrap();
    let mut segmenter = Segmenter::new(packet, &inner, virtio, mtu)?;
    let mut packet = packet.to_vec();
    let mut segments = Vec::new();
    loop {
        let (count, octets, len) =
            (segmenter.remaining(), segmenter.remaining_octets(), segmenter.peek_len());
        let Some(range) = segmenter.next(&mut packet, ce) else {
            assert_eq!((count, octets, len), (0, 0, None));
            return Ok(segments);
        };
        assert_eq!(len, Some(range.len()));
        assert_eq!(segmenter.remaining(), count - 1);
        assert_eq!(segmenter.remaining_octets(), octets - range.len());
        segments.push(packet[range].to_vec());
    }
}

/// Checks every field a receiver looks at, and returns the payload.
fn payload_of(shape: &Shape, segment: &[u8], index: usize, count: usize) -> Vec<u8> {
    let inner = InnerHeader::parse(segment).unwrap();
    assert_eq!(inner.total_len, segment.len());
    if shape.version == 4 {
        assert_eq!(plain_sum(&segment[..inner.transport_at]), 0, "header checksum");
        let id = u16::from_be_bytes([segment[4], segment[5]]);
        assert_eq!(id, 0xfffe_u16.wrapping_add(index as u16));
    }
    let transport = &segment[inner.transport_at..];
    let pseudo = pseudo_header(segment, shape.tcp, transport.len());
    assert_eq!(plain_sum(&[&pseudo, transport].concat()), 0, "transport checksum");
    if !shape.tcp {
        assert_eq!(usize::from(u16::from_be_bytes([transport[4], transport[5]])), transport.len());
        assert_ne!(transport[6..8], [0, 0], "RFC 768: zero means no checksum");
        return transport[8..].to_vec();
    }
    let sequence = u32::from_be_bytes(transport[4..8].try_into().unwrap());
    assert_eq!(sequence, 0xffff_ff00_u32.wrapping_add(index as u32 * u32::from(shape.gso_size)));
    let mut flags = 0x10;
    flags |= if index == 0 { 0x80 } else { 0 };
    flags |= if index + 1 == count { 0x09 } else { 0 };
    assert_eq!(transport[13], flags, "segment {index} of {count}");
    transport[20 + shape.tcp_options..].to_vec()
}

proptest! {
    #[test]
    fn segments_are_right_and_add_up_to_what_was_cut(shape in shapes()) {
        let (packet, virtio) = build(&shape);
        let segments = cut(&packet, &virtio, 1500, false).unwrap();
        prop_assert_eq!(segments.len(), shape.payload.len().div_ceil(shape.gso_size.into()).max(1));
        let mut payload = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            payload.extend(payload_of(&shape, segment, index, segments.len()));
        }
        prop_assert_eq!(payload, shape.payload);
    }

    #[test]
    fn r3168_5_a_mark_changes_the_ecn_field_of_capable_packets_alone(shape in shapes()) {
        let (packet, virtio) = build(&shape);
        let plain = cut(&packet, &virtio, 1500, false).unwrap();
        let marked = cut(&packet, &virtio, 1500, true).unwrap();
        let shift = if shape.version == 4 { 0 } else { 4 };
        let count = plain.len();
        for (index, (mut before, after)) in plain.into_iter().zip(marked).enumerate() {
            payload_of(&shape, &after, index, count);
            let capable = shape.tos & 3 != 0;
            before[1] |= if capable { 3 << shift } else { 0 };
            if shape.version == 4 {
                before[10..12].copy_from_slice(&after[10..12]);
            }
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn segments_left_out_do_not_change_the_others(shape in shapes(), left_out in any::<u32>()) {
        let (packet, virtio) = build(&shape);
        let all = cut(&packet, &virtio, 1500, false).unwrap();
        let inner = InnerHeader::parse(&packet).unwrap();
        let mut segmenter = Segmenter::new(&packet, &inner, &virtio, 1500).unwrap();
        let mut packet = packet;
        for (index, segment) in all.iter().enumerate() {
            if left_out >> (index % 32) & 1 != 0 {
                prop_assert!(segmenter.skip(&mut packet));
            } else {
                let range = segmenter.next(&mut packet, false).unwrap();
                prop_assert_eq!(&packet[range], &segment[..]);
            }
        }
        prop_assert!(!segmenter.skip(&mut packet));
    }

    #[test]
    fn any_virtio_header_is_refused_or_yields_packets_within_the_mtu(
        shape in shapes(),
        (flags, gso_type) in (any::<u8>(), prop_oneof![0..6u8, any::<u8>()]),
        (hdr_len, gso_size) in (any::<u16>(), prop_oneof![0..100u16, any::<u16>()]),
        (csum_start, csum_offset) in (prop_oneof![0..100u16, any::<u16>()], prop_oneof![0..20u16, any::<u16>()]),
        trusted in any::<bool>(),
        mtu in 0..2000u16,
    ) {
        let (packet, right) = build(&shape);
        let gso = any_gso(gso_type);
        let mut virtio = VirtioHeader { flags, gso, gso_ecn: true, hdr_len, gso_size, csum_start, csum_offset };
        if trusted {
            virtio = VirtioHeader { gso_size, ..right };
        }
        if let Ok(segments) = cut(&packet, &virtio, mtu, flags & 1 != 0) {
            for segment in segments {
                prop_assert!(segment.len() <= mtu.into());
                prop_assert!(InnerHeader::parse(&segment).is_ok());
            }
        }
    }

    #[test]
    fn any_octets_with_any_virtio_header_never_panic(
        mut packet in prop::collection::vec(any::<u8>(), 20..200),
        fields in any::<(u8, u8, u16, u16)>(),
        gso_type in 0..6u8,
        version in prop_oneof![Just(0x45u8), Just(0x60u8)],
    ) {
        let (flags, offset, start, gso_size) = fields;
        packet[0] = version;
        if version == 0x45 {
            let len = (packet.len() as u16).to_be_bytes();
            packet[2..4].copy_from_slice(&len);
        } else if packet.len() >= 40 {
            let len = ((packet.len() - 40) as u16).to_be_bytes();
            packet[4..6].copy_from_slice(&len);
        }
        let virtio = VirtioHeader {
            flags,
            gso: any_gso(gso_type),
            gso_ecn: false,
            hdr_len: start,
            gso_size,
            csum_start: start % 100,
            csum_offset: (offset % 30).into(),
        };
        if InnerHeader::parse(&packet).is_ok() {
            let _ = cut(&packet, &virtio, 1500, true);
        }
    }
}

fn tcp_shape(payload_len: usize, gso_size: u16) -> Shape {
    Shape {
        version: 4,
        tcp: true,
        ip_options: 0,
        tcp_options: 12,
        gso_size,
        payload: (0..payload_len).map(|octet| octet as u8).collect(),
        tos: 0,
    }
}

#[test]
fn a_packet_without_offload_stays_as_it_is() {
    let (packet, _) = build(&tcp_shape(500, 1));
    let segments = cut(&packet, &VirtioHeader::default(), 1500, false).unwrap();
    assert_eq!(segments, [packet]);
}

#[test]
fn octets_behind_the_packets_own_length_are_not_sent() {
    let (packet, _) = build(&tcp_shape(500, 1));
    let longer = [&packet[..], &[0xee; 9]].concat();
    assert_eq!(cut(&longer, &VirtioHeader::default(), 1500, false).unwrap(), [packet]);
}

#[test]
fn a_partial_checksum_is_completed() {
    for (version, tcp) in [(4, true), (4, false), (6, true), (6, false)] {
        let shape = Shape { version, tcp, tcp_options: 0, ..tcp_shape(601, 1) };
        let (packet, virtio) = build(&shape);
        let virtio = VirtioHeader { gso: Gso::None, gso_size: 0, ..virtio };
        let segments = cut(&packet, &virtio, 1500, false).unwrap();
        let at = usize::from(virtio.csum_start);
        let pseudo = pseudo_header(&packet, tcp, packet.len() - at);
        assert_eq!(plain_sum(&[&pseudo, &segments[0][at..]].concat()), 0);
    }
}

#[test]
fn r768_a_datagram_that_sums_to_zero_is_sent_as_all_ones() {
    let mut shape = Shape { tcp: false, tcp_options: 0, ..tcp_shape(2, 2) };
    shape.payload = vec![0, 0];
    let (packet, virtio) = build(&shape);
    let sum = cut(&packet, &virtio, 1500, false).unwrap()[0][26..28].to_vec();
    // With its own checksum as payload the rest sums to zero.
    shape.payload = sum;
    let (packet, virtio) = build(&shape);
    for gso in [Gso::Udp, Gso::None] {
        let segments = cut(&packet, &VirtioHeader { gso, ..virtio }, 1500, false).unwrap();
        assert_eq!(segments[0][26..28], [0xff, 0xff]);
    }
}

#[test]
fn what_exceeds_the_mtu_is_cut_smaller_for_tcp_and_refused_otherwise() {
    let (packet, virtio) = build(&tcp_shape(3000, 1460));
    let segments = cut(&packet, &virtio, 1280, false).unwrap();
    assert_eq!(segments.iter().map(Vec::len).collect::<Vec<_>>(), [1280, 1280, 52 + 3000 - 2 * 1228]);
    let (packet, virtio) = build(&Shape { tcp: false, tcp_options: 0, ..tcp_shape(3000, 1460) });
    assert_eq!(cut(&packet, &virtio, 1280, false), Err(SegmentError::TooBig));
    assert_eq!(cut(&packet, &VirtioHeader::default(), 1280, false), Err(SegmentError::TooBig));
}

#[test]
fn offloads_that_do_not_fit_the_packet_are_refused() {
    let (packet, right) = build(&tcp_shape(3000, 1000));
    for wrong in [
        VirtioHeader { gso: Gso::Tcp6, ..right },
        VirtioHeader { gso: Gso::Udp, ..right },
        VirtioHeader { gso: Gso::Other(3), ..right },
        VirtioHeader { gso_size: 0, ..right },
        VirtioHeader { flags: 0, ..right },
        VirtioHeader { csum_start: 24, ..right },
        VirtioHeader { csum_offset: 6, ..right },
        VirtioHeader { gso: Gso::None, csum_start: 12, ..right },
        VirtioHeader { gso: Gso::None, csum_offset: 65_000, ..right },
    ] {
        assert_eq!(cut(&packet, &wrong, 1500, false), Err(SegmentError::Offload), "{wrong:?}");
    }
    let mut fragment = packet.clone();
    fragment[6] = 0x20;
    assert_eq!(cut(&fragment, &right, 1500, false), Err(SegmentError::Offload));
}

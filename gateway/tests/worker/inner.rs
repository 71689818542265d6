//! Inner packets of every kind, both ways: each is delivered as it came or dropped under its reason, and the
//! connection, the SA and everybody else go on.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::rig::{CORE, CORE6, Peer, Rig, Ue, datagram, ike_frame, ipv4, ipv6, udp};

/// More fragments, and an offset of 1,480 octets.
const MORE: u16 = 0x2000;
const OFFSET: u16 = 185;

/// Numbers of IPv6 extension headers.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NO_NEXT: u8 = 59;
const OPTIONS: u8 = 60;
const UDP: u8 = 17;

/// An extension header of 8 octets that does nothing.
fn extension(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

/// A fragment header.
fn fragment6(next: u8, offset_and_more: u16) -> [u8; 8] {
    let [a, b] = offset_and_more.to_be_bytes();
    [next, 0, a, b, 0, 0, 0, 9]
}

/// Packets that are unusual and right.
fn unusual(src: (Ipv4Addr, Ipv6Addr), dst: (Ipv4Addr, Ipv6Addr)) -> Vec<(&'static str, Vec<u8>)> {
    let udp4 = |options: &[u8], fragment, data: &[u8]| ipv4(src.0, dst.0, options, fragment, data);
    let udp6 = |next, data: &[&[u8]]| ipv6(src.1, dst.1, next, &data.concat());
    let whole = datagram(&[3; 200]);
    // Record route with room for nine addresses; router alert; time stamps that overflowed.
    let mut route = [0; 40];
    route[..3].copy_from_slice(&[7, 39, 4]);
    let mut chain = Vec::new();
    for _ in 0..7 {
        chain.extend(extension(OPTIONS));
    }
    chain.extend(extension(UDP));
    vec![
        ("v4 record route", udp4(&route, 0, &whole)),
        ("v4 router alert", udp4(&[148, 4, 0, 0], 0x4000, &whole)),
        ("v4 time stamp", udp4(&[68, 8, 9, 0xf0, 0, 0, 0, 0], 0, &whole)),
        ("v4 no data", udp4(&[], 0, &[])),
        ("v4 transport cut short", udp4(&[], 0, &whole[..3])),
        ("v4 first fragment", udp4(&[], MORE, &[4; 800])),
        ("v4 middle fragment", udp4(&[], MORE | OFFSET, &[4; 800])),
        ("v4 last fragment", udp4(&[], OFFSET, &[4; 33])),
        ("v4 last fragment with options", udp4(&[1, 1, 1, 0], OFFSET, &[4; 1])),
        ("v6 plain", udp6(UDP, &[&whole])),
        ("v6 no next header", udp6(NO_NEXT, &[])),
        ("v6 hop by hop", udp6(HOP_BY_HOP, &[&extension(UDP), &whole])),
        ("v6 routing", udp6(ROUTING, &[&extension(UDP), &whole])),
        ("v6 AH", udp6(AUTHENTICATION, &[&[UDP, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], &[7; 12], &whole])),
        ("v6 eight extensions", udp6(OPTIONS, &[&chain, &whole])),
        ("v6 atomic fragment", udp6(FRAGMENT, &[&fragment6(UDP, 0), &whole])),
        ("v6 first fragment", udp6(FRAGMENT, &[&fragment6(UDP, 1), &whole])),
        ("v6 later fragment", udp6(FRAGMENT, &[&fragment6(UDP, 1480 | 1), &[5; 400]])),
        ("v6 last fragment", udp6(FRAGMENT, &[&fragment6(UDP, 1480), &[5; 1]])),
        ("v6 fragment of an extension", udp6(FRAGMENT, &[&fragment6(OPTIONS, 1480), &[5; 9]])),
    ]
}

/// Packets whose lengths are wrong.
fn malformed(src: (Ipv4Addr, Ipv6Addr), dst: (Ipv4Addr, Ipv6Addr)) -> Vec<(&'static str, Vec<u8>)> {
    let whole = datagram(&[3; 40]);
    let with = |packet: &[u8], at: usize, octets: &[u8]| {
        let mut packet = packet.to_vec();
        packet[at..at + octets.len()].copy_from_slice(octets);
        packet
    };
    let four = ipv4(src.0, dst.0, &[], 0, &whole);
    let six = ipv6(src.1, dst.1, UDP, &whole);
    let udp6 = |next, data: &[&[u8]]| ipv6(src.1, dst.1, next, &data.concat());
    vec![
        ("v4 longer than it is", with(&four, 2, &[0xff, 0xff])),
        ("v4 one octet longer", with(&four, 3, &[four[3] + 1])),
        ("v4 shorter than its header", with(&four, 2, &[0, 19])),
        ("v4 of no length", with(&four, 2, &[0, 0])),
        ("v4 header of 16 octets", with(&four, 0, &[0x44])),
        ("v4 header longer than the packet", with(&ipv4(src.0, dst.0, &[], 0, &[]), 0, &[0x4f])),
        ("v4 cut in its header", four[..19].to_vec()),
        ("v6 longer than it is", with(&six, 4, &[0xff, 0xff])),
        ("v6 cut in its header", six[..39].to_vec()),
        ("v6 extension beyond the end", udp6(OPTIONS, &[&[UDP, 200, 1, 4, 0, 0, 0, 0]])),
        ("v6 extension of one octet", udp6(OPTIONS, &[&[UDP]])),
        ("v6 AH beyond the end", udp6(AUTHENTICATION, &[&[UDP, 255, 0, 0, 0, 0, 1, 0]])),
        ("v6 fragment header cut", udp6(FRAGMENT, &[&fragment6(UDP, 1)[..7]])),
        ("v6 extensions without end", udp6(OPTIONS, &[&extension(OPTIONS).repeat(100)])),
    ]
}

/// Packets of a UE that are not its own, or go where it may not: with the reason each is dropped for.
fn forbidden(ue: &Ue) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let whole = datagram(b"forbidden");
    let four = |src: Ipv4Addr, dst: Ipv4Addr| ipv4(src, dst, &[], 0, &whole);
    let six = |src: Ipv6Addr, dst: Ipv6Addr| ipv6(src, dst, UDP, &whole);
    let to = |addr: &str| addr.parse().expect("an address");
    let neighbour = Ipv4Addr::new(10, 64, 0, 77);
    let neighbour6 = Ipv6Addr::from_bits(ue.addr6.to_bits() + 76);
    vec![
        ("uplink_selector", "source of a neighbour", four(neighbour, CORE)),
        ("uplink_selector", "source in the core", four(CORE, CORE)),
        ("uplink_selector", "no source", four(Ipv4Addr::UNSPECIFIED, CORE)),
        ("uplink_selector", "loopback source", four(Ipv4Addr::LOCALHOST, CORE)),
        ("uplink_selector", "broadcast source", four(Ipv4Addr::BROADCAST, CORE)),
        ("uplink_selector", "the gateway's source", four(Ipv4Addr::new(192, 0, 2, 9), CORE)),
        ("uplink_selector", "fragment of a neighbour", ipv4(neighbour, CORE, &[], OFFSET, &[4; 50])),
        ("uplink_selector", "v6 source of a neighbour", six(neighbour6, CORE6)),
        ("uplink_selector", "v6 no source", six(Ipv6Addr::UNSPECIFIED, CORE6)),
        ("uplink_selector", "v6 source in v4", six(ue.addr.to_ipv6_mapped(), CORE6)),
        ("uplink_selector", "v6 link local source", six("fe80::1".parse().expect("an address"), CORE6)),
        ("ue_to_ue", "to a neighbour", four(ue.addr, neighbour)),
        ("ue_to_ue", "fragment to a neighbour", ipv4(ue.addr, neighbour, &[], OFFSET, &[4; 50])),
        ("ue_to_ue", "v6 to a neighbour", six(ue.addr6, neighbour6)),
        ("to_gateway", "to the gateway", four(ue.addr, Ipv4Addr::new(192, 0, 2, 9))),
        ("to_gateway", "limited broadcast", four(ue.addr, Ipv4Addr::BROADCAST)),
        ("to_gateway", "to all hosts of the link", four(ue.addr, Ipv4Addr::new(224, 0, 0, 1))),
        ("to_gateway", "loopback", four(ue.addr, Ipv4Addr::LOCALHOST)),
        ("to_gateway", "v6 to all nodes of the link", six(ue.addr6, to("ff02::1"))),
        ("to_gateway", "v6 to all nodes of the interface", six(ue.addr6, to("ff01::1"))),
        ("to_gateway", "v6 to a transient group of the link", six(ue.addr6, to("ff12::77"))),
        ("to_gateway", "v6 to all routers of the site", six(ue.addr6, to("ff05::2"))),
        ("to_gateway", "v6 link local", six(ue.addr6, to("fe80::1"))),
        ("to_gateway", "v6 loopback", six(ue.addr6, Ipv6Addr::LOCALHOST)),
    ]
}

/// Two UEs of a suite each, attached: the one under test and one that must not notice.
fn attached(rig: &Rig, cbc: bool) -> [(Ue, Peer); 2] {
    let install = if cbc { Ue::install_cbc } else { Ue::install };
    [0, 1].map(|number| {
        let (mut ue, mut peer) = (install(rig, 0, number), Peer::connect(rig, 0));
        peer.send(&ue.frame_to(CORE, b"attach"));
        rig.core_receives(0);
        (ue, peer)
    })
}

#[test]
fn r791_and_r8200_options_extensions_and_fragments_go_up_as_they_are() {
    for cbc in [false, true] {
        let rig = Rig::new(1);
        let [(mut ue, mut peer), _other] = attached(&rig, cbc);
        for (name, packet) in unusual((ue.addr, ue.addr6), (CORE, CORE6)) {
            peer.send(&ue.frame(&packet));
            assert_eq!(rig.core_receives(0), packet, "{name}");
        }
        assert_eq!(rig.all_drops(0), 0);
    }
}

#[test]
fn r791_and_r8200_options_extensions_and_fragments_go_down_as_they_are() {
    for cbc in [false, true] {
        let rig = Rig::new(1);
        let [(mut ue, mut peer), _other] = attached(&rig, cbc);
        for (name, packet) in unusual((CORE, CORE6), (ue.addr, ue.addr6)) {
            rig.to_ue(0, &packet);
            assert_eq!(ue.open(peer.receive()), packet, "{name}");
        }
        assert_eq!(rig.all_drops(0), 0);
    }
}

#[test]
fn r4303_2_7_wrong_inner_lengths_are_dropped_one_by_one_and_cost_nothing_else() {
    for cbc in [false, true] {
        let rig = Rig::new(1);
        let [(mut ue, mut peer), (mut other, mut bystander)] = attached(&rig, cbc);
        for (count, (name, packet)) in (1..).zip(malformed((ue.addr, ue.addr6), (CORE, CORE6))) {
            // Between two good ones of its own and beside one of somebody else.
            let frames = [ue.frame_to(CORE, b"before"), ue.frame(&packet), ue.frame_to(CORE, b"behind")];
            peer.send(&frames.concat());
            assert!(rig.core_receives(0).ends_with(b"before"), "{name}");
            assert!(rig.core_receives(0).ends_with(b"behind"), "{name}");
            bystander.send(&other.frame_to(CORE, b"unhurt"));
            assert!(rig.core_receives(0).ends_with(b"unhurt"), "{name}");
            assert_eq!((rig.drops(0, "bad_inner_packet"), rig.all_drops(0)), (count, count), "{name}");
        }
        // They were authentic: never a reason to close the connection (D5).
        assert!(peer.is_quiet());
    }
}

#[test]
fn wrong_lengths_from_the_core_are_dropped_one_by_one() {
    let rig = Rig::new(1);
    let [(mut ue, mut peer), _other] = attached(&rig, false);
    for (count, (name, packet)) in (1..).zip(malformed((CORE, CORE6), (ue.addr, ue.addr6))) {
        rig.to_ue(0, &packet);
        rig.to_ue(0, &udp(CORE, ue.addr, b"behind"));
        assert!(ue.open(peer.receive()).ends_with(b"behind"), "{name}");
        assert_eq!((rig.drops(0, "bad_inner_packet"), rig.all_drops(0)), (count, count), "{name}");
    }
    // Less than a virtio-net header, which only a broken device yields.
    rig.seats[0].core.send(&[0; 9]).expect("sent");
    rig.until("short read", 1, |rig| rig.drops(0, "bad_offload"));
}

#[test]
fn r4301_5_2_spoofed_sources_and_forbidden_destinations_never_reach_the_core() {
    for cbc in [false, true] {
        let rig = Rig::new(1);
        let [(mut ue, mut peer), _other] = attached(&rig, cbc);
        for (count, (reason, name, packet)) in (1..).zip(forbidden(&ue)) {
            let before = rig.drops(0, reason);
            peer.send(&[ue.frame(&packet), ue.frame_to(CORE, b"behind")].concat());
            assert!(rig.core_receives(0).ends_with(b"behind"), "{name}");
            assert_eq!((rig.drops(0, reason), rig.all_drops(0)), (before + 1, count), "{name}");
        }
        assert!(peer.is_quiet());
    }
}

#[test]
fn what_goes_beyond_the_link_is_the_kernels_to_route() {
    let rig = Rig::new(1);
    let [(mut ue, mut peer), _other] = attached(&rig, false);
    for group in [[239, 1, 2, 3], [224, 0, 1, 1], [169, 254, 1, 1], [10, 77, 0, 255]] {
        let packet = udp(ue.addr, group.into(), b"on");
        peer.send(&ue.frame(&packet));
        assert_eq!(rig.core_receives(0), packet, "{group:?}");
    }
    for group in ["ff0e::1", "ff05::1:3"] {
        let packet = ipv6(ue.addr6, group.parse().expect("a group"), UDP, &datagram(b"on"));
        peer.send(&ue.frame(&packet));
        assert_eq!(rig.core_receives(0), packet, "{group}");
    }
}

#[test]
fn jumbo_packets_go_up_whole_and_are_answered_down() {
    let rig = Rig::new(1);
    let [(mut ue, mut peer), _other] = attached(&rig, false);
    // Uplink: the device takes what a frame can carry; its MTU bounds what it yields.
    for len in [1401, 9000, 60_000, 65_400] {
        let big = udp(ue.addr, CORE, &vec![6; len - 28]);
        let big6 = ipv6(ue.addr6, CORE6, UDP, &datagram(&vec![6; len - 48]));
        for packet in [big, big6] {
            peer.send(&ue.frame(&packet));
            assert!(rig.core_receives(0) == packet, "{len}");
        }
    }
    // Downlink: the sender is told, once, and only where an answer is allowed (RFC 1122 §3.2.2).
    let jumbo = |len: usize| ipv6(CORE6, ue.addr6, UDP, &datagram(&vec![6; len - 48]));
    for (count, len) in (1..).zip([1401, 9000, 60_000]) {
        rig.to_ue(0, &jumbo(len));
        let answer = rig.core_receives(0);
        assert_eq!((answer[6], answer[40]), (58, 2), "ICMPv6, packet too big");
        assert_eq!(answer[24..40], CORE6.octets());
        assert_eq!(answer[44..48], 1400u32.to_be_bytes());
        assert!(answer.len() <= 1280, "RFC 4443 §2.4 (c)");
        assert_eq!(rig.drops(0, "too_big"), count);
    }
    for silent in [
        ipv4(CORE, ue.addr, &[], 0x4000 | OFFSET, &[4; 2000]),
        ipv4(CORE, ue.addr, &[], 0, &[4; 2000]),
        ipv6(CORE6, ue.addr6, FRAGMENT, &[&fragment6(UDP, 1480)[..], &[5; 2000]].concat()),
    ] {
        rig.to_ue(0, &silent);
    }
    rig.until("counted", 6, |rig| rig.drops(0, "too_big"));
    assert!(rig.core_is_silent(0), "later fragments and what may be fragmented are not answered");
    assert!(peer.is_quiet());
    rig.to_ue(0, &udp(CORE, ue.addr, &[8; 1372]));
    assert!(ue.open(peer.receive()).ends_with(&[8; 1372]), "the MTU itself fits");
    assert_eq!(rig.all_drops(0), 6);
}

#[test]
fn r9329_3_frames_of_64_kb_of_every_kind() {
    let rig = Rig::new(1);
    let [(mut ue, mut peer), _other] = attached(&rig, false);
    // The longest inner packet a frame carries, straddling receive buffers, between small ones.
    let overhead = ue.outbound.frame_len(1000) - 1000;
    for round in 0..20u8 {
        let longest = udp(ue.addr, CORE, &vec![round; 65_532 - overhead - 28]);
        let frame = ue.frame(&longest);
        assert!(frame.len() > 65_500, "{}", frame.len());
        peer.send(&[ue.frame_to(CORE, &[round]), frame, ue.frame_to(CORE, &[round; 2])].concat());
        assert!(rig.core_receives(0).ends_with(&[round]));
        assert!(rig.core_receives(0) == longest, "round {round}");
        assert!(rig.core_receives(0).ends_with(&[round; 2]));
    }
    // As IKE it is one message; as ESP of nobody one drop; as anything else one too.
    peer.send(&ike_frame(&[0x42; 65_529]));
    assert!(rig.ike().1 == [0x42; 65_529]);
    peer.send(&[&[0xff, 0xff][..], &[0x5a; 65_533]].concat());
    peer.send(&[&[0xff, 0xff, 0xff][..], &[0; 65_532]].concat());
    peer.send(&ue.frame_to(CORE, b"in step"));
    assert!(rig.core_receives(0).ends_with(b"in step"));
    assert_eq!((rig.drops(0, "unknown_spi"), rig.all_drops(0)), (2, 2));
}

/// Octets of the shortest ESP packet of a suite, and the octets of which its ciphertext has a multiple.
const GCM_LEN_MIN: usize = 8 + 8 + 4 + 16;
const CBC_LEN_MIN: usize = 8 + 16 + 16 + 16;
const CBC_ALIGN: usize = 16;

/// Why `len` octets behind a known SPI that nobody sealed are dropped.
fn verdict_on_forgery(len: usize, cbc: bool) -> &'static str {
    let (len_min, align) = if cbc { (CBC_LEN_MIN, CBC_ALIGN) } else { (GCM_LEN_MIN, 1) };
    match len {
        // No room for an SPI and a sequence number.
        ..8 => "unparseable",
        len if len < len_min || (len - len_min) % align != 0 => "esp_too_short",
        _ => "bad_icv",
    }
}

#[test]
fn d6_forged_esp_of_every_length_is_counted_and_moves_nothing() {
    for cbc in [false, true] {
        let rig = Rig::new(1);
        let [(mut ue, mut peer), _other] = attached(&rig, cbc);
        let mut expected = BTreeMap::<&str, u64>::new();
        for len in (4..200).chain([1400, 16_376, 65_533]) {
            let mut frame = ((len + 2) as u16).to_be_bytes().to_vec();
            frame.extend(ue.spi_in.0.to_be_bytes());
            frame.extend(1000u32.to_be_bytes());
            frame.resize(2 + len, 0xff);
            let mut forger = Peer::connect(&rig, 0);
            forger.send(&frame);
            let reason = verdict_on_forgery(len, cbc);
            *expected.entry(reason).or_default() += 1;
            rig.until(&format!("{len} octets, {reason}"), expected[reason], |rig| rig.drops(0, reason));
            let forged = expected.get("bad_icv").copied().unwrap_or(0);
            rig.until("its connection alone", forged, |rig| rig.closes(0, "auth_failed"));
        }
        assert_eq!(rig.all_drops(0), expected.values().sum::<u64>());
        rig.to_ue(0, &udp(CORE, ue.addr, b"unmoved"));
        assert!(ue.open(peer.receive()).ends_with(b"unmoved"));
        peer.send(&ue.frame_to(CORE, b"unharmed"));
        assert!(rig.core_receives(0).ends_with(b"unharmed"));
    }
}

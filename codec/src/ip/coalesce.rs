//! Consecutive segments of one TCP or UDP flow become one super-packet: what a network card's receive offload
//! does, in front of a TUN device.
//!
//! [`Segment`] says whether a packet may be part of one, [`Run`] whether it continues the one at hand and, in
//! the end, which headers the whole gets. The payloads stay where they are: the caller writes the first packet
//! and then the payloads of the others. What the device cuts out of a super-packet is, octet by octet, what
//! came in: only packets whose checksums hold and whose headers follow from the first one's are joined. Of a long
//! one ([`Run::may_grow_to`]) all but PSH inside.

use super::checksum::Checksum;
use super::header::{Fragment, InnerHeader};
use super::protocol;
use super::virtio::{Gso, VirtioHeader};

/// Most segments of a super-packet (`UDP_MAX_SEGMENTS` of the kernels before 6.9), unless it may be a long one.
pub const SEGMENTS_MAX: usize = 64;

/// Most segments, and most octets, of a long super-packet ([`Run::may_grow_to`]).
pub const LONG_SEGMENTS_MAX: usize = 192;
/// See [`LONG_SEGMENTS_MAX`].
pub const LONG_OCTETS_MAX: usize = 256 << 10;

/// Longest super-packet: what IPv4's Total Length can say.
const SUPER_LEN_MAX: usize = u16::MAX as usize;

const V4_HEADER_LEN: usize = 20;
const V6_HEADER_LEN: usize = 40;
const UDP_HEADER_LEN: usize = 8;
const TCP_HEADER_LEN: usize = 20;
/// IPv6 and a TCP header with as many options as there may be.
const HEADER_LEN_MAX: usize = V6_HEADER_LEN + 60;
const TCP_CHECKSUM_AT: usize = 16;
const UDP_CHECKSUM_AT: usize = 6;
const TCP_FLAGS_AT: usize = 13;
const TCP_ACK: u8 = 0x10;
const TCP_PSH: u8 = 0x08;

/// A packet that may be part of a super-packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// TCP; otherwise UDP.
    tcp: bool,
    /// Octets of the IP header.
    ip_len: u8,
    /// Octets of IP and transport header.
    header_len: u8,
    payload_len: u16,
}

impl Segment {
    /// `packet` as a segment: TCP data with no flag but ACK and PSH, or UDP with a checksum, without IP
    /// options, extension headers and fragmentation. `inner` is its parsed header.
    pub fn of(packet: &[u8], inner: &InnerHeader) -> Option<Self> {
        let ip_len = if inner.version == 4 { V4_HEADER_LEN } else { V6_HEADER_LEN };
        if inner.transport_at != ip_len || inner.fragment != Fragment::No || packet.len() != inner.total_len {
            return None;
        }
        let transport = packet.get(ip_len..)?;
        let (tcp, transport_len) = match inner.proto {
            protocol::TCP => (true, tcp_data_header_len(transport)?),
            protocol::UDP => (false, udp_header_len(transport, transport.len())?),
            _ => return None,
        };
        let payload_len = transport.len().checked_sub(transport_len).filter(|&len| len > 0)?;
        Some(Self {
            tcp,
            ip_len: ip_len as u8,
            header_len: (ip_len + transport_len) as u8,
            payload_len: u16::try_from(payload_len).ok()?,
        })
    }

    /// Whether it is TCP; otherwise it is UDP.
    pub fn is_tcp(&self) -> bool {
        self.tcp
    }

    /// Octets of IP and transport header: where the payload starts.
    pub fn header_len(&self) -> usize {
        usize::from(self.header_len)
    }

    fn ip_len(&self) -> usize {
        usize::from(self.ip_len)
    }
}

/// Octets of a TCP header that carries data and nothing that must be seen alone.
fn tcp_data_header_len(transport: &[u8]) -> Option<usize> {
    let header: &[u8; TCP_HEADER_LEN] = transport.first_chunk()?;
    let len = usize::from(header[12] >> 4) * 4;
    let plain = header[12] & 0x0f == 0 && header[TCP_FLAGS_AT] & !TCP_PSH == TCP_ACK;
    (plain && len >= TCP_HEADER_LEN).then_some(len)
}

/// The same of a UDP datagram of `len` octets.
fn udp_header_len(transport: &[u8], len: usize) -> Option<usize> {
    let header: &[u8; UDP_HEADER_LEN] = transport.first_chunk()?;
    let summed = header[UDP_CHECKSUM_AT..] != [0, 0];
    (summed && usize::from(word(header, 4)) == len).then_some(UDP_HEADER_LEN)
}

/// The sum over the pseudo header of a transport of `len` octets behind `ip`.
fn pseudo_header(ip: &[u8], tcp: bool, len: usize) -> Checksum {
    let addresses = if ip.len() == V4_HEADER_LEN { &ip[12..] } else { &ip[8..] };
    let sum = Checksum::new().with(addresses).with_word(protocol_of(tcp).into());
    sum.with_word((len >> 16) as u16).with_word(len as u16)
}

fn protocol_of(tcp: bool) -> u8 {
    if tcp { protocol::TCP } else { protocol::UDP }
}

/// What became of a packet offered to a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Joined {
    /// It belongs to another flow.
    OtherFlow,
    /// It is of the same flow and does not continue the run: the run must leave first.
    No,
    /// It is part of the run, which may go on.
    Yes,
    /// It is part of the run and its last segment.
    Last,
}

/// Segments found to continue each other.
#[derive(Clone, Debug)]
pub struct Run {
    first: Segment,
    /// IP and transport header of the first packet as it came.
    header: [u8; HEADER_LEN_MAX],
    segments: u16,
    segments_max: u16,
    payload_len: u32,
    octets_max: u32,
    /// A segment asks the receiver to pass the data on: only the last may, unless the run is a long one.
    push: bool,
    /// The last segment was shorter, or asks for that: nothing may follow.
    over: bool,
}

impl Run {
    /// A run of one packet, which is `segment`; `None` when nothing may follow it: it asks to be passed on (PSH), or one
    /// of its checksums does not hold.
    pub fn new(packet: &[u8], segment: Segment) -> Option<Self> {
        let mut header = [0; HEADER_LEN_MAX];
        header.get_mut(..segment.header_len())?.copy_from_slice(packet.get(..segment.header_len())?);
        let payload_len = u32::from(segment.payload_len);
        let run = Self {
            first: segment,
            header,
            segments: 1,
            segments_max: SEGMENTS_MAX as u16,
            payload_len,
            octets_max: SUPER_LEN_MAX as u32,
            push: false,
            over: false,
        };
        let pushes = segment.tcp && run.pushes(&run.header);
        (!pushes && run.verifies(packet)).then_some(run)
    }

    /// Lets a run of TCP over IPv4 become a long one, of so many octets, at most [`LONG_OCTETS_MAX`], and up to
    /// [`LONG_SEGMENTS_MAX`] segments. What is longer than Total Length can say has 0 there, which Linux takes from 6.3
    /// on (BIG TCP).
    ///
    /// A sender with segmentation offload asks for each of its own super-packets to be passed on (PSH), which ends other
    /// runs. A long one goes on, and asks at its end: what follows the request is there already.
    pub fn may_grow_to(&mut self, octets: usize) {
        if octets > SUPER_LEN_MAX && self.first.tcp && self.is_v4() {
            self.segments_max = LONG_SEGMENTS_MAX as u16;
            self.octets_max = octets.min(LONG_OCTETS_MAX) as u32;
        }
    }

    fn is_long(&self) -> bool {
        self.octets_max as usize > SUPER_LEN_MAX
    }

    /// Segments so far.
    pub fn segments(&self) -> usize {
        usize::from(self.segments)
    }

    /// Octets of IP and transport header, the same in all of its packets.
    pub fn header_len(&self) -> usize {
        self.first.header_len()
    }

    /// Octets of the super-packet so far.
    pub fn octets(&self) -> usize {
        self.header_len() + self.payload_len as usize
    }

    /// Offers an IP packet. What it says of itself need not have been looked at: a packet that is not [`Joined::OtherFlow`]
    /// has the first one's addresses, protocol and ports, and one that joins differs from it in nothing but what
    /// cutting the super-packet would make different.
    pub fn join(&mut self, packet: &[u8]) -> Joined {
        // Addresses and ports first: a packet with a shorter header must not overtake those of its flow.
        if !packet.get(..self.first.ip_len() + 4).is_some_and(|front| self.is_same_flow(front)) {
            return Joined::OtherFlow;
        }
        let Some(header) = packet.get(..self.header_len()) else { return Joined::No };
        let payload_len = packet.len() - header.len();
        let fits = !self.over
            && (1..=usize::from(self.first.payload_len)).contains(&payload_len)
            && self.segments < self.segments_max
            && self.octets() + payload_len <= self.octets_max as usize;
        if !fits || !self.continues(header, packet.len()) || !self.verifies(packet) {
            return Joined::No;
        }
        self.segments += 1;
        self.payload_len += payload_len as u32;
        let pushes = self.first.tcp && self.pushes(header);
        self.push |= pushes;
        self.over = (pushes && !self.is_long()) || payload_len < usize::from(self.first.payload_len);
        if self.over { Joined::Last } else { Joined::Yes }
    }

    /// Whether version, protocol, addresses and, behind these, the ports are those of the first packet.
    fn is_same_flow(&self, front: &[u8]) -> bool {
        if self.is_v4() {
            front[0] >> 4 == 4 && same::<9, 10>(&self.header, front) && same::<12, 24>(&self.header, front)
        } else {
            front[0] >> 4 == 6 && same::<6, 7>(&self.header, front) && same::<8, 44>(&self.header, front)
        }
    }

    /// Whether all of the headers of a packet of `len` octets are what cutting the super-packet would make.
    fn continues(&self, header: &[u8], len: usize) -> bool {
        let first = &self.header;
        let ip_continues = if self.is_v4() {
            // Type of service, flags, time to live; the device numbers what may be fragmented upwards.
            let whole = first[6] & 0x40 != 0;
            same::<0, 2>(first, header)
                && same::<6, 10>(first, header)
                && usize::from(word(header, 2)) == len
                && (whole || word(header, 4) == word(first, 4).wrapping_add(self.segments))
        } else {
            same::<0, 4>(first, header)
                && same::<6, 8>(first, header)
                && usize::from(word(header, 4)) == len - V6_HEADER_LEN
        };
        let (first, transport) = (&first[self.first.ip_len()..], &header[self.first.ip_len()..]);
        ip_continues
            && match self.first.tcp {
                true => self.tcp_continues(first, transport),
                false => udp_header_len(transport, len - self.first.ip_len()).is_some(),
            }
    }

    fn tcp_continues(&self, first: &[u8], header: &[u8]) -> bool {
        let sequence = |header: &[u8]| u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        sequence(header) == sequence(first).wrapping_add(self.payload_len)
            && same::<8, 13>(first, header)
            && header[TCP_FLAGS_AT] & !TCP_PSH == TCP_ACK
            && same::<14, 16>(first, header)
            && same::<18, 20>(first, header)
            && (header.len() == TCP_HEADER_LEN
                || header[TCP_HEADER_LEN..] == first[TCP_HEADER_LEN..header.len()])
    }

    /// Whether IPv4's header checksum and the transport's checksum of a packet with headers like the first one's hold.
    fn verifies(&self, packet: &[u8]) -> bool {
        let ip_len = self.first.ip_len();
        let ip_holds = !self.is_v4() || Checksum::new().with(&packet[..V4_HEADER_LEN]).finish() == 0;
        // Addresses and transport lie side by side, so that one pass sums them.
        let addresses = if self.is_v4() { 12 } else { 8 };
        let sum = Checksum::new().with(&packet[addresses..]);
        let len = (packet.len() - ip_len) as u16;
        ip_holds && sum.with_word(protocol_of(self.first.tcp).into()).with_word(len).finish() == 0
    }

    fn is_v4(&self) -> bool {
        self.first.ip_len() == V4_HEADER_LEN
    }

    fn pushes(&self, header: &[u8]) -> bool {
        header.get(self.first.ip_len() + TCP_FLAGS_AT).is_some_and(|flags| flags & TCP_PSH != 0)
    }

    /// Turns the headers of the first packet, which starts at `head`, into those of the super-packet, and
    /// says how the device is to cut it. A run of one packet stays as it came.
    pub fn finish(&self, head: &mut [u8]) -> VirtioHeader {
        if self.segments == 1 {
            return VirtioHeader::default();
        }
        let (ip_len, header_len) = (self.first.ip_len(), self.header_len());
        let (ip, transport) = head[..header_len].split_at_mut(ip_len);
        let transport_len = self.octets() - ip_len;
        write_ip_len(ip, transport_len);
        let partial = pseudo_header(ip, self.first.tcp, transport_len).partial().to_be_bytes();
        let checksum_at = if self.first.tcp {
            transport[TCP_FLAGS_AT] |= if self.push { TCP_PSH } else { 0 };
            TCP_CHECKSUM_AT
        } else {
            transport[4..6].copy_from_slice(&(transport_len as u16).to_be_bytes());
            UDP_CHECKSUM_AT
        };
        transport[checksum_at..checksum_at + 2].copy_from_slice(&partial);
        VirtioHeader {
            flags: VirtioHeader::NEEDS_CSUM,
            gso: match (self.first.tcp, ip_len) {
                (true, V4_HEADER_LEN) => Gso::Tcp4,
                (true, _) => Gso::Tcp6,
                (false, _) => Gso::Udp,
            },
            gso_ecn: false,
            hdr_len: header_len as u16,
            gso_size: self.first.payload_len,
            csum_start: ip_len as u16,
            csum_offset: checksum_at as u16,
        }
    }
}

/// Whether octets `FROM..TO` of two headers are the same. Of constant length they are compared without a call.
fn same<const FROM: usize, const TO: usize>(one: &[u8], other: &[u8]) -> bool {
    matches!((one.get(FROM..TO), other.get(FROM..TO)), (Some(one), Some(other)) if one == other)
}

fn word(header: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}

/// Writes the length of what follows the IP header, and IPv4's checksum.
fn write_ip_len(ip: &mut [u8], transport_len: usize) {
    if ip.len() == V4_HEADER_LEN {
        let total_len = u16::try_from(V4_HEADER_LEN + transport_len).unwrap_or(0);
        ip[2..4].copy_from_slice(&total_len.to_be_bytes());
        ip[10..12].fill(0);
        let checksum = Checksum::new().with(ip).finish();
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        ip[4..6].copy_from_slice(&(transport_len as u16).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    struct Flow {
        version: u8,
        tcp: bool,
        options: usize,
    }

    const FLOWS: [Flow; 5] = [
        Flow { version: 4, tcp: true, options: 0 },
        Flow { version: 4, tcp: true, options: 12 },
        Flow { version: 6, tcp: true, options: 12 },
        Flow { version: 4, tcp: false, options: 0 },
        Flow { version: 6, tcp: false, options: 0 },
    ];

    /// Segment `index` of a flow whose segments have `len` octets, `this_len` in this one.
    fn packet(flow: Flow, index: u16, len: u16, this_len: u16, flags: u8) -> Vec<u8> {
        let payload: Vec<u8> = (0..this_len).map(|n| (n ^ index) as u8).collect();
        let mut transport = vec![0x1f, 0x90, 0x00, 0x50];
        if flow.tcp {
            transport.extend_from_slice(
                &(u32::MAX - 100).wrapping_add(u32::from(index) * u32::from(len)).to_be_bytes(),
            );
            transport.extend_from_slice(&[1, 2, 3, 4, ((20 + flow.options) / 4 * 16) as u8, flags]);
            transport.extend_from_slice(&[2, 0, 0, 0, 0, 0]);
            transport.extend_from_slice(&vec![1; flow.options]);
        } else {
            transport.extend_from_slice(&(8 + this_len).to_be_bytes());
            transport.extend_from_slice(&[0, 0]);
        }
        transport.extend_from_slice(&payload);
        let mut packet = vec![0; if flow.version == 4 { 20 } else { 40 }];
        let protocol = if flow.tcp { 6 } else { 17 };
        if flow.version == 4 {
            packet[0] = 0x45;
            packet[4..6].copy_from_slice(&(0xfffe_u16.wrapping_add(index)).to_be_bytes());
            packet[8..10].copy_from_slice(&[64, protocol]);
            packet[12..20].copy_from_slice(&[10, 64, 0, 9, 192, 0, 2, 1]);
        } else {
            packet[0] = 0x60;
            packet[6..8].copy_from_slice(&[protocol, 64]);
            packet[8..40].copy_from_slice(&[0xfd; 32]);
        }
        write_ip_len(&mut packet, transport.len());
        let at = if flow.tcp { TCP_CHECKSUM_AT } else { UDP_CHECKSUM_AT };
        let checksum = pseudo_header(&packet, flow.tcp, transport.len()).with(&transport).finish();
        transport[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        packet.extend_from_slice(&transport);
        packet
    }

    fn segment(packet: &[u8]) -> Option<Segment> {
        Segment::of(packet, &InnerHeader::parse(packet).expect("a sound header"))
    }

    fn run(head: &[u8]) -> Run {
        Run::new(head, segment(head).expect("a segment")).expect("a sound one")
    }

    #[test]
    fn consecutive_segments_become_one_packet() {
        for flow in FLOWS {
            let head = packet(flow, 0, 1000, 1000, TCP_ACK);
            let mut run = run(&head);
            for index in 1..5 {
                assert_eq!(run.join(&packet(flow, index, 1000, 1000, TCP_ACK)), Joined::Yes);
            }
            let last = packet(flow, 5, 1000, 400, TCP_ACK | TCP_PSH);
            assert_eq!(run.join(&last), Joined::Last, "{flow:?}");
            let behind = packet(flow, 6, 1000, 400, TCP_ACK);
            assert_eq!(run.join(&behind), Joined::No, "nothing follows the last");
            let mut whole = head.clone();
            let header = run.finish(&mut whole);
            assert_eq!((run.segments(), usize::from(header.gso_size)), (6, 1000));
            assert!(header.needs_csum() && header.gso != Gso::None);
            // The whole, its checksum completed as the device would, verifies.
            let head_len = usize::from(header.hdr_len);
            for index in 1..6 {
                let len = if index == 5 { 400 } else { 1000 };
                whole.extend_from_slice(&packet(flow, index, 1000, len, TCP_ACK)[head_len..]);
            }
            assert_eq!(whole.len(), run.octets());
            let at = usize::from(header.csum_start);
            let sum = Checksum::new().with(&whole[at..]).finish();
            let field = at + usize::from(header.csum_offset);
            whole[field..field + 2].copy_from_slice(&sum.to_be_bytes());
            let inner = InnerHeader::parse(&whole).expect("sound");
            assert_eq!(inner.total_len, whole.len());
            assert!(run.verifies(&whole), "{flow:?}");
            assert_eq!(whole[at + TCP_FLAGS_AT] & TCP_PSH != 0, flow.tcp);
        }
    }

    #[test]
    fn a_shorter_header_is_still_of_the_flow() {
        for (with_options, without) in [(FLOWS[1], FLOWS[0]), (FLOWS[2], Flow { options: 0, ..FLOWS[2] })] {
            let head = packet(with_options, 0, 100, 100, TCP_ACK);
            for len in [1, 11, 12, 13, 100] {
                let next = packet(without, 1, 100, len, TCP_ACK | TCP_PSH);
                assert_eq!(run(&head).join(&next), Joined::No, "{len} octets without options");
            }
        }
    }

    #[test]
    fn a_packet_alone_leaves_as_it_came() {
        let mut head = packet(FLOWS[0], 0, 1000, 1000, TCP_ACK);
        let before = head.clone();
        assert_eq!(run(&head).finish(&mut head), VirtioHeader::default());
        assert_eq!(head, before);
    }

    #[test]
    fn what_does_not_follow_is_not_joined() {
        let flow = FLOWS[1];
        let head = packet(flow, 0, 1000, 1000, TCP_ACK);
        let next = packet(flow, 1, 1000, 1000, TCP_ACK);
        // Octet by octet over both headers: each change makes another flow, or one that does not continue; the checksums are
        // corrected so that it is not they who refuse.
        for at in 0..52 {
            let mut changed = next.clone();
            changed[at] ^= 0x01;
            correct_checksums(flow, &mut changed);
            let summed = (10..12).contains(&at) || (36..38).contains(&at);
            assert_eq!(run(&head).join(&changed) == Joined::Yes, summed, "octet {at}");
        }
    }

    fn correct_checksums(flow: Flow, packet: &mut [u8]) {
        let ip_len = if flow.version == 4 { 20 } else { 40 };
        if flow.version == 4 {
            packet[10..12].fill(0);
            let sum = Checksum::new().with(&packet[..20]).finish().to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
        }
        let at = ip_len + if flow.tcp { TCP_CHECKSUM_AT } else { UDP_CHECKSUM_AT };
        packet[at..at + 2].fill(0);
        let (ip, transport) = packet.split_at(ip_len);
        let sum = pseudo_header(ip, flow.tcp, transport.len()).with(transport).finish().to_be_bytes();
        packet[at..at + 2].copy_from_slice(&sum);
    }

    #[test]
    fn broken_checksums_are_never_repaired() {
        for flow in FLOWS {
            let head = packet(flow, 0, 1000, 1000, TCP_ACK);
            let mut next = packet(flow, 1, 1000, 1000, TCP_ACK);
            *next.last_mut().expect("data") ^= 1;
            assert_eq!(run(&head).join(&next), Joined::No);
            let mut head = head;
            *head.last_mut().expect("data") ^= 1;
            let first = segment(&head).expect("a segment");
            assert!(Run::new(&head, first).is_none());
            if flow.version == 4 {
                let head = packet(flow, 0, 1000, 1000, TCP_ACK);
                let mut next = packet(flow, 1, 1000, 1000, TCP_ACK);
                next[10] ^= 1;
                assert_eq!(run(&head).join(&next), Joined::No, "IPv4's own checksum");
            }
        }
    }

    #[test]
    fn sizes_decide_where_a_run_ends() {
        let flow = FLOWS[3];
        let head = packet(flow, 0, 1000, 1000, 0);
        assert_eq!(run(&head).join(&packet(flow, 1, 1000, 1001, 0)), Joined::No);
        assert_eq!(run(&head).join(&packet(flow, 1, 1000, 999, 0)), Joined::Last);
        let mut long = run(&head);
        let taken =
            (1..100).take_while(|&index| long.join(&packet(flow, index, 1000, 1000, 0)) == Joined::Yes);
        assert_eq!(taken.count(), SEGMENTS_MAX - 1);
        let head = packet(flow, 0, 9000, 9000, 0);
        let mut jumbo = run(&head);
        let taken =
            (1..100).take_while(|&index| jumbo.join(&packet(flow, index, 9000, 9000, 0)) == Joined::Yes);
        assert_eq!(taken.count(), 6, "seven times 9,000 octets fit");
    }

    #[test]
    fn a_long_run_goes_beyond_what_its_header_can_say() {
        let (len, flow) = (1348, FLOWS[1]);
        let head = packet(flow, 0, len, len, TCP_ACK);
        let mut long = run(&head);
        long.may_grow_to(200_000);
        let mut whole = head.clone();
        let fitting = (200_000 - head.len()) / usize::from(len);
        for index in 1..=fitting as u16 {
            // Every 48th asks to be passed on, as a sender's own super-packets do.
            let next = packet(flow, index, len, len, TCP_ACK | if index % 48 == 0 { TCP_PSH } else { 0 });
            assert_eq!(long.join(&next), Joined::Yes, "segment {index}");
            whole.extend_from_slice(&next[long.header_len()..]);
        }
        let behind = packet(flow, fitting as u16 + 1, len, len, TCP_ACK);
        assert_eq!(long.join(&behind), Joined::No, "200,000 octets are full");
        let header = long.finish(&mut whole);
        assert_eq!((header.gso, header.gso_size, long.octets()), (Gso::Tcp4, len, whole.len()));
        assert_eq!(whole[2..4], [0, 0], "Total Length cannot say it");
        assert_eq!(Checksum::new().with(&whole[..V4_HEADER_LEN]).finish(), 0);
        assert_ne!(whole[V4_HEADER_LEN + TCP_FLAGS_AT] & TCP_PSH, 0, "its end asks to be passed on");
        // The kernel's way: the sum over the whole, addresses and the real length included, comes out as nothing.
        let at = usize::from(header.csum_start);
        let sum = Checksum::new().with(&whole[at..]).finish();
        whole[at + TCP_CHECKSUM_AT..at + TCP_CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
        let transport_len = whole.len() - at;
        let pseudo = pseudo_header(&whole[..V4_HEADER_LEN], true, transport_len);
        assert_eq!(pseudo.with(&whole[at..]).finish(), 0);
    }

    #[test]
    fn only_tcp_over_ipv4_becomes_long() {
        for flow in FLOWS {
            let head = packet(flow, 0, 1000, 1000, TCP_ACK);
            let mut long = run(&head);
            long.may_grow_to(usize::MAX);
            let taken = (1..300)
                .take_while(|&index| long.join(&packet(flow, index, 1000, 1000, TCP_ACK)) == Joined::Yes);
            let most = if flow.tcp && flow.version == 4 { LONG_SEGMENTS_MAX } else { SEGMENTS_MAX };
            assert_eq!(taken.count(), most - 1, "{flow:?}");
            assert!(long.octets() <= LONG_OCTETS_MAX);
        }
        let mut ordinary = run(&packet(FLOWS[0], 0, 1400, 1400, TCP_ACK));
        ordinary.may_grow_to(SUPER_LEN_MAX);
        let push = packet(FLOWS[0], 1, 1400, 1400, TCP_ACK | TCP_PSH);
        assert_eq!(ordinary.join(&push), Joined::Last, "65,535 octets are no long run");
    }

    #[test]
    fn what_must_be_seen_alone_is_no_segment() {
        let flow = FLOWS[0];
        for flags in [0x00, 0x02, 0x12, 0x11, 0x14, 0x30, 0x50, 0x90, 0x08] {
            assert_eq!(segment(&packet(flow, 0, 100, 100, flags)), None, "flags {flags:#04x}");
        }
        assert_eq!(segment(&packet(flow, 0, 100, 0, TCP_ACK)), None, "a bare acknowledgement");
        let mut fragment = packet(FLOWS[3], 0, 100, 100, 0);
        fragment[6] = 0x20;
        assert_eq!(segment(&fragment), None);
        let mut unsummed = packet(FLOWS[3], 0, 100, 100, 0);
        unsummed[26..28].fill(0);
        assert_eq!(segment(&unsummed), None);
        let mut contradicting = packet(FLOWS[3], 0, 100, 100, 0);
        contradicting[25] -= 1;
        assert_eq!(segment(&contradicting), None);
    }

    #[test]
    fn a_push_in_the_first_packet_ends_the_run_at_once() {
        let head = packet(FLOWS[0], 0, 100, 100, TCP_ACK | TCP_PSH);
        assert!(Run::new(&head, segment(&head).expect("a segment")).is_none());
        let head = packet(FLOWS[0], 0, 100, 100, TCP_ACK);
        assert!(Run::new(&head, segment(&head).expect("a segment")).is_some());
    }

    proptest! {
        #[test]
        fn arbitrary_packets_never_panic(
            mut octets in prop::collection::vec(any::<u8>(), 20..120),
            other in prop::collection::vec(any::<u8>(), 20..120),
            version in prop_oneof![Just(0x45u8), Just(0x60)],
            protocol in prop_oneof![Just(6u8), Just(17)],
        ) {
            octets[0] = version;
            let len = octets.len() as u16;
            if version == 0x45 {
                octets[2..4].copy_from_slice(&len.to_be_bytes());
                octets[6..8].fill(0);
                octets[9] = protocol;
            } else if octets.len() >= 40 {
                octets[4..6].copy_from_slice(&(len - 40).to_be_bytes());
                octets[6] = protocol;
            }
            if let Ok(inner) = InnerHeader::parse(&octets)
                && let Some(first) = Segment::of(&octets, &inner)
                && let Some(mut run) = Run::new(&octets, first)
            {
                run.join(&other);
                run.join(&octets);
                run.finish(&mut octets);
            }
        }

        /// A run takes packets whose headers nobody has parsed: what it takes must be what parsing would have let through.
        #[test]
        fn what_joins_is_a_segment_of_the_same_flow(
            flow in prop::sample::select(FLOWS.to_vec()),
            changes in prop::collection::vec((0..72_usize, any::<u8>()), 0..3),
            cut in prop_oneof![4 => Just(0), 1 => 0..200_usize],
        ) {
            let head = packet(flow, 0, 200, 200, TCP_ACK);
            let mut next = packet(flow, 1, 200, 200, TCP_ACK);
            for (at, octet) in changes {
                next[at] = octet;
            }
            next.truncate(next.len() - cut);
            let transport_len = if flow.tcp { TCP_HEADER_LEN } else { UDP_HEADER_LEN };
            if next.len() >= if flow.version == 4 { 20 } else { 40 } + transport_len {
                correct_checksums(flow, &mut next);
            }
            let first = InnerHeader::parse(&head).expect("a sound header");
            if matches!(run(&head).join(&next), Joined::Yes | Joined::Last) {
                let inner = InnerHeader::parse(&next).expect("what joins is sound");
                let names = |inner: &InnerHeader| (inner.src, inner.dst, inner.proto, inner.src_port, inner.dst_port);
                prop_assert_eq!(names(&inner), names(&first));
                prop_assert_eq!((inner.dscp, inner.fragment), (first.dscp, first.fragment));
                let (this, that) = (Segment::of(&next, &inner).expect("a segment"), segment(&head).expect("a segment"));
                prop_assert_eq!(this.header_len(), that.header_len());
            }
        }
    }
}

//! Joins the segments that one read from the connection brings into super-packets for the device.

use codec::ip::{InnerHeader, Joined, Run, Segment, VirtioHeader};

/// Flows that are joined at the same time; one more, and the oldest leaves.
const FLOWS_MAX: usize = 8;

/// Super-packets in the making.
pub(super) struct Joiner {
    /// The oldest first.
    open: Vec<Super>,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
}

/// A run of segments and its octets: virtio-net header, the first packet, the payloads of the others.
struct Super {
    run: Run,
    octets: Vec<u8>,
}

impl Super {
    fn leave(mut self, write: &mut impl FnMut(&[u8])) -> Vec<u8> {
        let header = self.run.finish(&mut self.octets[VirtioHeader::LEN..]);
        self.octets[..VirtioHeader::LEN].copy_from_slice(&header.encode());
        write(&self.octets);
        self.octets
    }
}

impl Joiner {
    pub(super) fn new() -> Self {
        Self { open: Vec::new(), spare: Vec::new() }
    }

    /// Takes one packet; calls `write` with whatever is complete, each behind its virtio-net header.
    ///
    /// Packets of one flow leave in the order they came. A packet that cannot be joined leaves behind all that is open.
    pub(super) fn push(&mut self, packet: &[u8], mut write: impl FnMut(&[u8])) {
        for at in 0..self.open.len() {
            let Super { run, octets } = &mut self.open[at];
            match run.join(packet) {
                Joined::OtherFlow => continue,
                Joined::No => self.leave(at, &mut write),
                Joined::Yes => return octets.extend_from_slice(&packet[run.header_len()..]),
                Joined::Last => {
                    octets.extend_from_slice(&packet[run.header_len()..]);
                    return self.leave(at, &mut write);
                }
            }
            break;
        }
        let segment = InnerHeader::parse(packet).ok().and_then(|inner| Segment::of(packet, &inner));
        let Some(segment) = segment else {
            self.flush(&mut write);
            return self.pass(packet, &mut write);
        };
        let Some(run) = Run::new(packet, segment) else { return self.pass(packet, &mut write) };
        if self.open.len() == FLOWS_MAX {
            self.leave(0, &mut write);
        }
        let mut octets = self.buffer();
        octets.extend_from_slice(packet);
        self.open.push(Super { run, octets });
    }

    /// Writes everything that is open.
    pub(super) fn flush(&mut self, mut write: impl FnMut(&[u8])) {
        for open in self.open.drain(..) {
            self.spare.push(open.leave(&mut write));
        }
    }

    /// Writes a packet as it is.
    fn pass(&mut self, packet: &[u8], write: &mut impl FnMut(&[u8])) {
        let mut octets = self.buffer();
        octets.extend_from_slice(packet);
        write(&octets);
        self.spare.push(octets);
    }

    fn leave(&mut self, at: usize, write: &mut impl FnMut(&[u8])) {
        let octets = self.open.remove(at).leave(write);
        self.spare.push(octets);
    }

    /// Returns a buffer with room for the virtio-net header in front.
    fn buffer(&mut self) -> Vec<u8> {
        let mut octets = self.spare.pop().unwrap_or_default();
        octets.clear();
        octets.extend_from_slice(&VirtioHeader::PLAIN);
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{MARK_NONE, PacketBuilder, Pattern, ProbeHeader, ProbeKind};
    use codec::ip::{Gso, Segmenter};

    /// Packet `seq` of the flow from `port`, `len` octets long.
    fn packet(port: u16, seq: u64, len: usize) -> Vec<u8> {
        let src = ([10, 0, 0, 1], port).into();
        let builder = PacketBuilder::new(src, "10.0.0.2:2".parse().unwrap()).unwrap();
        let header =
            ProbeHeader { kind: ProbeKind::Data, flags: 0, mark: MARK_NONE, ue: 0, run: 0, seq, sent_ns: 0 };
        let mut out = vec![0; len];
        builder.data(&header, &Pattern::new(), len, &mut out);
        out
    }

    /// Pushes all packets and flushes; returns what was written.
    fn join(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut joiner = Joiner::new();
        let mut written = Vec::new();
        for packet in packets {
            joiner.push(packet, |octets| written.push(octets.to_vec()));
        }
        joiner.flush(|octets| written.push(octets.to_vec()));
        written
    }

    /// Cuts what was written back into packets.
    fn cut(written: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for octets in written {
            let mut octets = octets.clone();
            let (virtio, whole) = VirtioHeader::split(&mut octets).unwrap();
            let inner = InnerHeader::parse(whole).unwrap();
            let mut segmenter = Segmenter::new(whole, &inner, &virtio, 1400).unwrap();
            while let Some(range) = segmenter.next(whole, false) {
                packets.push(whole[range].to_vec());
            }
        }
        packets
    }

    /// Everything but the IPv4 identification and what depends on it.
    fn contents(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        packets.iter().map(|packet| [&packet[..4], &packet[6..10], &packet[12..]].concat()).collect()
    }

    #[test]
    fn a_train_of_one_flow_is_one_write_and_comes_apart_unchanged() {
        let packets: Vec<_> = (0..20).map(|seq| packet(1, seq, if seq == 19 { 500 } else { 1400 })).collect();
        let written = join(&packets);
        assert_eq!(written.len(), 1);
        assert_eq!(VirtioHeader::split(&mut written[0].clone()).unwrap().0.gso, Gso::Udp);
        assert_eq!(contents(&cut(&written)), contents(&packets));
    }

    #[test]
    fn interleaved_flows_are_joined_each_for_itself() {
        let packets: Vec<_> = (0..24).map(|n| packet(1 + n % 4, u64::from(n / 4), 800)).collect();
        let written = join(&packets);
        assert_eq!(written.len(), 4);
        let mut sorted = packets.clone();
        sorted.sort_by_key(|packet| packet[21]);
        assert_eq!(contents(&cut(&written)), contents(&sorted));
    }

    #[test]
    fn more_flows_than_places_lose_nothing() {
        let packets: Vec<_> = (0..40).map(|n| packet(1 + n % 20, u64::from(n / 20), 300)).collect();
        assert_eq!(cut(&join(&packets)).len(), 40);
    }

    #[test]
    fn what_cannot_be_joined_stays_behind_what_came_before() {
        let mut icmp = packet(1, 9, 100);
        icmp[9] = 1;
        let packets = [packet(1, 0, 900), packet(1, 1, 900), icmp.clone(), packet(1, 2, 900)];
        let written = join(&packets);
        assert_eq!(written.len(), 3);
        assert_eq!(written[1][VirtioHeader::LEN..], icmp);
    }
}

//! ESP packets of one size on their way to the datagram leg together.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;

use crate::io::datagram::{self, RUN_LEN_MAX, SEGMENTS_MAX};

/// Packets that lie in one buffer: all of the size of the first but for the last, which may be shorter.
pub struct PacketRun {
    packets: Vec<Range<usize>>,
}

/// What became of a run.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Packets there were.
    pub packets: usize,
    /// Their octets.
    pub octets: usize,
    /// Packets the kernel did not take.
    pub lost: usize,
}

impl Default for PacketRun {
    fn default() -> Self {
        Self { packets: Vec::with_capacity(SEGMENTS_MAX) }
    }
}

impl PacketRun {
    /// Whether a packet of `len` octets may follow; otherwise the run is to be sent first.
    pub fn takes(&self, len: usize) -> bool {
        let (Some(first), Some(last)) = (self.packets.first(), self.packets.last()) else { return true };
        let segment = first.len();
        last.len() == segment
            && len <= segment
            && self.packets.len() < SEGMENTS_MAX
            && self.packets.len() * segment + len <= RUN_LEN_MAX
    }

    /// Adds the packet at `packet` of the buffer.
    pub fn push(&mut self, packet: Range<usize>) {
        self.packets.push(packet);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.packets.clear();
    }

    /// Sends the run from `buffer` to `to`, or where the socket is connected: in one call, or one by one where
    /// the kernel takes no run. That is so on a path whose MTU is smaller: there they are fragmented.
    pub fn send(&mut self, buffer: &[u8], socket: &UdpSocket, to: Option<SocketAddr>) -> Sent {
        let mut parts = [IoSlice::new(&[]); SEGMENTS_MAX];
        let mut sent = Sent::default();
        for (part, packet) in parts.iter_mut().zip(self.packets.drain(..)) {
            let packet = buffer.get(packet).unwrap_or_default();
            *part = IoSlice::new(packet);
            sent.packets += 1;
            sent.octets += packet.len();
        }
        let parts = &parts[..sent.packets];
        let segment = parts.first().and_then(|first| u16::try_from(first.len()).ok());
        if parts.len() > 1 && segment.is_some() && datagram::send(socket, parts, segment, to).is_ok() {
            return sent;
        }
        sent.lost = parts.iter().filter(|part| send_one(socket, &[**part], to).is_err()).count();
        sent
    }
}

/// Sends one datagram made of `parts`. A connected socket first reports what became of an earlier one: that
/// is not the fault of this one, which is tried again.
///
/// # Errors
/// Whatever the kernel answers.
pub fn send_one(socket: &UdpSocket, parts: &[IoSlice<'_>], to: Option<SocketAddr>) -> io::Result<()> {
    match datagram::send(socket, parts, None, to) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            datagram::send(socket, parts, None, to)
        }
        sent => sent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_of_one_size_and_its_last_packet_may_be_shorter() {
        let mut run = PacketRun::default();
        assert!(run.takes(60_000));
        run.push(0..1000);
        assert!(run.takes(1000) && run.takes(10) && !run.takes(1001));
        run.push(1000..1500);
        assert!(!run.takes(500), "nothing follows a shorter one");
        run.clear();
        (0..SEGMENTS_MAX).for_each(|n| run.push(n * 100..(n + 1) * 100));
        assert!(!run.takes(100));
        run.clear();
        run.push(0..40_000);
        assert!(!run.takes(30_000), "a run is no longer than a datagram may be");
    }

    #[test]
    fn packets_of_a_run_arrive_one_by_one_and_whole() {
        let far = datagram::open("127.0.0.1:0".parse().expect("address")).expect("open");
        let to = far.local_addr().expect("bound");
        let near = datagram::open("127.0.0.1:0".parse().expect("address")).expect("open");
        let octets: Vec<u8> = (0..100_u8).collect();
        let mut run = PacketRun::default();
        for packet in [0..40, 40..80, 90..100] {
            assert!(run.takes(packet.len()));
            run.push(packet);
        }
        assert_eq!(run.send(&octets, &near, Some(to)), Sent { packets: 3, octets: 90, lost: 0 });
        assert!(run.is_empty());
        let (mut buffer, mut found) = (vec![0; 65_536], Vec::new());
        while let Ok(run) = datagram::receive_run(&far, &mut buffer) {
            found.extend(buffer[..run.len].chunks(run.segment).map(<[u8]>::to_vec));
        }
        assert_eq!(found, [&octets[..40], &octets[40..80], &octets[90..]]);
    }
}

//! A little voice from random UEs while the fleet is held.

use crate::host::clock;
use crate::probe::{MARK_NONE, PacketBuilder, Pattern, ProbeHeader, ProbeKind};
use codec::Random;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

/// Octets of an inner packet: a voice frame and its headers.
const PACKET_LEN: usize = 160;
/// A documentation address (RFC 5737) and the discard port: nobody answers.
const FAR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
/// Most packets of a turn: what fell due during a stall is spread over the next turns.
const PER_TURN_MAX: u64 = 256;

/// Paces packets and chooses who sends them.
pub(super) struct Trickle {
    per_s: f64,
    begun_at: Instant,
    pub(super) sent: u64,
    pattern: Pattern,
    packet: [u8; PACKET_LEN],
}

impl Trickle {
    /// Starts to send `per_s` packets per second, all UEs together.
    pub(super) fn new(per_s: f64) -> Self {
        Self { per_s, begun_at: Instant::now(), sent: 0, pattern: Pattern::new(), packet: [0; PACKET_LEN] }
    }

    /// Returns how many packets are due now.
    pub(super) fn due(&self) -> u64 {
        let target = (self.begun_at.elapsed().as_secs_f64() * self.per_s) as u64;
        target.saturating_sub(self.sent).min(PER_TURN_MAX)
    }

    /// Writes the next packet of UE `ue` from its inner address.
    pub(super) fn packet(&mut self, ue: u32, inner: IpAddr) -> Option<&[u8]> {
        let builder = PacketBuilder::new(SocketAddr::new(inner, FAR.port()), FAR)?;
        let seq = self.sent;
        let header = ProbeHeader {
            kind: ProbeKind::Data,
            flags: 0,
            ue,
            run: 0,
            mark: MARK_NONE,
            seq,
            sent_ns: clock::monotonic_ns(),
        };
        builder.data(&header, &self.pattern, PACKET_LEN, &mut self.packet);
        Some(&self.packet)
    }
}

/// Draws a number below `bound`, which is not 0.
pub(super) fn draw_below(bound: u32, random: &mut dyn Random) -> u32 {
    let mut octets = [0; 4];
    random.fill(&mut octets);
    ((u64::from(u32::from_be_bytes(octets)) * u64::from(bound)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::parse_udp;

    #[test]
    fn packets_are_voice_sized_udp_of_the_ue() {
        let mut trickle = Trickle::new(1e9);
        assert!(trickle.due() <= PER_TURN_MAX);
        let packet = trickle.packet(7, Ipv4Addr::new(10, 64, 0, 9).into()).unwrap();
        assert_eq!((packet.len(), &packet[12..16]), (160, &[10, 64, 0, 9][..]));
        assert_eq!(parse_udp(packet).unwrap().dst_port, 9);
        assert!(trickle.packet(7, "fd00::1".parse().unwrap()).is_none());
    }

    #[test]
    fn numbers_stay_below_their_bound() {
        let mut random = codec::SeededRandom::new(3);
        let drawn: Vec<u32> = (0..200).map(|_| draw_below(3, &mut random)).collect();
        assert!((0..3).all(|number| drawn.contains(&number)) && drawn.iter().all(|number| *number < 3));
    }
}

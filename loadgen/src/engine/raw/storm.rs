//! A reattach storm: every UE loses its connection in the same moment and comes back.
//!
//! An access point, a NAT or a load balancer that restarts does this to its UEs. The IKE SAs stay (RFC 9329 §6.1), so
//! nothing is authenticated anew; a UE is back when an echo through its tunnel is answered.

use super::ue::Phase;
use super::{Failure, RawFleet};
use crate::report::Latencies;
use codec::ip::Checksum;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// How often a UE that is not back asks again.
const ECHO_EVERY: Duration = Duration::from_millis(500);
/// Longest time the UEs have to come back.
const STORM_MAX: Duration = Duration::from_secs(120);
/// Echo requests of one turn.
const PER_TURN_MAX: usize = 512;
/// Octets of an IPv4 header and of an echo request without data.
const IP_LEN: usize = 20;
const ECHO_LEN: usize = 8;
/// Protocol, and types, of ICMP.
const ICMP: u8 = 1;
const ECHO_REQUEST: u8 = 8;

/// What a storm saw.
#[derive(Clone)]
pub struct StormOutcome {
    /// UEs that lost their connection.
    pub ues: u64,
    /// Those that passed traffic again.
    pub back: u64,
    /// From the loss to the first answer through the tunnel.
    pub latencies: Latencies,
    /// Until 99 % were back; `None` when fewer came.
    pub most_s: Option<f64>,
}

impl RawFleet {
    /// Cuts all connections and waits until every UE has had an answer from `far` through its tunnel.
    ///
    /// # Errors
    /// [`Failure::Environment`] when the kernel refuses the rings.
    pub fn storm(&mut self, far: Ipv4Addr) -> Result<StormOutcome, Failure> {
        let attached: Vec<u32> = self.attached().collect();
        let total = attached.len() as u64;
        let wanted = (total * 99).div_ceil(100);
        let begun_at = Instant::now();
        self.common.tally.back = Latencies::new();
        self.reconnect_pause = Duration::ZERO;
        for index in &attached {
            self.ues[*index as usize].away_since = Some(begun_at);
            self.disconnect(*index, "storm");
        }
        let mut asking: VecDeque<(Instant, u32)> = attached.iter().map(|index| (begun_at, *index)).collect();
        let mut most_s = None;
        while self.common.tally.came_back < total && begun_at.elapsed() < STORM_MAX {
            self.ask(&mut asking, far);
            self.turn()?;
            if most_s.is_none() && self.common.tally.came_back >= wanted {
                most_s = Some(begun_at.elapsed().as_secs_f64());
            }
        }
        self.reconnect_pause = super::RECONNECT_PAUSE;
        let back = std::mem::take(&mut self.common.tally.came_back);
        let latencies = std::mem::take(&mut self.common.tally.back);
        Ok(StormOutcome { ues: total, back, latencies, most_s })
    }

    /// Sends an echo request for each UE whose turn it is and that is not back.
    fn ask(&mut self, asking: &mut VecDeque<(Instant, u32)>, far: Ipv4Addr) {
        let now = Instant::now();
        for _ in 0..PER_TURN_MAX {
            if asking.front().is_none_or(|(due, _)| *due > now) {
                return;
            }
            let Some((_, index)) = asking.pop_front() else { return };
            let ue = &self.ues[index as usize];
            if ue.away_since.is_none() || ue.phase != Phase::Attached {
                continue;
            }
            let again = if self.can_talk(index) && self.send_echo(index, far) {
                ECHO_EVERY
            } else {
                // Not connected yet, or busy with IKE.
                ECHO_EVERY / 10
            };
            asking.push_back((now + again, index));
        }
    }

    fn send_echo(&mut self, index: u32, far: Ipv4Addr) -> bool {
        let ue = &mut self.ues[index as usize];
        let Some(IpAddr::V4(inner)) = ue.inner() else { return false };
        let packet = echo_request(inner, far, index);
        let (ring, slot) = self.rings.place(index);
        let mut block = ring.block();
        let sealed = ue.seal(&packet, &mut block);
        if sealed {
            ue.link = super::Link::Up { greeted: true, sending: true };
            ring.send(slot, block);
        } else {
            ring.give_back(block);
        }
        sealed
    }
}

/// An ICMP echo request (RFC 792) in IPv4.
fn echo_request(from: Ipv4Addr, to: Ipv4Addr, number: u32) -> [u8; IP_LEN + ECHO_LEN] {
    let mut packet = [0; IP_LEN + ECHO_LEN];
    let (ip, icmp) = packet.split_at_mut(IP_LEN);
    ip[..10].copy_from_slice(&[0x45, 0, 0, (IP_LEN + ECHO_LEN) as u8, 0, 0, 0x40, 0, 64, ICMP]);
    ip[12..16].copy_from_slice(&from.octets());
    ip[16..20].copy_from_slice(&to.octets());
    let sum = Checksum::new().with(ip).finish().to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    icmp[0] = ECHO_REQUEST;
    icmp[4..8].copy_from_slice(&number.to_be_bytes());
    let sum = Checksum::new().with(icmp).finish().to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_has_checksums_that_add_up() {
        let packet = echo_request(Ipv4Addr::new(10, 64, 0, 2), Ipv4Addr::new(10, 77, 0, 1), 7);
        assert_eq!(Checksum::new().with(&packet[..IP_LEN]).finish(), 0);
        assert_eq!(Checksum::new().with(&packet[IP_LEN..]).finish(), 0);
        assert_eq!((packet[9], packet[IP_LEN]), (ICMP, ECHO_REQUEST));
    }
}

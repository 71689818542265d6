//! UDP of mixed sizes: 7 packets of 40, 4 of 576 and 1 of 1400 octets with their IP header, at a given rate.

use super::datagram::{self, Receiver};
use super::{Ends, Window};
use crate::host::clock::{monotonic_ns, sleep_until};
use crate::lab::results::{Imix, Summary};
use hdrhistogram::Histogram;
use nix::sys::prctl;
use std::io;
use std::net::UdpSocket;

/// Lengths of IP packets, spread evenly; the longest is the inner MTU.
const LENGTHS: [usize; 12] = [40, 576, 40, 40, 576, 40, 1400, 40, 576, 40, 576, 40];
/// IPv4 and UDP headers.
const HEADERS: usize = 28;
/// Least sleep of the sender: packets that fall due within it leave together.
const NAP_NS: u64 = 1_000_000;
/// A sender that is later than this gives up what it owes, so as not to send it all at once.
const LATE_NS: u64 = 100_000_000;
/// Longest delay told apart, in microseconds, and its decimal digits.
const DELAY_MAX_US: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// A stream that is about to begin.
#[derive(Debug)]
pub struct Stream {
    window: Window,
    bits_per_s: f64,
    sockets: [UdpSocket; 2],
}

/// Packets and octets.
#[derive(Clone, Copy, Default)]
struct Count {
    packets: u64,
    octets: u64,
}

impl Count {
    fn add(&mut self, octets: usize) {
        self.packets += 1;
        self.octets += octets as u64;
    }
}

impl Stream {
    /// Prepares a stream of `rate_mbit` from `ends.from` to `ends.to`.
    ///
    /// # Errors
    /// When sockets are refused, or the rate is none.
    pub fn open(ends: &Ends, window: Window, rate_mbit: f64) -> io::Result<Self> {
        if !(rate_mbit.is_finite() && rate_mbit > 0.0) {
            return Err(io::Error::other(format!("imix needs a rate above 0 Mbit/s, not {rate_mbit}")));
        }
        Ok(Self { window, bits_per_s: rate_mbit * 1e6, sockets: datagram::pair(ends, 0)? })
    }

    /// Sends until the end of the window. What came counts by when it came; loss and delay are those of the packets sent
    /// inside the window.
    ///
    /// # Errors
    /// Those of sockets other than of the path.
    pub fn run(self) -> io::Result<Imix> {
        let [from, to] = &self.sockets;
        let (sent, (came, delays)) = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| self.receive(to));
            let sent = self.send(from);
            let came = receiver.join().unwrap_or_else(|_| Err(io::Error::other("imix panicked")));
            came.map(|came| (sent, came))
        })?;
        let mbit = |octets: u64| octets as f64 * 8e-6 / self.window.length.as_secs_f64();
        let lost = sent.packets.saturating_sub(delays.len());
        Ok(Imix {
            sent_mbit: mbit(sent.octets),
            received_mbit: mbit(came.octets),
            lost_pct: lost as f64 * 100.0 / sent.packets.max(1) as f64,
            delay_ms: Summary::of_histogram(&delays, 1e-3),
        })
    }

    /// Sends paced packets and returns those inside the window.
    fn send(&self, socket: &UdpSocket) -> Count {
        let _ = prctl::set_timerslack(1);
        let mut packet = [0; 1400 - HEADERS];
        let (mut due_ns, mut inside) = (monotonic_ns(), Count::default());
        for len in LENGTHS.into_iter().cycle() {
            let mut now_ns = monotonic_ns();
            if due_ns > now_ns {
                sleep_until(due_ns.max(now_ns + NAP_NS));
                now_ns = monotonic_ns();
            }
            if now_ns >= self.window.end_ns() {
                break;
            }
            if now_ns.saturating_sub(due_ns) > LATE_NS {
                due_ns = now_ns;
            }
            packet[..8].copy_from_slice(&now_ns.to_be_bytes());
            datagram::send_now(socket, &packet[..len - HEADERS]);
            if self.window.contains(now_ns) {
                inside.add(len);
            }
            due_ns += (len as f64 * 8e9 / self.bits_per_s) as u64;
        }
        inside
    }

    /// Returns what came inside the window, and the delays of what was sent inside it.
    fn receive(&self, socket: &UdpSocket) -> io::Result<(Count, Histogram<u64>)> {
        let until_ns = self.window.drained_ns();
        // Not the delays themselves: at 1 Gbit/s there are millions of packets in a few seconds.
        let delays = Histogram::new_with_bounds(1, DELAY_MAX_US, DIGITS);
        let mut delays = delays.map_err(io::Error::other)?;
        let (mut came, mut receiver) = (Count::default(), Receiver::new(socket));
        while monotonic_ns() < until_ns {
            let Some((packet, at_ns)) = receiver.receive()? else { continue };
            let Some(stamp) = packet.first_chunk() else { continue };
            let sent_ns = u64::from_be_bytes(*stamp);
            if self.window.contains(at_ns) {
                came.add(packet.len() + HEADERS);
            }
            if self.window.contains(sent_ns) {
                delays.saturating_record((at_ns.saturating_sub(sent_ns) / 1000).max(1));
            }
        }
        Ok((came, delays))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_seven_to_four_to_one() {
        let count = |len| LENGTHS.iter().filter(|entry| **entry == len).count();
        assert_eq!((count(40), count(576), count(1400)), (7, 4, 1));
        assert!(LENGTHS.iter().all(|len| *len >= HEADERS + 8));
    }
}

//! One-way latency of single voice packets between two namespaces of one machine.
//!
//! A packet carries the time it was sent, read just before the system call; the kernel stamps it where it enters the
//! receiving namespace. So neither a late sender nor a late reader counts.

use crate::bed::Bed;
use loadgen::demo::topology::Namespace;
use loadgen::error::Failure;
use loadgen::host::affinity;
use loadgen::report::{Latencies, LatencySection};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SetSockOpt, recvmsg, setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};
use std::io::IoSliceMut;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Inner IP octets of a packet, and the UDP payload in it.
const PACKET_LEN: usize = 160;
const PAYLOAD_LEN: usize = PACKET_LEN - 28;
/// Pause between two packets: twenty calls of 50 packets per second.
const INTERVAL: Duration = Duration::from_millis(1);
/// What has not arrived so long after the last packet is lost.
const GRACE: Duration = Duration::from_millis(500);
/// DSCP EF (RFC 3246) in the former TOS octet.
const TOS_EF: i32 = 0xb8;

/// What the packets met.
#[derive(Clone, Debug)]
pub struct Probed {
    /// Percentiles; `None` when none arrived. Of each thousand packets one lies above the 99.9th: in 6 s, which is what
    /// `bench path --latency` probes for unless told otherwise, six.
    pub latency_us: Option<LatencySection>,
    /// Packets sent.
    pub sent: u64,
    /// Packets that never arrived.
    pub lost: u64,
}

/// Returns how many packets `seconds` of probing send.
fn count(seconds: f64) -> u32 {
    (seconds / INTERVAL.as_secs_f64()).round().max(1.0) as u32
}

/// Sends packets from `from` to `to`, an address in the other namespace, for `seconds`.
///
/// # Errors
/// [`Failure::Environment`] when a socket cannot be had.
pub fn probe(
    bed: &Bed,
    (sender, from): (&Namespace, SocketAddrV4),
    (receiver, to): (&Namespace, SocketAddrV4),
    seconds: f64,
) -> Result<Probed, Failure> {
    let io = |error: std::io::Error| Failure::Environment(format!("latency probe {from} to {to}: {error}"));
    let receiving = bed.on_load(receiver, || {
        let socket = UdpSocket::bind(to).map_err(io)?;
        set(&socket, sockopt::ReceiveTimestampns, &true)?;
        socket.set_read_timeout(Some(GRACE)).map_err(io)?;
        Ok(socket)
    })?;
    let sending = bed.on_load(sender, || {
        let socket = UdpSocket::bind(from).map_err(io)?;
        socket.connect(to).map_err(io)?;
        set(&socket, sockopt::Ipv4Tos, &TOS_EF)?;
        Ok(socket)
    })?;
    let core = bed.cores.load;
    let all_sent = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let all_sent = &all_sent;
        let receive = scope.spawn(move || {
            affinity::pin(core)?;
            Ok(receive(&receiving, all_sent))
        });
        let send = scope.spawn(move || {
            affinity::pin(core)?;
            send(&sending, seconds).map_err(io)
        });
        let panicked = || Failure::Check("a thread of the latency probe panicked".into());
        let sent = send.join();
        all_sent.store(true, Ordering::Relaxed);
        let sent = sent.map_err(|_| panicked())??;
        let latencies: Latencies = receive.join().map_err(|_| panicked())??;
        let summary = latencies.summary();
        Ok(Probed {
            latency_us: LatencySection::from_summary(&summary),
            sent,
            lost: sent.saturating_sub(summary.count),
        })
    })
}

fn set<O: SetSockOpt>(socket: &UdpSocket, option: O, value: &O::Val) -> Result<(), Failure> {
    setsockopt(socket, option, value).map_err(|error| Failure::Environment(format!("latency probe: {error}")))
}

fn realtime_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("Linux always has CLOCK_REALTIME");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

fn send(socket: &UdpSocket, seconds: f64) -> std::io::Result<u64> {
    let mut payload = [0; PAYLOAD_LEN];
    let begun_at = Instant::now();
    let count = count(seconds);
    for index in 0..count {
        std::thread::sleep((begun_at + INTERVAL * index).saturating_duration_since(Instant::now()));
        payload[..8].copy_from_slice(&realtime_ns().to_be_bytes());
        socket.send(&payload)?;
    }
    Ok(u64::from(count))
}

/// Takes packets until all are sent and none has come for the grace period.
fn receive(socket: &UdpSocket, all_sent: &AtomicBool) -> Latencies {
    let mut latencies = Latencies::new();
    let mut payload = [0; PAYLOAD_LEN];
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    loop {
        let mut parts = [IoSliceMut::new(&mut payload)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let message = match message {
            Ok(message) => message,
            Err(_) if all_sent.load(Ordering::Relaxed) => return latencies,
            Err(_) => continue,
        };
        let stamped = message.cmsgs().ok().and_then(|mut messages| {
            messages.find_map(|message| match message {
                ControlMessageOwned::ScmTimestampns(at) => {
                    Some(at.tv_sec() as u64 * 1_000_000_000 + at.tv_nsec() as u64)
                }
                _ => None,
            })
        });
        let sent_ns = payload.first_chunk().map(|octets| u64::from_be_bytes(*octets));
        if let (Some(stamped_ns), Some(sent_ns)) = (stamped, sent_ns) {
            latencies.record(stamped_ns.saturating_sub(sent_ns));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::latency::PROBE_S;

    #[test]
    fn five_bad_packets_do_not_make_the_highest_percentile() {
        let p999_ns = |bad: u32| {
            let mut latencies = Latencies::new();
            (bad..count(PROBE_S)).for_each(|_| latencies.record(10_000));
            (0..bad).for_each(|_| latencies.record(1_000_000));
            latencies.summary().p999
        };
        assert!(p999_ns(5) < 20_000);
        assert!(p999_ns(7) > 900_000, "but it still is that of one in a thousand");
    }
}

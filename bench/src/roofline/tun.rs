//! The inner device: super-packets and single packets, written until the kernel has forwarded them to the core
//! network, and read as the core network sends them.

use super::{Field, SEGMENTS};
use crate::machine::thread_cpu_s;
use crate::stage::{PACKET_LEN, super_packet};
use codec::ip::VirtioHeader;
use gateway::io::tun::{InnerDevice, TunQueue, open};
use loadgen::demo::topology;
use loadgen::error::Failure;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const DEVICE: &str = "roof0";
/// The UE's and the far end's inner address; the latter leads nowhere behind the core network.
const UE: Ipv4Addr = Ipv4Addr::new(10, 64, 255, 2);
const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// Octets of IPv4 and UDP headers.
const UDP_HEADERS_LEN: usize = 28;
/// Pause in which the device's queue fills again.
const PAUSE: Duration = Duration::from_micros(200);

/// Thread CPU nanoseconds per packet of 1400 octets.
pub struct Device {
    pub write_super: f64,
    pub write_single: f64,
    pub read_super: f64,
    pub read_single: f64,
}

/// Measures writing and reading.
pub fn measure(field: &Field<'_>) -> Result<Device, Failure> {
    let explain = |error: io::Error| Failure::Environment(format!("{DEVICE}: {error}"));
    let queue = field.on_gateway(|| {
        let mut queues = open(DEVICE, 1, true).map_err(explain)?;
        queues.pop().ok_or_else(|| Failure::Environment(format!("{DEVICE} has no queue")))
    })?;
    let (gateway, core) = (&field.topology.gateway, &field.topology.core);
    gateway.ip(&["link", "set", DEVICE, "mtu", "1400", "up"])?;
    gateway.ip(&["route", "add", &format!("{UE}/32"), "dev", DEVICE])?;
    gateway.ip(&["route", "add", &FAR.to_string(), "via", &topology::SINK.ip().to_string()])?;
    core.ip(&["route", "add", "blackhole", &FAR.to_string()])?;
    let write = |segments| field.on_gateway(|| write(&queue, segments, field).map_err(explain));
    let read = |segments| read_under_load(field, &queue, segments);
    Ok(Device {
        write_super: write(SEGMENTS)?,
        write_single: write(1)?,
        read_super: read(SEGMENTS)?,
        read_single: read(1)?,
    })
}

fn write(queue: &TunQueue, segments: usize, field: &Field<'_>) -> io::Result<f64> {
    let (header, packet) = super_packet(UE, FAR, segments, PACKET_LEN);
    let header = header.encode();
    let parts = [IoSlice::new(&header), IoSlice::new(&packet)];
    let (mut spent, mut packets) = (0.0, 0);
    let begun_at = Instant::now();
    while begun_at.elapsed() < field.span {
        let before = thread_cpu_s();
        for _ in 0..SEGMENTS {
            match queue.write(&parts) {
                Ok(()) => packets += segments,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        spent += thread_cpu_s() - before;
    }
    Ok(spent / packets.max(1) as f64 * 1e9)
}

/// Reads while the core network sends as fast as it can.
fn read_under_load(field: &Field<'_>, queue: &TunQueue, segments: usize) -> Result<f64, Failure> {
    let explain = |error: io::Error| Failure::Environment(format!("{DEVICE}: {error}"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            field.topology.core.enter(field.cores.load)?;
            flood(segments, &done).map_err(explain)
        });
        let result = field.on_gateway(|| read(queue, field).map_err(explain));
        done.store(true, Ordering::Relaxed);
        load.join().unwrap_or_else(|_| Err(Failure::Check("the sender of the device panicked".into())))?;
        result
    })
}

fn read(queue: &TunQueue, field: &Field<'_>) -> io::Result<f64> {
    let mut buffer = vec![0; VirtioHeader::LEN + 65_535];
    let (mut octets, cpu_before) = (0, thread_cpu_s());
    let begun_at = Instant::now();
    while begun_at.elapsed() < field.span {
        match queue.read(&mut buffer)? {
            Some(len) => octets += len - VirtioHeader::LEN,
            // Reading is what counts here, not waking up for every packet.
            None => std::thread::sleep(PAUSE),
        }
    }
    Ok((thread_cpu_s() - cpu_before) / (octets as f64 / PACKET_LEN as f64).max(1.0) * 1e9)
}

/// Sends UDP datagrams of full packets, `segments` of them per system call.
fn flood(segments: usize, done: &AtomicBool) -> io::Result<()> {
    let payload_len = PACKET_LEN - UDP_HEADERS_LEN;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    if segments > 1 {
        setsockopt(&socket, sockopt::UdpGsoSegment, &(payload_len as i32))?;
    }
    let octets = vec![0x33; payload_len * segments];
    while !done.load(Ordering::Relaxed) {
        // A full queue is no fault of the device.
        let _ = socket.send_to(&octets, SocketAddrV4::new(UE, 9));
    }
    Ok(())
}

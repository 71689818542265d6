//! The inner device: super-packets and single packets, written until the kernel has forwarded them to the core
//! network, and read as the core network sends them.

use super::{Field, SEGMENTS};
use crate::machine::thread_cpu_s;
use crate::stage::{PACKET_LEN, udp_super_packet};
use codec::ip::VirtioHeader;
use gateway::io::tun::{InnerDevice, TunQueue, open};
use loadgen::demo::topology;
use loadgen::error::Failure;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const DEVICE: &str = "roof0";
/// The UE's inner address.
const UE: Ipv4Addr = Ipv4Addr::new(10, 64, 255, 2);
/// Octets of writes in a row: as much as several connections bring in a turn.
const TURN_LEN: usize = 1 << 20;
/// Longest wait for the far end, and its receive buffer.
const PATIENCE: Duration = Duration::from_millis(10);
const RECEIVE_BUFFER_LEN: usize = 32 << 20;
/// Octets of IPv4 and UDP headers.
const UDP_HEADERS_LEN: usize = 28;
/// Pause in which the device's queue fills again, or the far end has received.
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
        let mut queues = open(DEVICE, 1, Some(65_535)).map_err(explain)?;
        queues.pop().ok_or_else(|| Failure::Environment(format!("{DEVICE} has no queue")))
    })?;
    let gateway = &field.topology.gateway;
    gateway.ip(&["link", "set", DEVICE, "mtu", "1400", "up"])?;
    gateway.ip(&["route", "add", &format!("{UE}/32"), "dev", DEVICE])?;
    let write = |segments| write(field, &queue, segments);
    let read = |segments| read_under_load(field, &queue, segments);
    Ok(Device {
        write_super: write(SEGMENTS)?,
        write_single: write(1)?,
        read_super: read(SEGMENTS)?,
        read_single: read(1)?,
    })
}

/// Writes packets that stand for `segments` each, no faster than the far end receives them: what it drops gives its memory
/// back at once, warm, as on no path.
fn write(field: &Field<'_>, queue: &TunQueue, segments: usize) -> Result<f64, Failure> {
    let explain = |error: io::Error| Failure::Environment(format!("{DEVICE}: {error}"));
    let (done, received) = (AtomicBool::new(false), AtomicUsize::new(0));
    let socket = field.topology.core.inside(|| far_end().map_err(explain))?;
    let to = socket.local_addr().map_err(explain)?;
    std::thread::scope(|scope| {
        let far_end = scope.spawn(|| {
            field.topology.core.enter(field.cores.load)?;
            receive(&socket, &received, &done).map_err(explain)
        });
        let (header, packet) = udp_super_packet(UE, *topology::SINK.ip(), to.port(), segments, PACKET_LEN);
        let result = field.on_gateway(|| {
            write_paced(queue, field.span, (&header.encode(), &packet), &received).map_err(explain)
        });
        done.store(true, Ordering::Relaxed);
        far_end
            .join()
            .unwrap_or_else(|_| Err(Failure::Check("the far end of the device panicked".into())))?;
        Ok(result? / segments as f64 * 1e9)
    })
}

/// Returns thread CPU seconds per write.
fn write_paced(
    queue: &TunQueue,
    span: Duration,
    (header, packet): (&[u8], &[u8]),
    received: &AtomicUsize,
) -> io::Result<f64> {
    let parts = [IoSlice::new(header), IoSlice::new(packet)];
    let writes = TURN_LEN / packet.len();
    let (mut spent, mut written, mut lost) = (0.0, 0, 0);
    let begun_at = Instant::now();
    while begun_at.elapsed() < span {
        // One turn stays under way. What has not come for so long never will.
        let due = (written - written.min(writes)) * packet.len();
        let missing = || due.saturating_sub(received.load(Ordering::Relaxed) + lost);
        let patience = Instant::now() + PATIENCE;
        while missing() > 0 && Instant::now() < patience {
            std::thread::sleep(PAUSE);
        }
        lost += missing();
        let before = thread_cpu_s();
        for _ in 0..writes {
            match queue.write(&parts) {
                Ok(()) => written += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        spent += thread_cpu_s() - before;
    }
    Ok(spent / written.max(1) as f64)
}

/// The far end's socket, which takes in trains of datagrams.
fn far_end() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((*topology::SINK.ip(), 0))?;
    setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_LEN)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Receives until `done`; `received` counts the octets, with one pair of headers to a train.
fn receive(socket: &UdpSocket, received: &AtomicUsize, done: &AtomicBool) -> io::Result<()> {
    let mut train = vec![0; 65_535];
    while !done.load(Ordering::Relaxed) {
        match socket.recv(&mut train) {
            Ok(len) => {
                received.fetch_add(len + UDP_HEADERS_LEN, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
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

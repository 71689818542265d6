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
pub const UE: Ipv4Addr = Ipv4Addr::new(10, 64, 255, 2);
/// Octets of writes in a row: as much as several connections bring in a turn.
const TURN_LEN: usize = 1 << 20;
/// Longest wait for the far end, and its receive buffer.
const PATIENCE: Duration = Duration::from_millis(10);
const RECEIVE_BUFFER_LEN: usize = 32 << 20;
/// Octets of IPv4 and UDP headers.
const UDP_HEADERS_LEN: usize = 28;
/// Pause in which the device's queue fills again, or the far end has received.
pub const PAUSE: Duration = Duration::from_micros(200);

/// Thread CPU nanoseconds per packet of 1400 octets.
pub struct Device {
    pub write_super: f64,
    pub write_single: f64,
    pub read_super: f64,
    pub read_single: f64,
}

/// Makes the device; it goes with the queue.
pub fn make(field: &Field<'_>) -> Result<TunQueue, Failure> {
    let queue = field.on_gateway(|| {
        let mut queues = open(DEVICE, 1, Some(65_535)).map_err(explain)?;
        queues.pop().ok_or_else(|| Failure::Environment(format!("{DEVICE} has no queue")))
    })?;
    let gateway = &field.topology.gateway;
    gateway.ip(&["link", "set", DEVICE, "mtu", "1400", "up"])?;
    gateway.ip(&["route", "add", &format!("{UE}/32"), "dev", DEVICE])?;
    Ok(queue)
}

/// Takes away what the run before left in the device's queue.
pub fn empty(queue: &TunQueue) -> Result<(), Failure> {
    let mut buffer = vec![0; VirtioHeader::LEN + 65_535];
    while queue.read(&mut buffer).map_err(explain)?.is_some() {}
    Ok(())
}

/// Measures writing and reading.
pub fn measure(field: &Field<'_>, queue: &TunQueue) -> Result<Device, Failure> {
    let write = |segments| write(field, queue, segments);
    let read = |segments| read_under_load(field, queue, segments);
    Ok(Device {
        write_super: write(SEGMENTS)?,
        write_single: write(1)?,
        read_super: read(SEGMENTS)?,
        read_single: read(1)?,
    })
}

/// Octets on their way to somebody who says what has come.
pub struct UnderWay<'a> {
    sent: usize,
    arrived: &'a AtomicUsize,
}

impl<'a> UnderWay<'a> {
    /// Nothing is under way yet.
    pub fn new(arrived: &'a AtomicUsize) -> Self {
        Self { sent: 0, arrived }
    }

    /// Notes that `octets` have left.
    pub fn add(&mut self, octets: usize) {
        self.sent += octets;
    }

    /// Whether there is more than a turn's worth.
    pub fn is_much(&self) -> bool {
        self.sent.saturating_sub(self.arrived.load(Ordering::Relaxed)) > TURN_LEN
    }

    /// Waits until there is no more than a turn's worth, or what there is will never come.
    pub fn settle(&mut self) {
        let patience = Instant::now() + PATIENCE;
        while self.is_much() {
            if Instant::now() >= patience {
                self.sent = self.arrived.load(Ordering::Relaxed);
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Runs `work` while the far end receives what comes to its socket, whose port `work` is given.
pub fn with_far_end<R>(
    field: &Field<'_>,
    work: impl FnOnce(u16, UnderWay<'_>) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let (done, received) = (AtomicBool::new(false), AtomicUsize::new(0));
    let socket = field.topology.core.inside(|| far_end().map_err(explain))?;
    let port = socket.local_addr().map_err(explain)?.port();
    std::thread::scope(|scope| {
        let far_end = scope.spawn(|| {
            field.topology.core.enter(field.cores.load)?;
            receive(&socket, &received, &done).map_err(explain)
        });
        let result = work(port, UnderWay::new(&received));
        done.store(true, Ordering::Relaxed);
        far_end
            .join()
            .unwrap_or_else(|_| Err(Failure::Check("the far end of the device panicked".into())))?;
        result
    })
}

/// Evenly spaced times; a thread that was kept from them for long does not make up for it.
pub struct Ticks {
    next_at: Instant,
    every: Duration,
}

impl Ticks {
    /// `rate` per second; without one nothing waits.
    pub fn new(rate: Option<f64>) -> Self {
        let every = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
        Self { next_at: Instant::now(), every }
    }

    /// Waits for the next.
    pub fn wait(&mut self) {
        if self.every.is_zero() {
            return;
        }
        let now = Instant::now();
        self.next_at = (self.next_at + self.every).max(now.checked_sub(PATIENCE).unwrap_or(now));
        while Instant::now() < self.next_at {
            std::thread::yield_now();
        }
    }
}

/// Packets that the core network sends.
#[derive(Clone, Copy)]
pub struct Packets {
    /// Octets of each.
    pub len: usize,
    /// How many to a super-packet.
    pub segments: usize,
    /// How many super-packets per second; as many as go without.
    pub rate: Option<f64>,
}

/// Runs `work` while the core network sends `packets`, as far ahead of what `work` says it has taken as on
/// the path: what the device's queue has no room for would cost the gateway's core its interrupt, and be nobody's packet.
pub fn with_sender<R>(
    field: &Field<'_>,
    packets: Packets,
    work: impl FnOnce(&AtomicUsize) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let (done, taken) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            field.topology.core.enter(field.cores.load)?;
            send_ahead(packets, UnderWay::new(&taken), &done).map_err(explain)
        });
        let result = work(&taken);
        done.store(true, Ordering::Relaxed);
        load.join().unwrap_or_else(|_| Err(Failure::Check("the sender of the device panicked".into())))?;
        result
    })
}

/// Writes packets that stand for `segments` each, no faster than the far end receives them: what it drops gives its memory
/// back at once, warm, as on no path.
fn write(field: &Field<'_>, queue: &TunQueue, segments: usize) -> Result<f64, Failure> {
    with_far_end(field, |port, under_way| {
        let (header, packet) = udp_super_packet(UE, *topology::SINK.ip(), port, segments, PACKET_LEN);
        let cost = field.on_gateway(|| {
            write_paced(queue, field.span, (&header.encode(), &packet), under_way).map_err(explain)
        })?;
        Ok(cost / segments as f64 * 1e9)
    })
}

/// Returns thread CPU seconds per write.
fn write_paced(
    queue: &TunQueue,
    span: Duration,
    (header, packet): (&[u8], &[u8]),
    mut under_way: UnderWay<'_>,
) -> io::Result<f64> {
    let parts = [IoSlice::new(header), IoSlice::new(packet)];
    let (mut spent, mut written) = (0.0, 0);
    let begun_at = Instant::now();
    while begun_at.elapsed() < span {
        under_way.settle();
        let before = thread_cpu_s();
        for _ in 0..TURN_LEN / packet.len() {
            match queue.write(&parts) {
                Ok(()) => {
                    written += 1;
                    under_way.add(packet.len());
                }
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

/// Reads what the core network sends.
fn read_under_load(field: &Field<'_>, queue: &TunQueue, segments: usize) -> Result<f64, Failure> {
    let packets = Packets { len: PACKET_LEN, segments, rate: None };
    with_sender(field, packets, |taken| field.on_gateway(|| read(queue, field, taken).map_err(explain)))
}

fn read(queue: &TunQueue, field: &Field<'_>, taken: &AtomicUsize) -> io::Result<f64> {
    let mut buffer = vec![0; VirtioHeader::LEN + 65_535];
    let (mut octets, cpu_before) = (0, thread_cpu_s());
    let begun_at = Instant::now();
    while begun_at.elapsed() < field.span {
        match queue.read(&mut buffer)? {
            Some(len) => {
                octets += len - VirtioHeader::LEN;
                taken.store(octets, Ordering::Relaxed);
            }
            // Reading is what counts here, not waking up for every packet.
            None => std::thread::sleep(PAUSE),
        }
    }
    Ok((thread_cpu_s() - cpu_before) / (octets as f64 / PACKET_LEN as f64).max(1.0) * 1e9)
}

/// Sends `packets` as UDP, a super-packet per system call, and no more than a turn's worth ahead.
fn send_ahead(packets: Packets, mut under_way: UnderWay<'_>, done: &AtomicBool) -> io::Result<()> {
    let payload_len = packets.len - UDP_HEADERS_LEN;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    if packets.segments > 1 {
        setsockopt(&socket, sockopt::UdpGsoSegment, &(payload_len as i32))?;
    }
    let octets = vec![0x33; payload_len * packets.segments];
    let mut ticks = Ticks::new(packets.rate);
    while !done.load(Ordering::Relaxed) {
        under_way.settle();
        while !under_way.is_much() && !done.load(Ordering::Relaxed) {
            ticks.wait();
            // A full queue is no fault of the device.
            if socket.send_to(&octets, SocketAddrV4::new(UE, 9)).is_ok() {
                under_way.add(octets.len() + UDP_HEADERS_LEN);
            }
        }
    }
    Ok(())
}

fn explain(error: io::Error) -> Failure {
    Failure::Environment(format!("{DEVICE}: {error}"))
}

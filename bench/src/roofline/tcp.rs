//! Plain TCP between the load's core and the gateway's: the kernel's copy, and what it does around it.

use super::Field;
use crate::bed::congestion;
use crate::machine::thread_cpu_s;
use gateway::io::block::BlockPool;
use gateway::io::ring::{Completion, Received, Ring, RingParams, SUBMISSIONS, Sleep, ZeroCopyUsage};
use gateway::io::wake::Wake;
use loadgen::demo::topology;
use loadgen::error::Failure;
use nix::sys::socket::{setsockopt, sockopt};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// Octets of blocks in flight, as many as a worker has by default.
pub const SEND_MEMORY: usize = 256 << 20;
/// Octets of one read or write at the load's end, and of one write at the gateway's.
pub const CHUNK_LEN: usize = 256 << 10;
/// Octets of receive buffers, as many as a worker has.
const RECEIVE_MEMORY: usize = 8 << 20;
/// Connections side by side where the size of a send is what matters.
const STREAMS: usize = 16;

/// Returns thread CPU seconds per octet received on `streams` connections, by the ring that the gateway's workers use.
pub fn sink(field: &Field<'_>, streams: usize) -> Result<f64, Failure> {
    let span = field.span;
    let send = move |mut stream: TcpStream| {
        let chunk = vec![0x5a; CHUNK_LEN];
        let begun_at = Instant::now();
        while begun_at.elapsed() < span {
            stream.write_all(&chunk)?;
        }
        Ok(())
    };
    transfer(field, streams, |listener| receive_on_ring(listener, streams, |_, _| Ok(0.0)), send)
}

/// Returns thread CPU seconds per octet sent on `streams` connections.
pub fn source(field: &Field<'_>, streams: usize) -> Result<f64, Failure> {
    let span = field.span;
    let send = |listener: TcpListener| {
        let accepted: io::Result<Vec<_>> = listener.incoming().take(streams).collect();
        let (mut accepted, chunk) = (accepted?, vec![0x5a; CHUNK_LEN]);
        let (begun_at, cpu_before) = (Instant::now(), thread_cpu_s());
        let mut total = 0;
        while begun_at.elapsed() < span {
            for stream in &mut accepted {
                stream.write_all(&chunk)?;
                total += chunk.len();
            }
        }
        Ok((total, thread_cpu_s() - cpu_before))
    };
    transfer(field, streams, send, drain)
}

/// Thread CPU seconds per octet that the ring of the gateway's workers sends in blocks of `octets`, copied or not, and the
/// share of the sends that were to be without a copy and that the kernel copied after all.
pub fn ring_source(field: &Field<'_>, octets: usize, zero_copy: bool) -> Result<(f64, Option<f64>), Failure> {
    let span = field.span;
    let copied = std::sync::Mutex::new(None);
    let send = |listener: TcpListener, streams: usize| {
        let (total, cpu_s, usage) = send_on_ring(listener, streams, span, octets, zero_copy)?;
        let share = (usage.sends > 0).then(|| usage.copied as f64 / usage.sends as f64);
        *copied.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = share;
        Ok((total, cpu_s))
    };
    let cost = transfer(field, STREAMS, |listener| send(listener, STREAMS), drain)?;
    Ok((cost, copied.into_inner().unwrap_or_default()))
}

/// The ring of the gateway's workers for `connections`, without an inner device: the other end of the pair that stands for it,
/// which comes with it, never speaks.
pub fn ring(
    connections: usize,
    listener: Option<TcpListener>,
    zero_copy: Option<usize>,
) -> io::Result<(Ring, UnixDatagram)> {
    let (device, silent) = UnixDatagram::pair()?;
    let ring = Ring::new(RingParams {
        submissions: SUBMISSIONS,
        connections: connections as u32,
        receive_memory: RECEIVE_MEMORY,
        listeners: Vec::from_iter(listener),
        datagrams: Vec::new(),
        datagram_memory: 0,
        devices: vec![device.into()],
        wake: Wake::new()?,
        zero_copy,
    })?;
    Ok((ring, silent))
}

/// Reads to the end.
pub fn drain(mut stream: TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_LEN];
    while stream.read(&mut chunk)? > 0 {}
    Ok(())
}

/// Reads many streams to their end, as an engine of UEs does.
pub fn drain_on_ring(streams: Vec<TcpStream>) -> io::Result<()> {
    let (mut ring, _silent) = ring(streams.len(), None, None)?;
    let mut open = 0;
    for stream in streams {
        ring.open(open, 1, stream.into())?;
        ring.arm_receive(open);
        open += 1;
    }
    while open > 0 {
        ring.wait(Sleep::AtMost(Duration::from_secs(1)))?;
        while let Some(completion) = ring.complete() {
            if let Completion::Received { slot, outcome, armed } = completion {
                match outcome {
                    Received::Octets(octets) => ring.release(octets),
                    Received::Starved => {}
                    Received::End | Received::Failed => {
                        open -= 1;
                        continue;
                    }
                }
                if !armed {
                    ring.arm_receive(slot);
                }
            }
        }
    }
    Ok(())
}

fn send_on_ring(
    listener: TcpListener,
    streams: usize,
    span: Duration,
    octets: usize,
    zero_copy: bool,
) -> io::Result<(usize, f64, ZeroCopyUsage)> {
    let (mut ring, _silent) = ring(streams, None, zero_copy.then_some(octets))?;
    let mut pool = BlockPool::new(SEND_MEMORY);
    let mut idle: Vec<u32> = Vec::new();
    for (slot, stream) in (0..).zip(listener.incoming().take(streams)) {
        ring.open(slot, 1, stream?.into())?;
        idle.push(slot);
    }
    let (begun_at, cpu_before, mut total) = (Instant::now(), thread_cpu_s(), 0);
    while begun_at.elapsed() < span {
        while let Some(slot) = idle.pop() {
            let Some(mut block) = pool.take(octets, octets) else {
                idle.push(slot);
                break;
            };
            block.commit(octets);
            ring.send(slot, block, false);
        }
        ring.wait(Sleep::AtMost(Duration::from_millis(10)))?;
        while let Some(completion) = ring.complete() {
            match completion {
                Completion::Sent { slot, sent, block, .. } => {
                    total += sent.octets;
                    idle.push(slot);
                    block.into_iter().for_each(|block| pool.give_back(block));
                }
                Completion::BlockFree { block } => pool.give_back(block),
                _ => {}
            }
        }
    }
    Ok((total, thread_cpu_s() - cpu_before, ring.zero_copy_usage()))
}

/// Gives `socket` the congestion control that the path has.
fn same_congestion_control(socket: &impl AsFd) -> io::Result<()> {
    congestion().map_or(Ok(()), |name| Ok(setsockopt(socket, sockopt::TcpCongestion, &OsString::from(name))?))
}

/// Runs both ends of `streams` connections, the load's each in a thread of its own; `gateway` returns octets and CPU seconds.
/// Returns CPU seconds per octet.
pub fn transfer(
    field: &Field<'_>,
    streams: usize,
    gateway: impl FnOnce(TcpListener) -> io::Result<(usize, f64)> + Send,
    load: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + Copy,
) -> Result<f64, Failure> {
    transfer_by_one(field, streams, gateway, |connected| {
        std::thread::scope(|scope| {
            let ends: Vec<_> =
                connected.into_iter().map(|stream| scope.spawn(move || load(stream))).collect();
            ends.into_iter().try_for_each(|end| end.join().unwrap_or_else(|_| Err(panicked())))
        })
    })
}

/// Does what [`transfer`] does, with one thread for all connections of the load.
pub fn transfer_by_one(
    field: &Field<'_>,
    streams: usize,
    gateway: impl FnOnce(TcpListener) -> io::Result<(usize, f64)> + Send,
    load: impl FnOnce(Vec<TcpStream>) -> io::Result<()> + Send,
) -> Result<f64, Failure> {
    let explain = |error: io::Error| Failure::Environment(format!("plain TCP: {error}"));
    // A port of the kernel's choice: the one of the run before may still be held.
    let listener = field.on_gateway(|| TcpListener::bind((*topology::PLAIN.ip(), 0)).map_err(explain))?;
    let address = listener.local_addr().map_err(explain)?;
    // Accepted connections have it from here.
    same_congestion_control(&listener).map_err(explain)?;
    let connect = || {
        let connected = TcpStream::connect(address)?;
        same_congestion_control(&connected)?;
        Ok(connected)
    };
    std::thread::scope(|scope| {
        let end = scope.spawn(move || {
            field.topology.ue.enter(field.cores.load)?;
            let connected: io::Result<Vec<TcpStream>> = (0..streams).map(|_| connect()).collect();
            connected.and_then(load).map_err(explain)
        });
        let (octets, cpu_s) = field.on_gateway(|| gateway(listener).map_err(explain))?;
        end.join().unwrap_or_else(|_| Err(explain(panicked())))?;
        Ok(cpu_s / octets.max(1) as f64)
    })
}

fn panicked() -> io::Error {
    io::Error::other("the load's end panicked")
}

/// Receives on `streams` connections to their end; `take` has what each brings, and returns CPU seconds that do not count.
/// Returns octets and CPU seconds since all connections are there.
pub fn receive_on_ring(
    listener: TcpListener,
    streams: usize,
    mut take: impl FnMut(u32, &mut [u8]) -> io::Result<f64>,
) -> io::Result<(usize, f64)> {
    let (mut ring, _silent) = ring(streams, Some(listener), None)?;
    let (mut total, mut cpu_before, mut beside_s) = (0, thread_cpu_s(), 0.0);
    let (mut opened, mut ended) = (0, 0);
    while ended < streams {
        ring.wait(Sleep::AtMost(Duration::from_secs(1)))?;
        while let Some(completion) = ring.complete() {
            match completion {
                Completion::Accepted { socket, .. } => {
                    ring.open(opened, 1, socket)?;
                    ring.arm_receive(opened);
                    opened += 1;
                    if opened as usize == streams {
                        (total, cpu_before, beside_s) = (0, thread_cpu_s(), 0.0);
                    }
                }
                Completion::Received { slot, outcome: Received::Octets(octets), armed } => {
                    total += octets.len();
                    beside_s += take(slot, ring.bytes_mut(&octets))?;
                    ring.release(octets);
                    if !armed {
                        ring.arm_receive(slot);
                    }
                }
                Completion::Received { slot, outcome: Received::Starved, .. } => ring.arm_receive(slot),
                Completion::Received { .. } => ended += 1,
                _ => {}
            }
        }
    }
    Ok((total, thread_cpu_s() - cpu_before - beside_s))
}

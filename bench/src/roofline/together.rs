//! The stages in one loop, and nothing else: what is left of their limit once they share caches, interrupts and the core's
//! turns. Of voice, where every packet comes by itself on another connection, there is the loop alone.
//!
//! The loop knows neither UEs nor selectors, queues or timers. It takes frames of one length where it expects them, opens
//! and sums them and writes their payload in super-packets; it cuts what it reads from the device, seals it and sends it on
//! whichever connection is free.

use super::tun::{self, PAUSE, Packets, Ticks, UE, UnderWay};
use super::{Field, SEGMENTS, crypto, tcp};
use crate::bed::GCM;
use crate::machine::thread_cpu_s;
use crate::stage::{PACKET_LEN, VOICE_LEN, udp_super_packet};
use codec::esp::{InboundSa, OutboundSa};
use codec::ip::{Checksum, InnerHeader, Segmenter, VirtioHeader};
use gateway::io::block::{Block, BlockPool};
use gateway::io::ring::{Completion, Sleep};
use gateway::io::tun::{InnerDevice, TunQueue};
use loadgen::demo::topology;
use loadgen::error::Failure;
use std::collections::VecDeque;
use std::hint::black_box;
use std::io::{self, IoSlice, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Octets of Length, of the ESP header and of the IV before the packet in a frame.
const FRAME_HEAD_LEN: usize = 2 + 8 + 8;
/// Octets of IPv4 and UDP headers.
const HEADERS_LEN: usize = 28;
/// Longest wait for a connection that takes another block.
const SEND_PATIENCE: Duration = Duration::from_millis(10);

/// What is sent, and how much of it at a time.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Octets of an inner packet.
    packet_len: usize,
    /// Most packets of a super-packet.
    segments: usize,
    /// Octets of a send block, and packets of the device that go into one.
    block_len: usize,
    reads_per_block: usize,
    connections: usize,
    /// Packets per second; as many as go without.
    rate: Option<f64>,
}

impl Shape {
    /// Bulk: full packets, and as many to a connection at once as the path's core network sends a UE.
    pub fn bulk(connections: usize) -> Self {
        let (packet_len, segments, rate) = (PACKET_LEN, SEGMENTS, None);
        Self { packet_len, segments, block_len: 256 << 10, reads_per_block: 3, connections, rate }
    }

    /// Calls: a packet of each connection at a time.
    pub fn voice(connections: usize, rate: f64) -> Self {
        let (packet_len, segments, rate) = (VOICE_LEN, 1, Some(rate));
        Self { packet_len, segments, block_len: 4 << 10, reads_per_block: 1, connections, rate }
    }

    fn frame_len(&self) -> usize {
        crypto::frame_len(GCM, self.packet_len)
    }

    /// A packet that stands for `segments`, to `port` of the far end.
    fn packet(&self, port: u16, segments: usize) -> (VirtioHeader, Vec<u8>) {
        udp_super_packet(UE, *topology::SINK.ip(), port, segments, self.packet_len)
    }
}

/// Returns thread CPU nanoseconds per packet from the connections to the device.
pub fn up(field: &Field<'_>, device: &TunQueue, shape: Shape) -> Result<f64, Failure> {
    let span = field.span;
    tun::with_far_end(field, |port, under_way| {
        let uplink = Uplink::new(device, shape, port, under_way);
        let run = |listener| uplink.run(listener);
        let cost = match shape.rate {
            None => tcp::transfer(field, shape.connections, run, move |stream| {
                send_sealed(vec![stream], tcp::CHUNK_LEN, shape, span, port)
            }),
            Some(_) => tcp::transfer_by_one(field, shape.connections, run, |streams| {
                send_sealed(streams, shape.frame_len(), shape, span, port)
            }),
        };
        Ok(cost? * shape.frame_len() as f64 * 1e9)
    })
}

/// Returns thread CPU nanoseconds per packet from the device to the connections.
pub fn down(field: &Field<'_>, device: &TunQueue, shape: Shape) -> Result<f64, Failure> {
    tun::empty(device)?;
    let packets = Packets { len: shape.packet_len, segments: shape.segments, rate: shape.rate };
    tun::with_sender(field, packets, |taken| {
        let downlink = Downlink {
            device,
            shape,
            taken,
            read: 0,
            outbound: (0..shape.connections).map(|_| crypto::pair(GCM).0).collect(),
            packet: vec![0; VirtioHeader::LEN + 65_535],
        };
        let gateway = |listener| downlink.run(listener, field.span);
        let cost = match shape.rate {
            None => tcp::transfer(field, shape.connections, gateway, tcp::drain),
            Some(_) => tcp::transfer_by_one(field, shape.connections, gateway, tcp::drain_on_ring),
        };
        Ok(cost? * shape.frame_len() as f64 * 1e9)
    })
}

/// Sends frames of packets to `port` of the far end, sealed one by one, about `octets` of them on each stream in turn.
fn send_sealed(
    mut streams: Vec<TcpStream>,
    octets: usize,
    shape: Shape,
    span: Duration,
    port: u16,
) -> io::Result<()> {
    let (_, packet) = shape.packet(port, 1);
    let frame_len = shape.frame_len();
    let mut outbound: Vec<OutboundSa> = streams.iter().map(|_| crypto::pair(GCM).0).collect();
    let mut frames = vec![0; octets / frame_len * frame_len];
    for stream in &streams {
        stream.set_nodelay(true)?;
    }
    let mut ticks = Ticks::new(shape.rate);
    let begun_at = Instant::now();
    while begun_at.elapsed() < span {
        for (stream, outbound) in streams.iter_mut().zip(&mut outbound) {
            for frame in frames.chunks_exact_mut(frame_len) {
                ticks.wait();
                outbound.seal_frame(&packet, frame).map_err(refused)?;
            }
            stream.write_all(&frames)?;
        }
    }
    Ok(())
}

struct Uplink<'a> {
    device: &'a TunQueue,
    shape: Shape,
    under_way: UnderWay<'a>,
    /// Headers of super-packets of one packet, of two, and so on.
    heads: Vec<([u8; VirtioHeader::LEN], [u8; HEADERS_LEN])>,
    frame_len: usize,
    connections: Vec<(InboundSa, Vec<u8>)>,
}

impl<'a> Uplink<'a> {
    fn new(device: &'a TunQueue, shape: Shape, port: u16, under_way: UnderWay<'a>) -> Self {
        let head = |segments| {
            let (header, packet) = shape.packet(port, segments);
            let mut headers = [0; HEADERS_LEN];
            headers.copy_from_slice(&packet[..HEADERS_LEN]);
            (header.encode(), headers)
        };
        Self {
            device,
            shape,
            under_way,
            heads: (1..=shape.segments).map(head).collect(),
            frame_len: shape.frame_len(),
            connections: (0..shape.connections).map(|_| (crypto::pair(GCM).1, Vec::new())).collect(),
        }
    }

    /// Returns octets of frames and CPU seconds.
    fn run(mut self, listener: TcpListener) -> io::Result<(usize, f64)> {
        tcp::receive_on_ring(listener, self.connections.len(), |slot, octets| {
            self.take(slot, octets)?;
            if !self.under_way.is_much() {
                return Ok(0.0);
            }
            let before = thread_cpu_s();
            self.under_way.settle();
            Ok(thread_cpu_s() - before)
        })
    }

    /// What a connection brought. A frame that came in two parts is opened and summed, but not written: for the few there
    /// are, the loop is the faster for it.
    fn take(&mut self, slot: u32, octets: &mut [u8]) -> io::Result<()> {
        let (inbound, carry) = &mut self.connections[slot as usize];
        let mut rest = octets;
        if !carry.is_empty() {
            let missing = (self.frame_len - carry.len()).min(rest.len());
            let (end, behind) = rest.split_at_mut(missing);
            carry.extend_from_slice(end);
            rest = behind;
            if carry.len() < self.frame_len {
                return Ok(());
            }
            open(inbound, carry, self.shape.packet_len)?;
            carry.clear();
        }
        let whole = rest.len() / self.frame_len * self.frame_len;
        let (frames, begun) = rest.split_at_mut(whole);
        carry.extend_from_slice(begun);
        for frame in frames.chunks_exact_mut(self.frame_len) {
            open(inbound, frame, self.shape.packet_len)?;
        }
        self.write(frames)
    }

    /// Writes the opened `frames` as super-packets.
    fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        let packet_len = self.shape.packet_len;
        for run in frames.chunks(self.frame_len * self.shape.segments) {
            let segments = run.len() / self.frame_len;
            let (header, headers) = &self.heads[segments - 1];
            let mut parts = [IoSlice::new(&[]); SEGMENTS + 2];
            (parts[0], parts[1]) = (IoSlice::new(header), IoSlice::new(headers));
            for (part, frame) in parts[2..].iter_mut().zip(run.chunks_exact(self.frame_len)) {
                *part = IoSlice::new(&frame[FRAME_HEAD_LEN + HEADERS_LEN..FRAME_HEAD_LEN + packet_len]);
            }
            match self.device.write(&parts[..segments + 2]) {
                Ok(()) => self.under_way.add(HEADERS_LEN + segments * (packet_len - HEADERS_LEN)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn open(inbound: &mut InboundSa, frame: &mut [u8], packet_len: usize) -> io::Result<()> {
    inbound.open(&mut frame[2..]).map_err(refused)?;
    black_box(Checksum::new().with(&frame[FRAME_HEAD_LEN..FRAME_HEAD_LEN + packet_len]).partial());
    Ok(())
}

fn refused(what: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("{what:?}"))
}

struct Downlink<'a> {
    device: &'a TunQueue,
    shape: Shape,
    taken: &'a AtomicUsize,
    /// Octets read so far.
    read: usize,
    outbound: Vec<OutboundSa>,
    packet: Vec<u8>,
}

impl Downlink<'_> {
    /// Returns octets of frames and CPU seconds.
    fn run(mut self, listener: TcpListener, span: Duration) -> io::Result<(usize, f64)> {
        let connections = self.outbound.len();
        let (mut ring, _silent) = tcp::ring(connections, None, None)?;
        let mut pool = BlockPool::new(tcp::SEND_MEMORY);
        let mut idle = VecDeque::new();
        for (slot, stream) in (0..).zip(listener.incoming().take(connections)) {
            ring.open(slot, 1, stream?.into())?;
            idle.push_back(slot);
        }
        let (begun_at, cpu_before, mut total) = (Instant::now(), thread_cpu_s(), 0);
        while begun_at.elapsed() < span {
            while let Some(&slot) = idle.front()
                && let Some(mut block) = pool.take(self.shape.block_len, self.shape.block_len)
            {
                self.fill(slot, &mut block)?;
                if block.bytes().is_empty() {
                    pool.give_back(block);
                    break;
                }
                idle.pop_front();
                ring.send(slot, block, false);
            }
            // Without a connection that is free it is a send that ends; else the device has nothing.
            ring.wait(Sleep::AtMost(if idle.is_empty() { SEND_PATIENCE } else { PAUSE }))?;
            while let Some(completion) = ring.complete() {
                if let Completion::Sent { slot, sent, block, .. } = completion {
                    total += sent.octets;
                    idle.push_back(slot);
                    block.into_iter().for_each(|block| pool.give_back(block));
                }
            }
        }
        Ok((total, thread_cpu_s() - cpu_before))
    }

    /// Reads some super-packets and seals their packets into `block` for connection `slot`.
    fn fill(&mut self, slot: u32, block: &mut Block) -> io::Result<()> {
        let outbound = &mut self.outbound[slot as usize];
        for _ in 0..self.shape.reads_per_block {
            let Some(len) = self.device.read(&mut self.packet)? else { break };
            self.read += len - VirtioHeader::LEN;
            self.taken.store(self.read, Ordering::Relaxed);
            let (header, packet) = VirtioHeader::split(&mut self.packet[..len])
                .ok_or_else(|| refused("a packet without a header"))?;
            let inner = InnerHeader::parse(packet).map_err(refused)?;
            let mut segmenter =
                Segmenter::new(packet, &inner, &header, PACKET_LEN as u16).map_err(refused)?;
            while let Some(range) = segmenter.next(packet, false) {
                let len = outbound.seal_frame(&packet[range], block.room()).map_err(refused)?;
                block.commit(len);
            }
        }
        Ok(())
    }
}

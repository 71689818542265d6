//! The way to the inner devices: packets of one turn, coalesced into super-packets where they continue each
//! other.
//!
//! Packets stay where they were decrypted until the turn ends; a super-packet leaves as one vectored write of
//! its first packet, behind the virtio-net header in the room the ESP header left, and of the payloads of
//! the others. Packets of one flow leave in the order they came.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::ops::Range;

use codec::esp::EspSpi;
use codec::ip::{Joined, LONG_SEGMENTS_MAX, Run, SEGMENTS_MAX, Segment, VirtioHeader};

use super::counters::{DropReason, WorkerCounters};
use super::uplink::Inner;
use crate::io::recv_pool::Incoming;
use crate::io::ring::Ring;
use crate::io::tun::{InnerDevice, Offloads};
use crate::types::{NetworkId, SessionId};

/// Runs open at once; beyond it the oldest leaves.
const RUNS_MAX: usize = 16;

/// Octets held until the end of the turn; beyond it they leave earlier, while they are still in the cache.
const HELD_MAX: usize = 512 << 10;

/// Largest buffer kept for straddling frames; what a jumbo frame needed goes back to the allocator.
const SPARE_LEN_MAX: usize = 4096;

/// Buffers kept for straddling frames.
const SPARE_MAX: usize = 1024;

/// Where a frame or a packet lies among what the turn holds.
#[derive(Clone, Debug)]
pub(super) struct Place {
    buffer: Buffer,
    range: Range<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Buffer {
    /// A run of received octets.
    Lent(usize),
    /// A frame that straddled two of them, or came with a connection from another worker.
    Owned(usize),
}

impl Place {
    /// A part of this place; `range` counts from its start.
    pub fn part(&self, range: Range<usize>) -> Self {
        let (start, end) = (self.range.start + range.start, self.range.start + range.end);
        Self { buffer: self.buffer, range: start..end.min(self.range.end).max(start) }
    }

    fn len(&self) -> usize {
        self.range.len()
    }
}

/// What a turn holds: received octets and carried frames, and the packets in them that have not left.
pub(super) struct Outlet {
    /// By network, each with what it may be given.
    devices: Vec<(Box<dyn InnerDevice>, Offloads)>,
    lent: Vec<Incoming>,
    owned: Vec<Vec<u8>>,
    /// Octets of `lent` and `owned`.
    held: usize,
    runs: Vec<OpenRun>,
    /// Part lists to be used again.
    lists: Vec<Vec<Place>>,
    /// Buffers of carried frames, to be used again.
    spare: Vec<Vec<u8>>,
}

/// A run that may go on.
struct OpenRun {
    run: Run,
    /// Under which its first packet came, and whose that is.
    spi: EspSpi,
    session: SessionId,
    /// Addresses of one network mean others in another: runs never cross.
    network: NetworkId,
    src: IpAddr,
    /// The first packet whole, with room for a virtio-net header in front of it; the payloads of the others.
    parts: Vec<Place>,
    octets: usize,
}

impl OpenRun {
    /// Adds a packet that has joined the run.
    fn add(&mut self, place: &Place) {
        self.parts.push(place.part(self.run.header_len()..place.len()));
        self.octets += place.len();
    }
}

impl Outlet {
    pub fn new(devices: Vec<Box<dyn InnerDevice>>) -> Self {
        let with_offloads = |device: Box<dyn InnerDevice>| {
            let offloads = device.offloads();
            (device, offloads)
        };
        Self {
            devices: devices.into_iter().map(with_offloads).collect(),
            lent: Vec::new(),
            owned: Vec::new(),
            held: 0,
            runs: Vec::with_capacity(RUNS_MAX),
            lists: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Reads a packet of a network's device; `None` when there is none.
    pub fn read(&self, network: NetworkId, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.devices.get(network.index()) {
            Some((device, _)) => device.read(buffer),
            None => Ok(None),
        }
    }

    /// Keeps received octets until the end of the turn.
    pub fn hold(&mut self, incoming: Incoming) -> Place {
        let place = Place { buffer: Buffer::Lent(self.lent.len()), range: 0..incoming.len() };
        self.held += incoming.len();
        self.lent.push(incoming);
        place
    }

    /// Keeps a frame until the end of the turn.
    pub fn hold_owned(&mut self, octets: Vec<u8>) -> Place {
        let place = Place { buffer: Buffer::Owned(self.owned.len()), range: 0..octets.len() };
        self.held += octets.len();
        self.owned.push(octets);
        place
    }

    /// The octets at a place.
    pub fn octets<'a>(&'a mut self, ring: &'a mut Ring, place: &Place) -> &'a mut [u8] {
        let octets = match place.buffer {
            Buffer::Lent(index) => self.lent.get(index).map(|incoming| ring.bytes_mut(incoming)),
            Buffer::Owned(index) => self.owned.get_mut(index).map(Vec::as_mut_slice),
        };
        octets.and_then(|octets| octets.get_mut(place.range.clone())).unwrap_or_default()
    }

    /// The octets at all of `places`, which are whole frames and do not overlap.
    pub fn frames<'a, const N: usize>(
        &'a mut self,
        ring: &'a mut Ring,
        places: impl Iterator<Item = &'a Place> + Clone,
    ) -> [&'a mut [u8]; N] {
        let mut slices: [&mut [u8]; N] = std::array::from_fn(|_| Default::default());
        let lent = &self.lent;
        let parts = places.clone().enumerate().filter_map(|(at, place)| match place.buffer {
            Buffer::Lent(index) => Some((at, lent.get(index)?, place.range.clone())),
            Buffer::Owned(_) => None,
        });
        ring.parts_mut(parts, &mut slices);
        // A frame that straddled two inputs is held behind the octets that ended it, and comes before what follows in them:
        // so buffers are gone through in their own order.
        let (mut order, mut count) = ([(0, 0, 0, 0); N], 0);
        for (at, place) in places.enumerate().take(N) {
            if let Buffer::Owned(index) = place.buffer {
                order[count] = (index, place.range.start, place.range.end, at);
                count += 1;
            }
        }
        order[..count].sort_unstable();
        let mut owned = self.owned.iter_mut().enumerate();
        // The buffer that the last frame was in, what of it comes behind that, and where this starts.
        let (mut current, mut rest, mut start) = (None, Default::default(), 0);
        for &(index, frame_start, frame_end, at) in &order[..count] {
            if current != Some(index) {
                let found = owned.find(|(other, _)| *other == index);
                rest = found.map(|(_, octets)| octets.as_mut_slice()).unwrap_or_default();
                (current, start) = (Some(index), 0);
            }
            let behind = std::mem::take(&mut rest);
            let tail = behind.get_mut(frame_start.saturating_sub(start)..);
            if let Some((frame, behind)) =
                tail.and_then(|tail| tail.split_at_mut_checked(frame_end - frame_start))
            {
                slices[at] = frame;
                (rest, start) = (behind, frame_end);
            }
        }
        slices
    }

    fn bytes<'a>(&'a self, ring: &'a Ring, place: &Place) -> &'a [u8] {
        bytes(&self.lent, &self.owned, ring, place)
    }

    /// The octets at a place in received ones, borrowed from the ring alone; `None` in a frame that was carried.
    pub fn received<'a>(&self, ring: &'a mut Ring, place: &Place) -> Option<&'a mut [u8]> {
        let Buffer::Lent(index) = place.buffer else { return None };
        ring.bytes_mut(self.lent.get(index)?).get_mut(place.range.clone())
    }

    /// Under which SPI the packets of the newest run came, and of which session that is.
    pub fn newest(&self) -> Option<(EspSpi, SessionId)> {
        self.runs.last().map(|open| (open.spi, open.session))
    }

    /// Adds a packet of [`Outlet::newest`] to that run; `false` when it does not continue it.
    ///
    /// It is then of the flow of a packet that was let through, and needs no look of its own: it has the same addresses,
    /// ports and protocol, and no flags that anybody acts on ([`Run::join`]).
    pub fn extend(&mut self, packet: &[u8], place: &Place) -> bool {
        let Some(open) = self.runs.last_mut() else { return false };
        let joined = matches!(open.run.join(packet), Joined::Yes | Joined::Last);
        if joined {
            open.add(place);
        }
        joined
    }

    /// Takes a packet for its network's device. In front of it there is room for a virtio-net header.
    pub fn push(&mut self, ring: &mut Ring, counters: &WorkerCounters, inner: Inner) {
        let Inner { network, ref place, ref header, .. } = inner;
        let segment = Segment::of(self.bytes(ring, place), header);
        let offloads = self.devices.get(network.index()).map(|(_, offloads)| *offloads).unwrap_or_default();
        let offered = |segment: &Segment| match segment.is_tcp() {
            true => offloads.tcp,
            false => offloads.udp,
        };
        let Some(segment) = segment.filter(offered) else {
            // It may belong to a flow that has an open run; which of the UE's is not worth knowing.
            self.write_runs_of(ring, counters, network, header.src);
            return self.write_alone(ring, counters, network, place);
        };
        // The newest run first: packets of a flow come one behind the other.
        for index in (0..self.runs.len()).rev() {
            if self.runs[index].network != network {
                continue;
            }
            let packet = bytes(&self.lent, &self.owned, ring, place);
            match self.runs[index].run.join(packet) {
                Joined::OtherFlow => continue,
                Joined::No => self.write_run(ring, counters, index),
                Joined::Yes => return self.runs[index].add(place),
                Joined::Last => {
                    self.runs[index].add(place);
                    return self.write_run(ring, counters, index);
                }
            }
            break;
        }
        self.start(ring, counters, inner, segment, offloads.tcp4_octets);
    }

    fn start(
        &mut self,
        ring: &mut Ring,
        counters: &WorkerCounters,
        inner: Inner,
        segment: Segment,
        tcp4_octets: usize,
    ) {
        let Inner { spi, session, network, place, header } = inner;
        let Some(mut run) = Run::new(self.bytes(ring, &place), segment) else {
            return self.write_alone(ring, counters, network, &place);
        };
        run.may_grow_to(tcp4_octets);
        if self.runs.len() >= RUNS_MAX {
            self.write_run(ring, counters, 0);
        }
        let mut parts = self.lists.pop().unwrap_or_else(|| Vec::with_capacity(SEGMENTS_MAX));
        let octets = place.len();
        parts.push(place);
        self.runs.push(OpenRun { run, spi, session, network, src: header.src, parts, octets });
    }

    fn write_runs(&mut self, ring: &mut Ring, counters: &WorkerCounters) {
        while !self.runs.is_empty() {
            self.write_run(ring, counters, 0);
        }
    }

    fn write_runs_of(&mut self, ring: &mut Ring, counters: &WorkerCounters, network: NetworkId, src: IpAddr) {
        let of = |open: &OpenRun| open.src == src && open.network == network;
        while let Some(index) = self.runs.iter().position(of) {
            self.write_run(ring, counters, index);
        }
    }

    fn write_run(&mut self, ring: &mut Ring, counters: &WorkerCounters, index: usize) {
        let OpenRun { run, network, mut parts, octets, .. } = self.runs.remove(index);
        if let Some((first, payloads)) = parts.split_first() {
            let header = run.finish(self.octets(ring, first));
            let sent = self.write(ring, network, first, payloads, header);
            count(counters, &sent, run.segments() as u64, octets as u64);
        }
        parts.clear();
        self.lists.push(parts);
    }

    fn write_alone(&mut self, ring: &mut Ring, counters: &WorkerCounters, network: NetworkId, place: &Place) {
        let sent = self.write(ring, network, place, &[], VirtioHeader::default());
        count(counters, &sent, 1, place.len() as u64);
    }

    /// Writes the packet `first` goes with `payloads`, its header into the room in front of it.
    fn write(
        &mut self,
        ring: &mut Ring,
        network: NetworkId,
        first: &Place,
        payloads: &[Place],
        header: VirtioHeader,
    ) -> io::Result<()> {
        let Some(start) = first.range.start.checked_sub(VirtioHeader::LEN) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let first = Place { buffer: first.buffer, range: start..first.range.end };
        let front = self.octets(ring, &first).first_chunk_mut::<{ VirtioHeader::LEN }>();
        *front.ok_or(io::ErrorKind::InvalidInput)? = header.encode();
        if payloads.len() < SEGMENTS_MAX {
            self.write_parts::<SEGMENTS_MAX>(ring, network, &first, payloads)
        } else {
            self.write_parts::<LONG_SEGMENTS_MAX>(ring, network, &first, payloads)
        }
    }

    fn write_parts<const N: usize>(
        &self,
        ring: &Ring,
        network: NetworkId,
        first: &Place,
        payloads: &[Place],
    ) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); N];
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(std::iter::once(first).chain(payloads)) {
            *slice = IoSlice::new(self.bytes(ring, part));
            count += 1;
        }
        self.device(network)?.write(&slices[..count])
    }

    fn device(&self, network: NetworkId) -> io::Result<&dyn InnerDevice> {
        let device = self.devices.get(network.index());
        device.map(|(device, _)| &**device).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Writes a packet of our own, virtio-net header in front.
    pub fn write_own(&self, counters: &WorkerCounters, network: NetworkId, packet: &[u8]) {
        let written = self.device(network).and_then(|device| device.write(&[IoSlice::new(packet)]));
        if let Err(error) = written {
            counters.dropped(reason(&error));
        }
    }

    /// Whether so much is held that it should leave before the turn ends.
    pub fn is_full(&self) -> bool {
        self.held > HELD_MAX
    }

    /// Writes everything that waits, and lets go of what the turn held.
    pub fn flush(&mut self, ring: &mut Ring, counters: &WorkerCounters) {
        self.write_runs(ring, counters);
        for incoming in self.lent.drain(..) {
            ring.release(incoming);
        }
        while let Some(octets) = self.owned.pop() {
            self.keep_spare(octets);
        }
        self.held = 0;
    }

    /// A buffer for a frame that straddles receive buffers, empty.
    pub fn spare_buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Keeps a buffer for a later straddling frame.
    pub fn keep_spare(&mut self, mut buffer: Vec<u8>) {
        if (1..=SPARE_LEN_MAX).contains(&buffer.capacity()) && self.spare.len() < SPARE_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

fn bytes<'a>(lent: &'a [Incoming], owned: &'a [Vec<u8>], ring: &'a Ring, place: &Place) -> &'a [u8] {
    let octets = match place.buffer {
        Buffer::Lent(index) => lent.get(index).map(|incoming| ring.bytes(incoming)),
        Buffer::Owned(index) => owned.get(index).map(Vec::as_slice),
    };
    octets.and_then(|octets| octets.get(place.range.clone())).unwrap_or_default()
}

fn count(counters: &WorkerCounters, sent: &io::Result<()>, packets: u64, octets: u64) {
    match sent {
        Ok(()) => {
            counters.uplink_packets.add(packets);
            counters.uplink_bytes.add(octets);
            counters.device_writes.add(1);
        }
        Err(error) => counters.dropped_many(reason(error), packets),
    }
}

fn reason(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropReason::DeviceBacklog,
        _ => DropReason::DeviceWrite,
    }
}

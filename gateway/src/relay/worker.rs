//! The loop of one relay worker.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::counters::{RelayClose, RelayCounters};
use super::link::{Link, Ports};
use super::table::Table;
use super::{Backend, Order, RelayLimits, RelayParams};
use crate::bridge::{FrameStream, PacketRun};
use crate::io::wake::Wake;
use crate::io::{datagram, sockets, thread};
use crate::tls::{Front, StreamKind, StreamListener, TlsServer};
use crate::types::WorkerId;

/// Longest sleep.
const TICK: Duration = Duration::from_secs(1);

/// Events taken in one turn.
const EVENTS_MAX: usize = 256;

/// Connections accepted from one queue in one turn.
const ACCEPTS_MAX: usize = 64;

/// Octets in a socket that may be unsent: what a busy connection may have under way beyond its window.
const UNSENT_MAX: i32 = 256 * 1024;

/// Time without an acknowledgement after which a connection is broken.
const UNACKED_MS: i32 = 60_000;

/// Octets read from a connection at once.
const READ_LEN: usize = 256 * 1024;

/// What a readiness event is about: kind (8 bits), generation (24), slot or index (32).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token {
    Wake,
    Listener(u32),
    Stream(u32, u32),
    Backend(u32, u32),
    BackendInitial(u32, u32),
}

impl Token {
    fn pack(self) -> u64 {
        let (kind, generation, index) = match self {
            Self::Wake => (0, 0, 0),
            Self::Listener(index) => (1, 0, index),
            Self::Stream(slot, generation) => (2, generation, slot),
            Self::Backend(slot, generation) => (3, generation, slot),
            Self::BackendInitial(slot, generation) => (4, generation, slot),
        };
        (kind << 56) | (u64::from(generation & 0xff_ffff) << 32) | u64::from(index)
    }

    fn unpack(data: u64) -> Self {
        let (index, generation) = (data as u32, (data >> 32) as u32 & 0xff_ffff);
        match data >> 56 {
            1 => Self::Listener(index),
            2 => Self::Stream(index, generation),
            3 => Self::Backend(index, generation),
            4 => Self::BackendInitial(index, generation),
            _ => Self::Wake,
        }
    }
}

/// Everything one worker owns.
pub(super) struct Worker {
    pub(super) id: WorkerId,
    epoll: Epoll,
    pub(super) listeners: Vec<StreamListener>,
    /// What it offers where TLS is spoken.
    pub(super) tls: Option<TlsServer>,
    /// Accept queues left alone until the next second, for want of descriptors.
    stopped: Vec<u32>,
    pub(super) links: Table,
    pub(super) backend: Backend,
    next_source: usize,
    pub(super) limits: RelayLimits,
    pub(super) counters: Arc<RelayCounters>,
    orders: Receiver<Order>,
    wake: Wake,
    pub(super) timers: BinaryHeap<Reverse<(Instant, u32, u32)>>,
    /// Octets counted towards the limits.
    pub(super) ike_octets: usize,
    pub(super) unfinished: usize,
    /// What a read or a datagram is received into; taken while it is used.
    pub(super) buffer: Vec<u8>,
    /// ESP packets of one read that leave together.
    pub(super) run: PacketRun,
    started: Instant,
    /// Read once per turn.
    pub(super) now: Instant,
    pub(super) stopping: bool,
}

impl Worker {
    pub(super) fn new(params: RelayParams) -> io::Result<Self> {
        if let Some(core) = params.core {
            thread::pin_to_core(core)?;
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&params.wake, EpollEvent::new(EpollFlags::EPOLLIN, Token::Wake.pack()))?;
        for (index, listener) in params.listeners.iter().enumerate() {
            let token = Token::Listener(index as u32).pack();
            epoll.add(&listener.socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        }
        let now = Instant::now();
        Ok(Self {
            id: params.id,
            epoll,
            listeners: params.listeners,
            tls: params.tls,
            stopped: Vec::new(),
            links: Table::new(params.limits.connections, params.limits.connections_per_source),
            backend: params.backend,
            next_source: 0,
            limits: params.limits,
            counters: params.counters,
            orders: params.orders,
            wake: params.wake,
            timers: BinaryHeap::new(),
            ike_octets: 0,
            unfinished: 0,
            buffer: vec![0; READ_LEN],
            run: PacketRun::default(),
            started: now,
            now,
            stopping: false,
        })
    }

    /// The loop: wait, handle what is ready, then what is due.
    pub(super) fn run(mut self) {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let mut housekeeping_s = 0;
        while !self.stopping {
            let ready = match self.epoll.wait(&mut events, self.sleep()) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => {
                    tracing::error!(worker = self.id.0, %error, "epoll failed; the worker ends");
                    return;
                }
            };
            self.now = Instant::now();
            for event in &events[..ready] {
                self.on_event(Token::unpack(event.data()), event.events());
            }
            self.expire();
            let second = self.now.duration_since(self.started).as_secs();
            if second != housekeeping_s {
                housekeeping_s = second;
                self.housekeeping();
            }
        }
        let slots: Vec<u32> = self.links.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.close(slot, RelayClose::Control);
        }
    }

    fn sleep(&self) -> EpollTimeout {
        let due = self.timers.peek().map(|Reverse((at, ..))| at.saturating_duration_since(self.now));
        let wait = due.unwrap_or(TICK).min(TICK);
        // Rounded up: a timer a little late is better than a turn for nothing.
        EpollTimeout::try_from(wait.as_millis() as u32 + 1).unwrap_or(EpollTimeout::ZERO)
    }

    fn on_event(&mut self, token: Token, flags: EpollFlags) {
        match token {
            Token::Wake => {
                self.wake.clear();
                while let Ok(order) = self.orders.try_recv() {
                    self.on_order(order);
                }
            }
            Token::Listener(index) => self.accept(index),
            Token::Stream(slot, generation) => {
                if flags.contains(EpollFlags::EPOLLOUT) && self.links.find(slot, generation).is_some() {
                    self.on_writable(slot);
                }
                if flags.intersects(!EpollFlags::EPOLLOUT) && self.links.find(slot, generation).is_some() {
                    self.on_stream(slot);
                }
            }
            Token::Backend(slot, generation) if self.links.find(slot, generation).is_some() => {
                self.on_backend(slot, false);
            }
            Token::BackendInitial(slot, generation) if self.links.find(slot, generation).is_some() => {
                self.on_backend(slot, true);
            }
            // Of a connection that this turn has closed.
            Token::Backend(..) | Token::BackendInitial(..) => {}
        }
    }

    fn accept(&mut self, index: u32) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = self.listeners.get(index as usize) else { return };
            let kind = listener.kind;
            match listener.socket.accept() {
                Ok((tcp, remote)) => self.on_accepted(kind, tcp, remote),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Gone before we looked.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors: the queue stays readable, so it is left alone for a while.
                    if self.epoll.delete(&listener.socket).is_ok() {
                        self.stopped.push(index);
                        tracing::warn!(worker = self.id.0, %error, "accepting pauses");
                    }
                    return;
                }
            }
        }
    }

    fn on_accepted(&mut self, kind: StreamKind, tcp: TcpStream, remote: SocketAddr) {
        let prepared = tcp
            .set_nonblocking(true)
            .and_then(|()| sockets::prepare_accepted(tcp.as_fd(), UNSENT_MAX))
            .and_then(|_| sockets::detect_dead_peer(tcp.as_fd(), UNACKED_MS));
        if prepared.is_err() {
            return self.counters.closed(RelayClose::Peer);
        }
        let now = self.now;
        let stream = FrameStream::behind(tcp, Front::new(kind, self.tls.as_ref()), kind.deframer());
        let make = |generation| Link::new(generation, stream, remote, now);
        let Some(slot) = self.links.add(remote.ip(), make) else {
            return self.counters.closed(RelayClose::Limit);
        };
        self.counters.connections.set(self.links.len() as u64);
        let Some(link) = self.links.get_mut(slot) else { return };
        let token = Token::Stream(slot, link.generation).pack();
        if self.epoll.add(link.stream.socket(), EpollEvent::new(EpollFlags::EPOLLIN, token)).is_err() {
            return self.close(slot, RelayClose::Limit);
        }
        self.schedule(slot);
    }

    /// Gives the connection its way to the backend, if it has none. False when that fails; it is closed then.
    pub(super) fn open_ports(&mut self, slot: u32) -> bool {
        let Some(link) = self.links.get_mut(slot) else { return false };
        if link.ports.is_some() {
            return true;
        }
        let sources = &self.backend.sources;
        let source = sources.get(self.next_source % sources.len().max(1)).copied();
        self.next_source = self.next_source.wrapping_add(1);
        match open_ports(&self.epoll, &self.backend, source, slot, link.generation) {
            Ok(ports) => {
                // The line that joins the backend's log to the UE: addresses appear at debug only.
                tracing::debug!(
                    target: "gateway::relay::mapping",
                    worker = self.id.0,
                    remote = %link.remote,
                    source = ?ports.main.local_addr().ok(),
                    initial = ?ports.initial.as_ref().and_then(|socket| socket.local_addr().ok()),
                    "connection mapped"
                );
                link.ports = Some(ports);
                true
            }
            Err(error) => {
                tracing::debug!(worker = self.id.0, %error, "no UDP port for a connection");
                self.close(slot, RelayClose::NoPort);
                false
            }
        }
    }

    /// Asks epoll for what the connection's socket is to tell.
    pub(super) fn watch_writable(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot) else { return };
        let wants = link.stream.backlog_octets() > 0;
        if wants == link.wants_write {
            return;
        }
        link.wants_write = wants;
        let more = if wants { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        let mut event =
            EpollEvent::new(EpollFlags::EPOLLIN | more, Token::Stream(slot, link.generation).pack());
        if self.epoll.modify(link.stream.socket(), &mut event).is_err() {
            self.close(slot, RelayClose::Limit);
        }
    }

    fn on_writable(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot) else { return };
        if link.stream.flush().is_err() {
            return self.close(slot, RelayClose::Peer);
        }
        self.watch_writable(slot);
    }

    fn housekeeping(&mut self) {
        self.counters.cpu_ns.set(thread::cpu_time().as_nanos() as u64);
        for index in std::mem::take(&mut self.stopped) {
            if let Some(listener) = self.listeners.get(index as usize) {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Listener(index).pack());
                if self.epoll.add(&listener.socket, event).is_err() {
                    self.stopped.push(index);
                }
            }
        }
    }
}

fn open_ports(
    epoll: &Epoll,
    backend: &Backend,
    source: Option<IpAddr>,
    slot: u32,
    generation: u32,
) -> io::Result<Ports> {
    let open = |to: SocketAddr, token: Token| -> io::Result<UdpSocket> {
        let socket = datagram::connect(source.filter(|source| source.is_ipv4() == to.is_ipv4()), to)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, token.pack()))?;
        Ok(socket)
    };
    let main = open(backend.addr, Token::Backend(slot, generation))?;
    let initial = backend.ike.map(|ike| open(ike, Token::BackendInitial(slot, generation))).transpose()?;
    Ok(Ports { main, initial })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_packing() {
        for token in [
            Token::Wake,
            Token::Listener(3),
            Token::Stream(u32::MAX, 0xff_ffff),
            Token::Backend(7, 1),
            Token::BackendInitial(0, 9),
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}

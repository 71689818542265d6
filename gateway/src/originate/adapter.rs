//! The loop of the adapter, and the lives of its links.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use codec::OsRandom;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::book::Book;
use super::link::{Due, Link};
use super::probe::Probe;
use super::{Options, Port};
use crate::bridge::PacketRun;
use crate::error::Failure;
use crate::io::datagram;
use crate::limits::{ORIGINATE_LINKS_MAX, ORIGINATE_LINKS_PER_CLIENT};
use crate::process::notify_supervisor;

/// How often links are looked after while there are any, and otherwise.
const TICK: Duration = Duration::from_millis(50);
const TICK_IDLE: Duration = Duration::from_secs(1);

/// Events taken in one turn.
const EVENTS_MAX: usize = 256;

/// Octets read at once.
const READ_LEN: usize = 256 * 1024;

/// The port a gateway takes IKE and ESP at over UDP (RFC 7296 §2.23).
pub(super) const NAT_PORT: u16 = 4500;

/// What a readiness event is about: kind (8 bits), generation (24), slot (32).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token {
    Signal,
    Ike,
    Nat,
    Probe,
    Stream(u32, u32),
    Udp(u32, u32),
}

impl Token {
    pub(super) fn pack(self) -> u64 {
        let (kind, slot, generation) = match self {
            Self::Signal => (0, 0, 0),
            Self::Ike => (1, 0, 0),
            Self::Nat => (2, 0, 0),
            Self::Probe => (3, 0, 0),
            Self::Stream(slot, generation) => (4, slot, generation),
            Self::Udp(slot, generation) => (5, slot, generation),
        };
        (kind << 56) | (u64::from(generation & 0xff_ffff) << 32) | u64::from(slot)
    }

    fn unpack(data: u64) -> Self {
        let (slot, generation) = (data as u32, (data >> 32) as u32 & 0xff_ffff);
        match data >> 56 {
            1 => Self::Ike,
            2 => Self::Nat,
            3 => Self::Probe,
            4 => Self::Stream(slot, generation),
            5 => Self::Udp(slot, generation),
            _ => Self::Signal,
        }
    }
}

/// What went by and what did not; said when the adapter ends.
#[derive(Default, Debug)]
pub(super) struct Tally {
    pub uplink_packets: u64,
    pub downlink_packets: u64,
    pub ike_messages: u64,
    /// Repetitions of IKE messages that were not passed on, or answered from memory.
    pub ike_duplicates: u64,
    /// What was neither IKE nor ESP.
    pub malformed: u64,
    /// ESP without a connection.
    pub no_connection: u64,
    /// ESP and IKE for a connection that does not drain.
    pub queue_full: u64,
    /// Datagrams beyond a limit, or that the kernel did not take.
    pub refused: u64,
    /// Connections that came about.
    pub connections: u64,
}

/// Everything the adapter owns.
pub(super) struct Adapter {
    pub(super) epoll: Epoll,
    signals: SignalFd,
    pub(super) ike: UdpSocket,
    pub(super) nat: UdpSocket,
    pub(super) options: Options,
    pub(super) book: Book,
    pub(super) links: Vec<Option<Box<Link>>>,
    free: Vec<u32>,
    pub(super) per_client: AHashMap<std::net::IpAddr, usize>,
    generation: u32,
    /// The gateway address the next connection goes to.
    pub(super) next_gateway: usize,
    pub(super) probe: Option<(Probe, UdpSocket)>,
    pub(super) random: OsRandom,
    pub(super) buffer: Vec<u8>,
    pub(super) run: PacketRun,
    pub(super) now: Instant,
    pub(super) tally: Tally,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`Failure::Environment`] when a port cannot be bound or the kernel lacks something.
pub fn run(options: Options) -> Result<(), Failure> {
    let bind = |port: u16| {
        let addr = SocketAddr::new(options.listen, port);
        datagram::open(addr).map_err(|error| Failure::system(format!("--listen: UDP {addr}"), &error))
    };
    let (ike, nat) = (bind(options.ports.0)?, bind(options.ports.1)?);
    crate::process::drop_privileges(None, crate::process::RELAY_KEEPS)?;
    let failed = |error: io::Error| Failure::system("originate", &error);
    let mut adapter = Adapter::new(options, ike, nat).map_err(failed)?;
    notify_supervisor("READY=1");
    adapter.run().map_err(failed)?;
    notify_supervisor("STOPPING=1");
    tracing::info!("stopped: {:?}", adapter.tally);
    Ok(())
}

impl Adapter {
    pub(super) fn new(options: Options, ike: UdpSocket, nat: UdpSocket) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let readable = |token: Token| EpollEvent::new(EpollFlags::EPOLLIN, token.pack());
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        epoll.add(&signals, readable(Token::Signal))?;
        epoll.add(&ike, readable(Token::Ike))?;
        epoll.add(&nat, readable(Token::Nat))?;
        let probe = match (options.udp_first, options.gateways.first()) {
            (Some(patience), Some(gateway)) => {
                let socket = datagram::connect(None, SocketAddr::new(gateway.ip(), NAT_PORT))?;
                epoll.add(&socket, readable(Token::Probe))?;
                Some((Probe::new(patience), socket))
            }
            _ => None,
        };
        Ok(Self {
            epoll,
            signals,
            ike,
            nat,
            options,
            book: Book::default(),
            links: Vec::new(),
            free: Vec::new(),
            per_client: AHashMap::new(),
            generation: 0,
            next_gateway: 0,
            probe,
            random: OsRandom,
            buffer: vec![0; READ_LEN],
            run: PacketRun::default(),
            now: Instant::now(),
            tally: Tally::default(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let mut ticked = self.now;
        loop {
            let tick = if self.links.len() > self.free.len() { TICK } else { TICK_IDLE };
            let wait = EpollTimeout::try_from(tick.as_millis() as u32).unwrap_or(EpollTimeout::ZERO);
            let ready = match self.epoll.wait(&mut events, wait) {
                Err(nix::errno::Errno::EINTR) => 0,
                ready => ready?,
            };
            self.now = Instant::now();
            for event in &events[..ready] {
                match Token::unpack(event.data()) {
                    Token::Signal => {
                        if let Ok(Some(_)) = self.signals.read_signal() {
                            return Ok(());
                        }
                    }
                    Token::Ike => self.on_client(Port::Ike),
                    Token::Nat => self.on_client(Port::Nat),
                    Token::Probe => self.on_probe(),
                    Token::Stream(slot, generation) if self.is(slot, generation) => {
                        self.on_stream_ready(slot, event.events());
                    }
                    Token::Udp(slot, generation) if self.is(slot, generation) => self.on_udp(slot),
                    // Of a link that this turn has forgotten.
                    Token::Stream(..) | Token::Udp(..) => {}
                }
            }
            if self.now.duration_since(ticked) >= TICK {
                ticked = self.now;
                self.tick();
            }
        }
    }

    fn is(&self, slot: u32, generation: u32) -> bool {
        self.link_ref(slot).is_some_and(|link| link.generation == generation)
    }

    pub(super) fn link_ref(&self, slot: u32) -> Option<&Link> {
        self.links.get(slot as usize)?.as_deref()
    }

    pub(super) fn link(&mut self, slot: u32) -> Option<&mut Link> {
        self.links.get_mut(slot as usize)?.as_deref_mut()
    }

    /// Makes a link for a client, unless there are too many.
    pub(super) fn add_link(&mut self, from: SocketAddr, port: Port) -> Option<u32> {
        // Nothing is left behind by those that are refused: anybody can send from any address.
        let of_client = self.per_client.get(&from.ip()).copied().unwrap_or(0);
        let open = self.links.len() - self.free.len();
        if open >= ORIGINATE_LINKS_MAX || of_client >= ORIGINATE_LINKS_PER_CLIENT {
            self.tally.refused += 1;
            return None;
        }
        self.per_client.insert(from.ip(), of_client + 1);
        self.generation = self.generation.wrapping_add(1) & 0xff_ffff;
        let link = Box::new(Link::new(self.generation, from, port, self.now));
        match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.links.get_mut(slot as usize) {
                    *place = Some(link);
                }
                Some(slot)
            }
            None => {
                self.links.push(Some(link));
                Some(self.links.len() as u32 - 1)
            }
        }
    }

    fn forget(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize).and_then(Option::take) else { return };
        self.free.push(slot);
        self.book.remove(slot);
        if let Some(of_client) = self.per_client.get_mut(&link.client) {
            *of_client -= 1;
            if *of_client == 0 {
                self.per_client.remove(&link.client);
            }
        }
    }

    fn tick(&mut self) {
        self.send_probe();
        self.decide();
        for slot in 0..self.links.len() as u32 {
            self.resend(slot);
            match self.link_ref(slot).map(|link| link.due(self.now)) {
                Some(Due::Connect) => self.connect(slot),
                Some(Due::Broken) => self.on_broken(slot),
                Some(Due::Forget) => self.forget(slot),
                Some(Due::Nothing) | None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_packing() {
        for token in
            [Token::Signal, Token::Ike, Token::Nat, Token::Probe, Token::Stream(7, 9), Token::Udp(0, 1)]
        {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}

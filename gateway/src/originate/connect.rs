//! How links get their way to the gateway, and lose it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use codec::OsRandom;
use codec::stream::{Deframer, STREAM_PREFIX};
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::adapter::{Adapter, NAT_PORT, Token};
use super::link::{Link, Way};
use super::probe::Verdict;
use crate::bridge::{FrameStream, ReadEnd};
use crate::io::{datagram, sockets};
use crate::tls::{Front, TlsClient};

/// Octets in a socket that may be unsent.
const UNSENT_MAX: i32 = 128 * 1024;

/// Time without an acknowledgement after which a connection is broken.
const UNACKED_MS: i32 = 20_000;

impl Adapter {
    /// The client has something to say: sees to it that there is a way, or will be. `opens` says that a new
    /// IKE SA begins, whose transport is still to be chosen.
    pub(super) fn ensure_way(&mut self, slot: u32, opens: bool) {
        if !matches!(self.link_ref(slot).map(|link| &link.way), Some(Way::Idle)) {
            return;
        }
        let (now, mut random) = (self.now, OsRandom);
        match self.probe.as_mut().filter(|_| opens).map(|(probe, _)| probe.verdict(now, &mut random)) {
            None | Some(Verdict::Blocked) => self.connect(slot),
            Some(Verdict::Open) => self.use_udp(slot),
            Some(Verdict::Asking) => {
                if let Some(link) = self.link(slot) {
                    link.way = Way::Undecided;
                }
                self.send_probe();
            }
        }
    }

    pub(super) fn connect(&mut self, slot: u32) {
        let gateways = &self.options.gateways;
        let Some(&gateway) = gateways.get(self.next_gateway % gateways.len().max(1)) else { return };
        let (now, mut random) = (self.now, self.random);
        let Some(link) = self.links.get_mut(slot as usize).and_then(Option::as_deref_mut) else { return };
        let token = Token::Stream(slot, link.generation).pack();
        let tls = self.options.tls.as_ref();
        let connected = sockets::connect_tcp(gateway, UNSENT_MAX).and_then(|tcp| {
            sockets::detect_dead_peer(tcp.as_fd(), UNACKED_MS)?;
            let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
            self.epoll.add(&tcp, EpollEvent::new(both, token))?;
            // Each connection has a session of its own, which resumes an earlier one where the gateway lets it
            // (RFC 9329 Appendix B.3).
            let session = tls.map(TlsClient::session).transpose().map_err(io::Error::other)?;
            Ok(FrameStream::behind(tcp, session.map(Front::client), Deframer::originator()))
        });
        match connected {
            Ok(stream) => {
                // As it is asked for above.
                link.wants_write = true;
                link.way = Way::Connecting(stream, now);
            }
            Err(error) => {
                tracing::debug!(%gateway, %error, "no connection");
                self.next_gateway += 1;
                link.broken(now, &mut random);
            }
        }
    }

    /// Takes the link to UDP, beginning with what waits.
    fn use_udp(&mut self, slot: u32) {
        let Some(gateway) = self.options.gateways.first().map(|gateway| gateway.ip()) else { return };
        let Some(link) = self.links.get_mut(slot as usize).and_then(Option::as_deref_mut) else { return };
        let token = Token::Udp(slot, link.generation).pack();
        let opened = datagram::connect(None, SocketAddr::new(gateway, NAT_PORT)).and_then(|socket| {
            self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => {
                let waiting: Vec<_> = link.exchanges.replay().map(<[u8]>::to_vec).collect();
                // On UDP client and gateway see to their own repetitions.
                link.exchanges = Default::default();
                link.way = Way::Udp(socket);
                waiting.iter().for_each(|message| self.send_udp_ike(slot, message));
            }
            Err(error) => {
                tracing::debug!(%error, "no UDP port");
                self.connect(slot);
            }
        }
    }

    pub(super) fn on_stream_ready(&mut self, slot: u32, flags: EpollFlags) {
        if matches!(self.link_ref(slot).map(|link| &link.way), Some(Way::Connecting(..))) {
            return self.on_connected(slot);
        }
        if flags.contains(EpollFlags::EPOLLOUT) {
            let flushed = self.link(slot).and_then(Link::stream).map(FrameStream::flush);
            match flushed {
                Some(Err(_)) => return self.on_broken(slot),
                Some(Ok(())) => self.watch_writable(slot),
                None => return,
            }
        }
        if flags.intersects(!EpollFlags::EPOLLOUT) {
            self.on_stream(slot);
        }
    }

    /// A connection stands, or does not.
    fn on_connected(&mut self, slot: u32) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let opened = match self.link(slot).map(|link| &mut link.way) {
            Some(Way::Connecting(stream, _)) => open_stream(stream, &mut buffer),
            _ => Ok(None),
        };
        match opened {
            Ok(Some(len)) => {
                self.on_open(slot);
                self.parse(slot, &buffer[..len]);
            }
            Ok(None) => self.watch_writable(slot),
            Err(error) => {
                if let Some(client) = self.link(slot).map(|link| link.client) {
                    tracing::debug!(%client, %error, "no connection");
                }
                self.next_gateway = self.next_gateway.wrapping_add(1);
                self.on_broken(slot);
            }
        }
        self.buffer = buffer;
    }

    /// Frames may be sent. The stream begins with its prefix, once (RFC 9329 §4), then comes what the client still
    /// wants answered (§6.2), then what it sent meanwhile.
    fn on_open(&mut self, slot: u32) {
        let now = self.now;
        let Some(link) = self.link(slot) else { return };
        let Way::Connecting(mut stream, since) = std::mem::replace(&mut link.way, Way::Idle) else { return };
        let mut queued = stream.queue_raw(&STREAM_PREFIX);
        for request in link.exchanges.replay() {
            queued = queued.and_then(|()| stream.queue_ike(request));
        }
        let held = std::mem::take(&mut link.held);
        queued = queued.and_then(|()| stream.queue_raw(&held));
        match queued {
            Ok(()) => {
                link.connections += 1;
                link.bad_in_a_row = 0;
                tracing::debug!(
                    client = %link.client,
                    connections = link.connections,
                    resumed = stream.is_resumed(),
                    "connected"
                );
                link.way = Way::Connected(stream, now);
                self.tally.connections += 1;
                self.watch_writable(slot);
            }
            Err(error) => {
                tracing::debug!(client = %link.client, %error, "no connection");
                link.way = Way::Connecting(stream, since);
                self.next_gateway = self.next_gateway.wrapping_add(1);
                self.on_broken(slot);
            }
        }
    }

    pub(super) fn on_broken(&mut self, slot: u32) {
        let (now, mut random) = (self.now, self.random);
        if let Some(link) = self.link(slot) {
            link.broken(now, &mut random);
        }
    }

    /// Asks epoll for what the connection's socket is to tell.
    pub(super) fn watch_writable(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize).and_then(Option::as_deref_mut) else { return };
        let (stream, stands) = match &link.way {
            Way::Connected(stream, _) => (stream, true),
            // A connection that does not stand yet is writable when it does.
            Way::Connecting(stream, _) => (stream, stream.has_begun()),
            _ => return,
        };
        let wants = !stands || stream.backlog_octets() > 0;
        if wants == link.wants_write {
            return;
        }
        link.wants_write = wants;
        let more = if wants { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        let token = Token::Stream(slot, link.generation).pack();
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN | more, token);
        if self.epoll.modify(stream.socket(), &mut event).is_err() {
            self.on_broken(slot);
        }
    }

    pub(super) fn on_probe(&mut self) {
        let Some((probe, socket)) = &mut self.probe else { return };
        while let Ok(run) = datagram::receive_run(socket, &mut self.buffer) {
            // Behind the Non-ESP Marker of port 4500.
            for packet in self.buffer[..run.len].chunks(run.segment) {
                if let Some(message) = packet.strip_prefix(&codec::stream::NON_ESP_MARKER) {
                    probe.answered(self.now, message);
                }
            }
        }
        self.decide();
    }

    pub(super) fn send_probe(&mut self) {
        let Some((probe, socket)) = &mut self.probe else { return };
        if let Some(message) = probe.poll(self.now) {
            let marked = [codec::stream::NON_ESP_MARKER.as_slice(), message].concat();
            // One that is lost, or refused by the host, is sent again.
            let _ = socket.send(&marked);
        }
    }

    /// Gives the links that wait for the probe their way.
    pub(super) fn decide(&mut self) {
        if self.probe.is_none() {
            return;
        }
        let slots: Vec<u32> = (0..self.links.len() as u32)
            .filter(|slot| matches!(self.link_ref(*slot).map(|link| &link.way), Some(Way::Undecided)))
            .collect();
        if slots.is_empty() {
            return;
        }
        let (now, mut random) = (self.now, self.random);
        let Some((probe, _)) = &mut self.probe else { return };
        let verdict = probe.verdict(now, &mut random);
        if verdict == Verdict::Asking {
            return;
        }
        tracing::info!(udp = verdict == Verdict::Open, "the path to the gateway");
        for slot in slots {
            if let Some(link) = self.link(slot) {
                link.way = Way::Idle;
            }
            match verdict {
                Verdict::Open => self.use_udp(slot),
                Verdict::Blocked | Verdict::Asking => self.connect(slot),
            }
        }
    }
}

/// Takes a connection further whose socket has something to tell: octets of the stream in `buffer` when it is open,
/// none while TLS is at its handshake.
fn open_stream(stream: &mut FrameStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    if let Some(error) = stream.socket().take_error()? {
        return Err(error);
    }
    if stream.is_open() {
        return Ok(Some(0));
    }
    stream.begin();
    stream.flush()?;
    let len = match stream.read(buffer) {
        ReadEnd::Octets(len) => len,
        ReadEnd::Nothing => 0,
        ReadEnd::Closed => return Err(io::ErrorKind::ConnectionReset.into()),
        ReadEnd::Refused(_, error) => return Err(io::Error::other(error)),
    };
    Ok(stream.is_open().then_some(len))
}

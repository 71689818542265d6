//! A UE over UDP: one socket, IKE and ESP told apart by the non-ESP marker (RFC 3948 §2.2), and requests sent again until
//! they are answered (RFC 7296 §2.1).
//!
//! What the UE has to send is gathered as frames, as for a TCP connection, and cut into datagrams here; runs of one length
//! leave in one system call (UDP GSO). IKE starts on the port that carries ESP too, which every responder with NAT
//! traversal accepts (RFC 7296 §2.23).

use super::connect::cause;
use super::link::{Ue, UeState};
use crate::host::clock;
use bytes::Bytes;
use codec::stream::{LENGTH_LEN, frame_ike};
use nix::errno::Errno;
use nix::libc::c_int;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The wait before a request is sent again for the first time; twice as long each time after.
const RESEND_FIRST: Duration = Duration::from_millis(500);
/// Datagrams and octets of one system call.
const SEGMENTS_MAX: usize = 64;
const RUN_LEN_MAX: usize = 65_507;
/// Octets of a socket's buffers: a burst of the gateway must not be lost before its UE gets its turn.
const SOCKET_LEN: usize = 4 << 20;
/// Reads before other UEs get their turn.
const READS_PER_TURN: usize = 4;

/// The requests that wait for their responses, and when they are sent again.
struct Resend {
    requests: Vec<Bytes>,
    at: Instant,
    interval: Duration,
}

impl Ue {
    /// Runs the UE until its IKE SA is over.
    pub(super) async fn live_over_udp(self: Rc<Self>) {
        let ended = match open(self.shared.gateway, self.shared.source.address(self.index)) {
            Ok(socket) => self.clone().run_socket(socket).await,
            Err(error) => cause(&error),
        };
        self.drive(|initiator, _, _| initiator.handle_unreachable(&ended));
    }

    /// Sends and receives until the IKE SA is over or the socket fails; returns why.
    async fn run_socket(self: Rc<Self>, socket: UdpSocket) -> String {
        let local = socket.local_addr().unwrap_or(self.shared.gateway);
        let socket = Rc::new(socket);
        {
            let mut core = self.core.borrow_mut();
            core.connected = true;
            core.started_at.get_or_insert_with(Instant::now);
        }
        let remote = self.shared.gateway;
        self.drive(|initiator, now, random| initiator.handle_connected(now, local, remote, random));
        let reader = tokio_uring::spawn(self.clone().receive_all(socket.clone()));
        let ended = self.send_all(&socket).await;
        reader.abort();
        self.core.borrow_mut().connected = false;
        ended
    }

    async fn send_all(&self, socket: &UdpSocket) -> String {
        let mut out = self.shared.take_write_buffer();
        let mut resend: Option<Resend> = None;
        let ended = loop {
            if let Some(failure) = self.core.borrow().broken.clone() {
                break failure;
            }
            let over = self.fill(&mut out);
            if out.is_empty() {
                if over {
                    break "detached".into();
                }
                resend = self.next_resend(resend);
                if self.sleep(resend.as_ref().map(|resend| resend.at)).await {
                    repeat(resend.as_mut(), &mut out);
                }
            }
            for run in Runs(&out) {
                if let Err(error) = send_run(socket, &run).await {
                    self.core.borrow_mut().broken.get_or_insert(cause(&error));
                    break;
                }
            }
            out.clear();
        };
        self.shared.return_write_buffer(out);
        ended
    }

    /// Starts the clock anew when other requests wait than before.
    fn next_resend(&self, before: Option<Resend>) -> Option<Resend> {
        let requests = self.core.borrow().initiator.unanswered();
        let same = before.filter(|before| before.requests == requests);
        let fresh = || Resend { requests, at: Instant::now() + RESEND_FIRST, interval: RESEND_FIRST };
        match same {
            Some(same) => Some(same),
            None => Some(fresh()).filter(|fresh| !fresh.requests.is_empty()),
        }
    }

    /// Waits until there is something to send; returns whether it is `until` before that.
    async fn sleep(&self, until: Option<Instant>) -> bool {
        match until {
            None => {
                self.wake.notified().await;
                false
            }
            Some(until) => tokio::time::timeout_at(until.into(), self.wake.notified()).await.is_err(),
        }
    }

    async fn receive_all(self: Rc<Self>, socket: Rc<UdpSocket>) {
        let failure = loop {
            if let Err(error) = socket.readable().await {
                break cause(&error);
            }
            if let Err(error) = self.receive_waiting(&socket) {
                break cause(&error);
            }
            if matches!(self.state(), UeState::Ended(_)) {
                return;
            }
            tokio::task::yield_now().await;
        };
        self.core.borrow_mut().broken.get_or_insert(failure);
        self.wake.notify_one();
    }

    /// Takes what has arrived, up to a turn's worth.
    fn receive_waiting(&self, socket: &UdpSocket) -> io::Result<()> {
        let buffer = &mut *self.shared.read_buffer.borrow_mut();
        let mut ike = false;
        for _ in 0..READS_PER_TURN {
            let received = socket.try_io(Interest::READABLE, || receive_run(socket, buffer));
            let (len, segment) = match received {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let now_ns = clock::monotonic_ns();
            for datagram in buffer[..len].chunks_mut(segment.max(1)) {
                ike |= self.on_body(now_ns, datagram);
            }
            self.on_read_end();
        }
        if ike {
            self.drive(|_, _, _| ());
        }
        // The writer looks at what waits for its response too.
        if ike || self.core.borrow().inner.as_ref().is_some_and(|inner| inner.has_output()) {
            self.wake.notify_one();
        }
        Ok(())
    }
}

/// Opens a socket towards `gateway` from `source`.
fn open(gateway: SocketAddr, source: Option<IpAddr>) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(gateway), Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(source) = source {
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    // As far as the host allows.
    let _ = socket.set_recv_buffer_size(SOCKET_LEN);
    let _ = socket.set_send_buffer_size(SOCKET_LEN);
    let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
    socket.set_nonblocking(true)?;
    socket.connect(&gateway.into())?;
    UdpSocket::from_std(socket.into())
}

/// Puts the requests that wait into `out` once more.
fn repeat(resend: Option<&mut Resend>, out: &mut Vec<u8>) {
    let Some(resend) = resend else { return };
    for request in &resend.requests {
        frame_ike(request, out).expect("IKE messages are built to fit a frame");
    }
    resend.interval *= 2;
    resend.at = Instant::now() + resend.interval;
}

/// Receives a datagram, or several of one length that the kernel joined: octets, and those of each.
fn receive_run(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, usize)> {
    let mut control = nix::cmsg_space!(c_int);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    let segment = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::UdpGroSegments(segment) => usize::try_from(segment).ok(),
        _ => None,
    });
    Ok((received.bytes, segment.unwrap_or(received.bytes)))
}

async fn send_run(socket: &UdpSocket, run: &Run<'_>) -> io::Result<()> {
    let send = || -> io::Result<()> {
        let segment = u16::try_from(run.segment).unwrap_or(u16::MAX);
        let segments = [ControlMessage::UdpGsoSegments(&segment)];
        let control = if run.datagrams.len() > 1 { &segments[..] } else { &[] };
        let flags = MsgFlags::MSG_DONTWAIT;
        let sent = sendmsg::<()>(socket.as_raw_fd(), &run.datagrams, control, flags, None);
        match sent {
            // The link is behind: lost, as on any path.
            Ok(_) | Err(Errno::ENOBUFS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    };
    match send() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            socket.async_io(Interest::WRITABLE, send).await
        }
        result => result,
    }
}

/// Datagrams of one length, of which the last may be shorter.
struct Run<'a> {
    segment: usize,
    datagrams: Vec<IoSlice<'a>>,
}

/// Cuts frames into runs of datagrams.
struct Runs<'a>(&'a [u8]);

impl<'a> Runs<'a> {
    /// The first frame without its Length, and what follows it.
    fn split(&self) -> Option<(&'a [u8], &'a [u8])> {
        let length = usize::from(u16::from_be_bytes(*self.0.first_chunk::<LENGTH_LEN>()?));
        let (frame, rest) = self.0.split_at_checked(length)?;
        Some((frame.get(LENGTH_LEN..)?, rest))
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        let (first, rest) = self.split()?;
        let mut run = Run { segment: first.len(), datagrams: vec![IoSlice::new(first)] };
        let mut octets = first.len();
        self.0 = rest;
        while let Some((next, rest)) = self.split() {
            let fits = next.len() <= run.segment
                && octets + next.len() <= RUN_LEN_MAX
                && run.datagrams.len() < SEGMENTS_MAX;
            if !fits {
                break;
            }
            run.datagrams.push(IoSlice::new(next));
            octets += next.len();
            self.0 = rest;
            if next.len() < run.segment {
                break;
            }
        }
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(lens: &[usize]) -> Vec<u8> {
        let mut octets = Vec::new();
        for &len in lens {
            octets.extend(((len + LENGTH_LEN) as u16).to_be_bytes());
            octets.resize(octets.len() + len, 0);
        }
        octets
    }

    #[test]
    fn frames_of_one_length_leave_together() {
        let octets = frames(&[100, 100, 40, 100, 200]);
        let shapes: Vec<Vec<usize>> =
            Runs(&octets).map(|run| run.datagrams.iter().map(|datagram| datagram.len()).collect()).collect();
        assert_eq!(shapes, [vec![100, 100, 40], vec![100], vec![200]]);
        let octets = frames(&[1400; 100]);
        let counts: Vec<usize> = Runs(&octets).map(|run| run.datagrams.len()).collect();
        assert_eq!(counts, [46, 46, 8]);
        assert!(Runs(&octets[..1]).next().is_none());
    }

    #[test]
    fn r7296_2_1_a_request_is_repeated_ever_more_rarely() {
        let mut resend = Resend {
            requests: vec![Bytes::from_static(b"request")],
            at: Instant::now(),
            interval: RESEND_FIRST,
        };
        let mut out = Vec::new();
        for round in 1..4 {
            out.clear();
            repeat(Some(&mut resend), &mut out);
            assert!(out.ends_with(b"request"));
            assert_eq!(resend.interval, RESEND_FIRST * 2u32.pow(round));
        }
    }
}

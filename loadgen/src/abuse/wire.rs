//! A stream whose every octet is ours to choose.

use codec::stream::{Deframer, FrameKind, NON_ESP_MARKER, Next, STREAM_PREFIX, classify, frame_ike};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for a peer to take octets.
const WRITE_MAX: Duration = Duration::from_secs(2);

/// What comes from the responder.
#[derive(Debug)]
pub enum Arrival {
    /// An IKE message, without its marker.
    Ike(Vec<u8>),
    /// An ESP packet.
    Esp(Vec<u8>),
    /// What RFC 9329 does not let a responder send.
    Broken(String),
    /// The connection is over, so long after it began.
    Closed(Duration),
    /// Nothing in the time given.
    Silence,
}

/// A TCP connection to the responder.
pub struct Wire {
    stream: TcpStream,
    deframer: Deframer,
    /// The last read, and how far it has been looked at.
    input: Vec<u8>,
    at: usize,
    carry: Vec<u8>,
    begun: Instant,
}

impl Wire {
    /// Connects and says nothing.
    ///
    /// # Errors
    /// As TCP does.
    pub fn connect(gateway: SocketAddr) -> std::io::Result<Self> {
        Self::connect_with(gateway, |_| Ok(()))
    }

    /// Connects with a receive buffer as small as the kernel allows, for a reader that is slow.
    ///
    /// # Errors
    /// As TCP does.
    pub fn connect_narrow(gateway: SocketAddr) -> std::io::Result<Self> {
        Self::connect_with(gateway, |socket| socket.set_recv_buffer_size(2048))
    }

    fn connect_with(
        gateway: SocketAddr,
        options: impl FnOnce(&Socket) -> std::io::Result<()>,
    ) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::for_address(gateway), Type::STREAM, Some(Protocol::TCP))?;
        options(&socket)?;
        socket.connect_timeout(&gateway.into(), CONNECT_MAX)?;
        // One write is one segment, as far as TCP lets us choose.
        socket.set_tcp_nodelay(true)?;
        let stream: TcpStream = socket.into();
        stream.set_write_timeout(Some(WRITE_MAX))?;
        Ok(Self {
            stream,
            deframer: Deframer::originator(),
            input: Vec::new(),
            at: 0,
            carry: Vec::new(),
            begun: Instant::now(),
        })
    }

    /// Connects and sends the prefix.
    ///
    /// # Errors
    /// As TCP does.
    pub fn prefixed(gateway: SocketAddr) -> std::io::Result<Self> {
        let mut wire = Self::connect(gateway)?;
        wire.send(&STREAM_PREFIX);
        Ok(wire)
    }

    /// Returns the addresses of both ends, ours first.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.stream.local_addr()?, self.stream.peer_addr()?))
    }

    /// Sends octets; whether the peer took them. A failure shows in what arrives next as well.
    pub fn send(&mut self, octets: &[u8]) -> bool {
        self.stream.write_all(octets).is_ok()
    }

    /// Sends octets one by one, with a pause behind each.
    pub fn send_octets(&mut self, octets: &[u8], pause: Duration) -> bool {
        octets.iter().all(|octet| {
            let sent = self.send(&[*octet]);
            std::thread::sleep(pause);
            sent
        })
    }

    /// Sends an IKE message as a frame.
    pub fn send_ike(&mut self, message: &[u8]) -> bool {
        self.send(&ike_frame(message))
    }

    /// Half-closes: FIN, and reading goes on.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Returns what arrives next.
    pub fn next(&mut self, wait: Duration) -> Arrival {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(arrival) = self.buffered() {
                return arrival;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Arrival::Silence;
            }
            let _ = self.stream.set_read_timeout(Some(left));
            self.input.resize(1 << 16, 0);
            self.at = 0;
            match self.stream.read(&mut self.input) {
                Ok(0) => return self.closed(),
                Ok(read) => self.input.truncate(read),
                Err(error) => {
                    self.input.clear();
                    match error.kind() {
                        ErrorKind::WouldBlock | ErrorKind::TimedOut => return Arrival::Silence,
                        ErrorKind::Interrupted => {}
                        _ => return self.closed(),
                    }
                }
            }
        }
    }

    fn closed(&mut self) -> Arrival {
        self.input.clear();
        Arrival::Closed(self.begun.elapsed())
    }

    /// The next frame of what has been read.
    fn buffered(&mut self) -> Option<Arrival> {
        let body = match self.deframer.next(&self.input, &mut self.at, &mut self.carry) {
            Ok(Next::Pending) => return None,
            Ok(Next::InPlace(range)) => self.input[range].to_vec(),
            Ok(Next::Carried) => self.carry.clone(),
            Err(error) => return Some(Arrival::Broken(error.to_string())),
        };
        Some(match classify(&body) {
            FrameKind::Ike => Arrival::Ike(body[NON_ESP_MARKER.len()..].to_vec()),
            FrameKind::Esp(_) => Arrival::Esp(body),
            // RFC 9329 §6.6: a responder sends no keepalives over TCP either.
            other => Arrival::Broken(format!("a frame that is no message ({other:?})")),
        })
    }
}

/// Frames an IKE message.
pub fn ike_frame(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    // Too long for a frame is for cases that frame by themselves.
    let _ = frame_ike(message, &mut frame);
    frame
}

/// A frame whose Length is right, around any body.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 2).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), body].concat()
}

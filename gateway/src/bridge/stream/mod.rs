//! The TCP leg, TLS around it or not: a non-blocking connection that carries frames both ways.
//!
//! A frame once begun is finished, or the connection ends (RFC 9329 §3). What the socket does not take at
//! once waits here, ESP within a bound and IKE ahead of no one: frames leave in the order they were queued.

#[cfg(test)]
mod tests;

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;

use codec::stream::{Deframer, FrameError, LENGTH_LEN, NON_ESP_MARKER, Next};

use crate::limits::BRIDGE_IKE_BACKLOG_OCTETS;
use crate::tls::{CARRY_MAX, Front, FrontError, Said};

/// Most frames of one [`FrameStream::queue_esp`].
pub const STREAM_FRAMES_MAX: usize = 128;

/// A backlog buffer above this many octets is given back once it is empty.
const BACKLOG_KEPT: usize = 4096;

/// A connection and its unfinished frames.
pub struct FrameStream {
    tcp: TcpStream,
    /// What stands between the socket and the frames; none on a plain connection.
    front: Option<Box<Front>>,
    deframer: Deframer,
    /// A client's handshake has begun.
    begun: bool,
    /// The frame that straddles two reads; empty while none does.
    carry: Vec<u8>,
    /// Octets the socket has not taken, from `sent` on; they begin anywhere in a frame, or a record, and end with one.
    backlog: Vec<u8>,
    sent: usize,
    /// Octets of the IKE messages in the backlog, counted until the last of them has left, and of the backlog up to
    /// there. ESP behind it may never end on a slow connection.
    ike_waiting: usize,
    ike_end: usize,
}

/// How a read ended.
#[derive(Debug)]
pub enum ReadEnd {
    /// So many octets lie in the buffer.
    Octets(usize),
    /// Nothing for now.
    Nothing,
    /// The peer closed or reset the connection.
    Closed,
    /// So many octets lie in the buffer, and what came behind them is not what the connection should carry; an alert
    /// may be on its way to the peer. Nothing follows.
    Refused(usize, FrontError),
}

/// What became of frames to be sent.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Queued {
    /// Frames that are in the socket or the backlog.
    pub frames: usize,
    /// Frames dropped because the backlog is full.
    pub dropped: usize,
}

impl FrameStream {
    /// A connection whose peer speaks as `deframer` expects.
    pub fn new(tcp: TcpStream, deframer: Deframer) -> Self {
        Self {
            tcp,
            front: None,
            deframer,
            begun: false,
            carry: Vec::new(),
            backlog: Vec::new(),
            sent: 0,
            ike_waiting: 0,
            ike_end: 0,
        }
    }

    /// A connection whose frames are behind `front`, if there is one.
    pub fn behind(tcp: TcpStream, front: Option<Front>, deframer: Deframer) -> Self {
        Self { front: front.map(Box::new), ..Self::new(tcp, deframer) }
    }

    /// Whether TLS is around the frames.
    pub fn is_tls(&self) -> bool {
        self.front.is_some()
    }

    /// Whether frames too short for IKE and for ESP are keepalives, as on a port for FTT.
    pub fn has_short_keepalives(&self) -> bool {
        self.front.as_ref().is_some_and(|front| front.has_short_keepalives())
    }

    /// Whether a client's handshake has begun.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether frames may be queued: TLS, if there is any, has finished its handshake.
    pub fn is_open(&self) -> bool {
        self.front.as_ref().is_none_or(|front| !front.is_opening())
    }

    /// Whether a ticket spared TLS its certificate.
    pub fn is_resumed(&self) -> bool {
        self.front.as_ref().is_some_and(|front| front.is_resumed())
    }

    /// Whether the peer has said that it is done; the connection is to be closed.
    pub fn is_peer_done(&mut self) -> bool {
        self.front.as_mut().and_then(|front| front.session()).is_some_and(|session| session.is_peer_closed())
    }

    /// Says that nothing more comes, where the socket takes it at once; the connection is closed next.
    pub fn part(&mut self) {
        if let Some(session) = self.front.as_mut().and_then(|front| front.session()) {
            session.close();
            self.backlog.append(&mut session.take_output());
            // The peer learns of the end either way.
            let _ = self.flush();
        }
    }

    /// The socket, for polling and options.
    pub fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// Reads what has arrived into `buffer`. Behind TLS that may be nothing although octets came, and the backlog
    /// may have grown.
    pub fn read(&mut self, buffer: &mut [u8]) -> ReadEnd {
        if self.front.is_some() {
            return self.read_records(buffer);
        }
        self.read_socket(buffer)
    }

    fn read_records(&mut self, buffer: &mut [u8]) -> ReadEnd {
        // What comes out may be more than what went in by the record begun before.
        let room = buffer.len().saturating_sub(CARRY_MAX);
        let len = match self.read_socket(buffer.get_mut(..room).unwrap_or_default()) {
            ReadEnd::Octets(len) => len,
            end => return end,
        };
        let mut plain = Vec::with_capacity(len);
        let said = self.take_in(buffer.get_mut(..len).unwrap_or_default(), &mut plain);
        if matches!(said, Ok(Said::Plain)) {
            self.front = None;
            return ReadEnd::Octets(len);
        }
        let Some(place) = buffer.get_mut(..plain.len()) else { return ReadEnd::Closed };
        place.copy_from_slice(&plain);
        match said {
            // The records before the one that fails have verified, and no peer sends them again.
            Err(error) => ReadEnd::Refused(plain.len(), error),
            Ok(_) if plain.is_empty() => ReadEnd::Nothing,
            Ok(_) => ReadEnd::Octets(plain.len()),
        }
    }

    /// Lets the front take octets, and sends what it says to them.
    fn take_in(&mut self, input: &mut [u8], plain: &mut Vec<u8>) -> Result<Said, FrontError> {
        let Some(front) = &mut self.front else { return Ok(Said::Plain) };
        let said = front.receive(input, plain);
        if let Some(session) = front.session() {
            self.backlog.append(&mut session.take_output());
        }
        // A broken connection is found by the next read.
        let _ = self.flush();
        said
    }

    /// Begins the handshake of a client.
    pub fn begin(&mut self) {
        self.begun = true;
        let _ = self.take_in(&mut [], &mut Vec::new());
    }

    fn read_socket(&self, buffer: &mut [u8]) -> ReadEnd {
        match (&self.tcp).read(buffer) {
            Ok(0) => ReadEnd::Closed,
            Ok(len) => ReadEnd::Octets(len),
            Err(error) if is_retry(&error) => ReadEnd::Nothing,
            Err(_) => ReadEnd::Closed,
        }
    }

    /// The next frame of `input`, as [`Deframer::next`]; a carried one is taken with [`FrameStream::carried`].
    ///
    /// # Errors
    /// When the stream is no longer one: close it.
    pub fn next(&mut self, input: &[u8], at: &mut usize) -> Result<Next, FrameError> {
        self.deframer.next(input, at, &mut self.carry)
    }

    /// The frame that [`Next::Carried`] announced.
    pub fn carried(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.carry)
    }

    /// Octets of memory the unfinished frame takes, and the unfinished record.
    pub fn carry_octets(&self) -> usize {
        self.carry.capacity() + self.front.as_ref().map_or(0, |front| front.carry_octets())
    }

    /// Whether the stream's prefix has come whole.
    pub fn prefix_complete(&self) -> bool {
        self.deframer.prefix_complete()
    }

    /// Octets the socket has not taken.
    pub fn backlog_octets(&self) -> usize {
        self.backlog.len() - self.sent
    }

    /// Queues octets that are whole frames, or the prefix, behind everything else.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn queue_raw(&mut self, octets: &[u8]) -> io::Result<()> {
        if self.front.is_some() {
            return self.write_records(octets);
        }
        self.backlog.extend_from_slice(octets);
        self.flush()
    }

    /// Whether an IKE message of `len` octets may be queued: nothing waits, or no more than
    /// [`BRIDGE_IKE_BACKLOG_OCTETS`] of IKE with it.
    pub fn takes_ike(&self, len: usize) -> bool {
        self.backlog_octets() == 0 || self.ike_waiting + len <= BRIDGE_IKE_BACKLOG_OCTETS
    }

    /// Sends an IKE message, or queues it whatever waits already: the caller asks [`FrameStream::takes_ike`] first.
    ///
    /// # Errors
    /// When the connection is broken. A message too long for a frame is not sent (RFC 9329 §3).
    pub fn queue_ike(&mut self, message: &[u8]) -> io::Result<()> {
        let body_len = NON_ESP_MARKER.len() + message.len();
        let Some(length) = frame_length(body_len) else { return Ok(()) };
        let mut head = [0; LENGTH_LEN + NON_ESP_MARKER.len()];
        head[..LENGTH_LEN].copy_from_slice(&length);
        let parts = [IoSlice::new(&head), IoSlice::new(message)];
        self.write(&parts)?;
        if self.backlog_octets() > 0 {
            self.ike_waiting += message.len();
            self.ike_end = self.backlog_octets();
        }
        Ok(())
    }

    /// Sends the ESP packets `bodies`, at most [`STREAM_FRAMES_MAX`] of them, in one call where the socket
    /// takes them. Those beyond `backlog_max` octets of backlog are dropped whole (D10).
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn queue_esp<'a>(
        &mut self,
        bodies: impl Iterator<Item = &'a [u8]>,
        backlog_max: usize,
    ) -> io::Result<Queued> {
        let mut lengths = [[0; LENGTH_LEN]; STREAM_FRAMES_MAX];
        let mut packets = [&[][..]; STREAM_FRAMES_MAX];
        let mut queued = Queued::default();
        let mut waiting = self.backlog_octets();
        for body in bodies.take(STREAM_FRAMES_MAX) {
            let Some(length) = frame_length(body.len()) else { continue };
            // Frames for an idle socket are no backlog yet: the socket says what it takes.
            if self.backlog_octets() > 0 {
                waiting += LENGTH_LEN + body.len();
                if waiting > backlog_max {
                    queued.dropped += 1;
                    continue;
                }
            }
            lengths[queued.frames] = length;
            packets[queued.frames] = body;
            queued.frames += 1;
        }
        let mut parts = [IoSlice::new(&[]); 2 * STREAM_FRAMES_MAX];
        for (at, (length, packet)) in lengths.iter().zip(&packets).take(queued.frames).enumerate() {
            parts[2 * at] = IoSlice::new(length);
            parts[2 * at + 1] = IoSlice::new(packet);
        }
        self.write(&parts[..2 * queued.frames])?;
        Ok(queued)
    }

    /// Sends what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.backlog.len() {
            match (&self.tcp).write(&self.backlog[self.sent..]) {
                Ok(len) => self.note_sent(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_retry(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        self.backlog.clear();
        if self.backlog.capacity() > BACKLOG_KEPT {
            self.backlog = Vec::new();
        }
        Ok(())
    }

    fn note_sent(&mut self, len: usize) {
        self.sent += len;
        self.ike_end = self.ike_end.saturating_sub(len);
        if self.ike_end == 0 {
            self.ike_waiting = 0;
        }
    }

    fn write_records(&mut self, plain: &[u8]) -> io::Result<()> {
        let session = self.front.as_mut().and_then(|front| front.session());
        let Some(session) = session.filter(|_| !plain.is_empty()) else { return Ok(()) };
        if self.sent > self.backlog.len() / 2 {
            self.backlog.drain(..std::mem::take(&mut self.sent));
        }
        session.seal_into(plain, &mut self.backlog).map_err(io::Error::other)?;
        self.flush()
    }

    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        if parts.is_empty() {
            return Ok(());
        }
        if self.front.is_some() {
            let mut plain = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
            parts.iter().for_each(|part| plain.extend_from_slice(part));
            return self.write_records(&plain);
        }
        let mut taken = 0;
        if self.backlog.is_empty() {
            match (&self.tcp).write_vectored(parts) {
                Ok(len) => taken = len,
                Err(error) if is_retry(&error) => {}
                Err(error) => return Err(error),
            }
        } else if self.sent > self.backlog.len() / 2 {
            self.backlog.drain(..std::mem::take(&mut self.sent));
        }
        for part in parts {
            let skipped = taken.min(part.len());
            taken -= skipped;
            self.backlog.extend_from_slice(&part[skipped..]);
        }
        Ok(())
    }
}

/// The Length of a frame with a body of so many octets; `None` when there is no such frame.
fn frame_length(body_len: usize) -> Option<[u8; LENGTH_LEN]> {
    u16::try_from(body_len + LENGTH_LEN).ok().map(u16::to_be_bytes)
}

/// Whether the socket only asks for patience.
fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

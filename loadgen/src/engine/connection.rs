//! The TCP connections of a UE, one after the other: what is written, what is read, how they end.

use super::connect::{cause, connect};
use super::corruption::Corruption;
use super::inner::{Cut, Sealer, WRITE_LEN_MAX};
use super::link::{Shared, Ue, UeState};
use super::tls::Tls;
use super::tunnel::Arrived;
use crate::host::clock;
use codec::stream::{Deframer, FrameKind, NON_ESP_MARKER, Next, STREAM_PREFIX, classify, frame_ike};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_uring::net::TcpStream;

/// Read buffer that every connection holds while it waits.
const READ_LEN_WAITING: usize = 2 << 10;
/// Reads into the shared buffer before other connections get their turn.
const READS_PER_TURN: usize = 4;
/// First and longest pause before a connection is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Longest TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the gateway's FIN behind ours.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);
/// Idle write buffers that are kept; a buffer has room for a write and the longest inner packet.
const WRITE_BUFFERS_MAX: usize = 64;
const WRITE_BUFFER_LEN: usize = WRITE_LEN_MAX + (66 << 10);
/// A write up to this is copied out of such a buffer, which is then free again.
const SMALL_WRITE_LEN: usize = 4 << 10;

/// Why a connection has ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// It failed, or the session is over.
    Failed(String),
    /// [`Ue::cut`] was called.
    Cut,
}

impl Shared {
    pub(super) fn take_write_buffer(&self) -> Vec<u8> {
        self.write_buffers.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(WRITE_BUFFER_LEN))
    }

    /// What a write leaves from. Thousands of UEs may answer a DELETE at once: with a large buffer each, zeroing
    /// their memory would take the kernel longer than all the rest.
    fn fitting(&self, buffer: Vec<u8>) -> Vec<u8> {
        if buffer.len() > SMALL_WRITE_LEN {
            return buffer;
        }
        let small = buffer.as_slice().to_vec();
        self.return_write_buffer(buffer);
        small
    }

    pub(super) fn return_write_buffer(&self, mut buffer: Vec<u8>) {
        let mut idle = self.write_buffers.borrow_mut();
        if idle.len() < WRITE_BUFFERS_MAX && buffer.capacity() >= WRITE_BUFFER_LEN {
            buffer.clear();
            idle.push(buffer);
        }
    }
}

impl Ue {
    /// Runs the UE until its IKE SA is over: connects, and connects again after a failure.
    pub(super) async fn live(self: Rc<Self>) {
        let mut pause = RECONNECT_PAUSE;
        loop {
            let reset = self.core.borrow().cut_kind == Cut::Reset;
            let source = self.shared.source.address(self.index);
            let ended = match connect(self.shared.gateway, source, self.shared.congestion, reset) {
                Ok((socket, local)) => {
                    let up_since = Instant::now();
                    let stream = TcpStream::from_std(socket.into());
                    let ended = self.clone().run_connection(stream, local).await;
                    if up_since.elapsed() > RECONNECT_PAUSE_MAX {
                        pause = RECONNECT_PAUSE;
                    }
                    ended
                }
                Err(error) => Ended::Failed(cause(&error)),
            };
            let failure = match &ended {
                Ended::Failed(failure) => failure,
                Ended::Cut => "cut",
            };
            self.drive(|initiator, _, _| initiator.handle_disconnected(failure));
            if matches!(self.state(), UeState::Ended(_)) {
                return;
            }
            if ended != Ended::Cut {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
            }
            self.shared.reconnects.set(self.shared.reconnects.get() + 1);
        }
    }

    /// Reads and writes one connection until it ends; returns why it did.
    async fn run_connection(self: Rc<Self>, stream: TcpStream, local: SocketAddr) -> Ended {
        let stream = Rc::new(stream);
        let tls = match &self.shared.tls {
            None => None,
            Some(settings) => {
                match tokio::time::timeout(HANDSHAKE_MAX, Tls::shake_hands(settings, &stream)).await {
                    Ok(Ok(tls)) => Some(Rc::new(tls)),
                    Ok(Err(failure)) => return Ended::Failed(failure),
                    Err(_) => return Ended::Failed("TLS: timed out".into()),
                }
            }
        };
        {
            let mut core = self.core.borrow_mut();
            core.broken = None;
            core.corruption = Corruption::default();
            core.connected = true;
            core.started_at.get_or_insert_with(Instant::now);
        }
        let remote = self.shared.gateway;
        self.drive(|initiator, now, random| initiator.handle_connected(now, local, remote, random));
        let mut reader = tokio_uring::spawn(self.clone().read_all(stream.clone(), tls.clone()));
        let ended = self.write_all(&stream, tls.as_deref()).await;
        {
            let mut core = self.core.borrow_mut();
            core.connected = false;
            // A cut that was asked for and came too late is none, and the next connection's neither.
            core.cut = false;
        }
        if ended == Ended::Cut {
            self.cut_now(&stream, &mut reader).await;
        } else {
            let _ = stream.shutdown(Shutdown::Both);
            let _ = reader.await;
        }
        ended
    }

    /// Cuts the connection and waits until its reader has ended; dropping the stream does the rest.
    async fn cut_now(&self, stream: &TcpStream, reader: &mut JoinHandle<()>) {
        let cut = {
            let core = &mut *self.core.borrow_mut();
            let cut = core.cut_kind;
            core.cut_kind = cut.other();
            core.cut_at = Some(Instant::now());
            if let Some(inner) = &mut core.inner {
                inner.on_cut(cut);
            }
            cut
        };
        let _ = stream.shutdown(match cut {
            // The FIN leaves behind all that was written; the reader ends with the gateway's.
            Cut::Close => Shutdown::Write,
            // The reader ends now, and nothing leaves; this connection resets when it is closed.
            Cut::Reset => Shutdown::Read,
        });
        if tokio::time::timeout(CUT_TIMEOUT, &mut *reader).await.is_err() {
            let _ = stream.shutdown(Shutdown::Both);
            let _ = reader.await;
        }
    }

    async fn write_all(&self, stream: &TcpStream, tls: Option<&Tls>) -> Ended {
        // RFC 9329 §4: the first octets of every stream, once.
        let mut out = self.shared.take_write_buffer();
        out.extend_from_slice(&STREAM_PREFIX);
        loop {
            if let Some(ended) = self.end_of_writing() {
                self.shared.return_write_buffer(out);
                return ended;
            }
            let over = self.fill(&mut out);
            if out.is_empty() {
                self.shared.return_write_buffer(out);
                if over {
                    return Ended::Failed("detached".into());
                }
                self.wake.notified().await;
                out = self.shared.take_write_buffer();
                continue;
            }
            let out_now = match tls {
                None => self.shared.fitting(out),
                Some(tls) => {
                    let records = tls.seal(&out);
                    self.shared.return_write_buffer(out);
                    records
                }
            };
            let (result, returned) = stream.write_all(out_now).await;
            if let Err(error) = result {
                return Ended::Failed(cause(&error));
            }
            self.shared.return_write_buffer(returned);
            out = self.shared.take_write_buffer();
        }
    }

    /// Returns why the writer has to end, if it has. A connection that is broken was not cut, even if that was asked for:
    /// the reconnect, and what was lost, have another cause.
    fn end_of_writing(&self) -> Option<Ended> {
        let core = &mut *self.core.borrow_mut();
        if let Some(failure) = core.broken.clone() {
            return Some(Ended::Failed(failure));
        }
        let cut = std::mem::take(&mut core.cut);
        self.shared.cuts.set(self.shared.cuts.get() + u64::from(cut));
        cut.then_some(Ended::Cut)
    }

    /// Gathers the next write; returns whether the IKE SA is over.
    pub(super) fn fill(&self, out: &mut Vec<u8>) -> bool {
        let core = &mut *self.core.borrow_mut();
        while let Some(message) = core.initiator.poll_transmit() {
            frame_ike(&message, out).expect("IKE messages are built to fit a frame");
        }
        if let Some(inner) = &mut core.inner
            && inner.has_output()
        {
            let laid = &mut *self.shared.laid.borrow_mut();
            let mut sealer = Sealer { tunnel: &mut core.tunnel, out, laid };
            inner.fill(clock::monotonic_ns(), &mut sealer);
            sealer.finish();
        }
        matches!(core.state, UeState::Ended(_))
    }

    /// Reads until the connection ends.
    ///
    /// The ring waits with a small buffer per connection. When it comes back full there is more, which is read at once
    /// into the buffer that all connections share: it stays in the cache, and ten thousand idle UEs need no more memory
    /// than their small buffers.
    async fn read_all(self: Rc<Self>, stream: Rc<TcpStream>, tls: Option<Rc<Tls>>) {
        let mut deframer = Deframer::originator();
        let mut carry = Vec::new();
        let mut buffer = Vec::with_capacity(READ_LEN_WAITING);
        let failure = loop {
            buffer.clear();
            let (result, returned) = stream.read(buffer).await;
            buffer = returned;
            let len = match result {
                Ok(0) => break "closed by gateway".to_owned(),
                Ok(len) => len,
                Err(error) => break cause(&error),
            };
            let tls = tls.as_deref();
            let taken = self.on_received(tls, &mut buffer[..len], &mut deframer, &mut carry);
            let taken = taken.and_then(|()| {
                if len == buffer.capacity() {
                    self.read_waiting(&stream, tls, &mut deframer, &mut carry)
                } else {
                    Ok(())
                }
            });
            if let Err(failure) = taken {
                break failure;
            }
        };
        self.core.borrow_mut().broken.get_or_insert(failure);
        self.wake.notify_one();
    }

    /// Reads what else has arrived, without waiting.
    fn read_waiting(
        &self,
        stream: &TcpStream,
        tls: Option<&Tls>,
        deframer: &mut Deframer,
        carry: &mut Vec<u8>,
    ) -> Result<(), String> {
        let buffer = &mut *self.shared.read_buffer.borrow_mut();
        for _ in 0..READS_PER_TURN {
            let len = match recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err("closed by gateway".into()),
                Ok(len) => len,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
                Err(error) => return Err(cause(&error.into())),
            };
            self.on_received(tls, &mut buffer[..len], deframer, carry)?;
            if len < buffer.len() / 4 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes what one read brought from the socket.
    fn on_received(
        &self,
        tls: Option<&Tls>,
        octets: &mut [u8],
        deframer: &mut Deframer,
        carry: &mut Vec<u8>,
    ) -> Result<(), String> {
        let Some(tls) = tls else { return self.on_octets(octets, deframer, carry) };
        let mut plain = Vec::with_capacity(octets.len());
        tls.open(octets, &mut plain)?;
        self.on_octets(&mut plain, deframer, carry)
    }

    /// Takes octets of the stream.
    fn on_octets(
        &self,
        octets: &mut [u8],
        deframer: &mut Deframer,
        carry: &mut Vec<u8>,
    ) -> Result<(), String> {
        let now_ns = clock::monotonic_ns();
        let mut at = 0;
        let mut ike = false;
        loop {
            match deframer.next(octets, &mut at, carry) {
                Ok(Next::Pending) => break,
                Ok(Next::InPlace(range)) => ike |= self.on_body(now_ns, &mut octets[range]),
                Ok(Next::Carried) => {
                    let mut body = std::mem::take(carry);
                    ike |= self.on_body(now_ns, &mut body);
                    *carry = body;
                }
                Err(error) => return Err(format!("stream: {error}")),
            }
        }
        self.on_read_end();
        if let Some(cause) = self.core.borrow().corruption.verdict() {
            return Err(cause.into());
        }
        if ike {
            self.drive(|_, _, _| ());
        } else if self.core.borrow().inner.as_ref().is_some_and(|inner| inner.has_output()) {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Everything that one read brought has been handed over.
    pub(super) fn on_read_end(&self) {
        let core = &mut *self.core.borrow_mut();
        if let Some(inner) = &mut core.inner {
            inner.on_burst_end();
        }
        // Octets on the connection that was cut do not count.
        if core.connected
            && let Some(cut_at) = core.cut_at.take()
        {
            self.shared.recoveries.borrow_mut().record(cut_at.elapsed().as_nanos() as u64);
        }
    }

    /// Takes one frame; returns whether it was IKE.
    pub(super) fn on_body(&self, now_ns: u64, body: &mut [u8]) -> bool {
        let core = &mut *self.core.borrow_mut();
        match classify(body) {
            FrameKind::Ike => {
                let random = &mut **self.shared.random.borrow_mut();
                core.initiator.handle_message(Instant::now(), &mut body[NON_ESP_MARKER.len()..], random);
                match core.initiator.take_forged() {
                    true => core.corruption.forged(),
                    false => core.corruption.good(),
                }
                // A Child SA may be used by the very next frame.
                core.take_events(&self.shared, random);
                true
            }
            FrameKind::Esp(spi) => {
                match core.corruption.judge(core.tunnel.open(spi, body)) {
                    Arrived::Inner(range) => {
                        core.heard_esp = true;
                        if let Some(inner) = &mut core.inner {
                            inner.on_packet(now_ns, &body[range]);
                        }
                    }
                    Arrived::Nothing => core.heard_esp = true,
                    Arrived::Unknown | Arrived::Forged | Arrived::Dropped => {
                        self.shared.esp_dropped.set(self.shared.esp_dropped.get() + 1)
                    }
                }
                false
            }
            // RFC 9329 §3, §6.6: empty frames and keepalives mean nothing.
            FrameKind::Empty | FrameKind::Keepalive => false,
            FrameKind::Unparseable(_) => {
                core.corruption.bad();
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::SourceSpread;
    use super::*;
    use crate::ue::{Credentials, Handset, Identity, Initiator, UeConfig};
    use std::sync::Arc;

    /// An attached UE whose connection was just asked to be cut.
    fn asked_to_cut() -> Ue {
        let config = UeConfig {
            ike: vec!["aes128gcm16-prfsha256-x25519".parse().unwrap()],
            esp: vec!["aes128gcm16".parse().unwrap()],
            credentials: Credentials::Psk(b"secret".to_vec().into()),
            idr: None,
            gateway_id: None,
            response_timeout: Duration::from_secs(1),
            dpd: None,
            replay_window: 64,
            handset: Handset::default(),
        };
        let (gateway, random) = ("127.0.0.1:4500".parse().unwrap(), Box::new(codec::OsRandom));
        let shared = Shared::new(gateway, None, SourceSpread::new(None), None, 64, random);
        let initiator = Initiator::new(Arc::new(config), Identity::parse("ue@test"));
        let ue = Ue::new(0, Rc::new(shared), initiator);
        ue.core.borrow_mut().state = UeState::Attached;
        ue.core.borrow_mut().connected = true;
        assert!(ue.cut());
        ue
    }

    #[test]
    fn a_connection_that_breaks_before_its_cut_is_not_counted_as_cut() {
        let ue = asked_to_cut();
        ue.core.borrow_mut().broken = Some("closed by gateway".into());
        assert_eq!(ue.end_of_writing(), Some(Ended::Failed("closed by gateway".into())));
        assert_eq!(ue.shared.cuts.get(), 0, "its flows were never told of a cut");
        let ue = asked_to_cut();
        assert_eq!(ue.end_of_writing(), Some(Ended::Cut));
        assert_eq!((ue.shared.cuts.get(), ue.end_of_writing()), (1, None), "once");
    }
}

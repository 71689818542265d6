//! One UE: its IKE state, its tunnel, its connection.

use super::connect::{cause, connect};
use super::source::SourceSpread;
use super::tunnel::{Arrived, Tunnel};
use crate::host::clock;
use crate::ue::{Attached, EndCause, Event, Initiator};
use codec::Random;
use codec::ike::payload::TrafficSelector;
use codec::stream::{Deframer, FrameKind, NON_ESP_MARKER, Next, STREAM_PREFIX, classify, frame_ike};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::cell::{Cell, RefCell};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_uring::net::TcpStream;

/// A write carries at most about so many octets.
const WRITE_LEN_MAX: usize = 128 << 10;
/// Read buffer that every connection holds while it waits.
const READ_LEN_WAITING: usize = 2 << 10;
/// Read buffer that all connections share once one of them has more waiting.
pub(super) const READ_LEN_SHARED: usize = 256 << 10;
/// Reads into the shared buffer before other connections get their turn.
const READS_PER_TURN: usize = 4;
/// First and longest pause before a connection is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a UE does with its tunnel.
pub trait Inner {
    /// Takes an inner packet that has arrived.
    fn on_packet(&mut self, now_ns: u64, packet: &[u8]);
    /// Seals what there is to send, until `sealer` is full.
    fn fill(&mut self, now_ns: u64, sealer: &mut Sealer<'_>);
    /// Returns whether [`Inner::fill`] would send something.
    fn has_output(&self) -> bool;
}

/// Takes inner packets for one write.
pub struct Sealer<'a> {
    tunnel: &'a mut Tunnel,
    out: &'a mut Vec<u8>,
}

impl Sealer<'_> {
    /// Returns whether the write is as long as it should get.
    pub fn is_full(&self) -> bool {
        self.out.len() >= WRITE_LEN_MAX
    }

    /// Returns whether another packet of `len` octets fills the write.
    pub fn is_full_after(&self, len: usize) -> bool {
        self.out.len() + len >= WRITE_LEN_MAX
    }

    /// Adds an inner packet; returns whether there was an SA to send under.
    pub fn seal(&mut self, inner: &[u8]) -> bool {
        self.tunnel.seal(inner, self.out)
    }
}

/// Where a UE stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UeState {
    /// Not yet attached.
    Attaching,
    /// IKE SA and Child SA are up.
    Attached,
    /// Over.
    Ended(EndCause),
}

/// What all UEs of a fleet share.
pub(super) struct Shared {
    pub(super) gateway: SocketAddr,
    pub(super) source: SourceSpread,
    pub(super) replay_window: u32,
    pub(super) random: RefCell<Box<dyn Random>>,
    /// Told whenever a UE changes its state.
    pub(super) changed: Notify,
    /// UEs that are no longer attaching.
    pub(super) settled: Cell<u32>,
    /// Connections opened again after the first.
    pub(super) reconnects: Cell<u64>,
    /// ESP packets that were for no SA, replayed or not authentic.
    pub(super) esp_dropped: Cell<u64>,
    /// See [`READ_LEN_SHARED`].
    pub(super) read_buffer: RefCell<Vec<u8>>,
}

/// One UE of a fleet.
pub struct Ue {
    /// Index within the fleet.
    pub index: u32,
    shared: Rc<Shared>,
    core: RefCell<Core>,
    /// Told when the writer has something to do.
    wake: Notify,
}

struct Core {
    initiator: Initiator,
    tunnel: Tunnel,
    inner: Option<Box<dyn Inner>>,
    state: UeState,
    attached: Attached,
    /// What the gateway lets this UE reach.
    remote_ts: Vec<TrafficSelector>,
    started_at: Option<Instant>,
    attach_latency: Option<Duration>,
    /// The connection is broken: its writer must end.
    broken: Option<String>,
    heard_esp: bool,
}

impl Ue {
    pub(super) fn new(index: u32, shared: Rc<Shared>, initiator: Initiator) -> Self {
        let core = Core {
            initiator,
            tunnel: Tunnel::default(),
            inner: None,
            state: UeState::Attaching,
            attached: Attached::default(),
            remote_ts: Vec::new(),
            started_at: None,
            attach_latency: None,
            broken: None,
            heard_esp: false,
        };
        Self { index, shared, core: RefCell::new(core), wake: Notify::new() }
    }

    /// Returns where the UE stands.
    pub fn state(&self) -> UeState {
        self.core.borrow().state.clone()
    }

    /// Returns whether IKE SA and Child SA are up.
    pub fn is_attached(&self) -> bool {
        self.core.borrow().state == UeState::Attached
    }

    /// Returns what the gateway assigned.
    pub fn attached(&self) -> Attached {
        self.core.borrow().attached.clone()
    }

    /// Returns the far end's traffic selectors of the current Child SA.
    pub fn remote_ts(&self) -> Vec<TrafficSelector> {
        self.core.borrow().remote_ts.clone()
    }

    /// Returns the time from the first octet to the Child SA.
    pub fn attach_latency(&self) -> Option<Duration> {
        self.core.borrow().attach_latency
    }

    /// Sets what the UE does with its tunnel from now on.
    pub fn set_inner(&self, inner: Option<Box<dyn Inner>>) {
        self.core.borrow_mut().inner = inner;
        self.wake.notify_one();
    }

    /// Tells the writer that there may be something to send.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Starts to detach.
    pub fn detach(&self) {
        self.drive(|initiator, now, random| initiator.detach(now, random));
    }

    /// Asks the gateway for a new Child SA.
    pub fn rekey_child(&self) {
        self.drive(|initiator, now, random| initiator.rekey_child(now, random));
    }

    /// Asks the gateway for a new IKE SA.
    pub fn rekey_ike(&self) {
        self.drive(|initiator, now, random| initiator.rekey_ike(now, random));
    }

    /// Lets the IKE timers run.
    pub(super) fn tick(&self) {
        self.drive(|initiator, now, random| initiator.handle_timeout(now, random));
    }

    /// Runs the UE until its IKE SA is over: connects, and connects again after a failure.
    pub(super) async fn live(self: Rc<Self>) {
        let mut pause = RECONNECT_PAUSE;
        loop {
            let failure = match connect(self.shared.gateway, self.shared.source.address(self.index)) {
                Ok(connection) => {
                    let up_since = Instant::now();
                    let failure = self.clone().run_connection(connection.stream, connection.local).await;
                    if up_since.elapsed() > RECONNECT_PAUSE_MAX {
                        pause = RECONNECT_PAUSE;
                    }
                    failure
                }
                Err(error) => cause(&error),
            };
            self.drive(|initiator, _, _| initiator.handle_disconnected(&failure));
            if matches!(self.state(), UeState::Ended(_)) {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
            self.shared.reconnects.set(self.shared.reconnects.get() + 1);
        }
    }

    /// Reads and writes one connection until it ends; returns why it did.
    async fn run_connection(self: Rc<Self>, stream: TcpStream, local: SocketAddr) -> String {
        let stream = Rc::new(stream);
        {
            let mut core = self.core.borrow_mut();
            core.broken = None;
            core.started_at.get_or_insert_with(Instant::now);
        }
        let remote = self.shared.gateway;
        self.drive(|initiator, now, random| initiator.handle_connected(now, local, remote, random));
        let reader = tokio_uring::spawn(self.clone().read_all(stream.clone()));
        let failure = self.write_all(&stream).await;
        let _ = stream.shutdown(Shutdown::Both);
        let _ = reader.await;
        failure
    }

    async fn write_all(&self, stream: &TcpStream) -> String {
        // RFC 9329 §4: the first octets of every stream, once.
        let mut out = STREAM_PREFIX.to_vec();
        loop {
            if let Some(failure) = self.core.borrow().broken.clone() {
                return failure;
            }
            let over = self.fill(&mut out);
            if out.is_empty() {
                if over {
                    return "detached".into();
                }
                out = Vec::new();
                self.wake.notified().await;
                continue;
            }
            let (result, returned) = stream.write_all(out).await;
            if let Err(error) = result {
                return cause(&error);
            }
            out = returned;
            out.clear();
        }
    }

    /// Gathers the next write; returns whether the IKE SA is over.
    fn fill(&self, out: &mut Vec<u8>) -> bool {
        let core = &mut *self.core.borrow_mut();
        while let Some(message) = core.initiator.poll_transmit() {
            frame_ike(&message, out).expect("IKE messages are built to fit a frame");
        }
        if let Some(inner) = &mut core.inner
            && inner.has_output()
        {
            inner.fill(clock::monotonic_ns(), &mut Sealer { tunnel: &mut core.tunnel, out });
        }
        matches!(core.state, UeState::Ended(_))
    }

    /// Reads until the connection ends.
    ///
    /// The ring waits with a small buffer per connection. When it comes back full there is more, which is read at once
    /// into the buffer that all connections share: it stays in the cache, and ten thousand idle UEs need no more memory
    /// than their small buffers.
    async fn read_all(self: Rc<Self>, stream: Rc<TcpStream>) {
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
            let taken = self.on_octets(&mut buffer[..len], &mut deframer, &mut carry);
            let taken = taken.and_then(|()| {
                if len == buffer.capacity() {
                    self.read_waiting(&stream, &mut deframer, &mut carry)
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
            self.on_octets(&mut buffer[..len], deframer, carry)?;
            if len < buffer.len() / 4 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes what one read brought.
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
        if ike {
            self.drive(|_, _, _| ());
        } else if self.core.borrow().inner.as_ref().is_some_and(|inner| inner.has_output()) {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Takes one frame; returns whether it was IKE.
    fn on_body(&self, now_ns: u64, body: &mut [u8]) -> bool {
        let core = &mut *self.core.borrow_mut();
        match classify(body) {
            FrameKind::Ike => {
                let random = &mut **self.shared.random.borrow_mut();
                core.initiator.handle_message(Instant::now(), &mut body[NON_ESP_MARKER.len()..], random);
                // A Child SA may be used by the very next frame.
                core.take_events(&self.shared, random);
                true
            }
            FrameKind::Esp(spi) => {
                match core.tunnel.open(spi, body) {
                    Arrived::Inner(range) => {
                        core.heard_esp = true;
                        if let Some(inner) = &mut core.inner {
                            inner.on_packet(now_ns, &body[range]);
                        }
                    }
                    Arrived::Nothing => core.heard_esp = true,
                    Arrived::Dropped => self.shared.esp_dropped.set(self.shared.esp_dropped.get() + 1),
                }
                false
            }
            // RFC 9329 §3, §6.6: empty frames and keepalives mean nothing; the rest is not for us.
            FrameKind::Empty | FrameKind::Keepalive | FrameKind::Unparseable(_) => false,
        }
    }

    /// Calls the initiator, takes its events and wakes the writer.
    fn drive(&self, call: impl FnOnce(&mut Initiator, Instant, &mut dyn Random)) {
        let core = &mut *self.core.borrow_mut();
        let random = &mut **self.shared.random.borrow_mut();
        let now = Instant::now();
        if std::mem::take(&mut core.heard_esp) {
            core.initiator.handle_esp(now);
        }
        call(&mut core.initiator, now, random);
        core.take_events(&self.shared, random);
        if core.initiator.has_transmit() || core.initiator.is_ended() {
            self.wake.notify_one();
        }
    }
}

impl Core {
    fn take_events(&mut self, shared: &Shared, random: &mut dyn Random) {
        while let Some(event) = self.initiator.poll_event() {
            match event {
                Event::Established(attached) => self.attached = *attached,
                Event::Install(child) => {
                    self.remote_ts.clone_from(&child.remote_ts);
                    self.tunnel.install(*child, shared.replay_window, random);
                    if self.state == UeState::Attaching {
                        self.attach_latency = self.started_at.map(|at| at.elapsed());
                        self.set_state(UeState::Attached, shared);
                    }
                }
                Event::Retire(spi) => self.tunnel.retire(spi),
                Event::Ended(cause) => {
                    self.set_state(UeState::Ended(cause), shared);
                }
            }
        }
    }

    fn set_state(&mut self, state: UeState, shared: &Shared) {
        if self.state == UeState::Attaching {
            shared.settled.set(shared.settled.get() + 1);
        }
        self.state = state;
        shared.changed.notify_one();
    }
}

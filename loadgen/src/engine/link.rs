//! One UE: its IKE state and its tunnel.

use super::congestion::Congestion;
use super::corruption::Corruption;
use super::inner::{Cut, Inner, Laid};
use super::source::SourceSpread;
use super::tls::TlsSettings;
use super::tunnel::Tunnel;
use crate::report::Latencies;
use crate::ue::{Attached, EndCause, Event, Initiator};
use codec::Random;
use codec::ike::payload::TrafficSelector;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Read buffer that all connections share once one of them has more waiting.
const READ_LEN_SHARED: usize = 256 << 10;

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
    pub(super) tls: Option<TlsSettings>,
    pub(super) source: SourceSpread,
    pub(super) congestion: Option<Congestion>,
    pub(super) replay_window: u32,
    pub(super) random: RefCell<Box<dyn Random>>,
    /// Told whenever a UE changes its state.
    pub(super) changed: Notify,
    /// UEs that are no longer attaching.
    pub(super) settled: Cell<u32>,
    /// Connections opened again after the first.
    pub(super) reconnects: Cell<u64>,
    /// Connections cut on purpose.
    pub(super) cuts: Cell<u64>,
    /// ESP packets that were for no SA, replayed or not authentic.
    pub(super) esp_dropped: Cell<u64>,
    /// From a cut on purpose to the first octets on the new connection.
    pub(super) recoveries: RefCell<Latencies>,
    /// See [`READ_LEN_SHARED`].
    pub(super) read_buffer: RefCell<Vec<u8>>,
    /// Write buffers of connections that have nothing to send now.
    pub(super) write_buffers: RefCell<Vec<Vec<u8>>>,
    /// Frames of the write that is being gathered.
    pub(super) laid: RefCell<Laid>,
}

impl Shared {
    /// What UEs share before the first of them connects.
    pub(super) fn new(
        gateway: SocketAddr,
        tls: Option<TlsSettings>,
        source: SourceSpread,
        congestion: Option<Congestion>,
        replay_window: u32,
        random: Box<dyn Random>,
    ) -> Self {
        Self {
            gateway,
            tls,
            source,
            congestion,
            replay_window,
            random: RefCell::new(random),
            changed: Notify::new(),
            settled: Cell::new(0),
            reconnects: Cell::new(0),
            cuts: Cell::new(0),
            esp_dropped: Cell::new(0),
            recoveries: RefCell::new(Latencies::new()),
            read_buffer: RefCell::new(vec![0; READ_LEN_SHARED]),
            write_buffers: RefCell::new(Vec::new()),
            laid: RefCell::default(),
        }
    }
}

/// One UE of a fleet.
pub struct Ue {
    /// Index within the fleet.
    pub index: u32,
    pub(super) shared: Rc<Shared>,
    pub(super) core: RefCell<Core>,
    /// Told when the writer has something to do.
    pub(super) wake: Notify,
}

pub(super) struct Core {
    pub(super) initiator: Initiator,
    pub(super) tunnel: Tunnel,
    pub(super) inner: Option<Box<dyn Inner>>,
    pub(super) state: UeState,
    attached: Attached,
    /// What the gateway lets this UE reach.
    remote_ts: Vec<TrafficSelector>,
    pub(super) started_at: Option<Instant>,
    attach_latency: Option<Duration>,
    /// The connection is open, and not asked to be cut.
    pub(super) connected: bool,
    /// The connection is broken: its writer must end.
    pub(super) broken: Option<String>,
    /// What speaks against it.
    pub(super) corruption: Corruption,
    /// The connection is to be cut.
    pub(super) cut: bool,
    /// How the present connection would be cut; the next one the other way.
    pub(super) cut_kind: Cut,
    /// When it was cut, until the gateway is heard on the next one.
    pub(super) cut_at: Option<Instant>,
    pub(super) heard_esp: bool,
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
            connected: false,
            broken: None,
            corruption: Corruption::default(),
            cut: false,
            cut_kind: Cut::Close,
            cut_at: None,
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

    /// Cuts the connection as soon as the write under way is done, by FIN or RST in turn, and connects again at once;
    /// returns whether there was a connection of an attached UE to cut. A connection that breaks before that is not cut
    /// any more; the fleet counts those that were.
    pub fn cut(&self) -> bool {
        let mut core = self.core.borrow_mut();
        let can = core.connected && core.state == UeState::Attached;
        if can {
            core.connected = false;
            core.cut = true;
            self.wake.notify_one();
        }
        can
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

    /// Calls the initiator, takes its events and wakes the writer.
    pub(super) fn drive(&self, call: impl FnOnce(&mut Initiator, Instant, &mut dyn Random)) {
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
    pub(super) fn take_events(&mut self, shared: &Shared, random: &mut dyn Random) {
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

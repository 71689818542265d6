//! What all flows of a run share.

use super::{Direction, Pace, TrafficPlan};
use crate::engine::Ue;
use crate::host::clock;
use crate::probe::{Pattern, SizePlan, TRAFFIC_CLASS_EF};
use crate::report::Latencies;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Weak;

/// Uplink packets in flight of all UEs together while each takes an entry of its own in the queues of the kernel: less
/// than a core's receive backlog of default length (net.core.netdev_max_backlog, 1000), where the kernel drops without
/// telling anybody.
const UPLINK_IN_FLIGHT_MIN: u64 = 896;
/// The same when they come in trains: one entry each, up to a few megabytes.
const UPLINK_IN_FLIGHT_MAX: u64 = 8_192;
/// One waiting UE is woken per so many packets of room.
const WAKE_PER_PACKETS: u64 = 32;
/// Weight of one more train in their mean length, and the unit in which the mean is kept.
const TRAIN_WEIGHT: u64 = 16;

/// What a flow stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A call; goes first.
    Voice,
    /// Everything else.
    Bulk,
}

impl Class {
    /// Number of classes.
    pub(super) const COUNT: usize = 2;

    /// UDP port of the UEs.
    pub(super) fn port(self) -> u16 {
        match self {
            Self::Bulk => 40_000,
            Self::Voice => 40_002,
        }
    }

    /// Returns the class whose port it is.
    pub(super) fn of_port(port: u16) -> Option<Self> {
        [Self::Voice, Self::Bulk].into_iter().find(|class| class.port() == port)
    }

    /// Returns the traffic class octet of its packets.
    pub(super) fn traffic_class(self) -> u8 {
        match self {
            Self::Bulk => 0,
            Self::Voice => TRAFFIC_CLASS_EF,
        }
    }
}

/// Settings and common measurements of a run.
pub(super) struct Shared {
    pub(super) class: Class,
    pub(super) far: SocketAddr,
    pub(super) has_sink: bool,
    pub(super) size: SizePlan,
    pub(super) up: bool,
    pub(super) down: bool,
    pub(super) pace: Pace,
    /// Most packets of one UE in a row.
    pub(super) run_len: u32,
    /// Packets that a paced flow sends at a time.
    pub(super) burst: u32,
    /// Downlink packets in flight of all UEs together.
    pub(super) queue: u32,
    pub(super) run: u32,
    pub(super) pattern: Pattern,
    /// Downlink, as the UEs see it.
    pub(super) latencies: RefCell<Latencies>,
    pub(super) first_ns: Cell<u64>,
    pub(super) last_ns: Cell<u64>,
    pub(super) corrupt_headers: Cell<u64>,
    /// Clock of the sink's host, once it has told.
    pub(super) sink_clock: Cell<u64>,
    own_clock: u64,
    /// Uplink packets in flight of all UEs.
    in_flight: Cell<u64>,
    /// Flows with an uplink.
    uplinks: Cell<u64>,
    /// Mean length of the trains in which uplink packets arrive, times [`TRAIN_WEIGHT`].
    train: Cell<u64>,
    /// UEs that have packets to send and wait for room.
    waiting: RefCell<VecDeque<Weak<Ue>>>,
}

impl Shared {
    pub(super) fn new(plan: &TrafficPlan, class: Class, far: SocketAddr) -> Self {
        Self {
            class,
            far,
            has_sink: plan.far.is_some(),
            size: plan.size,
            up: plan.direction != Direction::Down,
            down: plan.direction != Direction::Up && plan.far.is_some(),
            pace: plan.pace,
            run_len: plan.run_len.unwrap_or(u32::MAX),
            burst: plan.burst,
            queue: plan.queue,
            run: plan.run,
            pattern: Pattern::new(),
            latencies: RefCell::new(Latencies::new()),
            first_ns: Cell::new(0),
            last_ns: Cell::new(0),
            corrupt_headers: Cell::new(0),
            sink_clock: Cell::new(0),
            own_clock: clock::clock_id(),
            in_flight: Cell::new(0),
            uplinks: Cell::new(0),
            train: Cell::new(TRAIN_WEIGHT),
            waiting: RefCell::new(VecDeque::new()),
        }
    }

    /// Returns how many uplink packets may leave now.
    pub(super) fn room(&self) -> u64 {
        match self.pace {
            Pace::Window { .. } if self.has_sink => self.in_flight_max().saturating_sub(self.in_flight.get()),
            _ => u64::MAX,
        }
    }

    /// Notes that there is one flow more with an uplink.
    pub(super) fn add_uplink(&self) {
        self.uplinks.set(self.uplinks.get() + 1);
    }

    /// Returns how many packets a flow of short runs may have in flight without asking for an acknowledgement: all flows
    /// together half of what there may be, since that may become less. Others send their window in a few writes.
    pub(super) fn share(&self) -> u64 {
        match self.run_len {
            u32::MAX => u64::MAX,
            _ => (self.in_flight_max() / (2 * self.uplinks.get().max(1))).max(1),
        }
    }

    /// Half the mean train counts as sure.
    fn in_flight_max(&self) -> u64 {
        let sure = UPLINK_IN_FLIGHT_MIN * self.train.get() / (2 * TRAIN_WEIGHT);
        sure.clamp(UPLINK_IN_FLIGHT_MIN, UPLINK_IN_FLIGHT_MAX)
    }

    /// Notes that uplink packets have arrived in a train of `len`.
    pub(super) fn note_train(&self, len: u16) {
        let mean = self.train.get();
        self.train.set(mean - mean / TRAIN_WEIGHT + u64::from(len.max(1)));
    }

    /// Notes that `packets` have left.
    pub(super) fn occupy(&self, packets: u64) {
        self.in_flight.set(self.in_flight.get() + packets);
    }

    /// Notes that `packets` are off the path, and wakes the UEs that may go on.
    pub(super) fn release(&self, packets: u64) {
        self.in_flight.set(self.in_flight.get() - packets);
        let mut waiting = self.waiting.borrow_mut();
        for _ in 0..self.room().div_ceil(WAKE_PER_PACKETS) {
            let Some(ue) = waiting.pop_front() else { return };
            if let Some(ue) = ue.upgrade() {
                ue.wake();
            }
        }
    }

    /// Queues a UE until there is room.
    pub(super) fn wait(&self, ue: Weak<Ue>) {
        self.waiting.borrow_mut().push_back(ue);
    }

    /// Returns whether one-way latencies mean something: both ends read the same clock.
    pub(super) fn same_clock(&self) -> bool {
        self.own_clock != 0 && self.own_clock == self.sink_clock.get()
    }
}

//! What all flows of a run share.

use super::{Direction, Pace, TrafficPlan};
use crate::engine::Ue;
use crate::host::clock;
use crate::probe::{Pattern, SizePlan};
use crate::report::Latencies;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Weak;

/// Uplink packets in flight of all UEs together: less than a core's receive backlog of default length
/// (net.core.netdev_max_backlog, 1000), where the kernel drops without telling anybody.
const UPLINK_IN_FLIGHT_MAX: u64 = 896;
/// One waiting UE is woken per so many packets of room.
const WAKE_PER_PACKETS: u64 = 32;

/// Settings and common measurements of a run.
pub(super) struct Shared {
    pub(super) far: SocketAddr,
    pub(super) has_sink: bool,
    pub(super) size: SizePlan,
    pub(super) up: bool,
    pub(super) down: bool,
    pub(super) pace: Pace,
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
    /// UEs that have packets to send and wait for room.
    waiting: RefCell<VecDeque<Weak<Ue>>>,
}

impl Shared {
    pub(super) fn new(plan: &TrafficPlan, far: SocketAddr) -> Self {
        Self {
            far,
            has_sink: plan.far.is_some(),
            size: plan.size,
            up: plan.direction != Direction::Down,
            down: plan.direction != Direction::Up && plan.far.is_some(),
            pace: plan.pace,
            run: plan.run,
            pattern: Pattern::new(),
            latencies: RefCell::new(Latencies::new()),
            first_ns: Cell::new(0),
            last_ns: Cell::new(0),
            corrupt_headers: Cell::new(0),
            sink_clock: Cell::new(0),
            own_clock: clock::clock_id(),
            in_flight: Cell::new(0),
            waiting: RefCell::new(VecDeque::new()),
        }
    }

    /// Returns how many uplink packets may leave now.
    pub(super) fn room(&self) -> u64 {
        match self.pace {
            Pace::Window(_) if self.has_sink => UPLINK_IN_FLIGHT_MAX.saturating_sub(self.in_flight.get()),
            _ => u64::MAX,
        }
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

//! What all flows of a run share.

use super::{Direction, Pace, TrafficPlan};
use crate::host::clock;
use crate::probe::{Pattern, SizePlan};
use crate::report::Latencies;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

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
        }
    }

    /// Returns whether one-way latencies mean something: both ends read the same clock.
    pub(super) fn same_clock(&self) -> bool {
        self.own_clock != 0 && self.own_clock == self.sink_clock.get()
    }
}

//! Accounting (RFC 2866): Start, Interim-Update and Stop, each repeated until a server has it.
//!
//! Records wait in a bounded queue while servers are silent. How many are under way at once grows while they are
//! answered and shrinks while they are not, so that servers that come back are not drowned.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::counters::ServerCounters;
use super::packet::{Attributes, kind};
use super::pool::{Answer, Pool};
use super::sessions::Session;
use crate::control::aaa::{EndCause, SessionEnd};
use crate::limits::RADIUS_RECORDS_UNDER_WAY_MAX;
use crate::worker::inbox::Traffic;

/// Acct-Authentic RADIUS (RFC 2866 §5.6).
const AUTHENTIC_RADIUS: u32 = 1;

/// Acct-Status-Type (RFC 2866 §5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Start = 1,
    Stop = 2,
    Interim = 3,
    /// The gateway has started: sessions of before are gone.
    On = 7,
    /// The gateway ends.
    Off = 8,
}

/// One record.
#[derive(Clone)]
pub struct Record {
    status: Status,
    attributes: Attributes,
}

/// Records that wait and records under way.
pub struct Accounting {
    /// The servers.
    pub pool: Pool<Record>,
    waiting: VecDeque<Record>,
    waiting_max: usize,
    window: usize,
    under_way: usize,
    counters: Arc<ServerCounters>,
}

impl Accounting {
    /// Nothing to report yet; at most `waiting_max` records wait. `counters` are those of the first server: what is
    /// lost is counted there.
    pub fn new(pool: Pool<Record>, waiting_max: usize, counters: Arc<ServerCounters>) -> Self {
        Self {
            pool,
            waiting: VecDeque::new(),
            waiting_max,
            window: RADIUS_RECORDS_UNDER_WAY_MAX,
            under_way: 0,
            counters,
        }
    }

    /// Reports that the gateway begins or ends (RFC 2866 §5.1).
    pub fn gateway(&mut self, now: Instant, status: Status, nas_identifier: &str, id: &str) {
        let mut attributes = Attributes::new();
        let _ = attributes.push(kind::NAS_IDENTIFIER, nas_identifier.as_bytes());
        let _ = attributes.push(kind::ACCT_SESSION_ID, id.as_bytes());
        self.put(now, status, attributes);
    }

    /// Reports that a session began.
    pub fn start(&mut self, now: Instant, session: &Session) {
        self.put(now, Status::Start, session.attributes.clone());
    }

    /// Reports what a session has done so far.
    pub fn interim(&mut self, now: Instant, session: &Session, so_far: &Traffic) {
        self.put(now, Status::Interim, with_traffic(now, session, so_far));
    }

    /// Reports that a session ended.
    pub fn stop(&mut self, now: Instant, session: &Session, end: &SessionEnd) {
        let mut attributes = with_traffic(now, session, &end.traffic);
        let _ = attributes.push_number(kind::ACCT_TERMINATE_CAUSE, terminate_cause(end.cause));
        self.put(now, Status::Stop, attributes);
    }

    /// How many records no server has taken yet.
    pub fn pending(&self) -> usize {
        self.waiting.len() + self.under_way
    }

    /// The records that no server has taken yet.
    pub fn into_records(self) -> VecDeque<Record> {
        self.pool.into_tokens().chain(self.waiting).collect()
    }

    /// Goes on with the records of another.
    pub fn take_over(&mut self, now: Instant, records: VecDeque<Record>) {
        self.waiting.extend(records);
        self.fill(now);
        self.shed();
    }

    fn put(&mut self, now: Instant, status: Status, attributes: Attributes) {
        let mut all = Attributes::new();
        let _ = all.push_number(kind::ACCT_STATUS_TYPE, status as u32);
        // RFC 2869 §5.3: the record says when it happened, however late it arrives, and stays the same octets.
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let _ = all.push_number(kind::EVENT_TIMESTAMP, at as u32);
        let _ = all.push_number(kind::ACCT_AUTHENTIC, AUTHENTIC_RADIUS);
        let _ = all.append(&attributes);
        self.waiting.push_back(Record { status, attributes: all });
        self.fill(now);
        self.shed();
    }

    /// Takes note of what became of a record.
    pub fn on_outcome(&mut self, now: Instant, record: Record, answer: Option<&Answer>) {
        self.under_way -= 1;
        if answer.is_some() {
            self.window = (self.window * 2).min(RADIUS_RECORDS_UNDER_WAY_MAX);
        } else {
            self.window = (self.window / 2).max(1);
            self.waiting.push_back(record);
        }
        self.fill(now);
        self.shed();
    }

    fn fill(&mut self, now: Instant) {
        while self.under_way < self.window
            && let Some(record) = self.waiting.pop_front()
        {
            self.under_way += 1;
            self.pool.ask(now, record.attributes.clone(), None, record);
        }
    }

    /// Drops what is beyond the bound: a report that a later one makes needless, else the oldest.
    fn shed(&mut self) {
        while self.waiting.len() > self.waiting_max {
            let interim = self.waiting.iter().position(|record| record.status == Status::Interim);
            self.waiting.remove(interim.unwrap_or_default());
            self.counters.lost();
        }
    }
}

fn with_traffic(now: Instant, session: &Session, traffic: &Traffic) -> Attributes {
    let mut attributes = session.attributes.clone();
    let time = now.saturating_duration_since(session.since).as_secs();
    let _ = attributes.push_number(kind::ACCT_SESSION_TIME, u32::try_from(time).unwrap_or(u32::MAX));
    // Input is what comes from the user (RFC 2866 §5.3).
    for (low, high, octets) in [
        (kind::ACCT_INPUT_OCTETS, kind::ACCT_INPUT_GIGAWORDS, traffic.bytes_in),
        (kind::ACCT_OUTPUT_OCTETS, kind::ACCT_OUTPUT_GIGAWORDS, traffic.bytes_out),
    ] {
        let _ = attributes.push_number(low, octets as u32);
        let _ = attributes.push_number(high, (octets >> 32) as u32);
    }
    let _ = attributes.push_number(kind::ACCT_INPUT_PACKETS, traffic.packets_in as u32);
    let _ = attributes.push_number(kind::ACCT_OUTPUT_PACKETS, traffic.packets_out as u32);
    attributes
}

/// Acct-Terminate-Cause (RFC 2866 §5.10).
fn terminate_cause(cause: EndCause) -> u32 {
    match cause {
        EndCause::Peer => 1,
        EndCause::Lost => 2,
        EndCause::Timeout => 5,
        EndCause::Administrator | EndCause::Server => 6,
        EndCause::Shutdown => 7,
        EndCause::Error => 9,
        EndCause::Replaced => 13,
    }
}

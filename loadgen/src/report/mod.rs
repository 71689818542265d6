//! What a command tells: progress while it runs, a table at the end, and the JSON of the contract.

mod account;
pub mod evidence;
mod json;
mod latency;
mod progress;
mod table;

pub use account::Account;
pub use evidence::NetworkSection;
pub use json::{
    AttachSection, ChurnSection, DetachSection, DirectionSection, GatewaySection, HoldSection,
    LatencySection, LoadgenSection, Report, SinkSection, StormSection, VoiceSection, attach_section,
    failure_counts, write_json,
};
pub use latency::{Latencies, LatencySummary};
pub use progress::Progress;
pub use table::Table;

//! What loadgen reads from, and asks of, the machine it runs on: clocks, cores, namespaces, process accounting, dropped packets.

pub mod affinity;
pub mod big_tcp;
pub mod clock;
pub mod drops;
pub mod iproute;
pub mod netns;
pub mod privilege;
pub mod process;
pub mod signal;
pub mod socket;
pub mod tcp_info;

//! What a worker counts, readable by any thread at any time without stopping it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why the packet path dropped something; the label of `swugate_drops_total{reason}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum DropReason {
    /// The stream did not start with the prefix (RFC 9329 §4); the connection was closed.
    PrefixMismatch,
    /// A Length of 0 or 1 (RFC 9329 §3.1); the connection was closed.
    BadLength,
    /// A frame that is neither IKE, ESP nor keepalive.
    Unparseable,
    /// The first octets at a port for TLS or FTT that are neither; the connection was closed.
    NotTls,
    /// A TLS handshake that came to nothing; the connection was closed.
    TlsHandshake,
    /// A TLS handshake beyond those that may be under way; the connection was closed.
    TlsHandshakes,
    /// A TLS record that does not verify, or a message of TLS out of place; the connection was closed.
    TlsRecord,
    /// An unfinished frame beyond the worker's limit; the connection, which had no session, was closed.
    Unfinished,
    /// ESP with an SPI no SA has.
    UnknownSpi,
    /// ESP with an SPI whose SA was removed in the last seconds.
    RetiredSpi,
    /// ESP for a Child SA that the gateway offered, beyond what may wait for it or without it coming about.
    EarlyEsp,
    /// ESP of another session's SA on a connection that carries a session (RFC 9329 §6.1).
    ForeignSpi,
    /// ESP too short for its algorithms.
    EspTooShort,
    /// A sequence number seen before (RFC 4303 §3.4.3).
    Replayed,
    /// A sequence number left of the replay window.
    LeftOfWindow,
    /// The ICV of a known SPI did not verify; the connection was closed.
    BadIcv,
    /// Padding other than 1, 2, 3, …
    BadPadding,
    /// A Next Header other than IPv4, IPv6 and the dummy 59.
    BadNextHeader,
    /// An inner packet shorter than its own header says, or malformed.
    BadInnerPacket,
    /// A dummy packet (RFC 4303 §2.6): expected, never delivered.
    Dummy,
    /// An uplink packet outside the Child SA's selectors.
    UplinkSelector,
    /// An uplink packet to an address of the gateway itself.
    ToGateway,
    /// A packet from one UE to another while hairpin is off.
    UeToUe,
    /// The inner device did not take the packet.
    DeviceWrite,
    /// The inner device had no room for the packet.
    DeviceBacklog,
    /// The inner device could not be read; nothing is known of what it held.
    DeviceRead,
    /// A downlink packet for an address no session has.
    NoSession,
    /// A downlink packet outside the Child SA's selectors.
    DownlinkSelector,
    /// A downlink packet larger than the inner MTU; the sender was told.
    TooBig,
    /// A downlink packet for a session whose connection is gone.
    NoConnection,
    /// The connection's send queue is full.
    SendQueueFull,
    /// All send blocks of the worker are in use.
    SendMemory,
    /// A downlink packet whose virtio-net header contradicts it.
    BadOffload,
    /// A downlink packet had waited too long (RFC 8289).
    Codel,
    /// A downlink packet of a call had waited longer than a call has a use for it (`[inner] voice_late_ms`).
    VoiceLate,
    /// The oldest packets of a UE that held as much of the flow queue as it may.
    FlowQueueFull,
    /// The oldest packets of the UE that held most of the worker's flow queues, which were full.
    FlowMemory,
    /// The outbound sequence numbers of the SA are used up.
    SequenceExhausted,
    /// Another worker's inbox is full.
    HandoffFull,
    /// The control thread's queue is full.
    ControlQueueFull,
    /// More IKE messages on one connection than may be unanswered; the connection was closed.
    IkeFlood,
    /// An IKE message over UDP while as many as may be are unanswered.
    UdpIkeFlood,
    /// ESP over UDP of a session that lives on TCP (RFC 9329 §5).
    TcpBound,
    /// The kernel did not take a datagram.
    UdpSend,
    /// An IKE message for a connection that is gone.
    IkeNoConnection,
    /// The backlog of IKE messages to a peer that does not read; the connection was closed.
    IkeBacklog,
}

impl DropReason {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 46] = [
        Self::PrefixMismatch,
        Self::BadLength,
        Self::Unparseable,
        Self::NotTls,
        Self::TlsHandshake,
        Self::TlsHandshakes,
        Self::TlsRecord,
        Self::Unfinished,
        Self::UnknownSpi,
        Self::RetiredSpi,
        Self::EarlyEsp,
        Self::ForeignSpi,
        Self::EspTooShort,
        Self::Replayed,
        Self::LeftOfWindow,
        Self::BadIcv,
        Self::BadPadding,
        Self::BadNextHeader,
        Self::BadInnerPacket,
        Self::Dummy,
        Self::UplinkSelector,
        Self::ToGateway,
        Self::UeToUe,
        Self::DeviceWrite,
        Self::DeviceBacklog,
        Self::DeviceRead,
        Self::NoSession,
        Self::DownlinkSelector,
        Self::TooBig,
        Self::NoConnection,
        Self::SendQueueFull,
        Self::SendMemory,
        Self::BadOffload,
        Self::Codel,
        Self::VoiceLate,
        Self::FlowQueueFull,
        Self::FlowMemory,
        Self::SequenceExhausted,
        Self::HandoffFull,
        Self::ControlQueueFull,
        Self::IkeFlood,
        Self::UdpIkeFlood,
        Self::TcpBound,
        Self::UdpSend,
        Self::IkeNoConnection,
        Self::IkeBacklog,
    ];

    /// The label in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PrefixMismatch => "prefix_mismatch",
            Self::BadLength => "bad_length",
            Self::Unparseable => "unparseable",
            Self::NotTls => "not_tls",
            Self::TlsHandshake => "tls_handshake",
            Self::TlsHandshakes => "tls_handshakes",
            Self::TlsRecord => "tls_record",
            Self::Unfinished => "unfinished",
            Self::UnknownSpi => "unknown_spi",
            Self::RetiredSpi => "retired_spi",
            Self::EarlyEsp => "early_esp",
            Self::ForeignSpi => "foreign_spi",
            Self::EspTooShort => "esp_too_short",
            Self::Replayed => "replayed",
            Self::LeftOfWindow => "left_of_window",
            Self::BadIcv => "bad_icv",
            Self::BadPadding => "bad_padding",
            Self::BadNextHeader => "bad_next_header",
            Self::BadInnerPacket => "bad_inner_packet",
            Self::Dummy => "dummy",
            Self::UplinkSelector => "uplink_selector",
            Self::ToGateway => "to_gateway",
            Self::UeToUe => "ue_to_ue",
            Self::DeviceWrite => "device_write",
            Self::DeviceBacklog => "device_backlog",
            Self::DeviceRead => "device_read",
            Self::NoSession => "no_session",
            Self::DownlinkSelector => "downlink_selector",
            Self::TooBig => "too_big",
            Self::NoConnection => "no_connection",
            Self::SendQueueFull => "send_queue_full",
            Self::SendMemory => "send_memory",
            Self::BadOffload => "bad_offload",
            Self::Codel => "codel",
            Self::VoiceLate => "voice_late",
            Self::FlowQueueFull => "flow_queue_full",
            Self::FlowMemory => "flow_memory",
            Self::SequenceExhausted => "sequence_exhausted",
            Self::HandoffFull => "handoff_full",
            Self::ControlQueueFull => "control_queue_full",
            Self::IkeFlood => "ike_flood",
            Self::UdpIkeFlood => "udp_ike_flood",
            Self::TcpBound => "tcp_bound",
            Self::UdpSend => "udp_send",
            Self::IkeNoConnection => "ike_no_connection",
            Self::IkeBacklog => "ike_backlog",
        }
    }
}

/// Why a worker closed a connection or refused it; the label of `swugate_connections_closed_total{cause}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum CloseCause {
    /// The peer closed or reset it.
    Peer,
    /// A wrong prefix, a Length of 0 or 1.
    Framing,
    /// TLS could not begin, or not go on.
    Tls,
    /// The prefix did not arrive in time (D1), or the TLS handshake before it.
    PrefixTimeout,
    /// No usable message arrived in time (D2).
    FirstMessageTimeout,
    /// A puzzle was not solved in time (RFC 9329 §6.3).
    ChallengeTimeout,
    /// Too many bad messages in a row (D5).
    Corrupted,
    /// An ICV of a known SPI failed (D6).
    AuthFailed,
    /// Its session is over and the peer did not reuse it.
    SessionOver,
    /// Idle after its session moved to another connection.
    Replaced,
    /// For IKE alone, and nothing came for a while.
    Idle,
    /// Too many messages unanswered, or unread by the peer.
    Backlog,
    /// The worker's, or the source's, limit of connections was reached: refused at accept. Or the limit of
    /// unfinished frames.
    Limit,
    /// The control thread asked for it.
    Control,
    /// It moved to another worker.
    Moved,
}

impl CloseCause {
    /// Every cause, in the order of their discriminants.
    pub const ALL: [Self; 15] = [
        Self::Peer,
        Self::Framing,
        Self::Tls,
        Self::PrefixTimeout,
        Self::FirstMessageTimeout,
        Self::ChallengeTimeout,
        Self::Corrupted,
        Self::AuthFailed,
        Self::SessionOver,
        Self::Replaced,
        Self::Idle,
        Self::Backlog,
        Self::Limit,
        Self::Control,
        Self::Moved,
    ];

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Framing => "framing",
            Self::Tls => "tls",
            Self::PrefixTimeout => "prefix_timeout",
            Self::FirstMessageTimeout => "first_message_timeout",
            Self::ChallengeTimeout => "challenge_timeout",
            Self::Corrupted => "corrupted",
            Self::AuthFailed => "auth_failed",
            Self::SessionOver => "session_over",
            Self::Replaced => "replaced",
            Self::Idle => "idle",
            Self::Backlog => "backlog",
            Self::Limit => "limit",
            Self::Control => "control",
            Self::Moved => "moved",
        }
    }
}

/// A number one thread writes and any thread reads.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker calls this: a plain load and store, no locked instruction.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Replaces the value; for gauges.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value, possibly a moment old.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of one worker. Aligned so that no two workers share a cache line.
#[derive(Default, Debug)]
#[repr(align(128))]
pub struct WorkerCounters {
    /// Connections open now.
    pub connections: Counter,
    /// Connections accepted since start.
    pub accepted: Counter,
    /// Child SAs installed now.
    pub sas: Counter,
    /// Inner packets delivered to the core.
    pub uplink_packets: Counter,
    /// Their octets.
    pub uplink_bytes: Counter,
    /// Inner packets sealed towards UEs.
    pub downlink_packets: Counter,
    /// Their octets.
    pub downlink_bytes: Counter,
    /// Writes to the inner device that carried them; a super-packet is one.
    pub device_writes: Counter,
    /// Downlink packets marked with congestion experienced instead of being dropped (RFC 3168).
    pub ecn_marked: Counter,
    /// IKE messages received.
    pub ike_received: Counter,
    /// IKE messages sent.
    pub ike_sent: Counter,
    /// Times a connection found no receive buffer and waited for one.
    pub receive_starved: Counter,
    /// Turns that found completions kept back by the kernel because their queue was full: late, never lost.
    pub ring_overflows: Counter,
    /// Sends without a copy that are over.
    pub zero_copy_sends: Counter,
    /// Those of them that the kernel copied after all.
    pub zero_copy_copied: Counter,
    /// Connections handed to another worker.
    pub handed_over: Counter,
    /// UDP paths that sessions live on now.
    pub udp_paths: Counter,
    /// Datagrams received.
    pub udp_received: Counter,
    /// Datagrams given to the kernel, those it did not take included.
    pub udp_sent: Counter,
    /// ESP datagrams passed to the worker their SPI names.
    pub udp_strays: Counter,
    /// CPU time of the worker thread in nanoseconds, refreshed about once a second.
    pub cpu_ns: Counter,
    drops: PerKind<{ DropReason::ALL.len() }>,
    closes: PerKind<{ CloseCause::ALL.len() }>,
}

/// A counter per kind of event.
#[derive(Debug)]
struct PerKind<const N: usize>([Counter; N]);

impl<const N: usize> Default for PerKind<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl WorkerCounters {
    /// Counts one drop.
    pub fn dropped(&self, reason: DropReason) {
        self.drops.0[reason as usize].add(1);
    }

    /// Counts `n` drops of one reason.
    pub fn dropped_many(&self, reason: DropReason, n: u64) {
        self.drops.0[reason as usize].add(n);
    }

    /// Counts one closed or refused connection.
    pub fn closed(&self, cause: CloseCause) {
        self.closes.0[cause as usize].add(1);
    }

    /// Every drop reason with its count.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DropReason::ALL.iter().map(|&reason| (reason.as_str(), self.drops.0[reason as usize].get()))
    }

    /// Every close cause with its count.
    pub fn closes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CloseCause::ALL.iter().map(|&cause| (cause.as_str(), self.closes.0[cause as usize].get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_cause_stands_at_its_discriminant_under_its_own_name() {
        let mut names = std::collections::HashSet::new();
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(names.insert(reason.as_str()));
        }
        for (index, cause) in CloseCause::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, index);
        }
    }

    #[test]
    fn a_drop_is_counted_once_under_its_reason() {
        let counters = WorkerCounters::default();
        counters.dropped(DropReason::Replayed);
        assert_eq!(counters.drops().map(|(_, n)| n).sum::<u64>(), 1);
        assert!(counters.drops().any(|drop| drop == ("replayed", 1)));
    }
}

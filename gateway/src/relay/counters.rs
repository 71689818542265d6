//! What a relay worker counts, readable by any thread without stopping it.

use crate::worker::counters::Counter;

macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$kind_doc:meta])* $kind:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum $name { $($(#[$kind_doc])* $kind,)+ }

        impl $name {
            /// Every kind with its label, in the order of their discriminants.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$kind, $label),)+];
        }
    };
}

kinds! {
    /// Why a relay dropped something; the label of `swugate_drops_total{reason}`.
    RelayDrop {
        /// The stream did not start with the prefix (RFC 9329 §4); the connection was closed.
        PrefixMismatch = "prefix_mismatch",
        /// A Length of 0 or 1 (RFC 9329 §3.1); the connection was closed.
        BadLength = "bad_length",
        /// A frame that is neither IKE, ESP nor keepalive.
        Unparseable = "unparseable",
        /// The first octets at a port for TLS or FTT that are neither; the connection was closed.
        NotTls = "not_tls",
        /// A TLS handshake that came to nothing; the connection was closed.
        TlsHandshake = "tls_handshake",
        /// A TLS record that does not verify, or a message of TLS out of place; the connection was closed.
        TlsRecord = "tls_record",
        /// An unfinished frame beyond the worker's limit; the connection was closed.
        Unfinished = "unfinished",
        /// An IKE message whose header contradicts it.
        IkeMalformed = "ike_malformed",
        /// An IKE message that had passed before.
        IkeDuplicate = "ike_duplicate",
        /// An IKE request beyond those a connection may have unanswered.
        IkeWindowFull = "ike_window_full",
        /// An IKE request beyond the memory of the worker for them.
        IkeMemory = "ike_memory",
        /// An IKE request the backend never answered.
        IkeGivenUp = "ike_given_up",
        /// A datagram the kernel did not take towards the backend.
        BackendSend = "backend_send",
        /// A datagram of the backend that is neither IKE nor ESP.
        BackendUnparseable = "backend_unparseable",
        /// A downlink packet for a connection that does not drain.
        SendQueueFull = "send_queue_full",
    }
}

kinds! {
    /// Why a relay closed a connection; the label of `swugate_connections_closed_total{cause}`.
    RelayClose {
        /// The peer closed or reset it.
        Peer = "peer",
        /// A wrong prefix, a Length of 0 or 1.
        Framing = "framing",
        /// TLS could not begin, or not go on.
        Tls = "tls",
        /// The prefix did not arrive in time (D1).
        PrefixTimeout = "prefix_timeout",
        /// The backend answered nothing in time (D2).
        FirstMessageTimeout = "first_message_timeout",
        /// The IKE SA was not established in time.
        HalfOpenTimeout = "half_open_timeout",
        /// Too many unusable frames in a row (D5).
        Corrupted = "corrupted",
        /// The peer does not read its IKE messages.
        Backlog = "backlog",
        /// A limit was reached.
        Limit = "limit",
        /// Nothing passed for `limits.relay_idle_s`.
        Idle = "idle",
        /// There was no UDP port for it.
        NoPort = "no_port",
        /// An administrator, or the end of the process.
        Control = "control",
    }
}

/// The counters of one worker. Aligned so that no two workers share a cache line.
#[derive(Default)]
#[repr(align(128))]
pub struct RelayCounters {
    /// Connections open now.
    pub connections: Counter,
    /// Those of them whose IKE SA the backend has established, as far as can be told.
    pub established: Counter,
    /// Those the backend has answered, but not that far.
    pub half_open: Counter,
    /// ESP packets to the backend.
    pub uplink_packets: Counter,
    /// Their octets.
    pub uplink_bytes: Counter,
    /// ESP packets from the backend that went down a connection.
    pub downlink_packets: Counter,
    /// Their octets.
    pub downlink_bytes: Counter,
    /// IKE messages that passed, both ways.
    pub ike_messages: Counter,
    /// IKE messages sent to the backend again.
    pub ike_resent: Counter,
    /// CPU time of the worker thread in nanoseconds, refreshed about once a second.
    pub cpu_ns: Counter,
    drops: [Counter; RelayDrop::ALL.len()],
    closes: [Counter; RelayClose::ALL.len()],
}

impl RelayCounters {
    /// Counts `n` drops.
    pub fn dropped(&self, reason: RelayDrop, n: usize) {
        self.drops[reason as usize].add(n as u64);
    }

    /// Counts one closed or refused connection.
    pub fn closed(&self, cause: RelayClose) {
        self.closes[cause as usize].add(1);
    }

    /// Every drop reason with its count.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RelayDrop::ALL.iter().zip(&self.drops).map(|((_, label), counter)| (*label, counter.get()))
    }

    /// Every close cause with its count.
    pub fn closes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RelayClose::ALL.iter().zip(&self.closes).map(|((_, label), counter)| (*label, counter.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_is_counted_under_its_own_label() {
        let counters = RelayCounters::default();
        counters.dropped(RelayDrop::SendQueueFull, 3);
        counters.closed(RelayClose::Control);
        assert_eq!(counters.drops().find(|(_, n)| *n > 0), Some(("send_queue_full", 3)));
        assert_eq!(counters.closes().find(|(_, n)| *n > 0), Some(("control", 1)));
        assert!(RelayDrop::ALL.iter().enumerate().all(|(at, (kind, _))| *kind as usize == at));
        assert!(RelayClose::ALL.iter().enumerate().all(|(at, (kind, _))| *kind as usize == at));
    }
}

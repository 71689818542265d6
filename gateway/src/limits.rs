//! Every bound of the process: `[limits]` of the configuration.
//!
//! One table defines name, default, unit, allowed range and the memory a limit can cost at worst. The
//! sum of the worst cases is the memory an attacker can make swugate hold; kernel socket memory
//! (about 5 KB for an idle connection) comes on top and is bounded by [`Limits::connections`].

/// Requests of one leg of a bridge (relay, originate) kept with their answers, per connection. A peer has one
/// under way unless it negotiated a larger window (RFC 7296 §2.3).
pub const BRIDGE_EXCHANGES_MAX: usize = 16;

/// Octets of those requests and answers, per leg and connection: four messages of the greatest length.
pub const BRIDGE_OCTETS_MAX: usize = 256 * 1024;

/// Fragments of one IKE message (RFC 7383) that a bridge takes, as many as the gateway does: 65,535 octets in packets of
/// 576 octets, the smallest that §2.5.1 advises, are fewer than 150.
pub const BRIDGE_FRAGMENTS_MAX: u16 = 256;

/// Octets of IKE that wait on one connection of a bridge that does not drain, besides its ESP. Beyond it a relay closes
/// the connection; originate takes no more of its client, which sends it again, and replaces a connection on which the
/// gateway asks again and again without reading.
pub const BRIDGE_IKE_BACKLOG_OCTETS: usize = 128 * 1024;

/// Reports of a worker that may wait for the control thread beyond its queue: with so many no further connection is taken,
/// since each brings more. Memory: about 200 octets each, per worker.
pub const LATE_REPORTS_MAX: usize = 65_536;

/// Connections of a worker whose path is watched at once, because a call shares them with something busy. On the others
/// calls wait in the path's queue. Memory: a descriptor and 200 octets each.
pub const WATCHED_MAX: usize = 1_024;

/// Octets of the packets that other workers have passed on and that wait in one worker's inbox: ESP datagrams and inner
/// packets that the kernel gave to a worker they are not for, all of them where no steering program can be attached. Each
/// of the others has the same part of it, and 65,600 octets at least; further packets are dropped and counted
/// (`handoff_full`). Memory: this per worker.
pub const PASSED_OCTETS_MAX: usize = 16 << 20;

/// IKE SAs one `swugate originate` carries, a connection each. Memory: 5 KB each, what its IKE exchanges keep
/// (above), and 384 KB while its connection does not drain: [`ORIGINATE_QUEUE_OCTETS`] and
/// [`BRIDGE_IKE_BACKLOG_OCTETS`].
pub const ORIGINATE_LINKS_MAX: usize = 16_384;

/// IKE SAs of one local address among them.
pub const ORIGINATE_LINKS_PER_CLIENT: usize = 1_024;

/// IKE SPIs of one of them that are remembered; the one used longest ago makes room. An IKE SA that is rekeyed has
/// two, or four when both ends begin at once (RFC 7296 §2.8.1). Memory: 100 octets each.
pub const ORIGINATE_IKE_SPIS_PER_LINK: usize = 16;

/// Ports of its client that are remembered for one of them, in the same way: one, and another after each time a NAT
/// on the way forgets it. Memory: 100 octets each.
pub const ORIGINATE_SOURCES_PER_LINK: usize = 16;

/// ESP SPIs of local clients that are remembered with the IKE SA they belong to.
pub const ORIGINATE_SPIS_MAX: usize = 65_536;

/// Octets of ESP that wait for a connection that is being opened, per IKE SA.
pub const ORIGINATE_HELD_OCTETS: usize = 64 * 1024;

/// Octets that wait on a connection that does not drain, per IKE SA; further ESP is dropped.
pub const ORIGINATE_QUEUE_OCTETS: usize = 256 * 1024;

/// EAP requests of one EAP-AKA authentication. The longest honest one has eight: three identities, a re-authentication
/// whose counter was too small, a challenge out of step, another, a notification, and one of a method refused by a Nak.
pub const AKA_REQUESTS_MAX: u32 = 10;

/// Inner networks of one process. Memory: a queue of the kernel's per worker and network (12 MB when full).
pub const NETWORKS_MAX: usize = 16;

/// Largest Diameter message taken, octets. An EAP packet is at most 64 KB and mostly below 4 KB.
pub const DIAMETER_MESSAGE_MAX: usize = 65_532;

/// Servers of one Diameter back end.
pub const DIAMETER_SERVERS_MAX: usize = 8;

/// Requests of one Diameter back end without an answer; the peers of further ones are refused. Memory: 2 KB each.
pub const DIAMETER_OUTSTANDING_MAX: usize = 65_536;

/// Messages that wait for a Diameter connection that does not drain; one more and it is given up.
pub const DIAMETER_UNSENT_MAX: usize = 16_384;

/// Octets of State and Class AVPs that a Diameter session keeps for its server.
pub const DIAMETER_KEPT_OCTETS_MAX: usize = 1_024;

/// RADIUS servers of one kind in one `[[aaa]]`.
pub const RADIUS_SERVERS_MAX: usize = 16;

/// RadSec connections to one server, of 256 requests each.
pub const RADIUS_STREAMS_MAX: usize = 8;

/// Packets from all servers of an `[[aaa]]` that wait to be looked at; what comes then stays in the kernel's buffers, or is
/// lost there. Memory: 4 KB each.
pub const RADIUS_ARRIVALS_MAX: usize = 4_096;

/// Accounting records under way at once; others wait (`accounting_queue` of `[[aaa]]`).
pub const RADIUS_RECORDS_UNDER_WAY_MAX: usize = 1_024;

/// Answers to Disconnect and CoA requests that are kept for repetitions. Memory: 4 KB each.
pub const RADIUS_ANSWERED_MAX: usize = 256;

/// The range and unit of one limit, as the configuration reader and the documentation need them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Key in `[limits]`.
    pub name: &'static str,
    /// Value when the key is absent.
    pub default: u64,
    /// Least value allowed.
    pub min: u64,
    /// Greatest value allowed.
    pub max: u64,
    /// What is counted.
    pub unit: &'static str,
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $default:literal, $min:literal..=$max:literal, $unit:literal;)+) => {
        /// Bounds of the process. Each field's doc gives meaning, range and worst-case memory.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct Limits {
            $($(#[$doc])* #[doc = concat!("\n\nUnit: ", $unit, ". Default ", $default, ", allowed ", $min, " to ", $max, ".")]
            pub $name: $kind,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Limits {
            /// All limits in file order.
            pub const TABLE: &'static [Bounds] = &[$(Bounds {
                name: stringify!($name), default: $default, min: $min, max: $max, unit: $unit,
            },)+];

            /// Sets the limit called `name`; the reader has checked `value` against [`Limits::TABLE`].
            pub fn set(&mut self, name: &str, value: u64) {
                match name {
                    $(stringify!($name) => self.$name = <$kind>::try_from(value).unwrap_or(<$kind>::MAX),)+
                    _ => {}
                }
            }

            /// The value of the limit called `name`.
            pub fn get(&self, name: &str) -> Option<u64> {
                match name {
                    $(stringify!($name) => Some(self.$name as u64),)+
                    _ => None,
                }
            }
        }
    };
}

limits! {
    /// Peer connections of the whole process, shared equally among the workers; further ones are closed
    /// at accept. Memory: 0.5 KB each in user space once it is open, about 5 KB in the kernel.
    connections: u32 = 100_000, 64..=4_000_000, "connections";
    /// Peer connections from one source address on one worker; a CGNAT or a hotspot is one address.
    /// Memory: included in `connections`.
    connections_per_source: u32 = 16_384, 1..=4_000_000, "connections";
    /// Established sessions of the whole process. Memory: 2 KB each, and `children_per_session` on top.
    sessions: u32 = 1_000_000, 1..=8_000_000, "sessions";
    /// Child SAs of one session. Memory: 1 KB each.
    children_per_session: u32 = 16, 1..=64, "Child SAs";
    /// Half-open IKE SAs of the whole process. Memory: 4 KB each, 12 KB while the UE authenticates by EAP.
    half_open: u32 = 32_768, 1..=1_000_000, "IKE SAs";
    /// Half-open IKE SAs from one source address. Memory: included in `half_open`.
    half_open_per_source: u32 = 8_192, 1..=1_000_000, "IKE SAs";
    /// Half-open IKE SAs from which on an IKE_SA_INIT over UDP is answered with a cookie (RFC 7296 §2.6) and
    /// nothing of it kept; 0 asks everybody. Memory: none.
    cookies_from: u32 = 1_024, 0..=1_000_000, "IKE SAs";
    /// Half-open IKE SAs from which on an IKE_SA_INIT over TCP is answered with a cookie and a puzzle (RFC 8019) and
    /// nothing of it kept; 0 asks everybody. Memory: none.
    puzzles_from: u32 = 16_384, 0..=1_000_000, "IKE SAs";
    /// Difficulty of a puzzle: about 2^(bits + 2) PRF computations of the UE, at most four of ours. Memory: none.
    puzzle_bits: u8 = 14, 1..=24, "zero bits";
    /// Time a connection has to come back with a solution (RFC 9329 §6.3); harder puzzles need more. Memory: none.
    challenge_s: u32 = 8, 5..=60, "seconds";
    /// UEs that return a cookie but no solution and are served all the same, per second. Memory: none.
    unsolved_per_s: u32 = 64, 1..=100_000, "requests";
    /// Such UEs that wait for their turn; beyond it the one that waited longest gets none. Memory: 4 KB each.
    unsolved: u32 = 1_024, 1..=65_536, "requests";
    /// IKE_SA_INIT requests served per second, and as many at once; those beyond it wait. Memory: none.
    sa_init_per_s: u32 = 10_000, 1..=1_000_000, "requests";
    /// The same for those of one network (IPv4 /24, IPv6 /48); a carrier-grade NAT is one. Those beyond it are dropped.
    /// Memory: 64 octets for each network of the last second, 4 MB at most.
    sa_init_per_prefix_per_s: u32 = 10_000, 1..=1_000_000, "requests";
    /// Requests that wait for their turn; further ones are dropped. Memory: 4 KB each.
    sa_init_queue: u32 = 16_384, 0..=1_000_000, "requests";
    /// How long they wait: less than a UE does before it gives up. Memory: none.
    sa_init_wait_ms: u32 = 4_000, 1..=30_000, "milliseconds";
    /// Half-open IKE SAs, and sessions, kept free for emergencies where a profile serves them; an eighth of all at most.
    /// Memory: included in `half_open` and `sessions`.
    emergency_reserved: u32 = 256, 0..=1_000_000, "IKE SAs";
    /// Time a UE has to authenticate by EAP; servers and people take theirs. Memory: none.
    eap_s: u32 = 60, 5..=600, "seconds";
    /// Failed attempts kept for `sessions --failed`. Memory: 1 KB each.
    failed_attempts: u32 = 1_024, 0..=1_000_000, "attempts";
    /// Resumption tickets remembered as used until they expire; beyond it tickets of the same age and older are no longer
    /// taken. Memory: 64 octets each.
    used_tickets: u32 = 262_144, 16..=16_777_216, "tickets";
    /// Time after which a request of ours is sent again over UDP; twice as long each time after. Memory: none.
    retransmit_first_ms: u32 = 1_000, 100..=30_000, "milliseconds";
    /// Time a connection has for the six octets of the stream prefix (D1). Memory: none.
    prefix_s: u32 = 8, 1..=60, "seconds";
    /// TLS handshakes under way at once on one worker; beyond it the connection whose handshake began first is closed.
    /// Memory: 8 KB each.
    tls_handshakes: u32 = 2_048, 1..=1_000_000, "handshakes";
    /// Time a connection has until a message finds or makes an IKE SA (D2). Memory: none.
    first_message_s: u32 = 15, 1..=120, "seconds";
    /// Life of a half-open IKE SA. Memory: none.
    half_open_s: u32 = 30, 5..=300, "seconds";
    /// Time a connection whose session is gone stays open for reuse (RFC 9329 §6.1). Memory: none.
    linger_s: u32 = 5, 1..=300, "seconds";
    /// Idle time after which a connection that another one replaced is closed. Memory: none.
    replaced_idle_s: u32 = 60, 1..=3_600, "seconds";
    /// Unusable messages in a row after which a connection is closed (RFC 9329 §6.1). Memory: none.
    bad_messages: u32 = 16, 4..=1_000, "messages";
    /// Longest IKE message handled. Memory: see `control_queue_octets`.
    ike_message_octets: u32 = 65_529, 1_500..=65_529, "octets";
    /// Longest IP packet that carries an IKE message over UDP to a UE that takes fragments (RFC 7383). Memory:
    /// none.
    ike_packet_octets: u32 = 1_280, 576..=9_000, "octets";
    /// Octets of IKE fragments that wait for others, of which one session may hold two messages. Memory: this,
    /// once.
    fragment_octets: u64 = 16_777_216, 131_072..=1_073_741_824, "octets";
    /// How long they wait. Memory: none.
    fragment_s: u32 = 15, 1..=120, "seconds";
    /// IKE messages of one connection waiting for the control thread; beyond it the connection is closed
    /// and its session stays. Memory: see `control_queue_octets`.
    ike_unanswered: u32 = 8, 2..=1_024, "messages";
    /// IKE messages over UDP of all senders waiting for the control thread, per worker; further ones are
    /// dropped. Memory: see `control_queue_octets`.
    udp_ike_unanswered: u32 = 4_096, 16..=1_048_576, "messages";
    /// Messages waiting in one worker's queue to the control thread; further IKE messages are dropped and
    /// counted. Memory: see `control_queue_octets`.
    control_queue: u32 = 262_144, 64..=1_048_576, "messages";
    /// Octets of the messages waiting there, 120 of them for each message besides an IKE message's own; what
    /// goes beyond is dropped as above. Memory: this per worker.
    control_queue_octets: u64 = 67_108_864, 1_048_576..=4_294_967_296, "octets";
    /// Messages waiting in one worker's inbox. Those with packets of other workers, whose octets [`PASSED_OCTETS_MAX`]
    /// bounds, are dropped when it is half full. Memory: 64 octets each and worker, and the IKE response in it.
    inbox: u32 = 16_384, 64..=1_048_576, "messages";
    /// Messages the control thread holds back for one worker whose inbox is full; beyond it the control
    /// thread takes no further work. Memory: as `inbox`.
    inbox_backlog: u32 = 65_536, 64..=1_048_576, "messages";
    /// Octets of ESP frames waiting on one connection beyond those in flight where `[inner] flow_queue` is
    /// off; further packets are dropped before they get a sequence number. Memory: this for each connection that does not drain, within
    /// `send_memory_octets`.
    send_queue_octets: u32 = 262_144, 65_536..=16_777_216, "octets";
    /// Octets of all send blocks of one worker, in use and kept for the next time. From half of it in use a
    /// connection may hold less of it, and those whose peers do not read are closed (`backlog`), the sooner the less is left.
    /// Memory: this per worker.
    send_memory_octets: u64 = 268_435_456, 4_194_304..=68_719_476_736, "octets";
    /// Sends of so many octets or more leave without a copy (SEND_ZC), smaller ones by copy; 0: all by copy. Costs what
    /// is in flight: such a block is lent, and counts towards `send_memory_octets`, until the peer has acknowledged it.
    /// For network cards that gather; between namespaces and virtual machines the kernel mostly copies after all,
    /// which `stats` counts as `zero_copy_copied`.
    zero_copy_send_octets: u64 = 0, 0..=262_144, "octets, 0 for never";
    /// Octets of inner packets of one UE that wait to be encrypted (`[inner] flow_queue`), by the buffers
    /// they lie in; beyond it the oldest of its fattest flow are dropped. Memory: this for each UE whose
    /// connection is slower than its traffic, within `flow_memory_octets`.
    flow_queue_octets: u32 = 4_194_304, 131_072..=1_073_741_824, "octets";
    /// Octets of inner packets of all UEs of one worker that wait to be encrypted; beyond it the oldest of
    /// the UE that holds most are dropped. Memory: this per worker, with the buffers kept for the next time, and 0.2 KB
    /// for each of the most packets that ever waited.
    flow_memory_octets: u64 = 134_217_728, 1_048_576..=68_719_476_736, "octets";
    /// Octets of the receive buffers of one worker, those of further rings included, of which each takes
    /// at least 64 KB. Memory: this per worker, half of it or more taken at start.
    receive_memory_octets: u64 = 8_388_608, 1_048_576..=4_294_967_296, "octets";
    /// Octets of the receive buffers for UDP of one worker that has UDP sockets. Memory: this per worker.
    udp_receive_memory_octets: u64 = 16_777_216, 1_048_576..=4_294_967_296, "octets";
    /// Octets of kernel memory of one UDP socket, in each direction; there is one per worker and address.
    /// Memory: twice this each, in the kernel.
    udp_socket_octets: u32 = 4_194_304, 65_536..=1_073_741_824, "octets";
    /// Octets of unfinished frames on connections of one worker that carry no session, of which each may
    /// hold 4 KB besides; beyond it the connection is closed. A connection with a session may always hold
    /// one frame. Memory: this per worker, and 4 KB or 64 KB for each connection inside a frame.
    unfinished_octets: u64 = 67_108_864, 1_048_576..=4_294_967_296, "octets";
    /// Time without any packet after which a relay closes a connection: it cannot tell an idle session from a
    /// dead one. Memory: none.
    relay_idle_s: u32 = 7_200, 60..=604_800, "seconds";
    /// Octets of the IKE messages that one worker of a relay keeps to repeat them; beyond it the connection
    /// that brought the last one is closed. Memory: this per worker.
    relay_ike_octets: u64 = 67_108_864, 1_048_576..=4_294_967_296, "octets";
    /// Octets of ESP that arrived before its Child SA, which the gateway offered, was in force. Memory: this
    /// per worker.
    early_octets: u64 = 4_194_304, 65_536..=1_073_741_824, "octets";
    /// Time SIGTERM leaves for deleting all sessions. Memory: none.
    drain_s: u32 = 4, 0..=3_600, "seconds";
    /// Connections to the control socket, and as many to the metrics listener. Memory: 64 KB each.
    admin_connections: u32 = 16, 1..=1_024, "connections";
    /// Lines logged per second and place for what a UE can cause. Memory: none.
    log_lines_per_s: u32 = 5, 1..=10_000, "lines";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_lie_in_their_ranges_and_match_the_table() {
        let limits = Limits::default();
        for bounds in Limits::TABLE {
            assert!((bounds.min..=bounds.max).contains(&bounds.default), "{}", bounds.name);
            assert_eq!(limits.get(bounds.name), Some(bounds.default), "{}", bounds.name);
        }
    }

    #[test]
    fn every_limit_can_be_set_to_its_ends() {
        for bounds in Limits::TABLE {
            for value in [bounds.min, bounds.max] {
                let mut limits = Limits::default();
                limits.set(bounds.name, value);
                assert_eq!(limits.get(bounds.name), Some(value), "{}", bounds.name);
            }
        }
    }

    #[test]
    fn one_carrier_nat_fits_the_defaults() {
        let limits = Limits::default();
        assert!(limits.connections_per_source >= 2_000);
        assert!(limits.half_open_per_source >= 1_000);
    }
}

//! Names shared by the worker threads and the control thread.
//!
//! Plain values only: nothing here owns a socket, a key or a clock, so the sans-IO responder may use
//! them without learning about I/O.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use codec::esp::{EspKeys, EspSpi, EspSuite};

/// Bits of a locally allocated ESP SPI that name its worker.
const OWNER_BITS: u32 = 6;

/// Most workers one process may run: what the owner bits of an SPI can name.
pub const WORKERS_MAX: usize = 1 << OWNER_BITS;

/// SPIs below this are reserved (RFC 4303 §2.1).
const SPI_RESERVED: u32 = 256;

/// An inner network (`[[inner]]`), counted from 0 in the order of the configuration. An inner address means something
/// within its network only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Default)]
pub struct NetworkId(pub u8);

impl NetworkId {
    /// Its place in tables of networks.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A worker thread, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct WorkerId(pub u8);

impl WorkerId {
    /// The worker that owns `spi`, by its low bits; it may be out of range when the SPI is not ours.
    pub fn of_spi(spi: EspSpi) -> Self {
        Self((spi.0 & (WORKERS_MAX as u32 - 1)) as u8)
    }

    /// Makes an inbound ESP SPI of this worker from 32 random bits, or `None` when the draw falls into
    /// the reserved range and must be repeated.
    pub fn spi(self, random: u32) -> Option<EspSpi> {
        let spi = random & !(WORKERS_MAX as u32 - 1) | u32::from(self.0);
        (spi >= SPI_RESERVED).then_some(EspSpi(spi))
    }

    /// The index into per-worker tables.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One peer connection for its lifetime on one worker. A slot is reused; its generation is not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnId {
    /// The worker that reads and writes it.
    pub worker: WorkerId,
    /// Index into that worker's connection table.
    pub slot: u32,
    /// Tells successive users of a slot apart.
    pub generation: u32,
}

impl ConnId {
    /// What a message over UDP came in on: the sockets of `worker`. They are not a connection, carry any number
    /// of sessions, and their [`Path`] says where an answer goes.
    pub const fn datagrams(worker: WorkerId) -> Self {
        Self { worker, slot: u32::MAX, generation: 0 }
    }

    /// Whether this stands for the UDP sockets of a worker.
    pub fn is_datagrams(self) -> bool {
        self == Self::datagrams(self.worker)
    }
}

/// One UE's session: an IKE SA and, across rekeys, its successors. Never reused within a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What carries IKE and ESP between the UE and the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// RFC 9329 over plain TCP.
    Tcp,
    /// RFC 9329 inside TLS (Appendix A).
    Tls,
    /// UDP 500 and 4500 (RFC 7296, RFC 3948).
    Udp,
    /// IKE alone over TCP 500 (draft-ietf-ipsecme-ike-tcp): messages come and are answered there, sessions and ESP
    /// are on UDP.
    IkeTcp,
}

impl Transport {
    /// The keyword of the configuration and of JSON output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Udp => "udp",
            Self::IkeTcp => "ike_tcp",
        }
    }

    /// Whether all of a session goes over it while it is there (RFC 9329 §5).
    pub fn encapsulates(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }
}

/// The outside addresses of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    /// Encapsulation in use.
    pub transport: Transport,
    /// Our address and port.
    pub local: SocketAddr,
    /// The UE's (or its NAT's) address and port.
    pub remote: SocketAddr,
}

/// The UDP port that carries IKE alone, without a non-ESP marker (RFC 7296 §2). All others carry both, as 4500
/// does (RFC 3948 §2).
pub const IKE_PORT: u16 = 500;

impl Path {
    /// Whether ESP may be sent on it.
    pub fn carries_esp(&self) -> bool {
        match self.transport {
            Transport::Tcp | Transport::Tls => true,
            Transport::Udp => self.local.port() != IKE_PORT,
            Transport::IkeTcp => false,
        }
    }

    /// Where the session of an IKE message that came on it is: of one over TCP 500 all that is known is the peer's
    /// address, so it is as if the message had come over UDP 500.
    pub fn of_session(&self) -> Self {
        match self.transport {
            Transport::IkeTcp => {
                let at_ike = |addr: SocketAddr| SocketAddr::new(addr.ip(), IKE_PORT);
                Self { transport: Transport::Udp, local: at_ike(self.local), remote: at_ike(self.remote) }
            }
            _ => *self,
        }
    }
}

/// What a fresh authentic packet from elsewhere does to a session that lives on a UDP path. A session on TCP
/// follows to other TCP connections always (RFC 9329 §6.1), and to UDP never but by MOBIKE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follow {
    /// Nothing: only MOBIKE moves it (RFC 4555 §3.5).
    Never,
    /// Moves it to a TCP connection.
    Tcp,
    /// Moves it to a TCP connection or to other UDP addresses: the UE is behind a NAT (RFC 7296 §2.23).
    Any,
}

/// A range of addresses, ports and one protocol (RFC 7296 §3.13.1), as the packet path checks it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TsRange {
    /// First address, inclusive; same family as `last`.
    pub first: IpAddr,
    /// Last address, inclusive.
    pub last: IpAddr,
    /// IP protocol number; 0 is any.
    pub protocol: u8,
    /// First and last port, inclusive; (0, 65535) is any.
    pub ports: (u16, u16),
}

/// A Child SA pair ready for the packet path. Boxed on its way: it carries keys and is rare.
pub struct ChildInstall {
    /// The session it belongs to.
    pub session: SessionId,
    /// The session's worker.
    pub worker: WorkerId,
    /// The network of its inner addresses.
    pub network: NetworkId,
    /// Our SPI: what the UE puts into its packets.
    pub spi_in: EspSpi,
    /// The UE's SPI: what we put into ours.
    pub spi_out: EspSpi,
    /// Algorithms and sequence number size of both directions.
    pub suite: EspSuite,
    /// Keys of the uplink.
    pub keys_in: EspKeys,
    /// Keys of the downlink.
    pub keys_out: EspKeys,
    /// Selectors on the core side (TSr).
    pub local_ts: Vec<TsRange>,
    /// Selectors on the UE's side (TSi); uplink sources must lie inside.
    pub remote_ts: Vec<TsRange>,
    /// Inner addresses of the session, with its first Child SA; none with later ones.
    pub inner: Vec<IpAddr>,
    /// The inbound SPI this SA takes over from (rekey): the downlink moves when the UE first uses the new
    /// SA or deletes the old one, whichever comes first.
    pub replaces: Option<EspSpi>,
    /// Replay window in packets.
    pub replay_window: u32,
}

/// Why the control thread ends a connection; also the counter's label.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CloseReason {
    /// An IKE message with a known SPI failed its integrity check (RFC 9329 §6.1).
    IkeAuthFailed,
    /// The configuration does not serve this peer on this connection.
    Refused,
    /// An administrator ended the session.
    Administrative,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r9329_3_2_1_spi_names_its_owner_and_is_never_reserved() {
        for worker in 0..WORKERS_MAX as u8 {
            let worker = WorkerId(worker);
            assert_eq!(worker.spi(0), None);
            assert_eq!(worker.spi(255), None);
            let spi = worker.spi(0xdead_beef).expect("far above the reserved range");
            assert!(spi.0 >= SPI_RESERVED);
            assert_eq!(WorkerId::of_spi(spi), worker);
        }
    }
}

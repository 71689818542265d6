//! One IKE SA of a client and its way to the gateway.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use codec::Random;

use super::Port;
use crate::bridge::{Exchanges, FrameStream};

/// Wait before a connection is tried again: doubled with each that came to nothing, up to the second figure,
/// and shifted at random by up to half of it either way, so that clients do not come all at once.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Wait before the connection that broke is replaced: at random up to this.
const REPLACE_WITHIN: Duration = Duration::from_millis(50);

/// Time a connection has to come about.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Time without a sign of the gateway while a request waits, after which a connection is taken for dead.
const STALL: Duration = Duration::from_secs(20);

/// Time since a client's last datagram within which a broken connection is replaced without being asked.
const RECENT: Duration = Duration::from_secs(10);

/// Time without a datagram of the client after which a link is forgotten: with a connection, on UDP, and
/// without either. What it says later makes a new link.
const FORGET_CONNECTED: Duration = Duration::from_secs(3600);
const FORGET_UDP: Duration = Duration::from_secs(600);
const FORGET_IDLE: Duration = Duration::from_secs(60);

/// The way to the gateway.
pub(super) enum Way {
    /// None; the client's next datagram opens one.
    Idle,
    /// None until it is known whether UDP passes.
    Undecided,
    /// None; the next connection is tried then.
    Retry(Instant),
    /// A connection that does not stand yet, and since when.
    Connecting(FrameStream, Instant),
    /// A connection, and since when.
    Connected(FrameStream, Instant),
    /// UDP passes.
    Udp(UdpSocket),
}

/// What is to be done with a link at a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    Nothing,
    /// Open a connection.
    Connect,
    /// The connection is dead, or never came about.
    Broken,
    /// Forget the link.
    Forget,
}

/// One IKE SA, and its successors by rekey.
pub(super) struct Link {
    pub generation: u32,
    /// The client's address.
    pub client: IpAddr,
    /// Where its last IKE message came from, and where the next one goes.
    pub ike_at: (SocketAddr, Port),
    /// Where its ESP goes; `None` before anything came from that port.
    pub nat_at: Option<SocketAddr>,
    pub exchanges: Exchanges,
    pub way: Way,
    /// ESP frames that wait for a connection.
    pub held: Vec<u8>,
    pub wants_write: bool,
    /// Unusable frames of the gateway in a row.
    pub bad_in_a_row: u32,
    /// Connections that came to nothing in a row.
    pub failures: u32,
    pub client_at: Instant,
    pub gateway_at: Instant,
    /// Connections there have been.
    pub connections: u64,
}

impl Link {
    pub fn new(generation: u32, from: SocketAddr, port: Port, now: Instant) -> Self {
        Self {
            generation,
            client: from.ip(),
            ike_at: (from, port),
            nat_at: (port == Port::Nat).then_some(from),
            exchanges: Exchanges::default(),
            way: Way::Idle,
            held: Vec::new(),
            wants_write: false,
            bad_in_a_row: 0,
            failures: 0,
            client_at: now,
            gateway_at: now,
            connections: 0,
        }
    }

    /// The stream, once the connection stands.
    pub fn stream(&mut self) -> Option<&mut FrameStream> {
        match &mut self.way {
            Way::Connected(stream, _) => Some(stream),
            _ => None,
        }
    }

    /// What is due at `now`.
    pub fn due(&self, now: Instant) -> Due {
        let silent = now.saturating_duration_since(self.client_at);
        let forget = match &self.way {
            Way::Idle => silent >= FORGET_IDLE && self.exchanges.octets() == 0,
            Way::Udp(_) => silent >= FORGET_UDP,
            _ => silent >= FORGET_CONNECTED,
        };
        if forget {
            return Due::Forget;
        }
        match &self.way {
            Way::Retry(at) if *at <= now => Due::Connect,
            Way::Connecting(_, since) if now >= *since + CONNECT_MAX => Due::Broken,
            Way::Connected(_, since) => {
                // A request counts from when this connection carried it, and a living one says something.
                let stalled = |asked: Instant| now >= asked.max(*since).max(self.gateway_at) + STALL;
                if self.exchanges.waiting_since().is_some_and(stalled) { Due::Broken } else { Due::Nothing }
            }
            _ => Due::Nothing,
        }
    }

    /// The connection is gone: when the next one is tried, or that it waits for the client (RFC 9329 §6.1:
    /// whoever was the Originator opens it again).
    pub fn broken(&mut self, now: Instant, random: &mut dyn Random) {
        if let Way::Connected(stream, _) = &mut self.way {
            stream.part();
        }
        let (stood, fruitful) = match &self.way {
            Way::Connected(_, since) => (true, self.gateway_at > *since),
            _ => (false, false),
        };
        self.failures = if fruitful { 0 } else { self.failures.saturating_add(1) };
        self.wants_write = false;
        let wanted = self.exchanges.replay().next().is_some()
            || now.saturating_duration_since(self.client_at) <= RECENT;
        let wait = if stood && self.failures == 0 {
            REPLACE_WITHIN.mul_f64(fraction(random))
        } else {
            let doubled = RETRY_FIRST * 2_u32.saturating_pow(self.failures.saturating_sub(1).min(16));
            doubled.min(RETRY_MAX).mul_f64(0.5 + fraction(random))
        };
        if self.failures > 0 {
            // What was held is old by the time there is a connection; its senders send anew.
            self.held = Vec::new();
        }
        self.way = if wanted { Way::Retry(now + wait) } else { Way::Idle };
    }
}

/// A number from 0 up to 1.
fn fraction(random: &mut dyn Random) -> f64 {
    let mut octets = [0; 4];
    random.fill(&mut octets);
    f64::from(u32::from_ne_bytes(octets)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use codec::SeededRandom;
    use codec::stream::Deframer;

    use super::*;
    use crate::bridge::{Leg, tests::message};
    use codec::ike::ExchangeType;

    fn link(now: Instant) -> Link {
        Link::new(1, "192.0.2.1:500".parse().expect("address"), Port::Ike, now)
    }

    fn stream() -> FrameStream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let tcp = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        FrameStream::new(tcp, Deframer::originator())
    }

    fn retry_in(link: &Link, now: Instant) -> Duration {
        match link.way {
            Way::Retry(at) => at - now,
            _ => panic!("no retry"),
        }
    }

    #[test]
    fn connections_that_come_to_nothing_are_tried_ever_later() {
        let now = Instant::now();
        let (mut link, mut random) = (link(now), SeededRandom::new(1));
        for failures in 1..20 {
            link.way = Way::Connecting(stream(), now);
            link.broken(now, &mut random);
            let middle = RETRY_FIRST * 2_u32.pow(failures - 1);
            let middle = middle.min(RETRY_MAX);
            let wait = retry_in(&link, now);
            assert!(wait >= middle / 2 && wait <= middle * 3 / 2, "{failures}: {wait:?}");
        }
        // A gateway that accepts and says nothing is no better.
        link.way = Way::Connected(stream(), now);
        link.broken(now, &mut random);
        assert_eq!(link.failures, 20);
        link.way = Way::Connected(stream(), now);
        link.gateway_at = now + Duration::from_secs(1);
        link.broken(now + Duration::from_secs(2), &mut random);
        assert!(retry_in(&link, now + Duration::from_secs(2)) <= REPLACE_WITHIN);
    }

    #[test]
    fn r9329_6_1_o3_a_broken_connection_is_replaced_for_a_client_that_is_there() {
        let now = Instant::now();
        let (mut link, mut random) = (link(now), SeededRandom::new(2));
        let later = now + Duration::from_secs(60);
        link.way = Way::Connected(stream(), now);
        link.broken(later, &mut random);
        assert!(matches!(link.way, Way::Idle), "nobody has asked for a minute");
        assert_eq!(link.due(later), Due::Forget);
        let request = message(1, 3, ExchangeType::INFORMATIONAL, false, b"D");
        link.exchanges.handle(now, Leg::Datagram, &request);
        link.way = Way::Connected(stream(), now);
        link.broken(later, &mut random);
        assert!(matches!(link.way, Way::Retry(_)), "a request waits");
        assert_eq!(link.due(later + RETRY_MAX * 2), Due::Connect);
    }

    #[test]
    fn r9329_6_7_o1_a_silent_connection_is_dead_only_while_a_request_waits() {
        let now = Instant::now();
        let mut link = link(now);
        link.way = Way::Connected(stream(), now);
        assert_eq!(link.due(now + STALL * 3), Due::Nothing);
        let asked = now + STALL * 3;
        link.exchanges.handle(asked, Leg::Datagram, &message(1, 3, ExchangeType::INFORMATIONAL, false, b"D"));
        assert_eq!(link.due(asked + STALL - Duration::from_millis(1)), Due::Nothing);
        assert_eq!(link.due(asked + STALL), Due::Broken);
        link.gateway_at = asked + STALL / 2;
        assert_eq!(link.due(asked + STALL), Due::Nothing, "it said something since");
        link.way = Way::Connecting(stream(), asked);
        assert_eq!(link.due(asked + CONNECT_MAX), Due::Broken);
    }
}

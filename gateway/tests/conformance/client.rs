//! A UE on real sockets: the scripted initiator of the responder's tests, framed into a TCP stream.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use codec::OsRandom;
use codec::esp::{InboundSa, OutboundSa};
use codec::stream::{FrameKind, classify};

use crate::lab::{CORE, CORE_PORT, GATEWAY, HOME, PATIENCE, dial};
use crate::ue::{Decoded, Ue, UeConfig};

/// A framed connection to the gateway.
pub struct Conn {
    pub stream: TcpStream,
    esp: VecDeque<Vec<u8>>,
    ike: VecDeque<Vec<u8>>,
}

impl Conn {
    /// Connects from the first UE address and sends the prefix.
    pub fn open() -> Self {
        Self::open_from((HOME, 0).into())
    }

    pub fn open_from(source: SocketAddr) -> Self {
        let to = if source.is_ipv4() { (GATEWAY, 4500).into() } else { gateway_v6() };
        let mut conn = Self::bare(dial(source, to).expect("the gateway listens"));
        conn.send(b"IKETCP");
        conn
    }

    /// Nothing was sent on `stream` yet.
    pub fn bare(stream: TcpStream) -> Self {
        Self { stream, esp: VecDeque::new(), ike: VecDeque::new() }
    }

    pub fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).expect("sent");
    }

    pub fn send_ike(&mut self, message: &[u8]) {
        self.send(&ike_frame(message));
    }

    /// The next IKE message; ESP before it is kept for [`Self::esp`].
    pub fn ike(&mut self) -> Vec<u8> {
        loop {
            if let Some(message) = self.ike.pop_front() {
                return message;
            }
            self.read_frame().expect("an IKE message arrives");
        }
    }

    /// The next ESP packet; IKE before it is kept for [`Self::ike`].
    pub fn esp(&mut self) -> Vec<u8> {
        loop {
            if let Some(packet) = self.esp.pop_front() {
                return packet;
            }
            self.read_frame().expect("an ESP packet arrives");
        }
    }

    fn read_frame(&mut self) -> std::io::Result<()> {
        let mut length = [0; 2];
        self.stream.read_exact(&mut length)?;
        let length = u16::from_be_bytes(length);
        // RFC 9329 §3.1, and the gateway sends neither empty frames nor keepalives (§6.6).
        assert!(length > 6, "a frame of Length {length} from the gateway");
        let mut body = vec![0; usize::from(length) - 2];
        self.stream.read_exact(&mut body)?;
        match classify(&body) {
            FrameKind::Ike => self.ike.push_back(body[4..].to_vec()),
            FrameKind::Esp(_) => self.esp.push_back(body),
            other => panic!("{other:?} from the gateway"),
        }
        Ok(())
    }

    /// Whether the gateway closes the connection; what it sends before is read and dropped.
    pub fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }

    /// Whether nothing arrives for a moment and the connection stays.
    pub fn is_quiet(&mut self) -> bool {
        self.is_quiet_for(Duration::from_millis(200))
    }

    pub fn is_quiet_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a timeout");
        let kind = self.stream.read(&mut [0; 1]).err().map(|error| error.kind());
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let quiet = matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut));
        quiet && self.ike.is_empty() && self.esp.is_empty()
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("an option");
    }
}

/// The gateway's IPv6 address and port.
pub fn gateway_v6() -> SocketAddr {
    "[fd20::1]:4500".parse().expect("an address")
}

/// An attached UE and its current connection.
pub struct Client {
    pub ue: Ue,
    pub conn: Conn,
    pub addr: Ipv4Addr,
    pub outbound: OutboundSa,
    pub inbound: InboundSa,
}

impl Client {
    pub fn attach(seed: u64) -> Self {
        Self::attach_on(Conn::open(), UeConfig::new(seed))
    }

    /// Attaches over a connection that has carried nothing, or nothing of consequence.
    pub fn attach_on(mut conn: Conn, config: UeConfig) -> Self {
        let mut ue = Ue::new(config);
        conn.send_ike(&ue.init());
        ue.on_init(&conn.ike()).expect("no error");
        conn.send_ike(&ue.auth());
        let answer = ue.on_auth(&conn.ike());
        assert_eq!(answer.error(), None);
        Self::established(ue, conn)
    }

    /// The UE after IKE_AUTH.
    pub fn established(mut ue: Ue, conn: Conn) -> Self {
        let Some(IpAddr::V4(addr)) = ue.addresses.first().copied() else { panic!("no address") };
        let (outbound, inbound) = newest_child(&mut ue);
        Self { ue, conn, addr, outbound, inbound }
    }

    /// Uses the newest Child SA from now on.
    pub fn use_newest_child(&mut self) {
        (self.outbound, self.inbound) = newest_child(&mut self.ue);
    }

    /// Sends a request and takes the answer.
    pub fn exchange(&mut self, request: &[u8]) -> Decoded {
        self.conn.send_ike(request);
        let response = self.conn.ike();
        self.ue.open(&response).expect("authentic")
    }

    /// Answers the gateway's request with an empty message.
    pub fn acknowledge(&mut self, request: &[u8]) {
        let request = self.ue.open(request).expect("authentic");
        let response = self.ue.respond(&request, |_| {});
        self.conn.send_ike(&response);
    }

    /// The next ESP frame: a datagram to the core's port in the test's hands.
    pub fn frame(&mut self, payload: &[u8]) -> Vec<u8> {
        self.frame_to(CORE_PORT, payload)
    }

    pub fn frame_to(&mut self, port: u16, payload: &[u8]) -> Vec<u8> {
        let packet = udp(self.addr, CORE, (4000, port), payload, 0);
        self.seal(&packet)
    }

    pub fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; self.outbound.frame_len(packet.len())];
        let len = self.outbound.seal_frame(packet, &mut frame).expect("sealed");
        frame.truncate(len);
        frame
    }

    pub fn send(&mut self, payload: &[u8]) {
        let frame = self.frame(payload);
        self.conn.send(&frame);
    }

    /// What the next downlink datagram holds.
    pub fn receive(&mut self) -> Vec<u8> {
        let packet = self.conn.esp();
        self.open(packet)
    }

    pub fn open(&mut self, mut packet: Vec<u8>) -> Vec<u8> {
        let opened = self.inbound.open(&mut packet).expect("authentic and fresh");
        packet[opened.payload][28..].to_vec()
    }

    /// Leaves the connection by a reset and comes back on another one; nothing is sent but the prefix.
    pub fn reconnect(&mut self, source: SocketAddr) {
        std::mem::replace(&mut self.conn, Conn::open_from(source)).reset();
    }
}

pub fn newest_child(ue: &mut Ue) -> (OutboundSa, InboundSa) {
    let child = ue.children.last_mut().expect("a Child SA");
    let keys = std::mem::replace(&mut child.keys, spent(&child.suite));
    (
        OutboundSa::new(child.spi_out, child.suite, keys.initiator, &mut OsRandom),
        InboundSa::new(child.spi_in, child.suite, keys.responder, 128),
    )
}

/// Keys nobody uses, in place of those taken out.
fn spent(suite: &codec::esp::EspSuite) -> codec::crypto::ChildKeymat {
    let keys = || {
        let octets = vec![0; suite.encr_key_len() + suite.integ_key_len()];
        codec::esp::EspKeys::new(suite, &octets).expect("right length")
    };
    codec::crypto::ChildKeymat { initiator: keys(), responder: keys() }
}

/// Frames an IKE message.
pub fn ike_frame(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    codec::stream::frame_ike(message, &mut frame).expect("fits");
    frame
}

/// An IPv4 UDP packet with its header checksum; UDP's own is left out.
pub fn udp(src: Ipv4Addr, dst: Ipv4Addr, ports: (u16, u16), payload: &[u8], tos: u8) -> Vec<u8> {
    let total = (28 + payload.len()) as u16;
    let mut packet = vec![0x45, tos];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(ports.0.to_be_bytes());
    packet.extend(ports.1.to_be_bytes());
    packet.extend((total - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

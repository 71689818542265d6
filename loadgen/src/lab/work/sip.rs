//! SIP registrations as of a phone of IMS: REGISTER and 200, one after another with pauses.
//!
//! Over UDP a request is sent again by timer E of RFC 3261, §17.1.2: after 0.5 s, then twice as long each time up to 4 s,
//! until timer F ends it after 32 s. Over TCP every registration has a connection of its own.

use super::datagram::{self, Receiver};
use super::{Ends, Transport, Window, exchange, tcp};
use crate::host::clock::monotonic_ns;
use crate::lab::results::Exchanges;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

/// Timers T1 and T2, and timer F.
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
const TIMEOUT: Duration = Duration::from_secs(32);
/// Pause after a registration.
const PAUSE: Duration = Duration::from_millis(200);

/// Registrations that are about to begin.
#[derive(Debug)]
pub struct Registrations {
    ends: Ends,
    window: Window,
    congestion: String,
    sockets: Sockets,
}

#[derive(Debug)]
enum Sockets {
    Tcp(TcpListener),
    /// The registrar's and the phone's.
    Udp([UdpSocket; 2]),
}

impl Registrations {
    /// Prepares a phone at `ends.to` and its registrar at `ends.from`.
    ///
    /// # Errors
    /// When sockets or the congestion control are refused.
    pub fn open(ends: &Ends, window: Window, transport: Transport, congestion: &str) -> io::Result<Self> {
        let sockets = match transport {
            Transport::Tcp => Sockets::Tcp(tcp::listen(&ends.from, congestion)?),
            Transport::Udp => Sockets::Udp(datagram::pair(ends, 0)?),
        };
        Ok(Self { ends: ends.clone(), window, congestion: congestion.to_owned(), sockets })
    }

    /// Registers until the end of the window. A time is from the request, or from the begin of connecting, to the
    /// answer.
    ///
    /// # Errors
    /// Those of sockets other than of the path.
    pub fn run(self) -> io::Result<Exchanges> {
        match &self.sockets {
            Sockets::Tcp(listener) => self.run_tcp(listener),
            Sockets::Udp([registrar, phone]) => self.run_udp(registrar, phone),
        }
    }

    fn run_tcp(&self, listener: &TcpListener) -> io::Result<Exchanges> {
        let address = SocketAddr::from((self.ends.from.address, listener.local_addr()?.port()));
        let (client, mut number) = (&self.ends.to, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| exchange::serve(listener, self.window.drained_ns(), answer));
            Ok(exchange::repeat(
                self.window,
                TIMEOUT,
                || PAUSE,
                |deadline_ns| {
                    number += 1;
                    let request = request(number, "TCP", &self.ends);
                    let is_whole = exchange::is_complete;
                    exchange::ask(client, address, &self.congestion, &request, is_whole, deadline_ns)
                },
            ))
        })
    }

    fn run_udp(&self, registrar: &UdpSocket, phone: &UdpSocket) -> io::Result<Exchanges> {
        let (mut receiver, mut number) = (Receiver::new(phone), 0);
        std::thread::scope(|scope| {
            let answers = scope.spawn(|| answer_all(registrar, self.window.drained_ns()));
            let exchanges = exchange::repeat(
                self.window,
                TIMEOUT,
                || PAUSE,
                |deadline_ns| {
                    number += 1;
                    let request = request(number, "UDP", &self.ends);
                    register(phone, &mut receiver, &request, number, deadline_ns)
                },
            );
            answers.join().unwrap_or_else(|_| Err(io::Error::other("the registrar panicked")))?;
            Ok(exchanges)
        })
    }
}

/// Sends a request by the timers until its answer; returns when the kernel got that.
fn register(
    phone: &UdpSocket,
    receiver: &mut Receiver<'_>,
    request: &[u8],
    number: u64,
    deadline_ns: u64,
) -> Option<u64> {
    let mut timer = T1;
    while monotonic_ns() < deadline_ns {
        datagram::send_now(phone, request);
        let again_ns = (monotonic_ns() + timer.as_nanos() as u64).min(deadline_ns);
        loop {
            let left_ns = again_ns.saturating_sub(monotonic_ns());
            if left_ns == 0 {
                break;
            }
            // Less than this is none at all to the kernel, which would wait for ever.
            let left = Duration::from_nanos(left_ns).max(Duration::from_micros(1));
            phone.set_read_timeout(Some(left)).ok()?;
            match receiver.receive().ok()? {
                // What answers an earlier request comes too late.
                Some((message, at_ns)) if is_answer(message, number) => return Some(at_ns),
                _ => {}
            }
        }
        timer = (timer * 2).min(T2);
    }
    None
}

fn answer_all(registrar: &UdpSocket, until_ns: u64) -> io::Result<()> {
    let mut receiver = Receiver::new(registrar);
    while monotonic_ns() < until_ns {
        if let Some((request, _)) = receiver.receive()? {
            datagram::send_now(registrar, &answer(request));
        }
    }
    Ok(())
}

/// Returns a REGISTER as a phone sends it when it has a security association with its P-CSCF: about 1.2 KB.
fn request(number: u64, transport: &str, ends: &Ends) -> Vec<u8> {
    const USER: &str = "001010000000001@ims.mnc001.mcc001.3gppnetwork.org";
    const DOMAIN: &str = "ims.mnc001.mcc001.3gppnetwork.org";
    let (phone, registrar) = (ends.to.address, ends.from.address);
    let (nonce, response) = ("A".repeat(44), "0123456789abcdef".repeat(2));
    let security = "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=3735928559;\
                    spi-s=3405691582;port-c=5061;port-s=5062";
    format!(
        "REGISTER sip:{DOMAIN} SIP/2.0\r\n\
         Via: SIP/2.0/{transport} {phone}:5060;branch={};rport\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:{USER}>;tag=4fa3c1d2\r\n\
         To: <sip:{USER}>\r\n\
         Call-ID: 7d1c5a2e-8f0b-4c7e-9a64-{number:012}@{phone}\r\n\
         CSeq: {number} REGISTER\r\n\
         Contact: <sip:{phone}:5060>;+sip.instance=\"<urn:gsma:imei:35609204-007928-0>\";\
         +g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\";+g.3gpp.smsip;expires=600000\r\n\
         Route: <sip:{registrar}:5060;lr>\r\n\
         Authorization: Digest username=\"{USER}\",realm=\"{DOMAIN}\",nonce=\"{nonce}\",\
         uri=\"sip:{DOMAIN}\",response=\"{response}\",algorithm=AKAv1-MD5\r\n\
         P-Access-Network-Info: IEEE-802.11;i-wlan-node-id=020000000001\r\n\
         Security-Client: {security}\r\n\
         Security-Verify: {security}\r\n\
         Require: sec-agree\r\n\
         Proxy-Require: sec-agree\r\n\
         Supported: path, gruu, sec-agree\r\n\
         Content-Length: 0\r\n\r\n",
        branch(number)
    )
    .into_bytes()
}

fn branch(number: u64) -> String {
    format!("z9hG4bK-{number:08x}")
}

/// Returns the 200 of a registrar: the headers that a response repeats, and those of IMS.
fn answer(request: &[u8]) -> Vec<u8> {
    const REPEATED: [&str; 7] = ["Via:", "From:", "To:", "Call-ID:", "CSeq:", "Contact:", "Security-Verify:"];
    let request = String::from_utf8_lossy(request);
    let mut answer = String::from("SIP/2.0 200 OK\r\n");
    for line in request.lines().filter(|line| REPEATED.iter().any(|name| line.starts_with(name))) {
        answer.push_str(line);
        answer.push_str("\r\n");
    }
    answer.push_str(
        "Service-Route: <sip:orig@scscf.ims.mnc001.mcc001.3gppnetwork.org;lr>\r\n\
         P-Associated-URI: <sip:+15550100001@ims.mnc001.mcc001.3gppnetwork.org>, <tel:+15550100001>\r\n\
         Content-Length: 0\r\n\r\n",
    );
    answer.into_bytes()
}

/// Whether this is the answer to that request.
fn is_answer(message: &[u8], number: u64) -> bool {
    message.starts_with(b"SIP/2.0 200") && String::from_utf8_lossy(message).contains(&branch(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::work::End;
    use std::net::Ipv4Addr;

    fn ends() -> Ends {
        let end = |last| End { namespace: None, address: Ipv4Addr::new(127, 0, 0, last) };
        Ends { from: end(4), to: end(5) }
    }

    #[test]
    fn messages_have_the_size_of_real_ones_and_fit_one_packet() {
        let request = request(7, "UDP", &ends());
        let answer = answer(&request);
        assert!((1000..1372).contains(&request.len()), "{}", request.len());
        assert!((700..1372).contains(&answer.len()), "{}", answer.len());
        assert!(exchange::is_complete(&request) && exchange::is_complete(&answer));
        assert!(is_answer(&answer, 7) && !is_answer(&answer, 8) && !is_answer(&request, 7));
    }

    #[test]
    fn a_request_is_sent_again_by_timer_e() {
        let [registrar, phone] = datagram::pair(&ends(), 0).unwrap();
        let begin_ns = monotonic_ns();
        let answered_ns = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut receiver = Receiver::new(&registrar);
                let mut requests = Vec::new();
                while requests.len() < 2 && monotonic_ns() < begin_ns + 3_000_000_000 {
                    let request = receiver.receive().unwrap().map(|(request, _)| request.to_vec());
                    requests.extend(request);
                }
                // The first is lost, and something else comes meanwhile.
                datagram::send_now(&registrar, &answer(&request(1, "UDP", &ends())));
                datagram::send_now(&registrar, &answer(&requests[1]));
            });
            let request = request(2, "UDP", &ends());
            register(&phone, &mut Receiver::new(&phone), &request, 2, begin_ns + 5_000_000_000)
        });
        let took_ms = answered_ns.unwrap().saturating_sub(begin_ns) / 1_000_000;
        assert!((500..900).contains(&took_ms), "{took_ms} ms");
    }
}

//! Calibration: what a link imposes, measured with plain kernel sockets in two namespaces.
//!
//! Delay is the median one-way delay of UDP probes (both ends read the same clock), loss the share of probes that did not
//! come, rate the IP octets that a UDP or TCP receiver gets from a sender that has more.

use super::link::Link;
use super::pipe::Counters;
use super::port::Port;
use super::spec::Spec;
use crate::error::Failure;
use crate::host::clock::monotonic_ns;
use crate::host::iproute::ip;
use crate::host::netns;
use crate::host::socket::is_timeout;
use nix::sys::prctl;
use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Prefix of the two namespaces; the process id follows.
const PREFIX: &str = "swpath-";
const ADDRESS_A: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const ADDRESS_B: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const UDP_PORT: u16 = 7001;
const TCP_PORT: u16 = 7002;
/// Probes per second for delay, and for loss.
const DELAY_PROBES: f64 = 500.0;
const LOSS_PROBES: f64 = 20_000.0;
/// UDP payload of a full packet, TCP payload of one with timestamps, and the packet.
const UDP_FULL: usize = 1472;
const TCP_FULL: f64 = 1448.0;
const PACKET: f64 = 1500.0;
/// IPv4 and UDP headers.
const UDP_HEADERS: usize = 28;
/// Largest deviation allowed.
const TOLERANCE: f64 = 0.05;
/// Socket buffers, in octets.
const BUFFER: usize = 8 << 20;
/// Longest wait of a receiver before it looks whether the measurement is over.
const LOOK: Duration = Duration::from_millis(20);

/// What is measured at one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Median one-way delay, ms.
    DelayMs,
    /// Loss, per cent.
    LossPct,
    /// Rate by UDP, Mbit/s.
    RateUdpMbit,
    /// Rate by TCP, Mbit/s.
    RateTcpMbit,
}

/// One line of the calibration.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What the link was told, in the form of [`Spec::apply`].
    pub link: &'static str,
    /// What was measured.
    pub quantity: Quantity,
    /// What it should be.
    pub configured: f64,
    /// What it was.
    pub measured: f64,
    /// Deviation in per cent of `configured`.
    pub deviation_pct: f64,
    /// Deviation allowed, in per cent: 5, or three standard deviations of the sample where that is more.
    pub allowed_pct: f64,
    /// Packets that the link did not lose itself and that did not come all the same (probes only).
    pub unexplained: Option<u64>,
    /// Within what is allowed.
    pub ok: bool,
}

/// The points: the range in which the link is stated to hold its settings.
const POINTS: [(&str, Quantity); 15] = [
    ("delay=5", Quantity::DelayMs),
    ("delay=20", Quantity::DelayMs),
    ("delay=75", Quantity::DelayMs),
    ("delay=150", Quantity::DelayMs),
    ("delay=300", Quantity::DelayMs),
    ("delay=10,loss=0.5", Quantity::LossPct),
    ("delay=10,loss=1", Quantity::LossPct),
    ("delay=10,loss=5", Quantity::LossPct),
    ("delay=10,burst-loss=0.5:25", Quantity::LossPct),
    ("delay=10,rate=1,queue=10", Quantity::RateUdpMbit),
    ("delay=10,rate=10,queue=50", Quantity::RateUdpMbit),
    ("delay=10,rate=200,queue=500", Quantity::RateUdpMbit),
    ("delay=5,rate=10,queue=50", Quantity::RateTcpMbit),
    ("delay=5,rate=50,queue=200", Quantity::RateTcpMbit),
    ("delay=5,rate=200,queue=500", Quantity::RateTcpMbit),
];

/// Measures all points, each for `seconds`, in namespaces of its own, which are gone afterwards.
///
/// # Errors
/// [`Failure::Environment`] when namespaces, devices or sockets are refused, or it was stopped.
pub fn run(seconds: f64, seed: u64, stop: &AtomicBool) -> Result<Vec<Row>, Failure> {
    let bench = Bench::create()?;
    let mut ports = bench.ports()?;
    let mut rows = Vec::new();
    for (index, (text, quantity)) in POINTS.into_iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::Environment("stopped".into()));
        }
        let mut spec = Spec { seed: seed.wrapping_add(index as u64), ..Spec::default() };
        spec.apply(text).map_err(Failure::Usage)?;
        // The way back is as long, and does nothing else.
        let back = Spec { delay: spec.delay, ..Spec::default() };
        let (measured, parts) =
            bench.measure(Link::new(ports, [spec.clone(), back])?, &spec, quantity, seconds)?;
        ports = parts;
        let row = row(text, quantity, &spec, &measured);
        eprintln!("{text}: {:.3} measured", row.measured);
        rows.push(row);
    }
    Ok(rows)
}

impl Quantity {
    /// What people read.
    pub fn name(self) -> &'static str {
        match self {
            Self::DelayMs => "one-way delay, ms",
            Self::LossPct => "loss, %",
            Self::RateUdpMbit => "rate by UDP, Mbit/s",
            Self::RateTcpMbit => "rate by TCP, Mbit/s",
        }
    }
}

/// Renders the rows for people.
pub fn table(rows: &[Row]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_BORDERS_ONLY);
    table.set_header(["link", "quantity", "configured", "measured", "deviation", "allowed", ""]);
    for row in rows {
        table.add_row([
            row.link.to_owned(),
            row.quantity.name().to_owned(),
            format!("{:.3}", row.configured),
            format!("{:.3}", row.measured),
            format!("{:+.2} %", row.deviation_pct),
            format!("{:.1} %", row.allowed_pct),
            if row.ok { "ok".into() } else { "OFF".to_owned() },
        ]);
    }
    table
}

/// What one measurement gave.
struct Measured {
    value: f64,
    /// Probes sent, and those that came.
    probes: Option<(u64, u64)>,
    counters: Counters,
}

fn row(link: &'static str, quantity: Quantity, spec: &Spec, measured: &Measured) -> Row {
    let rate = spec.rate_bps.unwrap_or(0.0) / 1e6;
    let configured = match quantity {
        Quantity::DelayMs => spec.delay.as_secs_f64() * 1e3,
        Quantity::LossPct => spec.loss.mean() * 100.0,
        Quantity::RateUdpMbit | Quantity::RateTcpMbit => rate,
    };
    let deviation = measured.value / configured - 1.0;
    let sampling = match (quantity, measured.probes) {
        (Quantity::LossPct, Some((sent, _))) if sent > 0 => {
            let mean = spec.loss.mean();
            3.0 * ((1.0 - mean) * spec.loss.clustering() / (mean * sent as f64)).sqrt()
        }
        _ => 0.0,
    };
    let allowed = TOLERANCE.max(sampling);
    let unexplained =
        measured.probes.map(|(sent, came)| (sent - came).saturating_sub(measured.counters.lost));
    Row {
        link,
        quantity,
        configured,
        measured: measured.value,
        deviation_pct: deviation * 100.0,
        allowed_pct: allowed * 100.0,
        unexplained,
        ok: deviation.abs() <= allowed && unexplained.unwrap_or(0) == 0,
    }
}

/// The two namespaces; removed on drop.
struct Bench {
    names: [String; 2],
}

impl Bench {
    fn create() -> Result<Self, Failure> {
        let bench = Self { names: ["a", "b"].map(|end| format!("{PREFIX}{end}-{}", std::process::id())) };
        for name in &bench.names {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(bench)
    }

    fn ports(&self) -> Result<[Port; 2], Failure> {
        let mtu = PACKET as usize;
        Ok([
            netns::inside(&self.names[0], || Port::tun("path0", mtu, Some(ADDRESS_A)))?,
            netns::inside(&self.names[1], || Port::tun("path0", mtu, Some(ADDRESS_B)))?,
        ])
    }

    /// Runs the link in a thread of its own while `quantity` is measured from the first end to the second.
    fn measure(
        &self,
        mut link: Link,
        spec: &Spec,
        quantity: Quantity,
        seconds: f64,
    ) -> Result<(Measured, [Port; 2]), Failure> {
        let stop = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            let carrier = scope.spawn(|| link.run(&stop));
            let rate = spec.rate_bps.unwrap_or(0.0);
            let measured = match quantity {
                Quantity::DelayMs => self.probe(DELAY_PROBES, 64, spec.delay, seconds).map(|probes| {
                    (probes.median_ns() / 1e6, Some((probes.sent, probes.delays_ns.len() as u64)))
                }),
                Quantity::LossPct => self.probe(LOSS_PROBES, 64, spec.delay, seconds).map(|probes| {
                    let came = probes.delays_ns.len() as u64;
                    ((1.0 - came as f64 / probes.sent as f64) * 100.0, Some((probes.sent, came)))
                }),
                Quantity::RateUdpMbit => {
                    // A fifth more than fits.
                    let per_s = rate * 1.2 / (PACKET * 8.0);
                    self.probe(per_s, UDP_FULL, spec.delay, seconds)
                        .map(|probes| (probes.rate_bps() / 1e6, None))
                }
                Quantity::RateTcpMbit => self.bulk(seconds).map(|rate| (rate / 1e6, None)),
            };
            stop.store(true, Ordering::Relaxed);
            let carried = carrier.join().unwrap_or_else(|_| Err(io::Error::other("the link panicked")));
            carried.and(measured)
        });
        let (value, probes) =
            result.map_err(|error| Failure::Environment(format!("calibration: {error}")))?;
        let counters = link.counters()[0];
        Ok((Measured { value, probes, counters }, link.into_ports()))
    }

    /// Sends `per_s` UDP probes a second and returns what came.
    fn probe(&self, per_s: f64, len: usize, delay: Duration, seconds: f64) -> io::Result<Probes> {
        let receiver = self.inside(1, || UdpSocket::bind((ADDRESS_B, UDP_PORT)))?;
        setsockopt(&receiver, sockopt::RcvBufForce, &BUFFER)?;
        receiver.set_read_timeout(Some(LOOK))?;
        let sender = self.inside(0, || UdpSocket::bind((ADDRESS_A, 0)))?;
        setsockopt(&sender, sockopt::SndBuf, &BUFFER)?;
        sender.connect((ADDRESS_B, UDP_PORT))?;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sink = scope.spawn(|| receive(&receiver, &over));
            let sent = send_paced(&sender, per_s, len, seconds);
            // What is under way still comes.
            std::thread::sleep(delay + Duration::from_millis(300));
            over.store(true, Ordering::Relaxed);
            let mut probes =
                sink.join().unwrap_or_else(|_| Err(io::Error::other("the receiver panicked")))?;
            probes.sent = sent?;
            Ok(probes)
        })
    }

    /// Sends by TCP what fits and returns IP bits per second at the receiver, without the first third of the time.
    fn bulk(&self, seconds: f64) -> io::Result<f64> {
        let listener = self.inside(1, || TcpListener::bind((ADDRESS_B, TCP_PORT)))?;
        let mut sender = self.inside(0, || TcpStream::connect((ADDRESS_B, TCP_PORT)))?;
        let (mut receiver, _) = listener.accept()?;
        sender.set_write_timeout(Some(LOOK))?;
        receiver.set_read_timeout(Some(LOOK))?;
        let begin_ns = monotonic_ns();
        let at = |share: f64| begin_ns + (seconds * 1.5 * share * 1e9) as u64;
        let (warm_ns, end_ns) = (at(1.0 / 3.0), at(1.0));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let chunk = vec![0; 64 << 10];
                while monotonic_ns() < end_ns {
                    match sender.write(&chunk) {
                        Ok(_) => {}
                        Err(error) if is_timeout(&error) => {}
                        Err(_) => break,
                    }
                }
            });
            let (mut octets, mut first_ns, mut last_ns) = (0_u64, 0, 0);
            let mut buffer = vec![0; 256 << 10];
            while monotonic_ns() < end_ns {
                let len = match receiver.read(&mut buffer) {
                    Ok(len) => len,
                    Err(error) if is_timeout(&error) => continue,
                    Err(error) => return Err(error),
                };
                let now_ns = monotonic_ns();
                if now_ns < warm_ns {
                    continue;
                }
                if first_ns == 0 {
                    first_ns = now_ns;
                } else {
                    octets += len as u64;
                    last_ns = now_ns;
                }
            }
            let span_s = last_ns.saturating_sub(first_ns) as f64 / 1e9;
            Ok(octets as f64 * 8.0 / span_s * PACKET / TCP_FULL)
        })
    }

    /// Opens a socket inside a namespace; it stays there wherever it is used.
    fn inside<T: Send>(&self, end: usize, open: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        netns::inside(&self.names[end], || open().map_err(|error| Failure::Environment(error.to_string())))
            .map_err(|failure| io::Error::other(failure.to_string()))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// What came of probes.
#[derive(Default)]
struct Probes {
    sent: u64,
    delays_ns: Vec<u64>,
    first_ns: u64,
    last_ns: u64,
    /// Octets of IP packets behind the first.
    octets: u64,
}

impl Probes {
    fn median_ns(&self) -> f64 {
        let mut sorted = self.delays_ns.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).map_or(f64::NAN, |median| *median as f64)
    }

    fn rate_bps(&self) -> f64 {
        self.octets as f64 * 8e9 / self.last_ns.saturating_sub(self.first_ns) as f64
    }
}

fn receive(socket: &UdpSocket, over: &AtomicBool) -> io::Result<Probes> {
    let mut probes = Probes::default();
    let mut buffer = [0; 2048];
    while !over.load(Ordering::Relaxed) {
        let len = match socket.recv(&mut buffer) {
            Ok(len) => len,
            Err(error) if is_timeout(&error) => continue,
            Err(error) => return Err(error),
        };
        let now_ns = monotonic_ns();
        let Some(stamp) = buffer[..len].first_chunk::<8>() else { continue };
        probes.delays_ns.push(now_ns.saturating_sub(u64::from_be_bytes(*stamp)));
        if probes.first_ns == 0 {
            probes.first_ns = now_ns;
        } else {
            probes.octets += (len + UDP_HEADERS) as u64;
        }
        probes.last_ns = now_ns;
    }
    Ok(probes)
}

/// Sends stamped probes evenly for `seconds`; returns how many.
fn send_paced(socket: &UdpSocket, per_s: f64, len: usize, seconds: f64) -> io::Result<u64> {
    let _ = prctl::set_timerslack(1);
    let mut probe = vec![0; len];
    let begin_ns = monotonic_ns();
    let end_ns = begin_ns + (seconds * 1e9) as u64;
    let mut sent = 0;
    loop {
        let now_ns = monotonic_ns();
        if now_ns >= end_ns {
            return Ok(sent);
        }
        let due = ((now_ns - begin_ns) as f64 * per_s / 1e9) as u64 + 1;
        while sent < due {
            probe[..8].copy_from_slice(&monotonic_ns().to_be_bytes());
            socket.send(&probe)?;
            sent += 1;
        }
        let next_ns = begin_ns + (sent as f64 * 1e9 / per_s) as u64;
        let sleep_ns = next_ns.saturating_sub(monotonic_ns()).max(200_000);
        std::thread::sleep(Duration::from_nanos(sleep_ns));
    }
}

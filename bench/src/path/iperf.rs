//! iperf3 through one real UE: the kernel's TCP at both ends.

use super::child::Program;
use super::tunnel::Tunnel;
use super::{Row, Scenario};
use crate::bed::Bed;
use crate::machine::{Usage, Watch};
use loadgen::demo::topology;
use loadgen::engine::traffic::Direction;
use loadgen::error::Failure;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// iperf3's port, in the form of /proc/net/tcp.
const PORT: u16 = 5201;
/// Longest wait until the server listens, and beyond its time for the client to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Inner IP octets of a full packet and the payload in it, IPv4 and TCP with timestamps.
const PACKET_LEN: f64 = 1400.0;
const PAYLOAD_LEN: f64 = 1400.0 - 20.0 - 32.0;

/// Checks that iperf3 is there.
///
/// # Errors
/// [`Failure::Environment`] with what to do.
pub fn require() -> Result<(), Failure> {
    let found = Command::new("iperf3").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.map(|_| ()).map_err(|error| {
        Failure::Environment(format!("cannot run iperf3: {error}; install it (apt-get install iperf3)"))
    })
}

/// A run of iperf3 under way.
pub struct Iperf {
    server: Program,
    client: Program,
    watch: Watch,
}

/// What a run gave.
pub struct Carried {
    /// Payload octets received.
    pub bytes: f64,
    /// Payload bits per second received.
    pub bits_per_s: f64,
    /// What the machine did from the start of the client to its end.
    pub usage: Option<Usage>,
}

impl Iperf {
    /// Starts server and client.
    ///
    /// # Errors
    /// [`Failure::Environment`] without iperf3; [`Failure::Check`] when its server does not come up.
    pub fn start(bed: &Bed, direction: Direction, seconds: f64) -> Result<Self, Failure> {
        let far = topology::SINK.ip().to_string();
        let mut server =
            Program::start(bed, &bed.topology.core, "iperf3 -s", "iperf3", &["-s", "-1", "-B", &far], &[])?;
        let deadline = Instant::now() + PATIENCE;
        while !is_listening(server.id()) {
            if server.has_ended() || Instant::now() >= deadline {
                server.finish(Duration::ZERO)?;
                return Err(Failure::Check("iperf3 -s ended at once".into()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let seconds = (seconds.ceil() as u64).max(1).to_string();
        let mut args = vec!["-c", &far, "-J", "-i", "0", "-t", &seconds];
        if direction == Direction::Down {
            args.push("-R");
        }
        let mut watch = Watch::default();
        watch.begin();
        let client = Program::start(bed, &bed.topology.ue, "iperf3 -c", "iperf3", &args, &[])?;
        Ok(Self { server, client, watch })
    }

    /// Waits for its end and returns what was received.
    ///
    /// # Errors
    /// [`Failure::Check`] with iperf3's own words.
    pub fn finish(mut self, seconds: f64) -> Result<Carried, Failure> {
        let output = self.client.finish(PATIENCE + Duration::from_secs_f64(seconds.ceil()))?;
        self.watch.end();
        self.server.stop();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| Failure::Check(format!("iperf3's report: {error}")))?;
        let received = &report["end"]["sum_received"];
        match (received["bytes"].as_f64(), received["bits_per_second"].as_f64()) {
            (Some(bytes), Some(bits_per_s)) => Ok(Carried { bytes, bits_per_s, usage: self.watch.usage() }),
            _ => Err(Failure::Check(format!("iperf3: {}", report["error"]))),
        }
    }
}

/// Runs the scenario once.
///
/// # Errors
/// See [`Tunnel::start`] and [`Iperf`].
pub fn measure(bed: &Bed, scenario: &Scenario, seconds: f64) -> Result<Row, Failure> {
    let tunnel = Tunnel::start(bed, false)?;
    let before = bed.process().cpu();
    let Carried { bytes, bits_per_s, usage } =
        Iperf::start(bed, scenario.direction, seconds)?.finish(seconds)?;
    let after = bed.process().cpu();
    tunnel.stop();
    let (bytes, packets) = (bytes * PACKET_LEN / PAYLOAD_LEN, bytes / PAYLOAD_LEN);
    let spent = before.zip(after).map(|(before, after)| {
        let process_s = after.process_s - before.process_s;
        (process_s, process_s + after.softirq_s - before.softirq_s)
    });
    let mut row = Row {
        scenario: scenario.name(),
        bits_per_s: Some(bits_per_s * PACKET_LEN / PAYLOAD_LEN),
        packets_per_s: Some(bits_per_s / 8.0 / PAYLOAD_LEN),
        ..Row::default()
    };
    row.set_cost(bytes, packets, spent.map(|spent| spent.0), spent.map(|spent| spent.1));
    row.set_machine(usage.as_ref(), &bed.cores);
    Ok(row)
}

/// Whether anybody listens on iperf3's port in the namespace of process `id`.
fn is_listening(id: u32) -> bool {
    let sockets = std::fs::read_to_string(format!("/proc/{id}/net/tcp")).unwrap_or_default();
    let port = format!(":{PORT:04X}");
    sockets.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next().is_some_and(|address| address.ends_with(&port));
        // State 0A is LISTEN.
        local && fields.nth(1) == Some("0A")
    })
}

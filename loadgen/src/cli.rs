//! Command line.

use crate::engine::traffic::Direction;
use crate::lab::matrix::Matrix;
use crate::path::{Discipline, Loss, spec};
use crate::probe::SizePlan;
use clap::builder::ArgPredicate;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Plays RFC 9329 UEs against an IKEv2 gateway and measures what they see.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Builds a network of namespaces, starts swugate in it, attaches UEs and passes traffic (needs root)
    Demo(DemoArgs),
    /// Attaches UEs: rate, latency, failures by cause; then holds or detaches
    Attach(AttachArgs),
    /// Attaches UEs and passes checked traffic through their tunnels
    Traffic(TrafficArgs),
    /// Far end on the core side of the gateway: receives, checks and sends for `traffic --far`
    Sink(SinkArgs),
    /// One real UE: a TUN device with kernel traffic through the tunnel (needs root)
    Ue(UeArgs),
    /// Lists the handsets that --profile plays
    Profiles,
    /// Studies what tunnelling in TCP costs, on emulated paths; writes results.json and report.html (needs root)
    Lab(LabArgs),
    /// One measurement of a study, in a process of its own
    #[command(hide = true)]
    LabCell {
        /// What to measure, as JSON
        job: String,
    },
    /// Malformed, slow and hostile peers: prints what the responder did, and whether RFC 9329 lets it
    Abuse(AbuseArgs),
    /// Link emulator between two interfaces: delay, loss, reordering, rate and queue per direction (needs root)
    Path(PathArgs),
}

/// How UEs connect and who they are.
#[derive(Args, Clone, Debug)]
pub struct UeOptions {
    /// Gateway address, such as 10.0.0.1:4500 or gw.example:4500
    #[arg(long, value_name = "HOST:PORT")]
    pub gateway: String,
    /// Transport of IKE and ESP
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub transport: Transport,
    /// Certificate authorities to believe with --transport tls, PEM
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Name in the gateway's TLS certificate [default: the host of --gateway]
    #[arg(long, value_name = "NAME")]
    pub tls_name: Option<String>,
    /// Plays a handset, with its proposals, its way to authenticate and its quirks; `loadgen profiles` lists them. Other
    /// options go before what it says
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Kind of authentication [default: psk, or the profile's]
    #[arg(long, value_enum)]
    pub auth: Option<Auth>,
    /// Pre-shared key; 0x… for hexadecimal
    #[arg(long, env = "LOADGEN_PSK", hide_env_values = true, value_name = "SECRET")]
    pub psk: Option<String>,
    /// Identity of the UEs; {} becomes the UE's index (default: ue-{}@loadgen.test, or the certificate's subject)
    #[arg(long, value_name = "ID")]
    pub idi: Option<String>,
    /// Identity asked for in IDr: the APN [default with --profile: ims]
    #[arg(long, value_name = "ID")]
    pub idr: Option<String>,
    /// Identity the gateway must prove [default: any that its key or certificate covers]
    #[arg(long, value_name = "ID")]
    pub gateway_id: Option<String>,
    /// Certificate of the UEs and intermediates, PEM
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Private key of --cert, PEM
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Certificate authorities that the gateway's certificate must lead to, PEM [default with EAP: any certificate]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// SIMs, for --auth eap-aka and eap-aka-prime.
    #[command(flatten)]
    pub sim: SimOptions,
    /// IKE proposal in strongSwan's keywords; may be repeated [default: aes128gcm16-prfsha256-x25519, or the profile's]
    #[arg(long, value_name = "PROPOSAL")]
    pub ike: Vec<String>,
    /// ESP proposal in strongSwan's keywords; may be repeated [default: aes128gcm16, or the profile's]
    #[arg(long, value_name = "PROPOSAL")]
    pub esp: Vec<String>,
    /// Takes source addresses from this prefix in turn; they must be local (ip route add local CIDR dev lo)
    #[arg(long, value_name = "CIDR")]
    pub source: Option<IpNet>,
    /// Congestion control of the UEs' TCP connections, such as cubic or bbr [default: the system's]
    #[arg(long, value_name = "NAME")]
    pub congestion: Option<String>,
    /// Draws keys, nonces and SPIs from this seed: repeatable, not secret
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Longest wait for an answer, in seconds [default: 30]
    #[arg(long, value_name = "S")]
    pub timeout: Option<f64>,
    /// Asks a gateway that was silent for so many seconds whether it lives
    #[arg(long, value_name = "S")]
    pub dpd: Option<f64>,
    /// Runs on this core [default: the last one allowed]
    #[arg(long, value_name = "N")]
    pub core: Option<usize>,
}

/// SIMs of the UEs.
#[derive(Args, Clone, Debug)]
pub struct SimOptions {
    /// IMSI of the first UE; UE n has this plus n
    #[arg(long, value_name = "DIGITS")]
    pub imsi: Option<String>,
    /// Digits of the network code in the IMSI
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
    pub mnc_digits: u8,
    /// K of every SIM: 16 octets in hexadecimal (16 or 32 for TUAK)
    #[arg(long, env = "LOADGEN_K", hide_env_values = true, value_name = "HEX")]
    pub k: Option<String>,
    /// OPc of every SIM, for Milenage: 16 octets in hexadecimal
    #[arg(long, env = "LOADGEN_OPC", hide_env_values = true, value_name = "HEX")]
    pub opc: Option<String>,
    /// OP in the place of --opc
    #[arg(long, value_name = "HEX", conflicts_with = "opc")]
    pub op: Option<String>,
    /// TOPc of every SIM, for TUAK: 32 octets in hexadecimal
    #[arg(long, value_name = "HEX", conflicts_with_all = ["opc", "op"])]
    pub topc: Option<String>,
    /// Sequence number that every SIM has seen already, 12 hexadecimal digits: a greater one than the network's makes it
    /// resynchronise
    #[arg(long, value_name = "HEX", conflicts_with = "no_sqn_check")]
    pub sqn: Option<String>,
    /// Takes any sequence number
    #[arg(long)]
    pub no_sqn_check: bool,
    /// IMEI of the first phone, 15 digits (16: IMEISV); UE n has this plus n [default: a test IMEI]
    #[arg(long, value_name = "DIGITS")]
    pub imei: Option<String>,
    /// Makes emergency attaches: the realm of the identity begins with sos, and so is the APN unless --idr has another
    #[arg(long)]
    pub emergency: bool,
    /// Offers to do without the gateway's certificate (RFC 5998)
    #[arg(long)]
    pub eap_only: bool,
    /// Name of the access network, for EAP-AKA'
    #[arg(long, value_name = "NAME", default_value = "WLAN")]
    pub network_name: String,
}

/// Options of commands that measure a gateway.
#[derive(Args, Clone, Debug)]
pub struct MeasureOptions {
    /// Number of UEs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub ues: u32,
    /// Most attaches under way at once
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub in_flight: u32,
    /// Gateway process to observe [default: the only process named swugate on this host]
    #[arg(long, value_name = "PID")]
    pub gateway_pid: Option<u32>,
    /// Writes the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// `attach`
#[derive(Args, Clone, Debug)]
pub struct AttachArgs {
    /// How UEs connect and who they are.
    #[command(flatten)]
    pub ue: UeOptions,
    /// Numbers and reports.
    #[command(flatten)]
    pub measure: MeasureOptions,
    /// Attaches begun per second [default: as fast as --in-flight allows]
    #[arg(long, value_name = "PER_S", value_parser = positive)]
    pub rate: Option<f64>,
    /// Holds the UEs attached for so many seconds before they detach
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    pub hold: f64,
    /// Sends so many voice packets (160 octets) per second from random UEs while it holds them
    #[arg(long, value_name = "PACKETS/S", value_parser = positive)]
    pub trickle: Option<f64>,
    /// Cuts all connections at once, then waits until every UE has an echo of this host behind the gateway through its
    /// tunnel again
    #[arg(long, value_name = "IP")]
    pub storm: Option<Ipv4Addr>,
    /// Attaches so many times in a row; SIMs take their names and keys along, so later attaches by EAP are fast
    /// re-authentications where the network allows them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub attaches: u32,
    /// Leaves without DELETE: the gateway has to find out
    #[arg(long)]
    pub no_delete: bool,
    /// What drives the connections [default: raw above 15,000 UEs or with --trickle or --storm, tokio otherwise]
    #[arg(long, value_enum)]
    pub engine: Option<Engine>,
}

impl AttachArgs {
    /// Returns the engine to use.
    pub fn engine(&self) -> Engine {
        let raw = self.trickle.is_some() || self.storm.is_some();
        let default = if self.measure.ues > TOKIO_UES_MAX || raw { Engine::Raw } else { Engine::Tokio };
        self.engine.unwrap_or(default)
    }
}

/// Most UEs of an engine whose connections are open files: RLIMIT_NOFILE is 20,000 on many hosts, whatever one asks.
const TOKIO_UES_MAX: u32 = 15_000;

/// What drives the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// tokio-uring: a task and an open file per connection.
    Tokio,
    /// Several rings with direct descriptors: no open file per connection.
    Raw,
}

/// `traffic`
#[derive(Args, Clone, Debug)]
pub struct TrafficArgs {
    /// How UEs connect and who they are.
    #[command(flatten)]
    pub ue: UeOptions,
    /// Numbers and reports.
    #[command(flatten)]
    pub measure: MeasureOptions,
    /// Attaches begun per second [default: as fast as --in-flight allows]
    #[arg(long, value_name = "PER_S", value_parser = positive)]
    pub attach_rate: Option<f64>,
    /// Which way the traffic goes
    #[arg(long, value_enum, default_value_t = Direction::Up)]
    pub direction: Direction,
    /// Seconds of traffic
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = positive)]
    pub seconds: f64,
    /// The sink's address on the core side; without it only the uplink runs, and nothing checks it
    #[arg(long, value_name = "IP:PORT")]
    pub far: Option<SocketAddr>,
    /// What the traffic looks like.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// What test traffic looks like.
#[derive(Args, Clone, Debug)]
pub struct LoadOptions {
    /// Inner IP packet length: 84 to 1400, imix or voice (160 octets)
    #[arg(long, value_name = "LEN", default_value = "1400")]
    pub size: SizePlan,
    /// Inner bits per second of all UEs together and per direction (k, M, G allowed), or `voice` for 50 packets/s per UE
    /// [default: closed loop]
    #[arg(long, value_name = "BIT/S")]
    pub rate: Option<Rate>,
    /// Packets that each UE sends at a time under --rate, as TCP with segmentation offload does
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub burst: u32,
    /// Packets in flight per UE and direction in the closed loop [default: by the number of UEs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub window: Option<u32>,
    /// Downlink packets in flight of all UEs together in the closed loop: fewer than the queue of the gateway's inner
    /// device holds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub queue: Option<u32>,
    /// Sends every packet for another UE than the one before, instead of runs of one flow
    #[arg(long)]
    pub interleave: bool,
    /// So many UEs make a call instead: 160-octet packets with DSCP EF every 20 ms, reported apart
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub voice: Option<u32>,
    /// The UEs of --voice pass the other traffic as well
    #[arg(long, requires = "voice")]
    pub voice_beside: bool,
    /// So many per cent of the UEs cut their TCP connection each second, by FIN and RST in turn, and come back with the same
    /// IKE SA; what was in flight in it is counted apart
    #[arg(long, value_name = "PCT", value_parser = percent)]
    pub churn: Option<f64>,
}

/// `sink`
#[derive(Args, Clone, Debug)]
pub struct SinkArgs {
    /// UDP address that UEs reach through the gateway
    #[arg(long, value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// Runs on this core
    #[arg(long, value_name = "N")]
    pub core: Option<usize>,
    /// Sends and takes single packets, without segmentation and receive offload
    #[arg(long)]
    pub no_offload: bool,
    /// Stops after so many seconds [default: at SIGINT or SIGTERM]
    #[arg(long, value_name = "S", value_parser = positive)]
    pub seconds: Option<f64>,
    /// Writes what was received as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// `ue`
#[derive(Args, Clone, Debug)]
pub struct UeArgs {
    /// How the UE connects and who it is.
    #[command(flatten)]
    pub ue: UeOptions,
    /// Name of the TUN device to create
    #[arg(long, value_name = "NAME", default_value = "swu-ue0")]
    pub tun: String,
    /// Routes this prefix into the tunnel; may be repeated [default: what the gateway's traffic selectors say]
    #[arg(long, value_name = "CIDR")]
    pub route: Vec<IpNet>,
    /// Leaves segmentation and receive offload of the TUN device off
    #[arg(long)]
    pub no_offload: bool,
    /// MTU of the TUN device
    #[arg(long, value_name = "OCTETS", default_value_t = 1400, value_parser = clap::value_parser!(u16).range(1280..=9000))]
    pub mtu: u16,
    /// Writes what the UE did as JSON at its end
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// `abuse`
#[derive(Args, Clone, Debug)]
#[command(mut_arg("gateway", |arg| arg.required(false).default_value_if("list", ArgPredicate::IsPresent, "none")))]
pub struct AbuseArgs {
    /// How UEs connect and who they are; without credentials only the cases that need none are played.
    #[command(flatten)]
    pub ue: UeOptions,
    /// Plays this case, or this family of cases; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    pub case: Vec<String>,
    /// Lists the cases with their sources and what they expect
    #[arg(long)]
    pub list: bool,
    /// Longest wait for a responder to close a connection that says nothing, in seconds; answers are waited for 5 s at most
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = positive)]
    pub patience: f64,
    /// Connections, or messages, of a flood; at most 1,000 connections are made per second
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    pub flood: u32,
    /// A host behind the gateway that answers echo requests: traffic is looked at as well
    #[arg(long, value_name = "IP")]
    pub far: Option<Ipv4Addr>,
    /// Goes on although the address is neither private nor loopback: this traffic is hostile
    #[arg(long)]
    pub allow_public: bool,
    /// Writes the outcome of each case as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// `path`
#[derive(Args, Clone, Debug)]
pub struct PathArgs {
    /// The two interfaces, as NAME or NAMESPACE/NAME: Ethernet interfaces (such as one end of a veth each), or TUN devices
    /// that are made where there is none of the name
    #[arg(value_name = "INTERFACE", num_args = 0..=2)]
    pub interfaces: Vec<String>,
    /// The first interface
    #[arg(long, value_name = "INTERFACE")]
    pub a: Option<String>,
    /// The second interface
    #[arg(long, value_name = "INTERFACE")]
    pub b: Option<String>,
    /// Delay of each direction: half of the round trip
    #[arg(long, value_name = "MS", default_value = "0", value_parser = spec::milliseconds)]
    pub delay_ms: Duration,
    /// Delays are so much shorter or longer, evenly spread; packets keep their order
    #[arg(long, value_name = "MS", default_value = "0", value_parser = spec::milliseconds)]
    pub jitter_ms: Duration,
    /// Delays are spread normally with this standard deviation instead
    #[arg(long, value_name = "MS", value_parser = spec::milliseconds, conflicts_with = "jitter_ms")]
    pub normal_jitter_ms: Option<Duration>,
    /// Packets lost, each by itself
    #[arg(long, value_name = "PCT", default_value = "0", value_parser = spec::share)]
    pub loss_pct: f64,
    /// Packets lost in bursts (Gilbert-Elliott): chance per packet that a burst begins, and that it ends, in per cent;
    /// maybe loss outside and inside of bursts, otherwise 0 and 100
    #[arg(long, value_name = "P,R[,GOOD,BAD]", value_parser = burst_loss, conflicts_with = "loss_pct")]
    pub burst_loss: Option<Loss>,
    /// Packets that skip the delay and overtake others
    #[arg(long, value_name = "PCT", default_value = "0", value_parser = spec::share)]
    pub reorder_pct: f64,
    /// Packets that come twice
    #[arg(long, value_name = "PCT", default_value = "0", value_parser = spec::share)]
    pub duplicate_pct: f64,
    /// Packets with one bit flipped
    #[arg(long, value_name = "PCT", default_value = "0", value_parser = spec::share)]
    pub corrupt_pct: f64,
    /// Rate of each direction in Mbit/s of IP packets [default: unlimited]
    #[arg(long, value_name = "MBIT/S", value_parser = spec::rate)]
    pub rate_mbit: Option<f64>,
    /// Most packets that wait for the link
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = queue)]
    pub queue_pkts: usize,
    /// Most octets that wait for the link instead
    #[arg(long, value_name = "OCTETS", value_parser = queue, conflicts_with = "queue_pkts")]
    pub queue_octets: Option<usize>,
    /// What happens when too much waits
    #[arg(long, value_enum, default_value_t = Discipline::Droptail)]
    pub queue_discipline: Discipline,
    /// Longest IP packet; longer ones are dropped without a word
    #[arg(long, value_name = "OCTETS", default_value_t = 1_500, value_parser = clap::value_parser!(u16).range(68..))]
    pub mtu: u16,
    /// The same seed decides the same way about the same packets
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// What the way from the first to the second interface has for itself, as KEY=VALUE,…: delay, jitter, normal-jitter
    /// (ms), loss, reorder, duplicate, corrupt (per cent), `burst-loss` (`P:R[:GOOD:BAD]`), rate (Mbit/s), queue (packets),
    /// queue-octets, discipline, mtu, seed
    #[arg(long, value_name = "SPEC")]
    pub a_to_b: Option<String>,
    /// The same for the way back
    #[arg(long, value_name = "SPEC")]
    pub b_to_a: Option<String>,
    /// Measures with kernel TCP and UDP, in two namespaces of its own, what links impose; prints configured against
    /// measured, and fails when one is more than 5 % (or three standard deviations of its sample) off
    #[arg(long)]
    pub calibrate: bool,
    /// Stops after so many seconds [default: at SIGINT or SIGTERM]; with --calibrate: of each measurement [default: 3]
    #[arg(long, value_name = "S", value_parser = positive)]
    pub seconds: Option<f64>,
    /// Runs on this core
    #[arg(long, value_name = "N")]
    pub core: Option<usize>,
    /// Writes what happened to packets, or the calibration, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// `lab`
#[derive(Args, Clone, Debug)]
pub struct LabArgs {
    /// What to measure [default: deploy/lab/default.toml as it was when this program was built]
    #[arg(long, value_name = "FILE")]
    pub matrix: Option<PathBuf>,
    /// Where results.json, report.html and the plots go; what is there already is not measured again
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Forgets what was measured before
    #[arg(long)]
    pub fresh: bool,
    /// Only points with this text in their names
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Lists the points and ends
    #[arg(long)]
    pub list: bool,
    /// Writes the report from what is there and ends
    #[arg(long)]
    pub report_only: bool,
    /// Seconds of each measurement [default: what the matrix says; also for the next three]
    #[arg(long, value_name = "S", value_parser = positive)]
    pub seconds: Option<f64>,
    /// How often each point is measured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub repetitions: Option<u32>,
    /// Most points that are measured at the same time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub parallel: Option<u32>,
    /// Where all fates of packets come from
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// The gateway binary [default: swugate beside this program]
    #[arg(long, value_name = "FILE")]
    pub swugate: Option<PathBuf>,
}

impl LabArgs {
    /// Changes a matrix as the command line says.
    pub fn change(&self, matrix: &mut Matrix) {
        matrix.seconds = self.seconds.unwrap_or(matrix.seconds);
        matrix.repetitions = self.repetitions.unwrap_or(matrix.repetitions);
        matrix.parallel = self.parallel.unwrap_or(matrix.parallel);
        matrix.seed = self.seed.unwrap_or(matrix.seed);
    }
}

fn burst_loss(text: &str) -> Result<Loss, String> {
    spec::bursts(text, ',')
}

fn queue(text: &str) -> Result<usize, String> {
    let allowed = text.parse().ok().filter(|number| (1..=1 << 30).contains(number));
    allowed.ok_or_else(|| "a number above 0, at most 2^30".to_owned())
}

/// `demo`
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Number of UEs
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    pub ues: u32,
    /// Seconds of traffic each way
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = positive)]
    pub seconds: f64,
    /// Which way the traffic goes [default: up, then down]
    #[arg(long, value_enum)]
    pub direction: Option<Direction>,
    /// What the traffic looks like.
    #[command(flatten)]
    pub load: LoadOptions,
    /// ESP proposal in strongSwan's keywords
    #[arg(long, value_name = "PROPOSAL", default_value = "aes128gcm16")]
    pub esp: String,
    /// Transport of IKE and ESP
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub transport: Transport,
    /// Kind of authentication: psk, eap-aka or eap-aka-prime, with SIMs that the gateway knows
    #[arg(long, value_enum, default_value_t = Auth::EapAkaPrime)]
    pub auth: Auth,
    /// Takes segmentation and receive offload off the link to the core network
    #[arg(long)]
    pub no_offload: bool,
    /// The gateway binary [default: swugate beside this program]
    #[arg(long, value_name = "FILE")]
    pub swugate: Option<PathBuf>,
    /// Writes the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// RFC 9329.
    Tcp,
    /// RFC 7296 and RFC 3948: IKE and ESP on the gateway's port.
    Udp,
    /// RFC 9329 Appendix A: TLS around TCP.
    Tls,
}

/// Kinds of authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Pre-shared key.
    Psk,
    /// Certificates.
    Cert,
    /// EAP-AKA with the SIM of each UE, a certificate for the gateway.
    EapAka,
    /// EAP-AKA', the same.
    EapAkaPrime,
}

/// A pace given on the command line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Inner bits per second of all UEs together.
    BitsPerSecond(f64),
    /// 50 packets per second per UE.
    Voice,
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "voice" {
            return Ok(Self::Voice);
        }
        let (number, factor) = match text.as_bytes().last() {
            Some(b'k') => (&text[..text.len() - 1], 1e3),
            Some(b'M') => (&text[..text.len() - 1], 1e6),
            Some(b'G') => (&text[..text.len() - 1], 1e9),
            _ => (text, 1.0),
        };
        positive(number).map(|number| Self::BitsPerSecond(number * factor))
    }
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|number| number.is_finite() && *number > 0.0)
        .ok_or_else(|| "a number above 0".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    positive(text)
        .ok()
        .filter(|number| *number <= 100.0)
        .ok_or_else(|| "a number above 0, at most 100".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn rates() {
        assert_eq!("2G".parse(), Ok(Rate::BitsPerSecond(2e9)));
        assert_eq!("1500".parse(), Ok(Rate::BitsPerSecond(1500.0)));
        assert_eq!("voice".parse(), Ok(Rate::Voice));
        for text in ["", "-1", "0", "fast", "nan", "infG"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}

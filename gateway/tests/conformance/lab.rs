//! Three namespaces in a row: UEs, gateway, core.
//!
//! ```text
//!   UEs 10.20.0.2, 10.21/16 --gw0=ue0-- 10.20.0.1 gateway 10.77.0.1 --core0=gw0-- 10.77.0.2 core
//! ```
//!
//! Any address of 10.21/16 and fd21::/64 is a UE's own, so a test may come from as many as it likes.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::process::{Gateway, Namespace, ip, is_root};

/// The gateway towards UEs.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
/// The UEs' first address.
pub const HOME: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 2);
/// Another one, behind another network as it were.
pub const AWAY: Ipv4Addr = Ipv4Addr::new(10, 21, 0, 1);
/// The host in the core.
pub const CORE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Its port that sends everything back.
pub const ECHO_PORT: u16 = 7;
/// Its port in the test's hands.
pub const CORE_PORT: u16 = 9000;
/// Patience with anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What differs between tests: lines for tables of the configuration.
#[derive(Default)]
pub struct Setup {
    pub workers: Option<u32>,
    pub listen: Option<&'static str>,
    pub profile: &'static str,
    /// Tables in the place of `[inner]`, `[[pool]]` and `[[profile]]`.
    pub tables: Option<String>,
    pub limits: &'static str,
}

/// The namespaces, and the gateway in the middle one.
pub struct Lab {
    pub gateway: Gateway,
    /// The host in the core, port [`CORE_PORT`].
    pub core: UdpSocket,
    echo: Option<(JoinHandle<()>, Arc<AtomicBool>)>,
    pub ues: Namespace,
    core_side: Namespace,
    pub middle: Namespace,
    setup: Setup,
    /// The gateway is to end in this test.
    ends: bool,
}

impl Lab {
    /// A gateway with the defaults; `None` without root. The calling thread is among the UEs from now on.
    pub fn start(setup: Setup) -> Option<Self> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        if !is_root() {
            return None;
        }
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let name = |part| Namespace::new(&format!("swc{number}{part}"));
        let (ues, middle, core_side) = (name("u"), name("g"), name("c"));
        connect(&ues, &middle, &core_side);
        let gateway = Gateway::start(&middle, &config(&setup), None);
        assert_eq!(gateway.notified(), "READY=1", "{}", gateway.log());
        let bind = |port| core_side.inside(|| UdpSocket::bind((CORE, port)).expect("a free port"));
        let (core, echo) = (bind(CORE_PORT), bind(ECHO_PORT));
        core.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let echo = std::thread::spawn(move || send_back(&echo, &stopped));
        ues.enter();
        Some(Self { gateway, core, echo: Some((echo, stop)), ues, core_side, middle, setup, ends: false })
    }

    /// Waits for the gateway's own end; its exit code and what it logged.
    pub fn end(&mut self) -> (Option<i32>, String) {
        self.ends = true;
        (self.gateway.wait(), self.gateway.log())
    }

    /// A socket at the core whose packets may be divided on their way; one of [`Self::core`] may not.
    pub fn dividing_core(&self) -> UdpSocket {
        self.core_side.inside(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", "1").expect("root may");
            UdpSocket::bind((CORE, CORE_PORT + 1)).expect("a free port")
        })
    }

    /// Another gateway in the place of this one, which has vanished without a word to anybody.
    pub fn replace_gateway(&mut self) {
        let middle = &self.middle.0;
        ip(&["-n", middle, "link", "set", "ue0", "down"]);
        self.gateway.signal(Signal::SIGKILL);
        self.gateway.wait();
        self.gateway = Gateway::start(&self.middle, &config(&self.setup), None);
        assert_eq!(self.gateway.notified(), "READY=1", "{}", self.gateway.log());
        ip(&["-n", middle, "link", "set", "ue0", "up"]);
    }

    /// Asks over the control socket.
    pub fn ask(&self, request: &str) -> Value {
        let mut socket = UnixStream::connect(self.gateway.path("run/control.sock")).expect("it listens");
        writeln!(socket, "{request}").expect("asked");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["ok"], true, "{request}: {answer}");
        answer["result"].clone()
    }

    pub fn stats(&self) -> Value {
        self.ask(r#"{"command":"stats"}"#)
    }

    pub fn sessions(&self) -> Vec<Value> {
        self.ask(r#"{"command":"sessions"}"#).as_array().expect("an array").clone()
    }

    /// How often `reason` was counted.
    pub fn drops(&self, reason: &str) -> u64 {
        self.stats()["drops"][reason].as_u64().unwrap_or_else(|| panic!("{reason} is no reason"))
    }

    /// How many connections ended by `cause`.
    pub fn closes(&self, cause: &str) -> u64 {
        self.stats()["closes"][cause].as_u64().unwrap_or_else(|| panic!("{cause} is no cause"))
    }

    /// Resident octets of the gateway.
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.pid());
        let statm = std::fs::read_to_string(path).expect("it runs");
        let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
        pages * 4096
    }

    /// The gateway's process: `ip netns exec` has become it.
    fn pid(&self) -> u32 {
        self.gateway.child.id()
    }

    /// Waits until `value` is `wanted`.
    pub fn until<T: PartialEq + std::fmt::Debug>(&self, what: &str, wanted: T, value: impl Fn(&Self) -> T) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = value(self);
            if found == wanted {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: {found:?} instead of {wanted:?}\n{}",
                self.gateway.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The next datagram at the core: who sent it, and what.
    pub fn at_core(&self) -> (SocketAddr, Vec<u8>) {
        let mut buffer = [0; 2048];
        let (len, from) = self.core.recv_from(&mut buffer).expect("a packet reaches the core");
        (from, buffer[..len].to_vec())
    }

    /// Whether the core hears nothing for a moment.
    pub fn core_is_silent(&self) -> bool {
        self.core.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let silent = self.core.recv_from(&mut [0; 2048]).is_err();
        self.core.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        silent
    }

    /// The core sends a datagram to a UE.
    pub fn to_ue(&self, ue: IpAddr, payload: &[u8]) {
        self.core.send_to(payload, (ue, 4000)).expect("the core has a route");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some((thread, stop)) = self.echo.take() {
            stop.store(true, Ordering::Relaxed);
            let _ = thread.join();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.gateway.log());
            return;
        }
        if self.ends {
            return;
        }
        // Whatever a test did to it: it still runs, and did not complain about itself.
        let ended = self.gateway.child.try_wait().expect("our child");
        let log = self.gateway.log();
        assert!(ended.is_none() && !log.contains("panicked") && !log.contains("ERROR"), "{log}");
    }
}

fn connect(ues: &Namespace, middle: &Namespace, core: &Namespace) {
    let (u, g, c) = (&ues.0, &middle.0, &core.0);
    ip(&["-n", g, "link", "add", "ue0", "type", "veth", "peer", "name", "gw0", "netns", u]);
    ip(&["-n", g, "link", "add", "core0", "type", "veth", "peer", "name", "gw0", "netns", c]);
    batch(
        g,
        "link set ue0 up\nlink set core0 up\n\
         addr add 10.20.0.1/24 dev ue0\naddr add fd20::1/64 dev ue0 nodad\naddr add 10.77.0.1/24 dev core0\n\
         route add 10.21.0.0/16 via 10.20.0.2\nroute add fd21::/64 via fd20::2\n",
    );
    batch(
        u,
        "link set gw0 up\naddr add 10.20.0.2/24 dev gw0\naddr add fd20::2/64 dev gw0 nodad\n\
         route add local 10.21.0.0/16 dev lo\nroute add local fd21::/64 dev lo\n",
    );
    batch(c, "link set gw0 up\naddr add 10.77.0.2/24 dev gw0\nroute add 10.64.0.0/16 via 10.77.0.1\n");
    let set = |key: &str, value| {
        std::fs::write(format!("/proc/sys/net/{key}"), value).expect("root may");
    };
    // As deploy/sysctl.d says; UEs ask for ECN nevertheless.
    middle.inside(|| {
        set("ipv4/ip_forward", "1");
        set("ipv4/tcp_ecn", "0");
    });
    ues.inside(|| {
        set("ipv4/tcp_ecn", "1");
        set("ipv6/ip_nonlocal_bind", "1");
    });
}

pub fn batch(namespace: &str, commands: &str) {
    let mut child = Command::new("ip")
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("iproute2");
    child.stdin.take().expect("piped").write_all(commands.as_bytes()).expect("written");
    assert!(child.wait().expect("ends").success(), "{commands}");
}

fn config(setup: &Setup) -> String {
    let workers = setup.workers.unwrap_or(1);
    let listen = setup.listen.unwrap_or(r#"["10.20.0.1:4500", "[fd20::1]:4500"]"#);
    let (profile, limits) = (setup.profile, setup.limits);
    let tables = setup.tables.clone().unwrap_or_else(|| {
        format!(
            r#"[inner]
device = "swu0"
[[pool]]
name = "default"
prefixes = ["10.64.0.0/16"]
[[profile]]
name = "lab"
auth = "psk"
secrets_file = "secrets.toml"
{profile}"#
        )
    });
    format!(
        r#"[gateway]
identity = "gw.test"
workers = {workers}
run_dir = "run"
[listen]
tcp = {listen}
{tables}
[limits]
{limits}
"#
    )
}

fn send_back(socket: &UdpSocket, stop: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..len], from).expect("the core has a route");
        }
    }
}

/// Connects from `source`; its port 0 is any.
pub fn dial(source: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    dial_with(source, to, |_| {})
}

/// Connects with socket options set before.
pub fn dial_with(
    source: SocketAddr,
    to: SocketAddr,
    options: impl FnOnce(&Socket),
) -> std::io::Result<TcpStream> {
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    options(&socket);
    socket.bind(&source.into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

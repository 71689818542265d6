//! The swugate process of a test.

use super::sims::Sims;
use super::topology::{Cleanup, INNER_DEVICE, Namespace, POOL};
use crate::error::Failure;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait until the gateway says that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait until it has ended after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// Last lines of its log that are shown when it fails.
const LOG_LINES: usize = 15;

/// How the gateway of a test is set up.
#[derive(Clone)]
pub struct Setup<'a> {
    /// One worker on each.
    pub cores: Vec<usize>,
    /// IKE proposal.
    pub ike: &'a str,
    /// ESP proposals.
    pub esp: &'a [&'a str],
    /// Whether downlink packets wait in flow queues.
    pub flow_queue: bool,
    /// Whether it is reached over UDP too.
    pub udp: bool,
    /// Its certificate and key, PEM.
    pub certificate: Option<(&'a str, &'a str)>,
    /// Whether TLS takes the place of TCP.
    pub tls: bool,
    /// Further lines of `[listen]`.
    pub listen: &'a str,
    /// Further lines of `[inner]`.
    pub inner: &'a str,
    /// SIMs of UEs that authenticate by EAP-AKA or EAP-AKA', and how many there are.
    pub sims: Option<(&'a Sims, u32)>,
}

/// A running gateway.
pub struct Gateway {
    binary: PathBuf,
    pid: u32,
    psk: String,
    directory: PathBuf,
    stop: mpsc::Sender<()>,
    supervisor: JoinHandle<()>,
}

/// Finds the gateway binary: the one named, or the one beside this program.
///
/// # Errors
/// [`Failure::Environment`] when there is none.
pub fn find_binary(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()
            .ok()
            .and_then(|own| Some(own.parent()?.join("swugate")))
            .unwrap_or_else(|| PathBuf::from("swugate")),
    };
    if path.is_file() {
        return fs::canonicalize(&path)
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())));
    }
    Err(Failure::Environment(format!(
        "there is no {}; build it with `cargo build --release -p gateway`, or name it with --swugate",
        path.display()
    )))
}

impl Gateway {
    /// Starts the gateway in its namespace and waits until it is ready.
    ///
    /// # Errors
    /// [`Failure::Check`] with the end of its log when it does not get ready.
    pub fn start(
        binary: &Path,
        namespace: &Namespace,
        setup: &Setup<'_>,
        cleanup: &Arc<Cleanup>,
    ) -> Result<Self, Failure> {
        let directory = std::env::temp_dir().join(format!("swdemo-{}", std::process::id()));
        let io = |error: std::io::Error| Failure::Environment(format!("{}: {error}", directory.display()));
        fs::create_dir_all(&directory).map_err(io)?;
        cleanup.set_directory(&directory);
        let psk = random_psk();
        write_config(&directory, &psk, setup).map_err(io)?;
        let notify = UnixDatagram::bind(directory.join("notify.sock")).map_err(io)?;
        let (stop, stopped) = mpsc::channel();
        let (started, child) = mpsc::channel();
        let namespace = namespace.thread_entry(&setup.cores);
        let command = command(binary, &directory).map_err(io)?;
        // The thread lives as long as the gateway: its end would be the parent's death to the child.
        let supervisor = std::thread::spawn({
            let cleanup = cleanup.clone();
            move || supervise(namespace, command, &started, &stopped, &cleanup)
        });
        let pid = child
            .recv()
            .unwrap_or_else(|_| Err(Failure::Environment("the gateway's thread ended".into())))?;
        let gateway = Self { binary: binary.to_owned(), pid, psk, directory, stop, supervisor };
        gateway.wait_ready(&notify).map_err(|failure| gateway.explain(failure))?;
        Ok(gateway)
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the directory of its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the key that its UEs share.
    pub fn psk(&self) -> &str {
        &self.psk
    }

    /// Adds the end of the gateway's log to a failure.
    pub fn explain(&self, failure: Failure) -> Failure {
        let log = fs::read_to_string(self.directory.join("swugate.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        Failure::Check(format!("{failure}\nlast lines of the gateway's log:\n{tail}"))
    }

    /// Returns what the gateway says it has dropped, by reason; `None` when it does not answer.
    pub fn drops(&self) -> Option<BTreeMap<String, u64>> {
        let mut command = Command::new(&self.binary);
        let output =
            command.args(["stats", "--json", "-c"]).arg(self.directory.join("swugate.toml")).output().ok()?;
        let stats: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let drops: BTreeMap<String, u64> = serde_json::from_value(stats.get("drops")?.clone()).ok()?;
        Some(drops.into_iter().filter(|(_, count)| *count > 0).collect())
    }

    /// Asks it to end and waits.
    pub fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.supervisor.join();
    }

    /// Waits for READY=1 (sd_notify).
    fn wait_ready(&self, notify: &UnixDatagram) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_TIMEOUT;
        let _ = notify.set_read_timeout(Some(Duration::from_millis(100)));
        let mut message = [0; 1024];
        while Instant::now() < deadline {
            if let Ok(len) = notify.recv(&mut message)
                && message[..len].split(|octet| *octet == b'\n').any(|line| line == b"READY=1")
            {
                return Ok(());
            }
            if self.supervisor.is_finished() {
                return Err(Failure::Check("the gateway ended before it was ready".into()));
            }
        }
        Err(Failure::Check(format!("the gateway was not ready within {} s", READY_TIMEOUT.as_secs())))
    }
}

/// Starts the child in namespace and core of the gateway, and ends it when told, or when nobody listens any more.
fn supervise(
    enter: impl FnOnce() -> Result<(), Failure>,
    mut command: Command,
    started: &mpsc::Sender<Result<u32, Failure>>,
    stopped: &mpsc::Receiver<()>,
    cleanup: &Cleanup,
) {
    let spawned = enter().and_then(|()| {
        command.spawn().map_err(|error| Failure::Environment(format!("cannot start the gateway: {error}")))
    });
    let mut child = match spawned {
        Ok(child) => child,
        Err(failure) => {
            let _ = started.send(Err(failure));
            return;
        }
    };
    cleanup.set_gateway(i32::try_from(child.id()).ok());
    let _ = started.send(Ok(child.id()));
    loop {
        match stopped.recv_timeout(Duration::from_millis(100)) {
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if matches!(child.try_wait(), Ok(Some(_))) {
                    break;
                }
            }
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                end(&mut child);
                break;
            }
        }
    }
    cleanup.set_gateway(None);
}

fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn command(binary: &Path, directory: &Path) -> std::io::Result<Command> {
    let log = File::create(directory.join("swugate.log"))?;
    // setpriv ends the gateway even when this process is killed outright.
    let setpriv = Path::new("/usr/bin/setpriv");
    let mut command = if setpriv.exists() {
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
        command
    } else {
        Command::new(binary)
    };
    command
        .args(["run", "-c"])
        .arg(directory.join("swugate.toml"))
        .env("NOTIFY_SOCKET", directory.join("notify.sock"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command)
}

fn udp_listeners(udp: bool) -> &'static [&'static str] {
    if udp { &["0.0.0.0:4500"] } else { &[] }
}

fn random_psk() -> String {
    let mut octets = [0; 16];
    codec::Random::fill(&mut codec::OsRandom, &mut octets);
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn write_config(directory: &Path, psk: &str, setup: &Setup<'_>) -> std::io::Result<()> {
    let run_dir = directory.join("run");
    fs::create_dir_all(&run_dir)?;
    let config = format!(
        r#"[gateway]
identity = "gw.demo.test"
workers = {workers}
cores = {cores:?}
run_dir = "{run_dir}"
[listen]
{streams}
udp = {udp:?}
{listen}
[inner]
device = "{INNER_DEVICE}"
flow_queue = {flow_queue}
{inner}
[[pool]]
name = "default"
prefixes = ["{POOL}"]
{profiles}{certificate}{tls}"#,
        streams = match setup.tls {
            false => "tcp = [\"0.0.0.0:4500\"]",
            true => "tcp = []\ntls = [\"0.0.0.0:4500\"]",
        },
        tls = match setup.tls {
            false => "",
            true => "[tls]\nchain = \"gw.pem\"\nkey = \"gw.key\"\n",
        },
        profiles = profiles(setup),
        certificate = match setup.certificate {
            None => "",
            // It vouches for itself, and for no UE.
            Some(_) => "[certificate]\nchain = \"gw.pem\"\nkey = \"gw.key\"\nca = \"gw.pem\"\n",
        },
        udp = udp_listeners(setup.udp),
        run_dir = run_dir.display(),
        workers = setup.cores.len(),
        cores = setup.cores,
        flow_queue = setup.flow_queue,
        listen = setup.listen,
        inner = setup.inner,
    );
    fs::write(directory.join("swugate.toml"), config)?;
    let private = |name: &str| {
        let path = directory.join(name);
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
    };
    if let Some((chain, key)) = setup.certificate {
        fs::write(directory.join("gw.pem"), chain)?;
        private("gw.key")?.write_all(key.as_bytes())?;
    }
    let mut secrets = private("secrets.toml")?;
    writeln!(secrets, "psk = \"{psk}\"")?;
    match setup.sims {
        Some((sims, count)) => secrets.write_all(sims.entries(count).as_bytes()),
        None => Ok(()),
    }
}

/// Profiles of UEs with the key, and of those with SIMs: the first digit of their names tells the method.
fn profiles(setup: &Setup<'_>) -> String {
    let profile = |auth: &str, idi: &str| {
        format!(
            r#"[[profile]]
name = "{auth}"
match = {{ idi = "{idi}", idr = "*" }}
auth = "{auth}"
secrets_file = "secrets.toml"
pool = "default"
local_ts = ["0.0.0.0/0"]
ike = ["{ike}"]
esp = {esp:?}
transports = ["tcp", "udp", "tls"]
"#,
            ike = setup.ike,
            esp = setup.esp,
        )
    };
    let with_sims: &[_] =
        if setup.sims.is_some() { &[("eap-aka-prime", "6*"), ("eap-aka", "0*")] } else { &[] };
    [("psk", "*")].iter().chain(with_sims).map(|(auth, idi)| profile(auth, idi)).collect()
}

//! A network namespace, and the real `swugate run` in it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};

pub const SWUGATE: &str = env!("CARGO_BIN_EXE_swugate");

/// Time the contract gives a start.
const READY_MAX: Duration = Duration::from_secs(10);

/// Time the contract gives SIGTERM.
const END_MAX: Duration = Duration::from_secs(5);

/// A network namespace that goes away with the test.
pub struct Namespace(pub String);

impl Namespace {
    pub fn new(name: &str) -> Self {
        let name = format!("{name}{}", std::process::id());
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Self(name)
    }

    /// Takes the calling thread into the namespace: sockets and threads it makes from now on are there.
    pub fn enter(&self) {
        let namespace = File::open(format!("/run/netns/{}", self.0)).expect("it exists");
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("entered");
    }

    /// Does something inside the namespace, on a thread of its own: namespaces belong to threads.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside.join().expect("no panic")
        })
    }

    /// Connects to a port of the namespace's loopback.
    pub fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        self.inside(|| TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))))
    }

    pub fn get(&self, path: &str) -> String {
        let mut stream = self.connect(9329).expect("metrics listen");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

pub fn ip(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().expect("ip runs").success(), "ip {args:?}");
}

/// A running gateway, ended with the test whatever happens.
pub struct Gateway {
    pub child: Child,
    pub dir: tempfile::TempDir,
    notify: UnixDatagram,
}

impl Gateway {
    /// Starts it with `config`, whose profiles may name `secrets.toml`.
    pub fn start(namespace: &Namespace, config: &str, user: Option<&User>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("mode set");
        let secrets = dir.path().join("secrets.toml");
        fs::write(&secrets, "psk = \"test-secret\"\n").expect("written");
        fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).expect("mode set");
        let mut config = config.to_owned();
        if let Some(user) = user {
            chown(&secrets, Some(user.uid.as_raw()), None).expect("given away");
            let line = format!("[gateway]\nuser = \"{}\"\n", user.name);
            config = config.replacen("[gateway]\n", &line, 1);
        }
        fs::write(dir.path().join("swugate.toml"), config).expect("written");
        let notify = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        fs::set_permissions(dir.path().join("notify"), fs::Permissions::from_mode(0o777)).expect("mode set");
        notify.set_read_timeout(Some(READY_MAX)).expect("a timeout");
        let child = Command::new("ip")
            .args(["netns", "exec", &namespace.0, SWUGATE, "run", "-c", "swugate.toml"])
            .current_dir(dir.path())
            .env("NOTIFY_SOCKET", dir.path().join("notify"))
            .stderr(Stdio::from(File::create(dir.path().join("log")).expect("a log")))
            .spawn()
            .expect("started");
        Self { child, dir, notify }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn notified(&self) -> String {
        let mut buffer = [0; 64];
        let len = self.notify.recv(&mut buffer).unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn command(&self, args: &[&str]) -> Output {
        Command::new(SWUGATE).args(args).arg("-c").arg(self.path("swugate.toml")).output().expect("runs")
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the process is ours");
    }

    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + END_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("still running\n{}", self.log());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

pub fn is_root() -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprintln!("skipped: needs root for a namespace and a device");
    }
    root
}

/// Waits for `condition` to hold.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

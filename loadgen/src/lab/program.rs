//! Programs of a tunnel, each inside a namespace.

use crate::demo::topology::Namespace;
use crate::error::Failure;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait until the tunnel stands: several losses in a row of a slow path are part of it.
const UP_TIMEOUT: Duration = Duration::from_secs(60);

/// A program inside a namespace; killed on drop, and when this process dies.
pub(super) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `program ARGS`, whose words go to `ROLE.log` in `directory`.
    pub(super) fn start(
        namespace: &Namespace,
        program: &Path,
        args: &[&str],
        directory: &Path,
        role: &str,
        environment: &[(&str, &str)],
    ) -> Result<Self, Failure> {
        let log = directory.join(format!("{role}.log"));
        let open = || File::create(&log).and_then(|file| Ok((file.try_clone()?, file)));
        let (stdout, stderr) =
            open().map_err(|error| Failure::Environment(format!("{}: {error}", log.display())))?;
        let child = Command::new("ip")
            .args(["netns", "exec", namespace.name(), "setpriv", "--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(args)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(|error| Failure::Environment(format!("cannot run ip netns exec: {error}")))?;
        Ok(Self { child, log })
    }

    /// Returns its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Says whether it has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until `device` has an address.
    pub(super) fn wait_address(&mut self, namespace: &Namespace, device: &str) -> Result<Ipv4Addr, Failure> {
        self.wait(&format!("{device} got no address"), || {
            // 5: lab0    inet 10.64.0.3/32 scope …
            let text = namespace.ip(&["-4", "-o", "addr", "show", "dev", device]).ok()?;
            let mut words = text.split_ascii_whitespace().skip_while(|word| *word != "inet");
            words.nth(1)?.split('/').next()?.parse().ok()
        })
    }

    /// Waits until it says `text`.
    pub(super) fn wait_for(&mut self, text: &str) -> Result<(), Failure> {
        let log = self.log.clone();
        self.wait(&format!("never said {text:?}"), || {
            fs::read_to_string(&log).ok().filter(|said| said.contains(text)).map(|_| ())
        })
    }

    fn wait<T>(&mut self, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, Failure> {
        let deadline = Instant::now() + UP_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(found) = look() {
                return Ok(found);
            }
            if self.has_ended() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<&str> = said.lines().rev().take(5).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        Err(Failure::Check(format!("{what}; {} says: {}", self.log.display(), tail.join(" | "))))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

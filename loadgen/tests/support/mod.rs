//! What tests of whole programs share: the gateway beside them, and namespaces to put programs in.

use std::path::PathBuf;
use std::process::Command;

/// Finds the gateway beside this test's programs; builds it when it is not there.
pub fn gateway() -> PathBuf {
    let beside = PathBuf::from(env!("CARGO_BIN_EXE_loadgen")).with_file_name("swugate");
    if !beside.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "-p", "gateway"]);
        if beside.parent().is_some_and(|directory| directory.ends_with("release")) {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
    }
    beside
}

/// Whether namespaces can be made; says so where they cannot.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: namespaces need root");
    }
    root
}

/// Runs `ip`, which must succeed.
pub fn ip(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().unwrap().success(), "ip {args:?}");
}

/// Namespaces of one test, removed on drop.
pub struct Namespaces(pub Vec<String>);

impl Namespaces {
    /// Makes one for each role; `test` and the process tell them from those of others.
    pub fn create(test: &str, roles: &[&str]) -> Self {
        let names = roles.iter().map(|role| format!("{test}-{role}-{}", std::process::id())).collect();
        let namespaces = Self(names);
        for name in &namespaces.0 {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        namespaces
    }

    /// A program that is going to run in one of them.
    pub fn command(&self, index: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0[index]]).arg(program);
        command
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

//! The process: resource limits, privileges, readiness, and what it uses.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::{Uid, User};

use crate::error::Failure;

/// What a running gateway keeps of root: the inner device and its routes, and ports below 1024.
pub const GATEWAY_KEEPS: &[Capability] = &[Capability::CAP_NET_ADMIN, Capability::CAP_NET_BIND_SERVICE];

/// What a relay keeps of root: nothing. Its ports are open by then.
pub const RELAY_KEEPS: &[Capability] = &[];

/// Refuses to start where no part of swugate can work: without io_uring.
///
/// # Errors
/// [`Failure::Environment`] that names it.
pub fn check_io_uring() -> Result<(), Failure> {
    io_uring::IoUring::new(8).map_err(|error| {
        let hint =
            "kernel feature io_uring is missing or forbidden (sysctl kernel.io_uring_disabled, seccomp)";
        Failure::Environment(format!("{hint}: {error}"))
    })?;
    Ok(())
}

/// Refuses to start where the gateway cannot work: without CAP_NET_ADMIN.
///
/// # Errors
/// [`Failure::Environment`] that names it.
pub fn check_net_admin() -> Result<(), Failure> {
    let effective = caps::read(None, CapSet::Effective)
        .map_err(|error| Failure::Environment(format!("cannot read capabilities: {error}")))?;
    if !effective.contains(&Capability::CAP_NET_ADMIN) {
        let message = "missing privilege CAP_NET_ADMIN: needed to create, address and route the inner device";
        return Err(Failure::Environment(message.into()));
    }
    Ok(())
}

/// Raises the number of open files to what the system allows, and the memory that rings may lock to
/// whatever they need where that is allowed.
pub fn raise_resource_limits() {
    for (resource, wanted) in [(Resource::RLIMIT_NOFILE, 0), (Resource::RLIMIT_MEMLOCK, RLIM_INFINITY)] {
        let Ok((soft, hard)) = getrlimit(resource) else { continue };
        // Going beyond the hard limit takes CAP_SYS_RESOURCE.
        if wanted > hard && setrlimit(resource, wanted, wanted).is_ok() {
            continue;
        }
        if soft < hard
            && let Err(error) = setrlimit(resource, hard, hard)
        {
            tracing::warn!("cannot raise {resource:?} from {soft} to {hard}: {error}");
        }
    }
}

/// The user called `name`; the configuration has checked that it exists.
///
/// # Errors
/// [`Failure::Environment`] when it is gone.
pub fn find_user(name: &str) -> Result<User, Failure> {
    let user = User::from_name(name).ok().flatten();
    user.ok_or_else(|| Failure::Environment(format!("user {name} does not exist")))
}

/// Gives up everything of root but the capabilities `kept`, becomes `user` if one is given, and bars the way back.
///
/// Capabilities belong to threads: this must come before any other thread exists. A process that did not
/// start as root keeps its user and what it was given of the same capabilities.
///
/// # Errors
/// [`Failure::Environment`] when the system refuses a step.
pub fn drop_privileges(user: Option<&User>, kept: &[Capability]) -> Result<(), Failure> {
    let failed = |step: &str, error: &dyn std::fmt::Display| Failure::Environment(format!("{step}: {error}"));
    let held = caps::read(None, CapSet::Permitted).map_err(|error| failed("capabilities", &error))?;
    let keep: CapsHashSet = kept.iter().copied().filter(|cap| held.contains(cap)).collect();
    if held.contains(&Capability::CAP_SETPCAP) {
        for cap in caps::all() {
            if !keep.contains(&cap) {
                // A kernel that does not know the capability has nothing to drop.
                let _ = caps::drop(None, CapSet::Bounding, cap);
            }
        }
    }
    if let Some(user) = user.filter(|user| user.uid != Uid::effective()) {
        caps::securebits::set_keepcaps(true).map_err(|error| failed("keep capabilities", &error))?;
        nix::unistd::setgroups(&[user.gid]).map_err(|error| failed("set groups", &error))?;
        nix::unistd::setgid(user.gid).map_err(|error| failed("set group", &error))?;
        nix::unistd::setuid(user.uid).map_err(|error| failed("set user", &error))?;
    }
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())
        .map_err(|error| failed("capabilities", &error))?;
    // Effective must be a subset of permitted at every moment: lower it first, raise it last.
    caps::set(None, CapSet::Effective, &CapsHashSet::new())
        .map_err(|error| failed("capabilities", &error))?;
    caps::set(None, CapSet::Permitted, &keep).map_err(|error| failed("capabilities", &error))?;
    caps::set(None, CapSet::Effective, &keep).map_err(|error| failed("capabilities", &error))?;
    nix::sys::prctl::set_no_new_privs().map_err(|error| failed("no_new_privs", &error))
}

/// Tells a supervisor that waits for it (`NOTIFY_SOCKET`, sd_notify(3)) about `state`, such as `READY=1`.
pub fn notify_supervisor(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let send = || -> io::Result<()> {
        let name = path.as_encoded_bytes();
        let addr = match name.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(Path::new(&path))?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &addr).map(drop)
    };
    if let Err(error) = send() {
        tracing::warn!("cannot tell the supervisor {state}: {error}");
    }
}

/// Resident memory of the process in octets; `None` when /proc does not tell.
pub fn resident_octets() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Makes a directory of ours for `owner`.
///
/// # Errors
/// [`Failure::Environment`] naming it.
pub fn make_directory(dir: &Path, owner: Option<&User>) -> Result<(), Failure> {
    if !dir.is_dir() {
        let made = DirBuilder::new().recursive(true).mode(0o750).create(dir);
        made.map_err(|error| Failure::system(dir.display(), &error))?;
    }
    if let Some(user) = owner {
        let given = std::os::unix::fs::chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()));
        given.map_err(|error| Failure::system(dir.display(), &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read() {
        assert!(resident_octets().expect("/proc is mounted") > 1 << 20);
    }
}

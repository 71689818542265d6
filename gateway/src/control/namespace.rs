//! Inner devices in network namespaces of their own (`[[inner]] netns`).
//!
//! A namespace belongs to a thread, so each such device has one: it enters the namespace, makes the device there, sets
//! it up, and then only watches the addresses of that namespace. The queues work from anywhere and go to the workers.

use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::sched::{CloneFlags, setns};
use tokio::sync::mpsc;

use super::inner::{self, LocalAddrs};
use super::pool::PoolConfig;
use crate::config::InnerSection;
use crate::error::Failure;
use crate::io::tun::{self, TunQueue};
use crate::process;
use crate::types::NetworkId;

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// A device that was made in a namespace.
pub struct Elsewhere {
    /// Its queues.
    pub queues: Vec<TunQueue>,
    /// The host's own addresses there.
    pub local_addrs: Arc<[IpAddr]>,
    /// Dropped when the process has given its privileges up: the thread then does the same.
    pub privileged: Sender<()>,
}

/// Makes the device of `inner` with so many queues, and addresses for `pools`, which are its network's. Changes of the
/// namespace's addresses go to `changes`.
///
/// # Errors
/// [`Failure::Environment`] naming the namespace or the device, and what it lacks.
pub fn open(
    network: NetworkId,
    inner: &InnerSection,
    netns: &str,
    pools: Vec<PoolConfig>,
    queues: usize,
    changes: mpsc::Sender<LocalAddrs>,
) -> Result<Elsewhere, Failure> {
    let (said, made) = channel();
    let (privileged, privileges) = channel();
    let (inner, path) = (inner.clone(), Path::new(NAMESPACES).join(netns));
    let thread = move || {
        let made = enter(&path).and_then(|()| make(&inner, &pools, queues));
        match made {
            Ok((queues, local_addrs, runtime)) => {
                let _ = said.send(Ok(Elsewhere { queues, local_addrs, privileged }));
                watch(network, &privileges, &runtime, changes);
            }
            Err(failure) => {
                let _ = said.send(Err(failure));
            }
        }
    };
    let name = format!("netns-{}", network.0);
    std::thread::Builder::new()
        .name(name)
        .spawn(thread)
        .map_err(|error| Failure::system("starting a thread", &error))?;
    made.recv().unwrap_or_else(|_| Err(Failure::Failed(format!("the thread of namespace {netns} ended"))))
}

fn enter(path: &Path) -> Result<(), Failure> {
    let file = File::open(path).map_err(|error| Failure::system(path.display(), &error))?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .map_err(|error| Failure::system(format!("{}: enter", path.display()), &error.into()))
}

type Made = (Vec<TunQueue>, Arc<[IpAddr]>, tokio::runtime::Runtime);

fn make(inner: &InnerSection, pools: &[PoolConfig], queues: usize) -> Result<Made, Failure> {
    let device = &inner.device;
    let queues = tun::open(device, queues, inner.super_packets())
        .map_err(|error| Failure::system(format!("device {device}: /dev/net/tun"), &error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::system("starting a thread", &error))?;
    let local_addrs = runtime.block_on(async {
        inner::set_up_device(inner, pools).await?;
        inner::local_addrs().await
    })?;
    Ok((queues, local_addrs, runtime))
}

/// Watches addresses for as long as the process lives.
fn watch(
    network: NetworkId,
    privileges: &Receiver<()>,
    runtime: &tokio::runtime::Runtime,
    changes: mpsc::Sender<LocalAddrs>,
) {
    // Until then this thread must be able to follow the others to another user.
    _ = privileges.recv();
    if let Err(failure) = process::drop_privileges(None, &[]) {
        return tracing::error!(%failure, "a namespace is not watched");
    }
    runtime.block_on(async {
        match inner::watch_local_addrs(vec![network], changes) {
            Ok(()) => std::future::pending().await,
            Err(failure) => tracing::warn!(%failure, "a namespace is not watched"),
        }
    });
}

//! A TUN device at the end of one UE's tunnel: what the kernel routes into it leaves as ESP, and the other way round.

mod routes;

pub use routes::{Routes, prefixes};

use crate::engine::{Inner, Sealer, Ue};
use crate::error::Failure;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use tokio::sync::Notify;
use tun_rs::{AsyncDevice, DeviceBuilder};

/// Packets that wait for the connection; beyond it the device is not read and the kernel drops.
const QUEUE_MAX: usize = 512;
/// Longest packet read from the device.
const PACKET_LEN_MAX: usize = 9216;

/// A TUN device with addresses.
pub struct Tun {
    device: Rc<AsyncDevice>,
}

/// The packets between device and tunnel.
struct Shared {
    queue: RefCell<VecDeque<Vec<u8>>>,
    /// Told when the queue has room again.
    drained: Notify,
}

struct TunInner {
    device: Rc<AsyncDevice>,
    shared: Rc<Shared>,
}

impl Tun {
    /// Creates the device `name` with host addresses; must run inside [`crate::engine::run`].
    ///
    /// # Errors
    /// [`Failure::Environment`] when the kernel refuses.
    pub fn create(name: &str, addresses: &[IpAddr], mtu: u16) -> Result<Self, Failure> {
        let mut builder = DeviceBuilder::new().name(name).mtu(mtu);
        for address in addresses {
            builder = match address {
                IpAddr::V4(v4) => builder.ipv4(*v4, 32, None),
                IpAddr::V6(v6) => builder.ipv6(*v6, 128),
            };
        }
        let device = builder.build_async().map_err(|error| {
            Failure::Environment(format!(
                "cannot create TUN device {name}: {error}; it needs root and /dev/net/tun (modprobe tun), and a free name"
            ))
        })?;
        Ok(Self { device: Rc::new(device) })
    }

    /// Connects the device with the tunnel of `ue`, for as long as the future runs.
    ///
    /// # Errors
    /// The device broke.
    pub async fn serve(&self, ue: &Ue) -> io::Result<()> {
        let shared = Rc::new(Shared { queue: RefCell::new(VecDeque::new()), drained: Notify::new() });
        ue.set_inner(Some(Box::new(TunInner { device: self.device.clone(), shared: shared.clone() })));
        let mut buffer = vec![0; PACKET_LEN_MAX];
        loop {
            while shared.queue.borrow().len() >= QUEUE_MAX {
                shared.drained.notified().await;
            }
            let len = self.device.recv(&mut buffer).await?;
            shared.queue.borrow_mut().push_back(buffer[..len].to_vec());
            ue.wake();
        }
    }
}

impl Inner for TunInner {
    fn on_packet(&mut self, _now_ns: u64, packet: &[u8]) {
        // A full device drops, as any link does.
        let _ = self.device.try_send(packet);
    }

    fn fill(&mut self, _now_ns: u64, sealer: &mut Sealer<'_>) {
        let mut queue = self.shared.queue.borrow_mut();
        while !sealer.is_full() {
            let Some(packet) = queue.pop_front() else { break };
            sealer.seal(&packet);
        }
        if queue.len() < QUEUE_MAX {
            self.shared.drained.notify_one();
        }
    }

    fn has_output(&self) -> bool {
        !self.shared.queue.borrow().is_empty()
    }
}

//! A TUN device at the end of one UE's tunnel: what the kernel routes into it leaves as ESP, and the other way round.
//!
//! With offloads the device hands over TCP and UDP super-packets, which are cut to its MTU while they are sealed, and takes
//! super-packets, into which arriving segments are joined (`Joiner`). The device is read when the connection can take a
//! write, and not before: what does not fit waits in the device's own queue, where the kernel's congestion control sees it.

mod joiner;
mod routes;

pub use routes::{Routes, prefixes};

use crate::engine::{Inner, Sealer, Ue};
use crate::error::Failure;
use codec::ip::{InnerHeader, Segmenter, VirtioHeader};
use joiner::Joiner;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use tokio::sync::Notify;
use tun_rs::{AsyncDevice, DeviceBuilder};

/// Longest read from the device: a super-packet behind its virtio-net header.
const READ_LEN_MAX: usize = VirtioHeader::LEN + u16::MAX as usize;

/// Octets of a write from which on no other packet is added: one that may not wait, of a call, waits for the write before it.
const WRITE_LEN: usize = 128 << 10;

/// A TUN device with addresses.
pub struct Tun {
    device: Rc<AsyncDevice>,
    mtu: u16,
    offload: bool,
}

/// What the device's two users tell each other.
#[derive(Default)]
struct Shared {
    /// The device may have packets.
    readable: Cell<bool>,
    /// Told when it has none any more.
    drained: Notify,
    /// Why it cannot be read.
    broken: RefCell<Option<io::Error>>,
}

/// The tunnel's side of the device.
struct TunInner {
    device: Rc<AsyncDevice>,
    mtu: u16,
    offload: bool,
    shared: Rc<Shared>,
    buffer: Vec<u8>,
    joiner: Joiner,
}

impl Tun {
    /// Creates the device `name` with host addresses; must run inside [`crate::engine::run`].
    ///
    /// # Errors
    /// [`Failure::Environment`] when the kernel refuses.
    pub fn create(name: &str, addresses: &[IpAddr], mtu: u16, offload: bool) -> Result<Self, Failure> {
        let mut builder = DeviceBuilder::new().name(name).mtu(mtu).offload(offload);
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
        Ok(Self { device: Rc::new(device), mtu, offload })
    }

    /// Connects the device with the tunnel of `ue`, for as long as the future runs.
    ///
    /// # Errors
    /// The device broke.
    pub async fn serve(&self, ue: &Ue) -> io::Result<()> {
        let shared = Rc::new(Shared::default());
        ue.set_inner(Some(Box::new(TunInner {
            device: self.device.clone(),
            mtu: self.mtu,
            offload: self.offload,
            shared: shared.clone(),
            buffer: vec![0; READ_LEN_MAX],
            joiner: Joiner::new(),
        })));
        loop {
            self.device.readable().await?;
            shared.readable.set(true);
            ue.wake();
            shared.drained.notified().await;
            if let Some(error) = shared.broken.take() {
                return Err(error);
            }
        }
    }
}

impl TunInner {
    /// Reads one packet or super-packet; `None` when there is none now.
    fn read(&mut self) -> Option<usize> {
        match self.device.try_recv(&mut self.buffer) {
            Ok(len) => return Some(len),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => *self.shared.broken.borrow_mut() = Some(error),
        }
        self.shared.readable.set(false);
        self.shared.drained.notify_one();
        None
    }

    /// Seals what has been read, cut to the MTU; what makes no sense is left out.
    fn seal(&mut self, len: usize, sealer: &mut Sealer<'_>) {
        let octets = &mut self.buffer[..len];
        let read =
            if self.offload { VirtioHeader::split(octets) } else { Some((VirtioHeader::default(), octets)) };
        let Some((virtio, packet)) = read else { return };
        let Ok(inner) = InnerHeader::parse(packet) else { return };
        let Ok(mut segmenter) = Segmenter::new(packet, &inner, &virtio, self.mtu) else { return };
        while let Some(range) = segmenter.next(packet, false) {
            sealer.seal(&packet[range]);
        }
    }
}

impl Inner for TunInner {
    fn on_packet(&mut self, _now_ns: u64, packet: &[u8]) {
        let device = &self.device;
        // A full device drops, as any link does.
        if self.offload {
            self.joiner.push(packet, |octets| drop(device.try_send(octets)));
        } else {
            let _ = device.try_send(packet);
        }
    }

    fn on_burst_end(&mut self) {
        let device = &self.device;
        self.joiner.flush(|octets| drop(device.try_send(octets)));
    }

    fn fill(&mut self, _now_ns: u64, sealer: &mut Sealer<'_>) {
        while sealer.octets() < WRITE_LEN {
            let Some(len) = self.read() else { return };
            self.seal(len, sealer);
        }
    }

    fn has_output(&self) -> bool {
        self.shared.readable.get()
    }
}

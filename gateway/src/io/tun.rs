//! The inner device: one TUN interface with a queue per worker.
//!
//! A queue is read and written by plain system calls: each runs the whole path of the packet in the caller,
//! so a ring would save nothing but the entry, and a super-packet carries 64 KB per call, or more (BIG TCP).

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use codec::ip::VirtioHeader;

use super::check;

/// Most parts of one [`InnerDevice::write`] (`UIO_MAXIOV`).
pub const PARTS_MAX: usize = 1024;

/// How long to wait for a device of this name to go away: the kernel keeps it for some milliseconds after
/// its last user is gone.
const BUSY_WAIT: Duration = Duration::from_secs(2);

const CLONE_DEVICE: &CStr = c"/dev/net/tun";

/// TCP super-packets, also those with ECN, their checksum left to the reader.
const OFFLOAD_TCP: libc::c_uint =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;

/// UDP super-packets.
const OFFLOAD_UDP: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// Which super-packets a queue carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offloads {
    /// TCP over IPv4 and IPv6.
    pub tcp: bool,
    /// UDP datagrams of equal size (Linux 6.2).
    pub udp: bool,
    /// Longest of TCP over IPv4 that may be written, octets; beyond 65,535 for kernels from 6.6 on (BIG TCP).
    pub tcp4_octets: usize,
}

/// One queue of the inner device. Packets carry a [`VirtioHeader`].
pub trait InnerDevice: AsFd + Send {
    /// Reads one packet into `buffer`; `None` when there is none. A longer one is cut off.
    ///
    /// # Errors
    /// When the device is gone, which [`is_gone`] tells.
    fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Writes the packet that `parts`, at most [`PARTS_MAX`], make up.
    ///
    /// # Errors
    /// `WouldBlock` when the device has no room; otherwise it refuses the packet, is down or gone.
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Which super-packets [`Self::write`] may be given.
    fn offloads(&self) -> Offloads;
}

/// A queue of a TUN device.
#[derive(Debug)]
pub struct TunQueue {
    fd: OwnedFd,
    offloads: Offloads,
}

impl TunQueue {
    /// A queue over a descriptor that keeps packet boundaries, non-blocking; its writes may use `offloads`.
    pub fn new(fd: OwnedFd, offloads: Offloads) -> Self {
        Self { fd, offloads }
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl InnerDevice for TunQueue {
    fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        // SAFETY: the kernel writes at most the length of the live, exclusively borrowed buffer.
        let result = unsafe { libc::read(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(result) {
            Ok(len) => Ok(Some(len)),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error => Err(error),
            },
        }
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let count = parts.len().min(PARTS_MAX) as libc::c_int;
        // SAFETY: IoSlice has the layout of iovec; each points to a live slice that the kernel only reads.
        let result = unsafe { libc::writev(self.fd.as_raw_fd(), parts.as_ptr().cast(), count) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }
}

/// Whether a queue's device was deleted, by what reading it ended with. Down is not gone: reading then finds
/// nothing, and writing fails until the device is up again.
pub fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}

/// Opens `queues` queues of the device `name` (at most 15 octets), creating it; it disappears with its
/// last queue. With `super_packets` the device yields them as far as the kernel can, and takes them; those of TCP over
/// IPv4 up to so many octets, which beyond 65,535 needs Linux 6.6.
///
/// # Errors
/// `PermissionDenied` without CAP_NET_ADMIN; `NotFound` without /dev/net/tun; `ResourceBusy` when another
/// process holds the device.
pub fn open(name: &str, queues: usize, super_packets: Option<usize>) -> io::Result<Vec<TunQueue>> {
    let first = open_queue_patiently(name)?;
    let offloads = super_packets.map(|octets| enable_offloads(first.as_raw_fd(), octets)).unwrap_or_default();
    let mut opened = vec![TunQueue::new(first, offloads)];
    while opened.len() < queues {
        opened.push(TunQueue::new(open_queue(name)?, offloads));
    }
    Ok(opened)
}

fn open_queue_patiently(name: &str) -> io::Result<OwnedFd> {
    let deadline = Instant::now() + BUSY_WAIT;
    loop {
        match open_queue(name) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

fn open_queue(name: &str) -> io::Result<OwnedFd> {
    let path = CLONE_DEVICE.to_str().map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let fd = OwnedFd::from(file);
    attach(fd.as_raw_fd(), name)?;
    Ok(fd)
}

/// Attaches the descriptor to the device as a further queue.
fn attach(fd: RawFd, name: &str) -> io::Result<()> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a device name has 1 to 15 octets"));
    }
    // SAFETY: an all-zero ifreq is valid; its name stays NUL-terminated because `name` is shorter than
    // IFNAMSIZ; it outlives both ioctls, which read it; TUNSETVNETHDRSZ reads one int.
    unsafe {
        let mut request: libc::ifreq = mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        check(libc::ioctl(fd, libc::TUNSETIFF, &raw mut request))?;
        let header_len = VirtioHeader::LEN as libc::c_int;
        check(libc::ioctl(fd, libc::TUNSETVNETHDRSZ, &raw const header_len))?;
    }
    Ok(())
}

/// Lets the device, all queues of it, yield super-packets. A kernel that cannot yield a kind does not take
/// it either.
fn enable_offloads(fd: RawFd, octets: usize) -> Offloads {
    let set = |flags: libc::c_uint| {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        check(unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) }).is_ok()
    };
    let tcp4_octets = if has_big_tcp() { octets } else { 0 };
    if set(OFFLOAD_TCP | OFFLOAD_UDP) {
        Offloads { tcp: true, udp: true, tcp4_octets }
    } else {
        Offloads { tcp: set(OFFLOAD_TCP), udp: false, tcp4_octets }
    }
}

/// Whether a TUN device of this kernel takes packets of TCP over IPv4 that are longer than their header can say.
fn has_big_tcp() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    takes_long_packets(&release)
}

/// As [`has_big_tcp`], of a kernel by its release. IPv4 knows such packets from Linux 6.3 on, but until 6.6 a TUN device
/// puts what is written to it into single pages, of which a packet has 17 at most: longer ones fail with EMSGSIZE.
fn takes_long_packets(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (6, 6),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::takes_long_packets;

    #[test]
    fn kernels_from_6_6_on_take_packets_longer_than_their_header_can_say() {
        for release in ["6.6.0", "6.6-rc1", "6.12.1-generic", "7.0.0", "6.18.44-fc-v595"] {
            assert!(takes_long_packets(release), "{release}");
        }
        for release in ["6.1.0-18-amd64", "6.3.0", "6.5.13", "5.15.0", "6", "", "6.x"] {
            assert!(!takes_long_packets(release), "{release}");
        }
    }
}

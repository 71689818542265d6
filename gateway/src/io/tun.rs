//! The inner device: one TUN interface with a queue per worker.

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use super::check;

/// Octets of the virtio-net header in front of every packet read from or written to a queue.
pub const VNET_HDR_LEN: usize = 10;

/// The header of a packet with no offload asked for: all zero.
pub const VNET_HDR_NONE: [u8; VNET_HDR_LEN] = [0; VNET_HDR_LEN];

/// How long to wait for a device of this name to go away: the kernel keeps it for some milliseconds after
/// its last user is gone.
const BUSY_WAIT: Duration = Duration::from_secs(2);

const CLONE_DEVICE: &CStr = c"/dev/net/tun";

/// Opens `queues` queues of the device `name` (at most 15 octets), creating it; it disappears with its
/// last queue. Packets carry a virtio-net header of [`VNET_HDR_LEN`] octets.
///
/// # Errors
/// `PermissionDenied` without CAP_NET_ADMIN; `NotFound` without /dev/net/tun; `ResourceBusy` when another
/// process holds the device.
pub fn open(name: &str, queues: usize) -> io::Result<Vec<OwnedFd>> {
    let first = open_queue_patiently(name)?;
    let mut fds = vec![first];
    while fds.len() < queues {
        fds.push(open_queue(name)?);
    }
    Ok(fds)
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
        let header_len = VNET_HDR_LEN as libc::c_int;
        check(libc::ioctl(fd, libc::TUNSETVNETHDRSZ, &raw const header_len))?;
    }
    Ok(())
}

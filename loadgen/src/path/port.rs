//! One end of a link: a TUN device, or an Ethernet interface by a packet socket.
//!
//! A TUN device without offloads gives packets as they are on a wire: the kernel cuts and sums them before. A packet
//! socket sees what the interface's peer hands over, so its offloads are taken off.

use crate::error::Failure;
use crate::host::iproute::ip;
use crate::host::netns;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{LinkAddr, MsgFlags, bind, recvfrom, send, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Length of an Ethernet header, in octets.
const ETHERNET_LEN: usize = 14;
/// All protocols (ETH_P_ALL), in network byte order as AF_PACKET wants it.
const ALL_PROTOCOLS: i32 = 0x0003_u16.to_be() as i32;
/// Packet type of what the host itself sends (PACKET_OUTGOING).
const OUTGOING: u8 = 4;
/// Socket buffer, in octets: 10 ms at 10 Gbit/s.
const BUFFER: usize = 16 << 20;
/// Packets that wait in a TUN device: what a sender's burst may hold until the link reads it. With 1,000 the device
/// drops by itself.
const TUN_QUEUE: u32 = 10_000;

/// One end of a link.
pub enum Port {
    /// IP packets.
    Tun(SyncDevice),
    /// Ethernet frames.
    Packet(Socket),
}

impl Port {
    /// Opens `[NAMESPACE/]NAME`: an Ethernet interface of that name where there is one, else a new TUN device.
    ///
    /// # Errors
    /// [`Failure::Environment`] when the kernel refuses.
    pub fn open(interface: &str, mtu: usize) -> Result<Self, Failure> {
        let Some((namespace, name)) = interface.split_once('/') else {
            return Self::open_here(None, interface, mtu);
        };
        netns::inside(namespace, || Self::open_here(Some(namespace), name, mtu))
    }

    fn open_here(namespace: Option<&str>, name: &str, mtu: usize) -> Result<Self, Failure> {
        if if_nametoindex(name).is_ok() {
            return Self::packet(namespace, name);
        }
        Self::tun(name, mtu, None)
    }

    /// Creates a TUN device in the calling thread's namespace, with an address of a /30 when there is one.
    ///
    /// # Errors
    /// [`Failure::Environment`] when the kernel refuses.
    pub fn tun(name: &str, mtu: usize, address: Option<Ipv4Addr>) -> Result<Self, Failure> {
        let explain = |error: io::Error| {
            Failure::Environment(format!(
                "cannot create TUN device {name}: {error}; it needs root and /dev/net/tun (modprobe tun)"
            ))
        };
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        let mut builder = DeviceBuilder::new().name(name).mtu(mtu).tx_queue_len(TUN_QUEUE);
        if let Some(address) = address {
            builder = builder.ipv4(address, 30, None);
        }
        let device = builder.build_sync().map_err(explain)?;
        device.set_nonblocking(true).map_err(explain)?;
        Ok(Self::Tun(device))
    }

    /// Opens a packet socket on the Ethernet interface `name` of the calling thread's namespace.
    fn packet(namespace: Option<&str>, name: &str) -> Result<Self, Failure> {
        let explain = |error: io::Error| {
            Failure::Environment(format!("cannot take packets of {name}: {error}; this needs root"))
        };
        let address = getifaddrs()
            .map_err(|error| explain(error.into()))?
            .filter(|interface| interface.interface_name == name)
            .find_map(|interface| interface.address?.as_link_addr().copied())
            .filter(|address| address.halen() == 6)
            .ok_or_else(|| Failure::Usage(format!("{name} is not an Ethernet interface")))?;
        take_offloads_off(namespace, name);
        set_up(namespace, name)?;
        let socket =
            Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(ALL_PROTOCOLS)))
                .map_err(explain)?;
        // Without the privilege the ordinary bound stays.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        let _ = setsockopt(&socket, sockopt::SndBuf, &BUFFER);
        bind(socket.as_raw_fd(), &address).map_err(|error| explain(error.into()))?;
        Ok(Self::Packet(socket))
    }

    /// Returns the octets of the link header before the IP packet.
    pub fn header_len(&self) -> usize {
        match self {
            Self::Tun(_) => 0,
            Self::Packet(_) => ETHERNET_LEN,
        }
    }

    /// Takes one packet that came from the interface; `None` when there is none now.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
        let received = match self {
            Self::Tun(device) => device.recv(buffer),
            Self::Packet(socket) => loop {
                match recvfrom::<LinkAddr>(socket.as_raw_fd(), buffer) {
                    Ok((_, Some(from))) if from.pkttype() == OUTGOING => {}
                    Ok((len, _)) => break Ok(len),
                    // The interface went down and may come back.
                    Err(Errno::ENETDOWN) => break Err(Errno::EAGAIN.into()),
                    Err(error) => break Err(error.into()),
                }
            },
        };
        match received {
            Ok(len) => Ok(Some(buffer[..len].to_vec())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends one packet to the interface; says whether the kernel took it.
    pub fn send(&self, packet: &[u8]) -> bool {
        match self {
            Self::Tun(device) => device.send(packet).is_ok(),
            Self::Packet(socket) => send(socket.as_raw_fd(), packet, MsgFlags::empty()).is_ok(),
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tun(device) => device.as_fd(),
            Self::Packet(socket) => socket.as_fd(),
        }
    }
}

/// The word `dev` keeps iproute2 from taking a name such as `ma` for its option `master`.
fn set_up(namespace: Option<&str>, name: &str) -> Result<(), Failure> {
    in_namespace(namespace, &["link", "set", "dev", name, "promisc", "on", "up"]).map(|_| ())
}

fn in_namespace(namespace: Option<&str>, args: &[&str]) -> Result<String, Failure> {
    namespace.map_or_else(|| ip(args), |name| ip(&[&["-n", name], args].concat()))
}

/// Makes the interface and, where it is a veth, its peer hand over single packets with sums: a packet of the link is
/// then one of the wire. What cannot be done is said.
fn take_offloads_off(namespace: Option<&str>, name: &str) {
    let mut ends = vec![(namespace.map(str::to_owned), name.to_owned())];
    match peer(namespace, name) {
        Some(peer) => ends.push(peer),
        None => eprintln!(
            "{name}: the other end is not in sight; where it is a veth, run `ethtool -K PEER tx off gso off` there"
        ),
    }
    for (namespace, name) in ends {
        // `ip netns exec` wants a namespace; without one, ethtool runs here.
        let args = ["ethtool", "-K", &name, "tx", "off", "gso", "off", "gro", "off", "tso", "off"];
        let mut command = match &namespace {
            Some(namespace) => {
                let mut command = std::process::Command::new("ip");
                command.args(["netns", "exec", namespace]).args(args);
                command
            }
            None => {
                let mut command = std::process::Command::new(args[0]);
                command.args(&args[1..]);
                command
            }
        };
        match command.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                eprintln!("{name}: offloads stay on: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            Err(error) => eprintln!("{name}: offloads stay on, cannot run ethtool: {error}"),
        }
    }
}

/// Finds the peer of a veth: its namespace and name.
fn peer(namespace: Option<&str>, name: &str) -> Option<(Option<String>, String)> {
    let text = in_namespace(namespace, &["-o", "link", "show", "dev", name]).ok()?;
    // `5: veth0@veth1: <…` or `5: veth0@if6: <… link-netns NAME`
    let other = text.split_ascii_whitespace().nth(1)?.trim_end_matches(':').split_once('@')?.1;
    let mut words = text.split_ascii_whitespace().skip_while(|word| *word != "link-netns");
    let Some(elsewhere) = words.nth(1) else {
        return (!text.contains("link-netnsid")).then(|| (namespace.map(str::to_owned), other.to_owned()));
    };
    let index = format!("{}:", other.strip_prefix("if")?);
    let links = ip(&["-n", elsewhere, "-o", "link", "show"]).ok()?;
    let line = links.lines().find(|line| line.starts_with(&index))?;
    let found = line.split_ascii_whitespace().nth(1)?.trim_end_matches(':').split('@').next()?;
    Some((Some(elsewhere.to_owned()), found.to_owned()))
}

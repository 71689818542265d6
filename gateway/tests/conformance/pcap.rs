//! What really crosses the link between UEs and gateway, by tcpdump.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{HOME, Lab, PATIENCE};

/// The last packet of a capture.
const MARKER: &[u8] = b"the capture ends here";

/// A running capture.
pub struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

/// The outer headers of one packet.
#[derive(Debug)]
pub struct Outer {
    pub src: IpAddr,
    pub proto: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// IPv6 only.
    pub flow_label: u32,
    pub src_port: u16,
    pub dst_port: u16,
    /// TCP flags: SYN 2, ACK 0x10, ECE 0x40, CWR 0x80.
    pub flags: u8,
    /// Don't Fragment, and whether this is a fragment; IPv4 only.
    pub df: bool,
    pub fragment: bool,
    /// TCP options.
    pub options: Vec<u8>,
    /// What TCP or UDP carries.
    pub payload: Vec<u8>,
}

impl Capture {
    /// Starts capturing on the UEs' end of the link.
    pub fn start(lab: &Lab) -> Self {
        let file = lab.gateway.path("link.pcap");
        let mut tcpdump = Command::new("tcpdump")
            .args(["-i", "gw0", "-n", "-U", "--immediate-mode", "-s", "0", "-Z", "root", "-w"])
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()
            .expect("tcpdump is installed");
        let mut line = String::new();
        let mut said = BufReader::new(tcpdump.stderr.take().expect("piped"));
        while !line.contains("listening") {
            line.clear();
            assert_ne!(said.read_line(&mut line).expect("text"), 0, "tcpdump gave up");
        }
        Self { tcpdump, file }
    }

    /// Stops and returns the IP packets.
    ///
    /// To be called among the UEs.
    pub fn finish(mut self) -> Vec<Outer> {
        // However late tcpdump gets a processor, what came before this is in the file when this is. Again and again: on a
        // busy host one may find its buffer full.
        let deadline = Instant::now() + PATIENCE;
        send_marker();
        while !contains_marker(&std::fs::read(&self.file).expect("it is written to")) {
            assert!(Instant::now() < deadline, "tcpdump sees nothing any more");
            std::thread::sleep(Duration::from_millis(50));
            send_marker();
        }
        kill(Pid::from_raw(self.tcpdump.id() as i32), Signal::SIGINT).expect("our child");
        self.tcpdump.wait().expect("our child");
        let octets = std::fs::read(&self.file).expect("written");
        let mut packets = Vec::new();
        let mut rest = &octets[24..];
        while let Some((header, behind)) = rest.split_at_checked(16) {
            let len = u32::from_le_bytes(header[8..12].try_into().expect("four octets")) as usize;
            let (packet, next) = behind.split_at(len);
            packets.extend(outer(packet).filter(|outer| outer.payload != MARKER));
            rest = next;
        }
        packets
    }
}

/// To a group on the link: nobody is in it, and nobody complains.
fn send_marker() {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    socket.set_multicast_if_v4(&HOME).expect("an address of ours");
    let to = SocketAddr::from((Ipv4Addr::new(224, 0, 0, 251), 9));
    socket.send_to(MARKER, &to.into()).expect("sent");
}

fn contains_marker(octets: &[u8]) -> bool {
    octets.windows(MARKER.len()).any(|window| window == MARKER)
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

fn outer(frame: &[u8]) -> Option<Outer> {
    let (ethernet, packet) = frame.split_at_checked(14)?;
    let (src, proto, tos, flow_label, transport): (IpAddr, u8, u8, u32, &[u8]) = match ethernet[12..14] {
        [0x08, 0x00] => {
            let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            let src: [u8; 4] = packet[12..16].try_into().ok()?;
            (src.into(), packet[9], packet[1], 0, &packet[usize::from(packet[0] & 15) * 4..total])
        }
        [0x86, 0xdd] => {
            let first = u32::from_be_bytes(packet[..4].try_into().ok()?);
            let src: [u8; 16] = packet[8..24].try_into().ok()?;
            let total = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            (src.into(), packet[6], (first >> 20) as u8, first & 0xf_ffff, &packet[40..total])
        }
        _ => return None,
    };
    let ipv4 = src.is_ipv4();
    let port = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
    let (ports, flags, header) = match proto {
        6 => ((port(0), port(2)), transport[13], usize::from(transport[12] >> 4) * 4),
        17 => ((port(0), port(2)), 0, 8),
        _ => ((0, 0), 0, 0),
    };
    Some(Outer {
        src,
        proto,
        tos,
        flow_label,
        src_port: ports.0,
        dst_port: ports.1,
        flags,
        df: ipv4 && packet[6] & 0x40 != 0,
        fragment: ipv4 && u16::from_be_bytes([packet[6] & 0x3f, packet[7]]) != 0,
        options: if proto == 6 { transport[20..header].to_vec() } else { Vec::new() },
        payload: transport[header..].to_vec(),
    })
}

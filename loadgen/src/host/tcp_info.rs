//! What the kernel knows about TCP connections of a namespace (`sock_diag`).

use crate::error::Failure;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::{Nla, TcpInfo};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use std::io;

/// Most messages of one answer; a laboratory has a handful of connections.
const MESSAGES_MAX: usize = 4_096;

/// Returns the congestion controls that the kernel has now, as it lists them.
pub fn congestion_controls() -> String {
    let list = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
    list.unwrap_or_default().trim().to_owned()
}

/// Asks about the connections of one network namespace.
pub struct TcpInfos {
    socket: Socket,
}

/// One connection, as far as the laboratory wants to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connection {
    /// Port of this end.
    pub local_port: u16,
    /// Port of the other end.
    pub remote_port: u16,
    /// Octets that the other end has acknowledged.
    pub acked: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Smoothed round trip, in microseconds.
    pub srtt_us: u32,
}

impl TcpInfos {
    /// Opens the channel in the calling thread's namespace, to which it belongs from then on.
    ///
    /// # Errors
    /// [`Failure::Environment`] when the kernel has no sock_diag.
    pub fn open() -> Result<Self, Failure> {
        let open = || {
            let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        open().map(|socket| Self { socket }).map_err(|error: io::Error| {
            Failure::Environment(format!("cannot ask the kernel about TCP connections (sock_diag): {error}"))
        })
    }

    /// Returns the established connections.
    ///
    /// # Errors
    /// The kernel's, or an answer that cannot be read.
    pub fn established(&self) -> io::Result<Vec<Connection>> {
        self.socket.send(&request(), 0)?;
        let mut found = Vec::new();
        for _ in 0..MESSAGES_MAX {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                    .map_err(|error| io::Error::other(error.to_string()))?;
                // Messages are aligned to four octets.
                let len = (message.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(len..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                        let id = &response.header.socket_id;
                        found.extend(response.nlas.iter().filter_map(|nla| connection(id, nla)));
                    }
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
        Err(io::Error::other("the kernel's list of TCP connections does not end"))
    }
}

fn request() -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest {
        family: AF_INET,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        states: StateFlags::ESTABLISHED,
        socket_id: SocketId::new_v4(),
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut octets = vec![0; message.buffer_len()];
    message.serialize(&mut octets);
    octets
}

fn connection(id: &SocketId, nla: &Nla) -> Option<Connection> {
    let Nla::TcpInfo(info) = nla else { return None };
    let TcpInfo { bytes_acked, total_retrans, rtt, .. } = *info;
    Some(Connection {
        local_port: id.source_port,
        remote_port: id.destination_port,
        acked: bytes_acked,
        retransmits: total_retrans.into(),
        srtt_us: rtt,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_of_ours_is_listed_with_what_was_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(&[0; 1000]).unwrap();
        far.read_exact(&mut [0; 1000]).unwrap();
        let port = near.local_addr().unwrap().port();
        let infos = TcpInfos::open().unwrap();
        // The acknowledgement may be delayed.
        for _ in 0..100 {
            let found = infos.established().unwrap();
            let own = found.iter().find(|connection| connection.local_port == port).expect("ours");
            // The SYN counts as one.
            if own.acked >= 1000 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("nothing was acknowledged");
    }
}

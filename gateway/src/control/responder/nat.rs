//! NAT detection (RFC 7296 §2.23, RFC 9329 §6.5).

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::digest;
use codec::ike::payload::NotifyView;
use codec::ike::{IkeSpi, NotifyType};

use crate::types::{Path, Transport};

/// Octets of SHA-1, which names an address here and protects nothing.
const HASH_LEN: usize = 20;

/// SHA-1(SPIi | SPIr | address | port): what NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP carry.
pub(super) fn hash(spi_i: IkeSpi, spi_r: IkeSpi, address: SocketAddr) -> [u8; HASH_LEN] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(&spi_i.0);
    context.update(&spi_r.0);
    match address.ip() {
        IpAddr::V4(ip) => context.update(&ip.octets()),
        IpAddr::V6(ip) => context.update(&ip.octets()),
    }
    context.update(&address.port().to_be_bytes());
    context.finish().as_ref().try_into().expect("SHA-1 has 20 octets")
}

/// The notifications of a message from `source` to `destination`, with the address each stands for.
fn addresses(source: SocketAddr, destination: SocketAddr) -> [(NotifyType, SocketAddr); 2] {
    [(NotifyType::NAT_DETECTION_SOURCE_IP, source), (NotifyType::NAT_DETECTION_DESTINATION_IP, destination)]
}

/// What we announce on a path. Over TCP it is the truth (RFC 9329 §6.5). Over UDP, where ESP goes of a peer that
/// uses TCP for IKE alone too, our own address is given as
/// unspecified, as if a NAT were in front of us: a peer that finds none would send ESP without UDP, for which this
/// gateway has no way in.
pub(super) fn announced(path: &Path) -> [(NotifyType, SocketAddr); 2] {
    let source = match path.transport {
        Transport::Udp | Transport::IkeTcp if path.local.is_ipv4() => SocketAddr::from(([0; 4], 0)),
        Transport::Udp | Transport::IkeTcp => SocketAddr::from(([0_u16; 8], 0)),
        Transport::Tcp | Transport::Tls => path.local,
    };
    addresses(source, path.remote)
}

/// Whether the source and the destination of a message that came on `path` were translated on the way, by the
/// notifications in it. Absent ones say nothing.
pub(super) fn translated(
    path: &Path,
    spi_i: IkeSpi,
    spi_r: IkeSpi,
    notifies: &[NotifyView<'_>],
) -> [bool; 2] {
    addresses(path.remote, path.local).map(|(kind, address)| {
        let hash = hash(spi_i, spi_r, address);
        let mut sent = notifies.iter().filter(|notify| notify.kind == kind).peekable();
        // RFC 7296 §2.23: there may be several source hashes, one of which has to fit.
        sent.peek().is_some() && !sent.any(|notify| notify.data == hash)
    })
}

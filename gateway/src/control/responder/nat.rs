//! NAT detection (RFC 7296 §2.23, RFC 9329 §6.5).

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::digest;
use codec::ike::{IkeSpi, NotifyType};

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
pub(super) fn addresses(source: SocketAddr, destination: SocketAddr) -> [(NotifyType, SocketAddr); 2] {
    [(NotifyType::NAT_DETECTION_SOURCE_IP, source), (NotifyType::NAT_DETECTION_DESTINATION_IP, destination)]
}

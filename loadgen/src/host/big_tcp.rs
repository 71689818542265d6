//! BIG TCP: how long a segment a link may carry from one TCP to another on the same host.
//!
//! Between two hosts, a network card's interrupt brings all segments of some ten microseconds. Between two namespaces of a
//! virtual machine every segment is an interrupt of the other core by way of the hypervisor, which can cost more than
//! what the segment asks of the gateway. Longer segments, fewer interrupts.

use crate::host::netns;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{LinkUnspec, new_connection};
use std::io;

/// Lets `device` of namespace `namespace` carry segments of up to `octets` in both directions.
///
/// # Errors
/// Kernels before 6.3 do not know it for IPv4; others say what they miss. The link works all the same.
pub fn allow(namespace: &str, device: &str, octets: u32) -> io::Result<()> {
    // Its own thread: a namespace is entered for good.
    std::thread::scope(|scope| {
        let task = scope.spawn(|| {
            netns::enter(namespace).map_err(|error| io::Error::other(error.to_string()))?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(set(device, octets))
        });
        task.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

async fn set(device: &str, octets: u32) -> io::Result<()> {
    let (connection, handle, _) = new_connection()?;
    let netlink = tokio::spawn(connection);
    let mut links = handle.link().get().match_name(device.to_owned()).execute();
    let link = links.try_next().await.map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
    let set = [
        LinkAttribute::GsoMaxSize(octets),
        LinkAttribute::GroMaxSize(octets),
        LinkAttribute::GsoIpv4MaxSize(octets),
        LinkAttribute::GroIpv4MaxSize(octets),
    ];
    let link = set.into_iter().fold(LinkUnspec::new_with_index(link.header.index), |link, attribute| {
        link.append_extra_attribute(attribute)
    });
    let done = handle.link().set(link.build()).execute().await.map_err(io::Error::other);
    netlink.abort();
    done
}

//! The whole process against rows of the conformance table and against hostile peers: the real `swugate run`
//! in a network namespace, UEs on TCP sockets in a second one, the core network in a third. Needs root, and
//! says so without.

mod client;
mod connections;
mod device;
mod exchanges;
mod flood;
mod hostile;
mod ike_tcp;
mod innocent;
mod lab;
mod networks;
mod originator;
mod pcap;
mod stream;
mod tls;
mod wire;
mod workers;

#[path = "../support/process.rs"]
#[allow(dead_code, reason = "other test programs use the rest")]
mod process;
#[path = "../support/tls.rs"]
#[allow(dead_code, reason = "other test programs use the rest")]
mod tls_ends;
#[path = "../support/ue.rs"]
#[allow(dead_code, reason = "other test programs use the rest")]
mod ue;

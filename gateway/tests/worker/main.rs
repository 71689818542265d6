//! Workers over loopback with a scripted peer: framing, SAs, binding, hand-over, drops and limits.
//!
//! The inner device is one end of a packet socket pair, so these tests need no privilege; the real TUN is
//! used by the system tests.

mod congestion;
mod connections;
mod crowd;
mod device;
mod downlink;
mod handover;
mod ike_tcp;
mod inner;
mod limits;
mod networks;
mod passing;
mod queueing;
mod rig;
mod stream;
mod tls;
mod udp;
mod uplink;

//! Captured runs of other implementations (`vectors/README.md`) as the tests see them.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod forced;

use std::path::PathBuf;

use serde::Deserialize;

/// The captured runs.
pub const RUNS: [&str; 6] = [
    "libreswan-tcp-gcm",
    "libreswan-tcp-gcm-cert",
    "libreswan-tcp-cbc-site",
    "libreswan-tcp-gcm-bulk",
    "strongswan-udp-gcm-psk",
    "strongswan-udp-cbc-eap-aka-frag",
];

/// Those of them that went over TCP; their streams are in a `.pcap` beside.
pub const TCP_RUNS: [&str; 4] =
    ["libreswan-tcp-gcm", "libreswan-tcp-gcm-cert", "libreswan-tcp-cbc-site", "libreswan-tcp-gcm-bulk"];

/// The part of a run that the tests need.
#[derive(Deserialize)]
pub struct Run {
    pub auth: String,
    pub psk: String,
    pub ike_sa: Vec<IkeSa>,
    pub child_sa: Vec<ChildSa>,
    pub frames: Vec<Frame>,
}

/// Secrets of an IKE SA; the second of a run replaced the first.
#[derive(Deserialize)]
pub struct IkeSa {
    pub spi_i: String,
    pub spi_r: String,
    /// Algorithm and key bits.
    pub encr: (u16, u16),
    pub prf: u16,
    pub integ: Option<u16>,
    pub group: u16,
    pub nonce_i: String,
    pub nonce_r: String,
    pub dh_shared: String,
    pub sk_d: String,
    pub sk_ai: String,
    pub sk_ar: String,
    pub sk_ei: String,
    pub sk_er: String,
    pub sk_pi: String,
    pub sk_pr: String,
}

/// Keys of both directions: `_i` protects what the exchange's initiator sends, under `spi_r`.
#[derive(Deserialize)]
pub struct ChildSa {
    pub spi_i: String,
    pub spi_r: String,
    pub encr: (u16, u16),
    pub integ: Option<u16>,
    pub esn: u8,
    pub pfs_dh_shared: String,
    pub encr_i: String,
    pub integ_i: String,
    pub encr_r: String,
    pub integ_r: String,
}

/// One frame's body.
#[derive(Deserialize)]
pub struct Frame {
    pub to: String,
    pub kind: String,
    pub payload: String,
    pub exchange: Option<String>,
    pub response: Option<bool>,
    pub message_id: Option<u32>,
    /// Type and body, after decryption; the last fragment of a message carries them all.
    pub inner_payloads: Option<Vec<(u8, String)>>,
    pub spi: Option<String>,
    pub seq: Option<u64>,
    pub inner_packet: Option<String>,
}

/// Reads a file of the vectors directory.
pub fn read(name: &str) -> Vec<u8> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/vectors", name].iter().collect();
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads a run's description.
pub fn run(name: &str) -> Run {
    serde_json::from_slice(&read(&format!("{name}.json"))).unwrap()
}

/// Octets of a hexadecimal text.
pub fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

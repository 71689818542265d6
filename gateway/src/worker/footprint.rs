//! What an attached UE that says nothing costs a worker: heap octets as asked for, tables included.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use allocation_counter::measure;
use codec::OsRandom;
use codec::esp::{EspCipher, EspInteg, EspKeys, EspSpi, EspSuite};

use super::conn::{Conn, ConnTable};
use super::sad::Sad;
use crate::tls::{Front, StreamKind, TlsClient, TlsServer};
use crate::types::{ChildInstall, NetworkId, Path, SessionId, Transport, TsRange, WorkerId};

/// UEs of one measurement: a little above what doubles a table, where tables are emptiest.
const UES: u32 = 15_000;

/// Octets per UE, with the longest keys.
const OCTETS_PER_UE_MAX: i64 = 1_400;

const SUITES: [EspSuite; 2] = [
    EspSuite { cipher: EspCipher::Aes128Gcm16, integ: None, esn: true },
    EspSuite { cipher: EspCipher::Aes256Cbc, integ: Some(EspInteg::HmacSha2_512_256), esn: true },
];

fn install(number: u32, suite: EspSuite) -> ChildInstall {
    let keys = || EspKeys::new(&suite, &vec![7; suite.keymat_len()]).expect("keys of the suite's length");
    let addr = IpAddr::V4(Ipv4Addr::from_bits(0x0a40_0000 + number));
    let range = |first, last| TsRange { first, last, protocol: 0, ports: (0, u16::MAX) };
    ChildInstall {
        session: SessionId(number.into()),
        worker: WorkerId(0),
        network: NetworkId(0),
        spi_in: EspSpi(0x1000 + number),
        spi_out: EspSpi(0x1000 + number),
        suite,
        keys_in: keys(),
        keys_out: keys(),
        local_ts: vec![range(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into())],
        remote_ts: vec![range(addr, addr)],
        inner: vec![addr],
        replaces: None,
        replay_window: 128,
    }
}

/// Attaches UE `number`: a connection from an address of its own, a session with one Child SA, bound.
fn attach(conns: &mut ConnTable, sad: &mut Sad, number: u32, suite: EspSuite) {
    let remote = SocketAddr::from((Ipv4Addr::from_bits(0xc612_0000 + number), 40_000));
    let path = Path { transport: Transport::Tcp, local: remote, remote };
    let (slot, generation) = conns.reserve(remote.ip()).expect("room");
    conns.insert(slot, Conn::new(generation, path, Instant::now()));
    sad.install(install(number, suite), &mut OsRandom);
    let session = sad.session_mut(SessionId(number.into())).expect("just installed");
    session.conn = Some(slot);
    session.bound.reserve_exact(1);
    session.bound.push(slot);
}

#[test]
fn an_idle_ue_costs_a_worker_little() {
    for suite in SUITES {
        let mut conns = ConnTable::new(WorkerId(0), u32::MAX, 1);
        let mut sad = Sad::default();
        let taken = measure(|| (0..UES).for_each(|number| attach(&mut conns, &mut sad, number, suite)));
        let octets = taken.bytes_current / i64::from(UES);
        println!("{octets} octets per UE, of them {} for its connection", size_of::<Conn>());
        assert!(octets <= OCTETS_PER_UE_MAX, "{octets} octets");
    }
}

/// TLS connections of the measurement below.
const TLS_CONNECTIONS: i64 = 50;

/// Octets of one in the middle of its handshake, as `limits.tls_handshakes` says, and once it is done.
const OCTETS_PER_HANDSHAKE_MAX: i64 = 8 * 1024;
const OCTETS_PER_TLS_MAX: i64 = 4 * 1024;

#[test]
fn a_tls_connection_costs_what_the_limits_say() {
    const ROOT: &[u8] = include_bytes!("../../tests/fixtures/pki/root.pem");
    const CHAIN: &[u8] = include_bytes!("../../tests/fixtures/pki/gw-ec.pem");
    const KEY: &[u8] = include_bytes!("../../tests/fixtures/pki/gw-ec.key");
    let server = TlsServer::from_pem(CHAIN, KEY).expect("the fixture");
    let client = TlsClient::new(ROOT, "gw.test").expect("the fixture");
    let mut nothing = Vec::new();
    let mut near: Vec<_> = (0..TLS_CONNECTIONS).map(|_| client.session().expect("a client")).collect();
    let mut hellos: Vec<Vec<u8>> = Vec::new();
    for session in &mut near {
        session.receive(&mut [], &mut nothing).expect("a hello");
        hellos.push(session.take_output());
    }
    let mut far = Vec::new();
    let begun = measure(|| {
        for hello in &mut hellos {
            let mut front = Box::new(Front::new(StreamKind::Tls, Some(&server)).expect("a front"));
            front.receive(hello, &mut nothing).expect("begun");
            far.push(front);
        }
    });
    let mut answers: Vec<Vec<u8>> =
        far.iter_mut().map(|front| front.session().expect("begun").take_output()).collect();
    for (session, answer) in near.iter_mut().zip(&mut answers) {
        session.receive(answer, &mut nothing).expect("answered");
    }
    let mut finished: Vec<Vec<u8>> = near.iter_mut().map(|session| session.take_output()).collect();
    let done = measure(|| {
        for (front, finished) in far.iter_mut().zip(&mut finished) {
            front.receive(finished, &mut nothing).expect("done");
            drop(front.session().expect("done").take_output());
        }
    });
    let handshake = begun.bytes_current / TLS_CONNECTIONS;
    let answer = answers.iter().map(|answer| answer.capacity() as i64).sum::<i64>() / TLS_CONNECTIONS;
    let idle = handshake - answer + done.bytes_current / TLS_CONNECTIONS;
    println!("TLS: {handshake} octets in the handshake, {idle} when it is done");
    assert!(handshake <= OCTETS_PER_HANDSHAKE_MAX, "{handshake} octets");
    assert!(idle <= OCTETS_PER_TLS_MAX, "{idle} octets");
}

#[test]
fn a_table_for_millions_costs_nothing_before_they_come() {
    // What the process allocates once, with whichever table is its first.
    drop(ConnTable::new(WorkerId(0), 1, 1));
    let taken = measure(|| drop(ConnTable::new(WorkerId(0), 4_000_000, 4_000_000)));
    assert_eq!(taken.bytes_total, 0);
}

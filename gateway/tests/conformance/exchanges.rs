//! Requests and answers over connections that come and go: rows of RFC 9329 §6.2 to §6.7.

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use codec::ike::{IkeSpi, KeGroup, NotifyType};
use std::net::{IpAddr, SocketAddr};

use crate::client::{Client, Conn};
use crate::lab::{AWAY, Lab, Setup};
use crate::ue::{Decoded, Ue, UeConfig};

#[test]
fn r9329_6_2_1_and_6_6_1_and_6_7_2_a_mute_peer_is_asked_once_and_then_deleted() {
    let setup = Setup { profile: "dpd_s = 1", limits: "linger_s = 1", ..Setup::default() };
    let Some(lab) = Lab::start(setup) else { return };
    let mut client = Client::attach(1);
    let asked = client.conn.ike();
    assert!(client.ue.open(&asked).expect("authentic").payloads.is_empty());
    let begun = Instant::now();
    // TCP lives, NAT keepalives arrive: neither is liveness.
    while !lab.sessions().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(40));
        client.conn.send(&[0, 3, 0xff]);
        assert!(client.conn.is_quiet_for(Duration::from_millis(900)), "asked again, or kept alive");
    }
    assert!(begun.elapsed() > Duration::from_secs(20));
    assert!(client.conn.is_closed());
}

#[test]
fn r9329_6_2_2_and_d7_a_request_waits_for_the_next_connection_and_is_the_same_there() {
    let Some(lab) = Lab::start(Setup { profile: "dpd_s = 1", ..Setup::default() }) else { return };
    let mut client = Client::attach(1);
    let asked = client.conn.ike();
    for source in [(AWAY, 0), (AWAY, 7001)] {
        client.reconnect(source.into());
        assert!(client.conn.is_quiet(), "a connection nothing fresh came on");
        client.send(b"fresh");
        assert_eq!(client.conn.ike(), asked);
    }
    client.acknowledge(&asked);
    // Asked while there is no connection: held.
    client.reconnect((AWAY, 0).into());
    std::thread::sleep(Duration::from_millis(1500));
    let request = client.ue.informational(|_| {});
    client.conn.send_ike(&request);
    let (first, second) = (client.conn.ike(), client.conn.ike());
    let both = [&first, &second].map(|message| client.ue.open(message).expect("authentic").header);
    assert_eq!(both.iter().filter(|header| header.flags.is_response()).count(), 1);
    assert_eq!(lab.sessions().len(), 1);
}

#[test]
fn r9329_6_2_3_and_d8_a_repeated_request_gets_the_stored_response_where_it_came_in() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let mut client = Client::attach(1);
    let request = client.ue.create_child(None, false);
    client.conn.send_ike(&request);
    let response = client.conn.ike();
    client.conn.send_ike(&request);
    assert_eq!(client.conn.ike(), response);
    let mut second = Conn::open_from((AWAY, 0).into());
    second.send_ike(&request);
    assert_eq!(second.ike(), response);
    assert_eq!(lab.sessions()[0]["children"].as_array().expect("children").len(), 2);
    assert_eq!(client.ue.on_create_child(&response).error(), None);
    // The additional SA works both ways at once.
    client.use_newest_child();
    client.send(b"second child");
    assert_eq!(lab.at_core().1, b"second child");
    lab.to_ue(client.addr.into(), b"newest");
    assert_eq!(client.receive(), b"newest");
}

#[test]
fn r9329_6_4_1_a_corrected_request_is_taken_on_the_same_connection() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let mut conn = Conn::open();
    let mut ue = Ue::new(UeConfig { ike: vec!["aes128gcm16-prfsha256-ecp256"], ..UeConfig::new(1) });
    conn.send_ike(&ue.init());
    let refused = ue.on_init(&conn.ike());
    assert_eq!((refused, ue.config.group), (Err(NotifyType::INVALID_KE_PAYLOAD), KeGroup::ECP_256));
    std::thread::sleep(Duration::from_millis(1200));
    conn.send_ike(&ue.init());
    ue.on_init(&conn.ike()).expect("corrected");
    conn.send_ike(&ue.auth());
    assert_eq!(ue.on_auth(&conn.ike()).error(), None);
    // The other error that implies a retry.
    let mut conn = Conn::open();
    let mut ue = Ue::new(UeConfig::new(2));
    let mut newer = ue.init();
    newer[17] = 0x30;
    conn.send_ike(&newer);
    let answer = Decoded::clear(&conn.ike());
    assert_eq!(answer.error(), Some(NotifyType::INVALID_MAJOR_VERSION));
    std::thread::sleep(Duration::from_millis(1200));
    conn.send_ike(&ue.init());
    ue.on_init(&conn.ike()).expect("in our version");
    assert_eq!(lab.closes("control"), 0);
}

#[test]
fn r9329_6_5_1_and_6_5_2_nat_detection_uses_the_tcp_ports_and_changes_nothing() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let mut conn = Conn::open_from((AWAY, 0).into());
    let (here, there) = (conn.stream.local_addr().expect("bound"), conn.stream.peer_addr().expect("there"));
    let mut ue = Ue::new(UeConfig::new(1));
    let spi_i = ue.spi_i;
    let hash = |spi_r: IkeSpi, address: SocketAddr| {
        let IpAddr::V4(ip) = address.ip() else { panic!("an IPv4 path") };
        let text = [&spi_i.0[..], &spi_r.0, &ip.octets(), &address.port().to_be_bytes()].concat();
        digest(&SHA1_FOR_LEGACY_USE_ONLY, &text).as_ref().to_vec()
    };
    // The source digest is of another address, as behind a NAT.
    conn.send_ike(&ue.init_with(|builder| {
        builder.notify(NotifyType::NAT_DETECTION_SOURCE_IP, &[9; 20]);
        builder.notify(NotifyType::NAT_DETECTION_DESTINATION_IP, &hash(IkeSpi::ZERO, there));
    }));
    let octets = conn.ike();
    let response = Decoded::clear(&octets);
    let spi_r = response.header.spi_r;
    let data = |kind| response.notify(kind).expect("sent").data.to_vec();
    assert_eq!(data(NotifyType::NAT_DETECTION_SOURCE_IP), hash(spi_r, there));
    assert_eq!(data(NotifyType::NAT_DETECTION_DESTINATION_IP), hash(spi_r, here));
    ue.on_init(&octets).expect("no error");
    conn.send_ike(&ue.auth());
    assert_eq!(ue.on_auth(&conn.ike()).error(), None);
    let mut client = Client::established(ue, conn);
    client.send(b"in TCP all the same");
    assert_eq!(lab.at_core().1, b"in TCP all the same");
    assert_eq!(lab.sessions()[0]["transport"], "tcp");
}

#[test]
fn d3_and_d14_requests_before_keys_are_answered_sparsely_and_keep_the_connection() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let mut conn = Conn::open();
    let mut ue = Ue::new(UeConfig::new(1));
    // The last payload claims more than there is.
    let mut cut = ue.init();
    cut.truncate(cut.len() - 4);
    let length = (cut.len() as u32).to_be_bytes();
    cut[24..28].copy_from_slice(&length);
    conn.send_ike(&cut);
    assert_eq!(Decoded::clear(&conn.ike()).error(), Some(NotifyType::INVALID_SYNTAX));
    // Two UEs on one connection: the first is served, the second counted.
    let init = ue.init();
    conn.send_ike(&init);
    conn.send_ike(&Ue::new(UeConfig::new(2)).init());
    let response = conn.ike();
    assert!(conn.is_quiet());
    assert_eq!(lab.stats()["half_open"], 1);
    conn.send_ike(&init);
    assert_eq!(conn.ike(), response, "a repeated IKE_SA_INIT is the same one");
    ue.on_init(&response).expect("no error");
    conn.send_ike(&ue.auth());
    assert_eq!(ue.on_auth(&conn.ike()).error(), None);
    assert_eq!((lab.sessions().len(), lab.stats()["half_open"].as_u64()), (1, Some(0)));
}

//! Ports, prefix and frames.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::client::{Client, Conn, ike_frame};
use crate::lab::{AWAY, GATEWAY, HOME, Lab, Setup, dial};
use crate::ue::{Ue, UeConfig};

#[test]
fn r9329_2_1_and_2_2_and_5_1_every_configured_port_serves_any_source_port() {
    let listen = r#"["10.20.0.1:4500", "10.20.0.1:443", "0.0.0.0:10443", "[::]:4500"]"#;
    let Some(lab) = Lab::start(Setup { listen: Some(listen), ..Setup::default() }) else { return };
    for (seed, port) in (1..).zip([4500, 443, 10_443]) {
        for (more, source) in (0..).zip([1023, 60_000, 4500]) {
            let mut conn = Conn::bare(dial((AWAY, source).into(), (GATEWAY, port).into()).expect("listens"));
            conn.send(b"IKETCP");
            let mut client = Client::attach_on(conn, UeConfig::new(10 * seed + more));
            client.send(&port.to_be_bytes());
            assert_eq!(lab.at_core().1, port.to_be_bytes());
            lab.to_ue(client.addr.into(), b"down");
            assert_eq!(client.receive(), b"down");
        }
    }
    assert_eq!(lab.sessions().len(), 9);
    assert!(dial((HOME, 0).into(), (GATEWAY, 4501).into()).is_err());
}

#[test]
fn r9329_10_7_and_d1_other_protocols_are_closed_and_hear_nothing() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let hellos: [&[u8]; 8] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"IKETCQ\x00\x02",
        b"IKETCp",
        b"\x00\x02IKETCP",
        b"IKEIKETCP",
        b"\x00",
    ];
    for (count, hello) in (1..).zip(hellos) {
        let mut stream = dial((HOME, 0).into(), (GATEWAY, 4500).into()).expect("listens");
        std::io::Write::write_all(&mut stream, hello).expect("sent");
        let mut answer = Vec::new();
        // A reset is as good as an end: octets beyond the prefix were never read.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"");
        lab.until("counted", count, |lab| lab.drops("prefix_mismatch"));
    }
    assert_eq!(lab.stats()["control"]["ike_messages"], 0);
}

#[test]
fn r9329_6_1_1_and_d1_and_d2_the_prefix_and_a_message_have_their_time() {
    let setup = Setup { limits: "prefix_s = 2\nfirst_message_s = 4\nhalf_open_s = 5", ..Setup::default() };
    let Some(lab) = Lab::start(setup) else { return };
    let bare = || Conn::bare(dial((HOME, 0).into(), (GATEWAY, 4500).into()).expect("listens"));
    let begun = Instant::now();
    let (mut silent, mut partial, mut mute, mut half_open) = (bare(), bare(), Conn::open(), Conn::open());
    partial.send(b"IKETC");
    half_open.send_ike(&Ue::new(UeConfig::new(1)).init());
    half_open.ike();
    // Octet by octet, within the time: nothing is parsed before the sixth.
    let mut slow = bare();
    let mut ue = Ue::new(UeConfig::new(2));
    for octet in b"IKETC" {
        slow.send(&[*octet]);
        assert!(slow.is_quiet());
    }
    slow.send(&[b"P", ike_frame(&ue.init()).as_slice()].concat());
    ue.on_init(&slow.ike()).expect("no error");
    slow.send_ike(&ue.auth());
    assert_eq!(ue.on_auth(&slow.ike()).error(), None);

    let closed_after = |conn: &mut Conn| {
        assert!(conn.is_closed());
        begun.elapsed()
    };
    for conn in [&mut silent, &mut partial] {
        assert!((2..5).contains(&closed_after(conn).as_secs()));
    }
    assert!((4..8).contains(&closed_after(&mut mute).as_secs()));
    assert!((5..10).contains(&closed_after(&mut half_open).as_secs()));
    assert_eq!(lab.closes("prefix_timeout"), 2);
    assert_eq!(lab.closes("first_message_timeout"), 2);
    lab.until("half-open IKE SAs expire", Some(0), |lab| lab.stats()["half_open"].as_u64());
    // D12: an idle connection with a session is left alone.
    assert!(slow.is_quiet_for(Duration::from_secs(1)));
}

#[test]
fn r9329_3_2_and_6_6_2_a_hundred_thousand_keepalives_and_empty_frames_leave_no_trace() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let noise = [[0, 3, 0xff].repeat(50_000), [0, 2].repeat(50_000)].concat();
    let mut conn = Conn::open();
    let mut ue = Ue::new(UeConfig::new(1));
    conn.send(&noise);
    conn.send_ike(&ue.init());
    ue.on_init(&conn.ike()).expect("no error");
    conn.send(&noise);
    conn.send_ike(&ue.auth());
    assert_eq!(ue.on_auth(&conn.ike()).error(), None);
    let mut client = Client::established(ue, conn);
    // On another connection they move nothing.
    let mut second = Conn::open();
    second.send(&noise);
    client.conn.send(&noise);
    client.send(b"still in step");
    assert_eq!(lab.at_core().1, b"still in step");
    lab.to_ue(client.addr.into(), b"here");
    assert_eq!(client.receive(), b"here");
    assert!(second.is_quiet());
    let stats = lab.stats();
    let drops = stats["drops"].as_object().expect("by reason");
    // The host itself speaks IPv6 on the inner device, to nobody.
    let counted: Vec<_> = drops.iter().filter(|(name, n)| *name != "no_session" && **n != 0).collect();
    assert!(counted.is_empty(), "{counted:?}");
}

#[test]
fn r9329_3_1_2_length_zero_and_one_end_the_connection_before_and_after_a_session() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    for length in [0, 1] {
        let mut conn = Conn::open();
        conn.send(&[&[0, length][..], &ike_frame(&Ue::new(UeConfig::new(9)).init())].concat());
        assert!(conn.is_closed());
        let mut client = Client::attach(u64::from(length));
        let behind = client.frame(b"behind");
        client.conn.send(&[&[0, length][..], &behind].concat());
        assert!(client.conn.is_closed());
        assert!(lab.core_is_silent());
        client.conn = Conn::open();
        client.conn.send(&behind);
        assert_eq!(lab.at_core().1, b"behind");
    }
    assert_eq!((lab.drops("bad_length"), lab.closes("framing")), (4, 4));
    assert_eq!(lab.stats()["half_open"], 0);
}

//! Which connection carries what: rows of RFC 9329 §6.1.

use std::time::{Duration, Instant};

use codec::ike::{ExchangeType, NotifyType};

use crate::client::{Client, Conn};
use crate::lab::{AWAY, HOME, Lab, Setup};
use crate::pcap::Capture;
use crate::ue::{Ue, UeConfig};

#[test]
fn r9329_1_2_1_and_5_3_the_gateway_neither_connects_nor_leaves_tcp() {
    let Some(lab) = Lab::start(Setup { profile: "dpd_s = 1", ..Setup::default() }) else { return };
    let capture = Capture::start(&lab);
    let mut client = Client::attach(1);
    let request = client.ue.rekey_ike();
    client.conn.send_ike(&request);
    let response = client.conn.ike();
    assert_eq!(client.ue.on_rekey_ike(&response).error(), None);
    let request = client.ue.informational_on_old(|builder| {
        builder.delete_ike();
    });
    client.exchange(&request);
    client.send(b"before");
    lab.at_core();

    // Without a connection there is something to say by IKE and by ESP, and no way to say it.
    client.reconnect((AWAY, 0).into());
    lab.until("the session is detached", "detached".into(), state);
    lab.to_ue(client.addr.into(), b"lost");
    lab.until("counted", 1, |lab| lab.drops("no_connection"));
    std::thread::sleep(Duration::from_millis(2500));
    client.send(b"after");
    let request = client.conn.ike();
    client.acknowledge(&request);
    assert!(lab.at_core().1 == b"after");
    lab.to_ue(client.addr.into(), b"found");
    assert_eq!(client.receive(), b"found");

    let packets = capture.finish();
    let gateway: Vec<_> = packets.iter().filter(|outer| outer.src == crate::lab::GATEWAY).collect();
    assert!(gateway.len() > 10, "{packets:?}");
    for outer in gateway {
        assert!(outer.proto == 6 || outer.proto == 1, "{outer:?}");
        assert!(outer.proto != 6 || (outer.flags & 0x12 != 2 && outer.src_port == 4500), "{outer:?}");
    }
}

#[test]
fn r9329_6_1_4_and_6_1_5_and_6_1_10_a_session_goes_on_from_elsewhere_with_esp_alone() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let mut client = Client::attach(1);
    for (round, source) in [(AWAY, 0), (AWAY, 6001), (HOME, 1023), (AWAY, 60_000)].into_iter().enumerate() {
        client.reconnect(source.into());
        lab.until("the session stays without a connection", "detached".into(), state);
        let payload = [round as u8; 50];
        client.send(&payload);
        assert_eq!(lab.at_core(), ((client.addr, 4000).into(), payload.to_vec()));
        lab.to_ue(client.addr.into(), &payload);
        assert_eq!(client.receive(), payload);
        let session = lab.sessions().remove(0);
        assert_eq!(session["remote"], client.conn.stream.local_addr().expect("bound").to_string());
        assert_eq!((session["id"].as_u64(), &session["state"]), (Some(1), &"established".into()));
    }
    assert_eq!(lab.stats()["control"]["ike_messages"], 2, "IKE_SA_INIT and IKE_AUTH");
}

#[test]
fn r9329_6_1_9_and_d4_a_connection_carries_one_session() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let (mut one, mut other) = (Client::attach(1), Client::attach(2));
    // A third UE's IKE_SA_INIT, the other's ESP, the other's IKE.
    one.conn.send_ike(&Ue::new(UeConfig::new(3)).init());
    let frame = other.frame(b"other's");
    one.conn.send(&frame);
    let request = other.ue.informational(|_| {});
    one.conn.send_ike(&request);
    assert!(one.conn.is_quiet() && lab.core_is_silent());
    assert_eq!((lab.drops("foreign_spi"), lab.stats()["half_open"].as_u64()), (1, Some(0)));
    for client in [&mut one, &mut other] {
        lab.to_ue(client.addr.into(), b"unmoved");
        assert_eq!(client.receive(), b"unmoved");
    }
    // What was refused there is still fresh where it belongs.
    other.conn.send(&frame);
    assert_eq!(lab.at_core().1, b"other's");
    other.exchange(&request);
    // Old and new IKE SA of one session share a connection during a rekey.
    let request = one.ue.rekey_ike();
    one.conn.send_ike(&request);
    let response = one.conn.ike();
    assert_eq!(one.ue.on_rekey_ike(&response).error(), None);
    let request = one.ue.informational(|_| {});
    one.exchange(&request);
    let request = one.ue.informational_on_old(|builder| {
        builder.delete_ike();
    });
    one.exchange(&request);
    assert_eq!(lab.sessions().len(), 2);
}

#[test]
fn r9329_6_1_11_and_6_1_12_and_d5_and_d6_corruption_costs_the_connection_alone() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let (mut client, mut witness) = (Client::attach(1), Client::attach(2));
    let mut unknown = vec![0, 42];
    unknown.extend([0x5a; 40]);

    // Three packets of no SA are survived.
    client.conn.send(&unknown.repeat(3));
    client.send(b"alive");
    assert_eq!(lab.at_core().1, b"alive");

    // Seventeen are not, nor seventeen frames that are nothing.
    client.conn.send(&unknown.repeat(17));
    assert!(client.conn.is_closed());
    goes_on(&lab, &mut client);
    client.conn.send(&[0, 3, 0].repeat(17));
    assert!(client.conn.is_closed());
    goes_on(&lab, &mut client);
    assert_eq!((lab.drops("unknown_spi"), lab.drops("unparseable")), (20, 17));
    assert_eq!(lab.closes("corrupted"), 2);

    // One ESP packet that fails its check is enough, and so is an IKE message.
    let mut frame = client.frame(b"altered");
    *frame.last_mut().expect("not empty") ^= 1;
    client.conn.send(&frame);
    assert!(client.conn.is_closed());
    goes_on(&lab, &mut client);
    assert_eq!((lab.drops("bad_icv"), lab.closes("auth_failed")), (1, 1));
    let mut message = client.ue.informational(|_| {});
    *message.last_mut().expect("not empty") ^= 1;
    client.conn.send_ike(&message);
    assert!(client.conn.is_closed());
    goes_on(&lab, &mut client);
    assert_eq!(lab.drops("ike_bad_icv"), 1);

    witness.send(b"undisturbed");
    assert_eq!(lab.at_core().1, b"undisturbed");
    assert_eq!(lab.sessions().len(), 2);
}

#[test]
fn r9329_6_1_13_a_syntax_error_costs_the_ike_sa_and_not_the_connection() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let mut client = Client::attach(1);
    let frame = client.frame(b"too late");
    let mut sa = client.ue.sa.take().expect("established");
    // A Notify that claims an SPI longer than itself.
    let message = sa.seal_raw(ExchangeType::INFORMATIONAL, &[3, 200, 0, 1], &mut client.ue.random);
    client.ue.sa = Some(sa);
    let answer = client.exchange(&message);
    assert_eq!(answer.error(), Some(NotifyType::INVALID_SYNTAX));
    client.conn.send(&frame);
    assert!(lab.core_is_silent());
    assert_eq!((lab.sessions().len(), lab.drops("retired_spi")), (0, 1));
    let mut next = Client::attach_on(client.conn, UeConfig::new(2));
    next.send(b"on the same connection");
    assert_eq!(lab.at_core().1, b"on the same connection");
}

#[test]
fn r9329_6_1_14_and_6_1_15_and_6_1_16_the_last_fresh_message_decides_and_both_are_read() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let mut client = Client::attach(1);
    let replay = client.frame(b"first");
    client.conn.send(&replay);
    lab.at_core();
    let request = client.ue.informational(|_| {});
    client.conn.send_ike(&request);
    let response = client.conn.ike();

    // A second connection; nothing it brings so far is fresh.
    let mut second = Conn::open_from((AWAY, 0).into());
    let on_first = |client: &mut Client, payload: &[u8]| {
        lab.to_ue(client.addr.into(), payload);
        assert_eq!(client.receive(), payload);
    };
    on_first(&mut client, b"prefix only");
    second.send(&replay);
    lab.until("the replay is seen", 1, |lab| lab.drops("replayed"));
    on_first(&mut client, b"replay");
    second.send_ike(&request);
    assert_eq!(second.ike(), response, "answered where it came in");
    on_first(&mut client, b"retransmission");
    let mut out_of_window = client.ue.sa.take().expect("established");
    out_of_window.next_out += 5;
    client.ue.sa = Some(out_of_window);
    second.send_ike(&client.ue.informational(|_| {}));
    assert!(second.is_quiet());
    on_first(&mut client, b"out of window");
    client.ue.sa.as_mut().expect("established").next_out -= 6;

    // A fresh packet moves the session; the first connection is still read, and moves it back.
    let frame = client.frame(b"fresh");
    second.send(&frame);
    assert_eq!(lab.at_core().1, b"fresh");
    lab.to_ue(client.addr.into(), b"moved");
    let packet = second.esp();
    assert_eq!(client.open(packet), b"moved");
    assert!(client.conn.is_quiet());
    let frames: Vec<_> = (0..40u8).map(|number| client.frame(&[number])).collect();
    for pair in frames.chunks(2) {
        second.send(&pair[1]);
        client.conn.send(&pair[0]);
    }
    let mut seen: Vec<u8> = (0..40).map(|_| lab.at_core().1[0]).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
    // A fresh request decides as well as a packet does.
    let request = client.ue.informational(|_| {});
    second.send_ike(&request);
    second.ike();
    lab.to_ue(client.addr.into(), b"by IKE");
    let packet = second.esp();
    assert_eq!(client.open(packet), b"by IKE");
}

#[test]
fn r9329_6_1_2_and_6_1_3_an_ended_session_says_delete_and_leaves_the_connection_a_while() {
    let Some(lab) = Lab::start(Setup { limits: "linger_s = 2", ..Setup::default() }) else { return };
    let (mut one, mut other) = (Client::attach(1), Client::attach(2));
    lab.ask(r#"{"command":"terminate","idi":"ue1.test"}"#);
    let request = one.conn.ike();
    let decoded = one.ue.open(&request).expect("authentic");
    assert!(decoded.body(codec::ike::PayloadType::DELETE).is_some());
    one.acknowledge(&request);
    let answered = Instant::now();
    lab.until("the session is gone", 1, |lab| lab.sessions().len());
    assert!(one.conn.is_quiet_for(Duration::from_secs(1)), "it may be used again");
    assert!(one.conn.is_closed());
    assert!(answered.elapsed() < Duration::from_secs(5));
    assert_eq!(lab.closes("session_over"), 1);

    // The UE's own DELETE, and another session on the same connection.
    let request = other.ue.informational(|builder| {
        builder.delete_ike();
    });
    other.exchange(&request);
    let mut third = Client::attach_on(other.conn, UeConfig::new(3));
    std::thread::sleep(Duration::from_millis(2500));
    third.send(b"the linger time is off");
    assert_eq!(lab.at_core().1, b"the linger time is off");
}

#[test]
fn r9329_6_1_7_and_6_1_8_pieces_and_streams_without_prefix_count_for_nothing() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let mut client = Client::attach(1);
    let frame = client.frame(&[0x33; 64]);
    // Every place a frame can be cut at, its rest on the next connection as if it were a frame.
    for cut in 1..frame.len() {
        client.conn.send(&frame[..cut]);
        client.reconnect((AWAY, 0).into());
        client.conn.send(&frame[cut..cut + 1]);
    }
    let mut bare = Conn::bare(
        crate::lab::dial((HOME, 0).into(), (crate::lab::GATEWAY, 4500).into()).expect("it listens"),
    );
    bare.send(&frame);
    assert!(bare.is_closed());
    assert!(lab.core_is_silent());
    // The packet is still fresh.
    client.reconnect((HOME, 0).into());
    client.conn.send(&frame);
    assert_eq!(lab.at_core().1, [0x33; 64]);
    assert_eq!((lab.drops("prefix_mismatch"), lab.drops("replayed")), (1, 0));
}

/// The session continues on a new connection.
fn goes_on(lab: &Lab, client: &mut Client) {
    client.conn = Conn::open();
    client.send(b"goes on");
    assert_eq!(lab.at_core().1, b"goes on");
    lab.to_ue(client.addr.into(), b"back");
    assert_eq!(client.receive(), b"back");
}

fn state(lab: &Lab) -> String {
    lab.sessions()[0]["state"].as_str().expect("text").to_owned()
}

#[test]
fn r9329_7_4_1_a_successor_resets_what_it_does_not_know_and_waits_for_the_ue() {
    let Some(mut lab) = Lab::start(Setup::default()) else { return };
    // The kernel is to forget the connections of a process that was killed.
    lab.middle.inside(|| std::fs::write("/proc/sys/net/ipv4/tcp_orphan_retries", "1").expect("root may"));
    let mut client = Client::attach(1);
    client.send(b"before");
    lab.at_core();
    lab.replace_gateway();
    let capture = Capture::start(&lab);
    client.send(b"to nobody");
    assert!(client.conn.is_closed());
    assert!(lab.sessions().is_empty());
    // State is not shared yet: the UE comes back with what is unknown here, and begins anew.
    client.reconnect((HOME, 0).into());
    client.send(b"unknown");
    lab.until("counted", 1, |lab| lab.drops("unknown_spi"));
    let mut again = Client::attach(2);
    again.send(b"after");
    assert_eq!(lab.at_core().1, b"after");
    let packets = capture.finish();
    let gateway = || packets.iter().filter(|outer| outer.src == crate::lab::GATEWAY && outer.proto == 6);
    assert!(gateway().any(|outer| outer.flags & 4 != 0), "a reset");
    assert!(gateway().all(|outer| outer.flags & 0x12 != 2), "it never connects");
}

//! Two workers: connections arrive at either, sessions stay where they are, and nobody notices.

use crate::client::{Client, Conn, ike_frame};
use crate::innocent::Innocent;
use crate::lab::{AWAY, HOME, Lab, Setup};
use crate::ue::UeConfig;

/// So many connections do not all arrive at one of two workers, but for one chance in a million.
const CONNECTIONS: u16 = 20;

fn lab() -> Option<Lab> {
    Lab::start(Setup { workers: Some(2), ..Setup::default() })
}

/// Both directions work on the current connection.
fn both_ways(lab: &Lab, client: &mut Client, payload: &[u8]) {
    assert_eq!(lab.at_core(), ((client.addr, 4000).into(), payload.to_vec()));
    lab.to_ue(client.addr.into(), payload);
    assert_eq!(client.receive(), payload);
}

#[test]
fn r9329_6_1_10_a_session_resumes_by_esp_on_whatever_worker() {
    let Some(lab) = lab() else { return };
    let mut client = Client::attach(1);
    let worker = lab.sessions()[0]["worker"].clone();
    for round in 0..CONNECTIONS {
        client.reconnect((AWAY, 20_000 + round).into());
        client.send(&round.to_be_bytes());
        both_ways(&lab, &mut client, &round.to_be_bytes());
    }
    assert_eq!(lab.sessions()[0]["worker"], worker, "for its whole life");
    assert!(lab.closes("moved") > 0);
}

#[test]
fn r9329_6_1_10_a_session_resumes_by_ike_on_whatever_worker() {
    let Some(lab) = lab() else { return };
    let mut client = Client::attach(1);
    for round in 0..CONNECTIONS {
        client.reconnect((AWAY, 20_000 + round).into());
        let request = client.ue.informational(|_| {});
        client.exchange(&request);
        // The downlink follows the request, before any packet goes up.
        lab.to_ue(client.addr.into(), b"down");
        assert_eq!(client.receive(), b"down");
        client.send(&round.to_be_bytes());
        both_ways(&lab, &mut client, &round.to_be_bytes());
    }
    assert!(lab.closes("moved") > 0);
    assert_eq!(lab.stats()["control"]["moving_overflows"], 0);
}

#[test]
fn r9329_6_1_15_what_is_pipelined_behind_the_first_frame_moves_with_the_connection() {
    let Some(lab) = lab() else { return };
    let mut client = Client::attach(1);
    for round in 0..CONNECTIONS {
        client.reconnect((AWAY, 20_000 + round).into());
        let request = client.ue.informational(|_| {});
        let frames: Vec<Vec<u8>> = (0..4).map(|number| client.frame(&[number; 900])).collect();
        let (head, tail) = frames[3].split_at(300);
        let first = match round % 2 {
            0 => [&ike_frame(&request)[..], &frames[0], &frames[1], &frames[2], head].concat(),
            _ => [&frames[0][..], &ike_frame(&request), &frames[1], &frames[2], head].concat(),
        };
        client.conn.send(&first);
        let answer = client.conn.ike();
        assert!(client.ue.open(&answer).is_some());
        client.conn.send(tail);
        for number in 0..4 {
            assert_eq!(lab.at_core().1, [number; 900]);
        }
        lab.to_ue(client.addr.into(), b"down");
        assert_eq!(client.receive(), b"down");
    }
    assert!(lab.closes("moved") > 0);
}

#[test]
fn r9329_6_2_2_a_pending_request_follows_the_ue_to_whatever_worker() {
    let Some(lab) = Lab::start(Setup { workers: Some(2), profile: "dpd_s = 1", ..Setup::default() }) else {
        return;
    };
    let mut client = Client::attach(1);
    let asked = client.conn.ike();
    for round in 0..CONNECTIONS / 2 {
        client.reconnect((AWAY, 20_000 + round).into());
        client.send(&round.to_be_bytes());
        assert_eq!(client.conn.ike(), asked);
    }
    client.acknowledge(&asked);
    assert_eq!(lab.sessions().len(), 1);
}

#[test]
fn r9329_6_1_14_many_sessions_on_both_workers_get_their_own_downlink() {
    let Some(lab) = lab() else { return };
    let innocents: Vec<Innocent> =
        (1..=8).map(|seed| Innocent::start_from(seed, (AWAY, 30_000 + seed as u16).into())).collect();
    // Others come and go on both workers meanwhile.
    for round in 0..CONNECTIONS {
        let conn = Conn::open_from((HOME, 30_000 + round).into());
        let mut client = Client::attach_on(conn, UeConfig::new(100 + u64::from(round)));
        client.send(&round.to_be_bytes());
        both_ways(&lab, &mut client, &round.to_be_bytes());
        if round % 2 == 0 {
            let request = client.ue.informational(|builder| {
                builder.delete_ike();
            });
            client.exchange(&request);
        }
    }
    let stats = lab.stats();
    for worker in 0..2 {
        assert!(stats["workers"][worker]["downlink"]["packets"].as_u64() > Some(0), "{stats}");
    }
    // The steering program brings packets to the queue of their owner; passing on is the exception.
    assert_eq!(stats["drops"]["handoff_full"], 0);
    innocents.into_iter().for_each(|innocent| {
        innocent.finish();
    });
    assert_eq!(lab.sessions().len(), 8 + usize::from(CONNECTIONS) / 2);
}

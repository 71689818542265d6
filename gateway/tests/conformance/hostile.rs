//! Peers that mean harm, in numbers, beside one that does not: its traffic loses nothing, every refusal has
//! its counted reason, and memory stays inside what `[limits]` says.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use codec::{Random, SeededRandom};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::client::{Client, Conn, ike_frame, udp};
use crate::innocent::Innocent;
use crate::lab::{AWAY, CORE, GATEWAY, HOME, Lab, PATIENCE, Setup, dial, dial_with};
use crate::ue::{Ue, UeConfig};

/// What the process may take beyond the bound under test: page tables, the allocator's own, log, metrics.
const SLACK: u64 = 24 << 20;

/// One of 250 × 250 UE addresses.
fn source(number: usize) -> SocketAddr {
    (Ipv4Addr::new(10, 21, (number / 250 % 250) as u8, (number % 250 + 1) as u8), 0).into()
}

fn connect(number: usize) -> TcpStream {
    dial(source(number), (GATEWAY, 4500).into()).expect("the gateway accepts")
}

#[test]
fn d1_and_r9329_10_1_ten_thousand_connections_that_say_nothing() {
    let limits = "prefix_s = 6\nfirst_message_s = 8";
    let Some(lab) = Lab::start(Setup { limits, ..Setup::default() }) else { return };
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("readable");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("up to the hard limit");
    let count = 10_000.min(most as usize - 2_000);
    let innocent = Innocent::start(1);
    let before = lab.resident();
    let mut idle: Vec<TcpStream> = (0..count).map(connect).collect();
    let mut half = 0;
    for (number, stream) in idle.iter_mut().enumerate() {
        // Of four, two say nothing, one says half the prefix, one all of it and half a Length.
        let said: &[u8] = [&b""[..], b"", b"IKE", b"IKETCP\x01"][number % 4];
        // The first of them may be out of time already.
        half += u64::from(stream.write_all(said).is_ok());
    }
    assert!(half > 0);
    let open = lab.stats()["connections"].as_u64().expect("a number");
    assert!(open > count as u64 / 2, "{open}");
    // 1 KB each in user space, says the table of limits.
    let grown = lab.resident().saturating_sub(before);
    assert!(grown < count as u64 * 1024 + SLACK, "{grown} octets for {open} connections");
    // One more octet a second does not buy a prefix time.
    let mut slow = connect(count);
    let begun = Instant::now();
    for octet in b"IKETCP".iter().cycle() {
        if slow.write_all(&[*octet]).is_err() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "prefix after prefix, octet by octet");
        std::thread::sleep(Duration::from_secs(1));
    }
    lab.until("only the innocent one is left", Some(1), |lab| lab.stats()["connections"].as_u64());
    let ended =
        lab.closes("prefix_timeout") + lab.closes("first_message_timeout") + lab.drops("prefix_mismatch");
    assert!(ended + lab.drops("unparseable") >= count as u64, "{}", lab.stats());
    innocent.finish();
}

#[test]
fn r8019_a_flood_of_ike_sa_init_meets_its_bounds() {
    let limits = "half_open = 600\nhalf_open_per_source = 50\nhalf_open_s = 8";
    let Some(lab) = Lab::start(Setup { limits, ..Setup::default() }) else { return };
    let innocent = Innocent::start(1);
    let before = lab.resident();
    let mut open = Vec::new();
    for number in 0..1500 {
        // Sixty from one address first, then from everywhere.
        let mut conn = Conn::bare(connect(if number < 60 { 0 } else { number }));
        let init = Ue::new(UeConfig::new(1000 + number as u64)).init();
        conn.send(&[b"IKETCP", ike_frame(&init).as_slice()].concat());
        open.push(conn);
    }
    lab.until("every one is handled", 1502, |lab| {
        lab.stats()["control"]["ike_messages"].as_u64().expect("a number")
    });
    let stats = lab.stats();
    assert!(stats["half_open"].as_u64().expect("a number") <= 600, "{stats}");
    let refused: u64 = stats["drops"]
        .as_object()
        .expect("by reason")
        .iter()
        .filter(|(reason, _)| reason.contains("half_open"))
        .filter_map(|(_, count)| count.as_u64())
        .sum();
    assert!(refused >= 900, "{stats}");
    let grown = lab.resident().saturating_sub(before);
    assert!(grown < 600 * 4096 + 1500 * 1024 + SLACK, "{grown}");
    // UEs that mean it are served as soon as there is room, and the flood leaves nothing behind.
    drop(open);
    lab.until("half-open IKE SAs expire", Some(0), |lab| lab.stats()["half_open"].as_u64());
    let mut late = Client::attach(2);
    late.send(b"served");
    assert_eq!(lab.at_core().1, b"served");
    innocent.finish();
}

#[test]
fn r9329_10_4_garbage_of_every_kind_is_counted_and_costs_nobody_else() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let innocent = Innocent::start(1);
    let mut victim = Client::attach(2);
    let before = lab.resident();
    let recorded: Vec<Vec<u8>> = (0..200u8).map(|number| victim.frame(&[number; 100])).collect();
    for frame in &recorded {
        victim.conn.send(frame);
        lab.at_core();
    }
    let spi_in = u32::from_be_bytes(recorded[0][2..6].try_into().expect("four octets"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            lab.ues.enter();
            random_streams(300);
        });
        scope.spawn(|| {
            lab.ues.enter();
            ike_garbage(300);
        });
        scope.spawn(|| {
            lab.ues.enter();
            forged_esp(300, spi_in, &recorded);
        });
    });
    let stats = lab.stats();
    let reasons = [
        "unparseable",
        "unknown_spi",
        "bad_icv",
        "left_of_window",
        "replayed",
        "ike_flood",
        "ike_bad_syntax_unprotected",
        "ike_unknown_ike_spi",
        "ike_bad_version",
    ];
    for reason in reasons {
        assert!(stats["drops"][reason].as_u64() > Some(0), "{reason} of {stats}");
    }
    assert!(stats["closes"]["corrupted"].as_u64() > Some(0), "{stats}");
    assert!(stats["closes"]["auth_failed"].as_u64() >= Some(300), "{stats}");
    // The victim's SA was named by all of them and is where it was.
    lab.to_ue(victim.addr.into(), b"unmoved");
    assert_eq!(victim.receive(), b"unmoved");
    victim.send(b"unharmed");
    assert_eq!(lab.at_core().1, b"unharmed");
    assert!(lab.resident().saturating_sub(before) < SLACK, "{} before, {} after", before, lab.resident());
    innocent.finish();
}

/// Frames of random length and content behind a right prefix.
fn random_streams(count: usize) {
    let mut random = SeededRandom::new(7);
    for number in 0..count {
        let mut octets = b"IKETCP".to_vec();
        for _ in 0..40 {
            let mut frame = [0; 66];
            random.fill(&mut frame);
            let length = 2 + frame[1] % 60;
            frame[..2].copy_from_slice(&[0, length]);
            octets.extend(&frame[..usize::from(length)]);
        }
        // The gateway hangs up in the middle of it.
        let mut conn = Conn::bare(connect(number));
        let _ = conn.stream.write_all(&octets);
        assert!(conn.is_closed());
    }
}

/// IKE messages of which every one has something wrong.
fn ike_garbage(count: usize) {
    let mut random = SeededRandom::new(8);
    let init = Ue::new(UeConfig::new(8)).init();
    for number in 0..count {
        let mut stream = connect(number);
        let mut frames = b"IKETCP".to_vec();
        for _ in 0..17 {
            let mut message = init.clone();
            let mut at = [0; 4];
            random.fill(&mut at);
            let at = u32::from_le_bytes(at) as usize;
            match number % 4 {
                0 => message.truncate(28 + at % (message.len() - 28)),
                1 => random.fill(&mut message[28..]),
                2 => random.fill(&mut message[..16]),
                _ => random.fill(&mut message[..28]),
            }
            frames.extend(ike_frame(&message));
        }
        let _ = stream.write_all(&frames);
    }
}

/// ESP of a session that is not the sender's: replayed, altered, or made up.
fn forged_esp(count: usize, spi: u32, recorded: &[Vec<u8>]) {
    for number in 0..count {
        let mut frames = b"IKETCP".to_vec();
        frames.extend(&recorded[number % recorded.len()]);
        let mut made_up = [&[0, 66][..], &spi.to_be_bytes(), &[0xff; 60]].concat();
        made_up[6..10].copy_from_slice(&(number as u32 + 10_000).to_be_bytes());
        frames.extend(made_up);
        let mut conn = Conn::bare(connect(number));
        conn.send(&frames);
        assert!(conn.is_closed(), "after a failed check");
    }
}

#[test]
fn d10_a_peer_that_stops_reading_loses_whole_frames_and_hurts_nobody() {
    let limits = "flow_queue_octets = 131072";
    let Some(lab) = Lab::start(Setup { limits, ..Setup::default() }) else { return };
    let innocent = Innocent::start(1);
    let small = dial_with((AWAY, 0).into(), (GATEWAY, 4500).into(), |socket| {
        socket.set_recv_buffer_size(4096).expect("an option");
    });
    let mut conn = Conn::bare(small.expect("the gateway listens"));
    conn.send(b"IKETCP");
    let mut deaf = Client::attach_on(conn, UeConfig::new(2));
    let before = lab.resident();
    let flood = [0x77; 1300];
    let begun = Instant::now();
    let mut sent = 0u32;
    while lab.drops("flow_queue_full") < 1000 {
        assert!(begun.elapsed() < PATIENCE, "{}", lab.stats());
        for _ in 0..500 {
            lab.to_ue(deaf.addr.into(), &[&sent.to_be_bytes()[..], &flood].concat());
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(lab.resident().saturating_sub(before) < SLACK);
    // Uplink of the same UE is not held up by its downlink.
    deaf.send(b"up");
    assert_eq!(lab.at_core().1, b"up");
    // It reads again: frames are whole, sequence numbers without a hole, packets in order.
    lab.to_ue(deaf.addr.into(), b"late");
    deaf.conn.stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let (mut last, mut next_sequence) = (None, 1u32);
    let mut read = 0;
    loop {
        let mut length = [0; 2];
        if std::io::Read::read_exact(&mut deaf.conn.stream, &mut length).is_err() {
            break;
        }
        let mut packet = vec![0; usize::from(u16::from_be_bytes(length)) - 2];
        std::io::Read::read_exact(&mut deaf.conn.stream, &mut packet).expect("a whole frame");
        assert_eq!(packet[4..8], next_sequence.to_be_bytes());
        next_sequence += 1;
        let payload = deaf.open(packet);
        read += 1;
        if payload.len() > 1000 {
            let number = u32::from_be_bytes(payload[..4].try_into().expect("four octets"));
            assert!(last < Some(number));
            last = Some(number);
        }
    }
    assert!(read > 10 && read < sent, "{read} of {sent}");
    lab.to_ue(deaf.addr.into(), b"again");
    assert_eq!(deaf.receive(), b"again");
    innocent.finish();
}

#[test]
fn r9329_6_1_7_unfinished_frames_in_numbers_stay_inside_the_bound() {
    let limits = "first_message_s = 30\nunfinished_octets = 16777216";
    let Some(lab) = Lab::start(Setup { limits, ..Setup::default() }) else { return };
    let innocent = Innocent::start(1);
    let before = lab.resident();
    let unfinished = [b"IKETCP".as_slice(), &[0xff, 0xff], &[0x5a; 60_000]].concat();
    let mut open = Vec::new();
    for number in 0..3000 {
        let mut stream = connect(number);
        if stream.write_all(&unfinished).is_ok() {
            open.push(stream);
        }
    }
    lab.until("the rest is refused", true, |lab| lab.drops("unfinished") > 2000);
    let grown = lab.resident().saturating_sub(before);
    assert!(grown < (16 << 20) + 3000 * (1024 + 4096) + SLACK, "{} MB for unfinished frames", grown >> 20);
    // Whoever comes now is served, also with a message in pieces.
    let mut conn = Conn::open();
    let mut ue = Ue::new(UeConfig::new(2));
    let init = ike_frame(&ue.init());
    for piece in init.chunks(50) {
        conn.send(piece);
        std::thread::sleep(Duration::from_millis(5));
    }
    ue.on_init(&conn.ike()).expect("no error");
    innocent.finish();
}

#[test]
fn r8019_a_storm_of_reconnects_and_requests_by_one_ue_is_its_own_business() {
    let Some(lab) = Lab::start(Setup { workers: Some(2), ..Setup::default() }) else { return };
    let innocent = Innocent::start(1);
    let mut restless = Client::attach(2);
    let mut request = restless.ue.informational(|_| {});
    for round in 0..300u32 {
        restless.reconnect(source(round as usize));
        let frame = restless.frame(b"here");
        let both = [ike_frame(&request), frame];
        // IKE first, ESP first, or both in one write; some leave before the answer.
        match round % 3 {
            0 => restless.conn.send(&both.concat()),
            1 => restless.conn.send(&[&both[1][..], &both[0]].concat()),
            _ => {
                restless.conn.send(&both[0]);
                restless.conn.send(&both[1]);
            }
        }
        // What was not answered is asked again on the next connection.
        if round % 5 != 0 {
            let answer = restless.conn.ike();
            assert!(restless.ue.open(&answer).is_some());
            request = restless.ue.informational(|_| {});
        }
    }
    restless.reconnect((HOME, 0).into());
    let packet = udp(restless.addr, CORE, (4000, crate::lab::ECHO_PORT), b"done", 0);
    let frame = restless.seal(&packet);
    restless.conn.send(&frame);
    assert_eq!(restless.receive(), b"done");
    lab.until("old connections are gone", Some(2), |lab| lab.stats()["connections"].as_u64());
    assert_eq!(lab.stats()["control"]["moving_overflows"], 0);
    innocent.finish();
}

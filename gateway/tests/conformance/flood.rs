//! Half-open attempts in tens of thousands, from as many sources, beside a session that must not notice.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use codec::crypto::Puzzle;
use codec::ike::{NotifyType, PayloadType};

use crate::client::{Client, Conn};
use crate::innocent::Innocent;
use crate::lab::{GATEWAY, Lab, PATIENCE, Setup};
use crate::ue::{Decoded, Ue, UeConfig};

/// Attempts of the flood, each from an address of its own.
const ATTEMPTS: usize = 50_000;

/// Sent at once, and the pause after it: 20,000 attempts a second.
const BURST: usize = 40;
const PAUSE: Duration = Duration::from_millis(2);

/// Attempts that return their cookie.
const RETURNED: usize = 2_000;

/// Attempts over TCP, which take a connection each, and how many threads make them.
const TCP_ATTEMPTS: usize = 20_000;
const TCP_THREADS: usize = 4;

/// From where on the gateway asks for cookies (`limits.cookies_from`), and how many requests may be on their way
/// to the responder when it begins to.
const COOKIES_FROM: u64 = 1_024;
const ON_THEIR_WAY: u64 = 256;

/// What a half-open IKE SA takes (`limits.half_open`), and what the process may take beside.
const HALF_OPEN_OCTETS: u64 = 4096;
const SLACK: u64 = 24 << 20;

/// What the session's 99th percentile may become on a machine that sends the flood itself.
const P99_MAX: Duration = Duration::from_millis(250);

/// A socket on one of 250 x 250 addresses, for the gateway's port 500.
fn host(number: usize) -> UdpSocket {
    let addr = Ipv4Addr::new(10, 21, (number / 250) as u8, (number % 250 + 1) as u8);
    let socket = UdpSocket::bind((addr, 0)).expect("an address of ours");
    socket.connect((GATEWAY, 500)).expect("a route");
    socket
}

/// One request made many: whoever floods does not compute.
fn with_spi(template: &[u8], number: usize) -> Vec<u8> {
    let mut request = template.to_vec();
    request[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    request
}

#[test]
fn r7296_2_6_fifty_thousand_half_open_attempts_over_udp() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let innocent = Innocent::start(1);
    std::thread::sleep(Duration::from_secs(2));
    let (resident, begun) = (lab.resident(), Instant::now());
    let template = Ue::new(UeConfig::new(2)).init();
    for number in 0..ATTEMPTS {
        // Nobody is there to read the answer.
        let _ = host(number).send(&with_spi(&template, number));
        if number % BURST == 0 {
            std::thread::sleep(PAUSE);
        }
    }
    // In the midst of it, UEs that can take a cookie get in.
    let mut late = Client::attach(3);
    late.send(b"served");
    assert_eq!(lab.at_core().1, b"served");
    let stats = lab.stats();
    let half_open = stats["half_open"].as_u64().expect("a number");
    assert!(half_open <= COOKIES_FROM + ON_THEIR_WAY, "{half_open} of attempts without a cookie");
    let cookies = stats["exchanges"]["cookies_sent"].as_u64().expect("a number");
    let received = cookies + half_open + refused(&stats);
    assert!(cookies > ATTEMPTS as u64 / 2, "{cookies} cookies: {stats}");
    let mut returned = 0;
    for number in 0..RETURNED {
        returned += usize::from(answers_with_cookie(number));
    }
    let ended = Instant::now();
    assert!(returned > RETURNED * 9 / 10, "{returned} of {RETURNED} that returned their cookie were served");
    let half_open = lab.stats()["half_open"].as_u64().expect("a number");
    assert!(half_open >= returned as u64, "{half_open}");
    let grown = lab.resident().saturating_sub(resident);
    assert!(grown < half_open * HALF_OPEN_OCTETS + SLACK, "{grown} octets for {half_open}");
    let report = innocent.finish();
    let (before, during) = (report.p99(begun - Duration::from_secs(2), begun), report.p99(begun, ended));
    println!(
        "{ATTEMPTS} attempts in {:?}, {received} seen, {cookies} cookies; a session's p99 {before:?} before, \
         {during:?} during; memory +{} KB",
        ended - begun,
        grown >> 10,
    );
    assert!(during < P99_MAX, "p99 {during:?}, {before:?} before");
}

#[test]
fn r8019_7_twenty_thousand_half_open_attempts_over_tcp() {
    let limits = "puzzles_from = 500\npuzzle_bits = 8";
    let Some(lab) = Lab::start(Setup { limits, ..Setup::default() }) else { return };
    let innocent = Innocent::start(1);
    std::thread::sleep(Duration::from_secs(2));
    let (resident, begun) = (lab.resident(), Instant::now());
    let template = Ue::new(UeConfig::new(2)).init();
    let (puzzled, mut waited) = std::thread::scope(|scope| {
        let attack = |from: usize| {
            let numbers = (from..TCP_ATTEMPTS).step_by(TCP_THREADS);
            numbers.filter(|number| is_puzzled(*number, &with_spi(&template, *number))).count()
        };
        let threads: Vec<_> = (0..TCP_THREADS).map(|from| scope.spawn(move || attack(from))).collect();
        std::thread::sleep(Duration::from_secs(1));
        // In the midst of it two UEs get in: one that knows of puzzles, one that only returns its cookie.
        let waited = [true, false].map(attach_through_puzzle);
        (threads.into_iter().map(|thread| thread.join().expect("it ends")).sum::<usize>(), waited)
    });
    let ended = Instant::now();
    assert!(puzzled > TCP_ATTEMPTS * 9 / 10, "{puzzled} of {TCP_ATTEMPTS} got a puzzle");
    let stats = lab.stats();
    let half_open = stats["half_open"].as_u64().expect("a number");
    assert!(half_open <= 500 + ON_THEIR_WAY, "{half_open} of attempts without a solution");
    assert_eq!(stats["exchanges"]["puzzles_solved"], 1, "{stats}");
    assert_eq!(stats["exchanges"]["unsolved_served"], 1, "{stats}");
    let grown = lab.resident().saturating_sub(resident);
    assert!(grown < half_open * HALF_OPEN_OCTETS + SLACK, "{grown} octets");
    let report = innocent.finish();
    let (before, during) = (report.p99(begun - Duration::from_secs(2), begun), report.p99(begun, ended));
    waited.sort_unstable();
    println!(
        "{TCP_ATTEMPTS} attempts in {:?}, {puzzled} puzzles; attached within {waited:?}; a session's p99 {before:?} \
         before, {during:?} during; memory +{} KB",
        ended - begun,
        grown >> 10,
    );
    assert!(during < P99_MAX, "p99 {during:?}, {before:?} before");
}

/// One attempt over TCP; whether a puzzle was all it got.
fn is_puzzled(number: usize, request: &[u8]) -> bool {
    let source = (Ipv4Addr::new(10, 21, (number / 250) as u8, (number % 250 + 1) as u8), 0);
    let mut conn = Conn::open_from(source.into());
    conn.send_ike(request);
    let answer = Decoded::clear(&conn.ike());
    conn.reset();
    answer.notify(NotifyType::PUZZLE).is_some()
}

/// Attaches a UE that is asked to solve a puzzle, and does or only returns its cookie; how long it took.
fn attach_through_puzzle(solves: bool) -> Duration {
    let begun = Instant::now();
    let source = (Ipv4Addr::new(10, 21, 250, 1 + u8::from(solves)), 0);
    let (mut conn, mut ue) = (Conn::open_from(source.into()), Ue::new(UeConfig::new(3 + u64::from(solves))));
    conn.send_ike(&ue.init());
    let challenge = Decoded::clear(&conn.ike());
    let cookie = challenge.notify(NotifyType::COOKIE).expect("a cookie").data.to_vec();
    let puzzle = challenge.notify(NotifyType::PUZZLE).expect("a puzzle beside it");
    let solution = Puzzle::from_data(puzzle.data).expect("well formed").solve(&cookie).expect("8 bits");
    conn.send_ike(&ue.repeat_init(|builder| {
        builder.notify(NotifyType::COOKIE, &cookie);
        if solves {
            builder.payload(PayloadType::PUZZLE_SOLUTION, |out| out.extend_from_slice(&solution));
        }
    }));
    ue.on_init(&conn.ike()).expect("accepted");
    conn.send_ike(&ue.auth());
    assert_eq!(ue.on_auth(&conn.ike()).error(), None);
    begun.elapsed()
}

/// Refusals for other reasons than the want of a cookie.
fn refused(stats: &serde_json::Value) -> u64 {
    let reasons = ["ike_flood", "control_queue_full", "ike_half_open_limit"];
    reasons.iter().filter_map(|reason| stats["drops"][reason].as_u64()).sum()
}

/// Whether a UE that returns its cookie gets the answer to its IKE_SA_INIT.
fn answers_with_cookie(number: usize) -> bool {
    let socket = host(ATTEMPTS + number);
    socket.set_read_timeout(Some(PATIENCE / 10)).expect("a timeout");
    let mut ue = Ue::new(UeConfig::new(10 + number as u64));
    let mut buffer = [0; 2048];
    let mut ask = |request: &[u8]| -> Option<Vec<u8>> {
        socket.send(request).ok()?;
        socket.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec())
    };
    let Some(answer) = ask(&ue.init()) else { return false };
    let challenge = Decoded::clear(&answer);
    let Some(cookie) = challenge.notify(NotifyType::COOKIE).map(|notify| notify.data.to_vec()) else {
        return ue.on_init(&answer).is_ok();
    };
    let again = ue.repeat_init(|builder| _ = builder.notify(NotifyType::COOKIE, &cookie));
    ask(&again).is_some_and(|answer| ue.on_init(&answer).is_ok())
}

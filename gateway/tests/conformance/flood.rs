//! Half-open attempts in tens of thousands, from as many sources, beside a session that must not notice.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use codec::ike::NotifyType;

use crate::client::Client;
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

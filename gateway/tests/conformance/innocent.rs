//! A UE that does everything right while others misbehave: its traffic must not notice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Client, Conn};
use crate::lab::{ECHO_PORT, HOME, PATIENCE};
use crate::ue::UeConfig;

/// Packets on their way at once.
const WINDOW: u64 = 8;

/// Pause between two windows.
const PAUSE: Duration = Duration::from_millis(2);

/// The UE on a thread of its own, which exchanges datagrams with the core's echo port until told to stop.
pub struct Innocent {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Report>,
}

/// What the UE saw.
#[derive(Debug)]
pub struct Report {
    pub echoed: u64,
    pub slowest: Duration,
    /// When each window began, and how long it took.
    pub windows: Vec<(Instant, Duration)>,
}

impl Report {
    /// The 99th percentile of the windows that began from `from` to `until`.
    pub fn p99(&self, from: Instant, until: Instant) -> Duration {
        let within = self.windows.iter().filter(|(begun, _)| (from..until).contains(begun));
        let mut took: Vec<Duration> = within.map(|(_, took)| *took).collect();
        took.sort_unstable();
        *took.get(took.len() * 99 / 100).expect("windows in that time")
    }
}

impl Innocent {
    /// Attaches and begins.
    pub fn start(seed: u64) -> Self {
        Self::start_from(seed, (HOME, 0).into())
    }

    pub fn start_from(seed: u64, source: SocketAddr) -> Self {
        let client = Client::attach_on(Conn::open_from(source), UeConfig::new(seed));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        Self { stop, thread: std::thread::spawn(move || exchange(client, &stopped)) }
    }

    /// Ends it. Each packet has come back, once and in order, or the test fails here.
    pub fn finish(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let report = self.thread.join().expect("the innocent UE lost nothing");
        assert!(report.echoed >= WINDOW, "{}", report.echoed);
        assert!(report.slowest < PATIENCE / 4, "{:?}", report.slowest);
        report
    }
}

fn exchange(mut client: Client, stop: &AtomicBool) -> Report {
    let mut report = Report { echoed: 0, slowest: Duration::ZERO, windows: Vec::new() };
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        for number in report.echoed..report.echoed + WINDOW {
            let payload = [&number.to_be_bytes()[..], &[0x5a; 200]].concat();
            let frame = client.frame_to(ECHO_PORT, &payload);
            client.conn.send(&frame);
        }
        for number in report.echoed..report.echoed + WINDOW {
            let payload = client.receive();
            assert_eq!(payload[..8], number.to_be_bytes(), "lost or out of order");
        }
        report.echoed += WINDOW;
        let took = begun.elapsed();
        report.slowest = report.slowest.max(took);
        report.windows.push((begun, took));
        std::thread::sleep(PAUSE);
    }
    report
}

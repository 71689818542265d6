//! Workloads of the laboratory on sockets of the kernel: at two addresses of the loopback, and in two namespaces with an
//! emulated link between them. The latter needs root; it says so and passes without.

#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use loadgen::host::clock::monotonic_ns;
use loadgen::lab::work::{End, Ends, Options, Outcome, Window, Workload, run};
use loadgen::path::{Link, Port, Spec};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Namespaces, is_root};

fn ends() -> Ends {
    let end = |last| End { namespace: None, address: Ipv4Addr::new(127, 0, 0, last) };
    Ends { from: end(2), to: end(3) }
}

fn options() -> Options {
    Options { inner_cc: "cubic".into(), rate_mbit: 2.0, seed: 1 }
}

/// Runs for 0.3 s of warm-up and 1.5 s of window.
fn measure(workload: &str, ends: &Ends, options: &Options) -> std::io::Result<Outcome> {
    let window = Window { begin_ns: monotonic_ns() + 300_000_000, length: Duration::from_millis(1500) };
    let workload: Workload = workload.parse().unwrap();
    run(&workload, ends, window, options)
}

#[test]
fn bulk_and_voice_at_the_same_time() {
    let outcome = measure("bulk-2+voice", &ends(), &options()).unwrap();
    let bulk = outcome.bulk.unwrap();
    assert_eq!(bulk.flows_mbit.len(), 2);
    assert!(bulk.flows_mbit.iter().all(|rate| *rate > 50.0), "{bulk:?}");
    assert!((bulk.flows_mbit.iter().sum::<f64>() - bulk.goodput_mbit).abs() < 0.01);
    assert_eq!((bulk.stalls, bulk.longest_stall_ms), (0, 0.0));

    let voice = outcome.voice.unwrap();
    assert!((74..=76).contains(&voice.sent), "{voice:?}");
    assert_eq!((voice.received, voice.codec.as_str()), (voice.sent, "amr-wb-12.65"));
    assert!(voice.delay_ms.p50 < 5.0 && voice.delay_ms.max < 100.0, "{voice:?}");
    assert!(voice.mos > 4.0 && voice.r > 100.0, "{voice:?}");

    let timeline = outcome.timeline;
    assert_eq!(timeline.len(), 15);
    assert!((timeline[14].at_s - 1.5).abs() < 1e-9);
    let received: Vec<u64> = timeline.iter().map(|tick| tick.inner_received.unwrap()).collect();
    assert!(received.is_sorted() && received[0] > 0);
    let goodput = received[14] as f64 * 8e-6 / 1.5;
    assert!((goodput / bulk.goodput_mbit - 1.0).abs() < 0.1, "{goodput} {}", bulk.goodput_mbit);
    assert!(timeline.iter().filter(|tick| tick.voice_delay_ms.is_some()).count() >= 13);
}

#[test]
fn a_congestion_control_that_is_not_there_is_refused_with_those_that_are() {
    let options = Options { inner_cc: "carrier-pigeon".into(), ..options() };
    let begin = Instant::now();
    let error = measure("bulk", &ends(), &options).unwrap_err().to_string();
    assert!(error.contains("carrier-pigeon") && error.contains("cubic"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[test]
fn short_exchanges_and_mixed_udp_at_the_same_time() {
    let outcome = measure("web+sip+imix+evs", &ends(), &options()).unwrap();
    for exchanges in [outcome.web.unwrap(), outcome.sip.unwrap()] {
        assert!(exchanges.done >= 3 && exchanges.failed == 0, "{exchanges:?}");
        assert!(exchanges.time_ms.p50 < 100.0 && exchanges.time_ms.max < 1000.0, "{exchanges:?}");
    }
    let imix = outcome.imix.unwrap();
    assert!((1.8..2.1).contains(&imix.sent_mbit), "{imix:?}");
    assert!((1.8..2.1).contains(&imix.received_mbit) && imix.lost_pct == 0.0, "{imix:?}");
    // 332 octets on average.
    assert!((1000..1250).contains(&imix.delay_ms.count) && imix.delay_ms.p50 < 5.0, "{imix:?}");
    assert_eq!(outcome.voice.unwrap().codec, "evs-13.2");
    assert!(outcome.bulk.is_none());
    assert!(outcome.timeline.iter().all(|tick| tick.inner_received.is_none()));
}

#[test]
fn registrations_over_tcp() {
    let sip = measure("sip-tcp", &ends(), &options()).unwrap().sip.unwrap();
    assert!(sip.done >= 3 && sip.failed == 0 && sip.time_ms.p50 < 100.0, "{sip:?}");
}

/// Two namespaces with a link between them.
struct Bench {
    ends: Ends,
    link: Option<Link>,
    /// Removed when the link is gone.
    _namespaces: Namespaces,
}

impl Bench {
    /// `specs` are from the first end to the second, and back. `None` when this is not root.
    fn create(name: &str, specs: [&str; 2]) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let namespaces = Namespaces::create(&format!("swwork-{name}"), &["a", "b"]);
        let end = |index: usize, last| {
            let namespace = Some(namespaces.0[index].clone());
            End { namespace, address: Ipv4Addr::new(198, 18, 0, last) }
        };
        let ends = Ends { from: end(0, 1), to: end(1, 2) };
        let mut bench = Self { ends, link: None, _namespaces: namespaces };
        let port = |end: &End| {
            let address = end.address;
            let tun = || Port::tun("path0", 1400, Some(address)).map_err(std::io::Error::other);
            end.open(tun).unwrap()
        };
        let specs = specs.map(|text| {
            let mut spec = Spec::default();
            spec.apply(text).unwrap();
            spec
        });
        bench.link = Some(Link::new([port(&bench.ends.from), port(&bench.ends.to)], specs).unwrap());
        Some(bench)
    }

    /// Runs `workload` over the link; a dead one carries nothing. Returns how long that took, too.
    fn measure(&mut self, workload: &str, alive: bool) -> (Outcome, Duration) {
        let stop = AtomicBool::new(!alive);
        let (ends, link) = (&self.ends, self.link.as_mut().unwrap());
        std::thread::scope(|scope| {
            let carrier = scope.spawn(|| link.run(&stop));
            let begin = Instant::now();
            let outcome = measure(workload, ends, &options());
            stop.store(true, Ordering::Relaxed);
            carrier.join().unwrap().unwrap();
            (outcome.unwrap(), begin.elapsed())
        })
    }
}

#[test]
fn a_call_shows_the_delay_and_the_losses_of_its_way() {
    let Some(mut bench) = Bench::create("call", ["delay=70,loss=20", "delay=10"]) else { return };
    let (outcome, _) = bench.measure("voice+sip", true);
    let voice = outcome.voice.unwrap();
    assert!((70.0..75.0).contains(&voice.delay_ms.p50), "{voice:?}");
    assert!((5.0..40.0).contains(&voice.missed_pct) && voice.longest_gap >= 1, "{voice:?}");
    assert!(voice.received < voice.sent && voice.mos < 3.0, "{voice:?}");
    let worst: Vec<f64> = outcome.timeline.iter().filter_map(|tick| tick.voice_delay_ms).collect();
    assert!(worst.len() >= 10 && worst.iter().all(|ms| *ms >= 70.0), "{worst:?}");
    let sip = outcome.sip.unwrap();
    assert!(sip.done >= 1 && sip.time_ms.p50 >= 80.0, "{sip:?}");
}

#[test]
fn bulk_fills_a_link_and_its_queue() {
    let Some(mut bench) = Bench::create("bulk", ["delay=20,rate=10,queue=100", "delay=20"]) else { return };
    let (outcome, _) = bench.measure("bulk-2+voice", true);
    let bulk = outcome.bulk.unwrap();
    // 1348 of 1400 octets are payload.
    assert!((8.0..9.9).contains(&bulk.goodput_mbit), "{bulk:?}");
    assert!(bulk.retransmits > 0, "{bulk:?}");
    let timeline = outcome.timeline;
    assert!(timeline.iter().is_sorted_by_key(|tick| tick.inner_retransmits));
    let voice = outcome.voice.unwrap();
    assert!(voice.delay_ms.p50 > 40.0 && voice.delay_ms.max < 200.0, "{voice:?}");
}

#[test]
fn a_dead_path_ends_in_time_with_nothing() {
    let Some(mut bench) = Bench::create("dead", ["delay=1", "delay=1"]) else { return };
    let (outcome, took) = bench.measure("bulk-2+voice+web+sip+imix", false);
    // 0.3 s of warm-up, 1.5 s of window, 2 s of grace.
    assert!(took < Duration::from_millis(3800), "{took:?}");
    let bulk = outcome.bulk.unwrap();
    assert_eq!((bulk.goodput_mbit, bulk.flows_mbit, bulk.stalls), (0.0, vec![0.0, 0.0], 1));
    assert_eq!(bulk.longest_stall_ms, 1500.0);
    let voice = outcome.voice.unwrap();
    assert!(voice.sent >= 70, "{voice:?}");
    assert_eq!((voice.received, voice.missed_pct, voice.mos), (0, 100.0, 1.0));
    for exchanges in [outcome.web.unwrap(), outcome.sip.unwrap()] {
        assert!(exchanges.done == 0 && exchanges.failed >= 1, "{exchanges:?}");
    }
    let imix = outcome.imix.unwrap();
    assert_eq!((imix.received_mbit, imix.lost_pct), (0.0, 100.0));
}

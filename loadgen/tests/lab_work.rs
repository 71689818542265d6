//! Workloads of the laboratory on sockets of the kernel, at two addresses of the loopback.

use loadgen::host::clock::monotonic_ns;
use loadgen::lab::work::{End, Ends, Options, Outcome, Window, Workload, run};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

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

//! One UE at full rate beside many that say little: these lose nothing, and wait for little.
//!
//! `SWUGATE_QUIET_UES` sets how many they are; 10,000 take some seconds more.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::queueing::super_packet;
use crate::rig::{CORE, PATIENCE, Peer, Rig, Ue, limits, udp};

/// Quiet UEs unless the environment says otherwise.
const QUIET: u32 = 1000;

/// Packets of each of them.
const ROUNDS: u8 = 3;

/// Time after which no further round begins: a machine with other work makes each wait longer, not fail.
const ROUNDS_MAX: Duration = Duration::from_secs(20);

/// Most that a quiet UE's packet may take, on a machine that does other things too.
const LATENCY_MAX: Duration = Duration::from_millis(1500);

/// What half of them may take at most.
const MEDIAN_MAX: Duration = Duration::from_millis(50);

/// A worker with one greedy UE and many quiet ones, all attached.
struct Crowd {
    rig: Rig,
    greedy: (Ue, Peer),
    quiet: Vec<(Ue, Peer)>,
}

fn quiet_count() -> u32 {
    std::env::var("SWUGATE_QUIET_UES").ok().and_then(|count| count.parse().ok()).unwrap_or(QUIET)
}

impl Crowd {
    fn gather() -> Self {
        let count = quiet_count();
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("readable");
        setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("up to the hard limit");
        let mut limits = limits();
        (limits.connections, limits.connections_per_source) = (count + 8, count + 8);
        // A connection waits for its turn to say something.
        limits.first_message_timeout = Duration::from_secs(120);
        limits.prefix_timeout = Duration::from_secs(120);
        let rig = Rig::with(1, limits);
        let attach = |mut ue: Ue| {
            let mut peer = Peer::connect(&rig, 0);
            peer.send(&ue.frame_to(CORE, b"attach"));
            rig.core_receives(0);
            // Nobody reads the news of it.
            while rig.reports.try_recv().is_some() {}
            (ue, peer)
        };
        let mut all: Vec<(Ue, Peer)> =
            Ue::install_many(&rig, 0, 0, count + 1).into_iter().map(attach).collect();
        let greedy = all.pop().expect("one more than the quiet ones");
        Self { rig, greedy, quiet: all }
    }
}

/// Fails unless the latencies are those of UEs that get their turn.
fn assert_prompt(mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let (median, worst) = (latencies[latencies.len() / 2], latencies[latencies.len() - 1]);
    assert!(median < MEDIAN_MAX && worst < LATENCY_MAX, "half within {median:?}, all within {worst:?}");
}

/// Sends super-packets to `dst` until `stop`.
fn flood_down(core: &UnixDatagram, dst: Ipv4Addr, stop: &AtomicBool) {
    let (virtio, packet) = super_packet(dst, 0, &[7; 60_000]);
    let octets = [&virtio.encode()[..], &packet].concat();
    while !stop.load(Ordering::Relaxed) {
        core.send(&octets).expect("the device takes it");
    }
}

#[test]
fn quiet_ues_get_their_downlink_beside_one_at_full_rate() {
    let Crowd { rig, greedy: (greedy, mut greedy_peer), mut quiet } = Crowd::gather();
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut latencies = Vec::new();
    std::thread::scope(|scope| {
        let core = rig.seats[0].core.try_clone().expect("a descriptor");
        let (stop, received, addr) = (&stop, &received, greedy.addr);
        // Its connection outlives the reading: what is in it at the end is not lost.
        let stream = &mut greedy_peer.stream;
        scope.spawn(move || flood_down(&core, addr, stop));
        scope.spawn(move || {
            let mut sink = vec![0; 1 << 18];
            while !stop.load(Ordering::Relaxed) {
                let len = stream.read(&mut sink).expect("it goes on");
                received.fetch_add(len as u64, Ordering::Relaxed);
            }
        });
        let all_begun = Instant::now();
        for round in (0..ROUNDS).take_while(|_| all_begun.elapsed() < ROUNDS_MAX) {
            for (ue, peer) in &mut quiet {
                let begun = Instant::now();
                rig.to_ue(0, &udp(CORE, ue.addr, &[round; 160]));
                assert!(ue.open(peer.receive()).ends_with(&[round; 160]));
                latencies.push(begun.elapsed());
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_prompt(latencies);
    assert!(received.into_inner() > 1 << 20, "the greedy one was served as well");
    // What was dropped was the greedy one's: nobody else had anything in a queue that was full.
    // The worker still has some of it before it, so each count is looked at by itself.
    let drops = rig.seats[0].counters.drops();
    let others: Vec<_> =
        drops.filter(|(reason, n)| *n > 0 && !["flow_queue_full", "codel"].contains(reason)).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// Ends a writer when the test ends, however it does.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn quiet_ues_get_their_uplink_beside_one_at_full_rate() {
    let Crowd { rig, greedy: (mut greedy, mut greedy_peer), mut quiet } = Crowd::gather();
    let stop = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let mut greedy_packets = 0;
    let mut latencies = Vec::new();
    let addr = greedy.addr;
    // A worker that does not read any more must not keep the writer for ever.
    greedy_peer.stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    std::thread::scope(|scope| {
        let writer = StopOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let burst: Vec<u8> = (0..32).flat_map(|_| greedy.frame_to(CORE, &[7; 1300])).collect();
                greedy_peer.stream.write_all(&burst).expect("it goes on");
                sent.fetch_add(32, Ordering::Relaxed);
            }
        });
        let all_begun = Instant::now();
        for round in (0..ROUNDS).take_while(|_| all_begun.elapsed() < ROUNDS_MAX) {
            for (ue, peer) in &mut quiet {
                // A control thread reads what its workers tell it of active sessions.
                while rig.reports.try_recv().is_some() {}
                let begun = Instant::now();
                peer.send(&ue.frame_to(CORE, &[round; 160]));
                let mine = ue.addr.octets();
                loop {
                    let packet = rig.core_receives(0);
                    if packet[12..16] == mine {
                        assert!(packet.ends_with(&[round; 160]));
                        break;
                    }
                    assert_eq!(packet[12..16], addr.octets());
                    greedy_packets += 1;
                    assert!(begun.elapsed() < PATIENCE, "it never comes");
                }
                latencies.push(begun.elapsed());
            }
        }
        drop(writer);
        // What the greedy one sent arrives too, to the last packet.
        while greedy_packets < sent.load(Ordering::Relaxed) {
            rig.core_receives(0);
            greedy_packets += 1;
        }
    });
    assert_prompt(latencies);
    assert_eq!(rig.all_drops(0), 0);
}

//! A completion queue that is too small for what happens at once.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use gateway::io::block::{Block, BlockPool};
use gateway::io::ring::{Completion, Received, Ring, RingParams, Sleep};
use gateway::io::wake::Wake;

/// Submissions of the ring, whose completion queue has eight times as many places.
const SUBMISSIONS: u32 = 4;

/// Connections, each with more to say than one of those places.
const CONNECTIONS: u32 = 300;

/// Octets that each of them sends and receives.
const OCTETS: usize = 5000;

/// Time for everything.
const PATIENCE: Duration = Duration::from_secs(20);

fn octets(slot: u32) -> Vec<u8> {
    (0..OCTETS).map(|at| (at as u32 * 7 + slot) as u8).collect()
}

/// A ring with all connections open, and their other ends.
fn ring() -> (Ring, Vec<UnixStream>, UnixDatagram) {
    let (device, far) = UnixDatagram::pair().expect("a pair");
    let params = RingParams {
        datagrams: Vec::new(),
        datagram_memory: 0,
        submissions: SUBMISSIONS,
        connections: CONNECTIONS,
        receive_memory: 8 << 20,
        listeners: Vec::new(),
        devices: vec![device.into()],
        wake: Wake::new().expect("an eventfd"),
        zero_copy: None,
    };
    let mut ring = Ring::new(params).expect("a ring");
    let open = |slot| {
        let (near, far) = UnixStream::pair().expect("a pair");
        ring.open(slot, 1, OwnedFd::from(near)).expect("room in the table");
        far
    };
    let peers = (0..CONNECTIONS).map(open).collect();
    (ring, peers, far)
}

/// A block of octets to send.
fn block(pool: &mut BlockPool, octets: &[u8]) -> Block {
    let mut block = pool.take(octets.len(), octets.len()).expect("memory");
    block.room()[..octets.len()].copy_from_slice(octets);
    block.commit(octets.len());
    block
}

#[test]
fn what_overflows_the_completion_queue_is_late_and_not_lost() {
    let (mut ring, mut peers, far) = ring();
    let mut pool = BlockPool::new(16 << 20);
    for (slot, peer) in (0..).zip(&mut peers) {
        peer.write_all(&octets(slot)).expect("room in the socket");
        peer.shutdown(std::net::Shutdown::Write).expect("open");
        ring.arm_receive(slot);
        ring.send(slot, block(&mut pool, &octets(slot)), false);
    }
    far.send(b"the device too").expect("sent");

    let mut received: HashMap<u32, Vec<u8>> = HashMap::new();
    let (mut sent, mut ended, mut device) = (0, 0, false);
    let begun = Instant::now();
    while sent < CONNECTIONS || ended < CONNECTIONS || !device {
        assert!(begun.elapsed() < PATIENCE, "{sent} sent, {ended} ended, device {device}");
        ring.wait(Sleep::AtMost(Duration::from_millis(100))).expect("the ring lives");
        // One at a time, so that the queue stays full for long.
        match ring.complete() {
            Some(Completion::Received { slot, outcome, armed }) => {
                match outcome {
                    Received::Octets(incoming) => {
                        received.entry(slot).or_default().extend(ring.bytes(&incoming));
                        ring.release(incoming);
                        // A full queue ends a receive.
                        if !armed {
                            ring.arm_receive(slot);
                        }
                    }
                    Received::End => ended += 1,
                    other => panic!("slot {slot}: {other:?}"),
                }
            }
            Some(Completion::Sent { slot, block, ok, .. }) => {
                assert!(ok, "slot {slot}");
                block.into_iter().for_each(|block| pool.give_back(block));
                sent += 1;
            }
            Some(Completion::DeviceReadable { .. }) => device = true,
            _ => {}
        }
    }
    assert!(ring.overflows() > 0, "the queue was never too small");
    for (slot, peer) in (0..).zip(&mut peers) {
        assert!(received[&slot] == octets(slot), "slot {slot}: in order and whole");
        let mut downlink = vec![0; OCTETS];
        peer.read_exact(&mut downlink).expect("all of it");
        assert!(downlink == octets(slot), "slot {slot}");
    }
}

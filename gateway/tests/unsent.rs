//! What the kernel does for a socket on a ring: the bound of its unsent octets, and what it tells about its path.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use gateway::io::block::{Block, BlockPool};
use gateway::io::ring::{Completion, Ring, RingParams, Sleep};
use gateway::io::sockets;
use gateway::io::wake::Wake;

/// The bound: what a slow connection has.
const UNSENT_MAX: i32 = 4 << 10;
/// Octets of a block.
const BLOCK: usize = 4 << 10;
/// How long nothing has to happen before the socket counts as full.
const QUIET: Duration = Duration::from_millis(300);

fn ring() -> Ring {
    let (device, _) = UnixDatagram::pair().expect("a pair");
    let params = RingParams {
        datagrams: Vec::new(),
        datagram_memory: 0,
        submissions: 64,
        connections: 4,
        receive_memory: 8 << 20,
        listeners: Vec::new(),
        devices: vec![device.into()],
        wake: Wake::new().expect("an eventfd"),
        zero_copy: None,
    };
    Ring::new(params).expect("a ring")
}

fn block(pool: &mut BlockPool) -> Block {
    let mut block = pool.take(BLOCK, BLOCK).expect("memory");
    block.commit(BLOCK);
    block
}

/// Sends blocks to a peer that reads nothing until the socket takes no more; returns the octets that the kernel took and
/// the peer cannot have.
fn taken_and_unsent(apart: bool) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (mut far, _) = listener.accept().expect("a connection");
    sockets::limit_unsent(near.as_fd(), UNSENT_MAX).expect("an option of TCP");
    let mut ring = ring();
    ring.open(0, 1, OwnedFd::from(near)).expect("room");
    let mut pool = BlockPool::new(16 << 20);
    let mut taken = 0;
    let next = block(&mut pool);
    ring.send(0, next, apart);
    loop {
        ring.wait(Sleep::AtMost(QUIET)).expect("the ring lives");
        match ring.complete() {
            Some(Completion::Sent { ok, block: sent, .. }) => {
                assert!(ok);
                taken += BLOCK;
                sent.into_iter().for_each(|sent| pool.give_back(sent));
                let next = block(&mut pool);
                ring.send(0, next, apart);
            }
            Some(_) => {}
            None => break,
        }
    }
    // What lies at the peer without another octet being let through: a peek makes no room.
    let mut at_peer = vec![0; 64 << 20];
    far.set_read_timeout(Some(QUIET)).expect("an option");
    let there = far.peek(&mut at_peer).expect("something came");
    // The connection works on.
    far.read_exact(&mut at_peer[..there]).expect("what was there");
    taken.saturating_sub(there)
}

#[test]
fn blocks_apart_keep_the_bound_of_unsent_octets() {
    let (together, apart) = (taken_and_unsent(false), taken_and_unsent(true));
    // The bound is looked at before a block, not inside it.
    assert!(apart <= 2 * BLOCK + UNSENT_MAX as usize, "{apart} octets unsent");
    assert!(together > apart, "{together} octets unsent without, {apart} with");
}

/// The second descriptor of a slot's socket, if it comes.
fn watched(ring: &mut Ring, slot: u32) -> Option<OwnedFd> {
    if let Some(socket) = ring.watch(slot) {
        return Some(socket);
    }
    loop {
        ring.wait(Sleep::AtMost(QUIET)).expect("the ring lives");
        match ring.complete() {
            Some(Completion::Watched { slot: of, socket }) => {
                assert_eq!(of, slot);
                return Some(socket);
            }
            Some(_) => {}
            None => return None,
        }
    }
}

#[test]
fn a_watched_connection_tells_of_its_path_and_heeds_a_pace() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (mut far, _) = listener.accept().expect("a connection");
    let mut ring = ring();
    ring.open(0, 1, OwnedFd::from(near.try_clone().expect("a descriptor"))).expect("room");
    let socket = watched(&mut ring, 0).expect("a second descriptor");
    // Both are one connection: what is asked of one was done by the other.
    let before = sockets::path_info(socket.as_fd()).expect("it stands");
    let mut near = near;
    near.write_all(&[1; 10_000]).expect("sent");
    far.read_exact(&mut [0; 10_000]).expect("received");
    let info = sockets::path_info(socket.as_fd()).expect("it stands");
    assert_eq!(info.octets - before.octets, 10_000);
    assert!(info.segments > before.segments && info.arrived > before.arrived);
    assert!(!info.least.is_zero() && info.least <= info.round_trip * 2, "{info:?}");
    // 4 MB at 4 MB/s, less the first segments, of up to 64 KiB here, which the kernel does not pace.
    sockets::limit_pace(socket.as_fd(), Some(4_000_000)).expect("an option");
    let begun = Instant::now();
    let reader = thread::spawn(move || far.read_exact(&mut vec![0; 4_000_000]).map(|()| far));
    near.write_all(&[1; 4_000_000]).expect("sent");
    let mut far = reader.join().expect("no panic").expect("received");
    assert!(begun.elapsed() > Duration::from_millis(300), "{:?}", begun.elapsed());
    sockets::limit_pace(socket.as_fd(), None).expect("an option");
    let begun = Instant::now();
    let reader = thread::spawn(move || far.read_exact(&mut vec![0; 4_000_000]));
    near.write_all(&[1; 4_000_000]).expect("sent");
    reader.join().expect("no panic").expect("received");
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[test]
fn a_slot_that_was_closed_meanwhile_is_not_watched() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let connect =
        || OwnedFd::from(TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens"));
    let mut ring = ring();
    assert!(watched(&mut ring, 0).is_none());
    ring.open(0, 1, connect()).expect("room");
    if ring.watch(0).is_some() {
        // Without direct descriptors there is no meanwhile.
        return;
    }
    ring.close(0);
    ring.open(0, 2, connect()).expect("room");
    ring.wait(Sleep::AtMost(QUIET)).expect("the ring lives");
    while let Some(completion) = ring.complete() {
        assert!(!matches!(completion, Completion::Watched { .. }));
    }
    assert!(watched(&mut ring, 0).is_some());
}

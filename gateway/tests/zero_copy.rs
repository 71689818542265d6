//! Sends without a copy: what arrives, when blocks come back, and what happens where the kernel does not know them.

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use gateway::io::block::{Block, BlockPool};
use gateway::io::ring::{Completion, Ring, RingParams, SUBMISSIONS, Sleep};
use gateway::io::wake::Wake;

/// Octets of a send that is not copied.
const THRESHOLD: usize = 32 * 1024;

/// Time for everything.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    ring: Ring,
    pool: BlockPool,
    /// The other end of the inner device, which never speaks.
    _device: UnixDatagram,
    sent: u32,
    failed: u32,
    blocks_back: u32,
}

impl Bench {
    fn new() -> Self {
        let (device, far) = UnixDatagram::pair().expect("a pair");
        let params = RingParams {
            submissions: SUBMISSIONS,
            connections: 4,
            receive_memory: 1 << 20,
            listeners: Vec::new(),
            datagrams: Vec::new(),
            datagram_memory: 0,
            devices: vec![device.into()],
            wake: Wake::new().expect("an eventfd"),
            zero_copy: Some(THRESHOLD),
        };
        let ring = Ring::new(params).expect("a ring");
        Self { ring, pool: BlockPool::new(8 << 20), _device: far, sent: 0, failed: 0, blocks_back: 0 }
    }

    fn send(&mut self, octets: &[u8]) {
        let block = self.block(octets);
        self.ring.send(0, block, false);
    }

    fn block(&mut self, octets: &[u8]) -> Block {
        let mut block = self.pool.take(octets.len(), octets.len()).expect("memory");
        block.room()[..octets.len()].copy_from_slice(octets);
        block.commit(octets.len());
        block
    }

    fn back(&mut self, mut block: Block) {
        // Whoever still read it would see this.
        block.bytes_mut().fill(0);
        self.blocks_back += 1;
        self.pool.give_back(block);
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(
                begun.elapsed() < PATIENCE,
                "{what}: {} sent, {} blocks back",
                self.sent,
                self.blocks_back
            );
            self.ring.wait(Sleep::AtMost(Duration::from_millis(20))).expect("the ring lives");
            while let Some(completion) = self.ring.complete() {
                match completion {
                    Completion::Sent { ok, block, .. } => {
                        self.sent += u32::from(ok);
                        self.failed += u32::from(!ok);
                        if let Some(block) = block {
                            self.back(block);
                        }
                    }
                    Completion::BlockFree { block } => self.back(block),
                    _ => {}
                }
            }
        }
    }
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    (near, listener.accept().expect("accepted").0)
}

fn octets(round: usize) -> Vec<u8> {
    (0..200_000 + round).map(|at| (at * 7 + round) as u8).collect()
}

#[test]
fn what_is_not_copied_arrives_and_its_block_comes_back() {
    let mut bench = Bench::new();
    let (near, mut far) = tcp();
    bench.ring.open(0, 1, OwnedFd::from(near)).expect("room in the table");
    let reader = std::thread::spawn(move || -> io::Result<()> {
        for round in 0..20 {
            let mut got = vec![0; octets(round).len()];
            far.read_exact(&mut got)?;
            assert!(got == octets(round), "round {round}");
        }
        Ok(())
    });
    for round in 0..20 {
        // The next one leaves when the socket has taken the last, whether or not its block is back.
        bench.send(&octets(round));
        bench.until("sent", |bench| bench.sent as usize == round + 1);
    }
    reader.join().expect("all whole").expect("read");
    bench.until("all blocks", |bench| bench.blocks_back == 20);
    assert!(bench.ring.zero_copy_usage().sends >= 20);
    // What is small is copied.
    bench.send(&[1; 100]);
    bench.until("sent", |bench| bench.sent == 21 && bench.blocks_back == 21);
}

#[test]
fn a_block_is_not_used_again_while_the_peer_does_not_read() {
    let mut bench = Bench::new();
    let (near, mut far) = tcp();
    bench.ring.open(0, 1, OwnedFd::from(near)).expect("room in the table");
    bench.send(&octets(0));
    bench.until("stopped", {
        let begun = Instant::now();
        move |_| begun.elapsed() > Duration::from_millis(200)
    });
    let mut got = vec![0; octets(0).len()];
    far.read_exact(&mut got).expect("all of it");
    assert!(got == octets(0));
    bench.until("the block", |bench| bench.blocks_back == 1);
}

#[test]
fn a_connection_that_is_stopped_gives_its_block_back() {
    let mut bench = Bench::new();
    let (near, far) = tcp();
    bench.ring.open(0, 1, OwnedFd::from(near)).expect("room in the table");
    // More than both sockets hold: the sends cannot end.
    let mut rounds = 0;
    while bench.sent == rounds {
        bench.send(&octets(0));
        rounds += 1;
        let begun = Instant::now();
        bench.until("sent or stuck", |bench| {
            bench.sent == rounds || begun.elapsed() > Duration::from_millis(300)
        });
        assert!(rounds < 30, "loopback sockets hold a few megabytes");
    }
    bench.ring.stop(0);
    bench.until("failed", |bench| bench.failed == 1);
    bench.ring.close(0);
    drop(far);
    bench.until("all blocks", |bench| bench.blocks_back == rounds);
}

#[test]
fn a_socket_that_cannot_is_sent_to_by_copy() {
    let mut bench = Bench::new();
    let (near, mut far) = UnixStream::pair().expect("a pair");
    bench.ring.open(0, 1, OwnedFd::from(near)).expect("room in the table");
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; octets(3).len()];
        far.read_exact(&mut got).map(|()| got == octets(3))
    });
    bench.send(&octets(3));
    bench.until("sent", |bench| bench.sent == 1 && bench.blocks_back == 1);
    assert!(reader.join().expect("no panic").expect("read"));
    assert_eq!(bench.ring.zero_copy_usage().sends, 0);
}

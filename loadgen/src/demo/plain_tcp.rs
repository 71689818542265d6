//! Plain TCP through the same link, between the same cores, in the same run: what the path itself can do.

use super::topology::{PLAIN, Topology};
use crate::error::Failure;
use crate::report::SinkSection;
use nix::time::{ClockId, clock_gettime};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Octets of one write and of one read.
const CHUNK_LEN: usize = 256 << 10;

/// Pushes octets from the UE side to a receiver on the gateway's core.
pub(super) fn measure(
    topology: &Topology,
    gateway_core: usize,
    load_core: usize,
    duration: Duration,
) -> Result<SinkSection, Failure> {
    let io = |error: std::io::Error| Failure::Environment(format!("plain TCP comparison: {error}"));
    let (listening, ready) = mpsc::channel();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || -> Result<SinkSection, Failure> {
            topology.gateway.enter(gateway_core)?;
            let listener = TcpListener::bind(PLAIN).map_err(io)?;
            let _ = listening.send(());
            let (stream, _) = listener.accept().map_err(io)?;
            receive(stream).map_err(io)
        });
        if ready.recv().is_ok() {
            let sender = scope.spawn(move || -> Result<(), Failure> {
                topology.ue.enter(load_core)?;
                send(duration).map_err(io)
            });
            sender.join().unwrap_or_else(|_| Err(Failure::Check("the plain TCP sender panicked".into())))?;
        }
        receiver.join().unwrap_or_else(|_| Err(Failure::Check("the plain TCP receiver panicked".into())))
    })
}

fn send(duration: Duration) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(PLAIN)?;
    let chunk = vec![0x5a; CHUNK_LEN];
    let begun_at = Instant::now();
    while begun_at.elapsed() < duration {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

fn receive(mut stream: TcpStream) -> std::io::Result<SinkSection> {
    let mut chunk = vec![0; CHUNK_LEN];
    let begun_at = Instant::now();
    let cpu_before = thread_cpu_s();
    let mut total = 0_u64;
    loop {
        match stream.read(&mut chunk)? {
            0 => break,
            len => total += len as u64,
        }
    }
    let cpu_s = thread_cpu_s() - cpu_before;
    Ok(SinkSection {
        bits_per_s: total as f64 * 8.0 / begun_at.elapsed().as_secs_f64(),
        cpu_s_per_gb: cpu_s / (total.max(1) as f64 / 1e9),
    })
}

fn thread_cpu_s() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux always has the thread's clock");
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

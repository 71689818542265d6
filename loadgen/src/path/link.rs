//! Two pipes between two ports.

use super::pipe::{Counters, Pipe};
use super::port::Port;
use super::spec::Spec;
use crate::error::Failure;
use crate::host::clock::monotonic_ns;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl;
use nix::sys::time::{TimeSpec, TimeValLike};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// Packets taken from one port before the other has its turn.
const BATCH: usize = 32;
/// Longest sleep, in nanoseconds, after which the end may have been asked for.
const SLEEP_MAX_NS: u64 = 50_000_000;
/// Longest frame.
const FRAME_MAX: usize = 64 + u16::MAX as usize;

/// A link: pipe 0 goes from port 0 to port 1, pipe 1 back.
pub struct Link {
    ports: [Port; 2],
    pipes: [Pipe; 2],
    /// Packets that the kernel refused at the other end, per pipe.
    refused: [u64; 2],
}

impl Link {
    /// Joins two ports; `specs` are from the first to the second, and back.
    ///
    /// # Errors
    /// [`Failure::Usage`] when one is Ethernet and the other is not.
    pub fn new(ports: [Port; 2], specs: [Spec; 2]) -> Result<Self, Failure> {
        let header_len = ports[0].header_len();
        if header_len != ports[1].header_len() {
            return Err(Failure::Usage(
                "one end is an Ethernet interface, the other would be a TUN device: two of a kind are wanted"
                    .into(),
            ));
        }
        let pipes = specs.map(|spec| Pipe::new(spec, header_len));
        Ok(Self { ports, pipes, refused: [0; 2] })
    }

    /// Carries packets until `stop`.
    ///
    /// # Errors
    /// An interface is gone.
    pub fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        // Wake-ups to the microsecond instead of within 50 us; without it delays are a little longer.
        let _ = prctl::set_timerslack(1);
        let mut buffer = vec![0; FRAME_MAX];
        while !stop.load(Ordering::Relaxed) {
            let mut busy = false;
            for side in 0..2 {
                busy |= self.take_in(side, &mut buffer)?;
                self.send_due(side);
            }
            if !busy {
                self.wait()?;
            }
        }
        Ok(())
    }

    /// Returns what happened so far, from the first port to the second and back.
    pub fn counters(&self) -> [Counters; 2] {
        [self.pipes[0].counters(), self.pipes[1].counters()]
    }

    /// Returns the packets that the kernel refused at their end.
    pub fn refused(&self) -> [u64; 2] {
        self.refused
    }

    /// Returns the packets still inside.
    pub fn held(&self) -> [usize; 2] {
        [self.pipes[0].held(), self.pipes[1].held()]
    }

    /// Takes the link apart; packets inside are gone.
    pub fn into_ports(self) -> [Port; 2] {
        self.ports
    }

    /// Moves packets of a port into its pipe; says whether there may be more.
    fn take_in(&mut self, side: usize, buffer: &mut [u8]) -> io::Result<bool> {
        for _ in 0..BATCH {
            let Some(packet) = self.ports[side].receive(buffer)? else { return Ok(false) };
            self.pipes[side].push(monotonic_ns(), packet);
        }
        Ok(true)
    }

    fn send_due(&mut self, side: usize) {
        while let Some(packet) = self.pipes[side].pop(monotonic_ns()) {
            if !self.ports[1 - side].send(&packet) {
                self.refused[side] += 1;
            }
        }
    }

    /// Sleeps until a packet comes or is due.
    fn wait(&self) -> io::Result<()> {
        let now_ns = monotonic_ns();
        let due_ns = self.pipes.iter().filter_map(Pipe::next_due_ns).min();
        let sleep_ns = due_ns.map_or(SLEEP_MAX_NS, |due_ns| due_ns.saturating_sub(now_ns).min(SLEEP_MAX_NS));
        if sleep_ns == 0 {
            return Ok(());
        }
        let mut files = [0, 1].map(|side: usize| PollFd::new(self.ports[side].as_fd(), PollFlags::POLLIN));
        match ppoll(&mut files, Some(TimeSpec::nanoseconds(sleep_ns as i64)), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

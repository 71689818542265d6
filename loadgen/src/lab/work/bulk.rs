//! Bulk TCP: flows that always have more to send.
//!
//! Octets count when the receiver reads them inside the window. What is still queued at the end is thrown away, so that
//! it does not disturb what runs next.

use super::tcp;
use super::{Ends, Window};
use crate::host::clock::{monotonic_ns, sleep_until};
use crate::host::socket::is_timeout;
use crate::host::tcp_info::TcpInfos;
use crate::lab::results::Bulk;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A time without a single octet is a stall from this length.
const STALL_NS: u64 = 200_000_000;
/// Octets of one write and of one read.
const CHUNK: usize = 128 << 10;

/// What is known while flows run, since the window began.
pub struct Live {
    received: AtomicU64,
    senders: Mutex<Senders>,
    /// Retransmits of the warm-up.
    before: AtomicU64,
}

struct Senders {
    /// Asks the kernel about the connections of their namespace.
    infos: TcpInfos,
    /// Kept open, and so known to the kernel, until all is over.
    streams: Vec<TcpStream>,
    ports: Vec<u16>,
}

impl Live {
    /// Payload octets that receivers have read.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Segments that the senders have sent again.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn retransmits(&self) -> io::Result<u64> {
        Ok(self.all_retransmits()?.saturating_sub(self.before.load(Ordering::Relaxed)))
    }

    fn all_retransmits(&self) -> io::Result<u64> {
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = senders.infos.established()?;
        let own = connections.iter().filter(|connection| senders.ports.contains(&connection.local_port));
        Ok(own.map(|connection| connection.retransmits).sum())
    }

    fn add(&self, sender: &TcpStream) -> io::Result<()> {
        let (stream, port) = (sender.try_clone()?, sender.local_addr()?.port());
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.streams.push(stream);
        senders.ports.push(port);
        Ok(())
    }
}

/// Flows that are about to run.
pub struct Flows {
    ends: Ends,
    window: Window,
    count: usize,
    congestion: String,
    listener: TcpListener,
    live: Arc<Live>,
    arrivals: Mutex<Arrivals>,
}

impl Flows {
    /// Prepares `count` flows from `ends.from` to `ends.to`.
    ///
    /// # Errors
    /// When sockets are refused; when the kernel does not offer `congestion`, with those it offers.
    pub fn open(ends: &Ends, window: Window, count: usize, congestion: &str) -> io::Result<Self> {
        let infos =
            ends.from.open(|| TcpInfos::open().map_err(|failure| io::Error::other(failure.to_string())))?;
        let senders = Senders { infos, streams: Vec::new(), ports: Vec::new() };
        let live = Live { received: 0.into(), senders: senders.into(), before: 0.into() };
        Ok(Self {
            ends: ends.clone(),
            window,
            count,
            congestion: congestion.to_owned(),
            listener: tcp::listen(&ends.to, congestion)?,
            live: live.into(),
            arrivals: Mutex::new(Arrivals::new(window)),
        })
    }

    /// Returns what a sampler reads while they run.
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// Runs them until the end of the window. A flow that never connects has rate 0.
    ///
    /// # Errors
    /// Those of sockets other than of the path.
    pub fn run(self) -> io::Result<Bulk> {
        let address = SocketAddr::from((self.ends.to.address, self.listener.local_addr()?.port()));
        let (flows, retransmits) = std::thread::scope(|scope| {
            let receivers: Vec<_> = (0..self.count).map(|_| scope.spawn(|| self.receive())).collect();
            for _ in 0..self.count {
                scope.spawn(|| self.send(address));
            }
            sleep_until(self.window.begin_ns);
            let before = self.live.all_retransmits();
            self.live.before.store(*before.as_ref().unwrap_or(&0), Ordering::Relaxed);
            sleep_until(self.window.end_ns());
            let retransmits = before.and_then(|_| self.live.retransmits());
            let flows: Vec<u64> = receivers.into_iter().map(|flow| flow.join().unwrap_or(0)).collect();
            (flows, retransmits)
        });
        let (stalls, longest_ns) =
            self.arrivals.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
        let mbit = |octets: u64| octets as f64 * 8e-6 / self.window.length.as_secs_f64();
        Ok(Bulk {
            goodput_mbit: mbit(flows.iter().sum()),
            flows_mbit: flows.into_iter().map(mbit).collect(),
            retransmits: retransmits?,
            stalls,
            longest_stall_ms: longest_ns as f64 / 1e6,
        })
    }

    /// Sends on one connection; that it cannot is seen at the receiver.
    fn send(&self, address: SocketAddr) {
        let end_ns = self.window.end_ns();
        let Some(mut stream) = self.connect(address, end_ns) else { return };
        let chunk = vec![0; CHUNK];
        while monotonic_ns() < end_ns {
            match stream.write(&chunk) {
                Ok(_) => {}
                Err(error) if is_timeout(&error) => {}
                Err(_) => break,
            }
        }
        // Closes with a reset: what is queued must not come after the end.
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }

    /// Connects however often it takes until `end_ns`.
    fn connect(&self, address: SocketAddr, end_ns: u64) -> Option<TcpStream> {
        while monotonic_ns() < end_ns {
            match tcp::connect(&self.ends.from, address, &self.congestion, end_ns) {
                Ok(stream) => return self.live.add(&stream).ok().map(|()| stream),
                Err(_) => std::thread::sleep(tcp::LOOK),
            }
        }
        None
    }

    /// Receives one connection and returns its octets inside the window.
    fn receive(&self) -> u64 {
        let end_ns = self.window.end_ns();
        let Some(mut stream) = self.accept(end_ns) else { return 0 };
        let (mut buffer, mut octets) = (vec![0; CHUNK], 0);
        while monotonic_ns() < end_ns {
            let len = match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if is_timeout(&error) => continue,
                Err(_) => break,
            };
            let now_ns = monotonic_ns();
            if self.window.contains(now_ns) {
                octets += len as u64;
                self.live.received.fetch_add(len as u64, Ordering::Relaxed);
                self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).came(now_ns);
            }
        }
        octets
    }

    fn accept(&self, end_ns: u64) -> Option<TcpStream> {
        while monotonic_ns() < end_ns {
            match self.listener.accept() {
                Ok((stream, _)) => return tcp::limit(stream).ok(),
                Err(error) if is_timeout(&error) => {}
                Err(_) => std::thread::sleep(tcp::LOOK),
            }
        }
        None
    }
}

/// When octets of any flow came; the window's begin and end count as such moments.
#[derive(Debug)]
struct Arrivals {
    last_ns: u64,
    end_ns: u64,
    stalls: u64,
    longest_ns: u64,
}

impl Arrivals {
    fn new(window: Window) -> Self {
        Self { last_ns: window.begin_ns, end_ns: window.end_ns(), stalls: 0, longest_ns: 0 }
    }

    fn came(&mut self, at_ns: u64) {
        let gap_ns = at_ns.saturating_sub(self.last_ns);
        if gap_ns >= STALL_NS {
            self.stalls += 1;
            self.longest_ns = self.longest_ns.max(gap_ns);
        }
        self.last_ns = self.last_ns.max(at_ns);
    }

    /// Returns how many stalls there were, and the longest.
    fn finish(mut self) -> (u64, u64) {
        self.came(self.end_ns);
        (self.stalls, self.longest_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn stalls(at_ms: &[u64]) -> (u64, u64) {
        let window = Window { begin_ns: 1000 * MS, length: Duration::from_secs(1) };
        let mut arrivals = Arrivals::new(window);
        at_ms.iter().for_each(|ms| arrivals.came((1000 + ms) * MS));
        arrivals.finish()
    }

    #[test]
    fn a_stall_is_200_ms_without_an_octet_also_at_the_edges() {
        assert_eq!(stalls(&[100, 299, 498, 600, 799, 900]), (0, 0));
        assert_eq!(stalls(&[100, 300, 400, 500, 600, 700, 850]), (1, 200 * MS));
        assert_eq!(stalls(&[250, 300, 400, 500, 600]), (2, 400 * MS));
        assert_eq!(stalls(&[]), (1, 1000 * MS));
        // Two readers may tell in the other order.
        assert_eq!(stalls(&[150, 140, 300, 450, 600, 750, 900]), (0, 0));
    }
}

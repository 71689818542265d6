//! Short flows: a connection, a small request, an answer of 10 to 100 KB; one after another with pauses.

use super::{Ends, Window, exchange, tcp};
use crate::lab::results::Exchanges;
use crate::path::random::Random;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// Octets of an answer: all between are as likely.
const ANSWER_MIN: f64 = 10e3;
const ANSWER_MAX: f64 = 100e3;
/// Pause after an answer, in seconds.
const PAUSE_MIN_S: f64 = 0.05;
const PAUSE_MAX_S: f64 = 0.25;
/// A reader has gone by then.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Name of the header that asks for a length.
const LENGTH: &str = "X-Answer-Length: ";
/// What a browser adds to a request, in octets.
const COOKIE_LEN: usize = 200;

/// A reader that is about to begin.
#[derive(Debug)]
pub struct Reader {
    ends: Ends,
    window: Window,
    congestion: String,
    seed: u64,
    listener: TcpListener,
}

impl Reader {
    /// Prepares a reader at `ends.to` and its server at `ends.from`; `seed` decides sizes and pauses.
    ///
    /// # Errors
    /// When sockets or the congestion control are refused.
    pub fn open(ends: &Ends, window: Window, congestion: &str, seed: u64) -> io::Result<Self> {
        let (ends, listener) = (ends.clone(), tcp::listen(&ends.from, congestion)?);
        Ok(Self { ends, window, congestion: congestion.to_owned(), seed, listener })
    }

    /// Reads until the end of the window. A time is from the begin of connecting to the last octet.
    ///
    /// # Errors
    /// Those of sockets other than of the path.
    pub fn run(self) -> io::Result<Exchanges> {
        let address = SocketAddr::from((self.ends.from.address, self.listener.local_addr()?.port()));
        let until_ns = self.window.drained_ns();
        let (mut sizes, mut pauses) = (Random::new(self.seed, 1), Random::new(self.seed, 2));
        let between = |random: &mut Random, min: f64, max: f64| min + (max - min) * random.unit();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                exchange::serve(&self.listener, until_ns, |request| vec![b'x'; asked_for(request)]);
            });
            let pause = || Duration::from_secs_f64(between(&mut pauses, PAUSE_MIN_S, PAUSE_MAX_S));
            Ok(exchange::repeat(self.window, TIMEOUT, pause, |deadline_ns| {
                let len = between(&mut sizes, ANSWER_MIN, ANSWER_MAX) as usize;
                let is_whole = |answer: &[u8]| answer.len() >= len;
                let client = &self.ends.to;
                exchange::ask(client, address, &self.congestion, &request(len), is_whole, deadline_ns)
            }))
        })
    }
}

fn request(len: usize) -> Vec<u8> {
    let cookie = "c".repeat(COOKIE_LEN);
    format!("GET /page HTTP/1.1\r\nHost: lab.example\r\nCookie: {cookie}\r\n{LENGTH}{len}\r\n\r\n")
        .into_bytes()
}

/// Returns the length that a request asks for; nothing for one that does not.
fn asked_for(request: &[u8]) -> usize {
    let text = String::from_utf8_lossy(request);
    let length = text.lines().find_map(|line| line.strip_prefix(LENGTH)?.parse().ok());
    length.filter(|len| *len <= ANSWER_MAX as usize).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_gives_what_was_asked_for_within_reason() {
        assert_eq!(asked_for(&request(12_345)), 12_345);
        assert_eq!(asked_for(&request(100_001)), 0);
        assert_eq!(asked_for(b"GET / HTTP/1.1\r\n\r\n"), 0);
        assert!(exchange::is_complete(&request(1)) && request(1).len() < 500);
    }
}

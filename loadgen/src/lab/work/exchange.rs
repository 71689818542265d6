//! Requests and answers, one after another: how they are counted, and how they go over a TCP connection each.

use super::tcp;
use super::{End, Window};
use crate::host::clock::{monotonic_ns, sleep_until};
use crate::host::socket::is_timeout;
use crate::lab::results::{Exchanges, Summary};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// An exchange that the end cuts off has failed if it took so long already. A shorter one might have ended well.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest request.
const REQUEST_MAX: usize = 8 << 10;
/// A blank line ends a request, and an answer of SIP.
const BLANK: &[u8] = b"\r\n\r\n";

/// Whether a message has its blank line.
pub(super) fn is_complete(message: &[u8]) -> bool {
    message.ends_with(BLANK)
}

/// Makes exchanges while the window lasts, with a pause after each. None begins in the warm-up: one that hangs from there
/// on would not be seen.
///
/// `once` makes one until its deadline and returns when it was done, by [`monotonic_ns`].
pub(super) fn repeat(
    window: Window,
    timeout: Duration,
    mut pause: impl FnMut() -> Duration,
    mut once: impl FnMut(u64) -> Option<u64>,
) -> Exchanges {
    let (mut times_ms, mut failed) = (Vec::new(), 0);
    let last_ns = window.drained_ns();
    sleep_until(window.begin_ns);
    loop {
        let begin_ns = monotonic_ns();
        if begin_ns >= window.end_ns() {
            break;
        }
        let deadline_ns = begin_ns + timeout.as_nanos() as u64;
        let done = once(deadline_ns.min(last_ns));
        let took_ns = done.unwrap_or_else(monotonic_ns).saturating_sub(begin_ns);
        let nothing_yet = times_ms.is_empty() && failed == 0;
        let cut_early = monotonic_ns() >= last_ns && took_ns < PATIENCE.as_nanos() as u64;
        match done {
            Some(_) => times_ms.push(took_ns as f64 / 1e6),
            // Of a path that is dead all the time there is at least this one.
            None => failed += u64::from(!cut_early || nothing_yet),
        }
        let left_ns = window.end_ns().saturating_sub(monotonic_ns());
        std::thread::sleep(pause().min(Duration::from_nanos(left_ns)));
    }
    Exchanges { done: times_ms.len() as u64, failed, time_ms: Summary::of(times_ms) }
}

/// Makes one exchange on a connection of its own; returns when the last octet came.
pub(super) fn ask(
    client: &End,
    server: SocketAddr,
    congestion: &str,
    request: &[u8],
    is_whole: impl Fn(&[u8]) -> bool,
    deadline_ns: u64,
) -> Option<u64> {
    let mut stream = tcp::connect(client, server, congestion, deadline_ns).ok()?;
    write(&mut stream, request, deadline_ns)?;
    read(&mut stream, usize::MAX, is_whole, deadline_ns).map(|_| monotonic_ns())
}

/// Answers what comes to `listener` until `until_ns`. A connection that fails is closed: its client will see.
pub(super) fn serve(listener: &TcpListener, until_ns: u64, answer: impl Fn(&[u8]) -> Vec<u8> + Sync) {
    let answer = &answer;
    std::thread::scope(|scope| {
        while monotonic_ns() < until_ns {
            match listener.accept() {
                Ok((stream, _)) => {
                    scope.spawn(move || serve_one(stream, until_ns, answer));
                }
                Err(error) if is_timeout(&error) => {}
                Err(_) => std::thread::sleep(tcp::LOOK),
            }
        }
    });
}

fn serve_one(stream: TcpStream, until_ns: u64, answer: &impl Fn(&[u8]) -> Vec<u8>) -> Option<()> {
    let mut stream = tcp::limit(stream).ok()?;
    let request = read(&mut stream, REQUEST_MAX, is_complete, until_ns)?;
    write(&mut stream, &answer(&request), until_ns)?;
    // The client closes first, so that the connection does not linger here.
    read(&mut stream, REQUEST_MAX, |_| false, until_ns).map(|_| ())
}

/// Reads until the message is whole; `None` when it never is.
fn read(
    stream: &mut TcpStream,
    len_max: usize,
    is_whole: impl Fn(&[u8]) -> bool,
    deadline_ns: u64,
) -> Option<Vec<u8>> {
    let (mut message, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    while monotonic_ns() < deadline_ns && message.len() < len_max {
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(len) => message.extend_from_slice(&buffer[..len]),
            Err(error) if is_timeout(&error) => continue,
            Err(_) => return None,
        }
        if is_whole(&message) {
            return Some(message);
        }
    }
    None
}

fn write(stream: &mut TcpStream, mut message: &[u8], deadline_ns: u64) -> Option<()> {
    while !message.is_empty() {
        if monotonic_ns() >= deadline_ns {
            return None;
        }
        match stream.write(message) {
            Ok(len) => message = &message[len..],
            Err(error) if is_timeout(&error) => {}
            Err(_) => return None,
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(begin_ms: i64, length_ms: u64) -> Window {
        let begin_ns = monotonic_ns().saturating_add_signed(begin_ms * 1_000_000);
        Window { begin_ns, length: Duration::from_millis(length_ms) }
    }

    #[test]
    fn nothing_begins_in_the_warm_up() {
        let window = window(100, 200);
        let mut first_ns = u64::MAX;
        let pause = || Duration::from_millis(20);
        let exchanges = repeat(window, Duration::from_secs(1), pause, |_| {
            first_ns = first_ns.min(monotonic_ns());
            Some(monotonic_ns())
        });
        assert!(first_ns >= window.begin_ns);
        assert!((1..=10).contains(&exchanges.done) && exchanges.failed == 0, "{exchanges:?}");
    }

    #[test]
    fn timeouts_fail_and_so_does_a_path_that_is_dead_all_the_time() {
        let wait = |deadline_ns| {
            sleep_until(deadline_ns);
            None
        };
        let exchanges = repeat(window(0, 200), Duration::from_millis(50), || Duration::ZERO, wait);
        assert!((2..=4).contains(&exchanges.failed) && exchanges.done == 0, "{exchanges:?}");
        // Cut off by the end, and the only one.
        let exchanges = repeat(window(0, 50), Duration::from_secs(60), || Duration::ZERO, wait);
        assert_eq!((exchanges.done, exchanges.failed), (0, 1));
        // Cut off by the end after one that went well: nobody knows.
        let mut first = true;
        let exchanges = repeat(
            window(0, 50),
            Duration::from_secs(60),
            || Duration::ZERO,
            |deadline_ns| {
                if std::mem::take(&mut first) { Some(monotonic_ns()) } else { wait(deadline_ns) }
            },
        );
        assert_eq!((exchanges.done, exchanges.failed), (1, 0));
    }
}

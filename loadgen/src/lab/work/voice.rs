//! A call: RTP both ways, a frame every 20 ms, without pauses of the speakers.

use super::datagram::{self, EXPEDITED, Receiver};
use super::emodel::Codec;
use super::{Ends, Window, playout};
use crate::host::clock::{monotonic_ns, sleep_until};
use crate::lab::results::Voice;
use nix::sys::prctl;
use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Time between frames.
const FRAME_NS: u64 = 20_000_000;
/// Ticks of the RTP clock between frames: 16 kHz.
const FRAME_TICKS: u32 = 320;
/// RTP header without extras.
const RTP_LEN: usize = 12;
/// Payload type of a codec without a number of its own.
const PAYLOAD_TYPE: u8 = 104;

/// What is known while a call runs.
#[derive(Debug, Default)]
pub struct Live {
    worst_ns: AtomicU64,
}

impl Live {
    /// Returns the worst delay of the frames that came since it was asked last; `None` when none came.
    pub fn take_worst_ms(&self) -> Option<f64> {
        let worst_ns = self.worst_ns.swap(0, Ordering::Relaxed);
        (worst_ns > 0).then_some(worst_ns as f64 / 1e6)
    }
}

/// A call that is about to begin.
#[derive(Debug)]
pub struct Call {
    codec: Codec,
    window: Window,
    sockets: [UdpSocket; 2],
    live: Arc<Live>,
}

impl Call {
    /// Prepares a call between the ends.
    ///
    /// # Errors
    /// When sockets are refused.
    pub fn open(ends: &Ends, window: Window, codec: Codec) -> io::Result<Self> {
        let sockets = datagram::pair(ends, EXPEDITED)?;
        Ok(Self { codec, window, sockets, live: Arc::default() })
    }

    /// Returns what a sampler reads while it runs.
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// Talks until the end of the window and returns what was heard at `ends.to` of the frames sent inside it.
    ///
    /// # Errors
    /// Those of sockets other than of the path.
    pub fn run(self) -> io::Result<Voice> {
        let [from, to] = &self.sockets;
        std::thread::scope(|scope| {
            let heard = scope.spawn(|| self.hear(to, Some(&self.live)));
            let back = scope.spawn(|| self.hear(from, None));
            scope.spawn(|| self.talk(to, 2));
            let sent = self.talk(from, 1);
            let panicked = || io::Error::other("a receiver of voice panicked");
            back.join().map_err(|_| panicked())??;
            let heard = heard.join().map_err(|_| panicked())??;
            Ok(playout::assess(self.codec, &delays_ms(&heard, &sent)))
        })
    }

    /// Sends frames until the end and returns the numbers of those inside the window.
    fn talk(&self, socket: &UdpSocket, source: u32) -> Range<usize> {
        let _ = prctl::set_timerslack(1);
        let mut frame = vec![0; RTP_LEN + self.codec.payload_len()];
        let start_ns = monotonic_ns();
        let mut inside = 0..0;
        for number in 0_u32.. {
            sleep_until(start_ns + u64::from(number) * FRAME_NS);
            write_header(&mut frame, number, source);
            let now_ns = monotonic_ns();
            if now_ns >= self.window.end_ns() {
                break;
            }
            let at = number as usize;
            if self.window.contains(now_ns) {
                inside = if inside.is_empty() { at..at + 1 } else { inside.start..at + 1 };
            }
            frame[RTP_LEN + 4..RTP_LEN + 12].copy_from_slice(&now_ns.to_be_bytes());
            datagram::send_now(socket, &frame);
        }
        inside
    }

    /// Returns the delay in nanoseconds of every frame by its number, 0 for those that did not come.
    fn hear(&self, socket: &UdpSocket, live: Option<&Live>) -> io::Result<Vec<u64>> {
        let until_ns = self.window.drained_ns();
        // All that can be sent until then.
        let most = (until_ns.saturating_sub(monotonic_ns()) / FRAME_NS) as usize + 2;
        let (mut delays_ns, mut receiver) = (vec![0; most], Receiver::new(socket));
        while monotonic_ns() < until_ns {
            let Some((frame, at_ns)) = receiver.receive()? else { continue };
            let Some((number, sent_ns)) = read_header(frame) else { continue };
            let Some(delay) = delays_ns.get_mut(number as usize) else { continue };
            // A copy of a frame is of no use.
            if *delay == 0 {
                *delay = at_ns.saturating_sub(sent_ns).max(1);
                if let Some(live) = live {
                    live.worst_ns.fetch_max(*delay, Ordering::Relaxed);
                }
            }
        }
        Ok(delays_ns)
    }
}

fn delays_ms(heard_ns: &[u64], sent: &Range<usize>) -> Vec<Option<f64>> {
    let delay = |number| heard_ns.get(number).copied().filter(|delay_ns| *delay_ns > 0);
    sent.clone().map(|number| delay(number).map(|delay_ns| delay_ns as f64 / 1e6)).collect()
}

/// Writes the RTP header of RFC 3550, §5.1, and the number in full, since that of RTP has 16 bits.
fn write_header(frame: &mut [u8], number: u32, source: u32) {
    frame[0] = 2 << 6;
    frame[1] = PAYLOAD_TYPE;
    frame[2..4].copy_from_slice(&(number as u16).to_be_bytes());
    frame[4..8].copy_from_slice(&number.wrapping_mul(FRAME_TICKS).to_be_bytes());
    frame[8..12].copy_from_slice(&source.to_be_bytes());
    frame[RTP_LEN..RTP_LEN + 4].copy_from_slice(&number.to_be_bytes());
}

/// Returns the number of a frame and when it was sent.
fn read_header(frame: &[u8]) -> Option<(u32, u64)> {
    let number = frame.get(RTP_LEN..RTP_LEN + 4)?.try_into().ok()?;
    let sent_ns = frame.get(RTP_LEN + 4..RTP_LEN + 12)?.try_into().ok()?;
    Some((u32::from_be_bytes(number), u64::from_be_bytes(sent_ns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_keep_their_number_beyond_that_of_rtp() {
        let mut frame = [0; RTP_LEN + 33];
        write_header(&mut frame, 70_000, 7);
        frame[RTP_LEN + 4..RTP_LEN + 12].copy_from_slice(&42_u64.to_be_bytes());
        assert_eq!(read_header(&frame), Some((70_000, 42)));
        assert_eq!(frame[..4], [0x80, 104, 0x11, 0x70]);
        assert_eq!(read_header(&frame[..20]), None);
    }

    #[test]
    fn frames_that_did_not_come_are_none() {
        let delays = delays_ms(&[0, 5_000_000, 0, 1], &(1..5));
        assert_eq!(delays, [Some(5.0), None, Some(1e-6), None]);
    }
}

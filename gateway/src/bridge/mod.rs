//! What relay and originate have in common: one leg is a stream of RFC 9329, the other is UDP.
//!
//! Neither holds a key. IKE on UDP is made reliable by retransmission (RFC 7296 §2.1), on TCP it must not be
//! retransmitted while the connection lives (RFC 9329 §6.2). A bridge therefore ends the one and starts the
//! other: [`Exchanges`] knows which requests are unanswered, resends them on the UDP leg, repeats them on a
//! new connection, and stops everybody else's repetitions. [`FrameStream`] is the TCP leg.

mod exchanges;
mod message;
mod run;
mod stream;

pub use exchanges::{Dropped, Exchanges, Leg, Verdict};
#[cfg(test)]
pub(crate) use message::tests;
pub use message::{Fragment, MessageInfo};
pub use run::{PacketRun, Sent, send_one};
pub use stream::{FrameStream, Queued, ReadEnd, STREAM_FRAMES_MAX};

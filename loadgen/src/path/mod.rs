//! Path emulator: a link between two interfaces that delays, loses, reorders, duplicates, corrupts and queues packets.
//!
//! [`Pipe`] is one direction of the link and sans-IO: packets and the time go in, packets that are due come out, and
//! the same seed with the same packets gives the same fates. [`Link`] runs two of them between two [`Port`]s.
//! [`calibrate`] measures with plain kernel sockets what a link really imposes.
//!
//! A packet of a pipe goes through: MTU, queue (drop-tail or CoDel), rate, loss on the wire, delay. What is lost on the
//! wire has taken its time on the link, as on a radio.

pub mod calibrate;
mod codel;
mod link;
mod loss;
mod pipe;
mod port;
pub(crate) mod random;
pub(crate) mod spec;

pub use link::Link;
pub use loss::Loss;
pub use pipe::{Counters, Pipe};
pub use port::Port;
pub use spec::{Discipline, Jitter, Limit, Spec};

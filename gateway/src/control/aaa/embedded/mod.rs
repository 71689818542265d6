//! The embedded back end: subscribers in a file, sequence numbers in a store of ours.

mod subscribers;

pub use subscribers::{Algorithm, IMSI_DIGITS, Subscriber, Subscribers};

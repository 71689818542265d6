//! The embedded back end: subscribers in a file, sequence numbers in a store of ours.

mod sequence;
mod subscribers;

pub use sequence::{Sequence, StoreError};
pub use subscribers::{Algorithm, IMSI_DIGITS, Subscriber, Subscribers};

//! The TCP-in-TCP laboratory: `loadgen lab`.
//!
//! [`matrix`] says what is measured, [`study`] runs it with one process per measurement ([`cell`]), each with a
//! [`network`] and a [`tunnel`] of its own and the traffic of [`work`] inside. What came is in [`results`]; [`report`]
//! shows and explains it.

pub mod cell;
mod child;
mod libreswan;
pub mod matrix;
mod missing;
pub mod network;
pub mod point;
mod program;
mod queue;
pub mod report;
pub mod results;
mod store;
pub mod study;
pub mod tunnel;
pub mod work;

//! ESP packets (RFC 4303).

/// A Security Parameters Index of ESP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct EspSpi(pub u32);

/// Algorithms of a Child SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EspSuite {}

/// Keys of one direction.
pub struct EspKeys {}

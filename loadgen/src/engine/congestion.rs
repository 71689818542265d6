//! The congestion control of the UEs' connections.

use crate::error::Failure;
use crate::host::tcp_info::congestion_controls;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;

/// Longest name of one, as the kernel has it.
const NAME_MAX: usize = 15;

/// A congestion control that the kernel offers.
#[derive(Clone, Copy, Debug)]
pub struct Congestion {
    name: [u8; NAME_MAX],
    len: usize,
}

impl Congestion {
    /// Looks for the one called `name`; the kernel loads its module if it is there and we may.
    ///
    /// # Errors
    /// [`Failure::Usage`] with what the kernel offers.
    pub fn find(name: &str) -> Result<Self, Failure> {
        let refused = || {
            Failure::Usage(format!(
                "--congestion {name}: the kernel offers {}; others need their module loaded",
                congestion_controls()
            ))
        };
        let mut octets = [0; NAME_MAX];
        let room = octets.get_mut(..name.len()).filter(|room| !room.is_empty()).ok_or_else(refused)?;
        room.copy_from_slice(name.as_bytes());
        let found = Self { name: octets, len: name.len() };
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP));
        socket.and_then(|socket| found.apply(&socket)).map_err(|_| refused())?;
        Ok(found)
    }

    /// Has `socket` use it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn apply(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_congestion(&self.name[..self.len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_what_was_found() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        Congestion::find("reno").unwrap().apply(&socket).unwrap();
        assert!(socket.tcp_congestion().unwrap().starts_with(b"reno"));
    }

    #[test]
    fn what_the_kernel_lacks_is_a_usage_error_that_says_what_it_has() {
        for name in ["no-such", "", "a-name-longer-than-any"] {
            let Err(Failure::Usage(message)) = Congestion::find(name) else { panic!("{name}") };
            assert!(message.contains("reno"), "{message}");
        }
    }
}

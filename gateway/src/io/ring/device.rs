//! The inner devices on the ring: only the news that one has packets.

use std::os::fd::AsRawFd;

use io_uring::{opcode, types};

use super::token::{Kind, Token};
use super::{Completion, Ring};

impl Ring {
    /// Reports [`Completion::DeviceReadable`] whenever packets arrive at an inner device.
    pub(super) fn arm_device(&mut self, device: usize) {
        let Some(fd) = self.devices.get(device).map(|fd| types::Fd(fd.as_raw_fd())) else { return };
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
        self.push(entry, Token::new(Kind::Device, 0, device as u32));
    }

    pub(super) fn on_device(&mut self, device: usize, events: i32, more: bool) -> Completion {
        // A deleted device has the error pending for ever: watching it again would keep the loop busy.
        let failed = events < 0 || events & i32::from(libc::POLLERR) != 0;
        if !more && !failed {
            self.arm_device(device);
        }
        Completion::DeviceReadable { device }
    }
}

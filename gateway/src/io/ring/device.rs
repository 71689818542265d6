//! The inner device on the ring: packets in, packets out.

use std::ops::Range;
use std::os::fd::AsRawFd;

use io_uring::squeue::Flags;
use io_uring::{opcode, types};

use super::token::{Kind, Token};
use super::{Completion, Ring, SPARE_LEN_MAX, TunWrite};
use crate::io::recv_pool::Incoming;

impl Ring {
    pub(super) fn on_tun_read(&mut self, result: i32, flags: u32, more: bool) -> Completion {
        let packet = u32::try_from(result).ok().and_then(|len| self.tun_packets.claim(flags, len));
        if !more {
            // The kernel ran out of buffers; those claimed and released since may be back already.
            self.tun_starved = !self.tun_packets.has_published();
            if !self.tun_starved {
                self.arm_tun_read();
            }
        }
        packet.map_or(Completion::Nothing, Completion::TunRead)
    }

    pub(super) fn on_tun_write(&mut self, index: u32, result: i32) -> Completion {
        match self.writes.get_mut(index as usize).and_then(Option::take) {
            Some(TunWrite::Lent(loan)) => self.stream.take_back(loan),
            Some(TunWrite::Owned(packet)) => {
                self.keep_spare(packet);
            }
            None => return if result < 0 { Completion::TunWriteFailed } else { Completion::Nothing },
        }
        self.writes_free.push(index);
        if result < 0 { Completion::TunWriteFailed } else { Completion::Nothing }
    }

    /// Finishes writes to the inner device without handling anything else: they complete as they are
    /// submitted, so a turn that has used all of them up goes on at once. What else completed waits.
    fn reap_writes(&mut self) {
        // A full completion queue is reported here and emptied below.
        let _ = self.uring.submit();
        while let Some((token, result, flags)) = self.take_entry() {
            if token.kind() != Kind::TunWrite {
                self.early.push_back((token, result, flags));
            } else if matches!(self.on_tun_write(token.index(), result), Completion::TunWriteFailed) {
                // Still to be counted; its memory is free already.
                self.early.push_back((Token::new(Kind::TunWrite, 0, u32::MAX), result, flags));
            }
        }
    }

    /// A free place for a write to the inner device.
    fn reserve_write(&mut self) -> Option<u32> {
        if self.writes_free.is_empty() {
            self.reap_writes();
        }
        self.writes_free.last().copied()
    }

    pub(super) fn arm_tun_read(&mut self) {
        let fd = types::Fd(self.tun.as_raw_fd());
        let group = self.tun_packets.group();
        let entry = if self.tun_multishot {
            opcode::ReadMulti::new(fd, 0, group).offset(u64::MAX).build()
        } else {
            opcode::Read::new(fd, std::ptr::null_mut(), 0)
                .offset(u64::MAX)
                .buf_group(group)
                .build()
                .flags(Flags::BUFFER_SELECT)
        };
        self.push(entry, Token::new(Kind::TunRead, 0, 0));
    }

    /// The packet, with its virtio-net header.
    pub fn packet(&mut self, packet: &Incoming) -> &mut [u8] {
        self.tun_packets.bytes_mut(packet)
    }

    /// Gives a packet of the inner device back.
    pub fn release_packet(&mut self, packet: Incoming) {
        self.tun_packets.release(packet);
        if self.tun_starved && self.tun_packets.has_published() {
            self.tun_starved = false;
            self.arm_tun_read();
        }
    }

    /// Writes part of a run of received octets (virtio-net header and packet) to the inner device. Returns
    /// false when too many writes are in flight.
    pub fn tun_write(&mut self, incoming: &Incoming, range: Range<usize>) -> bool {
        let Some(index) = self.reserve_write() else { return false };
        let Some((loan, address, len)) = self.stream.lend(incoming, range) else { return false };
        self.writes_free.pop();
        self.push_tun_write(index, address, len, TunWrite::Lent(loan));
        true
    }

    /// Writes an owned packet (virtio-net header and packet at `range`) to the inner device. Returns it
    /// when too many writes are in flight.
    ///
    /// # Errors
    /// The packet, unsent.
    pub fn tun_write_owned(&mut self, packet: Vec<u8>, range: Range<usize>) -> Result<(), Vec<u8>> {
        let (Some(bytes), Some(index)) = (packet.get(range), self.reserve_write()) else {
            return Err(packet);
        };
        let (address, len) = (bytes.as_ptr(), bytes.len() as u32);
        self.writes_free.pop();
        self.push_tun_write(index, address, len, TunWrite::Owned(packet));
        Ok(())
    }

    fn push_tun_write(&mut self, index: u32, address: *const u8, len: u32, memory: TunWrite) {
        let entry =
            opcode::Write::new(types::Fd(self.tun.as_raw_fd()), address, len).offset(u64::MAX).build();
        // The memory stays in `writes` until the completion takes it out.
        self.writes[index as usize] = Some(memory);
        self.push(entry, Token::new(Kind::TunWrite, 0, index));
    }

    /// A buffer that an earlier write left behind, empty.
    pub fn spare_buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Keeps a buffer for later use, up to the number of writes in flight.
    pub fn keep_spare(&mut self, mut buffer: Vec<u8>) {
        if (1..=SPARE_LEN_MAX).contains(&buffer.capacity()) && self.spare.len() < self.writes.len() {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

//! The sink's UDP socket: batched receive with segment coalescing, burst send with segmentation.

use crate::error::Failure;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmsg,
    setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use std::cell::Cell;
use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Datagrams (or coalesced trains of them) per receive call.
const BATCH: usize = 32;
/// Room of one receive slot: the longest train.
const SLOT_LEN: usize = 65_536;
/// Datagrams that one segmented send carries at most (UDP_MAX_SEGMENTS).
pub(super) const SEGMENTS_MAX: usize = 128;
/// The same before Linux 6.9.
const SEGMENTS_MAX_BEFORE: u64 = 64;
/// Kernel buffer asked for in each direction, in octets.
const SOCKET_BUFFER_LEN: usize = 32 << 20;

/// What became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took it, or refused it for good, which [`SinkSocket::refused`] counts: it will not be sent again.
    Done,
    /// The socket buffer is full: try again after [`SinkSocket::wait`].
    Blocked,
}

/// A non-blocking UDP socket for batches.
pub struct SinkSocket {
    socket: UdpSocket,
    local: SocketAddr,
    slots: Vec<Vec<u8>>,
    /// See [`SEGMENTS_MAX`]; 1 where the path cannot segment.
    segments_max: Cell<u64>,
    /// Datagrams that the kernel refused to send.
    refused: Cell<u64>,
}

impl SinkSocket {
    /// Binds to `listen`; `offload` lets the kernel cut bursts and join trains.
    pub fn bind(listen: SocketAddr, offload: bool) -> Result<Self, Failure> {
        let explain = |error: std::io::Error| {
            Failure::Environment(format!(
                "cannot listen on UDP {listen}: {error}; give an address of this host with --listen"
            ))
        };
        let socket = UdpSocket::bind(listen).map_err(explain)?;
        socket.set_nonblocking(true).map_err(explain)?;
        let local = socket.local_addr().map_err(explain)?;
        // Larger buffers and coalescing save work; without the privilege or the kernel feature the sink still counts right.
        if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_LEN).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER_LEN);
        }
        let _ = setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER_LEN);
        let _ = setsockopt(&socket, sockopt::UdpGroSegment, &offload);
        let slots = (0..BATCH).map(|_| vec![0; SLOT_LEN]).collect();
        Ok(Self {
            socket,
            local,
            slots,
            segments_max: Cell::new(if offload { SEGMENTS_MAX as u64 } else { 1 }),
            refused: Cell::new(0),
        })
    }

    /// Returns the bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Returns how many datagrams one send may carry.
    pub fn segments_max(&self) -> u64 {
        self.segments_max.get().max(SEGMENTS_MAX_BEFORE)
    }

    /// Returns how many datagrams the kernel has refused to send so far and nobody sends again: for want of a route, by a
    /// rule, or in the middle of a burst that had to leave one by one and found the buffer full. No other counter has them.
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Hands every waiting datagram of one batch to `each`, with the length of the train it came in; returns whether the
    /// batch was full.
    pub fn receive(&mut self, mut each: impl FnMut(SocketAddr, &[u8], u16)) -> Result<bool, Failure> {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            self.slots.iter_mut().map(|slot| [IoSliceMut::new(slot)]).collect();
        // Fresh headers per call: the kernel overwrites the control length of used ones.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, Some(cmsg_space!(i32)));
        let flags = MsgFlags::MSG_DONTWAIT;
        let results = match recvmmsg(self.socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None) {
            Ok(results) => results,
            // ECONNREFUSED and the like report an earlier send to a UE that is gone.
            Err(
                Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH,
            ) => {
                return Ok(false);
            }
            Err(error) => {
                return Err(Failure::Environment(format!("receiving on UDP {}: {error}", self.local)));
            }
        };
        let mut count = 0;
        for message in results {
            count += 1;
            let Some(peer) = message.address.as_ref().and_then(to_std) else { continue };
            let segment_len = segment_len(&message);
            for octets in message.iovs() {
                let datagrams = octets.chunks(segment_len.unwrap_or(octets.len()).max(1));
                let train = datagrams.len() as u16;
                datagrams.for_each(|datagram| each(peer, datagram, train));
            }
        }
        Ok(count == BATCH)
    }

    /// Sends `octets` as datagrams of `segment_len` each (the last may be shorter), with the traffic class given.
    ///
    /// Falls back to single datagrams when the path cannot segment; then a burst may leave in part, and the rest counts as
    /// lost on the way like any other UDP loss.
    pub fn send(
        &self,
        peer: SocketAddr,
        octets: &[u8],
        segment_len: usize,
        traffic_class: u8,
    ) -> Result<Sent, Failure> {
        let class = (i32::from(traffic_class), traffic_class);
        let class = match peer {
            SocketAddr::V4(_) => ControlMessage::Ipv4Tos(&class.1),
            SocketAddr::V6(_) => ControlMessage::Ipv6TClass(&class.0),
        };
        let class = if traffic_class == 0 { &[][..] } else { &[class] };
        let segments = octets.len().div_ceil(segment_len.max(1)) as u64;
        if segments > 1 && segments <= self.segments_max.get() {
            let gso = u16::try_from(segment_len).expect("segments are at most 1400 octets");
            let control = [&[ControlMessage::UdpGsoSegments(&gso)], class].concat();
            match self.send_once(peer, octets, &control) {
                Err(Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE) => self.limit_segments(segments),
                other => return self.outcome(other, segments),
            }
        }
        for (index, datagram) in octets.chunks(segment_len).enumerate() {
            let sent = self.outcome(self.send_once(peer, datagram, class), 1)?;
            match sent {
                Sent::Blocked if index == 0 => return Ok(Sent::Blocked),
                // Part of the burst has left, so it is not repeated.
                Sent::Blocked => self.refused.set(self.refused.get() + 1),
                Sent::Done => {}
            }
        }
        Ok(Sent::Done)
    }

    /// Learns from a refused send of so many segments.
    fn limit_segments(&self, segments: u64) {
        self.segments_max.set(if segments > SEGMENTS_MAX_BEFORE { SEGMENTS_MAX_BEFORE } else { 1 });
    }

    /// Sleeps until a datagram waits, at most `limit`.
    pub fn wait(&self, limit: Duration) -> Result<(), Failure> {
        let timeout = Some(TimeSpec::from_duration(limit));
        match ppoll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout, None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(Failure::Environment(format!("waiting on UDP {}: {error}", self.local))),
        }
    }

    fn send_once(
        &self,
        peer: SocketAddr,
        octets: &[u8],
        control: &[ControlMessage<'_>],
    ) -> nix::Result<usize> {
        let peer = SockaddrStorage::from(peer);
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(octets)],
            control,
            MsgFlags::MSG_DONTWAIT,
            Some(&peer),
        )
    }

    /// Judges a send of so many datagrams.
    fn outcome(&self, result: nix::Result<usize>, datagrams: u64) -> Result<Sent, Failure> {
        match result {
            Ok(_) => Ok(Sent::Done),
            Err(Errno::EAGAIN | Errno::ENOBUFS) => Ok(Sent::Blocked),
            // The UE or its route is gone, or a rule forbids it: what is not delivered shows as loss.
            Err(
                Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EPERM | Errno::EINTR,
            ) => {
                self.refused.set(self.refused.get() + datagrams);
                Ok(Sent::Done)
            }
            Err(error) => Err(Failure::Environment(format!("sending from UDP {}: {error}", self.local))),
        }
    }
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from(*v4));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from(*v6)))
}

fn segment_len(message: &nix::sys::socket::RecvMsg<'_, '_, SockaddrStorage>) -> Option<usize> {
    message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::UdpGroSegments(len) => usize::try_from(len).ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(socket: &mut SinkSocket) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        for _ in 0..50 {
            socket.receive(|_, octets, _| got.push(octets.to_vec())).unwrap();
            socket.wait(Duration::from_millis(2)).unwrap();
        }
        got
    }

    #[test]
    fn a_segmented_burst_arrives_as_its_datagrams() {
        let sender = SinkSocket::bind("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let mut receiver = SinkSocket::bind("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let burst: Vec<u8> = (0..2_500).map(|n| (n % 251) as u8).collect();
        assert_eq!(sender.send(receiver.local_addr(), &burst, 1_000, 0).unwrap(), Sent::Done);
        let got = drain(&mut receiver);
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        assert_eq!(got.concat(), burst);
    }
    #[test]
    fn what_the_kernel_refuses_is_counted_by_datagrams() {
        let socket = SinkSocket::bind("127.0.0.1:0".parse().unwrap(), true).unwrap();
        for (errno, datagrams) in [(Errno::EPERM, 46), (Errno::EHOSTUNREACH, 1), (Errno::ENETUNREACH, 1)] {
            assert_eq!(socket.outcome(Err(errno), datagrams).unwrap(), Sent::Done, "{errno}");
        }
        assert_eq!(socket.outcome(Err(Errno::EAGAIN), 7).unwrap(), Sent::Blocked);
        assert_eq!(socket.outcome(Ok(1_400), 1).unwrap(), Sent::Done);
        assert_eq!(socket.refused(), 48);
    }
}

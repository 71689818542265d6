//! Datagrams of many flows on their way out: as few system calls and passes through the stack as the kernel allows.
//!
//! A block holds frames as TCP would send them, each behind its Length. Here they are cut into datagrams where they
//! lie: frames of one length, of which the last may be shorter, leave as one message that the kernel or the device
//! segments (UDP GSO); many messages leave in one system call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::{mem, ptr};

use codec::stream::LENGTH_LEN;

use super::{CONTROL_HEADER, UDP_SEGMENT, UdpSocket, control_space, to_raw};
use crate::io::block::Block;
use crate::io::check;

/// Most datagrams of one message: what kernels segment.
const SEGMENTS_MAX: usize = 64;

/// Most octets of one message: what fits an IPv4 packet behind its headers.
const MESSAGE_LEN_MAX: usize = 65_507;

/// Messages and datagrams that make a batch full.
const MESSAGES_MAX: usize = 64;
const DATAGRAMS_MAX: usize = 1024;

/// Octets of control messages: a source address and the length of segments.
const CONTROL_LEN: usize = control_space(size_of::<libc::in6_pktinfo>()) + control_space(size_of::<u16>());

/// Where a flow's datagrams go.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The UE's address.
    pub remote: SocketAddr,
    /// Our address, where the socket does not say it.
    pub source: Option<IpAddr>,
    /// Whether the kernel may segment.
    pub segmented: bool,
}

/// How far a batch got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// Everything has left or is lost.
    All,
    /// The socket is full; the rest stays.
    Blocked,
}

/// What could not be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// These datagrams are dropped.
    Datagrams(u64),
    /// Nothing: but this owner's must not be segmented any more. Its route takes none of that length.
    Segmentation(u32),
}

/// Control messages of one message.
pub(in crate::io) struct Control {
    octets: [u64; CONTROL_LEN / 8],
    len: usize,
}

impl Control {
    pub fn new(source: Option<IpAddr>, segment: Option<u16>) -> Self {
        let mut control = Self { octets: [0; CONTROL_LEN / 8], len: 0 };
        match source {
            Some(IpAddr::V4(ip)) => {
                // ipi_ifindex, ipi_spec_dst, ipi_addr
                let mut info = [0; size_of::<libc::in_pktinfo>()];
                info[4..8].copy_from_slice(&ip.octets());
                control.add(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(ip)) => {
                // ipi6_addr, ipi6_ifindex
                let mut info = [0; size_of::<libc::in6_pktinfo>()];
                info[..16].copy_from_slice(&ip.octets());
                control.add(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        if let Some(segment) = segment {
            control.add(libc::SOL_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
        }
        control
    }

    fn add(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let mut octets = [0; CONTROL_LEN];
        let len = CONTROL_HEADER + data.len();
        octets[..8].copy_from_slice(&len.to_ne_bytes());
        octets[8..12].copy_from_slice(&level.to_ne_bytes());
        octets[12..16].copy_from_slice(&kind.to_ne_bytes());
        octets[CONTROL_HEADER..len].copy_from_slice(data);
        let space = control_space(data.len());
        let words = octets[..space].as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word));
        self.octets[self.len / 8..].iter_mut().zip(words).for_each(|(to, from)| *to = from);
        self.len += space;
    }

    /// Makes them part of `message`, which must not outlive `self`.
    pub fn attach(&mut self, message: &mut libc::msghdr) {
        if self.len > 0 {
            message.msg_control = self.octets.as_mut_ptr().cast();
            message.msg_controllen = self.len as _;
        }
    }
}

/// One message: datagrams of one flow.
struct Message {
    owner: u32,
    name: libc::sockaddr_storage,
    name_len: libc::socklen_t,
    source: Option<IpAddr>,
    control: Control,
    /// Its datagrams in [`Batch::parts`].
    parts: Range<usize>,
}

impl Message {
    fn new(owner: u32, route: &Route, parts: Range<usize>, segment: usize) -> Self {
        let (name, name_len) = to_raw(route.remote);
        let segment = u16::try_from(segment).ok().filter(|_| parts.len() > 1);
        let control = Control::new(route.source, segment);
        Self { owner, name, name_len, source: route.source, control, parts }
    }

    /// Its datagrams one by one.
    fn singles(&self) -> impl Iterator<Item = Self> + '_ {
        self.parts.clone().map(|part| Self {
            owner: self.owner,
            name: self.name,
            name_len: self.name_len,
            source: self.source,
            control: Control::new(self.source, None),
            parts: part..part + 1,
        })
    }
}

/// Datagrams that leave together through one socket, and the blocks they lie in.
#[derive(Default)]
pub struct Batch {
    blocks: Vec<Block>,
    messages: Vec<Message>,
    /// Every datagram: where it lies in its block. Blocks are not touched while they are here.
    parts: Vec<libc::iovec>,
    /// Messages that have left.
    done: usize,
    headers: Vec<libc::mmsghdr>,
}

impl Batch {
    /// Adds the frames of a block of `owner`, cut into datagrams.
    pub fn add(&mut self, owner: u32, block: Block, route: &Route) {
        let mut run = Run::default();
        for frame in Frames(block.bytes()) {
            if !run.takes(frame.len(), route.segmented) {
                self.close(owner, route, &mem::take(&mut run));
            }
            run.add(frame.len());
            self.parts.push(libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() });
        }
        self.close(owner, route, &run);
        self.blocks.push(block);
    }

    fn close(&mut self, owner: u32, route: &Route, run: &Run) {
        if run.count > 0 {
            let parts = self.parts.len() - run.count..self.parts.len();
            self.messages.push(Message::new(owner, route, parts, run.segment));
        }
    }

    /// Whether it should be sent before more is added.
    pub fn is_full(&self) -> bool {
        self.messages.len() >= MESSAGES_MAX || self.parts.len() >= DATAGRAMS_MAX
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Sends what is left, without waiting; `lost` hears of what the kernel does not take.
    pub fn send(&mut self, socket: &UdpSocket, mut lost: impl FnMut(Lost)) -> Sent {
        while self.done < self.messages.len() {
            match self.submit(socket) {
                Ok(sent) => self.done += sent.max(1),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN) => return Sent::Blocked,
                    // Longer than the route's MTU, or no checksum offload: the kernel sends them one by one.
                    Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE) if self.split() => {
                        lost(Lost::Segmentation(self.messages[self.done].owner));
                    }
                    _ => {
                        lost(Lost::Datagrams(self.messages[self.done].parts.len() as u64));
                        self.done += 1;
                    }
                },
            }
        }
        Sent::All
    }

    /// Replaces the next message by its single datagrams; false when it is one already.
    fn split(&mut self) -> bool {
        let message = &self.messages[self.done];
        if message.parts.len() < 2 {
            return false;
        }
        let singles: Vec<Message> = message.singles().collect();
        self.messages.splice(self.done..=self.done, singles);
        true
    }

    /// One system call over the messages that have not left; how many went.
    fn submit(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.headers.clear();
        for message in &mut self.messages[self.done..] {
            let mut header = libc::msghdr {
                msg_name: (&raw mut message.name).cast(),
                msg_namelen: message.name_len,
                msg_iov: self.parts[message.parts.clone()].as_mut_ptr(),
                msg_iovlen: message.parts.len() as _,
                msg_control: ptr::null_mut(),
                msg_controllen: 0,
                msg_flags: 0,
            };
            message.control.attach(&mut header);
            self.headers.push(libc::mmsghdr { msg_hdr: header, msg_len: 0 });
        }
        let (headers, count) = (self.headers.as_mut_ptr(), self.headers.len() as libc::c_uint);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the headers point to names, control messages and parts of this batch, and the parts into blocks
        // it owns; none of them moves or changes before the call has returned.
        let sent = unsafe { check(libc::sendmmsg(socket.as_raw_fd(), headers, count, flags))? };
        Ok(usize::try_from(sent).unwrap_or(0))
    }

    /// Empties the batch once all of it has left; its blocks are to be used again.
    pub fn finish(&mut self) -> impl Iterator<Item = Block> {
        self.messages.clear();
        self.parts.clear();
        self.done = 0;
        self.blocks.drain(..)
    }
}

/// Datagrams that may be one message.
#[derive(Default)]
struct Run {
    count: usize,
    octets: usize,
    /// Length of the first.
    segment: usize,
    /// Length of the last.
    last: usize,
}

impl Run {
    fn takes(&self, len: usize, segmented: bool) -> bool {
        self.count == 0
            || segmented
                && self.count < SEGMENTS_MAX
                && self.last == self.segment
                && len <= self.segment
                && self.octets + len <= MESSAGE_LEN_MAX
    }

    fn add(&mut self, len: usize) {
        if self.count == 0 {
            self.segment = len;
        }
        self.count += 1;
        self.octets += len;
        self.last = len;
    }
}

/// The frames of a block without their Lengths.
struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(u16::from_be_bytes(*self.0.first_chunk::<LENGTH_LEN>()?));
        let (frame, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        frame.get(LENGTH_LEN..)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdSocket;
    use std::time::Duration;

    use super::super::listen_udp;
    use super::*;

    fn block(lens: &[usize]) -> Block {
        let mut octets = Vec::new();
        for (number, &len) in lens.iter().enumerate() {
            octets.extend(((len + LENGTH_LEN) as u16).to_be_bytes());
            octets.resize(octets.len() + len, number as u8);
        }
        Block::holding(octets, lens.len() as u32)
    }

    fn route(remote: SocketAddr, segmented: bool) -> Route {
        Route { remote, source: None, segmented }
    }

    fn shapes(batch: &Batch) -> Vec<usize> {
        batch.messages.iter().map(|message| message.parts.len()).collect()
    }

    #[test]
    fn frames_of_one_length_are_one_message_and_a_shorter_one_ends_it() {
        let remote = "127.0.0.1:1".parse().expect("address");
        let mut batch = Batch::default();
        batch.add(7, block(&[100, 100, 40, 100, 200, 200]), &route(remote, true));
        assert_eq!(shapes(&batch), [3, 1, 2]);
        assert_eq!(batch.finish().count(), 1);
        batch.add(7, block(&[100, 100]), &route(remote, false));
        assert_eq!(shapes(&batch), [1, 1]);
        let _ = batch.finish().count();
        batch.add(7, block(&vec![1400; 100]), &route(remote, true));
        assert_eq!(shapes(&batch), [46, 46, 8], "65,507 octets each");
        let _ = batch.finish().count();
        batch.add(7, block(&vec![80; 100]), &route(remote, true));
        assert_eq!(shapes(&batch), [64, 36], "64 segments each");
    }

    #[test]
    fn datagrams_arrive_whole_in_order_and_from_the_address_asked_for() {
        let socket = listen_udp("0.0.0.0:0".parse().expect("address"), 1, 1 << 20).expect("free").remove(0);
        let peer = StdSocket::bind("127.0.0.1:0").expect("bound");
        peer.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let source = IpAddr::from([127, 0, 0, 2]);
        let remote = peer.local_addr().expect("bound");
        let lens = [1200, 1200, 1200, 30, 1300];
        let mut batch = Batch::default();
        batch.add(7, block(&lens), &Route { remote, source: Some(source), segmented: true });
        assert_eq!(batch.send(&socket, |lost| panic!("{lost:?}")), Sent::All);
        for (number, len) in lens.into_iter().enumerate() {
            let mut buffer = [0; 2000];
            let (received, from) = peer.recv_from(&mut buffer).expect("it arrives");
            assert_eq!((received, from.ip(), buffer[0]), (len, source, number as u8));
        }
    }

    #[test]
    fn what_the_kernel_does_not_segment_leaves_one_by_one() {
        let socket = listen_udp("127.0.0.1:0".parse().expect("address"), 1, 1 << 20).expect("free").remove(0);
        let peer = StdSocket::bind("127.0.0.1:0").expect("bound");
        peer.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        // More segments than any kernel makes of one message.
        let mut batch = Batch::default();
        let message = Message::new(3, &route(peer.local_addr().expect("bound"), true), 0..2, 1);
        let frames = block(&[700, 700]);
        let base = |at: usize| frames.bytes()[at..].as_ptr().cast_mut().cast();
        batch
            .parts
            .extend([(2, 700), (704, 700)].map(|(at, len)| libc::iovec { iov_base: base(at), iov_len: len }));
        batch.messages.push(message);
        let mut heard = Vec::new();
        assert_eq!(batch.send(&socket, |lost| heard.push(lost)), Sent::All);
        assert_eq!(heard, [Lost::Segmentation(3)]);
        for _ in 0..2 {
            assert_eq!(peer.recv(&mut [0; 2000]).expect("it arrives"), 700);
        }
    }

    #[test]
    fn what_cannot_be_sent_is_lost_and_the_rest_goes_on() {
        let socket = listen_udp("127.0.0.1:0".parse().expect("address"), 1, 1 << 20).expect("free").remove(0);
        let peer = StdSocket::bind("127.0.0.1:0").expect("bound");
        peer.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let mut batch = Batch::default();
        // An IPv6 address through an IPv4 socket.
        batch.add(1, block(&[50, 60]), &route("[::1]:9".parse().expect("address"), false));
        batch.add(2, block(&[70]), &route(peer.local_addr().expect("bound"), true));
        let mut lost = 0;
        let sent = batch.send(&socket, |what| match what {
            Lost::Datagrams(n) => lost += n,
            Lost::Segmentation(_) => panic!("not segmented"),
        });
        assert_eq!((sent, lost), (Sent::All, 2));
        assert_eq!(peer.recv(&mut [0; 2000]).expect("it arrives"), 70);
        assert_eq!(batch.finish().count(), 2);
        assert!(batch.is_empty());
    }
}

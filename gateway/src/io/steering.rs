//! Steering of inner packets: which queue of the TUN a downlink packet goes to.
//!
//! A socket-filter program on the device looks its destination address up in two hash maps (IPv4 and
//! IPv6), written by the control thread, and returns the queue of the worker that owns the UE. A missing
//! entry yields queue 0, whose worker passes the packet on.

use std::io;
use std::mem;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
const BPF_F_NO_PREALLOC: u32 = 1;

/// The maps behind the device's steering program. Dropping it leaves the program in place.
pub struct SteeringMap {
    v4: OwnedFd,
    v6: OwnedFd,
}

impl SteeringMap {
    /// Loads the program for a device with room for `capacity` addresses per family and attaches it.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_BPF or CAP_SYS_ADMIN; the workers then pass packets on themselves.
    pub fn attach(tun: BorrowedFd<'_>, capacity: u32) -> io::Result<Self> {
        let map = Self { v4: create_map(4, capacity)?, v6: create_map(16, capacity)? };
        let program = load(&program(map.v4.as_raw_fd(), map.v6.as_raw_fd()))?;
        let fd = program.as_raw_fd();
        // SAFETY: TUNSETSTEERINGEBPF reads one int, which outlives the call; the device takes its own
        // reference to the program.
        unsafe { check(libc::ioctl(tun.as_raw_fd(), libc::TUNSETSTEERINGEBPF, &raw const fd))? };
        Ok(map)
    }

    /// Sends packets for `addr` to `queue` from now on.
    ///
    /// # Errors
    /// When the map is full.
    pub fn set(&self, addr: IpAddr, queue: u32) -> io::Result<()> {
        let (fd, key) = self.place(addr);
        element(BPF_MAP_UPDATE_ELEM, fd, &key, Some(&queue))
    }

    /// Forgets `addr`; forgetting an unknown address is not an error.
    ///
    /// # Errors
    /// Whatever else the kernel answers.
    pub fn remove(&self, addr: IpAddr) -> io::Result<()> {
        let (fd, key) = self.place(addr);
        match element(BPF_MAP_DELETE_ELEM, fd, &key, None) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn place(&self, addr: IpAddr) -> (RawFd, [u8; 16]) {
        match addr {
            IpAddr::V4(v4) => {
                let mut key = [0; 16];
                key[..4].copy_from_slice(&v4.octets());
                (self.v4.as_raw_fd(), key)
            }
            IpAddr::V6(v6) => (self.v6.as_raw_fd(), v6.octets()),
        }
    }
}

/// `union bpf_attr` for the commands used here: the largest, BPF_PROG_LOAD, needs 48 octets of it.
type Attr = [u64; 16];

fn bpf(command: libc::c_long, attr: &Attr) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads the size given, all of which is initialised; the pointers inside are set by
    // the callers below to memory that outlives this call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), mem::size_of_val(attr)) };
    check(result as libc::c_int)
}

/// Two 32-bit fields that lie side by side, `first` at the lower address.
fn pair(first: u32, second: u32) -> u64 {
    let (low, high) = if cfg!(target_endian = "little") { (first, second) } else { (second, first) };
    u64::from(low) | u64::from(high) << 32
}

fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: bpf(2) just returned this descriptor, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn create_map(key_len: u32, capacity: u32) -> io::Result<OwnedFd> {
    let mut attr: Attr = [0; 16];
    // map_type, key_size | value_size, max_entries | map_flags
    attr[0] = pair(BPF_MAP_TYPE_HASH, key_len);
    attr[1] = pair(4, capacity);
    attr[2] = pair(BPF_F_NO_PREALLOC, 0);
    bpf(BPF_MAP_CREATE, &attr).map(owned)
}

fn element(command: libc::c_long, map: RawFd, key: &[u8; 16], value: Option<&u32>) -> io::Result<()> {
    let mut attr: Attr = [0; 16];
    // map_fd | key | value | flags (0: create or replace)
    attr[0] = pair(map as u32, 0);
    attr[1] = key.as_ptr() as u64;
    attr[2] = value.map_or(0, |value| std::ptr::from_ref(value) as u64);
    bpf(command, &attr).map(drop)
}

fn load(program: &[u64]) -> io::Result<OwnedFd> {
    let mut attr: Attr = [0; 16];
    // prog_type, insn_cnt | insns | license | log_level, log_size | log_buf | kern_version, prog_flags
    attr[0] = pair(BPF_PROG_TYPE_SOCKET_FILTER, program.len() as u32);
    attr[1] = program.as_ptr() as u64;
    attr[2] = c"Dual MIT/GPL".as_ptr() as u64;
    bpf(BPF_PROG_LOAD, &attr).map(owned)
}

/// One eBPF instruction: opcode, destination and source register, jump offset, immediate.
const fn insn(code: u8, dst: u8, src: u8, offset: i16, imm: i32) -> u64 {
    let registers = dst | src << 4;
    code as u64 | (registers as u64) << 8 | (offset as u16 as u64) << 16 | (imm as u32 as u64) << 32
}

/// Loads the address of a map into a register: two slots.
const fn load_map(dst: u8, fd: RawFd) -> [u64; 2] {
    const PSEUDO_MAP_FD: u8 = 1;
    [insn(0x18, dst, PSEUDO_MAP_FD, 0, fd), 0]
}

/// The program. The context is the packet, which starts at its IP header; loads beyond its end return 0.
fn program(v4: RawFd, v6: RawFd) -> Vec<u64> {
    const LOAD_BYTES: i32 = 26; // bpf_skb_load_bytes(skb, offset, to, len)
    const LOOKUP: i32 = 1; // bpf_map_lookup_elem(map, key)
    let [v4_low, v4_high] = load_map(1, v4);
    let [v6_low, v6_high] = load_map(1, v6);
    vec![
        insn(0xbf, 6, 1, 0, 0),          //  0 r6 = skb
        insn(0x30, 0, 0, 0, 0),          //  1 r0 = octet 0 of the packet
        insn(0x77, 0, 0, 0, 4),          //  2 r0 >>= 4: IP version
        insn(0x15, 0, 0, 10, 6),         //  3 if 6 goto 14
        insn(0xbf, 1, 6, 0, 0),          //  4 r1 = skb
        insn(0xb7, 2, 0, 0, 16),         //  5 r2 = 16: IPv4 destination
        insn(0xbf, 3, 10, 0, 0),         //  6 r3 = frame pointer
        insn(0x07, 3, 0, 0, -16),        //  7 r3 -= 16
        insn(0xb7, 4, 0, 0, 4),          //  8 r4 = 4 octets
        insn(0x85, 0, 0, 0, LOAD_BYTES), //  9 load
        insn(0x55, 0, 0, 18, 0),         // 10 if failed goto 29
        v4_low,                          // 11 r1 = map
        v4_high,                         // 12
        insn(0x05, 0, 0, 8, 0),          // 13 goto 22
        insn(0xbf, 1, 6, 0, 0),          // 14 r1 = skb
        insn(0xb7, 2, 0, 0, 24),         // 15 r2 = 24: IPv6 destination
        insn(0xbf, 3, 10, 0, 0),         // 16 r3 = frame pointer
        insn(0x07, 3, 0, 0, -16),        // 17 r3 -= 16
        insn(0xb7, 4, 0, 0, 16),         // 18 r4 = 16 octets
        insn(0x85, 0, 0, 0, LOAD_BYTES), // 19 load
        v6_low,                          // 20 r1 = map (r0 survives)
        v6_high,                         // 21
        insn(0x55, 0, 0, 6, 0),          // 22 if failed goto 29
        insn(0xbf, 2, 10, 0, 0),         // 23 r2 = frame pointer
        insn(0x07, 2, 0, 0, -16),        // 24 r2 -= 16: the key
        insn(0x85, 0, 0, 0, LOOKUP),     // 25 look up
        insn(0x15, 0, 0, 2, 0),          // 26 if null goto 29
        insn(0x61, 0, 0, 0, 0),          // 27 r0 = queue
        insn(0x95, 0, 0, 0, 0),          // 28 exit
        insn(0xb7, 0, 0, 0, 0),          // 29 r0 = 0
        insn(0x95, 0, 0, 0, 0),          // 30 exit
    ]
}

//! Pools of inner addresses.
//!
//! A pool owns which addresses are in use and nothing else: routes and devices are set up elsewhere.
//! Every address is the pool's choice; what a peer asks for is never looked at.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ahash::{AHashMap, AHashSet};

use crate::types::{NetworkId, TsRange};

/// Most addresses served from one prefix; the rest of a larger prefix stays unused. Bounds the memory of
/// a pool to about 24 octets per address in use and 200 per address that was in use before.
pub const ADDRESSES_PER_PREFIX_MAX: u128 = 1 << 20;

/// An address with a prefix length, host bits cleared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// Makes a prefix, clearing host bits; `None` when `len` exceeds the family's 32 or 128.
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        let bits = bits_of(addr);
        if len > bits {
            return None;
        }
        let host = u32::from(bits - len);
        let mask = u128::MAX.checked_shl(host).unwrap_or(0);
        Some(Self { addr: from_number(addr, to_number(addr) & mask), len })
    }

    /// The network address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The prefix length in bits.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// The first address behind the network address, or the address itself of a single-host prefix.
    pub fn first_host(&self) -> IpAddr {
        from_number(self.addr, self.base() + u128::from(self.size_minus_one() > 0))
    }

    /// Whether `addr` lies inside.
    pub fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.addr.is_ipv4()
            && to_number(addr).wrapping_sub(self.base()) <= self.size_minus_one()
    }

    /// The traffic selector that covers it: any protocol, any port.
    pub fn selector(&self) -> TsRange {
        let last = from_number(self.addr, self.base() + self.size_minus_one());
        TsRange { first: self.addr, last, protocol: 0, ports: (0, u16::MAX) }
    }

    fn base(&self) -> u128 {
        to_number(self.addr)
    }

    fn size_minus_one(&self) -> u128 {
        let host = u32::from(bits_of(self.addr) - self.len);
        1u128.checked_shl(host).map_or(u128::MAX, |size| size - 1)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Prefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "an address with a prefix length, such as 10.64.0.0/16 or fd64::/112";
        let (addr, len) = text.split_once('/').ok_or(EXPECTED)?;
        let addr = addr.parse().map_err(|_| EXPECTED)?;
        let len = len.parse().map_err(|_| EXPECTED)?;
        Self::new(addr, len).ok_or(EXPECTED)
    }
}

/// What a pool is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// Its name in the configuration.
    pub name: String,
    /// The network it is of; pools of others may overlap with it.
    pub network: NetworkId,
    /// Prefixes, served in order within each family.
    pub prefixes: Vec<Prefix>,
    /// Addresses inside the prefixes that are never handed out, such as the gateway's own. The network
    /// address, the first host and the last address of a prefix with at least four are kept back anyway.
    pub reserved: Vec<IpAddr>,
}

/// Address family of an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// The addresses of one pool and who holds them.
///
/// An identity gets its last address again while nobody else took it. Released addresses are reused
/// oldest first, after those never used, which keeps them free for their last holder for as long as
/// possible.
pub struct Pool {
    config: PoolConfig,
    blocks: Vec<Block>,
    taken: AHashSet<IpAddr>,
    free: AHashMap<IpAddr, Free>,
    released: [VecDeque<(IpAddr, u64)>; 2],
    sticky: AHashMap<(Box<[u8]>, Family), IpAddr>,
    stamp: u64,
}

/// One prefix and how far it has been used.
struct Block {
    prefix: Prefix,
    next: u128,
    end: u128,
}

/// An address that was in use before.
struct Free {
    /// When it was released, as a count of releases.
    stamp: u64,
    /// Who had it.
    last: (Box<[u8]>, Family),
}

impl Pool {
    /// Makes an empty pool.
    pub fn new(config: PoolConfig) -> Self {
        let blocks = config.prefixes.iter().map(|prefix| Block::new(*prefix)).collect();
        Self {
            config,
            blocks,
            taken: AHashSet::new(),
            free: AHashMap::new(),
            released: [VecDeque::new(), VecDeque::new()],
            sticky: AHashMap::new(),
            stamp: 0,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The network it is of.
    pub fn network(&self) -> NetworkId {
        self.config.network
    }

    /// Whether it has addresses of this family at all.
    pub fn serves(&self, family: Family) -> bool {
        self.blocks.iter().any(|block| Family::of(block.prefix.addr) == family)
    }

    /// Whether an address lies in its prefixes.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.config.prefixes.iter().any(|prefix| prefix.contains(addr))
    }

    /// Addresses in use.
    pub fn in_use(&self) -> usize {
        self.taken.len()
    }

    /// Takes an address for `identity` (any octets that name it), or `None` when the pool is empty.
    pub fn allocate(&mut self, identity: &[u8], family: Family) -> Option<IpAddr> {
        let addr = self
            .sticky_of(identity, family)
            .or_else(|| self.unused(family))
            .or_else(|| self.oldest_released(family))?;
        self.take(addr);
        Some(addr)
    }

    /// Marks an address as taken that a session holds already (after a reload); `false` when it is not
    /// of this pool or not free.
    pub fn reclaim(&mut self, addr: IpAddr) -> bool {
        if !self.contains(addr) || self.taken.contains(&addr) {
            return false;
        }
        self.take(addr);
        true
    }

    /// Marks an address as in use; nobody gets it for having had it before.
    fn take(&mut self, addr: IpAddr) {
        if let Some(Free { last, .. }) = self.free.remove(&addr) {
            self.sticky.remove(&last);
        }
        self.taken.insert(addr);
    }

    /// Gives an address back; one that is not taken is ignored.
    pub fn release(&mut self, identity: &[u8], addr: IpAddr) {
        let family = Family::of(addr);
        if !self.taken.remove(&addr) {
            return;
        }
        self.stamp += 1;
        let key = (Box::from(identity), family);
        self.free.insert(addr, Free { stamp: self.stamp, last: key.clone() });
        self.sticky.insert(key, addr);
        let queue = &mut self.released[family as usize];
        queue.push_back((addr, self.stamp));
        if queue.len() > 64 + 2 * self.free.len() {
            let free = &self.free;
            queue.retain(|(addr, stamp)| is_released(free, addr, *stamp));
        }
    }

    fn sticky_of(&self, identity: &[u8], family: Family) -> Option<IpAddr> {
        let addr = *self.sticky.get(&(Box::from(identity), family))?;
        self.free.contains_key(&addr).then_some(addr)
    }

    /// The next address never used so far.
    fn unused(&mut self, family: Family) -> Option<IpAddr> {
        for block in self.blocks.iter_mut().filter(|block| Family::of(block.prefix.addr) == family) {
            while let Some(addr) = block.advance() {
                let used = self.taken.contains(&addr) || self.free.contains_key(&addr);
                if !used && !self.config.reserved.contains(&addr) {
                    return Some(addr);
                }
            }
        }
        None
    }

    fn oldest_released(&mut self, family: Family) -> Option<IpAddr> {
        while let Some((addr, stamp)) = self.released[family as usize].pop_front() {
            if is_released(&self.free, &addr, stamp) {
                return Some(addr);
            }
        }
        None
    }
}

fn is_released(free: &AHashMap<IpAddr, Free>, addr: &IpAddr, stamp: u64) -> bool {
    free.get(addr).is_some_and(|free| free.stamp == stamp)
}

impl Block {
    fn new(prefix: Prefix) -> Self {
        let last = prefix.size_minus_one();
        // Network (subnet-router anycast in IPv6), gateway and broadcast addresses stay out.
        let (next, end) = if last >= 3 { (2, last) } else { (0, last + 1) };
        Self { prefix, next, end: end.min(next + ADDRESSES_PER_PREFIX_MAX) }
    }

    fn advance(&mut self) -> Option<IpAddr> {
        if self.next >= self.end {
            return None;
        }
        let addr = from_number(self.prefix.addr, self.prefix.base() + self.next);
        self.next += 1;
        Some(addr)
    }
}

fn bits_of(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn to_number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// The address `number` in the family of `like`.
fn from_number(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(prefixes: &[&str]) -> Pool {
        Pool::new(PoolConfig {
            name: "test".into(),
            network: NetworkId(0),
            prefixes: prefixes.iter().map(|text| text.parse().expect("a prefix")).collect(),
            reserved: vec!["10.0.0.3".parse().expect("an address")],
        })
    }

    #[test]
    fn prefixes_parse_and_clear_host_bits() {
        let prefix: Prefix = "10.64.9.9/16".parse().expect("a prefix");
        assert_eq!(prefix.to_string(), "10.64.0.0/16");
        assert!(prefix.contains("10.64.255.255".parse().expect("an address")));
        assert!(!prefix.contains("10.65.0.0".parse().expect("an address")));
        assert!(!prefix.contains("::".parse().expect("an address")));
        let all: Prefix = "::/0".parse().expect("a prefix");
        assert_eq!(all.selector().last, IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)));
        let host: Prefix = "10.0.0.7/32".parse().expect("a prefix");
        assert_eq!(host.first_host(), host.addr());
        for bad in ["10.0.0.0", "10.0.0.0/33", "::/129", "x/1", "10.0.0.0/", "/8"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn r7296_2_19_pool_is_bounded_and_unique() {
        let mut pool = pool(&["10.0.0.0/29", "10.1.0.0/30"]);
        let mut seen = std::collections::HashSet::new();
        while let Some(addr) = pool.allocate(b"x", Family::V4) {
            assert!(seen.insert(addr), "{addr} twice");
        }
        let expected = ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.1.0.2"];
        assert_eq!(seen, expected.iter().map(|text| text.parse().expect("an address")).collect());
        assert_eq!(pool.in_use(), 5);
        assert!(!pool.serves(Family::V6));
        assert_eq!(pool.allocate(b"x", Family::V6), None);
    }

    #[test]
    fn identity_gets_its_address_again_while_free() {
        let mut pool = pool(&["10.0.0.0/29", "fd00::/126"]);
        let a = pool.allocate(b"a", Family::V4).expect("free");
        let b = pool.allocate(b"b", Family::V4).expect("free");
        pool.release(b"a", a);
        pool.release(b"a", a);
        pool.release(b"b", b);
        assert_eq!(pool.in_use(), 0);
        assert_eq!(pool.allocate(b"b", Family::V4), Some(b));
        assert_eq!(pool.allocate(b"a", Family::V4), Some(a));
        assert_ne!(pool.allocate(b"a", Family::V4), Some(a), "a second session gets another one");
        assert!(pool.allocate(b"a", Family::V6).expect("free").is_ipv6());
    }

    #[test]
    fn released_addresses_are_reused_oldest_first_and_bookkeeping_stays_bounded() {
        let mut pool = pool(&["10.0.0.0/29"]);
        let taken: Vec<_> = (0..4u8).map(|i| pool.allocate(&[i], Family::V4).expect("free")).collect();
        pool.release(&[2], taken[2]);
        pool.release(&[0], taken[0]);
        assert_eq!(pool.allocate(b"new", Family::V4), Some(taken[2]));
        assert_eq!(pool.allocate(&[2], Family::V4), Some(taken[0]), "its own is gone");
        for round in 0..10_000u32 {
            let key = round.to_be_bytes();
            pool.release(&key, taken[1]);
            assert_eq!(pool.allocate(&key, Family::V4), Some(taken[1]));
        }
        assert!(pool.released[0].len() <= 80);
        assert!(pool.sticky.len() <= 4);
    }

    #[test]
    fn reload_reclaims_addresses_in_use() {
        let mut pool = pool(&["10.0.0.0/29"]);
        let held: IpAddr = "10.0.0.2".parse().expect("an address");
        assert!(pool.reclaim(held));
        assert!(!pool.reclaim(held));
        assert!(!pool.reclaim("10.9.0.1".parse().expect("an address")));
        assert_ne!(pool.allocate(b"x", Family::V4), Some(held));
        pool.release(b"y", held);
        assert_eq!(pool.allocate(b"y", Family::V4), Some(held));
    }

    #[test]
    fn a_huge_prefix_is_cut_to_the_bound() {
        let block = Block::new("fd00::/64".parse().expect("a prefix"));
        assert_eq!(block.end - block.next, ADDRESSES_PER_PREFIX_MAX);
        let block = Block::new("::/0".parse().expect("a prefix"));
        assert_eq!(block.end - block.next, ADDRESSES_PER_PREFIX_MAX);
    }
}

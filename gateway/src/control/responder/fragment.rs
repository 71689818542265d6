//! IKE fragmentation (RFC 7383): joining what arrives in pieces, and saying how long a message of ours may be.
//!
//! Every fragment is verified before anything of it is kept, so only the peer can fill the memory of its own IKE SA.
//! Over TCP fragments are taken and never sent (RFC 9329 §7.5).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use codec::crypto::{OpenedFragment, SkError, SkKey, open_skf};
use codec::ike::{IkeHeader, IkeSpi, MessageId, PayloadType};

use super::sa::Session;
use super::{Arrived, Core, window};
use crate::types::{Path, Transport};

/// Most fragments of one message: 65,529 octets in packets of 576 octets need fewer.
const FRAGMENTS_MAX: u16 = 256;

/// Messages of one session that are joined at once: a request and a response.
const MESSAGES_MAX: usize = 2;

/// Octets of UDP header and non-ESP marker.
const UDP_OVERHEAD: usize = 8 + 4;

/// Whether a message is a fragment. Its Encrypted Fragment payload could follow others, which nobody sends.
pub(super) fn is_fragment(header: &IkeHeader) -> bool {
    header.next_payload == PayloadType::ENCRYPTED_FRAGMENT
}

/// Which message a fragment belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// Our SPI of its IKE SA.
    pub(super) spi: IkeSpi,
    pub(super) response: bool,
    pub(super) message_id: MessageId,
}

/// A message whose fragments are all here.
pub(super) struct Whole {
    /// Type of the first inner payload.
    pub(super) first: PayloadType,
    /// The inner payload chain.
    pub(super) chain: Vec<u8>,
    /// The digest of fragment 1, by which its repetition is known (RFC 7383 §2.6.1).
    pub(super) digest: u64,
}

/// What became of a fragment.
pub(super) enum Joined {
    /// It was the last one missing.
    Whole(Whole),
    /// It is kept, or was not needed.
    Waiting,
    /// It is not authentic.
    BadIcv,
    /// It cannot be used.
    Refused,
}

/// The fragments of one message that have arrived.
pub(super) struct Reassembly {
    key: Key,
    total: u16,
    first: PayloadType,
    digest: u64,
    parts: BTreeMap<u16, Box<[u8]>>,
    held: Held,
    expires: Instant,
}

/// Octets that count towards the bound of all reassemblies for as long as this lives.
struct Held {
    all: Arc<AtomicUsize>,
    octets: usize,
}

impl Held {
    /// Adds octets unless that goes beyond `max`.
    fn grow(&mut self, octets: usize, max: usize) -> bool {
        let fits = self.all.load(Relaxed) + octets <= max;
        if fits {
            self.all.fetch_add(octets, Relaxed);
            self.octets += octets;
        }
        fits
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.octets, Relaxed);
    }
}

impl Reassembly {
    /// When it is given up.
    pub(super) fn expires(&self) -> Instant {
        self.expires
    }

    fn finish(self) -> Whole {
        let chain = self.parts.values().flat_map(|part| part.iter()).copied().collect();
        Whole { first: self.first, chain, digest: self.digest }
    }
}

impl Core {
    /// Takes one fragment into `list`, which holds the unfinished messages of one session or half-open IKE SA.
    pub(super) fn join(
        &mut self,
        at: &Arrived,
        key: Key,
        sk: &SkKey,
        list: &mut Vec<Reassembly>,
        message: &mut [u8],
    ) -> Joined {
        let digest = window::digest(&self.hasher, message);
        let fragment = match open_skf(message, sk) {
            Ok(fragment) => fragment,
            Err(SkError::BadIcv) => return Joined::BadIcv,
            Err(_) => {
                self.counters.drops.bad_fragment += 1;
                return Joined::Refused;
            }
        };
        self.counters.exchanges.fragments_received += 1;
        if fragment.total > FRAGMENTS_MAX {
            self.counters.drops.bad_fragment += 1;
            return Joined::Refused;
        }
        self.expire_fragments(at.now, list);
        let content = message.get(fragment.inner.clone()).unwrap_or_default();
        let slot = self.reassembly(at, key, &fragment, list);
        let Some(slot) = slot else { return Joined::Waiting };
        let reassembly = &mut list[slot];
        if reassembly.parts.contains_key(&fragment.number) {
            return Joined::Waiting;
        }
        let limits = &self.config.limits;
        let fits = reassembly.held.octets + content.len() <= limits.message_len_max
            && reassembly.held.grow(content.len(), limits.fragment_memory);
        if !fits {
            self.counters.drops.fragment_limit += 1;
            list.swap_remove(slot);
            return Joined::Refused;
        }
        if fragment.number == 1 {
            (reassembly.first, reassembly.digest) = (fragment.first, digest);
        }
        reassembly.parts.insert(fragment.number, content.into());
        if reassembly.parts.len() < usize::from(reassembly.total) {
            return Joined::Waiting;
        }
        self.counters.exchanges.messages_joined += 1;
        Joined::Whole(list.swap_remove(slot).finish())
    }

    /// The place in `list` for a fragment; `None` when it is of an older division of the message.
    fn reassembly(
        &self,
        at: &Arrived,
        key: Key,
        fragment: &OpenedFragment,
        list: &mut Vec<Reassembly>,
    ) -> Option<usize> {
        let found = list.iter().position(|reassembly| reassembly.key == key);
        if let Some(slot) = found {
            // RFC 7383 §2.6: a larger total is a new division, in smaller pieces; a smaller one is an old one.
            if list[slot].total == fragment.total {
                return Some(slot);
            }
            if list[slot].total > fragment.total {
                return None;
            }
            list.swap_remove(slot);
        }
        if list.len() == MESSAGES_MAX {
            list.remove(0);
        }
        list.push(Reassembly {
            key,
            total: fragment.total,
            first: PayloadType::NONE,
            digest: 0,
            parts: BTreeMap::new(),
            held: Held { all: self.fragment_octets.clone(), octets: 0 },
            expires: at.now + self.config.limits.fragment_timeout,
        });
        Some(list.len() - 1)
    }

    /// Gives up what has waited too long.
    pub(super) fn expire_fragments(&mut self, now: Instant, list: &mut Vec<Reassembly>) {
        let before = list.len();
        list.retain(|reassembly| reassembly.expires > now);
        self.counters.drops.fragment_timeout += (before - list.len()) as u64;
        if list.is_empty() {
            *list = Vec::new();
        }
    }

    /// How long a message of ours to a peer may be before it is divided; `None` where it never is.
    pub(super) fn message_room(&self, negotiated: bool, path: &Path) -> Option<usize> {
        let ip = if path.remote.is_ipv4() { 20 } else { 40 };
        let divided = negotiated && path.transport == Transport::Udp;
        divided.then(|| self.config.limits.fragment_packet_len.saturating_sub(ip + UDP_OVERHEAD))
    }
}

impl Session {
    /// How long its next message may be where it is now.
    pub(super) fn room(&self, core: &Core) -> Option<usize> {
        core.message_room(self.fragmentation, &self.path)
    }
}

/// The messages in `octets`: one, or the fragments of one in a row. Each says its length itself.
pub(super) fn messages(mut octets: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let length = IkeHeader::decode(&octets).ok()?.length as usize;
        Some(octets.split_to(length.min(octets.len())))
    })
}

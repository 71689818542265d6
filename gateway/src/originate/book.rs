//! Which link a datagram belongs to.
//!
//! An IKE message says so itself, once its SPIs have been seen with the link. What does not is attributed by
//! where it comes from: a successor of an IKE SA by rekey appears behind the CREATE_CHILD_SA exchange that
//! made it, and an ESP SPI behind the exchange that negotiated it, so both belong to the link of their source
//! that made an SA last. A client with a single IKE SA is always right; with several from one port, one
//! whose SAs come up at the same moment may be attributed wrongly, and its packets are then dropped by the
//! gateway (RFC 9329 §6.1) until the next exchange.
//!
//! A link is bound to the client's address: SPIs travel in clear, and nobody else on the local network takes
//! over an IKE SA by knowing them.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use ahash::AHashMap;
use codec::esp::EspSpi;
use codec::ike::{ExchangeType, IkeSpi};

use crate::bridge::MessageInfo;
use crate::limits::{ORIGINATE_IKE_SPIS_PER_LINK, ORIGINATE_SOURCES_PER_LINK, ORIGINATE_SPIS_MAX};

/// What is known of the links. A link is named by its slot.
#[derive(Default)]
pub(super) struct Book {
    by_ike: AHashMap<(IpAddr, IkeSpi), u32>,
    by_esp: AHashMap<(SocketAddr, EspSpi), u32>,
    /// Links of a source, the one that made an SA last at the end.
    by_source: AHashMap<SocketAddr, Vec<u32>>,
    /// What stands of each link in `by_ike` and `by_source`.
    of_link: AHashMap<u32, Known>,
}

/// What is known of one link, last used at the end: what comes with every message is bounded, whoever sends it.
#[derive(Default)]
struct Known {
    spis: VecDeque<(IpAddr, IkeSpi)>,
    sources: VecDeque<SocketAddr>,
}

impl Book {
    /// The link of an IKE message; `None` when it needs a new one.
    pub fn ike(&mut self, from: SocketAddr, info: &MessageInfo) -> Option<u32> {
        let slot = match self.by_ike.get(&(from.ip(), info.spi_i)) {
            Some(&slot) => slot,
            None if info.opens_session() => return None,
            // A successor by rekey, or an IKE SA from before this process: that one gets a link of its own.
            None => *self.by_source.get(&from)?.last()?,
        };
        self.learn(slot, from.ip(), info.spi_i);
        Some(slot)
    }

    /// The link of an ESP packet; `None` when it needs a new one.
    pub fn esp(&mut self, from: SocketAddr, spi: EspSpi) -> Option<u32> {
        if let Some(&slot) = self.by_esp.get(&(from, spi)) {
            return Some(slot);
        }
        let slot = *self.by_source.get(&from)?.last()?;
        if self.by_esp.len() >= ORIGINATE_SPIS_MAX {
            // Those in use are learnt again with their next packets.
            self.by_esp.clear();
        }
        self.by_esp.insert((from, spi), slot);
        Some(slot)
    }

    /// The link of a source that made an SA last.
    pub fn last(&self, from: SocketAddr) -> Option<u32> {
        self.by_source.get(&from)?.last().copied()
    }

    /// Notes that messages of this IKE SA are the link's, whichever leg they came by.
    pub fn learn(&mut self, slot: u32, client: IpAddr, spi_i: IkeSpi) {
        let key = (client, spi_i);
        if let Some(before) = self.by_ike.insert(key, slot)
            && before != slot
            && let Some(known) = self.of_link.get_mut(&before)
        {
            known.spis.retain(|other| *other != key);
        }
        let known = self.of_link.entry(slot).or_default();
        if let Some(oldest) = refresh(&mut known.spis, key, ORIGINATE_IKE_SPIS_PER_LINK) {
            self.by_ike.remove(&oldest);
        }
    }

    /// Notes that the link's client sends from `from`, and whether it is making an SA.
    pub fn seen(&mut self, slot: u32, from: SocketAddr, exchange: ExchangeType) {
        let known = self.of_link.entry(slot).or_default();
        if let Some(oldest) = refresh(&mut known.sources, from, ORIGINATE_SOURCES_PER_LINK) {
            self.leave(slot, oldest);
        }
        let makes_sa = matches!(exchange, ExchangeType::IKE_AUTH | ExchangeType::CREATE_CHILD_SA);
        let links = self.by_source.entry(from).or_default();
        if !makes_sa && links.contains(&slot) {
            return;
        }
        if makes_sa && links.last() == Some(&slot) {
            return;
        }
        links.retain(|other| *other != slot);
        if makes_sa { links.push(slot) } else { links.insert(0, slot) }
    }

    /// Forgets a link.
    pub fn remove(&mut self, slot: u32) {
        self.by_esp.retain(|_, other| *other != slot);
        let known = self.of_link.remove(&slot).unwrap_or_default();
        for key in &known.spis {
            self.by_ike.remove(key);
        }
        for from in known.sources {
            self.leave(slot, from);
        }
    }

    /// Forgets that the link's client sends from `from`.
    fn leave(&mut self, slot: u32, from: SocketAddr) {
        let Some(links) = self.by_source.get_mut(&from) else { return };
        links.retain(|other| *other != slot);
        if links.is_empty() {
            self.by_source.remove(&from);
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        let found = self.by_ike.is_empty() && self.by_esp.is_empty() && self.by_source.is_empty();
        found && self.of_link.is_empty()
    }
}

/// Takes `item` to the end of `list`; what that leaves no room for at the front, with `max` places.
fn refresh<T: PartialEq>(list: &mut VecDeque<T>, item: T, max: usize) -> Option<T> {
    list.retain(|other| *other != item);
    list.push_back(item);
    if list.len() > max { list.pop_front() } else { None }
}

#[cfg(test)]
mod tests {
    use codec::ike::MessageId;

    use super::*;
    use crate::bridge::Fragment;

    const PHONE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 4500);
    const OTHER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)), 4500);

    fn info(spi_i: u8, exchange: ExchangeType) -> MessageInfo {
        let initial = exchange == ExchangeType::IKE_SA_INIT;
        MessageInfo {
            spi_i: IkeSpi([spi_i; 8]),
            spi_r: if initial { IkeSpi::ZERO } else { IkeSpi([9; 8]) },
            message_id: MessageId(0),
            exchange,
            is_response: false,
            is_protected: !initial,
            fragment: Fragment::WHOLE,
        }
    }

    fn attach(book: &mut Book, slot: u32, from: SocketAddr, spi_i: u8) {
        assert_eq!(book.ike(from, &info(spi_i, ExchangeType::IKE_SA_INIT)), None);
        book.learn(slot, from.ip(), IkeSpi([spi_i; 8]));
        book.seen(slot, from, ExchangeType::IKE_SA_INIT);
        book.seen(slot, from, ExchangeType::IKE_AUTH);
    }

    #[test]
    fn r9329_6_1_o5_every_ike_sa_has_a_link_and_its_successor_stays_there() {
        let mut book = Book::default();
        attach(&mut book, 0, PHONE, 1);
        attach(&mut book, 1, PHONE, 2);
        assert_eq!(book.ike(PHONE, &info(1, ExchangeType::INFORMATIONAL)), Some(0));
        assert_eq!(book.ike(PHONE, &info(2, ExchangeType::INFORMATIONAL)), Some(1));
        // The first one is rekeyed: what follows under new SPIs is its successor.
        book.seen(0, PHONE, ExchangeType::CREATE_CHILD_SA);
        assert_eq!(book.ike(PHONE, &info(3, ExchangeType::INFORMATIONAL)), Some(0));
        book.seen(1, PHONE, ExchangeType::CREATE_CHILD_SA);
        assert_eq!(book.ike(PHONE, &info(3, ExchangeType::INFORMATIONAL)), Some(0), "it stays there");
        assert_eq!(book.ike(PHONE, &info(4, ExchangeType::IKE_SA_INIT)), None, "a new IKE SA");
    }

    #[test]
    fn esp_belongs_to_the_link_that_made_its_sa() {
        let mut book = Book::default();
        assert_eq!(book.esp(PHONE, EspSpi(1000)), None);
        attach(&mut book, 0, PHONE, 1);
        assert_eq!(book.esp(PHONE, EspSpi(1000)), Some(0));
        attach(&mut book, 1, PHONE, 2);
        assert_eq!(book.esp(PHONE, EspSpi(2000)), Some(1));
        assert_eq!(book.esp(PHONE, EspSpi(1000)), Some(0));
        book.seen(0, PHONE, ExchangeType::INFORMATIONAL);
        assert_eq!(book.esp(PHONE, EspSpi(2001)), Some(1), "a liveness check makes no SA");
    }

    #[test]
    fn knowing_the_spis_of_another_client_takes_over_nothing() {
        let mut book = Book::default();
        attach(&mut book, 0, PHONE, 1);
        assert_eq!(book.ike(OTHER, &info(1, ExchangeType::INFORMATIONAL)), None);
        assert_eq!(book.esp(OTHER, EspSpi(1000)), None);
        // Another port of the same client is a NAT on the way, or its port 500.
        let moved = SocketAddr::new(PHONE.ip(), 500);
        assert_eq!(book.ike(moved, &info(1, ExchangeType::INFORMATIONAL)), Some(0));
    }

    #[test]
    fn a_removed_link_leaves_nothing_behind() {
        let mut book = Book::default();
        attach(&mut book, 0, PHONE, 1);
        attach(&mut book, 1, OTHER, 1);
        book.esp(PHONE, EspSpi(1000));
        book.esp(OTHER, EspSpi(1000));
        book.remove(0);
        assert_eq!(book.esp(PHONE, EspSpi(1000)), None);
        assert_eq!(book.esp(OTHER, EspSpi(1000)), Some(1));
        book.remove(1);
        assert!(book.is_empty());
    }

    #[test]
    fn what_is_remembered_of_an_ike_sa_is_bounded_and_what_it_uses_stays() {
        let mut book = Book::default();
        attach(&mut book, 0, PHONE, 1);
        attach(&mut book, 1, PHONE, 2);
        book.seen(0, PHONE, ExchangeType::CREATE_CHILD_SA);
        for n in 0..10_000_u64 {
            // Messages of either side with SPIs that nobody has negotiated, among honest ones of both links.
            let unknown =
                MessageInfo { spi_i: IkeSpi((n + 1000).to_be_bytes()), ..info(3, ExchangeType::IKE_AUTH) };
            assert_eq!(book.ike(PHONE, &unknown), Some(0));
            book.learn(0, PHONE.ip(), IkeSpi((n + 100_000).to_be_bytes()));
            assert_eq!(book.ike(PHONE, &info(1, ExchangeType::INFORMATIONAL)), Some(0));
            assert_eq!(book.ike(PHONE, &info(2, ExchangeType::INFORMATIONAL)), Some(1));
            assert!(book.by_ike.len() <= 2 * ORIGINATE_IKE_SPIS_PER_LINK);
        }
        for port in 5000..6000 {
            let elsewhere = SocketAddr::new(PHONE.ip(), port);
            assert_eq!(book.ike(elsewhere, &info(1, ExchangeType::INFORMATIONAL)), Some(0));
            book.seen(0, elsewhere, ExchangeType::INFORMATIONAL);
            book.seen(0, PHONE, ExchangeType::INFORMATIONAL);
            assert!(book.by_source.len() <= 2 * ORIGINATE_SOURCES_PER_LINK);
        }
        assert_eq!(book.last(PHONE), Some(0));
        // An SPI that another link brings is that one's from then on.
        book.learn(1, PHONE.ip(), IkeSpi([1; 8]));
        book.remove(0);
        assert_eq!(book.ike(PHONE, &info(1, ExchangeType::INFORMATIONAL)), Some(1));
        book.remove(1);
        assert!(book.is_empty());
    }

    #[test]
    fn what_is_remembered_of_esp_is_bounded() {
        let mut book = Book::default();
        attach(&mut book, 0, PHONE, 1);
        for spi in 0..2 * ORIGINATE_SPIS_MAX as u32 {
            assert_eq!(book.esp(PHONE, EspSpi(256 + spi)), Some(0));
            assert!(book.by_esp.len() <= ORIGINATE_SPIS_MAX);
        }
    }
}

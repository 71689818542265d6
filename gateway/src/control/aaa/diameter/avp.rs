//! AVPs (RFC 6733 §4): a view over received octets, and a writer.
//!
//! ```text
//!  0               4        5                 8               12 (with V)
//!  | Code (u32)    | V M P..| Length (u24)    | Vendor-Id     | data, padded to 4 octets |
//! ```
//! Length counts the header and the data, not the padding.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::names::{Name, is_known};

/// The V flag: a Vendor-Id follows.
const VENDOR: u8 = 0x80;
/// The M flag: who does not know the AVP must refuse the message.
const MANDATORY: u8 = 0x40;

/// Octets of a header without Vendor-Id.
const HEADER: usize = 8;

/// How deep groups are written and looked into. Ours are two deep.
const DEPTH_MAX: usize = 4;

/// One AVP of a received message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Avp<'a> {
    /// AVP Code.
    pub code: u32,
    /// Vendor-Id; 0 is none.
    pub vendor: u32,
    /// Whether the sender set the M bit.
    pub mandatory: bool,
    /// Its data, without padding.
    pub data: &'a [u8],
    /// All of it with its header, without padding: what goes into a Failed-AVP.
    pub octets: &'a [u8],
}

/// An AVP that does not fit what surrounds it. Carries what there is of its header, for a Failed-AVP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadLength<'a>(pub &'a [u8]);

impl<'a> Avp<'a> {
    /// Whether it is the one that `name` names.
    pub fn is(&self, name: Name) -> bool {
        self.code == name.code && self.vendor == name.vendor
    }

    /// Unsigned32 and Enumerated.
    pub fn number(&self) -> Option<u32> {
        self.data.try_into().ok().map(u32::from_be_bytes)
    }

    /// UTF8String and DiameterIdentity.
    pub fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.data).ok()
    }

    /// Address (RFC 6733 §4.3.1): a family of two octets, 1 for IPv4 and 2 for IPv6, then the address.
    pub fn address(&self) -> Option<IpAddr> {
        match self.data {
            [0, 1, v4 @ ..] => <[u8; 4]>::try_from(v4).ok().map(|v4| Ipv4Addr::from(v4).into()),
            [0, 2, v6 @ ..] => <[u8; 16]>::try_from(v6).ok().map(|v6| Ipv6Addr::from(v6).into()),
            _ => None,
        }
    }

    /// The AVPs inside; what does not parse ends them.
    pub fn group(&self) -> impl Iterator<Item = Avp<'a>> + use<'a> {
        Avps::new(self.data).map_while(Result::ok)
    }

    /// The AVP inside that `name` names.
    pub fn inner(&self, name: Name) -> Option<Avp<'a>> {
        self.group().find(|avp| avp.is(name))
    }

    /// Whether we may pass over it if we do not know it.
    pub fn is_acceptable(&self) -> bool {
        !self.mandatory || is_known(self.code, self.vendor)
    }
}

/// The AVPs of a message or a group, as far as they parse.
#[derive(Clone)]
pub struct Avps<'a> {
    rest: &'a [u8],
}

impl<'a> Avps<'a> {
    /// Over `octets`, which begin with an AVP.
    pub fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }

    fn read(&mut self) -> Result<Avp<'a>, BadLength<'a>> {
        let rest = self.rest;
        let bad = BadLength(&rest[..rest.len().min(HEADER)]);
        let (&[c0, c1, c2, c3, flags, l0, l1, l2], _) = rest.split_first_chunk::<HEADER>().ok_or(bad)?;
        let len = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let octets = rest.get(..len).ok_or(bad)?;
        let body = octets.get(HEADER..).ok_or(bad)?;
        let (vendor, data) = if flags & VENDOR == 0 {
            (0, body)
        } else {
            let (vendor, data) = body.split_first_chunk::<4>().ok_or(bad)?;
            (u32::from_be_bytes(*vendor), data)
        };
        // The last AVP of a group may stand without its padding; that of a message cannot.
        self.rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        let code = u32::from_be_bytes([c0, c1, c2, c3]);
        Ok(Avp { code, vendor, mandatory: flags & MANDATORY != 0, data, octets })
    }
}

impl<'a> Iterator for Avps<'a> {
    type Item = Result<Avp<'a>, BadLength<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let avp = self.read();
        if avp.is_err() {
            self.rest = &[];
        }
        Some(avp)
    }
}

/// Writes AVPs one after the other.
#[derive(Default)]
pub struct AvpWriter {
    octets: Vec<u8>,
    depth: usize,
}

impl AvpWriter {
    /// Continues after `octets`, the header of a message.
    pub fn after(octets: Vec<u8>) -> Self {
        Self { octets, depth: 0 }
    }

    /// What was written.
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }

    /// OctetString. Data is bounded by what a message may carry, which is far below a length of 24 bits.
    pub fn octets(&mut self, name: Name, data: &[u8]) -> &mut Self {
        let start = self.open(name);
        self.octets.extend_from_slice(data);
        self.close(start);
        self
    }

    /// UTF8String and DiameterIdentity.
    pub fn text(&mut self, name: Name, text: &str) -> &mut Self {
        self.octets(name, text.as_bytes())
    }

    /// Unsigned32 and Enumerated.
    pub fn number(&mut self, name: Name, number: u32) -> &mut Self {
        self.octets(name, &number.to_be_bytes())
    }

    /// Address.
    pub fn address(&mut self, name: Name, address: IpAddr) -> &mut Self {
        let start = self.open(name);
        match address {
            IpAddr::V4(v4) => {
                self.octets.extend_from_slice(&[0, 1]);
                self.octets.extend_from_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                self.octets.extend_from_slice(&[0, 2]);
                self.octets.extend_from_slice(&v6.octets());
            }
        }
        self.close(start);
        self
    }

    /// Grouped, with what `inside` writes.
    pub fn group(&mut self, name: Name, inside: impl FnOnce(&mut Self)) -> &mut Self {
        debug_assert!(self.depth < DEPTH_MAX, "groups of ours are not that deep");
        let start = self.open(name);
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        self.close(start);
        self
    }

    /// An AVP as it was received, padded anew.
    pub fn copy(&mut self, octets: &[u8]) -> &mut Self {
        self.octets.extend_from_slice(octets);
        self.pad();
        self
    }

    fn open(&mut self, name: Name) -> usize {
        let start = self.octets.len();
        let vendor = if name.vendor == 0 { 0 } else { VENDOR };
        let mandatory = if name.must { MANDATORY } else { 0 };
        self.octets.extend_from_slice(&name.code.to_be_bytes());
        self.octets.extend_from_slice(&[vendor | mandatory, 0, 0, 0]);
        if name.vendor != 0 {
            self.octets.extend_from_slice(&name.vendor.to_be_bytes());
        }
        start
    }

    fn close(&mut self, start: usize) {
        let len = (self.octets.len() - start) as u32;
        let [_, l0, l1, l2] = len.to_be_bytes();
        self.octets[start + 5..start + 8].copy_from_slice(&[l0, l1, l2]);
        self.pad();
    }

    fn pad(&mut self) {
        self.octets.resize(self.octets.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::names::{self, TGPP};
    use super::*;

    fn written(write: impl FnOnce(&mut AvpWriter)) -> Vec<u8> {
        let mut writer = AvpWriter::default();
        write(&mut writer);
        writer.into_octets()
    }

    /// Layouts by hand from RFC 6733 §4.1, one with a vendor and one without.
    #[test]
    fn r6733_4_1_layout() {
        let octets = written(|writer| {
            writer.text(names::USER_NAME, "0001").number(names::RAT_TYPE, 0);
        });
        let expected = [
            &[0, 0, 0, 1, 0x40, 0, 0, 12][..],
            b"0001",
            &[0, 0, 4, 8, 0xc0, 0, 0, 16, 0, 0, 0x28, 0xaf, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(octets, expected);
        let avps: Vec<_> = Avps::new(&octets).map(|avp| avp.expect("well formed")).collect();
        assert_eq!((avps[0].code, avps[0].vendor, avps[0].text()), (1, 0, Some("0001")));
        assert_eq!((avps[1].code, avps[1].vendor, avps[1].number()), (1032, TGPP, Some(0)));
    }

    #[test]
    fn r6733_4_3_addresses_have_a_family() {
        for address in ["192.0.2.7", "2001:db8::7"] {
            let address: IpAddr = address.parse().expect("an address");
            let octets = written(|writer| {
                writer.address(names::UE_LOCAL_IP_ADDRESS, address);
            });
            let avp = Avps::new(&octets).next().expect("one").expect("well formed");
            assert_eq!(avp.address(), Some(address));
            assert!(!avp.mandatory, "TS 29.273 table 7.2.3.1: M is not set");
        }
        let wrong = Avp { code: 257, vendor: 0, mandatory: true, data: &[0, 1, 1, 2, 3], octets: &[] };
        assert_eq!(wrong.address(), None);
    }

    #[test]
    fn r6733_4_1_lengths_that_do_not_fit() {
        // Shorter than its header, longer than what there is, too short for its Vendor-Id.
        for octets in [
            &[0, 0, 0, 1, 0x40, 0, 0, 7][..],
            &[0, 0, 0, 1, 0x40, 0, 0, 13, 1, 2, 3, 4],
            &[0, 0, 0, 1, 0xc0, 0, 0, 10, 1, 2, 0, 0],
            &[0, 0, 0, 1],
        ] {
            let mut avps = Avps::new(octets);
            assert_eq!(avps.next(), Some(Err(BadLength(&octets[..octets.len().min(8)]))));
            assert_eq!(avps.next(), None);
        }
    }

    #[test]
    fn r6733_4_1_unknown_avps_with_the_m_bit() {
        let unknown = Name { code: 4_000, vendor: 0, must: true };
        let passed = Name { must: false, ..unknown };
        let octets = written(|writer| {
            writer.number(unknown, 1).number(passed, 1).number(names::RESULT_CODE, 2001);
        });
        let acceptable: Vec<bool> =
            Avps::new(&octets).map(|avp| avp.expect("well formed").is_acceptable()).collect();
        assert_eq!(acceptable, [false, true, true]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(datas in prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..12)) {
            let octets = written(|writer| {
                for (code, vendor, must, data) in &datas {
                    writer.octets(Name { code: *code, vendor: *vendor, must: *must }, data);
                }
            });
            prop_assert_eq!(octets.len() % 4, 0);
            let read: Vec<_> = Avps::new(&octets)
                .map(|avp| avp.expect("well formed"))
                .map(|avp| (avp.code, avp.vendor, avp.mandatory, avp.data.to_vec()))
                .collect();
            prop_assert_eq!(read, datas);
        }

        #[test]
        fn any_octets_end(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Avps::new(&octets).count() <= octets.len() / 8 + 1);
        }
    }
}

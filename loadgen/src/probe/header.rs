//! The fixed part of every probe payload.

/// Octets of an encoded [`ProbeHeader`].
pub const PROBE_HEADER_LEN: usize = 36;
/// Last packet of a burst: acknowledge now.
pub const FLAG_ACK_NOW: u8 = 0x01;
/// The packet belongs to the downlink flow of the UE (data from the sink, acknowledgements to it).
pub const FLAG_DOWNLINK: u8 = 0x02;
/// Asks the sink to send the flow's packets with DSCP EF (RFC 3246).
pub const FLAG_EF: u8 = 0x04;
/// [`ProbeHeader::mark`] of data whose flow was not cut within the last 65,535 packets.
pub const MARK_NONE: u16 = u16::MAX;

const MAGIC: u32 = 0x5357_5550;
const CHECKED_LEN: usize = PROBE_HEADER_LEN - 4;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ProbeKind {
    /// Carries pattern octets; counted at the far end.
    Data = 1,
    /// Answers data: `seq` is the number of distinct packets up to and including the highest one seen.
    Ack = 2,
    /// Opens a flow at the sink; the payload is a [`crate::sink::protocol::Start`].
    Start = 3,
    /// Answers [`ProbeKind::Start`]; the payload is a [`crate::sink::protocol::Started`].
    Started = 4,
    /// Ends a flow at the sink.
    Stop = 5,
    /// Answers [`ProbeKind::Stop`]; the payload is a [`crate::sink::protocol::Report`].
    Report = 6,
}

/// Identifies one probe.
///
/// Shape, big-endian, 36 octets: magic (4), kind (1), flags (1), mark (2), UE index (4), run (4), sequence number (8),
/// sending time (8), CRC-32 over the 32 octets before it (4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeHeader {
    /// What the probe is for.
    pub kind: ProbeKind,
    /// [`FLAG_ACK_NOW`], [`FLAG_DOWNLINK`], [`FLAG_EF`].
    pub flags: u8,
    /// Data: packets of the flow since its connection was cut, [`MARK_NONE`] when that is long ago. Acknowledgement of
    /// downlink data: how often the UE has cut its connection, modulo 2^16. Acknowledgement of uplink data: packets of
    /// the train that the acknowledged packet came in. Otherwise 0.
    pub mark: u16,
    /// Index of the UE within the load generator.
    pub ue: u32,
    /// Number that tells one run's packets from an earlier run's.
    pub run: u32,
    /// Sequence number within the UE and direction, from 0.
    pub seq: u64,
    /// CLOCK_MONOTONIC of the sender in nanoseconds; in an acknowledgement of downlink data that of the packet which asked
    /// for it, or 0.
    pub sent_ns: u64,
}

/// Why octets are no probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer than [`PROBE_HEADER_LEN`] octets, or another program's packet.
    #[error("not a probe packet")]
    Foreign,
    /// The magic is there but the checksum fails or the kind is unknown.
    #[error("probe header is corrupt")]
    Corrupt,
}

impl ProbeHeader {
    /// Writes the header to the start of `out`.
    ///
    /// # Panics
    /// If `out` is shorter than [`PROBE_HEADER_LEN`].
    pub fn encode(&self, out: &mut [u8]) {
        let out = &mut out[..PROBE_HEADER_LEN];
        out[0..4].copy_from_slice(&MAGIC.to_be_bytes());
        out[4] = self.kind as u8;
        out[5] = self.flags;
        out[6..8].copy_from_slice(&self.mark.to_be_bytes());
        out[8..12].copy_from_slice(&self.ue.to_be_bytes());
        out[12..16].copy_from_slice(&self.run.to_be_bytes());
        out[16..24].copy_from_slice(&self.seq.to_be_bytes());
        out[24..32].copy_from_slice(&self.sent_ns.to_be_bytes());
        let crc = crc32fast::hash(&out[..CHECKED_LEN]);
        out[CHECKED_LEN..].copy_from_slice(&crc.to_be_bytes());
    }

    /// Reads a header and returns it with the octets after it.
    ///
    /// # Errors
    /// [`HeaderError::Foreign`] for octets that never were a probe, [`HeaderError::Corrupt`] for one that was damaged.
    pub fn decode(payload: &[u8]) -> Result<(Self, &[u8]), HeaderError> {
        let Some((head, rest)) = payload.split_first_chunk::<PROBE_HEADER_LEN>() else {
            return Err(HeaderError::Foreign);
        };
        if be32(head, 0) != MAGIC {
            return Err(HeaderError::Foreign);
        }
        if crc32fast::hash(&head[..CHECKED_LEN]) != be32(head, CHECKED_LEN) {
            return Err(HeaderError::Corrupt);
        }
        let kind = ProbeKind::from_octet(head[4]).ok_or(HeaderError::Corrupt)?;
        let header = Self {
            kind,
            flags: head[5],
            mark: u16::from_be_bytes([head[6], head[7]]),
            ue: be32(head, 8),
            run: be32(head, 12),
            seq: be64(head, 16),
            sent_ns: be64(head, 24),
        };
        Ok((header, rest))
    }
}

impl ProbeKind {
    fn from_octet(octet: u8) -> Option<Self> {
        [Self::Data, Self::Ack, Self::Start, Self::Started, Self::Stop, Self::Report]
            .into_iter()
            .find(|kind| *kind as u8 == octet)
    }
}

fn be32(octets: &[u8; PROBE_HEADER_LEN], at: usize) -> u32 {
    u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
}

fn be64(octets: &[u8; PROBE_HEADER_LEN], at: usize) -> u64 {
    u64::from(be32(octets, at)) << 32 | u64::from(be32(octets, at + 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> ProbeHeader {
        ProbeHeader {
            kind: ProbeKind::Data,
            flags: FLAG_DOWNLINK,
            mark: MARK_NONE,
            ue: 9_999,
            run: 77,
            seq: 1 << 40,
            sent_ns: u64::MAX,
        }
    }

    #[test]
    fn every_flipped_bit_is_corrupt_or_foreign() {
        let mut octets = [0_u8; PROBE_HEADER_LEN];
        sample().encode(&mut octets);
        for bit in 0..octets.len() * 8 {
            octets[bit / 8] ^= 1 << (bit % 8);
            assert!(ProbeHeader::decode(&octets).is_err(), "bit {bit}");
            octets[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(ProbeHeader::decode(&octets).is_ok());
    }

    proptest! {
        #[test]
        fn round_trip(flags: u8, mark: u16, ue: u32, run: u32, seq: u64, sent_ns: u64, rest: Vec<u8>) {
            let header = ProbeHeader { kind: ProbeKind::Ack, flags, mark, ue, run, seq, sent_ns };
            let mut octets = vec![0; PROBE_HEADER_LEN];
            header.encode(&mut octets);
            octets.extend_from_slice(&rest);
            prop_assert_eq!(ProbeHeader::decode(&octets), Ok((header, &rest[..])));
        }

        #[test]
        fn arbitrary_octets_never_panic(octets: Vec<u8>) {
            let _ = ProbeHeader::decode(&octets);
        }
    }
}

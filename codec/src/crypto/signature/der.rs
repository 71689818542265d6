//! The little DER that signatures need: definite, minimal lengths only.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const NULL: u8 = 0x05;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// The tag of an explicit, constructed, context-specific field.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// Elements one after the other.
#[derive(Clone, Copy)]
pub(super) struct Der<'a>(pub(super) &'a [u8]);

impl<'a> Der<'a> {
    /// Takes the next element, whatever it is: its tag, its content, and all of it.
    pub(super) fn any(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let all = self.0;
        let (&tag, rest) = all.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 => {
                let (&length, rest) = rest.split_first()?;
                (usize::from(length), rest)
            }
            0x82 => {
                let (length, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            _ => return None,
        };
        let minimal = match first {
            0x81 => length >= 0x80,
            0x82 => length >= 0x100,
            _ => true,
        };
        let (content, rest) = rest.split_at_checked(length).filter(|_| minimal)?;
        self.0 = rest;
        Some((tag, content, &all[..all.len() - rest.len()]))
    }

    /// Takes the next element if it has `tag`: its content.
    pub(super) fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let (found, content, _) = ahead.any()?;
        (found == tag).then(|| {
            *self = ahead;
            content
        })
    }

    /// Takes the next element, which must have `tag`, as elements.
    pub(super) fn nested(&mut self, tag: u8) -> Option<Der<'a>> {
        self.take(tag).map(Der)
    }

    /// Takes a non-negative INTEGER: its octets without leading zero.
    pub(super) fn unsigned(&mut self) -> Option<&'a [u8]> {
        match self.take(INTEGER)? {
            [0, rest @ ..] if rest.first().is_none_or(|octet| octet & 0x80 != 0) => Some(rest),
            [first, ..] if first & 0x80 != 0 => None,
            [0, ..] | [] => None,
            magnitude => Some(magnitude),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Writes one element with the concatenation of `parts` as content, at most 65,535 octets.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [high, low] = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut out = vec![tag];
    match (high, low) {
        (0, 0..=0x7f) => out.push(low),
        (0, _) => out.extend_from_slice(&[0x81, low]),
        _ => out.extend_from_slice(&[0x82, high, low]),
    }
    out.extend_from_slice(&content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_survive_writing_and_reading() {
        for len in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff] {
            let content = vec![7; len];
            let written = element(SEQUENCE, &[&content]);
            let mut der = Der(&written);
            assert_eq!(der.take(SEQUENCE), Some(&content[..]), "{len}");
            assert!(der.is_empty());
        }
    }

    #[test]
    fn r7427_3_only_der_is_read() {
        for bad in [
            &[0x30][..],
            &[0x30, 0x01],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81, 0x01, 0],
            &[0x30, 0x82, 0x00, 0x01, 0],
            &[0x30, 0x83, 0, 0, 1, 0],
        ] {
            assert_eq!(Der(bad).any(), None, "{bad:?}");
        }
        assert_eq!(Der(&[2, 1, 0]).unsigned(), Some(&[][..]));
        assert_eq!(Der(&[2, 2, 0, 0x80]).unsigned(), Some(&[0x80][..]));
        for bad in [&[2, 0][..], &[2, 1, 0x80], &[2, 2, 0, 1], &[3, 1, 1]] {
            assert_eq!(Der(bad).unsigned(), None, "{bad:?}");
        }
    }
}

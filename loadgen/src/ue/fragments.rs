//! Messages that come in fragments (RFC 7383), for handsets that announce it.

use super::{EndCause, Initiator, State};
use codec::Random;
use codec::crypto::OpenedFragment;
use codec::ike::payload::PayloadIter;
use codec::ike::{Flags, IkeHeader, MessageId, PayloadType};
use std::time::Instant;

/// Most fragments of one message: 64 of a thousand octets are as long as a message can be.
const FRAGMENTS_MAX: u16 = 64;

/// The parts of one message so far.
pub(super) struct Fragments {
    message_id: MessageId,
    flags: Flags,
    first: PayloadType,
    /// One place per fragment.
    parts: Vec<Option<Vec<u8>>>,
}

impl Fragments {
    fn new(header: &IkeHeader, total: u16) -> Self {
        let parts = vec![None; usize::from(total)];
        Self { message_id: header.message_id, flags: header.flags, first: PayloadType::NONE, parts }
    }

    fn is_of(&self, header: &IkeHeader, total: u16) -> bool {
        self.message_id == header.message_id
            && self.flags == header.flags
            && self.parts.len() == usize::from(total)
    }

    fn take(&mut self, opened: &OpenedFragment, message: &[u8]) {
        if opened.number == 1 {
            self.first = opened.first;
        }
        let part = message.get(opened.inner.clone()).unwrap_or_default();
        if let Some(place) = self.parts.get_mut(usize::from(opened.number).wrapping_sub(1)) {
            place.get_or_insert_with(|| part.to_vec());
        }
    }

    /// The payload chain, once every part is there.
    fn whole(&self) -> Option<Vec<u8>> {
        self.parts.iter().map(Option::as_deref).collect::<Option<Vec<_>>>().map(|parts| parts.concat())
    }
}

impl Initiator {
    /// Takes one fragment; the last to arrive completes the message.
    pub(super) fn handle_fragment(
        &mut self,
        now: Instant,
        header: &IkeHeader,
        message: &mut [u8],
        random: &mut dyn Random,
    ) {
        let sa = match &self.state {
            State::Auth(auth) if auth.sa.owns(header) && auth.sa.is_answer(header) => &auth.sa,
            State::Up(up) if up.sa.owns(header) => &up.sa,
            _ => return,
        };
        let Ok(opened) = sa.open_fragment(message) else {
            self.forged = true;
            return;
        };
        if opened.total == 1 && self.config.handset.fears_single_fragment {
            return self.end(EndCause::Handset("a message in a single fragment (SKF 1/1)".into()));
        }
        if opened.total > FRAGMENTS_MAX {
            return;
        }
        let mut fragments = match self.fragments.take() {
            Some(fragments) if fragments.is_of(header, opened.total) => fragments,
            // A new message, or another cut of the same (RFC 7383 §2.6.1).
            _ => Box::new(Fragments::new(header, opened.total)),
        };
        fragments.take(&opened, message);
        let Some(chain) = fragments.whole() else {
            self.fragments = Some(fragments);
            return;
        };
        let payloads = PayloadIter::new(fragments.first, &chain);
        match self.state {
            State::Auth(_) => self.take_auth_response(now, payloads, random),
            _ => self.take_established(now, header, payloads, random),
        }
    }
}

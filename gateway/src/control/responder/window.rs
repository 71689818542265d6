//! Message IDs and the one exchange that may be open in each direction (RFC 7296 §2.1 to §2.3).

use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::esp::EspSpi;
use codec::ike::MessageId;

use super::mobike::Candidate;
use super::own_child::ChildOffer;
use super::own_followup::OwnFollowUp;
use super::own_ike::IkeOffer;
use super::own_request::Destination;
use crate::types::Path;

/// A request of ours, for as long as its response is awaited.
pub(super) struct Outstanding {
    /// Its number.
    pub(super) message_id: MessageId,
    /// Its octets, sent again unchanged when the session appears on another connection.
    pub(super) message: Bytes,
    /// What it asks.
    pub(super) kind: OwnRequest,
    /// What it offers, if it is for a new SA.
    pub(super) offer: Option<Offer>,
    /// Where it goes instead of to the peer's address.
    pub(super) to: Option<Destination>,
    /// When the peer counts as dead.
    pub(super) deadline: Instant,
}

impl Outstanding {
    /// The peer is at `at` now, and is sent the request there: an answer shows nothing about another address.
    pub(super) fn void_challenge(&mut self, at: Option<&Path>) {
        if let Some(Offer::Address(candidate)) = &mut self.offer {
            candidate.void |= at != Some(&candidate.to.path);
        }
    }
}

/// What the gateway itself asks a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OwnRequest {
    /// Are you there? An empty INFORMATIONAL.
    Liveness,
    /// Delete the IKE SA and with it the session.
    DeleteIke,
    /// Go to another gateway: an INFORMATIONAL with REDIRECT.
    Redirect,
    /// Go to other P-CSCFs: an INFORMATIONAL with their addresses.
    Reselect,
    /// Delete the Child SA with this inbound SPI of ours.
    DeleteChild(EspSpi),
    /// Show that you receive at a new address: an INFORMATIONAL with COOKIE2.
    Routability,
    /// Replace the Child SA with this inbound SPI of ours.
    RekeyChild(EspSpi),
    /// Make a Child SA anew.
    CreateChild,
    /// Replace the IKE SA.
    RekeyIke,
    /// Run the next key exchange of one of these.
    FollowUp,
}

/// What becomes of the session when the peer answers as it should.
pub(super) enum Offer {
    /// Of a Child SA.
    Child(ChildOffer),
    /// Of an IKE SA.
    Ike(IkeOffer),
    /// Of an SA that takes several exchanges.
    FollowUp(Box<OwnFollowUp>),
    /// To send to a new address of the peer, which is no SA.
    Address(Box<Candidate>),
}

/// What a request's Message ID says about it.
pub(super) enum Arrival {
    /// The next one: to be opened and handled.
    Fresh,
    /// The same octets as the last one: answer with the same response.
    Repeated(Bytes),
    /// The last one's number, but not its octets.
    Altered,
    /// Outside the window of one.
    Outside,
}

/// The answer to the peer's last request, for a peer that lost it.
pub(super) struct Answer {
    /// Tells the request from others with its number.
    pub(super) digest: u64,
    /// When it was given.
    pub(super) at: Instant,
    /// The response's octets.
    pub(super) response: Box<[u8]>,
}

/// Both directions of one IKE SA, each with a window of one. What is there only now and then is boxed: most
/// sessions are quiet most of the time.
pub(super) struct Window {
    next_in: MessageId,
    next_out: MessageId,
    last_in: Option<Box<Answer>>,
    outstanding: Option<Box<(Outstanding, Option<Resend>)>>,
}

/// When the outstanding request is sent again.
struct Resend {
    at: Instant,
    /// The wait before that; it doubles each time.
    interval: Duration,
}

impl Window {
    /// A window that expects `next_in` from the peer.
    pub(super) fn new(next_in: MessageId) -> Self {
        Self { next_in, next_out: MessageId(0), last_in: None, outstanding: None }
    }

    /// Places a request by its Message ID and octets. Changes nothing: the request is not authentic yet.
    pub(super) fn arrival(&self, message_id: MessageId, digest: u64) -> Arrival {
        if message_id == self.next_in {
            return Arrival::Fresh;
        }
        match &self.last_in {
            Some(last) if message_id.next() == Some(self.next_in) => {
                if last.digest == digest {
                    Arrival::Repeated(Bytes::copy_from_slice(&last.response))
                } else {
                    Arrival::Altered
                }
            }
            _ => Arrival::Outside,
        }
    }

    /// Records the answer to the fresh request and moves on to the next.
    pub(super) fn answered(&mut self, at: Instant, digest: u64, response: &[u8]) {
        self.last_in = Some(Box::new(Answer { digest, at, response: response.into() }));
        // At the end of the number space the last request stays answerable and no further one fits.
        if let Some(next) = self.next_in.next() {
            self.next_in = next;
        }
    }

    /// The answer to the last request.
    pub(super) fn into_last(self) -> Option<Answer> {
        self.last_in.map(|answer| *answer)
    }

    /// The answer to the last request, to be sent again.
    pub(super) fn answer(&self) -> Option<Bytes> {
        self.last_in.as_ref().map(|answer| Bytes::copy_from_slice(&answer.response))
    }

    /// When the answer to the last request was given, while it is kept.
    pub(super) fn answered_at(&self) -> Option<Instant> {
        self.last_in.as_ref().map(|answer| answer.at)
    }

    /// Forgets the answer to the last request; its repetition is ignored from now on (RFC 7296 §2.1).
    pub(super) fn forget_answer(&mut self) {
        self.last_in = None;
    }

    /// The Message ID of our next request, while none is outstanding.
    pub(super) fn next_request(&self) -> Option<MessageId> {
        self.outstanding.is_none().then_some(self.next_out)
    }

    /// Records our request as outstanding.
    pub(super) fn asked(&mut self, outstanding: Outstanding) {
        if let Some(next) = outstanding.message_id.next() {
            self.next_out = next;
        }
        self.outstanding = Some(Box::new((outstanding, None)));
    }

    /// The request whose response is awaited.
    pub(super) fn outstanding(&self) -> Option<&Outstanding> {
        self.outstanding.as_ref().map(|outstanding| &outstanding.0)
    }

    /// The request whose response is awaited, to note what crossed it.
    pub(super) fn outstanding_mut(&mut self) -> Option<&mut Outstanding> {
        self.outstanding.as_mut().map(|outstanding| &mut outstanding.0)
    }

    /// Brings the deadline of the outstanding request forward.
    pub(super) fn hurry(&mut self, deadline: Instant) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.0.deadline = outstanding.0.deadline.min(deadline);
        }
    }

    /// Takes the outstanding request, on its response or when it no longer matters.
    pub(super) fn take_outstanding(&mut self) -> Option<Outstanding> {
        self.outstanding.take().map(|outstanding| outstanding.0)
    }

    /// When the outstanding request is to be sent again, if it is.
    pub(super) fn resend_at(&self) -> Option<Instant> {
        self.outstanding.as_ref()?.1.as_ref().map(|resend| resend.at)
    }

    /// Lets the outstanding request, if any, be sent again after `first` and then after twice as long each time,
    /// unless that is under way.
    pub(super) fn resend_after(&mut self, now: Instant, first: Duration) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.1.get_or_insert(Resend { at: now + first, interval: first });
        }
    }

    /// The outstanding request is not sent again.
    pub(super) fn stop_resending(&mut self) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.1 = None;
        }
    }

    /// The outstanding request, if it is time to send it again.
    pub(super) fn resend(&mut self, now: Instant) -> Option<Bytes> {
        let (outstanding, resend) = &mut **self.outstanding.as_mut()?;
        let resend = resend.as_mut().filter(|resend| resend.at <= now && outstanding.deadline > now)?;
        resend.interval *= 2;
        resend.at = now + resend.interval;
        Some(outstanding.message.clone())
    }
}

/// Tells retransmissions, which repeat every octet, from other messages. Keyed, so that a peer cannot
/// aim for a collision.
pub(super) fn digest(hasher: &ahash::RandomState, message: &[u8]) -> u64 {
    hasher.hash_one(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7296_2_1_a_repeated_request_finds_its_response() {
        let mut window = Window::new(MessageId(1));
        assert!(matches!(window.arrival(MessageId(0), 1), Arrival::Outside));
        assert!(matches!(window.arrival(MessageId(2), 1), Arrival::Outside));
        assert!(matches!(window.arrival(MessageId(1), 7), Arrival::Fresh));
        window.answered(Instant::now(), 7, b"answer");
        assert!(matches!(window.arrival(MessageId(1), 7), Arrival::Repeated(r) if r == "answer"));
        assert!(matches!(window.arrival(MessageId(1), 8), Arrival::Altered));
        assert!(matches!(window.arrival(MessageId(0), 7), Arrival::Outside));
        assert!(matches!(window.arrival(MessageId(2), 7), Arrival::Fresh));
    }

    #[test]
    fn r7296_2_1_a_forgotten_response_is_not_made_anew() {
        let mut window = Window::new(MessageId(1));
        let at = Instant::now();
        window.answered(at, 7, b"answer");
        assert_eq!(window.answered_at(), Some(at));
        window.forget_answer();
        assert!(matches!(window.arrival(MessageId(1), 7), Arrival::Outside));
        assert!(matches!(window.arrival(MessageId(2), 7), Arrival::Fresh));
    }

    #[test]
    fn r7296_2_2_the_number_space_ends_without_wrapping() {
        let mut window = Window::new(MessageId(u32::MAX));
        window.answered(Instant::now(), 1, b"");
        assert!(matches!(window.arrival(MessageId(0), 1), Arrival::Outside));
    }

    #[test]
    fn r7296_2_3_one_request_of_ours_at_a_time() {
        let mut window = Window::new(MessageId(0));
        assert_eq!(window.next_request(), Some(MessageId(0)));
        window.asked(Outstanding {
            message_id: MessageId(0),
            message: Bytes::new(),
            kind: OwnRequest::Liveness,
            offer: None,
            to: None,
            deadline: Instant::now(),
        });
        assert_eq!(window.next_request(), None);
        assert!(window.take_outstanding().is_some());
        assert_eq!(window.next_request(), Some(MessageId(1)));
    }

    #[test]
    fn r7296_2_4_a_request_is_sent_again_ever_more_rarely_until_its_deadline() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut window = Window::new(MessageId(0));
        window.asked(Outstanding {
            message_id: MessageId(0),
            message: Bytes::from_static(b"request"),
            kind: OwnRequest::Liveness,
            offer: None,
            to: None,
            deadline: at(30),
        });
        assert_eq!(window.resend_at(), None);
        window.resend_after(start, Duration::from_secs(1));
        window.resend_after(at(10), Duration::from_secs(1));
        let sent: Vec<u64> = (0..60).filter(|&s| window.resend(at(s)).is_some()).collect();
        assert_eq!(sent, [1, 3, 7, 15]);
        window.stop_resending();
        assert_eq!(window.resend_at(), None);
    }
}

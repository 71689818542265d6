//! Who has asked what and is still waiting, on both legs of a bridge.
//!
//! Sans-IO: time is an argument, messages come in by [`Exchanges::handle`], what is to be sent again comes
//! out of [`Exchanges::handle_timeout`] and [`Exchanges::replay`]. Octets are kept as they came and sent as
//! they were kept: a retransmission differs in nothing (RFC 7296 §2.1).
//!
//! ```text
//!   datagram leg                         bridge                        stream leg
//!   request, again, again ...   ->  kept until answered        ->  once per connection
//!   sent again with backoff     <-  kept until answered        <-  request
//!   response                    ->  first one passes           ->  once
//! ```

mod parts;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use codec::ike::{IkeSpi, MessageId};

use super::message::MessageInfo;
use crate::limits::{BRIDGE_EXCHANGES_MAX, BRIDGE_OCTETS_MAX};
use parts::{Filed, Parts};

/// Time until a request is sent again on the datagram leg; doubled each time, up to the second figure.
const RESEND_FIRST: Duration = Duration::from_millis(500);
const RESEND_MAX: Duration = Duration::from_secs(8);

/// Time after which a request is given up: RFC 7296 §2.4 leaves it to the sender, who has long noticed.
const GIVE_UP: Duration = Duration::from_secs(60);

/// Time for which an answer is kept for those who ask again.
const KEEP_ANSWER: Duration = Duration::from_secs(30);

/// Time for which a request from the datagram leg is kept without an answer. strongSwan, the most patient
/// of the usual clients, retransmits for 165 s.
const KEEP_REQUEST: Duration = Duration::from_secs(180);

/// A side of the bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leg {
    /// UDP, where messages get lost.
    Datagram,
    /// The stream, where they do not while it lives.
    Stream,
}

/// What becomes of a message.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// It goes on to the other leg.
    Forward,
    /// It goes nowhere.
    Drop(Dropped),
    /// It goes nowhere; its sender gets these again, which answered it before.
    Repeat(&'a [Box<[u8]>]),
}

/// Why a message goes nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// No IKE message: the header contradicts the octets.
    Malformed,
    /// It has passed before.
    Duplicate,
    /// Too many requests are unanswered.
    WindowFull,
}

/// One request and its answer.
struct Exchange {
    spi_i: IkeSpi,
    message_id: MessageId,
    request: Parts,
    response: Parts,
    /// Answers to an earlier request of the same number: IKE_SA_INIT is asked again with a cookie or
    /// another group, and an answer that comes late must not count for the later question.
    superseded: Option<Parts>,
    /// When the request came.
    asked: Instant,
    /// When the whole answer had passed.
    answered: Option<Instant>,
    /// When the request is sent again, and the interval after that.
    resend: Option<(Instant, Duration)>,
}

/// The requests from one leg, oldest first.
#[derive(Default)]
struct Window {
    exchanges: VecDeque<Exchange>,
}

/// The exchanges of one IKE SA, and of its successors by rekey.
#[derive(Default)]
pub struct Exchanges {
    /// Requests that came as datagrams.
    from_datagram: Window,
    /// Requests that came on the stream.
    from_stream: Window,
}

impl Exchanges {
    /// Takes a message that came on `leg`.
    pub fn handle(&mut self, now: Instant, leg: Leg, message: &[u8]) -> Verdict<'_> {
        match MessageInfo::parse(message) {
            Some(info) => self.handle_parsed(now, leg, &info, message),
            None => Verdict::Drop(Dropped::Malformed),
        }
    }

    /// Takes a message whose header has been read.
    pub fn handle_parsed(
        &mut self,
        now: Instant,
        leg: Leg,
        info: &MessageInfo,
        message: &[u8],
    ) -> Verdict<'_> {
        match (info.is_response, leg) {
            (false, Leg::Datagram) => self.from_datagram.on_request(now, leg, info, message),
            (false, Leg::Stream) => self.from_stream.on_request(now, leg, info, message),
            (true, Leg::Datagram) => self.from_stream.on_response(now, info, message),
            (true, Leg::Stream) => self.from_datagram.on_response(now, info, message),
        }
    }

    /// When [`Exchanges::handle_timeout`] has something to do; `None` while nothing is kept.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.from_stream.next_timeout().into_iter().chain(self.from_datagram.next_timeout()).min()
    }

    /// Sends again on the datagram leg what is due there, and forgets what is old. Returns how many
    /// requests were given up.
    pub fn handle_timeout(&mut self, now: Instant, mut resend: impl FnMut(&[u8])) -> usize {
        for exchange in &mut self.from_stream.exchanges {
            if let Some((due, interval)) = exchange.resend
                && due <= now
            {
                exchange.request.iter().for_each(&mut resend);
                exchange.resend = Some((now + interval, (interval * 2).min(RESEND_MAX)));
            }
        }
        self.from_stream.forget(now, GIVE_UP) + self.from_datagram.forget(now, KEEP_REQUEST)
    }

    /// The requests of the datagram leg that are unanswered, to be sent first on a new connection (RFC 9329
    /// §6.2), oldest first.
    pub fn replay(&self) -> impl Iterator<Item = &[u8]> {
        let unanswered = self.from_datagram.exchanges.iter().filter(|exchange| exchange.answered.is_none());
        unanswered.flat_map(|exchange| exchange.request.iter())
    }

    /// When the oldest unanswered request of the datagram leg came.
    pub fn waiting_since(&self) -> Option<Instant> {
        let exchanges = self.from_datagram.exchanges.iter();
        exchanges.filter(|exchange| exchange.answered.is_none()).map(|exchange| exchange.asked).min()
    }

    /// Octets kept.
    pub fn octets(&self) -> usize {
        self.from_datagram.octets() + self.from_stream.octets()
    }
}

impl Window {
    fn find(&mut self, info: &MessageInfo) -> Option<usize> {
        let same =
            |exchange: &Exchange| exchange.spi_i == info.spi_i && exchange.message_id == info.message_id;
        // The newest is asked for most.
        self.exchanges.iter().rposition(same)
    }

    fn on_request(&mut self, now: Instant, leg: Leg, info: &MessageInfo, message: &[u8]) -> Verdict<'_> {
        let Some(at) = self.find(info) else { return self.open(now, leg, info, message) };
        let room = BRIDGE_OCTETS_MAX.saturating_sub(self.octets());
        let Some(exchange) = self.exchanges.get_mut(at) else { return Verdict::Forward };
        match exchange.request.file(info.fragment, message, room) {
            Filed::Known if exchange.answered.is_some() => {
                // RFC 7383 §2.6.1: of a fragmented request only the first fragment asks again.
                let first = info.fragment.number == 1;
                if first {
                    Verdict::Repeat(exchange.response.all())
                } else {
                    Verdict::Drop(Dropped::Duplicate)
                }
            }
            Filed::Known => Verdict::Drop(Dropped::Duplicate),
            Filed::Added => Verdict::Forward,
            Filed::NoRoom => Verdict::Drop(Dropped::WindowFull),
            Filed::Replaced => {
                // The same number with other octets: a corrected IKE_SA_INIT.
                exchange.superseded = Some(std::mem::take(&mut exchange.response));
                exchange.restart(now, leg);
                Verdict::Forward
            }
        }
    }

    fn open(&mut self, now: Instant, leg: Leg, info: &MessageInfo, message: &[u8]) -> Verdict<'_> {
        while self.exchanges.len() >= BRIDGE_EXCHANGES_MAX
            || self.octets() + message.len() > BRIDGE_OCTETS_MAX
        {
            let answered = self.exchanges.iter().position(|exchange| exchange.answered.is_some());
            match answered.and_then(|at| self.exchanges.remove(at)) {
                Some(_) => {}
                None => return Verdict::Drop(Dropped::WindowFull),
            }
        }
        let mut exchange = Exchange {
            spi_i: info.spi_i,
            message_id: info.message_id,
            request: Parts::default(),
            response: Parts::default(),
            superseded: None,
            asked: now,
            answered: None,
            resend: None,
        };
        exchange.request.file(info.fragment, message, BRIDGE_OCTETS_MAX);
        exchange.restart(now, leg);
        self.exchanges.push_back(exchange);
        Verdict::Forward
    }

    fn on_response(&mut self, now: Instant, info: &MessageInfo, message: &[u8]) -> Verdict<'_> {
        let Some(at) = self.find(info) else { return Verdict::Forward };
        let room = BRIDGE_OCTETS_MAX.saturating_sub(self.octets());
        let Some(exchange) = self.exchanges.get_mut(at) else { return Verdict::Forward };
        if exchange.superseded.as_ref().is_some_and(|earlier| earlier.contains(message)) {
            return Verdict::Drop(Dropped::Duplicate);
        }
        let filed = exchange.response.file(info.fragment, message, room);
        if filed == Filed::Known {
            return Verdict::Drop(Dropped::Duplicate);
        }
        // What cannot be kept still answers; it is not there for those who ask again.
        let complete = exchange.response.is_complete() || filed == Filed::NoRoom;
        if complete && exchange.answered.is_none() {
            exchange.answered = Some(now);
            exchange.resend = None;
        }
        Verdict::Forward
    }

    fn next_timeout(&self) -> Option<Instant> {
        let due = |exchange: &Exchange| match (exchange.resend, exchange.answered) {
            (Some((due, _)), _) => due,
            (None, Some(answered)) => answered + KEEP_ANSWER,
            (None, None) => exchange.asked + KEEP_REQUEST,
        };
        self.exchanges.iter().map(due).min()
    }

    fn forget(&mut self, now: Instant, unanswered_max: Duration) -> usize {
        let mut given_up = 0;
        self.exchanges.retain(|exchange| match exchange.answered {
            Some(answered) => now < answered + KEEP_ANSWER,
            None => {
                let keep = now < exchange.asked + unanswered_max;
                given_up += usize::from(!keep);
                keep
            }
        });
        if self.exchanges.is_empty() {
            self.exchanges = VecDeque::new();
        }
        given_up
    }

    fn octets(&self) -> usize {
        self.exchanges.iter().map(Exchange::octets).sum()
    }
}

impl Exchange {
    /// Begins to wait for an answer.
    fn restart(&mut self, now: Instant, leg: Leg) {
        self.asked = now;
        self.answered = None;
        // What came on the stream goes out as datagrams, which get lost.
        self.resend = (leg == Leg::Stream).then(|| (now + RESEND_FIRST, RESEND_FIRST * 2));
    }

    fn octets(&self) -> usize {
        let superseded = self.superseded.as_ref().map_or(0, Parts::octets);
        self.request.octets() + self.response.octets() + superseded
    }
}

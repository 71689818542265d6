//! Counts what happened to the packets of one flow, at the end that receives them.
//!
//! Packets in a connection that its UE cuts on purpose are gone, and nobody's fault; so are those that come to the gateway
//! while the UE has no connection, where its queue does not keep them. They are told from packets that the gateway lost by
//! the mark that the sender puts into what it sends once it has heard of the cut: it says where the new part of the flow
//! begins. What is missing before that is the cut's, what is missing behind it is loss. So the excuse ends, at the latest,
//! with the first sequence number sent after the sender has heard of the cut.

use super::MARK_NONE;
use std::ops::Range;

/// Sequence numbers behind the highest one that are still told apart; older arrivals count as late.
const WINDOW: u64 = 4096;
const WORDS: usize = WINDOW as usize / 64;

/// What one arriving sequence number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Higher than all before.
    InOrder,
    /// Seen for the first time, after a higher one.
    Reordered,
    /// Seen before (or so old that it can no longer be told).
    Duplicate,
}

/// Totals of a flow, or of many flows added up; all are packets except `bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Distinct sequence numbers received with the right content.
    pub received: u64,
    /// Inner IP octets of those.
    pub bytes: u64,
    /// Of those, the ones that came after a higher sequence number.
    pub reordered: u64,
    /// Arrivals beyond the first of a sequence number.
    pub duplicated: u64,
    /// Arrivals whose header or content was not what was sent.
    pub corrupted: u64,
    /// Not received, and in the connection that the UE cut, or sent before the sender had heard of that.
    pub lost_at_cut: u64,
}

impl Tally {
    /// Returns the packets whose fate is known.
    pub fn accounted(&self) -> u64 {
        self.received + self.corrupted + self.lost_at_cut
    }

    /// Adds another flow's totals.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.bytes += other.bytes;
        self.reordered += other.reordered;
        self.duplicated += other.duplicated;
        self.corrupted += other.corrupted;
        self.lost_at_cut += other.lost_at_cut;
    }
}

/// Receiving side of one flow: a sliding bitmap over sequence numbers and the totals.
pub struct Checker {
    /// One more than the highest sequence number seen.
    next: u64,
    seen: [u64; WORDS],
    tally: Tally,
    /// The connection was cut, and nothing sent after that has arrived yet.
    cut: bool,
    /// Where the flow began anew after the latest cut that was heard of.
    begun: Option<u64>,
    /// Latest sequence numbers counted as lost at a cut.
    at_cut: Range<u64>,
}

impl Checker {
    /// Creates a checker that has seen nothing.
    pub fn new() -> Self {
        Self { next: 0, seen: [0; WORDS], tally: Tally::default(), cut: false, begun: None, at_cut: 0..0 }
    }

    /// Notes that this end has cut the connection: until a marked packet arrives, gaps are the cut's.
    pub fn on_cut(&mut self) {
        self.cut = true;
    }

    /// Returns whether nothing has arrived yet that was sent after the last cut.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Counts the arrival of `seq` as an intact inner packet of `bytes` octets; `mark` is that of the header.
    pub fn on_packet(&mut self, seq: u64, mark: u16, bytes: usize) -> Arrival {
        self.explain_gap(seq, mark);
        let arrival = self.classify(seq);
        match arrival {
            Arrival::Duplicate => {
                self.tally.duplicated += 1;
                return arrival;
            }
            Arrival::Reordered => {
                self.tally.reordered += 1;
                // It was not lost after all.
                self.tally.lost_at_cut -= u64::from(self.at_cut.contains(&seq));
            }
            Arrival::InOrder => {}
        }
        self.tally.received += 1;
        self.tally.bytes += bytes as u64;
        arrival
    }

    /// Counts a packet whose octets were not what the sender put there.
    pub fn on_corrupt(&mut self) {
        self.tally.corrupted += 1;
    }

    /// Returns one more than the highest sequence number seen, 0 before the first.
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// Returns the totals so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Counts the part of the gap before `seq` that a cut explains.
    fn explain_gap(&mut self, seq: u64, mark: u16) {
        // Marks of an earlier cut go on for a while: they explain nothing new, and do not end the wait for the next one.
        let begun = (mark != MARK_NONE).then(|| seq.saturating_sub(u64::from(mark)));
        let news = begun.filter(|_| begun != self.begun);
        if seq >= self.next && (self.cut || news.is_some()) {
            let gap = self.next..news.unwrap_or(seq).max(self.next);
            self.tally.lost_at_cut += gap.end - gap.start;
            if !gap.is_empty() {
                self.at_cut = gap;
            }
        }
        if news.is_some() {
            self.begun = begun;
            self.cut = false;
        }
    }

    fn classify(&mut self, seq: u64) -> Arrival {
        if seq >= self.next {
            self.advance(seq);
            return Arrival::InOrder;
        }
        if self.next - seq > WINDOW {
            return Arrival::Duplicate;
        }
        let (word, bit) = slot(seq);
        if self.seen[word] & bit != 0 {
            return Arrival::Duplicate;
        }
        self.seen[word] |= bit;
        Arrival::Reordered
    }

    /// Moves the window's right edge to `seq` and forgets what leaves on the left.
    fn advance(&mut self, seq: u64) {
        if seq - self.next >= WINDOW {
            self.seen.fill(0);
        } else {
            for skipped in self.next..seq {
                let (word, bit) = slot(skipped);
                self.seen[word] &= !bit;
            }
        }
        let (word, bit) = slot(seq);
        self.seen[word] |= bit;
        self.next = seq + 1;
    }
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

fn slot(seq: u64) -> (usize, u64) {
    let place = seq % WINDOW;
    (place as usize / 64, 1 << (place % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::SendFlow;
    use proptest::prelude::*;
    use std::collections::{HashSet, VecDeque};

    fn fed(sequence: &[u64]) -> Tally {
        let mut checker = Checker::new();
        for seq in sequence {
            checker.on_packet(*seq, MARK_NONE, 100);
        }
        *checker.tally()
    }

    #[test]
    fn in_order_is_neither_lost_nor_reordered() {
        assert_eq!(fed(&[0, 1, 2, 3]), Tally { received: 4, bytes: 400, ..Tally::default() });
    }

    #[test]
    fn a_gap_is_loss_and_nothing_else() {
        assert_eq!(fed(&[0, 3]), Tally { received: 2, bytes: 200, ..Tally::default() });
    }

    #[test]
    fn a_swap_is_one_reordered_packet() {
        assert_eq!(fed(&[0, 2, 1, 3]).reordered, 1);
    }

    #[test]
    fn a_repeat_is_a_duplicate_and_not_received_twice() {
        let tally = fed(&[0, 1, 1, 0]);
        assert_eq!((tally.received, tally.duplicated, tally.bytes), (2, 2, 200));
    }

    #[test]
    fn a_jump_beyond_the_window_forgets_the_past() {
        let tally = fed(&[0, 10 * WINDOW, 10 * WINDOW - 1, 10 * WINDOW - 1]);
        assert_eq!((tally.received, tally.reordered, tally.duplicated), (3, 1, 1));
    }

    #[test]
    fn corruption_is_counted_apart() {
        let mut checker = Checker::new();
        checker.on_packet(0, MARK_NONE, 60);
        checker.on_corrupt();
        assert_eq!((checker.tally().received, checker.tally().corrupted), (1, 1));
    }

    /// Feeds sequence numbers with marks; `None` stands for a cut by this end.
    fn cut_tally(arrivals: &[Option<(u64, u16)>]) -> Tally {
        let mut checker = Checker::new();
        for arrival in arrivals {
            match arrival {
                Some((seq, mark)) => drop(checker.on_packet(*seq, *mark, 1)),
                None => checker.on_cut(),
            }
        }
        *checker.tally()
    }

    #[test]
    fn a_mark_splits_a_gap_into_what_the_cut_explains_and_loss() {
        let before = Some((4, MARK_NONE));
        // 5 to 9 were in flight, 10 is the first after the cut.
        let tally = cut_tally(&[before, Some((10, 0)), Some((11, 1))]);
        assert_eq!((tally.lost_at_cut, tally.received), (5, 3));
        // The first two after the cut are missing as well: not explained.
        assert_eq!(cut_tally(&[before, Some((12, 2))]).lost_at_cut, 5);
        assert_eq!(cut_tally(&[before, Some((10, MARK_NONE))]).lost_at_cut, 0, "no cut, no excuse");
    }

    #[test]
    fn until_the_mark_arrives_the_receiver_knows_of_its_own_cut() {
        let before = Some((4, MARK_NONE));
        let unmarked = cut_tally(&[before, None, Some((8, MARK_NONE)), Some((10, 0)), Some((13, MARK_NONE))]);
        assert_eq!(unmarked.lost_at_cut, 3 + 1, "behind the mark a gap is loss");
        let late = cut_tally(&[before, None, Some((8, MARK_NONE)), Some((6, MARK_NONE)), Some((9, 0))]);
        assert_eq!((late.lost_at_cut, late.reordered), (2, 1), "what comes late was not lost");
        // 20 is still marked by the first cut, 24 is what the sender sent first after the second.
        let twice = [before, None, Some((5, 0)), None, Some((20, 15)), Some((23, 18)), Some((24, 0))];
        assert_eq!(cut_tally(&twice).lost_at_cut, 14 + 2, "marks of an earlier cut are no news");
    }

    /// A sender, a gateway that keeps everything in order, and a receiver that cuts its connection.
    struct Path {
        sender: SendFlow,
        checker: Checker,
        /// What is in the connection: sequence number and mark.
        connection: VecDeque<(u64, u16)>,
        /// Cuts made, and cuts that the sender has heard of.
        cuts: (u32, u32),
    }

    impl Path {
        fn new() -> Self {
            let sender = SendFlow::closed(u32::MAX);
            Self { sender, checker: Checker::new(), connection: VecDeque::new(), cuts: (0, 0) }
        }

        fn send(&mut self, packets: u64) {
            for _ in 0..packets {
                let seq = self.sender.take();
                self.connection.push_back((seq, self.sender.mark(seq)));
            }
        }

        fn arrive(&mut self, packets: usize) {
            for _ in 0..packets.min(self.connection.len()) {
                let (seq, mark) = self.connection.pop_front().unwrap();
                self.checker.on_packet(seq, mark, 1);
            }
        }

        /// Cuts the connection; what was in it is gone, but for the last `kept`, which the gateway had not sent yet.
        fn cut(&mut self, kept: usize) {
            self.checker.on_cut();
            self.cuts.0 += 1;
            let gone = self.connection.len().saturating_sub(kept);
            self.connection.drain(..gone);
        }

        fn hear(&mut self) {
            if self.cuts.0 > self.cuts.1 {
                self.cuts.1 = self.cuts.0;
                self.sender.cut();
            }
        }

        fn step(&mut self, (what, amount): (u8, u8)) {
            match what {
                0 => self.send(u64::from(amount)),
                1 => self.arrive(usize::from(amount)),
                2 => self.cut(usize::from(amount)),
                _ => self.hear(),
            }
        }

        /// Sends `lost` packets that the gateway loses, and one more that arrives.
        fn lose(&mut self, lost: u64) {
            self.arrive(usize::MAX);
            self.send(lost);
            self.connection.clear();
            self.send(1);
            self.arrive(1);
        }

        fn unexplained(&self) -> u64 {
            let tally = self.checker.tally();
            self.sender.sent() - tally.received - tally.lost_at_cut
        }
    }

    proptest! {
        /// However cuts follow each other, with packets between them or without: once the sender has heard of the last one,
        /// what the gateway loses is loss, from the very next packet on.
        #[test]
        fn the_excuse_of_a_cut_ends_when_the_sender_has_heard_of_it(
            steps in proptest::collection::vec((0_u8..4, 0_u8..6), 0..60),
            losses in proptest::collection::vec(0_u64..5, 1..6),
        ) {
            let mut path = Path::new();
            steps.into_iter().for_each(|step| path.step(step));
            path.hear();
            let (mut total, mut explained) = (0, None);
            for lost in losses {
                path.lose(lost);
                total += lost;
                prop_assert!(path.unexplained() >= total && !path.checker.is_cut());
                let now = path.checker.tally().lost_at_cut;
                prop_assert_eq!(*explained.get_or_insert(now), now);
            }
        }

        /// Against a set: within the window nothing is misjudged, whatever the order.
        #[test]
        fn agrees_with_a_set(steps in proptest::collection::vec(0_u64..WINDOW, 1..400)) {
            let mut seen = HashSet::new();
            let tally = fed(&steps);
            let distinct = steps.iter().filter(|seq| seen.insert(**seq)).count() as u64;
            prop_assert_eq!(tally.received, distinct);
            prop_assert_eq!(tally.duplicated, steps.len() as u64 - distinct);
        }

        #[test]
        fn slow_advance_keeps_the_bitmap_clean(jumps in proptest::collection::vec(1_u64..200, 1..300)) {
            let mut checker = Checker::new();
            let mut seq = 0;
            for jump in &jumps {
                seq += jump;
                prop_assert_eq!(checker.on_packet(seq, MARK_NONE, 1), Arrival::InOrder);
                prop_assert_eq!(checker.on_packet(seq, MARK_NONE, 1), Arrival::Duplicate);
                if *jump > 1 {
                    prop_assert_eq!(checker.on_packet(seq - 1, MARK_NONE, 1), Arrival::Reordered);
                }
            }
        }
    }
}

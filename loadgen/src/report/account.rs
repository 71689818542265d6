//! What became of the packets of many flows.

use crate::probe::Tally;

/// Flows of one direction added up, each judged by itself: what excuses one flow's loss is no excuse for another's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Packets that left, as far as it is known; of a flow whose sender did not report, those up to the last that arrived.
    pub sent: u64,
    /// Packets that left, did not arrive intact, and that no cut explains.
    pub lost: u64,
    /// Flows of which the far end gave no report.
    pub unreported: u64,
    /// What arrived.
    pub tally: Tally,
}

impl Account {
    /// Adds a flow of which `sent` packets left.
    pub fn add(&mut self, sent: u64, tally: &Tally) {
        self.sent += sent;
        self.lost += sent.saturating_sub(tally.received + tally.lost_at_cut);
        self.tally.add(tally);
    }

    /// Adds a flow of which the far end gave no report; `sent` packets left at least.
    pub fn add_unreported(&mut self, sent: u64, tally: &Tally) {
        self.unreported += 1;
        self.add(sent, tally);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_flows_excuse_is_not_anothers() {
        let mut account = Account::default();
        // More excused than missing: a late packet of an earlier cut, for one.
        account.add(10, &Tally { received: 10, lost_at_cut: 3, ..Tally::default() });
        account.add(10, &Tally { received: 8, ..Tally::default() });
        assert_eq!((account.lost, account.sent), (2, 20));
        assert_eq!((account.tally.received, account.tally.lost_at_cut), (18, 3));
    }

    #[test]
    fn without_a_report_the_gaps_that_were_seen_count() {
        let mut account = Account::default();
        account.add_unreported(10, &Tally { received: 7, lost_at_cut: 1, ..Tally::default() });
        assert_eq!((account.unreported, account.sent, account.lost), (1, 10, 2));
    }
}

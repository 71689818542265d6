//! When a connection counts as corrupted (RFC 9329 §6.1): it is closed then, and its SAs go on over the next one.

use super::tunnel::Arrived;

/// Messages in a row that could not be used and are survived: a few packets of SAs that are gone prove nothing.
const BAD_IN_A_ROW: u32 = 16;

/// What speaks against a connection.
#[derive(Default)]
pub(super) struct Corruption {
    bad_in_a_row: u32,
    /// A message of a known SA was not authentic.
    forged: bool,
}

impl Corruption {
    /// A message was good.
    pub(super) fn good(&mut self) {
        self.bad_in_a_row = 0;
    }

    /// A message was nothing, or of no SA that is known.
    pub(super) fn bad(&mut self) {
        self.bad_in_a_row += 1;
    }

    /// A message of a known SA failed its integrity check.
    pub(super) fn forged(&mut self) {
        self.forged = true;
    }

    /// What became of an ESP packet says something about the connection it came on.
    pub(super) fn judge(&mut self, arrived: Arrived) -> Arrived {
        match &arrived {
            Arrived::Inner(_) | Arrived::Nothing => self.good(),
            Arrived::Unknown => self.bad(),
            Arrived::Forged => self.forged(),
            // A replay is what an attacker, or a gateway that sent it on two connections, may cause at will.
            Arrived::Dropped => {}
        }
        arrived
    }

    /// Why the connection has to be closed, if it has.
    pub(super) fn verdict(&self) -> Option<&'static str> {
        if self.forged {
            Some("corrupted: a message is not authentic")
        } else if self.bad_in_a_row > BAD_IN_A_ROW {
            Some("corrupted: too many messages of no use")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r9329_6_1_o6_a_few_bad_messages_are_survived_and_a_forged_one_is_not() {
        let mut corruption = Corruption::default();
        for _ in 0..3 {
            (0..BAD_IN_A_ROW).for_each(|_| corruption.bad());
            assert_eq!(corruption.verdict(), None);
            corruption.good();
        }
        (0..=BAD_IN_A_ROW).for_each(|_| corruption.bad());
        assert!(corruption.verdict().is_some());
        let mut corruption = Corruption::default();
        corruption.forged();
        corruption.good();
        assert!(corruption.verdict().is_some());
    }
}

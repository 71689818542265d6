//! Loss on the wire: independent, or in bursts.

use super::random::Random;

/// How packets get lost; probabilities are 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Each packet by itself.
    Random(f64),
    /// Gilbert-Elliott: a good and a bad state, changed per packet.
    Bursts {
        /// Good to bad.
        p: f64,
        /// Bad to good; 1/r packets is the mean stay in the bad state.
        r: f64,
        /// Loss in the good state.
        good: f64,
        /// Loss in the bad state.
        bad: f64,
    },
}

impl Loss {
    /// Returns the share of packets lost in the long run.
    pub fn mean(&self) -> f64 {
        match *self {
            Self::Random(loss) => loss,
            // From the good state there is no way out: it starts there.
            Self::Bursts { p: 0.0, good, .. } => good,
            Self::Bursts { p, r, good, bad } => (p * bad + r * good) / (p + r),
        }
    }

    /// Returns the variance of the number lost among many packets, over that of independent loss with the same mean:
    /// bursts of n packets are n times as rare.
    pub fn clustering(&self) -> f64 {
        match *self {
            Self::Random(_) => 1.0,
            Self::Bursts { p, r, .. } => ((2.0 - p - r) / (p + r)).max(1.0),
        }
    }
}

/// A [`Loss`] at work.
#[derive(Clone, Debug)]
pub(super) struct LossState {
    loss: Loss,
    bad: bool,
    random: Random,
}

impl LossState {
    pub(super) fn new(loss: Loss, random: Random) -> Self {
        Self { loss, bad: false, random }
    }

    /// Says whether the next packet is lost.
    pub(super) fn next(&mut self) -> bool {
        match self.loss {
            Loss::Random(loss) => self.random.happens(loss),
            Loss::Bursts { p, r, good, bad } => {
                let changes = self.random.happens(if self.bad { r } else { p });
                self.bad ^= changes;
                self.random.happens(if self.bad { bad } else { good })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(loss: Loss, packets: usize) -> Vec<bool> {
        let mut state = LossState::new(loss, Random::new(9, 1));
        (0..packets).map(|_| state.next()).collect()
    }

    #[test]
    fn independent_loss_has_its_mean() {
        let share = lost(Loss::Random(0.01), 1_000_000).iter().filter(|lost| **lost).count() as f64 / 1e6;
        assert!((share - 0.01).abs() < 0.0004, "{share}");
    }

    #[test]
    fn bursts_have_the_mean_loss_and_length_of_the_formula() {
        let loss = Loss::Bursts { p: 0.005, r: 0.25, good: 0.0, bad: 1.0 };
        let fates = lost(loss, 2_000_000);
        let count = fates.iter().filter(|lost| **lost).count() as f64;
        let bursts = fates.windows(2).filter(|pair| !pair[0] && pair[1]).count() as f64;
        let mean = loss.mean();
        assert!((mean - 0.005 / 0.255).abs() < 1e-9);
        assert!((count / 2e6 / mean - 1.0).abs() < 0.05, "{}", count / 2e6);
        assert!((count / bursts / 4.0 - 1.0).abs() < 0.05, "{}", count / bursts);
    }

    #[test]
    fn both_states_may_lose() {
        let loss = Loss::Bursts { p: 0.1, r: 0.3, good: 0.01, bad: 0.5 };
        let count = lost(loss, 1_000_000).iter().filter(|lost| **lost).count() as f64;
        assert!((count / 1e6 / loss.mean() - 1.0).abs() < 0.03);
        assert_eq!(Loss::Bursts { p: 0.0, r: 0.0, good: 0.0, bad: 1.0 }.mean(), 0.0);
    }
}

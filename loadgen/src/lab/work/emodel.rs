//! How good a call is: the wideband E-model, ITU-T G.107.1.
//!
//! `R = 129 - Idd - Ie,eff`: no noise, no echo, no advantage. `Idd` is the impairment by pure delay of G.107 for the time
//! from mouth to ear. `Ie,eff = Ie + (95 - Ie) * Ppl / (Ppl + Bpl)` is that of the codec with the frames that the
//! listener misses. G.107.1 knows losses that are independent only: bursts count as if they were, so a call with long
//! gaps is worse than its R says. The opinion score is that of `R / 1.29` by the curve of G.107.
//!
//! Constants are planning values for two ears (diotic) of ITU-T G.113, Appendix IV: the only ones that state the
//! robustness against losses too. For EVS there are none on this scale; see [`Codec::Evs13`].

/// R of a wideband call without any impairment.
const BEST: f64 = 129.0;
/// Highest `Ie,eff` when everything is lost.
const LOST: f64 = 95.0;
/// G.107: delay that nobody notices, in milliseconds.
const UNNOTICED_MS: f64 = 100.0;

/// A speech codec at one rate, with a frame every 20 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// AMR-WB at 12.65 kbit/s.
    AmrWb12,
    /// EVS primary, wideband, at 13.2 kbit/s. G.113 has no `Ie,wb` of it: the values of AMR-WB at 23.85 kbit/s stand
    /// in, which is an assumption.
    Evs13,
}

impl Codec {
    /// Returns its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::AmrWb12 => "amr-wb-12.65",
            Self::Evs13 => "evs-13.2",
        }
    }

    /// Octets of RTP payload of a frame: AMR-WB 253 bits and 10 bits of header in the bandwidth-efficient form of
    /// RFC 4867, EVS 264 bits in the compact form of 3GPP TS 26.445, A.2.1.
    pub fn payload_len(self) -> usize {
        match self {
            Self::AmrWb12 | Self::Evs13 => 33,
        }
    }

    /// Time between mouth and network: a frame and what the encoder looks ahead (EVS: its delay as a whole).
    pub fn delay_ms(self) -> f64 {
        match self {
            Self::AmrWb12 => 20.0 + 5.0,
            Self::Evs13 => 32.0,
        }
    }

    /// `Ie` and `Bpl`.
    fn impairment(self) -> (f64, f64) {
        match self {
            Self::AmrWb12 => (20.0, 4.3),
            Self::Evs13 => (10.0, 4.9),
        }
    }
}

/// Returns R for a time from mouth to ear and the share of frames missed in per cent; never below 0.
pub fn rating(codec: Codec, mouth_to_ear_ms: f64, missed_pct: f64) -> f64 {
    let (ie, bpl) = codec.impairment();
    let effective = ie + (LOST - ie) * missed_pct / (missed_pct + bpl);
    (BEST - delay_impairment(mouth_to_ear_ms) - effective).max(0.0)
}

/// Returns the mean opinion score of a wideband R: 1 to 4.5.
pub fn opinion(rating: f64) -> f64 {
    narrowband_opinion(rating / 1.29)
}

/// G.107, B-4.
fn narrowband_opinion(r: f64) -> f64 {
    if r <= 0.0 {
        return 1.0;
    }
    if r >= 100.0 {
        return 4.5;
    }
    // Below 6.5 the polynomial falls under the worst score there is.
    (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0)
}

/// G.107, 7-27 and 7-28: `Idd` with the default sensitivity.
fn delay_impairment(delay_ms: f64) -> f64 {
    if delay_ms <= UNNOTICED_MS {
        return 0.0;
    }
    let x = (delay_ms / UNNOTICED_MS).log2();
    let root = |x: f64| (1.0 + x.powi(6)).powf(1.0 / 6.0);
    25.0 * (root(x) - 3.0 * root(x / 3.0) + 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64, within: f64) {
        assert!((value - expected).abs() <= within, "{value} is not {expected}");
    }

    #[test]
    fn delay_impairs_as_in_g107() {
        assert_eq!(delay_impairment(0.0), 0.0);
        assert_eq!(delay_impairment(100.0), 0.0);
        close(delay_impairment(150.0), 0.16, 0.01);
        close(delay_impairment(250.0), 8.9, 0.1);
        close(delay_impairment(400.0), 24.1, 0.1);
    }

    #[test]
    fn the_curve_of_opinions_has_its_published_points() {
        // G.107: the default R of 93.2, and the limits of the categories of G.109.
        close(narrowband_opinion(93.2), 4.41, 0.005);
        close(narrowband_opinion(90.0), 4.34, 0.01);
        close(narrowband_opinion(80.0), 4.03, 0.01);
        close(narrowband_opinion(70.0), 3.60, 0.01);
        close(narrowband_opinion(60.0), 3.10, 0.01);
        close(narrowband_opinion(50.0), 2.58, 0.01);
        assert_eq!((narrowband_opinion(0.0), narrowband_opinion(100.0)), (1.0, 4.5));
        assert_eq!(narrowband_opinion(3.0), 1.0);
        // Wideband: R of 109 is what two ears get of AMR-WB at 12.65 kbit/s.
        close(opinion(129.0), 4.5, 1e-9);
        close(opinion(116.0), 4.337, 0.001);
        close(opinion(109.0), 4.18, 0.005);
    }

    #[test]
    fn losses_and_delay_are_taken_from_the_rating() {
        close(rating(Codec::AmrWb12, 80.0, 0.0), 109.0, 1e-9);
        // 20 + 75 * 2 / 6.3
        close(rating(Codec::AmrWb12, 80.0, 2.0), 129.0 - 43.8095, 1e-3);
        close(opinion(rating(Codec::AmrWb12, 80.0, 2.0)), 3.406, 0.001);
        close(rating(Codec::AmrWb12, 400.0, 0.0), 109.0 - 24.1, 0.1);
        assert!(rating(Codec::Evs13, 80.0, 0.0) > rating(Codec::AmrWb12, 80.0, 0.0));
        assert_eq!(rating(Codec::AmrWb12, 1e6, 100.0), 0.0);
    }
}

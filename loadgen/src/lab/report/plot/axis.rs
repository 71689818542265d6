//! Axes: where a value is, and what is written there.

use super::super::stat::setting;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// An axis from its first to its last position.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with its unit.
    pub title: String,
    /// Positions with what is written there.
    pub ticks: Vec<(f64, String)>,
    /// First and last position.
    pub range: (f64, f64),
    scale: Scale,
}

#[derive(Clone, Debug)]
enum Scale {
    Linear,
    /// Values below the first one are drawn there.
    Log(f64),
    Steps(Vec<f64>),
}

impl Axis {
    /// Creates an axis from 0 to `most` or a little more.
    pub fn linear(title: &str, most: f64) -> Self {
        Self::between(title, 0.0, most)
    }

    /// Creates an axis from `least` to `most` or a little more.
    pub fn between(title: &str, least: f64, most: f64) -> Self {
        let span = (most - least).max(f64::MIN_POSITIVE);
        let span = if span.is_finite() && span > 1e-9 { span } else { 1.0 };
        let step = round_step(span / 5.0);
        let count = (span / step - 1e-9).ceil().clamp(1.0, 12.0) as u32;
        let ticks = (0..=count).map(|tick| least + step * f64::from(tick));
        Self {
            title: title.to_owned(),
            ticks: ticks.map(|at| (at, tick_text(at, step))).collect(),
            range: (least, least + step * f64::from(count)),
            scale: Scale::Linear,
        }
    }

    /// Creates a logarithmic axis that holds these values; what is not above 0 is drawn at its edge.
    pub fn log(title: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let positive = values.into_iter().filter(|value| value.is_finite() && *value > 0.0);
        let (least, most) = positive
            .fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        let (least, most) = if least.is_finite() { (least.max(1e-6), most.max(1e-6)) } else { (1.0, 10.0) };
        let steps = log_steps(least, most);
        let first = steps.first().copied().unwrap_or(1.0);
        let last = steps.last().copied().unwrap_or(10.0);
        Self {
            title: title.to_owned(),
            ticks: steps.iter().map(|step| (step.log10(), setting(*step))).collect(),
            range: (first.log10(), last.log10()),
            scale: Scale::Log(first),
        }
    }

    /// Creates an axis on which each value has a place of its own, all as far apart.
    pub fn steps(title: &str, values: &[(f64, String)]) -> Self {
        let places = values.iter().enumerate();
        Self {
            title: title.to_owned(),
            ticks: places.map(|(at, (_, text))| (at as f64, text.clone())).collect(),
            range: (-0.4, values.len().max(1) as f64 - 0.6),
            scale: Scale::Steps(values.iter().map(|(value, _)| *value).collect()),
        }
    }

    /// Returns the position of a value; none where it has none.
    pub fn at(&self, value: f64) -> Option<f64> {
        match &self.scale {
            Scale::Linear => Some(value),
            Scale::Log(floor) => Some(value.max(*floor).log10()),
            Scale::Steps(values) => values.iter().position(|step| *step == value).map(|at| at as f64),
        }
        .filter(|at| at.is_finite())
        .map(|at| at.clamp(self.range.0, self.range.1))
    }

    /// Moves a position on an axis of steps, so that whiskers of several curves stand side by side.
    pub fn beside(&self, at: f64, curve: usize, curves: usize) -> f64 {
        match self.scale {
            Scale::Steps(_) if curves > 1 => {
                let room = 0.05 * (self.range.1 - self.range.0);
                at + room * (curve as f64 / (curves - 1) as f64 - 0.5)
            }
            _ => at,
        }
    }
}

/// Plotters sees positions only; what they mean is known to the axis.
impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, at: &f64, (first, last): (i32, i32)) -> i32 {
        let share = (at - self.range.0) / (self.range.1 - self.range.0);
        first + (f64::from(last - first) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        self.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.0..self.range.1
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(at: &f64) -> String {
        at.to_string()
    }

    fn format_ext(&self, at: &f64) -> String {
        let near = |tick: &&(f64, String)| (tick.0 - at).abs() < 1e-6;
        self.ticks.iter().find(near).map(|(_, text)| text.clone()).unwrap_or_default()
    }
}

/// Returns 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= least * 0.999)
        .unwrap_or(10.0 * power)
}

fn tick_text(at: f64, step: f64) -> String {
    let digits = if step >= 1.0 { 0 } else { (-step.log10()).ceil().clamp(0.0, 6.0) as usize };
    format!("{at:.digits$}")
}

/// Returns the ticks of a logarithmic axis: fewer to a power of ten the longer it is.
fn log_steps(least: f64, most: f64) -> Vec<f64> {
    let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
    let all = |steps: &[f64]| -> Vec<f64> {
        let powers = first - 1..=last;
        powers
            .flat_map(|power| steps.iter().map(move |step| exact(*step, power)).collect::<Vec<_>>())
            .collect()
    };
    let mut steps = all(&[1.0, 2.0, 5.0]);
    if (most / least).log10() > 5.0 {
        steps = all(&[1.0]);
    } else if (most / least).log10() > 2.3 {
        steps = all(&[1.0, 3.0]);
    }
    let from = steps.iter().rposition(|step| *step <= least * 1.0001).unwrap_or(0);
    let mut to = steps.iter().position(|step| *step >= most * 0.9999).unwrap_or(steps.len() - 1);
    if to <= from {
        to = (from + 1).min(steps.len() - 1);
    }
    steps[from..=to].to_vec()
}

/// Returns `step` times a power of ten without the errors of multiplication, so that 0.1 is written as it is.
fn exact(step: f64, power: i32) -> f64 {
    if power < 0 { step / 10_f64.powi(-power) } else { step * 10_f64.powi(power) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<String> {
        axis.ticks.iter().map(|(_, text)| text.clone()).collect()
    }

    #[test]
    fn ticks_are_round_and_hold_the_data() {
        assert_eq!(texts(&Axis::linear("", 19.3)), ["0", "5", "10", "15", "20"]);
        assert_eq!(texts(&Axis::linear("", 0.7)), ["0.0", "0.2", "0.4", "0.6", "0.8"]);
        assert_eq!(texts(&Axis::log("", [0.3, 18.0])), ["0.2", "0.5", "1", "2", "5", "10", "20"]);
        assert_eq!(
            texts(&Axis::log("", [0.003, 180.0])),
            ["0.003", "0.01", "0.03", "0.1", "0.3", "1", "3", "10", "30", "100", "300"]
        );
    }

    #[test]
    fn axes_of_nothing_are_axes_all_the_same() {
        for axis in [
            Axis::linear("", 0.0),
            Axis::linear("", f64::NAN),
            Axis::log("", []),
            Axis::log("", [0.0, f64::NAN]),
            Axis::log("", [5.0]),
            Axis::steps("", &[]),
        ] {
            assert!(axis.range.0 < axis.range.1 && axis.range.1.is_finite(), "{axis:?}");
        }
    }

    #[test]
    fn zero_is_at_the_edge_of_a_logarithmic_axis() {
        let axis = Axis::log("", [1.0, 10.0]);
        assert_eq!((axis.at(0.0), axis.at(10.0), axis.at(f64::NAN)), (Some(0.0), Some(1.0), Some(0.0)));
        let steps = Axis::steps("", &[(0.0, "0".into()), (5.0, "5".into())]);
        assert_eq!((steps.at(5.0), steps.at(4.0)), (Some(1.0), None));
    }
}

//! Figures of repetitions, and how numbers are written.

/// The middle of a figure over its repetitions, and its ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
    /// Repetitions that have the figure.
    pub count: usize,
}

impl Spread {
    /// Returns the spread of the values that are numbers; none when there is none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => values[middle - 1].midpoint(values[middle]),
        };
        Some(Self { median, min, max, count: values.len() })
    }

    /// Returns this over `other`; none when the median is no number. The ends are the furthest that any two repetitions
    /// are apart: the greatest is not finite when `other` was nothing once, and [`Spread::ends`] leaves it out.
    pub fn over(&self, other: &Self) -> Option<Self> {
        let median = Some(self.median / other.median).filter(|ratio| ratio.is_finite())?;
        let count = self.count.min(other.count);
        Some(Self { median, min: self.min / other.max, max: self.max / other.min, count })
    }

    /// Returns this with `less` taken from each value.
    pub fn minus(&self, less: f64) -> Self {
        Self { median: self.median - less, min: self.min - less, max: self.max - less, ..*self }
    }

    /// Writes the median and, when there were several repetitions, the ends.
    pub fn show(&self) -> String {
        match self.count {
            1 => number(self.median),
            _ => format!("{} ({})", number(self.median), self.ends()),
        }
    }

    /// Writes the ends; the least alone when there is no greatest.
    pub fn ends(&self) -> String {
        match self.max.is_finite() {
            true => format!("{}–{}", number(self.min), number(self.max)),
            false => format!("≥ {}", number(self.min)),
        }
    }
}

/// What stands for a figure that was not measured.
pub const NOTHING: &str = "–";

/// Writes a figure that may not have been measured.
pub fn show(spread: Option<Spread>) -> String {
    spread.map_or_else(|| NOTHING.to_owned(), |spread| spread.show())
}

/// Writes a measured number with about three digits that count; a dash for what is not finite.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if !size.is_finite() => return NOTHING.to_owned(),
        0.0 => 0,
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.0995 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    // What rounds to nothing has no sign.
    if text.bytes().all(|byte| matches!(byte, b'-' | b'0' | b'.')) { "0".to_owned() } else { text }
}

/// Writes a configured number as it was given.
pub fn setting(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { NOTHING.to_owned() }
}

/// Writes a count with its noun, `1 path`, `2 paths`.
pub fn counted(count: usize, noun: &str) -> String {
    let plural = match (count, noun.strip_suffix('y')) {
        (1, _) => noun.to_owned(),
        _ if noun.ends_with('s') => noun.to_owned(),
        (_, Some(stem)) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ => format!("{noun}s"),
    };
    format!("{count} {plural}")
}

/// Joins with commas and a last `and`.
pub fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_leaves_out_what_is_no_number() {
        let spread = Spread::of([3.0, f64::NAN, 1.0, f64::INFINITY]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max, spread.count), (2.0, 1.0, 3.0, 2));
        assert_eq!(Spread::of([f64::NAN]), None);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratio_takes_the_furthest_ends_and_has_a_median_that_is_a_number() {
        let some = Spread::of([1.0, 2.0, 4.0]).unwrap();
        let other = Spread::of([4.0, 8.0, 10.0]).unwrap();
        let ratio = some.over(&other).unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (0.25, 0.1, 1.0));
        assert_eq!(some.over(&Spread::of([0.0]).unwrap()), None);
        assert_eq!(Spread::of([0.0]).unwrap().over(&Spread::of([0.0]).unwrap()), None);
        // A single repetition without anything leaves the others.
        let once = some.over(&Spread::of([0.0, 4.0, 8.0]).unwrap()).unwrap();
        assert_eq!((once.median, once.min, once.max), (0.5, 0.125, f64::INFINITY));
        assert_eq!(once.show(), "0.50 (≥ 0.12)");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [123.4, 99.96, 12.34, 1.234, 0.1234, 0.01234, 0.0, -0.0001, f64::NAN].map(number),
            ["123", "100", "12.3", "1.23", "0.12", "0.012", "0", "0", "–"]
        );
        assert_eq!(setting(0.5), "0.5");
        assert_eq!(counted(1, "repetition"), "1 repetition");
        assert_eq!(
            [counted(2, "study"), counted(0, "way"), counted(3, "series")],
            ["2 studies", "0 ways", "3 series"]
        );
        assert_eq!(listed(&["a".into(), "b".into(), "c".into()]), "a, b and c");
    }
}

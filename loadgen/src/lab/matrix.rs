//! What is measured: a product of dimensions per group, read from TOML.
//!
//! ```toml
//! seconds = 20            # of each measurement, after the warm-up
//! repetitions = 2
//! [defaults]              # of all groups
//! rate_mbit = 20
//! [[group]]
//! name = "goodput"
//! transport = ["udp", "tcp"]
//! workload = "bulk"
//! loss_pct = [0, 0.1, 1, 3]
//! ```
//!
//! Each dimension takes one value or a list. A point that two groups have is measured once. What the path does has the
//! names of the options of `loadgen path`, but for the delay (`rtt_ms` is that of both directions) and bursts
//! (`loss_burst` is their mean length): `loss_pct`, `jitter_ms` or `normal_jitter_ms`, `reorder_pct`, `duplicate_pct`,
//! `corrupt_pct`, `rate_mbit`. Each is that of each direction; all but the rate are 0 where neither the group nor the
//! defaults name them. [`Point`] has all dimensions and what they are then.

use super::point::{check, id, simplify, within};
use super::results::Point;
use crate::error::Failure;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;

/// The matrix that `loadgen lab` runs when none is named.
pub const DEFAULT: &str = include_str!("../../../deploy/lab/default.toml");

/// Most points of a matrix.
const POINTS_MAX: usize = 10_000;

/// A study.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Where all fates come from.
    #[serde(default = "one")]
    pub seed: u64,
    /// Seconds of each measurement.
    pub seconds: f64,
    /// Seconds of traffic before it.
    #[serde(default = "warm_up")]
    pub warm_up: f64,
    /// How often each point is measured.
    #[serde(default = "once")]
    pub repetitions: u32,
    /// Most points that are measured at the same time; fewer when they turn out to disturb each other.
    #[serde(default = "once")]
    pub parallel: u32,
    /// Dimensions of groups that do not name them.
    #[serde(default)]
    pub defaults: Dimensions,
    /// What is measured.
    pub group: Vec<Dimensions>,
}

/// One product of dimensions: the values of each; see [`Point`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dimensions {
    /// Name of the group.
    name: Option<String>,
    transport: Option<Values<String>>,
    outer_cc: Option<Values<String>>,
    inner_cc: Option<Values<String>>,
    workload: Option<Values<String>>,
    direction: Option<Values<String>>,
    rtt_ms: Option<Values<f64>>,
    loss_pct: Option<Values<f64>>,
    /// Mean length of a burst, in packets; 1 is independent losses.
    loss_burst: Option<Values<f64>>,
    jitter_ms: Option<Values<f64>>,
    normal_jitter_ms: Option<Values<f64>>,
    reorder_pct: Option<Values<f64>>,
    duplicate_pct: Option<Values<f64>>,
    corrupt_pct: Option<Values<f64>>,
    rate_mbit: Option<Values<f64>>,
    queue_ms: Option<Values<f64>>,
    discipline: Option<Values<String>>,
    flow_queue: Option<Values<bool>>,
    nodelay: Option<Values<bool>>,
    /// 0: chosen by the gateway.
    unsent_octets: Option<Values<u32>>,
    offload: Option<Values<bool>>,
}

/// One value or several.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "one value of the key's kind (a number, text, or true and false) or a list of them"
)]
enum Values<T> {
    One(T),
    Several(Vec<T>),
}

impl<T: Clone> Values<T> {
    fn all(&self) -> Vec<T> {
        match self {
            Self::One(value) => vec![value.clone()],
            Self::Several(values) => values.clone(),
        }
    }
}

fn one() -> u64 {
    1
}

fn once() -> u32 {
    1
}

fn warm_up() -> f64 {
    4.0
}

impl Matrix {
    /// Reads a matrix; the default without a file.
    ///
    /// # Errors
    /// [`Failure::Usage`] with file, key and what is allowed.
    pub fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Self::parse(DEFAULT, "default") };
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::Usage(format!("--matrix {}: {error}", path.display())))?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, name: &str) -> Result<Self, Failure> {
        let explain = |error: String| Failure::Usage(format!("{name}: {error}"));
        let matrix: Self = toml::from_str(text).map_err(|error| explain(error.to_string()))?;
        matrix.check().map_err(explain)?;
        Ok(matrix)
    }

    fn check(&self) -> Result<(), String> {
        within("seconds", self.seconds, 1.0, 3_600.0)?;
        within("warm_up", self.warm_up, 1.0, 600.0)?;
        within("repetitions", f64::from(self.repetitions), 1.0, 1_000.0)?;
        within("parallel", f64::from(self.parallel), 1.0, 64.0)?;
        self.points().map(|_| ())
    }

    /// Returns all points with the group that has them first.
    ///
    /// # Errors
    /// What is wrong and what is allowed.
    pub fn points(&self) -> Result<Vec<(String, Point)>, String> {
        let (mut points, mut known) = (Vec::new(), HashSet::new());
        for group in &self.group {
            let name = group.name.as_deref().ok_or("each [[group]] needs a name")?;
            let explain = |error| format!("group {name}: {error}");
            for point in group.product(&self.defaults).map_err(explain)? {
                if known.insert(id(&point)) {
                    points.push((name.to_owned(), point));
                }
                if points.len() > POINTS_MAX {
                    return Err(format!("more than {POINTS_MAX} points"));
                }
            }
        }
        if points.is_empty() {
            return Err("no points: give at least one [[group]]".into());
        }
        Ok(points)
    }
}

impl Dimensions {
    fn product(&self, defaults: &Self) -> Result<Vec<Point>, String> {
        let mut points = vec![Point::default()];
        macro_rules! multiply {
            ($($field:ident $(=> $convert:expr)?),+ $(,)?) => {
                $(if let Some(values) = self.$field.as_ref().or(defaults.$field.as_ref()) {
                    points = multiply(&points, &values.all(), |point, value| {
                        point.$field = multiply!(@ value $(, $convert)?);
                    })?;
                })+
            };
            (@ $value:ident) => { $value };
            (@ $value:ident, $convert:expr) => { $convert($value) };
        }
        multiply!(
            transport, outer_cc, inner_cc, workload, direction, rate_mbit, queue_ms, discipline, rtt_ms,
            loss_burst => |burst: f64| (burst > 1.0).then_some(burst),
            loss_pct, jitter_ms, normal_jitter_ms, reorder_pct, duplicate_pct, corrupt_pct, flow_queue, nodelay,
            unsent_octets => |octets: u32| (octets > 0).then_some(octets),
            offload,
        );
        for point in &mut points {
            // Before that: what says nothing about a point may be wrong all the same.
            check(point)?;
            simplify(point);
        }
        Ok(points)
    }
}

fn multiply<T: Clone>(
    points: &[Point],
    values: &[T],
    set: impl Fn(&mut Point, T),
) -> Result<Vec<Point>, String> {
    if values.is_empty() {
        return Err("an empty list leaves nothing to measure".into());
    }
    if points.len() * values.len() > POINTS_MAX {
        return Err(format!("more than {POINTS_MAX} points"));
    }
    let mut product = Vec::new();
    for value in values {
        for mut point in points.iter().cloned() {
            set(&mut point, value.clone());
            product.push(point);
        }
    }
    Ok(product)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Matrix, String> {
        Matrix::parse(text, "m.toml").map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_default_is_a_matrix() {
        let matrix = Matrix::read(None).unwrap();
        assert!(matrix.points().unwrap().len() > 20);
    }

    #[test]
    fn the_others_are_matrices_of_as_many_points_as_they_say() {
        let count = |text: &str| Matrix::parse(text, "m.toml").unwrap().points().unwrap().len();
        let full = include_str!("../../../deploy/lab/full.toml");
        assert_eq!(count(full), 2_075);
        assert!(full.contains("2,075 points"));
        assert_eq!(count(include_str!("../../../deploy/lab/smoke.toml")), 12);
    }

    #[test]
    fn groups_multiply_and_share_points() {
        let matrix = parse(
            r#"
            seconds = 5
            [defaults]
            rtt_ms = [20, 60]
            [[group]]
            name = "a"
            transport = ["udp", "tcp"]
            loss_pct = [0, 1, 2.5]
            [[group]]
            name = "b"
            transport = "tcp"
            loss_pct = 1
            flow_queue = [true, false]
            "#,
        )
        .unwrap();
        let points = matrix.points().unwrap();
        // Of the second group only those without a flow queue are new.
        assert_eq!(points.len(), 2 * 2 * 3 + 2);
        assert_eq!(points[12].0, "b");
        assert!(!points[12].1.flow_queue);
    }

    #[test]
    fn what_means_nothing_to_a_transport_is_measured_once() {
        let matrix = parse(
            "seconds = 5\n[[group]]\nname = \"a\"\ntransport = [\"plain\", \"udp\"]\nouter_cc = [\"cubic\", \"bbr\"]\n\
             flow_queue = [true, false]\nloss_burst = [1, 3]",
        )
        .unwrap();
        assert_eq!(matrix.points().unwrap().len(), 3);
    }

    #[test]
    fn what_a_path_does_besides_multiplies_too_and_is_nothing_when_not_named() {
        let matrix = parse(
            "seconds = 5\n[defaults]\nduplicate_pct = 1\n[[group]]\nname = \"a\"\njitter_ms = [0, 5]\n\
             reorder_pct = [0, 0.5, 2]\n[[group]]\nname = \"b\"\nnormal_jitter_ms = 4\ncorrupt_pct = 0.25\n\
             duplicate_pct = 0",
        );
        let points = matrix.unwrap().points().unwrap();
        assert_eq!(points.len(), 2 * 3 + 1);
        let (of_a, b) = (&points[..6], &points[6].1);
        assert!(of_a.iter().all(|(_, point)| (point.duplicate_pct, point.corrupt_pct) == (1.0, 0.0)));
        let mut pairs: Vec<_> = of_a.iter().map(|(_, point)| (point.jitter_ms, point.reorder_pct)).collect();
        pairs.sort_by(|one, two| one.partial_cmp(two).unwrap());
        assert_eq!(pairs, [(0.0, 0.0), (0.0, 0.5), (0.0, 2.0), (5.0, 0.0), (5.0, 0.5), (5.0, 2.0)]);
        let wanted = Point { normal_jitter_ms: 4.0, corrupt_pct: 0.25, ..Point::default() };
        assert_eq!(*b, wanted);
    }

    #[test]
    fn a_path_without_delay_has_nothing_to_overtake() {
        let count = |more: &str| {
            let text =
                format!("seconds = 5\n[[group]]\nname = \"a\"\nrtt_ms = 0\nreorder_pct = [0, 1]\n{more}");
            parse(&text).unwrap().points().unwrap().len()
        };
        assert_eq!([count(""), count("jitter_ms = 2"), count("normal_jitter_ms = 2")], [1, 2, 2]);
    }

    #[test]
    fn libreswan_is_measured_as_it_comes() {
        let matrix = parse(
            "seconds = 5\n[[group]]\nname = \"a\"\ntransport = \"libreswan\"\nouter_cc = [\"cubic\", \"bbr\"]\n\
             flow_queue = [true, false]\nnodelay = [true, false]\nunsent_octets = [0, 65536]\noffload = [true, false]",
        )
        .unwrap();
        assert_eq!(matrix.points().unwrap().len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (lines, said) in [
            ("jitter_ms = -1", "jitter_ms = -1: 0 to 10000 are allowed"),
            ("normal_jitter_ms = 1e5", "normal_jitter_ms = 100000: 0 to 10000 are allowed"),
            (
                "jitter_ms = 2\nnormal_jitter_ms = 3",
                "normal_jitter_ms = 3: 0 alone is allowed with jitter_ms = 2",
            ),
            ("reorder_pct = [0, 101]", "reorder_pct = 101: 0 to 100 are allowed"),
            ("rtt_ms = 0\nreorder_pct = 101", "reorder_pct = 101: 0 to 100 are allowed"),
            ("duplicate_pct = nan", "duplicate_pct = NaN: 0 to 100 are allowed"),
            ("corrupt_pct = 51", "corrupt_pct = 51: 0 to 50 are allowed"),
            ("corrupt_pct = \"much\"", "corrupt_pct = \"much\""),
            ("corrupt_pct = \"much\"", "one value of the key's kind"),
            ("transport = \"sctp\"", "tcp, tls"),
            ("loss_pct = [0, 80]", "0 to 50"),
            ("rtt = 5", "unknown field `rtt`"),
            ("loss_pct = []", "empty list"),
            ("outer_cc = \"b b\"", "congestion control"),
            ("workload = \"games\"", "workload"),
            ("unsent_octets = 100", "4096"),
        ] {
            let error = parse(&format!("seconds = 5\n[[group]]\nname = \"g\"\n{lines}")).unwrap_err();
            assert!(error.contains(said) && error.contains("m.toml"), "{lines}: {error}");
        }
        assert!(parse("seconds = 0\n[[group]]\nname = \"g\"").unwrap_err().contains("seconds"));
    }
}

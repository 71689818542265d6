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
//! Each dimension takes one value or a list. A point that two groups have is measured once.

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
#[serde(untagged)]
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
                check(&point).map_err(explain)?;
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
        let mut points = vec![Point {
            transport: "tcp".into(),
            outer_cc: "cubic".into(),
            inner_cc: "cubic".into(),
            workload: "bulk".into(),
            direction: "down".into(),
            rtt_ms: 60.0,
            loss_pct: 0.0,
            loss_burst: None,
            rate_mbit: 20.0,
            queue_ms: 100.0,
            discipline: "droptail".into(),
            flow_queue: true,
            nodelay: true,
            unsent_octets: None,
            offload: true,
        }];
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
            loss_pct, flow_queue, nodelay,
            unsent_octets => |octets: u32| (octets > 0).then_some(octets),
            offload,
        );
        points.iter_mut().for_each(simplify);
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
    fn what_is_wrong_is_named() {
        for (lines, said) in [
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

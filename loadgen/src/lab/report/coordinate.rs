//! The coordinates of a [`Point`] as things to group, compare, sort and name by.

use super::stat::setting;
use crate::lab::results::Point;
use std::cmp::Ordering;

/// One coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinate {
    /// Round trip of the empty path.
    Rtt,
    /// Mean loss.
    Loss,
    /// Length of a burst of losses.
    Burst,
    /// How much the delay varies, evenly.
    Jitter,
    /// How much the delay varies, normally.
    NormalJitter,
    /// Packets that overtake others.
    Reorder,
    /// Packets that come twice.
    Duplicate,
    /// Packets with a bit flipped.
    Corrupt,
    /// Rate of the path.
    Rate,
    /// Length of the bottleneck's queue.
    Queue,
    /// What the queue does.
    Discipline,
    /// What runs inside.
    Workload,
    /// Which way it goes.
    Direction,
    /// What carries the tunnel.
    Transport,
    /// Congestion control of the outer TCP.
    OuterCc,
    /// Congestion control of the inner TCP.
    InnerCc,
    /// Flow queues of the gateway.
    FlowQueue,
    /// TCP_NODELAY of the gateway.
    Nodelay,
    /// TCP_NOTSENT_LOWAT of the gateway.
    Unsent,
    /// Super-packets of the inner devices.
    Offload,
}

/// Where a point is on a coordinate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A number with its unit.
    Number(f64),
    /// A word.
    Word(&'a str),
}

impl Value<'_> {
    /// Orders numbers before words.
    pub fn order(&self, other: &Value<'_>) -> Ordering {
        match (self, other) {
            (Value::Number(one), Value::Number(two)) => one.total_cmp(two),
            (Value::Word(one), Value::Word(two)) => one.cmp(two),
            (Value::Number(_), Value::Word(_)) => Ordering::Less,
            (Value::Word(_), Value::Number(_)) => Ordering::Greater,
        }
    }

    /// Writes it without its unit.
    pub fn show(&self) -> String {
        match self {
            Self::Number(number) => setting(*number),
            Self::Word(word) => (*word).to_owned(),
        }
    }
}

impl Coordinate {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 20] = [
        Self::Rtt,
        Self::Loss,
        Self::Burst,
        Self::Jitter,
        Self::NormalJitter,
        Self::Reorder,
        Self::Duplicate,
        Self::Corrupt,
        Self::Rate,
        Self::Queue,
        Self::Discipline,
        Self::Workload,
        Self::Direction,
        Self::Transport,
        Self::OuterCc,
        Self::InnerCc,
        Self::FlowQueue,
        Self::Nodelay,
        Self::Unsent,
        Self::Offload,
    ];

    /// What a path may do to packets besides delay, loss and queueing, and usually does not.
    pub const UNEVEN: [Self; 5] =
        [Self::Jitter, Self::NormalJitter, Self::Reorder, Self::Duplicate, Self::Corrupt];

    /// Returns the name and the unit, as of a column.
    pub fn title(self) -> &'static str {
        self.names().0
    }

    /// Returns the title, and the name and the unit in sentences.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Rtt => ("RTT, ms", "RTT", " ms"),
            Self::Loss => ("Loss, %", "loss", " %"),
            Self::Burst => ("Loss burst, packets", "loss in bursts of", " packets"),
            Self::Jitter => ("Jitter, ms", "jitter", " ms"),
            Self::NormalJitter => ("Normal jitter, ms", "normal jitter", " ms"),
            Self::Reorder => ("Reordered, %", "reordering", " %"),
            Self::Duplicate => ("Duplicated, %", "duplication", " %"),
            Self::Corrupt => ("Corrupted, %", "corruption", " %"),
            Self::Rate => ("Rate, Mbit/s", "rate", " Mbit/s"),
            Self::Queue => ("Queue, ms", "queue", " ms"),
            Self::Discipline => ("Queue discipline", "", ""),
            Self::Workload => ("Workload", "", ""),
            Self::Direction => ("Direction", "direction", ""),
            Self::Transport => ("Transport", "", ""),
            Self::OuterCc => ("Outer TCP", "outer", ""),
            Self::InnerCc => ("Inner TCP", "inner", ""),
            Self::FlowQueue => ("Flow queue", "flow queue", ""),
            Self::Nodelay => ("NODELAY", "NODELAY", ""),
            Self::Unsent => ("Unsent limit, octets", "unsent limit", " octets"),
            Self::Offload => ("Offload", "offload", ""),
        }
    }

    /// Returns where the point is.
    pub fn value(self, point: &Point) -> Value<'_> {
        let switch = |on: bool| Value::Word(if on { "on" } else { "off" });
        match self {
            Self::Rtt => Value::Number(point.rtt_ms),
            Self::Loss => Value::Number(point.loss_pct),
            Self::Burst => point.loss_burst.map_or_else(|| Value::Word("independent"), Value::Number),
            Self::Jitter => Value::Number(point.jitter_ms),
            Self::NormalJitter => Value::Number(point.normal_jitter_ms),
            Self::Reorder => Value::Number(point.reorder_pct),
            Self::Duplicate => Value::Number(point.duplicate_pct),
            Self::Corrupt => Value::Number(point.corrupt_pct),
            Self::Rate => Value::Number(point.rate_mbit),
            Self::Queue => Value::Number(point.queue_ms),
            Self::Discipline => Value::Word(&point.discipline),
            Self::Workload => Value::Word(&point.workload),
            Self::Direction => Value::Word(&point.direction),
            Self::Transport => Value::Word(&point.transport),
            Self::OuterCc => Value::Word(&point.outer_cc),
            Self::InnerCc => Value::Word(&point.inner_cc),
            Self::FlowQueue => switch(point.flow_queue),
            Self::Nodelay => switch(point.nodelay),
            Self::Unsent => point
                .unsent_octets
                .map_or_else(|| Value::Word("automatic"), |octets| Value::Number(octets.into())),
            Self::Offload => switch(point.offload),
        }
    }

    /// Tells whether the point is where one is unless it is said otherwise.
    fn is_usual(self, point: &Point) -> bool {
        Self::UNEVEN.contains(&self) && self.value(point) == Value::Number(0.0)
    }

    /// Names where the point is, such as `RTT 60 ms`.
    pub fn phrase(self, point: &Point) -> String {
        let (_, name, unit) = self.names();
        match self.value(point) {
            Value::Word(_) if self == Self::Burst => "independent losses".to_owned(),
            Value::Word(word) => format!("{name} {word}").trim().to_owned(),
            value => format!("{name} {}{unit}", value.show()),
        }
    }

    /// Tells whether the coordinate can make a difference at this point.
    ///
    /// A tunnel over UDP has no outer TCP, no tunnel has no gateway, and without loss there are no bursts.
    pub fn matters(self, point: &Point) -> bool {
        let ours = matches!(point.transport.as_str(), "udp" | "tcp" | "tls");
        match self {
            Self::OuterCc => over_tcp(&point.transport),
            Self::Nodelay | Self::Unsent => ours && over_tcp(&point.transport),
            Self::FlowQueue | Self::Offload => ours,
            Self::InnerCc => point.workload.split('+').any(|part| part.starts_with("bulk") || part == "web"),
            Self::Burst => point.loss_pct > 0.0,
            _ => true,
        }
    }
}

/// Tells whether a transport puts the tunnel into TCP.
pub fn over_tcp(transport: &str) -> bool {
    transport != "plain" && !transport.contains("udp") && !transport.contains("wireguard")
}

/// Tells whether two points are the same but for some coordinates and those that make no difference to one of them.
pub fn alike(one: &Point, two: &Point, except: &[Coordinate]) -> bool {
    Coordinate::ALL
        .iter()
        .filter(|coordinate| !except.contains(coordinate))
        .filter(|coordinate| coordinate.matters(one) && coordinate.matters(two))
        .all(|coordinate| coordinate.value(one) == coordinate.value(two))
}

/// Orders points by all coordinates.
pub fn order(one: &Point, two: &Point) -> Ordering {
    Coordinate::ALL
        .iter()
        .map(|coordinate| coordinate.value(one).order(&coordinate.value(two)))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Returns the values of a coordinate where it matters, each once and in order.
pub fn values<'a>(points: impl IntoIterator<Item = &'a Point>, coordinate: Coordinate) -> Vec<Value<'a>> {
    let mut values: Vec<Value<'a>> = points
        .into_iter()
        .filter(|point| coordinate.matters(point))
        .map(|point| coordinate.value(point))
        .collect();
    values.sort_by(|one, two| one.order(two));
    values.dedup();
    values
}

/// Returns the coordinates that differ among the points.
pub fn varying(points: &[&Point]) -> Vec<Coordinate> {
    Coordinate::ALL
        .into_iter()
        .filter(|coordinate| values(points.iter().copied(), *coordinate).len() > 1)
        .collect()
}

/// Names what all the points have in common, but for some coordinates and what paths usually do not do.
pub fn common(points: &[&Point], except: &[Coordinate]) -> String {
    let phrases: Vec<String> = Coordinate::ALL
        .into_iter()
        .filter(|coordinate| !except.contains(coordinate))
        .filter(|coordinate| values(points.iter().copied(), *coordinate).len() == 1)
        .filter_map(|coordinate| {
            let point = points.iter().find(|point| coordinate.matters(point))?;
            (!coordinate.is_usual(point)).then(|| coordinate.phrase(point))
        })
        .collect();
    phrases.join(", ")
}

/// Names a point by some coordinates, without what paths usually do not do.
pub fn name(point: &Point, by: &[Coordinate]) -> String {
    let phrases: Vec<String> = by
        .iter()
        .filter(|coordinate| coordinate.matters(point) && !coordinate.is_usual(point))
        .map(|coordinate| coordinate.phrase(point))
        .collect();
    phrases.join(", ")
}

/// Names a path by round trip and loss, and by what else it does to packets.
pub fn path(point: &Point) -> String {
    name(point, &[&[Coordinate::Rtt, Coordinate::Loss], &Coordinate::UNEVEN[..]].concat())
}

/// Tells whether a path does nothing to packets besides delay, loss and queueing.
pub fn is_even(point: &Point) -> bool {
    Coordinate::UNEVEN.iter().all(|coordinate| coordinate.is_usual(point))
}

/// Puts a name behind what it belongs to, if there is one.
pub fn bracketed(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" ({name})") }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::point;
    use super::*;

    #[test]
    fn what_a_path_does_besides_is_named_where_it_does_it() {
        let even = point("tcp", "bulk", 60.0, 1.0);
        let uneven = Point { jitter_ms: 5.0, corrupt_pct: 0.5, ..even.clone() };
        assert_eq!(path(&even), "RTT 60 ms, loss 1 %");
        assert_eq!(path(&uneven), "RTT 60 ms, loss 1 %, jitter 5 ms, corruption 0.5 %");
        assert!(common(&[&even], &[]).contains("independent losses, rate 20"));
        assert!(
            common(&[&uneven], &[]).contains("independent losses, jitter 5 ms, corruption 0.5 %, rate 20")
        );
        let by = varying(&[&even, &uneven]);
        assert_eq!(by, [Coordinate::Jitter, Coordinate::Corrupt]);
        assert_eq!([&even, &uneven].map(|point| name(point, &by)), ["", "jitter 5 ms, corruption 0.5 %"]);
        assert_eq!([&even, &uneven].map(is_even), [true, false]);
        assert!(!alike(&even, &uneven, &[]) && alike(&even, &uneven, &by));
    }
}

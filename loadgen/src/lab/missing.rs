//! What a machine lacks is no reason to measure nothing.

use super::results::Point;
use std::collections::BTreeMap;

/// Leaves out points for which this machine lacks something, and says what.
pub(super) fn without_missing(
    points: Vec<(String, Point)>,
    lacks: impl Fn(&str) -> Option<String>,
) -> (Vec<(String, Point)>, Option<String>) {
    let mut missing = BTreeMap::<String, u32>::new();
    let is_there = |(_, point): &(String, Point)| match lacks(&point.transport) {
        Some(why) => {
            *missing.entry(why).or_default() += 1;
            false
        }
        None => true,
    };
    let kept = points.into_iter().filter(is_there).collect();
    let notes: Vec<String> =
        missing.iter().map(|(why, count)| format!("{count} points are left out: {why}")).collect();
    (kept, (!notes.is_empty()).then(|| notes.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::super::matrix::Matrix;
    use super::*;

    #[test]
    fn what_a_machine_lacks_is_left_out_and_named_with_its_remedy() {
        let points = Matrix::read(None).unwrap().points().unwrap();
        let of = |transport: &str| points.iter().filter(|(_, point)| point.transport == transport).count();
        let (openvpn, libreswan) = (of("openvpn-tcp"), of("libreswan"));
        assert!(openvpn > 0 && libreswan > 0);
        let (kept, note) = without_missing(points.clone(), |transport| match transport {
            "openvpn-tcp" => Some("no A (get a)".to_owned()),
            "libreswan" => Some("no B (get b)".to_owned()),
            _ => None,
        });
        assert_eq!(kept.len(), points.len() - openvpn - libreswan);
        let said = format!(
            "{openvpn} points are left out: no A (get a); {libreswan} points are left out: no B (get b)"
        );
        assert_eq!(note, Some(said));
        assert_eq!(without_missing(points, |_| None).1, None);
    }
}

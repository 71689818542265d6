//! Cells of the same point as one, and the figures of their runs.

use super::coordinate::{Coordinate, alike, order};
use super::stat::Spread;
use crate::lab::results::{Point, Results, Run, Voice};

/// A point with all that was measured there, whichever groups of the matrix have it.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Where.
    pub point: &'a Point,
    /// Id of its first cell.
    pub id: &'a str,
    /// All repetitions, those that failed too.
    pub runs: Vec<&'a Run>,
}

impl<'a> Place<'a> {
    /// Returns the repetitions that went well.
    pub fn good(&self) -> impl Iterator<Item = &'a Run> + '_ {
        self.runs.iter().copied().filter(|run| run.failed.is_none())
    }

    /// Returns a figure over the repetitions that have it.
    pub fn spread(&self, figure: impl Fn(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.good().filter_map(figure))
    }

    /// Returns the goodput of bulk.
    pub fn goodput(&self) -> Option<Spread> {
        self.spread(goodput)
    }

    /// Returns the mean opinion score of the call; none when no frame came in any repetition.
    pub fn mos(&self) -> Option<Spread> {
        self.spread(mos).filter(|_| !self.is_silent())
    }

    /// Tells whether there were calls and no frame came in any of them.
    pub fn is_silent(&self) -> bool {
        let (silent, all) = self.silences();
        all > 0 && silent == all
    }

    /// Returns in how many calls no frame came, of how many.
    pub fn silences(&self) -> (usize, usize) {
        let calls: Vec<&Voice> = self.good().filter_map(|run| run.voice.as_ref()).collect();
        (calls.iter().filter(|call| call.delay_ms.count == 0).count(), calls.len())
    }

    /// Returns what the listener missed.
    pub fn missed(&self) -> Option<Spread> {
        self.spread(missed)
    }

    /// Returns the delay that 99 of 100 frames are below, without that of the empty path.
    pub fn added(&self) -> Option<Spread> {
        Some(self.spread(delay_p99)?.minus(self.point.rtt_ms / 2.0))
    }

    /// Tells whether this part runs inside.
    pub fn runs_inside(&self, part: &str) -> bool {
        parts(self.point).any(|inside| inside == part || inside.strip_prefix(part).is_some_and(flows))
    }

    /// Tells whether there is a call inside.
    pub fn has_call(&self) -> bool {
        self.runs_inside("voice") || self.runs_inside("evs")
    }
}

/// Returns what runs inside, part by part.
fn parts(point: &Point) -> impl Iterator<Item = &str> {
    point.workload.split('+')
}

fn flows(suffix: &str) -> bool {
    suffix.strip_prefix('-').is_some_and(|count| count.parse::<u32>().is_ok())
}

/// Goodput of a run, in Mbit/s.
pub fn goodput(run: &Run) -> Option<f64> {
    Some(run.bulk.as_ref()?.goodput_mbit)
}

/// Mean opinion score of a run; the least when no frame came.
pub fn mos(run: &Run) -> Option<f64> {
    Some(run.voice.as_ref()?.mos)
}

/// What the listener of a run missed, in per cent.
pub fn missed(run: &Run) -> Option<f64> {
    Some(run.voice.as_ref()?.missed_pct)
}

/// Median delay of the frames of a run that came, in milliseconds.
pub fn delay_p50(run: &Run) -> Option<f64> {
    run.voice.as_ref().filter(|voice| voice.delay_ms.count > 0).map(|voice| voice.delay_ms.p50)
}

/// Delay that 99 of 100 frames of a run are below, of those that came.
pub fn delay_p99(run: &Run) -> Option<f64> {
    run.voice.as_ref().filter(|voice| voice.delay_ms.count > 0).map(|voice| voice.delay_ms.p99)
}

/// Returns the places of a study, in the order of their coordinates.
pub fn places(results: &Results) -> Vec<Place<'_>> {
    let mut places: Vec<Place<'_>> = Vec::new();
    for cell in &results.cells {
        match places.iter_mut().find(|place| place.point == &cell.point) {
            Some(place) => place.runs.extend(&cell.runs),
            None => places.push(Place { point: &cell.point, id: &cell.id, runs: cell.runs.iter().collect() }),
        }
    }
    places.sort_by(|one, two| order(one.point, two.point));
    places
}

/// Returns the goodput that a place is compared with: that of another transport, all else that matters to both being
/// equal.
pub fn goodput_of(places: &[Place<'_>], place: &Place<'_>, transport: &str) -> Option<Spread> {
    let beside = |other: &&Place<'_>| {
        other.point.transport == transport && alike(other.point, place.point, &[Coordinate::Transport])
    };
    let other = (place.point.transport != transport).then(|| places.iter().filter(beside));
    other?.find_map(Place::goodput)
}

/// Returns the goodput of a place over that of another transport; over UDP, this is the meltdown factor.
pub fn factor(places: &[Place<'_>], place: &Place<'_>, transport: &str) -> Option<Spread> {
    place.goodput()?.over(&goodput_of(places, place, transport)?)
}

/// Gathers places into series: those that are alike but for some coordinates.
///
/// A place may be in several series, such as one without loss in those of every length of bursts.
pub fn series<'a>(places: &[Place<'a>], except: &[Coordinate]) -> Vec<Vec<Place<'a>>> {
    let weight =
        |point: &Point| Coordinate::ALL.iter().filter(|coordinate| coordinate.matters(point)).count();
    let mut keys: Vec<&Point> = places.iter().map(|place| place.point).collect();
    // Those to which most coordinates matter first: they tell series apart, the others fit in.
    keys.sort_by_key(|point| std::cmp::Reverse(weight(point)));
    let mut chosen: Vec<&Point> = Vec::new();
    for key in keys {
        if !chosen.iter().any(|other| alike(key, other, except)) {
            chosen.push(key);
        }
    }
    chosen.sort_by(|one, two| order(one, two));
    chosen
        .into_iter()
        .map(|key| places.iter().filter(|place| alike(place.point, key, except)).cloned().collect())
        .collect()
}

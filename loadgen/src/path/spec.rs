//! What one direction of a link does to packets.

use super::Loss;
use std::time::Duration;

/// One direction of a link; the default does nothing but queue 1,000 packets.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// One way, beside the time in the queue and on the link.
    pub delay: Duration,
    /// Spread of the delay; packets keep their order.
    pub jitter: Jitter,
    /// Loss on the wire.
    pub loss: Loss,
    /// Share (0 to 1) of packets that skip the delay and so overtake those before them.
    pub reorder: f64,
    /// Share of packets that arrive twice.
    pub duplicate: f64,
    /// Share of packets with one bit flipped behind the link header.
    pub corrupt: f64,
    /// Bits per second of IP packets; `None` is unlimited.
    pub rate_bps: Option<f64>,
    /// Most that waits for the link.
    pub limit: Limit,
    /// What happens when too much waits.
    pub discipline: Discipline,
    /// Longest IP packet, in octets; longer ones are dropped, as by a router that sends no ICMP.
    pub mtu: usize,
    /// Where the decisions come from.
    pub seed: u64,
}

/// Distribution of the delay around its mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Jitter {
    /// Evenly between minus and plus this.
    Uniform(Duration),
    /// Normal with this standard deviation, cut at no delay.
    Normal(Duration),
}

/// Bound of a queue; one packet always fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Packets.
    Packets(usize),
    /// Octets of IP packets.
    Octets(usize),
}

/// Queue disciplines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Discipline {
    /// First in, first out; what finds no room is dropped.
    Droptail,
    /// RFC 8289 with a target of 5 ms and an interval of 100 ms, and a bound as well.
    Codel,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Jitter::Uniform(Duration::ZERO),
            loss: Loss::Random(0.0),
            reorder: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            rate_bps: None,
            limit: Limit::Packets(1_000),
            discipline: Discipline::Droptail,
            mtu: 1_500,
            seed: 1,
        }
    }
}

impl Spec {
    /// Changes what `text` names: `key=value` joined by commas, with the keys of [`Spec::set`].
    ///
    /// # Errors
    /// What is wrong and what is allowed.
    pub fn apply(&mut self, text: &str) -> Result<(), String> {
        for pair in text.split(',') {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair}: KEY=VALUE is wanted"))?;
            self.set(key.trim(), value.trim())?;
        }
        Ok(())
    }

    /// Changes one setting: delay, jitter, normal-jitter (ms), loss, reorder, duplicate, corrupt (per cent), burst-loss
    /// (`p:r[:good:bad]`, per cent), rate (Mbit/s), queue (packets), queue-octets, discipline (droptail, codel), mtu, seed.
    ///
    /// # Errors
    /// What is wrong and what is allowed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let explain = |what: String| format!("{key}={value}: {what}");
        match key {
            "delay" => self.delay = milliseconds(value).map_err(explain)?,
            "jitter" => self.jitter = Jitter::Uniform(milliseconds(value).map_err(explain)?),
            "normal-jitter" => self.jitter = Jitter::Normal(milliseconds(value).map_err(explain)?),
            "loss" => self.loss = Loss::Random(share(value).map_err(explain)?),
            "burst-loss" => self.loss = bursts(value, ':').map_err(explain)?,
            "reorder" => self.reorder = share(value).map_err(explain)?,
            "duplicate" => self.duplicate = share(value).map_err(explain)?,
            "corrupt" => self.corrupt = share(value).map_err(explain)?,
            "rate" => self.rate_bps = Some(rate(value).map_err(explain)?),
            "queue" => self.limit = Limit::Packets(whole(value, 1, 1_000_000).map_err(explain)?),
            "queue-octets" => self.limit = Limit::Octets(whole(value, 1, 1 << 30).map_err(explain)?),
            "discipline" => {
                self.discipline = clap::ValueEnum::from_str(value, true)
                    .map_err(|_| explain("droptail or codel is wanted".into()))?;
            }
            "mtu" => self.mtu = whole(value, 68, 65_535).map_err(explain)?,
            "seed" => self.seed = value.parse().map_err(|_| explain("a whole number is wanted".into()))?,
            _ => {
                return Err(format!(
                    "{key}: unknown; delay, jitter, normal-jitter, loss, burst-loss, reorder, duplicate, corrupt, rate, \
                     queue, queue-octets, discipline, mtu and seed are allowed"
                ));
            }
        }
        Ok(())
    }
}

/// Parses milliseconds: 0 to 60,000.
pub(crate) fn milliseconds(text: &str) -> Result<Duration, String> {
    number(text, 0.0, 60_000.0, "milliseconds").map(|ms| Duration::from_secs_f64(ms / 1e3))
}

/// Parses per cent into a share.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    number(text, 0.0, 100.0, "per cent").map(|percent| percent / 100.0)
}

/// Parses Mbit/s into bits per second.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    number(text, 0.001, 100_000.0, "Mbit/s").map(|rate| rate * 1e6)
}

/// Parses p, r and maybe the losses of the good and the bad state, all in per cent.
pub(crate) fn bursts(text: &str, separator: char) -> Result<Loss, String> {
    let shares = text.split(separator).map(|part| share(part.trim())).collect::<Result<Vec<_>, _>>()?;
    match shares[..] {
        [p, r] => Ok(Loss::Bursts { p, r, good: 0.0, bad: 1.0 }),
        [p, r, good, bad] => Ok(Loss::Bursts { p, r, good, bad }),
        _ => Err("P and R, or P, R, loss in the good and in the bad state are wanted".into()),
    }
}

fn number(text: &str, least: f64, most: f64, unit: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{least} to {most} {unit} are allowed"))
}

fn whole(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = text.parse::<usize>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{least} to {most} are allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_is_told_in_pairs() {
        let mut spec = Spec::default();
        spec.apply("delay=25, loss=1.5,rate=20,queue-octets=60000,discipline=codel,mtu=1400").unwrap();
        assert_eq!((spec.delay, spec.loss), (Duration::from_millis(25), Loss::Random(0.015)));
        assert_eq!((spec.rate_bps, spec.limit), (Some(20e6), Limit::Octets(60_000)));
        assert_eq!((spec.discipline, spec.mtu), (Discipline::Codel, 1_400));
        spec.apply("burst-loss=1:25").unwrap();
        assert_eq!(spec.loss, Loss::Bursts { p: 0.01, r: 0.25, good: 0.0, bad: 1.0 });
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, said) in [
            ("delay", "KEY=VALUE"),
            ("delay=-1", "milliseconds"),
            ("loss=101", "per cent"),
            ("rate=0", "Mbit/s"),
            ("queue=0", "1 to"),
            ("burst-loss=1", "P and R"),
            ("discipline=red", "codel"),
            ("speed=1", "unknown"),
            ("loss=nan", "per cent"),
        ] {
            let error = Spec::default().apply(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}

//! Runs the parts of a workload at the same time, and samples them.

use super::bulk::{self, Flows};
use super::imix::Stream;
use super::sip::Registrations;
use super::voice::{self, Call};
use super::web::Reader;
use super::{Ends, Window, Workload};
use crate::host::clock::sleep_until;
use crate::lab::results::{Bulk, Exchanges, Imix, STEP_S, Tick, Voice};
use std::io;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

/// What a workload leaves open.
#[derive(Clone, Debug)]
pub struct Options {
    /// Congestion control of all TCP inside, at both ends.
    pub inner_cc: String,
    /// Rate of mixed UDP, of IP packets.
    pub rate_mbit: f64,
    /// Seed of sizes and pauses.
    pub seed: u64,
}

/// What the parts found; `None` is a part that did not run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Bulk TCP.
    pub bulk: Option<Bulk>,
    /// The call.
    pub voice: Option<Voice>,
    /// Short flows.
    pub web: Option<Exchanges>,
    /// Registrations.
    pub sip: Option<Exchanges>,
    /// UDP of mixed sizes.
    pub imix: Option<Imix>,
    /// Every [`STEP_S`] seconds: what is known inside the tunnel.
    pub timeline: Vec<Tick>,
}

/// Runs `workload` until the end of the window and at most 2 s longer, whatever the path does.
///
/// # Errors
/// When sockets or the congestion control are refused.
pub fn run(workload: &Workload, ends: &Ends, window: Window, options: &Options) -> io::Result<Outcome> {
    let congestion = options.inner_cc.as_str();
    // All is opened before anything runs: what is refused is known at once.
    let flows = (workload.bulk > 0).then(|| Flows::open(ends, window, workload.bulk, congestion));
    let flows = flows.transpose()?;
    let call = workload.voice.map(|codec| Call::open(ends, window, codec)).transpose()?;
    let web = workload.web.then(|| Reader::open(ends, window, congestion, options.seed)).transpose()?;
    let sip = workload.sip.map(|transport| Registrations::open(ends, window, transport, congestion));
    let sip = sip.transpose()?;
    let imix = workload.imix.then(|| Stream::open(ends, window, options.rate_mbit)).transpose()?;
    let sampler =
        Sampler { window, flows: flows.as_ref().map(Flows::live), call: call.as_ref().map(Call::live) };
    std::thread::scope(|scope| {
        let timeline = scope.spawn(|| sampler.run());
        let bulk = flows.map(|flows| scope.spawn(|| flows.run()));
        let voice = call.map(|call| scope.spawn(|| call.run()));
        let web = web.map(|reader| scope.spawn(|| reader.run()));
        let sip = sip.map(|registrations| scope.spawn(|| registrations.run()));
        let imix = imix.map(|stream| scope.spawn(|| stream.run()));
        Ok(Outcome {
            bulk: finish(bulk)?,
            voice: finish(voice)?,
            web: finish(web)?,
            sip: finish(sip)?,
            imix: finish(imix)?,
            timeline: timeline.join().map_err(|_| panicked())?,
        })
    })
}

fn finish<T>(part: Option<ScopedJoinHandle<'_, io::Result<T>>>) -> io::Result<Option<T>> {
    part.map(|part| part.join().unwrap_or_else(|_| Err(panicked()))).transpose()
}

fn panicked() -> io::Error {
    io::Error::other("a part of the workload panicked")
}

/// Reads what parts tell while they run.
struct Sampler {
    window: Window,
    flows: Option<Arc<bulk::Live>>,
    call: Option<Arc<voice::Live>>,
}

impl Sampler {
    fn run(&self) -> Vec<Tick> {
        sleep_until(self.window.begin_ns);
        if let Some(call) = &self.call {
            // What came during the warm-up is not asked for.
            let _ = call.take_worst_ms();
        }
        let steps = (self.window.length.as_secs_f64() / STEP_S).round() as u64;
        (1..=steps).map(|step| self.tick(step)).collect()
    }

    fn tick(&self, step: u64) -> Tick {
        let at_s = step as f64 * STEP_S;
        sleep_until(self.window.begin_ns + (at_s * 1e9) as u64);
        Tick {
            at_s,
            inner_received: self.flows.as_ref().map(|flows| flows.received()),
            inner_retransmits: self.flows.as_ref().and_then(|flows| flows.retransmits().ok()),
            voice_delay_ms: self.call.as_ref().and_then(|call| call.take_worst_ms()),
            ..Tick::default()
        }
    }
}

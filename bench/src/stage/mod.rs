//! Fixed pieces of the data path's work, timed by `benches/stages.rs` and counted in instructions by the program
//! `stages`.

mod esp;
mod ip;
mod queue;
mod sad;

pub use ip::{super_packet, udp_super_packet};
pub use sad::Lookup;

/// Octets of an inner packet of bulk.
pub const PACKET_LEN: usize = 1400;

/// Octets of one of voice.
pub const VOICE_LEN: usize = 160;

/// A piece of work that can be repeated.
pub trait Stage {
    /// Lays out what [`Self::run`] works on; neither timed nor counted.
    fn prepare(&mut self);

    /// Does the work once.
    fn run(&mut self);

    /// Packets that one [`Self::run`] handles.
    fn packets(&self) -> usize;
}

/// A stage's name and how to make it.
pub type Entry = (&'static str, fn() -> Box<dyn Stage>);

/// All stages. Where the name says so, every packet is that of another UE; else they are a run of one flow.
pub const STAGES: [Entry; 20] = [
    ("deframe-open-gcm-1400", || Box::new(esp::DeframeOpen::new(1, PACKET_LEN))),
    ("deframe-open-gcm-160", || Box::new(esp::DeframeOpen::new(1, VOICE_LEN))),
    ("deframe-open-gcm-160-64-ues", || Box::new(esp::DeframeOpen::new(64, VOICE_LEN))),
    ("seal-gcm-1400", || Box::new(esp::Seal::new("aes128gcm16", 1, PACKET_LEN))),
    ("seal-gcm-1400-64-sas", || Box::new(esp::Seal::new("aes128gcm16", 64, PACKET_LEN))),
    ("seal-gcm-160", || Box::new(esp::Seal::new("aes128gcm16", 1, VOICE_LEN))),
    ("seal-gcm-160-64-sas", || Box::new(esp::Seal::new("aes128gcm16", 64, VOICE_LEN))),
    ("open-cbc-batch-1400", || Box::new(esp::OpenBurst::new("aes256-sha256", PACKET_LEN))),
    ("open-cbc-batch-160", || Box::new(esp::OpenBurst::new("aes256-sha256", VOICE_LEN))),
    ("seal-cbc-batch-1400", || Box::new(esp::SealBurst::new("aes256-sha256", PACKET_LEN))),
    ("seal-cbc-batch-160", || Box::new(esp::SealBurst::new("aes256-sha256", VOICE_LEN))),
    ("checksum-1400", || Box::new(ip::Sum::new(PACKET_LEN))),
    ("parse-1400", || Box::new(ip::Parse::new(PACKET_LEN))),
    ("segment-1400", || Box::new(ip::Cut::new(PACKET_LEN))),
    ("segment-160", || Box::new(ip::Cut::new(VOICE_LEN))),
    ("coalesce-1400", || Box::new(ip::Coalesce::new(PACKET_LEN))),
    ("coalesce-160", || Box::new(ip::Coalesce::new(VOICE_LEN))),
    ("flow-queue-1400", || Box::new(queue::PushPop::new(PACKET_LEN))),
    ("flow-queue-160-16-ues", || Box::new(queue::PushPop::new(VOICE_LEN))),
    ("sad-100000-sas", || Box::new(sad::Lookup::new(100_000))),
];

/// Makes the stage called `name`.
pub fn find(name: &str) -> Option<Box<dyn Stage>> {
    STAGES.iter().find(|(own, _)| *own == name).map(|(_, make)| make())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_runs_twice() {
        for (name, make) in STAGES {
            let mut stage = make();
            for _ in 0..2 {
                stage.prepare();
                stage.run();
            }
            assert!(stage.packets() > 0, "{name}");
        }
    }
}

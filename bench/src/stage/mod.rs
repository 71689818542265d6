//! Fixed pieces of the data path's work, timed by `benches/stages.rs` and counted in instructions by the program
//! `stages`.

mod esp;
mod ip;
mod queue;
mod sad;

pub use ip::super_packet;
pub use sad::Lookup;

/// Octets of an inner packet of bulk.
pub const PACKET_LEN: usize = 1400;

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

/// All stages.
pub const STAGES: [Entry; 10] = [
    ("deframe-open-gcm-1400", || Box::new(esp::DeframeOpen::new(1, PACKET_LEN))),
    ("seal-gcm-1400", || Box::new(esp::Seal::new("aes128gcm16", 1, PACKET_LEN))),
    ("seal-gcm-1400-64-sas", || Box::new(esp::Seal::new("aes128gcm16", 64, PACKET_LEN))),
    ("open-cbc-batch-1400", || Box::new(esp::OpenBurst::new("aes256-sha256", PACKET_LEN))),
    ("seal-cbc-batch-1400", || Box::new(esp::SealBurst::new("aes256-sha256", PACKET_LEN))),
    ("checksum-1400", || Box::new(ip::Sum::new(PACKET_LEN))),
    ("parse-1400", || Box::new(ip::Parse::new(PACKET_LEN))),
    ("segment-1400", || Box::new(ip::Cut::new(PACKET_LEN))),
    ("coalesce-1400", || Box::new(ip::Coalesce::new(PACKET_LEN))),
    ("flow-queue-1400", || Box::new(queue::PushPop::new(PACKET_LEN))),
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

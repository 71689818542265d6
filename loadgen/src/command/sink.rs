//! `loadgen sink`

use crate::cli::SinkArgs;
use crate::error::Failure;
use crate::host::{affinity, signal};
use crate::report::write_json;
use crate::sink::Sink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Serves until the time is over or a signal comes.
///
/// # Errors
/// See [`Sink::bind`] and [`Sink::run`].
pub fn run(args: &SinkArgs) -> Result<bool, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    signal::on_termination(move || set.store(true, Ordering::Relaxed))?;
    if let Some(core) = args.core {
        affinity::pin(core)?;
    }
    let sink = Sink::bind(args.listen, !args.no_offload)?;
    eprintln!("sink listens on UDP {}", sink.local_addr());
    if let Some(seconds) = args.seconds {
        let set = stop.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs_f64(seconds));
            set.store(true, Ordering::Relaxed);
        });
    }
    let listen = sink.local_addr();
    let served = sink.run(&stop)?;
    println!("received {} data packets", served.packets);
    if served.refused > 0 {
        println!("the kernel refused to send {} datagrams: no route to the UEs, or a rule", served.refused);
    }
    if let Some(path) = &args.json {
        let report = serde_json::json!({
            "command": "sink", "config": {"listen": listen}, "packets": served.packets, "refused": served.refused,
        });
        write_json(path, &report)?;
    }
    Ok(true)
}

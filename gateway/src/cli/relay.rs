//! `swugate run` with `[relay]`: from a configuration to a running relay.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::run::{bind_metrics, listen, worker_count};
use crate::admin::socket;
use crate::config::Config;
use crate::error::Failure;
use crate::io::wake::Wake;
use crate::log::LogLevel;
use crate::process;
use crate::relay::control::{Control, RelayWorker};
use crate::relay::{self, Backend, RelayCounters, RelayLimits, RelayParams};
use crate::types::WorkerId;

/// Runs until drained.
pub(super) fn run(
    config: Arc<Config>,
    backend: Backend,
    log: LogLevel,
    started: Instant,
) -> Result<(), Failure> {
    process::raise_resource_limits();
    let user = config.gateway.user.as_deref().map(process::find_user).transpose()?;
    socket::prepare(&config.gateway.run_dir, user.as_ref())?;
    let count = worker_count(&config);
    let listeners = listen(&config, count)?;
    let metrics = config.metrics.map(bind_metrics).transpose()?;
    process::drop_privileges(user.as_ref(), process::RELAY_KEEPS)?;
    let failed = |error: std::io::Error| Failure::system("starting workers", &error);
    let mut workers = Vec::with_capacity(count);
    for (id, listeners) in listeners.into_iter().enumerate() {
        let (orders, taken) = mpsc::channel();
        let wake = Wake::new().map_err(failed)?;
        let counters = Arc::new(RelayCounters::default());
        let cores = &config.gateway.cores;
        let params = RelayParams {
            id: WorkerId(id as u8),
            core: (!cores.is_empty()).then(|| cores[id % cores.len()]),
            listeners,
            tls: config.tls.clone(),
            backend: backend.clone(),
            limits: limits(&config, count),
            counters: counters.clone(),
            orders: taken,
            wake: wake.try_clone().map_err(failed)?,
        };
        let thread = relay::start(params).map_err(failed)?;
        workers.push(RelayWorker { orders, wake, counters, thread });
    }
    tracing::info!(
        backend = %backend.addr,
        backend_ike = ?backend.ike,
        workers = count,
        "relaying RFC 9329 to UDP"
    );
    let run_dir = config.gateway.run_dir.clone();
    let result = tokio_uring::start(Control::new(config, workers, log, started).run(metrics));
    socket::clean_up(&run_dir);
    result
}

fn limits(config: &Config, workers: usize) -> RelayLimits {
    let limits = &config.limits;
    let seconds = |s: u32| Duration::from_secs(s.into());
    let octets = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    RelayLimits {
        connections: limits.connections.div_ceil(workers as u32),
        connections_per_source: limits.connections_per_source,
        prefix_timeout: seconds(limits.prefix_s),
        first_message_timeout: seconds(limits.first_message_s),
        half_open_timeout: seconds(limits.half_open_s),
        idle: seconds(limits.relay_idle_s),
        bad_messages_in_a_row: limits.bad_messages,
        send_queue_octets: limits.send_queue_octets as usize,
        unfinished: octets(limits.unfinished_octets),
        ike_octets: octets(limits.relay_ike_octets),
    }
}

//! Tables for people.

use super::{
    AttachSection, ChurnSection, DirectionSection, GatewaySection, LatencySection, LoadgenSection, Report,
    SinkSection, VoiceSection, evidence,
};
use comfy_table::{CellAlignment, presets};

/// A two-column table of names and figures.
pub struct Table {
    inner: comfy_table::Table,
}

impl Table {
    /// Creates a table under a title.
    pub fn new(title: &str) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_preset(presets::UTF8_BORDERS_ONLY).set_header([title, ""]);
        Self { inner }
    }

    /// Adds a row.
    pub fn row(&mut self, name: &str, figure: impl Into<String>) -> &mut Self {
        self.inner.add_row([name.to_owned(), figure.into()]);
        self
    }

    /// Adds the attach phase.
    pub fn attach(&mut self, section: &AttachSection) -> &mut Self {
        self.row("attached", section.ok.to_string());
        if let Some(fast) = section.fast {
            self.row("by fast re-authentication", fast.to_string());
        }
        for (cause, count) in &section.failed {
            self.row(&format!("failed: {cause}"), count.to_string());
        }
        self.row("attach rate", format!("{:.0} /s", section.per_s));
        if let Some(latency) = &section.latency_us {
            self.row("attach latency", percentiles(latency));
        }
        if let Some(hold) = &section.hold {
            self.row(
                "held: lost / reconnects / voice packets sent",
                format!("{:.1} s: {} / {} / {}", hold.seconds, hold.lost, hold.reconnects, hold.trickle_sent),
            );
        }
        if let Some(storm) = &section.storm {
            let most = storm.back_99_s.map_or_else(|| "never".into(), |seconds| format!("{seconds:.2} s"));
            self.row("storm: UEs / back / 99 % after", format!("{} / {} / {most}", storm.ues, storm.back));
        }
        if let Some(detach) = &section.detach {
            self.row(
                "detached / unanswered",
                format!("{} / {}, {:.0} /s", detach.ok, detach.unanswered, detach.per_s),
            );
        }
        if let Some(bytes) = section.loadgen_bytes_per_ue {
            self.row("loadgen private memory", format!("{bytes:.0} octets/UE"));
        }
        self
    }

    /// Adds one direction of traffic.
    pub fn direction(&mut self, name: &str, section: &DirectionSection) -> &mut Self {
        self.row(
            name,
            format!(
                "{} Gbit/s, {} packets/s",
                figure(section.bits_per_s.map(|bits| bits / 1e9), 3),
                figure(section.packets_per_s, 0)
            ),
        );
        let count =
            |value: Option<u64>| value.map_or_else(|| "not measured".to_owned(), |value| value.to_string());
        self.row(
            &format!("{name} lost / reordered / duplicated / corrupted"),
            [section.lost, section.reordered, section.duplicated, section.corrupted].map(count).join(" / "),
        );
        if let Some(lost) = section.lost_at_cut.filter(|lost| *lost > 0) {
            self.row(&format!("{name} lost in connections cut or without one"), lost.to_string());
        }
        if let Some(unreported) = section.unreported.filter(|unreported| *unreported > 0) {
            self.row(&format!("{name} UEs without a report of the far end"), unreported.to_string());
        }
        if let Some(latency) = &section.latency_us {
            self.row(&format!("{name} one-way latency"), percentiles(latency));
        }
        self
    }

    /// Adds what the gateway spent on `what`, where it was measured.
    pub fn cost(&mut self, what: &str, cpu_s_per_gb: Option<f64>) -> &mut Self {
        if cpu_s_per_gb.is_some() {
            self.row(&format!("{what} gateway CPU"), format!("{} s/GB", figure(cpu_s_per_gb, 3)));
        }
        self
    }

    /// Adds the calls.
    pub fn voice(&mut self, section: &VoiceSection) -> &mut Self {
        for (name, way) in [("voice uplink", &section.uplink), ("voice downlink", &section.downlink)] {
            if let Some(way) = way {
                self.direction(name, way);
            }
        }
        let late = section.late.map_or_else(|| "not measured".to_owned(), |late| late.to_string());
        self.row("voice later than 20 ms", late)
    }

    /// Adds the connections cut on purpose.
    pub fn churn(&mut self, section: &ChurnSection) -> &mut Self {
        self.row(
            "connections cut / reconnects beyond",
            format!("{} / {}", section.cuts, section.other_reconnects),
        );
        if let Some(latency) = &section.recovery_us {
            self.row("cut to first octets again", percentiles(latency));
        }
        self
    }

    /// Adds what the load generator used.
    pub fn loadgen(&mut self, section: &LoadgenSection) -> &mut Self {
        self.row("loadgen CPU", format!("{} s/GB", figure(section.cpu_s_per_gb, 3)))
    }

    /// Adds what the gateway used.
    pub fn gateway(&mut self, section: &GatewaySection) -> &mut Self {
        let mib = |bytes: Option<u64>| figure(bytes.map(|bytes| bytes as f64 / 1_048_576.0), 1);
        self.row(
            "gateway RSS",
            format!("{} MiB (before: {} MiB)", mib(section.rss_bytes), mib(section.rss_before_bytes)),
        );
        self.row(
            "gateway user memory",
            format!(
                "{} octets/session, {} private",
                figure(section.user_bytes_per_session, 0),
                figure(section.private_bytes_per_session, 0)
            ),
        );
        self.row(
            "kernel, both ends: TCP buffers / slab",
            format!(
                "{} / {} octets/connection",
                figure(section.kernel_tcp_bytes_per_connection, 0),
                figure(section.kernel_slab_bytes_per_connection, 0)
            ),
        );
        if let Some(attach_cpu_s) = section.attach_cpu_s {
            self.row("gateway CPU per attach", format!("{:.0} us", attach_cpu_s * 1e6));
        }
        self
    }

    /// Adds where lost packets went, if there is anything to say; see [`evidence::rows`].
    pub fn evidence(&mut self, report: &Report, open_loop: bool) -> &mut Self {
        for (name, said) in evidence::rows(report, open_loop) {
            self.row(name, said);
        }
        self
    }

    /// Adds the plain TCP comparison.
    pub fn plain_tcp(&mut self, section: &SinkSection) -> &mut Self {
        self.row(
            "plain TCP, same path",
            format!("{:.2} Gbit/s, receiver CPU {:.3} s/GB", section.bits_per_s / 1e9, section.cpu_s_per_gb),
        )
    }

    /// Prints the table to standard output.
    pub fn print(&mut self) {
        if let Some(column) = self.inner.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{}", self.inner);
    }
}

fn percentiles(latency: &LatencySection) -> String {
    let ms = |us: f64| format!("{:.2}", us / 1_000.0);
    format!(
        "p50 {} p90 {} p99 {} p99.9 {} max {} ms",
        ms(latency.p50),
        ms(latency.p90),
        ms(latency.p99),
        ms(latency.p999),
        ms(latency.max)
    )
}

fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

//! Where lost packets went: what the gateway says it dropped, and what the kernel did.

use super::Report;
use crate::host::drops::{DeviceDrops, UdpDrops};
use serde::Serialize;
use std::collections::BTreeMap;

/// The gateway's reason for a packet that CoDel dropped.
const CODEL: &str = "codel";

/// What the kernel dropped on the test's own network (`demo`) from before the attach to behind the detach.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NetworkSection {
    /// Packets dropped by each device of the three namespaces: `ue0`, `gw0`, `swu0`, `gw1`, `core0`.
    pub devices: BTreeMap<String, DeviceDrops>,
    /// UDP datagrams dropped at full socket buffers in each namespace: `ue`, `gateway`, `core`.
    pub udp: BTreeMap<&'static str, UdpDrops>,
    /// Datagrams that the far end's kernel refused to send; those with data count as sent.
    pub far_end_refused: u64,
}

impl NetworkSection {
    /// Names the counts that are not 0.
    fn nonzero(&self) -> Vec<String> {
        let devices = self.devices.iter().flat_map(|(name, drops)| {
            [(format!("{name} received"), drops.rx_dropped), (format!("{name} sent"), drops.tx_dropped)]
        });
        let udp = self.udp.iter().flat_map(|(name, drops)| {
            [
                (format!("UDP receive buffer at {name}"), drops.rcvbuf_errors),
                (format!("UDP send buffer at {name}"), drops.sndbuf_errors),
            ]
        });
        let refused = [("refused to the far end".to_owned(), self.far_end_refused)];
        let counts = devices.chain(udp).chain(refused).filter(|(_, count)| *count > 0);
        counts.map(|(what, count)| format!("{what} {count}")).collect()
    }
}

/// Returns the rows that say where packets went, none when nothing was lost or dropped. `open_loop` says that the senders
/// did not wait for anybody (`--rate`).
pub fn rows(report: &Report, open_loop: bool) -> Vec<(&'static str, String)> {
    let drops = report.gateway.drops.as_ref();
    let network = report.network.as_ref().map(NetworkSection::nonzero);
    let dropped = drops.is_some_and(|drops| !drops.is_empty())
        || network.as_ref().is_some_and(|counts| !counts.is_empty());
    if !dropped && !is_lossy(report) {
        return Vec::new();
    }
    let by_reason =
        drops.map(|drops| drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect());
    let mut rows = vec![("gateway drops by reason", said(by_reason))];
    if open_loop && drops.is_some_and(|drops| drops.contains_key(CODEL)) {
        let why = "intended: more was offered than got through, and CoDel keeps the queue short (RFC 8289)";
        rows.push(("of these codel", why.to_owned()));
    }
    rows.push(("kernel drops", said(network)));
    rows
}

/// Whether packets are missing for which there is no excuse, or may be.
fn is_lossy(report: &Report) -> bool {
    let voice = report.voice.map(|voice| [voice.uplink, voice.downlink]).unwrap_or_default();
    let ways = [report.uplink, report.downlink].into_iter().chain(voice).flatten();
    ways.flat_map(|way| [way.lost, way.unreported]).flatten().any(|count| count > 0)
}

fn said(counts: Option<Vec<String>>) -> String {
    match counts {
        None => "not known".to_owned(),
        Some(counts) if counts.is_empty() => "none".to_owned(),
        Some(counts) => counts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DirectionSection, GatewaySection};
    use super::*;

    fn report(lost: u64, drops: &[(&str, u64)], network: Option<NetworkSection>) -> Report {
        let drops = drops.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        Report {
            command: "demo",
            config: serde_json::Value::Null,
            environment: serde_json::Value::Null,
            attach: None,
            uplink: None,
            downlink: Some(DirectionSection { lost: Some(lost), ..DirectionSection::default() }),
            latency_us: None,
            voice: None,
            churn: None,
            loadgen: None,
            gateway: GatewaySection { drops: Some(drops), ..GatewaySection::default() },
            network,
            plain_tcp: None,
        }
    }

    fn network(tx_dropped: u64, far_end_refused: u64) -> NetworkSection {
        let device = DeviceDrops { rx_dropped: 0, tx_dropped };
        NetworkSection {
            devices: BTreeMap::from([
                ("swu0".to_owned(), device),
                ("gw0".to_owned(), DeviceDrops::default()),
            ]),
            udp: BTreeMap::from([("core", UdpDrops { rcvbuf_errors: 2, sndbuf_errors: 0 })]),
            far_end_refused,
        }
    }

    #[test]
    fn nothing_is_said_when_nothing_was_lost_or_dropped() {
        assert_eq!(rows(&report(0, &[], Some(NetworkSection::default())), true), []);
        assert_eq!(rows(&report(0, &[], None), true), []);
    }

    #[test]
    fn a_loss_is_explained_by_every_counter_that_is_not_zero() {
        let rows = rows(&report(9, &[("codel", 4), ("no_session", 1)], Some(network(3, 1))), false);
        let kernel = "swu0 sent 3, UDP receive buffer at core 2, refused to the far end 1";
        let said = ["codel 4, no_session 1", kernel].map(str::to_owned);
        assert_eq!(rows.into_iter().map(|(_, said)| said).collect::<Vec<_>>(), said);
    }

    #[test]
    fn a_loss_without_a_trace_says_so() {
        let said: Vec<String> =
            rows(&report(9, &[], None), false).into_iter().map(|(_, said)| said).collect();
        assert_eq!(said, ["none", "not known"]);
    }

    #[test]
    fn codel_is_called_intended_only_where_senders_do_not_wait() {
        let said = |open_loop| {
            let rows = rows(&report(9, &[("codel", 9)], None), open_loop);
            rows.iter().any(|(_, said)| said.contains("RFC 8289"))
        };
        assert!(said(true) && !said(false));
    }

    #[test]
    fn json_has_the_drops_by_reason_and_by_device() {
        let json = serde_json::to_value(report(9, &[("codel", 9)], Some(network(3, 0)))).unwrap();
        assert_eq!(json["gateway"]["drops"]["codel"], 9);
        assert_eq!(json["network"]["devices"]["swu0"]["tx_dropped"], 3);
        assert_eq!(json["network"]["udp"]["core"]["rcvbuf_errors"], 2);
        assert_eq!(json["network"]["far_end_refused"], 0);
    }
}

//! What the kernel drops on the demo's network, read before it is taken down.

use super::topology::{INNER_DEVICE, Namespace, Topology};
use crate::error::Failure;
use crate::host::drops::NamespaceDrops;
use crate::report::NetworkSection;

/// The devices that packets pass; `lo` carries nothing but the UEs' source addresses.
const DEVICES: [&str; 5] = ["ue0", "gw0", INNER_DEVICE, "gw1", "core0"];

/// Counters of the namespaces of UEs, gateway and core network.
pub(super) struct KernelDrops([NamespaceDrops; 3]);

impl KernelDrops {
    /// Reads them; `None` where the kernel does not say.
    pub(super) fn read(topology: &Topology) -> Option<Self> {
        let read = |namespace: &Namespace| {
            let none = || Failure::Environment("no counters of the network".into());
            namespace.inside(|| NamespaceDrops::read().ok_or_else(none)).ok()
        };
        Some(Self([read(&topology.ue)?, read(&topology.gateway)?, read(&topology.core)?]))
    }

    /// Returns what was added since `before`, and what the far end could not send.
    pub(super) fn since(self, before: &Self, far_end_refused: u64) -> NetworkSection {
        let mut section = NetworkSection { far_end_refused, ..NetworkSection::default() };
        for ((name, after), before) in ["ue", "gateway", "core"].into_iter().zip(self.0).zip(&before.0) {
            let NamespaceDrops { devices, udp } = after.since(before);
            section.udp.insert(name, udp);
            section.devices.extend(devices.into_iter().filter(|(name, _)| DEVICES.contains(&name.as_str())));
        }
        section
    }
}

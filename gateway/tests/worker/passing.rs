//! Packets that one worker reads for another that is busy: what waits for it is bounded, and leaves room for orders.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use gateway::io::tun::{InnerDevice, Offloads, TunQueue};
use gateway::limits::PASSED_OCTETS_MAX;
use gateway::types::{NetworkId, WorkerId};
use gateway::worker::inbox::{ToControl, ToWorker};

use crate::queueing::super_packet;
use crate::rig::{CORE, Peer, Rig, Ue, limits, udp};

/// A device at whose read its worker stands still for as long as the test says.
struct Stalling {
    queue: TunQueue,
    wanted: Arc<AtomicBool>,
    reached: Arc<AtomicBool>,
}

impl AsFd for Stalling {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

impl InnerDevice for Stalling {
    fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        while self.wanted.load(SeqCst) {
            self.reached.store(true, SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
        self.queue.read(buffer)
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.queue.write(parts)
    }

    fn offloads(&self) -> Offloads {
        self.queue.offloads()
    }
}

/// Two workers, the second of which stands still, and a UE of it whose packets the first one reads.
struct Stalled {
    wanted: Arc<AtomicBool>,
    rig: Rig,
    ue: Ue,
    peer: Peer,
}

impl Stalled {
    fn new() -> Self {
        let (wanted, reached, workers) = (Arc::<AtomicBool>::default(), Arc::default(), Cell::new(0));
        let rig = Rig::over(2, limits(), true, |queue| match workers.replace(workers.get() + 1) {
            0 => Box::new(queue),
            _ => Box::new(Stalling { queue, wanted: wanted.clone(), reached: Arc::clone(&reached) }),
        });
        let (mut ue, mut peer) = (Ue::install(&rig, 1, 0), Peer::connect(&rig, 1));
        peer.send(&ue.frame_to(CORE, b"attach"));
        rig.core_receives(1);
        let (network, worker) = (NetworkId(0), Some(WorkerId(1)));
        rig.order(0, ToWorker::Route { network, addr: ue.addr.into(), worker });
        rig.fence(0);
        rig.fence(1);
        wanted.store(true, SeqCst);
        rig.to_ue(1, &udp(CORE, ue.addr, b"wakes it"));
        rig.until("it stands still", 1, |_| u64::from(reached.load(SeqCst)));
        Self { wanted, rig, ue, peer }
    }

    /// The worker goes on, and the UE gets what waited and is not dropped; then packets are passed again.
    fn goes_on(mut self) {
        self.wanted.store(false, SeqCst);
        self.rig.fence(1);
        let refused = self.rig.drops(0, "handoff_full");
        self.rig.to_ue(0, &udp(CORE, self.ue.addr, b"again"));
        while !self.ue.open(self.peer.receive()).ends_with(b"again") {}
        assert_eq!(self.rig.drops(0, "handoff_full"), refused);
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.wanted.store(false, SeqCst);
    }
}

#[test]
fn octets_of_packets_that_wait_for_another_worker_are_bounded() {
    const SUPER_PACKETS: usize = 400;
    let stalled = Stalled::new();
    let (virtio, packet) = super_packet(stalled.ue.addr, 0, &[7; 60_000]);
    for _ in 0..SUPER_PACKETS {
        stalled.rig.to_ue_offloaded(0, &virtio, &packet);
    }
    // Each stands for 45 packets.
    let refused = SUPER_PACKETS - PASSED_OCTETS_MAX / (10 + packet.len());
    stalled.rig.until("refused", 45 * refused as u64, |rig| rig.drops(0, "handoff_full"));
    stalled.goes_on();
}

#[test]
fn packets_that_wait_for_another_worker_leave_half_of_its_inbox_to_orders() {
    const PACKETS: u64 = 5_000;
    let stalled = Stalled::new();
    for _ in 0..PACKETS {
        stalled.rig.to_ue(0, &udp(CORE, stalled.ue.addr, b"passed"));
    }
    let inbox = &stalled.rig.seats[1].inbox.queue;
    let half = inbox.capacity().expect("it is bounded") / 2;
    stalled.rig.until("refused", PACKETS - half as u64, |rig| rig.drops(0, "handoff_full"));
    assert_eq!(inbox.len(), half);
    for fence in 0..half as u64 {
        assert!(inbox.try_send(ToWorker::Fence(fence)).is_ok(), "order {fence}");
    }
    stalled.wanted.store(false, SeqCst);
    let last = half as u64 - 1;
    stalled.rig.report(|report| {
        matches!(report, ToControl::FenceReached { fence, .. } if *fence == last).then_some(())
    });
    stalled.goes_on();
}

//! An inner device that is full, or gone.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use gateway::io::tun::{InnerDevice, Offloads, TunQueue};
use gateway::worker::inbox::ToControl;

use crate::rig::{CORE, Rig, attached, limits, udp};

/// A device whose calls end with the error that the test has set; 0 is none.
struct Faulty {
    queue: TunQueue,
    read: Arc<AtomicI32>,
    write: Arc<AtomicI32>,
}

fn fault(error: &AtomicI32) -> io::Result<()> {
    match error.load(Ordering::Relaxed) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

impl AsFd for Faulty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

impl InnerDevice for Faulty {
    fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        fault(&self.read)?;
        self.queue.read(buffer)
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        fault(&self.write)?;
        self.queue.write(parts)
    }

    fn offloads(&self) -> Offloads {
        self.queue.offloads()
    }
}

/// A worker over a faulty device, and the errors of its reads and writes.
fn faulty() -> (Rig, Arc<AtomicI32>, Arc<AtomicI32>) {
    let (read, write) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicI32::new(0)));
    let rig = Rig::over(1, limits(), true, |queue| {
        Box::new(Faulty { queue, read: read.clone(), write: write.clone() })
    });
    (rig, read, write)
}

#[test]
fn a_device_without_room_costs_the_packets_it_refuses_and_no_others() {
    let (rig, _, write) = faulty();
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    for (count, error) in (1..).zip([libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM]) {
        write.store(error, Ordering::Relaxed);
        peer.send(&ue.frame_to(CORE, &[1; 300]));
        rig.until("refused", count, |rig| rig.drops(0, "device_backlog"));
        write.store(0, Ordering::Relaxed);
        peer.send(&ue.frame_to(CORE, b"room again"));
        assert!(rig.core_receives(0).ends_with(b"room again"));
    }
    // Refused for another reason, such as a device that is down.
    write.store(libc::EIO, Ordering::Relaxed);
    peer.send(&ue.frame_to(CORE, b"down"));
    rig.until("down", 1, |rig| rig.drops(0, "device_write"));
    assert_eq!(rig.all_drops(0), 4);
    assert_eq!(rig.seats[0].counters.uplink_packets.get(), 4, "what was refused is not counted as delivered");
}

#[test]
fn a_core_that_takes_nothing_costs_counted_packets_and_holds_nobody_up() {
    // The queue itself: it says at once that it is full.
    let rig = Rig::over(1, limits(), true, |queue| Box::new(queue));
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    // A packet is counted when it is written, and may arrive a moment before.
    rig.until("attached", 1, |rig| rig.seats[0].counters.uplink_packets.get());
    const PACKETS: u64 = 2000;
    for number in 0..PACKETS {
        let frame = ue.frame_to(CORE, &number.to_be_bytes());
        peer.send(&frame);
    }
    let counters = rig.seats[0].counters.clone();
    let taken = || counters.uplink_packets.get() - 1;
    rig.until("all accounted for", PACKETS, |rig| taken() + rig.drops(0, "device_backlog"));
    assert!(rig.drops(0, "device_backlog") > PACKETS / 2);
    // Meanwhile the downlink goes on, and what was taken is whole and in order.
    rig.to_ue(0, &udp(CORE, ue.addr, b"downlink"));
    assert!(ue.open(peer.receive()).ends_with(b"downlink"));
    let numbers: Vec<u64> = (0..taken())
        .map(|_| u64::from_be_bytes(*rig.core_receives(0).last_chunk().expect("a number")))
        .collect();
    assert!(numbers.is_sorted());
    assert!(rig.core_is_silent(0));
}

#[test]
fn a_deleted_device_is_reported_once_and_both_ways_are_counted() {
    let (rig, read, write) = faulty();
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    read.store(libc::EBADFD, Ordering::Relaxed);
    write.store(libc::EBADFD, Ordering::Relaxed);
    rig.to_ue(0, &udp(CORE, ue.addr, b"never read"));
    rig.report(|report| matches!(report, ToControl::DeviceGone { .. }).then_some(()));
    peer.send(&ue.frame_to(CORE, b"never written"));
    rig.until("uplink", 1, |rig| rig.drops(0, "device_write"));
    assert!(rig.drops(0, "device_read") >= 1);
    // It is looked at again every second and said no more; the control plane works on.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!((2..6).contains(&rig.drops(0, "device_read")), "{}", rig.drops(0, "device_read"));
    rig.fence(0);
    assert!(!rig.reports.try_iter().any(|report| matches!(report, ToControl::DeviceGone { .. })));
}

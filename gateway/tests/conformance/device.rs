//! The real inner device, full and gone.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::client::Client;
use crate::lab::{Lab, Setup};
use crate::process::ip;

/// Packets the kernel keeps for a worker (`txqueuelen`), and some that find no room.
const KEPT: u32 = 8192;
const EXCESS: u32 = 3000;

/// Packets the kernel did not put into the device's queue.
fn kernel_drops(lab: &Lab) -> u64 {
    let shown = Command::new("ip").args(["-n", &lab.middle.0, "-s", "-j", "link", "show", "swu0"]).output();
    let link: Value = serde_json::from_slice(&shown.expect("iproute2").stdout).expect("JSON");
    link[0]["stats64"]["tx"]["dropped"].as_u64().expect("a number")
}

#[test]
fn a_device_whose_reader_is_late_drops_what_the_kernel_counts_and_nothing_else() {
    // Nothing is dropped behind the device.
    let limits = "flow_queue_octets = 67108864";
    let Some(lab) = Lab::start(Setup { limits, ..Setup::default() }) else { return };
    let mut client = Client::attach(1);
    let before = kernel_drops(&lab);
    lab.gateway.signal(Signal::SIGSTOP);
    for number in 0..KEPT + EXCESS {
        lab.to_ue(client.addr.into(), &[&number.to_be_bytes()[..], &[5; 100]].concat());
        if number % 64 == 0 {
            // The path to the device has short queues of its own.
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    lab.gateway.signal(Signal::SIGCONT);
    let dropped = (kernel_drops(&lab) - before) as u32;
    assert!((EXCESS - 200..=EXCESS + 8).contains(&dropped), "{dropped}");
    // The oldest were kept, in order.
    for number in 0..KEPT + EXCESS - dropped {
        assert_eq!(client.receive()[..4], number.to_be_bytes());
    }
    lab.to_ue(client.addr.into(), b"room again");
    assert_eq!(client.receive(), b"room again");
    assert_eq!(kernel_drops(&lab) - before, u64::from(dropped));
    for reason in ["flow_queue_full", "flow_memory", "send_memory", "codel", "device_read"] {
        assert_eq!(lab.drops(reason), 0, "{reason}");
    }
}

#[test]
fn a_device_that_is_deleted_ends_the_gateway_which_tells_its_ues() {
    let Some(mut lab) = Lab::start(Setup { workers: Some(2), ..Setup::default() }) else { return };
    let mut client = Client::attach(1);
    let mut other = Client::attach(2);
    client.send(b"before");
    assert_eq!(lab.at_core().1, b"before");
    ip(&["-n", &lab.middle.0, "link", "del", "swu0"]);
    // Both are told, so that they come back at once rather than when they find out.
    let delete = client.conn.ike();
    other.conn.ike();
    // What is under way is counted; no worker spins on the device.
    client.send(b"while it is gone");
    lab.until("counted", 1, |lab| lab.drops("device_write"));
    lab.until("both workers saw it", true, |lab| lab.drops("device_read") >= 2);
    let before = lab.stats()["workers"][0]["cpu_s"].as_f64().expect("a number");
    std::thread::sleep(Duration::from_millis(1500));
    let after = lab.stats()["workers"][0]["cpu_s"].as_f64().expect("a number");
    assert!(after - before < 0.5, "{} s of CPU in 1.5 s", after - before);
    // One answers, the other does not: the gateway ends within its time all the same.
    client.acknowledge(&delete);
    let (code, log) = lab.end();
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("ERROR") && log.contains("device swu0: deleted while in use"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

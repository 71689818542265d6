//! The laboratory with libreswan in the gateway's place, as the study runs it. It needs root and the guest of the interop
//! runs; it says so and passes without.

use loadgen::lab::cell::Job;
use loadgen::lab::results::{Point, Run};
use loadgen::lab::tunnel;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn is_possible() -> bool {
    let lacks = if nix::unistd::geteuid().is_root() {
        tunnel::lacks("libreswan")
    } else {
        Some("namespaces need root".to_owned())
    };
    if let Some(why) = &lacks {
        eprintln!("skipped: {why}");
    }
    lacks.is_none()
}

fn start(workload: &str, direction: &str, seconds: f64) -> Child {
    let point = Point {
        transport: "libreswan".into(),
        workload: workload.into(),
        direction: direction.into(),
        rtt_ms: 20.0,
        rate_mbit: 10.0,
        ..Point::default()
    };
    let job = Job { point, repetition: 0, seed: 1, seconds, warm_up: 2.0, swugate: None, slot: 0 };
    let (stdout, stderr) = (Stdio::piped(), Stdio::piped());
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["lab-cell", &serde_json::to_string(&job).unwrap()])
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap()
}

/// Where a measurement keeps its files while it runs.
fn files(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("swdemo-{pid}"))
}

/// Whether the guest of a measurement has a process: all have its directory in their command line.
fn has_guest(pid: u32) -> bool {
    let job = format!("job={}", files(pid).display());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| line.split(|octet| *octet == 0).any(|word| word == job.as_bytes()))
}

fn check_nothing_is_left(pid: u32) {
    assert!(!files(pid).exists());
    let namespaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let own = format!("-{pid}");
    assert!(!namespaces.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().ends_with(&own)));
    wait(Duration::from_secs(5), || !has_guest(pid));
}

fn wait(limit: Duration, mut until: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !until() {
        assert!(Instant::now() < deadline, "not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn measure(workload: &str, direction: &str) -> Run {
    let cell = start(workload, direction, 3.0);
    let pid = cell.id();
    let output = cell.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check_nothing_is_left(pid);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_call_and_a_download_through_the_kernels_esp_in_tcp() {
    if !is_possible() {
        return;
    }
    let run = measure("voice+bulk", "down");
    let (goodput, voice) = (run.bulk.unwrap().goodput_mbit, run.voice.unwrap());
    assert!((3.0..10.0).contains(&goodput), "{goodput}");
    assert!(voice.received > 100 && voice.delay_ms.p50 >= 10.0, "{voice:?}");
    assert!(run.forward.packets_out > 1000 && run.back.packets_out > 100);
    // The sender is the guest's kernel, and what User-Mode Linux needs of a CPU is no cost of libreswan.
    assert!(run.outer.is_none() && run.gateway_cpu_s.is_none());
}

/// Many packets begin in one TCP segment and end in the next, which the guest's driver must not see.
#[test]
fn an_upload_through_the_kernels_esp_in_tcp() {
    if !is_possible() {
        return;
    }
    let run = measure("bulk", "up");
    let goodput = run.bulk.unwrap().goodput_mbit;
    assert!((3.0..10.0).contains(&goodput), "{goodput}");
    assert!(run.outer.is_some());
}

#[test]
fn the_end_of_a_measurement_is_that_of_its_guest() {
    if !is_possible() {
        return;
    }
    for signal in [nix::sys::signal::SIGINT, nix::sys::signal::SIGTERM] {
        let mut cell = start("bulk", "down", 60.0);
        let pid = cell.id();
        wait(Duration::from_secs(30), || files(pid).join("booted").exists());
        assert!(has_guest(pid));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).unwrap();
        assert!(!cell.wait().unwrap().success());
        check_nothing_is_left(pid);
    }
}

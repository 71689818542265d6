//! Replays the fuzz corpora through the functions that the fuzz targets run.

use std::fs;
use std::path::PathBuf;

use codec::crypto::{open_sk, open_skf};
use codec::esp::InboundSa;
use codec::fuzzing;

/// Runs `target` over every committed input, of which there must be at least `count_min`.
fn replay(name: &str, count_min: usize, target: fn(&[u8])) {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fuzz/corpus", name].iter().collect();
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("a readable folder").path();
        println!("{}", path.display());
        target(&fs::read(&path).expect("a readable input"));
        count += 1;
    }
    assert!(count >= count_min, "{name}: only {count} inputs");
}

#[test]
fn deframer() {
    replay("deframer", 12, fuzzing::deframer);
}

#[test]
fn esp_open() {
    replay("esp_open", 30, fuzzing::esp_open);
}

#[test]
fn inner_header() {
    replay("inner_header", 20, fuzzing::inner_header);
}

#[test]
fn ike_message() {
    replay("ike_message", 60, fuzzing::ike_message);
}

#[test]
fn eap_packet() {
    replay("eap_packet", 20, fuzzing::eap_packet);
}

/// The corpus reaches what only authentic octets reach.
#[test]
fn sealed_inputs_are_authentic() {
    let read = |name: &str| {
        let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fuzz/corpus", name].iter().collect();
        fs::read(path).expect("a committed input")
    };
    for (control, name) in [(0, "gcm"), (1, "cbc")] {
        let key = fuzzing::sk_key(control);
        assert!(open_sk(&mut read(&format!("ike_message/sealed-{name}")), &key).is_ok());
        assert!(open_skf(&mut read(&format!("ike_message/fragment-{name}-0")), &key).is_ok());
    }
    for control in 0..16 {
        let suite = fuzzing::esp_suite(control);
        let mut packet = read(&format!("esp_open/sealed-{suite}")).split_off(1);
        let mut sa = InboundSa::new(fuzzing::ESP_SPI, suite, fuzzing::esp_keys(&suite), 64);
        assert!(sa.open(&mut packet).is_ok(), "{suite}");
    }
}

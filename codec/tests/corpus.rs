//! Replays the fuzz corpora through the functions that the fuzz targets run.

use std::fs;
use std::path::PathBuf;

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

//! Replays the fuzz corpora through the functions that the fuzz targets run, and mutations of them.

use std::fs;
use std::path::PathBuf;

use gateway::config;
use gateway::control::aaa::{diameter, radius};
use proptest::prelude::*;

fn inputs(name: &str) -> Vec<Vec<u8>> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fuzz/corpus", name].iter().collect();
    let entries = fs::read_dir(&folder).expect("the corpus is committed");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a readable input")).collect()
}

#[test]
fn config() {
    let inputs = inputs("config");
    assert!(inputs.len() >= 10, "only {} inputs", inputs.len());
    inputs.iter().for_each(|input| config::fuzz(input));
}

#[test]
fn radius() {
    let inputs = inputs("radius");
    assert!(inputs.len() >= 10, "only {} inputs", inputs.len());
    inputs.iter().for_each(|input| radius::fuzz(input));
}

#[test]
fn diameter() {
    let inputs = inputs("diameter");
    assert!(inputs.len() >= 10, "only {} inputs", inputs.len());
    inputs.iter().for_each(|input| diameter::fuzz(input));
}

proptest! {
    /// Cut anywhere, with any octet changed: a packet or none, never a panic.
    #[test]
    fn radius_damaged(seed in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let inputs = inputs("radius");
        let mut input = inputs[seed.index(inputs.len())].clone();
        if !input.is_empty() {
            let place = at.index(input.len());
            input[place] = octet;
            radius::fuzz(&input);
            input.truncate(cut.index(input.len()));
        }
        radius::fuzz(&input);
    }

    /// Cut anywhere, with any octet changed: an answer, a refusal or nothing, never a panic.
    #[test]
    fn diameter_damaged(seed in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let inputs = inputs("diameter");
        let mut input = inputs[seed.index(inputs.len())].clone();
        if !input.is_empty() {
            let place = at.index(input.len());
            input[place] = octet;
            diameter::fuzz(&input);
            input.truncate(cut.index(input.len()));
        }
        diameter::fuzz(&input);
    }

    /// Cut anywhere, with any octet changed: a report or a configuration, never a panic.
    #[test]
    fn config_damaged(seed in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let inputs = inputs("config");
        let mut input = inputs[seed.index(inputs.len())].clone();
        if !input.is_empty() {
            let place = at.index(input.len());
            input[place] = octet;
            config::fuzz(&input);
            input.truncate(cut.index(input.len()));
        }
        config::fuzz(&input);
    }
}

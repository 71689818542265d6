//! Any octets as a configuration file.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| gateway::config::fuzz(octets));

//! Any octets as what a Diameter peer sends.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| gateway::control::aaa::diameter::fuzz(octets));

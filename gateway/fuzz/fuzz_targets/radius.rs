//! Any octets as a RADIUS packet.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| gateway::control::aaa::radius::fuzz(octets));

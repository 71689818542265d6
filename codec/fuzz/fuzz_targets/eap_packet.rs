#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codec::fuzzing::eap_packet(data));

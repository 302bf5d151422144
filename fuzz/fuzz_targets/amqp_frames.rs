//! Fuzzes the sanitizer of AMQP frames.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| longshore_bytes::run("amqp_frames", bytes));

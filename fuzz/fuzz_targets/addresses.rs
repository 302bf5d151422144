//! Fuzzes the parsers of the addresses of RabbitMQ and Redis.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| longshore_bytes::run("addresses", bytes));

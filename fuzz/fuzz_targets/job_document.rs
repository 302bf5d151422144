//! Fuzzes the parser of job documents.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| longshore_bytes::run("job_document", bytes));

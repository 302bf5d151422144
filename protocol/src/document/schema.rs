//! Generates the JSON Schemas (2020-12) of the formats that other programs write and read.
//!
//! A schema can't express everything that `JobDocument::parse` checks (sums, products, fields that
//! exclude each other), so it accepts some documents that are refused, and never refuses one that
//! is accepted.

use schemars::generate::SchemaSettings;

use super::encode;
use crate::{ChunkMessage, JournalRecord, wire};

/// The JSON Schema of the job document, kept as `docs/job.schema.json`.
pub fn job_schema() -> String {
    print::<encode::JobDocument<'_>>()
}

/// The JSON Schema of the chunk message, kept as `docs/chunk.schema.json`.
pub fn chunk_schema() -> String {
    print::<ChunkMessage>()
}

/// The JSON Schema of the journal's records, kept as `docs/journal.schema.json`.
pub fn journal_schema() -> String {
    print::<JournalRecord>()
}

/// The JSON Schema of what `--json` prints, kept as `docs/views.schema.json`.
pub fn views_schema() -> String {
    print::<wire::AnyView>()
}

fn print<T: schemars::JsonSchema>() -> String {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let schema = generator.into_root_schema_for::<T>();
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    text
}

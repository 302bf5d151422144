//! Prints dead letters, as text or as JSON.

use longshore_protocol::{
    DeadLetter, DeadLetterAnswer, DeadLetterDetails, DeadLetterOutcome, DeadLetterPage,
    DeadLettersPurged, Timestamp,
};

use super::Output;
use super::table::{age, fitted, size, table};
use crate::failure::Failure;

/// Prints a row for each letter, with its place in the queue.
pub(crate) fn page(
    output: &mut Output,
    page: &DeadLetterPage,
    now: Timestamp,
    is_wide: bool,
) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(page);
    }
    let header = ["N", "ID", "AGE", "SIZE", "REASON"];
    let cells = |(at, letter): (usize, &DeadLetter)| {
        vec![
            (at + 1).to_string(),
            or_dash(&letter.id),
            age_of(letter, now),
            size(letter.bytes),
            or_dash(letter.reason.as_deref().unwrap_or_default()),
        ]
    };
    let rows: Vec<Vec<String>> = page.letters.iter().enumerate().map(cells).collect();
    output.text(&match is_wide {
        true => table(&header, &rows),
        false => fitted(&header, &rows, &["REASON"]),
    })
}

/// Prints a letter and its document.
pub(crate) fn details(
    output: &mut Output,
    details: &DeadLetterDetails,
    now: Timestamp,
) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(details);
    }
    let DeadLetterDetails { letter, document, text } = details;
    let job = letter.job.map_or_else(|| "unknown".to_owned(), |job| job.to_string());
    let age = match age_of(letter, now) {
        age if age == "-" => "unknown".to_owned(),
        age => format!("{age} ago"),
    };
    for (name, fact) in [
        ("job", job.as_str()),
        ("message", letter.message_id.as_deref().unwrap_or("without message_id")),
        ("reason", letter.reason.as_deref().unwrap_or("none given")),
        ("refused", age.as_str()),
        ("size", &format!("{} bytes", letter.bytes)),
    ] {
        output.line(format_args!("{name:<9} {fact}"))?;
    }
    output.line("")?;
    match (document, text) {
        (Some(document), _) => output.data(document.get()),
        (None, Some(text)) => output.line(text),
        (None, None) => Ok(()),
    }
}

/// Prints what became of a letter.
pub(crate) fn answer(output: &mut Output, answer: &DeadLetterAnswer) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(answer);
    }
    let id = or_dash(&answer.letter.id);
    match answer.outcome {
        DeadLetterOutcome::Requeued => output.line(format_args!("{id} requeued")),
        DeadLetterOutcome::Purged => output.line(format_args!("{id} purged")),
        DeadLetterOutcome::Failed => {
            let error = answer.error.as_deref().unwrap_or_default();
            output.line(format_args!("{id} stays: {error}"))
        }
    }
}

/// Prints how many letters were deleted.
pub(crate) fn purged(output: &mut Output, purged: u64) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(&DeadLettersPurged { purged });
    }
    let letters = if purged == 1 { "letter" } else { "letters" };
    output.line(format_args!("{} {letters} purged", super::grouped(purged)))
}

fn age_of(letter: &DeadLetter, now: Timestamp) -> String {
    letter.dead_at.map_or_else(|| "-".to_owned(), |at| age(now.since(at)))
}

fn or_dash(word: &str) -> String {
    if word.is_empty() { "-".to_owned() } else { word.to_owned() }
}

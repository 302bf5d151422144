//! The fields of a job that `admit` and `restore` pass to Redis as pairs of a name and a value.
//!
//! The tables here are the one list of them: each entry says what a field is called in the job's
//! hash, what its values look like, and where its value comes from. The Lua library gets the names
//! and kinds from here, refuses every other field, and keeps what it gets; it names a field itself
//! only to enforce it.

use std::fmt::Write as _;

use longshore_protocol::ReduceTree;
use longshore_protocol::state::JobState;

use super::call::Arguments;
use super::millis;
use crate::{Admission, PriorState};

/// What the values of a field look like.
#[derive(Clone, Copy)]
enum Kind {
    /// Any text.
    Text,
    /// Decimal digits.
    Number,
    /// A state of a job.
    State,
}

/// A field of a job, whose value comes from a `T`.
struct Field<T> {
    name: &'static str,
    kind: Kind,
    /// Whether the field may be absent.
    optional: bool,
    value: fn(&T) -> Option<String>,
}

const fn required<T>(name: &'static str, kind: Kind, value: fn(&T) -> Option<String>) -> Field<T> {
    Field { name, kind, optional: false, value }
}

const fn optional<T>(name: &'static str, kind: Kind, value: fn(&T) -> Option<String>) -> Field<T> {
    Field { name, kind, optional: true, value }
}

/// The fields of a new job, in the order in which its hash lists them.
const OF_ADMISSION: [Field<Admission>; 15] = [
    required("task", Kind::Text, |new| Some(new.task.clone())),
    required("queue", Kind::Text, |new| Some(new.queue.clone())),
    required("tenant", Kind::Text, |new| Some(new.tenant.clone())),
    optional("name", Kind::Text, |new| new.name.clone()),
    optional("labels", Kind::Text, |new| {
        let labels = Some(&new.labels).filter(|labels| !labels.is_empty())?;
        Some(serde_json::to_string(labels).expect("plain data can be written as JSON"))
    }),
    required("priority", Kind::Number, |new| number(new.priority)),
    required("total", Kind::Number, |new| number(new.total)),
    optional("fan_in", Kind::Number, |new| new.fan_in.and_then(number)),
    optional("reduce_total", Kind::Number, |new| {
        new.fan_in.and_then(|fan_in| number(ReduceTree::new(new.total, fan_in).node_count()))
    }),
    optional("max_parallel", Kind::Number, |new| new.max_parallel.and_then(number)),
    optional("stop_after_failures", Kind::Number, |new| new.stop_after_failures.and_then(number)),
    // Counts from the submission; the hash has `deadline_at` in its place.
    optional("deadline_ms", Kind::Number, |new| new.deadline.map(millis).and_then(number)),
    required("keep_for_ms", Kind::Number, |new| number(millis(new.keep_for))),
    required("digest", Kind::Text, |new| Some(new.digest.as_str().to_owned())),
    optional("left_out", Kind::Text, |new| {
        let left_out = Some(&new.left_out).filter(|left_out| !left_out.is_empty())?;
        Some(serde_json::to_string(left_out).expect("plain data can be written as JSON"))
    }),
];

/// A job as the journal describes it.
struct Restoration {
    has_reduce: bool,
    prior: PriorState,
}

/// The fields that a restored job has besides those of a new one.
const OF_PRIOR_STATE: [Field<Restoration>; 16] = [
    optional("state", Kind::State, |job| Some(job.state().as_str().to_owned())),
    optional("submitted_at", Kind::Number, |job| number(job.submitted_at())),
    optional("paused_from", Kind::State, |job| {
        job.state().is_paused().then(|| JobState::INITIAL.as_str().to_owned())
    }),
    optional("finished_at", Kind::Number, |job| number(job.ending()?.finished_at.as_millis())),
    optional("started_at", Kind::Number, |job| number(job.ending()?.started_at?.as_millis())),
    optional("done", Kind::Number, |job| number(job.ending()?.done)),
    optional("failed", Kind::Number, |job| number(job.ending()?.failed)),
    optional("cancelled", Kind::Number, |job| number(job.ending()?.cancelled)),
    optional("reduce_done", Kind::Number, |job| number(job.reduced()?.reduce_done)),
    optional("reduce_failed", Kind::Number, |job| number(job.reduced()?.reduce_failed)),
    optional("reduce_cancelled", Kind::Number, |job| number(job.reduced()?.reduce_cancelled)),
    optional("generation", Kind::Number, |job| number(job.ending()?.generation)),
    optional("attempts", Kind::Number, |job| number(job.ending()?.attempts)),
    optional("busy_ms", Kind::Number, |job| number(job.ending()?.busy_ms)),
    optional("lost", Kind::Number, |job| number(job.ending()?.lost)),
    optional("error", Kind::Text, |job| job.ending()?.error.clone()),
];

impl Restoration {
    fn state(&self) -> JobState {
        match &self.prior {
            PriorState::Open { paused: true, .. } => JobState::Paused,
            PriorState::Open { paused: false, .. } => JobState::INITIAL,
            PriorState::Ended(ending) => ending.state,
        }
    }

    fn submitted_at(&self) -> u64 {
        match &self.prior {
            PriorState::Open { submitted_at, .. } => submitted_at.as_millis(),
            PriorState::Ended(ending) => ending.submitted_at.as_millis(),
        }
    }

    fn ending(&self) -> Option<&longshore_protocol::JournalEnding> {
        match &self.prior {
            PriorState::Open { .. } => None,
            PriorState::Ended(ending) => Some(ending),
        }
    }

    /// The ending of a job with a reduce.
    fn reduced(&self) -> Option<&longshore_protocol::JournalEnding> {
        self.ending().filter(|_| self.has_reduce)
    }
}

/// The fields of a new job, as arguments.
pub(super) fn of_admission(admission: &Admission) -> Arguments {
    pairs(Arguments::default(), &OF_ADMISSION, admission)
}

/// The fields of a restored job, as arguments.
pub(super) fn of_restored(admission: &Admission, prior: &PriorState) -> Arguments {
    let job = Restoration { has_reduce: admission.fan_in.is_some(), prior: prior.clone() };
    pairs(of_admission(admission), &OF_PRIOR_STATE, &job)
}

fn pairs<T>(mut arguments: Arguments, fields: &[Field<T>], from: &T) -> Arguments {
    for Field { name, value, .. } in fields {
        if let Some(value) = value(from) {
            arguments.push(name);
            arguments.push(value);
        }
    }
    arguments
}

fn number(number: impl Into<u64>) -> Option<String> {
    Some(number.into().to_string())
}

/// What Lua knows of the fields: `ADMISSION_FIELDS[field]` and `RESTORE_FIELDS[field]` are the
/// kinds of the fields that each operation takes; `REQUIRED_FIELDS` lists those that no job lacks.
pub(super) fn lua_tables() -> String {
    let admission: Vec<String> = OF_ADMISSION.iter().map(entry).collect();
    let prior: Vec<String> = OF_PRIOR_STATE.iter().map(entry).collect();
    let needed = OF_ADMISSION.iter().filter(|field| !field.optional);
    let needed: Vec<String> = needed.map(|field| format!("'{}'", field.name)).collect();
    let mut head = String::new();
    let _ = writeln!(head, "local ADMISSION_FIELDS = {{ {} }}", admission.join(", "));
    let _ =
        writeln!(head, "local RESTORE_FIELDS = {{ {} }}", [admission, prior].concat().join(", "));
    let _ = writeln!(head, "local REQUIRED_FIELDS = {{ {} }}", needed.join(", "));
    head
}

fn entry<T>(field: &Field<T>) -> String {
    let kind = match field.kind {
        Kind::Text => "text",
        Kind::Number => "number",
        Kind::State => "state",
    };
    format!("{} = '{kind}'", field.name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_field_comes_twice() {
        let names = OF_ADMISSION.iter().map(|field| field.name);
        let names: Vec<_> = names.chain(OF_PRIOR_STATE.iter().map(|field| field.name)).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}

//! Decodes the parsed tree into a document: types, unknown fields, defaults, bounds of numbers.
//!
//! `rules` checks all other values.

use std::collections::BTreeMap;

use super::field_path::FieldPath;
use super::json::{self, Node, quote};
use super::reader::{Object, Reader, one_of};
use super::rules;
use super::{
    Axis, Changed, Chunk, Invalid, JobDocument, Placement, Reduce, Results, Retry, Split, units,
};

const FIELDS: [&str; 20] = [
    "id",
    "task",
    "split",
    "params",
    "reduce",
    "queue",
    "priority",
    "tenant",
    "retry",
    "timeout",
    "deadline",
    "max_parallel",
    "stop_after_failures",
    "placement",
    "chunk",
    "results",
    "changed",
    "keep_for",
    "name",
    "labels",
];
const KINDS: [&str; 5] = ["items", "range", "lines", "files", "grid"];
const TEXT: &str = "write a string";
const PLACEMENTS: &str = r#"use "shared", "round_robin" or {"hash": "/json/pointer"}"#;
const CHUNKS: &str = r#"use "auto" or a whole number from 1 to 1000000"#;
const AXIS: &str = r#"use a list of values or {"start": 0, "end": 10}"#;

impl JobDocument {
    /// Reads and validates a document; the error is the first mistake.
    ///
    /// The application's own data is kept as text, so numbers of any length stay as they were
    /// written.
    pub fn parse(json: &[u8]) -> Result<Self, Invalid> {
        let root = FieldPath::Root;
        let reader = Reader::new(root, json::parse(json)?);
        let mut object = Object::new(reader, &root, "write one JSON object")?;
        object.only(&FIELDS)?;

        let task = object.required("task", "name the task that workers run")?.text(TEXT)?;
        let split = split(object.required("split", "say how the job becomes subtasks")?)?;
        let mut document = Self::new(task, split);
        if let Some(id) = object.take("id").and_then(Reader::unless_null) {
            document.id = Some(job_id(&id)?);
        }
        if let Some(params) = object.take("params") {
            document.params = params.json()?;
        }
        if let Some(names) = object.take("reduce").and_then(Reader::unless_null) {
            document.reduce = Some(reduce(names)?);
        }
        if let Some(queue) = object.take("queue") {
            document.queue = queue.text(TEXT)?;
        }
        if let Some(priority) = object.take("priority") {
            document.priority = priority.whole(&rules::PRIORITY)?;
        }
        if let Some(tenant) = object.take("tenant") {
            document.tenant = tenant.text(TEXT)?;
        }
        if let Some(fields) = object.take("retry") {
            document.retry = retry(fields)?;
        }
        let mut optional = |name| object.take(name).and_then(Reader::unless_null);
        document.timeout = optional("timeout").map(Reader::duration).transpose()?;
        document.deadline = optional("deadline").map(Reader::duration).transpose()?;
        let subtasks = |reader: Reader<'_>| reader.whole(&rules::SUBTASKS);
        document.max_parallel = optional("max_parallel").map(subtasks).transpose()?;
        document.stop_after_failures = optional("stop_after_failures").map(subtasks).transpose()?;
        if let Some(reader) = object.take("placement") {
            document.placement = placement(reader)?;
        }
        if let Some(reader) = object.take("chunk") {
            document.chunk = chunk(reader)?;
        }
        if let Some(reader) = object.take("results") {
            document.results = results(reader)?;
        }
        if let Some(reader) = object.take("changed") {
            document.changed = changed(&reader)?;
        }
        if let Some(duration) = object.take("keep_for") {
            document.keep_for = duration.duration()?;
        }
        if let Some(reader) = object.take("name").and_then(Reader::unless_null) {
            document.name = Some(reader.text(TEXT)?);
        }
        if let Some(reader) = object.take("labels") {
            document.labels = labels(reader)?;
        }
        document.validate()?;
        Ok(document)
    }
}

fn job_id(reader: &Reader<'_>) -> Result<crate::JobId, Invalid> {
    reader.as_text().and_then(|text| units::parse_job_id(&text)).ok_or_else(|| {
        reader.refuse("write a UUID like 01890a5d-ac96-774b-bcce-b302099a8057, or leave it out")
    })
}

fn split(reader: Reader<'_>) -> Result<Split, Invalid> {
    let place = reader.place();
    let kinds = format!("use {}", one_of(&KINDS));
    let mut object = Object::new(reader, &place, r#"write an object like {"by": "items", …}"#)?;
    let kind = object.peek_text("by", &kinds)?;
    match kind.as_str() {
        "items" => {
            object.only(&["by", "items"])?;
            let reader = object.required("items", "list the items")?;
            Ok(Split::Items { items: reader.items("write a list of items")? })
        }
        "range" => {
            object.only(&["by", "start", "end", "step"])?;
            let (start, end, step) = range(&mut object)?;
            Ok(Split::Range { start, end, step })
        }
        "lines" => {
            object.only(&["by", "files", "bytes"])?;
            let files = globs(&mut object)?;
            let bytes = object.required("bytes", r#"give the size of a window, like "1MiB""#)?;
            Ok(Split::Lines { files, bytes: bytes.size()? })
        }
        "files" => {
            object.only(&["by", "files"])?;
            Ok(Split::Files { files: globs(&mut object)? })
        }
        "grid" => {
            object.only(&["by", "axes"])?;
            let reader = object.required("axes", "name the axes and their values")?;
            Ok(Split::Grid { axes: axes(reader)? })
        }
        other => Err(place.field("by").invalid(format!("unknown kind {}", quote(other)), kinds)),
    }
}

fn range(object: &mut Object<'_>) -> Result<(i64, i64, i64), Invalid> {
    let start = object.required("start", "give the first number")?.integer()?;
    let end = object.required("end", "give the number to end before")?.integer()?;
    let step = object.take("step").map_or(Ok(1), Reader::integer)?;
    Ok((start, end, step))
}

fn globs(object: &mut Object<'_>) -> Result<Vec<String>, Invalid> {
    let reader = object.required("files", "list paths or globs")?;
    let place = reader.place();
    let nodes = reader.list("write a list of paths or globs")?.into_iter().enumerate();
    nodes.map(|(index, node)| Reader::new(place.index(index), node).text(TEXT)).collect()
}

fn axes(reader: Reader<'_>) -> Result<Vec<(String, Axis)>, Invalid> {
    let place = reader.place();
    let members = reader.members(r#"write an object like {"lr": [0.1, 0.2]}"#)?;
    let mut axes = Vec::with_capacity(members.len());
    for (name, node) in members {
        let axis = axis(Reader::new(place.field(&name), node))?;
        axes.push((name, axis));
    }
    Ok(axes)
}

fn axis(reader: Reader<'_>) -> Result<Axis, Invalid> {
    if reader.is_list() {
        return Ok(Axis::Values(reader.items(AXIS)?));
    }
    let place = reader.place();
    let mut object = Object::new(reader, &place, AXIS)?;
    object.only(&["start", "end", "step"])?;
    let (start, end, step) = range(&mut object)?;
    Ok(Axis::Range { start, end, step })
}

fn reduce(reader: Reader<'_>) -> Result<Reduce, Invalid> {
    let place = reader.place();
    let mut object = Object::new(reader, &place, r#"write an object like {"task": "sum"}"#)?;
    object.only(&["task", "fan_in"])?;
    let task = object.required("task", "name the task that combines results")?.text(TEXT)?;
    let mut reduce = Reduce::new(task);
    if let Some(fan_in) = object.take("fan_in") {
        reduce.fan_in = fan_in.whole(&rules::FAN_IN)?;
    }
    Ok(reduce)
}

fn retry(reader: Reader<'_>) -> Result<Retry, Invalid> {
    let place = reader.place();
    let mut object = Object::new(reader, &place, r#"write an object like {"attempts": 3}"#)?;
    object.only(&["attempts", "backoff", "factor", "max_backoff", "jitter"])?;
    let mut retry = Retry::default();
    if let Some(attempts) = object.take("attempts") {
        retry.attempts = attempts.whole(&rules::ATTEMPTS)?;
    }
    if let Some(backoff) = object.take("backoff") {
        retry.backoff = backoff.duration()?;
    }
    if let Some(factor) = object.take("factor") {
        retry.factor = factor.real(&rules::FACTOR)?;
    }
    if let Some(max_backoff) = object.take("max_backoff") {
        retry.max_backoff = max_backoff.duration()?;
    }
    if let Some(jitter) = object.take("jitter") {
        // A negative zero is within the bounds, but would be written as `-0.0` and change the
        // digest.
        retry.jitter = jitter.real(&rules::JITTER)?.abs();
    }
    Ok(retry)
}

fn placement(reader: Reader<'_>) -> Result<Placement, Invalid> {
    match reader.as_text().as_deref() {
        Some("shared") => return Ok(Placement::Shared),
        Some("round_robin") => return Ok(Placement::RoundRobin),
        _ if reader.is_object() => {}
        _ => return Err(reader.refuse(PLACEMENTS)),
    }
    let place = reader.place();
    let mut object = Object::new(reader, &place, PLACEMENTS)?;
    object.only(&["hash"])?;
    Ok(Placement::Hash(object.required("hash", PLACEMENTS)?.text(TEXT)?))
}

fn chunk(reader: Reader<'_>) -> Result<Chunk, Invalid> {
    match reader.as_text().as_deref() {
        Some("auto") => Ok(Chunk::Auto),
        Some(_) => Err(reader.refuse(CHUNKS)),
        None => reader
            .whole(&rules::CHUNK)
            .map(Chunk::Fixed)
            .map_err(|error| Invalid { allowed: CHUNKS.into(), ..error }),
    }
}

fn results(reader: Reader<'_>) -> Result<Results, Invalid> {
    let text = reader.text(r#"use "keep", "discard" or a URL"#)?;
    Ok(match text.as_str() {
        "keep" => Results::Keep,
        "discard" => Results::Discard,
        _ => Results::Url(text),
    })
}

fn changed(reader: &Reader<'_>) -> Result<Changed, Invalid> {
    match reader.as_text().as_deref() {
        Some("fail") => Ok(Changed::Fail),
        Some("read") => Ok(Changed::Read),
        _ => Err(reader.refuse(r#"use "fail" or "read""#)),
    }
}

fn labels(reader: Reader<'_>) -> Result<BTreeMap<String, String>, Invalid> {
    let place = reader.place();
    let members: Vec<(String, Node<'_>)> = reader.members("write an object of strings")?;
    let mut labels = BTreeMap::new();
    for (key, node) in members {
        let value = Reader::new(place.field(&key), node).text(TEXT)?;
        if labels.contains_key(&key) {
            return Err(place.twice("label", &key));
        }
        labels.insert(key, value);
    }
    Ok(labels)
}

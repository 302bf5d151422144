//! Good documents: their defaults, canonical form and digest, and those that are built in Rust.

use std::time::Duration;

use longshore_protocol::document::{
    Axis, Changed, Chunk, MAX_DOCUMENT_BYTES, Placement, Reduce, Results, Retry, Split,
};
use longshore_protocol::{JobDocument, JobId, Json};
use serde_json::json;

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Documents that have to be accepted, by the parser and by the schema.
pub(crate) const GOOD: &[&str] = &[
    r#"{"task":"t","split":{"by":"items","items":[1,"two",null,{"a":[{}]}]}}"#,
    r#"{"task":"t","split":{"by":"range","start":0,"end":1000000,"step":1}}"#,
    r#"{"task":"t","split":{"by":"range","start":5,"end":-5,"step":-3}}"#,
    r#"{"task":"t","split":{"by":"range","start":0,"end":1099511627776}}"#,
    r#"{"task":"t","split":{"by":"range","start":-9223372036854775808,"end":9223372036854775807,"step":9000000000000}}"#,
    r#"{"task":"t","split":{"by":"lines","files":["/data/**/*.txt","s3://logs/2024/*"],"bytes":"1MiB"}}"#,
    r#"{"task":"t","split":{"by":"files","files":["photos/[a-f]*.jpg","file:///data/x?"]}}"#,
    r#"{"task":"t","split":{"by":"grid","axes":{"lr":[0.1,0.01],"seed":{"start":0,"end":10},"a b":[[]]}}}"#,
    r#"{"id":"01890a5d-ac96-774b-bcce-b302099a8057","task":"score.v2_x-1","split":{"by":"items","items":[0]},
        "params":{"model":"m","list":[1.5,-7,18446744073709551615]},"reduce":{"task":"sum","fan_in":2},
        "queue":"gpu","priority":9,"tenant":"team-a",
        "retry":{"attempts":1,"backoff":"0s","factor":1,"max_backoff":"1h 30m","jitter":0},
        "timeout":"1.5s","deadline":"2days","max_parallel":1,"stop_after_failures":1099511627776,
        "placement":{"hash":"/user/~0x~1y/0"},"chunk":1000000,"results":"s3://out/job","keep_for":"1s",
        "name":"nightly 7","labels":{"team/x":"","häfen":"Grüße"}}"#,
    r#"{"id":null,"task":"t","split":{"by":"items","items":[0]},"params":null,"reduce":null,"timeout":null,
        "deadline":null,"max_parallel":null,"stop_after_failures":null,"retry":{},"labels":{},"chunk":"auto","changed":"fail",
        "placement":"round_robin","results":"file:///out"}"#,
    r#"{"task":"t","split":{"by":"items","items":[0]},"placement":{"hash":""},"results":"discard"}"#,
];

fn parse(text: &str) -> JobDocument {
    match JobDocument::parse(text.as_bytes()) {
        Ok(document) => document,
        Err(error) => panic!("{text}\n{error}"),
    }
}

#[track_caller]
fn refused(document: &JobDocument, expected: &str) {
    let error = document.validate().expect_err("the document has to be refused");
    assert_eq!(error.to_string(), expected);
}

fn small() -> JobDocument {
    JobDocument::new("t", Split::items([1]))
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let document = parse(r#"{"task":"t","split":{"by":"items","items":[1]}}"#);
    assert_eq!(document, small());
    let retry = Retry {
        attempts: 3,
        backoff: Duration::from_secs(1),
        factor: 2.0,
        max_backoff: Duration::from_secs(300),
        jitter: 0.1,
    };
    let expected = JobDocument {
        id: None,
        task: "t".into(),
        split: Split::Items { items: vec![json!(1)].into() },
        params: Json::null(),
        reduce: None,
        queue: "default".into(),
        priority: 5,
        tenant: "default".into(),
        retry,
        timeout: None,
        deadline: None,
        max_parallel: None,
        stop_after_failures: None,
        placement: Placement::Shared,
        chunk: Chunk::Auto,
        results: Results::Keep,
        changed: Changed::Fail,
        keep_for: Duration::from_secs(86_400),
        name: None,
        labels: [].into(),
    };
    assert_eq!(document, expected);
}

#[test]
fn what_is_written_is_read() {
    let document = parse(GOOD[8]);
    assert_eq!(document.id.map(|id| id.to_string()).as_deref(), Some(ID));
    assert_eq!(document.task, "score.v2_x-1");
    assert_eq!(document.params.pointer("/list/2"), Some("18446744073709551615"));
    assert_eq!(document.reduce, Some(Reduce { task: "sum".into(), fan_in: 2 }));
    assert_eq!((document.queue.as_str(), document.priority), ("gpu", 9));
    assert_eq!(document.retry.max_backoff, Duration::from_secs(5400));
    assert_eq!(document.timeout, Some(Duration::from_millis(1500)));
    assert_eq!(document.deadline, Some(Duration::from_secs(2 * 86_400)));
    assert_eq!((document.max_parallel, document.stop_after_failures), (Some(1), Some(1 << 40)));
    assert_eq!(document.placement, Placement::Hash("/user/~0x~1y/0".into()));
    assert_eq!(document.chunk, Chunk::Fixed(1_000_000));
    assert_eq!(document.results, Results::Url("s3://out/job".into()));
    assert_eq!(document.name.as_deref(), Some("nightly 7"));
    assert_eq!(document.labels["häfen"], "Grüße");
}

#[test]
fn axes_keep_the_order_of_the_document() {
    let document = parse(r#"{"task":"t","split":{"by":"grid","axes":{"z":[1],"a":[2],"m":[3]}}}"#);
    let Split::Grid { axes } = &document.split else { panic!("{document:?}") };
    assert_eq!(axes.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["z", "a", "m"]);
    assert!(document.to_json().contains(r#""axes":{"z":[1],"a":[2],"m":[3]}"#));
}

#[test]
fn the_canonical_form_writes_every_field_out() {
    let canonical = concat!(
        r#"{"task":"t","split":{"by":"items","items":[1]},"params":null,"reduce":null,"queue":"default","#,
        r#""priority":5,"tenant":"default","retry":{"attempts":3,"backoff":"1s","factor":2.0,"#,
        r#""max_backoff":"5m","jitter":0.1},"timeout":null,"deadline":null,"max_parallel":null,"#,
        r#""stop_after_failures":null,"placement":"shared","chunk":"auto","results":"keep","#,
        r#""keep_for":"24h","labels":{}}"#,
    );
    assert_eq!(small().to_json(), canonical);
}

#[test]
fn every_good_document_survives_its_canonical_form() {
    for text in GOOD {
        let document = parse(text);
        assert_eq!(parse(&document.to_json()), document, "{text}");
        assert_eq!(document.validate(), Ok(()), "{text}");
    }
}

#[test]
fn the_digest_is_that_of_the_content() {
    let one = parse(
        r#"{"task":"t","split":{"by":"items","items":[1]},"params":{"a":1,"b":{"c":2,"d":3}}}"#,
    );
    let other = parse(
        r#"{"id":"01890a5d-ac96-774b-bcce-b302099a8057","params":{"b":{"d":3,"c":2},"a":1},
            "keep_for":"1day","retry":{"factor":2},"split":{"items":[1],"by":"items"},"task":"t"}"#,
    );
    assert_eq!(one.digest(), other.digest(), "spelling, order and id don't count");
    assert!(one.to_json().contains(r#""params":{"a":1,"b":{"c":2,"d":3}}"#), "keys are sorted");
    let more = JobDocument { priority: 6, ..one.clone() };
    assert_ne!(one.digest(), more.digest());
    let named = JobDocument { name: Some("nightly".into()), ..one.clone() };
    assert_ne!(one.digest(), named.digest());
    let reads = JobDocument { changed: Changed::Read, ..one.clone() };
    assert_ne!(one.digest(), reads.digest());
    assert!(reads.to_json().contains(r#""changed":"read""#), "{}", reads.to_json());
    // A digest that changes with a release would turn every repeated submission into a conflict.
    let kept = "3e6f5768f3fe1cda188b1e6a9182c593b029e217a84d6e6d3e964917a334794e";
    assert_eq!(small().digest().as_str(), kept);
}

#[test]
fn the_id_of_a_bad_document_can_still_be_read() {
    let expected = ID.parse::<JobId>().ok();
    let readable = [
        format!(r#"{{"id":"{ID}","task":7}}"#),
        format!(r#"{{"task":7,"more":[{{}}],"id":"{ID}"}}"#),
        format!(r#"{{"id":"{ID}","split":{{"by":"#),
        format!(r#"{{"x":{}{},"id":"{ID}"}}"#, "[".repeat(100_000), "]".repeat(100_000)),
    ];
    for text in readable {
        assert_eq!(JobDocument::peek_id(text.as_bytes()), expected, "{:.80}", text);
    }
    let unreadable = [
        String::new(),
        "[]".into(),
        r#"{"task":"t"}"#.into(),
        r#"{"id":7}"#.into(),
        r#"{"id":"seven"}"#.into(),
        r#"{"id":"00000000-0000-0000-0000-000000000000"}"#.into(),
        format!(r#"{{"id":"{ID}","id":"{ID}"}}"#),
        format!(r#"{{"in":{{"id":"{ID}"}}}}"#),
    ];
    for text in unreadable {
        assert_eq!(JobDocument::peek_id(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn a_document_built_in_rust_obeys_the_same_rules() {
    let bad = JobDocument { task: "a b".into(), ..small() };
    refused(
        &bad,
        "task: `a b` with the character ` `; use 1 to 100 characters out of A-Z a-z 0-9 . _ -",
    );
    refused(
        &JobDocument { priority: 10, ..small() },
        "priority: `10`; use a whole number from 0 to 9",
    );
    let axes =
        [("x", Axis::Values(vec![json!(1)].into())), ("x", Axis::Values(vec![json!(2)].into()))];
    let twice = JobDocument::new("t", Split::grid(axes));
    refused(&twice, "split.axes: the axis `x` stands twice; write it once");
    let retry = Retry { jitter: f64::NAN, ..Retry::default() };
    refused(&JobDocument { retry, ..small() }, "retry.jitter: `NaN`; use a number from 0 to 1");
    let timeout = Some(Duration::from_micros(1));
    refused(
        &JobDocument { timeout, ..small() },
        "timeout: `1us`; use 1ms to 876600h (100 years), in whole milliseconds",
    );
    refused(
        &JobDocument { chunk: Chunk::Fixed(0), ..small() },
        "chunk: `0`; use a whole number from 1 to 1000000",
    );
    refused(
        &JobDocument { max_parallel: Some(0), ..small() },
        "max_parallel: `0`; use a whole number from 1 to 1099511627776",
    );
    for (name, found) in [
        ("", "0 characters"),
        (&*"x".repeat(201), "201 characters"),
        ("a\nb", "the character `\\n`"),
    ] {
        let expected = format!("name: {found}; use 1 to 200 printable characters");
        refused(&JobDocument { name: Some(name.into()), ..small() }, &expected);
    }
    let deep = (0..100).fold(json!(1), |value, _| json!([value]));
    refused(
        &JobDocument { params: deep.clone().into(), ..small() },
        "params: nested too deep; nest at most 100 levels",
    );
    refused(
        &JobDocument::new("t", Split::items([json!(1), deep])),
        "split.items[1]: nested too deep; nest at most 100 levels",
    );
}

#[test]
fn the_deepest_documents_that_are_valid_can_be_read_again() {
    let nested = |levels: usize| (0..levels).fold(json!(1), |value, _| json!([value]));
    let axis = Axis::Values(vec![nested(96)].into());
    let deepest = [
        JobDocument { params: nested(99).into(), ..small() },
        JobDocument::new("t", Split::items([nested(97)])),
        JobDocument::new("t", Split::grid([("x", axis)])),
    ];
    for document in deepest {
        assert_eq!(document.validate(), Ok(()));
        assert_eq!(parse(&document.to_json()), document);
    }
    let axis = Axis::Values(vec![nested(97)].into());
    let too_deep = JobDocument::new("t", Split::grid([("x", axis)]));
    refused(&too_deep, "split.axes.x[0]: nested too deep; nest at most 100 levels");
    let error = JobDocument::parse(too_deep.to_json().as_bytes()).expect_err("too deep to read");
    assert_eq!(
        (error.place.as_str(), error.allowed.as_str()),
        ("document", "nest at most 100 levels")
    );
}

#[test]
fn a_document_of_16_mib_is_the_longest() {
    let with = |length: usize| JobDocument { params: json!("x".repeat(length)).into(), ..small() };
    let longest = with(MAX_DOCUMENT_BYTES - with(0).to_json().len());
    assert_eq!(longest.to_json().len(), MAX_DOCUMENT_BYTES);
    assert_eq!(parse(&longest.to_json()), longest);

    let longer = with(MAX_DOCUMENT_BYTES - with(0).to_json().len() + 1);
    let expected = "document: 16777217 bytes; at most 16 MiB; submit more items through an open job, \
        or name them by files";
    refused(&longer, expected);
    let error = JobDocument::parse(longer.to_json().as_bytes()).expect_err("too long");
    assert_eq!(error.to_string(), expected);
}

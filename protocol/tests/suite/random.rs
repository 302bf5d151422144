//! Properties that hold for every valid document and every plan, on random documents.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_protocol::document::{
    Axis, Changed, Chunk, MAX_TOTAL, Placement, Reduce, Results, Retry, Split,
};
use longshore_protocol::{Input, InputFile, JobDocument, JobId, Json, Manifest, Plan};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,100}"
}

/// Any number as JSON may write it, of any length.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?(0|[1-9][0-9]{0,40})",
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?"
    ]
}

fn text_of(value: impl Into<Value>) -> String {
    value.into().to_string()
}

/// Any JSON, as text.
fn data() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(text_of),
        any::<f64>().prop_map(text_of),
        number(),
        any::<String>().prop_map(text_of),
    ];
    let tree = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|texts| format!("[{}]", texts.join(" , "))),
            btree_map(any::<String>(), inner, 0..4).prop_map(|members| {
                let member = |(key, text)| format!("{}: {text}", text_of(key));
                // Not in the order in which they are kept.
                let members: Vec<String> = members.into_iter().rev().map(member).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    tree.prop_map(|text| Json::parse(&text).expect("it is JSON"))
}

/// Any start and a step that leads to at most `most` numbers without leaving 64 bits.
fn range(most: u64) -> impl Strategy<Value = (i64, i64, i64)> {
    (any::<i64>(), 1..=most, any::<i64>())
        .prop_map(|(start, count, step)| {
            let room = if step < 0 {
                i128::from(start) - i128::from(i64::MIN)
            } else {
                i128::from(i64::MAX) - i128::from(start)
            };
            let count = i128::from(count);
            let size = i128::from(step).abs().clamp(1, (room / count).max(1));
            let step = if step < 0 { -size } else { size };
            let end = i128::from(start) + step * count;
            let end = end.clamp(i64::MIN.into(), i64::MAX.into());
            (start, end as i64, step as i64)
        })
        .prop_filter("no room for one number", |(start, end, _)| start != end)
}

fn axis() -> impl Strategy<Value = Axis> {
    prop_oneof![
        vec(data(), 1..4).prop_map(|values| Axis::Values(values.into_iter().collect())),
        range(1000).prop_map(|(start, end, step)| Axis::Range { start, end, step }),
    ]
}

fn split() -> impl Strategy<Value = Split> {
    let globs = || vec("(/[a-z]{1,5}){1,3}(/[*]{2}/[a-z?]{1,5})?", 1..4);
    prop_oneof![
        vec(data(), 1..6).prop_map(|items| Split::Items { items: items.into_iter().collect() }),
        range(MAX_TOTAL).prop_map(|(start, end, step)| Split::Range { start, end, step }),
        (globs(), 1..=1u64 << 40).prop_map(|(files, bytes)| Split::Lines { files, bytes }),
        globs().prop_map(|files| Split::Files { files }),
        btree_map("[^\\p{Cc}]{1,30}", axis(), 1..4)
            .prop_map(|axes| Split::Grid { axes: axes.into_iter().rev().collect() }),
    ]
}

fn milliseconds(least: u64) -> impl Strategy<Value = Duration> {
    (least..=3_155_760_000_000).prop_map(Duration::from_millis)
}

fn retry() -> impl Strategy<Value = Retry> {
    (1..=1000u32, milliseconds(0), 1.0..=1000.0, milliseconds(0), 0.0..=1.0).prop_map(
        |(attempts, backoff, factor, max_backoff, jitter)| Retry {
            attempts,
            backoff: backoff.min(max_backoff),
            factor,
            max_backoff,
            jitter,
        },
    )
}

prop_compose! {
    fn document()(
        id in option::of((1..=u128::MAX).prop_map(|id| JobId::from_uuid(Uuid::from_u128(id)))),
        names in [name(), name(), name(), name()],
        split in split(),
        params in data(),
        fan_in in option::of(2..=10_000u64),
        priority in 0..=9u8,
        retry in retry(),
        times in (option::of(milliseconds(1)), option::of(milliseconds(1)), milliseconds(1000)),
        limits in (option::of(1..=MAX_TOTAL), option::of(1..=MAX_TOTAL)),
        placement in prop_oneof![
            Just(Placement::Shared),
            Just(Placement::RoundRobin),
            "(/([^~]|~[01]){0,5}){0,3}".prop_map(Placement::Hash),
        ],
        chunk in prop_oneof![Just(Chunk::Auto), (1..=1_000_000u64).prop_map(Chunk::Fixed)],
        results in prop_oneof![Just(Results::Keep), "(file:/|s3:/)/[!-.0-~]{1,20}".prop_map(|url| {
            Results::Url(url.replacen("file://", "file:///", 1))
        })],
        job_name in option::of("[^\\p{Cc}]{1,200}"),
        labels in btree_map("[^\\p{Cc}]{1,30}", any::<String>(), 0..4),
    ) -> JobDocument {
        let [task, reduce, queue, tenant] = names;
        JobDocument {
            id, task, split, params, queue, priority, tenant, retry, placement, chunk, results,
            reduce: fan_in.map(|fan_in| Reduce { task: reduce, fan_in }),
            timeout: times.0,
            deadline: times.1,
            keep_for: times.2,
            max_parallel: limits.0,
            stop_after_failures: limits.1,
            changed: if priority % 2 == 0 { Changed::Fail } else { Changed::Read },
            name: job_name,
            labels,
        }
    }
}

/// Indices worth a look: the first, the last and some between.
fn samples(total: u64, random: &[u64]) -> Vec<u64> {
    let mut indices = random.iter().map(|random| random % total).collect::<Vec<_>>();
    indices.extend([0, total / 2, total - 1]);
    indices
}

proptest! {
    #[test]
    fn a_valid_document_survives_its_canonical_form(document in document()) {
        prop_assert_eq!(document.validate(), Ok(()));
        let read = JobDocument::parse(document.to_json().as_bytes());
        prop_assert_eq!(read.as_ref(), Ok(&document));
        prop_assert_eq!(read.map(|read| read.digest()), Ok(document.digest()));
        let other = JobDocument { id: None, ..document.clone() };
        prop_assert_eq!(other.digest(), document.digest());
        prop_assert_eq!(JobDocument::peek_id(document.to_json().as_bytes()), document.id);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<Vec<u8>>(), json in data()) {
        prop_assert!(JobDocument::parse(&text).is_err());
        prop_assert!(JobDocument::parse(json.to_string().as_bytes()).is_err());
        prop_assert_eq!(JobDocument::peek_id(&text), None);
    }

    #[test]
    fn a_valid_document_with_one_part_replaced_never_panics(
        document in document(), field in 0..18usize, data in data(),
    ) {
        let mut value = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(&document.to_json())
            .expect("canonical JSON");
        let key = value.keys().nth(field % value.len()).cloned().expect("a field");
        value.insert(key.clone(), RawValue::from_string(data.to_string()).expect("JSON"));
        let text = serde_json::to_string(&value).expect("JSON");
        if let Err(error) = JobDocument::parse(text.as_bytes()) {
            prop_assert!(error.place.starts_with(&key) || key == "results", "{}: {}", key, error);
        }
    }

    #[test]
    fn a_range_has_its_numbers_in_steps(
        (start, end, step) in range(MAX_TOTAL), random in vec(any::<u64>(), 8),
    ) {
        let document = JobDocument::new("t", Split::Range { start, end, step });
        let plan = Plan::new(document, Manifest::default()).expect("a valid range");
        let end = i128::from(end);
        let before_end = |number: i128| if step > 0 { number < end } else { number > end };
        for index in samples(plan.total(), &random) {
            let expected = i128::from(start) + i128::from(index) * i128::from(step);
            prop_assert!(before_end(expected), "{} of {}", index, plan.total());
            prop_assert_eq!(plan.input(index), Input::Number(expected as i64));
        }
        let after_last = i128::from(start) + i128::from(plan.total()) * i128::from(step);
        prop_assert!(!before_end(after_last), "one more would fit");
    }

    #[test]
    fn windows_tile_each_file_without_gap_or_overlap(
        sizes in vec(prop_oneof![Just(0u64), 1..2000u64], 1..12), bytes in 1..500u64,
    ) {
        let files = sizes.iter().enumerate();
        let files =
            files.map(|(number, size)| InputFile { path: format!("/{number:03}"), size: *size, version: None });
        let manifest = Manifest { files: files.collect(), ..Manifest::default() };
        let plan = Plan::new(JobDocument::new("t", Split::lines(["/*"], bytes)), manifest.clone());
        if sizes.iter().all(|size| *size == 0) {
            prop_assert_eq!(plan.expect_err("no line").place, "split.files");
            return Ok(());
        }
        let plan = plan.expect("a valid plan");
        let mut windows = (0..plan.total()).map(|index| match plan.input(index) {
            Input::Window(window) => window,
            other => panic!("{other:?}"),
        });
        for file in manifest.files.iter().filter(|file| file.size > 0) {
            let mut reached = 0;
            while reached < file.size {
                let window = windows.next().expect("a window for each byte");
                prop_assert_eq!((&window.file, window.start), (&file.path, reached));
                let length = window.end - window.start;
                prop_assert!(length == bytes || (length < bytes && window.end == file.size));
                reached = window.end;
            }
            prop_assert_eq!(reached, file.size);
        }
        prop_assert_eq!(windows.next(), None);
    }

    /// A number comes out as it was written, wherever it stands.
    #[test]
    fn a_number_in_a_document_comes_out_as_written(numbers in vec(number(), 4)) {
        let [item, deep, param, value] = numbers.try_into().expect("four of them");
        let text = format!(
            r#"{{"task":"t","split":{{"by":"items","items":[ {item} ,[{{"a":{deep}}}]]}},"params":{{"p":{param}}}}}"#
        );
        let document = JobDocument::parse(text.as_bytes()).expect("it is valid");
        let document = JobDocument::parse(document.to_json().as_bytes()).expect("it is valid");
        prop_assert_eq!(document.params.pointer("/p"), Some(param.as_str()));
        let plan = Plan::new(document, Manifest::default()).expect("two items");
        let read = |index| serde_json::to_string(&plan.input(index)).expect("JSON");
        prop_assert_eq!(read(0), item);
        prop_assert_eq!(read(1), format!(r#"[{{"a":{deep}}}]"#));
        let text = format!(
            r#"{{"task":"t","split":{{"by":"grid","axes":{{"b":[{value}],"a":{{"start":0,"end":2}}}}}}}}"#
        );
        let document = JobDocument::parse(text.as_bytes()).expect("it is valid");
        let plan = Plan::new(document, Manifest::default()).expect("two points");
        let point = serde_json::to_string(&plan.input(1)).expect("JSON");
        prop_assert_eq!(point, format!(r#"{{"a":1,"b":{value}}}"#));
    }

    #[test]
    fn the_points_of_a_grid_count_like_digits(
        lengths in vec(1..1000i64, 1..5), random in vec(any::<u64>(), 8),
    ) {
        let names = ["d", "c", "b", "a"];
        let axes = names.into_iter().zip(&lengths);
        let axes =
            axes.map(|(name, length)| (name, Axis::Range { start: 0, end: *length, step: 1 }));
        let document = JobDocument::new("t", Split::grid(axes));
        let total = lengths.iter().product::<i64>() as u64;
        if total > MAX_TOTAL {
            prop_assert!(document.validate().is_err());
            return Ok(());
        }
        let plan = Plan::new(document, Manifest::default()).expect("a valid grid");
        prop_assert_eq!(plan.total(), total);
        for index in samples(total, &random) {
            let Input::Point(point) = plan.input(index) else { panic!("no point") };
            let digits = names.into_iter().zip(&lengths);
            let number = digits.fold(0, |number, (name, length)| {
                let digit = point.pointer(&format!("/{name}")).expect("an axis");
                let digit: i64 = digit.parse().expect("a number");
                assert!((0..*length).contains(&digit));
                number * length + digit
            });
            prop_assert_eq!(number as u64, index);
        }
    }

    #[test]
    fn every_valid_document_has_a_plan(
        document in document(), sizes in vec(1..1u64 << 20, 1..5), random in vec(any::<u64>(), 8),
    ) {
        let files = match &document.split {
            Split::Lines { .. } | Split::Files { .. } => sizes,
            _ => Vec::new(),
        };
        let files = files.into_iter().enumerate();
        let files = files.map(|(number, size)| InputFile { path: format!("/{number}"), size, version: None });
        let plan = Plan::new(document, Manifest { files: files.collect(), ..Manifest::default() }).expect("a valid plan");
        for index in samples(plan.total(), &random) {
            let input = plan.input(index);
            let text = serde_json::to_string(&input).expect("an input is JSON");
            prop_assert_eq!(plan.input(index), input, "{}", text);
        }
    }
}

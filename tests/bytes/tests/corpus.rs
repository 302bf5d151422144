//! Replays the corpus of the fuzzer, and checks that large inputs take linear time.
//!
//! The corpus has an input for each path through a parser, and each input that once broke one.

#![expect(clippy::print_stderr, reason = "a failed test shows the last input")]

use std::fs;
use std::path::Path;

use longshore_bytes::TARGETS;

#[test]
fn no_input_of_the_corpus_breaks_a_parser() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus.join(name)).expect("a folder for each target") {
            let path = entry.expect("a readable entry").path();
            let bytes = fs::read(&path).expect("a readable input");
            eprintln!("{}", path.display());
            target(&bytes);
            inputs += 1;
        }
        assert!(inputs >= 2, "{name} has {inputs} inputs");
    }
}

/// Inputs that are too large for the corpus. They take no time unless a parser needs more than
/// linear time.
#[test]
fn large_inputs_take_linear_time() {
    const SIZE: usize = 256 << 10;
    let repeated = |text: &str| text.repeat(SIZE / text.len());
    let document = |split: &str| format!(r#"{{"task":"t","split":{split}}}"#);
    let members = |count: usize, value: &str| -> String {
        let member = |number| format!(r#""{number}":{value},"#);
        (0..count).map(member).collect::<String>().trim_end_matches(',').to_owned()
    };
    let inputs = [
        repeated("["),
        repeated("{\"a\":"),
        repeated("\\u0000"),
        repeated("9"),
        document(&format!(r#"{{"by":"items","items":[{}0]}}"#, repeated("0,"))),
        document(&format!(r#"{{"by":"grid","axes":{{{}}}}}"#, members(50_000, "[1]"))),
        document(&format!(r#"{{"by":"files","files":[{}"/a"]}}"#, repeated("\"/**/*\","))),
        document(&format!(r#"{{"by":"files","files":["{}"]}}"#, repeated("/**/*"))),
        format!(r#"{{"task":"t","labels":{{{}}}}}"#, members(50_000, "\"v\"")),
        format!(r#"{{"id":"{}"}}"#, repeated("0")),
        format!(r#"{{"ok":[{}0]}}"#, repeated("0,")),
        format!(r#"{{{}}}"#, members(50_000, "1")),
        format!("timeout = \"{}\"", repeated("1s ")),
        format!("redis+cluster://{}a", repeated("a,")),
        format!("*{}\r\n{}", SIZE / 4, repeated(":1\r\n")),
    ];
    for input in inputs {
        for (_, target) in TARGETS {
            target(input.as_bytes());
        }
    }
}

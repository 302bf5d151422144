//! Each bad document gets the exact words of an error that `bad_documents.txt` lists.

use longshore_protocol::JobDocument;
use longshore_protocol::document::MAX_DEPTH;

/// One line of the table with the line under it.
pub(crate) struct Row {
    /// The whole document.
    pub(crate) document: String,
    /// What the parser says.
    pub(crate) error: &'static str,
    /// Whether a JSON Schema can tell that it is bad.
    pub(crate) schema_can_tell: bool,
}

pub(crate) fn table() -> Vec<Row> {
    let text = include_str!("bad_documents.txt");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines = lines.collect::<Vec<_>>();
    lines.chunks(2).map(|pair| row(pair[0], pair[1])).collect()
}

fn row(given: &str, then: &'static str) -> Row {
    let (kind, part) = given.split_once(' ').expect("a kind and a part of a document");
    let document = match kind {
        "document" => part.to_owned(),
        "fields" => {
            format!(r#"{{"task":"t","split":{{"by":"range","start":0,"end":9}},{part}}}"#)
        }
        "split" => format!(r#"{{"task":"t","split":{{{part}}}}}"#),
        other => panic!("{other} is no kind of row"),
    };
    let (mark, error) = then.trim_start().split_once(' ').expect("a mark and an error");
    assert!(["->", "~>"].contains(&mark), "{then}");
    Row { document, error, schema_can_tell: mark == "->" }
}

#[track_caller]
fn refused(document: &[u8], expected: &str) {
    let shown = String::from_utf8_lossy(&document[..document.len().min(1000)]);
    match JobDocument::parse(document) {
        Ok(_) => panic!("accepted: {shown}"),
        Err(error) => assert_eq!(error.to_string(), expected, "{shown}"),
    }
}

#[test]
fn every_bad_document_gets_its_words() {
    let table = table();
    assert!(table.len() >= 70, "only {} rows", table.len());
    for row in table {
        refused(row.document.as_bytes(), row.error);
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_with_line_and_column() {
    refused(
        b"{\"task\":\n \"t\xff\"}",
        "document: not UTF-8 at line 2 column 4; write JSON in UTF-8",
    );
    refused(b"\xef\xbb\xbf{}", "document: starts with a byte order mark; write UTF-8 without one");
    refused(
        b"{\"task\":\n\"t\",}",
        "document: not JSON: key must be a string at line 2 column 5; write one JSON object",
    );
}

#[test]
fn nesting_is_refused_before_it_uses_up_the_stack() {
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(
            r#"{{"task":"t","split":{{"by":"range","start":0,"end":9}},"params":{open}{close}}}"#
        )
    };
    assert!(JobDocument::parse(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
    for levels in [MAX_DEPTH, 1 << 20] {
        let error = JobDocument::parse(nested(levels).as_bytes()).expect_err("too deep");
        // The column may be that of the bracket or the one after it, as the reader looks ahead.
        let found = "nested too deep at line 1 column 16";
        assert_eq!((error.place.as_str(), &error.found[..found.len()]), ("document", found));
        assert_eq!(error.allowed, "nest at most 100 levels");
    }
}

#[test]
fn long_values_are_cut_in_errors() {
    let long = "x".repeat(1 << 20);
    let document = format!(r#"{{"task":"t","split":{{"by":"{long}"}}}}"#);
    let error = JobDocument::parse(document.as_bytes()).expect_err("no such kind").to_string();
    assert!(error.len() < 200, "{error}");
    let document = format!(r#"{{"task":"t","split":{{"by":"grid","axes":{{"{long}":7}}}}}}"#);
    let error = JobDocument::parse(document.as_bytes()).expect_err("no such axis").to_string();
    assert!(error.len() < 200, "{error}");
}

#[test]
fn a_place_is_cut_where_it_grows_long() {
    let name = "n".repeat(60);
    let deep = format!(r#"{{"{name}":"#).repeat(50) + r#"{"a":1,"a":2}"# + &"}".repeat(50);
    let document = format!(r#"{{"task":"t","split":{{"by":"items","items":[{deep}]}}}}"#);
    let error = JobDocument::parse(document.as_bytes()).expect_err("a key stands twice");
    assert!(error.place.starts_with("split.items[0].nnn"), "{error}");
    assert!(error.place.len() < 500, "{} bytes", error.place.len());
    assert!(error.to_string().ends_with("the key `a` stands twice; write it once"), "{error}");
}

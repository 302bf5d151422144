//! The fuzz target of job documents: accepted ones survive encoding, refused ones get a place.

use longshore_protocol::{InputFile, JobDocument, Manifest, Plan};

/// The maximum length of an error: the place, the finding, and what is allowed.
const LONGEST_ERROR: usize = 1_000;

/// An accepted document survives its canonical form and has a plan; a refused one gets an error
/// with a place.
pub(crate) fn job_document(bytes: &[u8]) {
    let peeked = JobDocument::peek_id(bytes);
    let document = match JobDocument::parse(bytes) {
        Ok(document) => document,
        Err(error) => {
            assert!(!error.place.is_empty() && !error.allowed.is_empty(), "{error:?}");
            return super::is_readable(&error.to_string(), LONGEST_ERROR);
        }
    };
    assert_eq!(peeked, document.id);
    assert_eq!(document.validate(), Ok(()));
    let text = document.to_json();
    let again = JobDocument::parse(text.as_bytes()).expect("canonical JSON is valid");
    assert_eq!(again, document);
    assert_eq!(again.to_json(), text);
    assert_eq!(again.digest(), document.digest());
    ask(document);
}

/// Reads the first, the middle and the last input of the plan. Inputs are computed by a rule, so
/// large plans cost nothing.
fn ask(document: JobDocument) {
    let needs_files = Plan::new(document.clone(), Manifest::default()).is_err();
    let files = [("/a", 0), ("/b", 1), ("/c", u64::from(u32::MAX))];
    let files = files.map(|(path, size)| InputFile { path: path.into(), size, version: None });
    let manifest = if needs_files { Manifest::new(files.into()) } else { Manifest::default() };
    match Plan::new(document, manifest) {
        Ok(plan) => {
            for index in [0, plan.total() / 2, plan.total() - 1] {
                let input = serde_json::to_string(&plan.input(index));
                assert!(!input.expect("an input is JSON").contains('\n'));
            }
        }
        // Too many windows of one byte.
        Err(error) => super::is_readable(&error.to_string(), LONGEST_ERROR),
    }
}

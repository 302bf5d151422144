//! Rules about the repository's text that no compiler checks.
//!
//! A rule is a pure function of a file's path and text, which gives its complaints. Each rule has
//! a broken input beside it that it catches.

mod prose;
mod structure;

use std::fs;
use std::path::Path;

type Rule = fn(&str, &str) -> Vec<String>;

const RULES: [Rule; 13] = [
    structure::files_are_short,
    structure::lua_operations_have_headers,
    structure::lua_decides_by_predicates,
    structure::rust_decides_by_predicates,
    structure::clients_stay_in_their_crates,
    structure::memory_implementations_know_no_client,
    structure::the_engine_is_pure,
    structure::crates_depend_downwards,
    structure::nothing_belongs_to_one_machine,
    structure::lints_are_silenced_with_a_reason,
    prose::first_lines_are_sentences,
    prose::lines_are_narrow,
    prose::words_are_plain,
];

fn extension(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// All text files of the repository, as paths from its top and their texts.
fn files() -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent");
    let mut folders = vec![top.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
            if path.is_dir() {
                if ![".git", "target", "__pycache__"].contains(&name) {
                    folders.push(path);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(top).expect("below the top");
                files.push((path.to_str().expect("plain names").to_owned(), text));
            }
        }
    }
    files
}

#[test]
fn the_repository_is_tidy() {
    let files = files();
    for judged in ["Cargo.toml", "tests/tests/tidy/main.rs", "protocol/src/lib.rs"] {
        assert!(files.iter().any(|(path, _)| path == judged), "{judged} was not read");
    }
    let complaints: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| RULES.iter().flat_map(move |rule| rule(path, text)))
        .collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Exactly one rule complains, once, in these words.
#[track_caller]
fn caught(path: &str, text: &str, complaint: &str) {
    let complaints: Vec<String> = RULES.iter().flat_map(|rule| rule(path, text)).collect();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains(complaint), "{complaints:?}");
}

#[track_caller]
fn accepted(path: &str, text: &str) {
    let complaints: Vec<String> = RULES.iter().flat_map(|rule| rule(path, text)).collect();
    assert_eq!(complaints, Vec::<String>::new());
}

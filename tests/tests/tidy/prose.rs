//! Rules about text: first lines of files, widths of lines, words that the project does not use.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::extension;

/// The paths whose files hold to the rules of this module. The goal is the whole tree: `""`.
const CLEAN: &[&str] = &[""];

/// The limit of a line, in characters.
const WIDEST: usize = 100;

/// The limit of a cell of a Markdown table, whose row can't be broken.
const WIDEST_CELL: usize = 160;

const BANNED_PATH: &str = "tests/tests/tidy/banned_words.txt";

/// The banned words and phrases by their first word, with the words to use instead.
static BANNED: LazyLock<HashMap<String, Vec<Banned>>> =
    LazyLock::new(|| banned(include_str!("banned_words.txt")));

struct Banned {
    /// A phrase as its words, in lower case.
    words: Vec<String>,
    replacement: String,
}

fn banned(list: &str) -> HashMap<String, Vec<Banned>> {
    let mut banned: HashMap<String, Vec<Banned>> = HashMap::new();
    for entry in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (forms, replacement) = entry.split_once(": ").expect("`WORDS: REPLACEMENT`");
        for form in forms.split(", ") {
            let words: Vec<String> = words(form).map(|(_, word)| word).collect();
            let first = words.first().expect("a phrase has a word").clone();
            let replacement = replacement.to_owned();
            banned.entry(first).or_default().push(Banned { words, replacement });
        }
    }
    banned
}

fn is_clean(path: &str) -> bool {
    CLEAN.iter().any(|clean| path.starts_with(clean))
}

fn is_script(text: &str) -> bool {
    text.starts_with("#!")
}

fn is_comment(path: &str, line: &str) -> bool {
    let line = line.trim_start();
    match extension(path) {
        "rs" => line.starts_with("//"),
        "lua" => line.starts_with("--"),
        _ => line.starts_with('#'),
    }
}

/// The line that opens a file's documentation ends a sentence, so that it says by itself what is in
/// the file: `//!` in Rust, also below attributes, and `--[[` in Lua. Details go to a paragraph of
/// their own.
pub(crate) fn first_lines_are_sentences(path: &str, text: &str) -> Vec<String> {
    let mut lines = text.lines().enumerate();
    let first = match extension(path) {
        "rs" => lines.find(|(_, line)| line.starts_with("//!")),
        "lua" => lines.next().filter(|(_, line)| line.starts_with("--[[")),
        _ => None,
    };
    let Some((index, line)) = first else { return Vec::new() };
    if line.trim_end_matches([' ', ']']).ends_with(['.', ':']) {
        return Vec::new();
    }
    vec![format!("{path}:{}: ends no sentence; say in this line what is in the file", index + 1)]
}

/// Code, comments and prose have at most [`WIDEST`] characters a line.
///
/// Exceptions: a single word, such as a URL; code with a string literal, which the formatter leaves
/// alone; code blocks in Markdown; rows of tables, whose cells have a limit of their own.
pub(crate) fn lines_are_narrow(path: &str, text: &str) -> Vec<String> {
    let extension = extension(path);
    let judged = ["rs", "lua", "md", "py", "sh", "toml", "Dockerfile"].contains(&extension);
    if !is_clean(path) || !judged && !is_script(text) {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    let mut in_code_block = false;
    for (index, line) in text.lines().enumerate() {
        let width = line.chars().count();
        let bare = line.trim_start_matches(['/', '!', '#', '-', '*', '>', ' ']);
        in_code_block ^= bare.starts_with("```");
        if width <= WIDEST || !bare.contains(' ') {
            continue;
        }
        let place = format!("{path}:{}", index + 1);
        if bare.starts_with('|') {
            let widest = bare.split('|').map(|cell| cell.trim().chars().count()).max();
            let widest = widest.unwrap_or_default();
            if widest > WIDEST_CELL {
                complaints.push(format!(
                    "{place}: a cell of {widest} characters; at most {WIDEST_CELL}, so shorten it"
                ));
            }
            continue;
        }
        let is_code = extension != "md" && !is_comment(path, line);
        let is_literal = is_code && line.contains('"');
        let is_block = in_code_block || extension == "md" && line.starts_with("    ");
        if !is_literal && !is_block {
            complaints.push(format!("{place}: {width} characters; at most {WIDEST}, so break it"));
        }
    }
    complaints
}

/// The words of a text in lower case with the numbers of their lines. The parts of `CamelCase` and
/// `snake_case` names are words.
fn words(text: &str) -> impl Iterator<Item = (usize, String)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut before = ' ';
        let mut letters = line.chars().peekable();
        while let Some(letter) = letters.next() {
            let is_lower_next = letters.peek().is_some_and(|next| next.is_lowercase());
            let starts = letter.is_uppercase()
                && (before.is_lowercase() || before.is_uppercase() && is_lower_next);
            if starts || !letter.is_alphabetic() {
                words.push(std::mem::take(&mut word));
            }
            if letter.is_alphabetic() {
                word.extend(letter.to_lowercase());
            }
            before = letter;
        }
        words.push(word);
        words.into_iter().filter(|word| !word.is_empty()).map(move |word| (index + 1, word))
    })
}

/// Whether a line cites a name that is no longer in use: the change log has tables of such names.
fn is_citation(path: &str, line: &str) -> bool {
    path == "CHANGELOG.md" && line.starts_with('|')
}

/// No text has a word or phrase of `banned_words.txt`.
pub(crate) fn words_are_plain(path: &str, text: &str) -> Vec<String> {
    let judged = ["rs", "lua", "md", "toml", "json", "py", "sh", "yml", "Dockerfile"];
    let judged = judged.contains(&extension(path)) || is_script(text);
    if !is_clean(path) || path == BANNED_PATH || !judged {
        return Vec::new();
    }
    let lines: Vec<&str> = text.lines().collect();
    let words = words(text).filter(|(line, _)| !is_citation(path, lines[line - 1]));
    let words: Vec<(usize, String)> = words.collect();
    let mut complaints = Vec::new();
    for at in 0..words.len() {
        let found = BANNED.get(&words[at].1).into_iter().flatten().find(|banned| {
            let here = words[at..].iter().map(|(_, word)| word);
            here.take(banned.words.len()).eq(&banned.words)
        });
        if let Some(Banned { words: phrase, replacement }) = found {
            let (line, phrase) = (words[at].0, phrase.join(" "));
            complaints.push(format!("{path}:{line}: `{phrase}`; write instead: {replacement}"));
        }
    }
    complaints
}

#[cfg(test)]
mod proofs {
    use crate::{accepted, caught};

    #[test]
    fn first_lines_that_end_no_sentence_are_caught() {
        let complaint = "lib.rs:1: ends no sentence";
        caught("tests/src/lib.rs", "//! What is in the file, cut\n//! in two.\n", complaint);
        caught("tests/src/lib.rs", "//! No full stop\n", complaint);
        caught("fuzz/x.rs", "#![no_main]\n//! Cut\n//! in two.\n", "x.rs:2: ends no sentence");
        accepted("tests/src/lib.rs", "//! What is in the file.\n//! More of it,\n//! cut.\n");
        accepted("tests/src/lib.rs", "//! What is in the file:\n//! - this\n");
        accepted("tests/src/lib.rs", "use std::fs;\n\n/// A doc comment that\n/// is cut.\n");
        caught("ledger/lua/_x.lua", "--[[ _x: cut\n  in two. ]]\n", "_x.lua:1: ends no sentence");
        accepted("ledger/lua/_x.lua", "--[[ _x: a sentence.\n  Another one, ]]\n");
        accepted("ledger/lua/_x.lua", "--[[ _x: a sentence. ]]\n");
        accepted("ledger/lua/_x.lua", "local x = {}\n");
    }

    #[test]
    fn wide_lines_are_caught() {
        let words = "word ".repeat(21);
        let word = "x".repeat(101);
        caught("tests/src/lib.rs", &format!("// {words}"), "lib.rs:1: 108 characters; at most 100");
        caught("tests/src/lib.rs", &format!("fn f() {{\n    {words}"), "lib.rs:2: 109 characters");
        caught("tests/README.md", &words, "README.md:1");
        caught("tests/Cargo.toml", &format!("# {words}"), "Cargo.toml:1");
        caught("tests/run", &format!("#!/bin/sh\n# {words}"), "run:2");
        accepted("tests/src/lib.rs", &format!("// {}", "ä".repeat(97)));
        accepted("tests/src/lib.rs", &format!("//! A link:\n//! <https://{word}>"));
        accepted("tests/src/lib.rs", &format!("    check(\"{words}\");"));
        accepted("tests/README.md", &format!("```sh\n{words}\n```"));
        accepted("tests/README.md", &format!("    {words}"));
        caught("tests/README.md", &format!("```sh\n```\n{words}"), "README.md:3");
        accepted("tests/data.json", &words);
    }

    #[test]
    fn wide_cells_are_caught() {
        let row = |wide: usize| format!("| {} | x y |", "x".repeat(wide));
        accepted("tests/README.md", &row(160));
        caught("tests/README.md", &row(161), "a cell of 161 characters; at most 160");
        let table = format!("//! A table:\n//! {}", row(161));
        caught("tests/src/lib.rs", &table, "a cell of 161 characters");
    }

    #[test]
    fn banned_words_are_caught() {
        // Put together from halves, because this file is judged, too.
        let word = concat!("gra", "ve");
        let says = "write instead: recovery";
        caught("tests/src/lib.rs", &format!("\n// A {word}.\n"), "lib.rs:2: `");
        caught("tests/src/lib.rs", &format!("fn open_{word}() {{}}\n"), says);
        caught("tests/src/lib.rs", &format!("struct Open{}s;\n", concat!("Gra", "ve")), says);
        caught("tests/src/lib.rs", &format!("const X{}: u8 = 1;\n", concat!("_GRA", "VE")), says);
        caught("tests/x.json", &format!("{{\"{word}\": 1}}\n"), says);
        caught("tests/x.lua", &format!("local {word}\n"), says);
        caught("tests/run", &format!("#!/bin/sh\n{word}\n"), says);
        accepted("tests/src/lib.rs", &format!("// {word}l and en{word}\n"));
        caught("CHANGELOG.md", &format!("- A {word}\n"), "CHANGELOG.md:1: `");
        accepted("CHANGELOG.md", &format!("| field `{word}` | field `recovery` |\n"));
        caught("README.md", &format!("| {word} |\n"), "README.md:1: `");
    }

    #[test]
    fn banned_phrases_are_caught_across_lines() {
        let (first, second) = (concat!("s", "o"), "many");
        let found = format!("lib.rs:1: `{first} {second}`");
        caught("tests/src/lib.rs", &format!("// {first}\n// {second}\n"), &found);
        caught("tests/src/lib.rs", &format!("fn {first}_{second}() {{}}\n"), "name the limit");
        accepted("tests/src/lib.rs", &format!("// {second} {first}\n"));
    }
}

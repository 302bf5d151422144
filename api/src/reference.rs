//! Makes the reference page from the OpenAPI document: what each operation takes and answers.
//!
//! Deliberately absent: the fields of the types, which the document's schemas have, and examples,
//! which are in `docs/http.md`.

use std::fmt::Write as _;

use serde_json::Value;

use crate::openapi::document;

/// The widest line.
const WIDTH: usize = 100;

/// The page in Markdown, kept as `docs/http-reference.md`.
pub fn page() -> String {
    let document: Value = serde_json::from_str(document()).expect("the document is JSON");
    let mut page = String::from(HEAD);
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let _ = write!(page, "\n## {} {path}\n\n", method.to_ascii_uppercase());
            describe(&mut page, operation);
        }
    }
    page
}

const HEAD: &str = "# The endpoints of the HTTP API

Written by the test `description` from [openapi.json](openapi.json), which has the schemas of the
types that are named here. [http.md](http.md) has examples, and explains roles, pages, streams and
problems. Every endpoint answers problems as `application/problem+json`.
";

fn describe(page: &mut String, operation: &Value) {
    let text = |name: &str| operation[name].as_str().unwrap_or_default();
    let access = match text("x-longshore-role") {
        "" => "Needs no token.".to_owned(),
        _ => text("description").to_owned(),
    };
    paragraph(page, "", &format!("{}. {access}", text("summary")));
    page.push('\n');
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let part = |name: &str| parameter[name].as_str().unwrap_or_default();
        let (name, place, says) = (part("name"), part("in"), part("description"));
        let kind = kind(&parameter["schema"]);
        paragraph(page, "- ", &format!("`{name}` ({place}, {kind}): {says}."));
    }
    if let Some(body) = operation["requestBody"]["content"].as_object() {
        let kinds = contents(body.iter());
        let is_required = operation["requestBody"]["required"] == true;
        let may = if is_required { "" } else { ", may be left out" };
        paragraph(page, "- ", &format!("Body{may}: {kinds}."));
    }
    let mut problems = Vec::new();
    for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
        let Some(says) = answer["description"].as_str() else {
            problems.push(status.as_str());
            continue;
        };
        let content = answer["content"].as_object();
        let kinds = content.map(|content| format!(": {}", contents(content.iter())));
        let kinds = kinds.unwrap_or_default();
        paragraph(page, "- ", &format!("{status}, {says}{kinds}."));
    }
    paragraph(page, "- ", &format!("Problems: {}.", problems.join(", ")));
}

/// Content types with the types of their values.
fn contents<'a>(content: impl Iterator<Item = (&'a String, &'a Value)>) -> String {
    let one = |(kind, value): (&String, &Value)| format!("{} as `{kind}`", kind_of(value));
    content.map(one).collect::<Vec<_>>().join(", or ")
}

fn kind_of(content: &Value) -> String {
    kind(&content["schema"])
}

/// What a schema is called.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return format!("`{}`", reference.rsplit('/').next().unwrap_or_default());
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", kind(&schema["items"])),
        Some(name) => match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
            (Some(least), Some(most)) if most < u64::MAX => format!("{name} {least} to {most}"),
            _ => name.to_owned(),
        },
        None => "any JSON".to_owned(),
    }
}

/// Appends a paragraph or an item of a list, wrapped.
fn paragraph(page: &mut String, mark: &str, text: &str) {
    let indent = " ".repeat(mark.len());
    let mut line = mark.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            page.push_str(&line);
            page.push('\n');
            line.clone_from(&indent);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    page.push_str(&line);
    page.push('\n');
}

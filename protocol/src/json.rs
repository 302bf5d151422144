//! The application's own JSON, kept as text and put into canonical form, and lists of it.
//!
//! The text is given back as it was written, with numbers of any length, and takes as many bytes of
//! memory as it is long.
//!
//! A text in canonical form has no white space, the keys of objects sorted, strings
//! escaped where they have to be, numbers as they were written. `1`, `1.0` and `1e0` are three
//! texts.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::Invalid;
use crate::document::MAX_DEPTH;
use crate::document::field_path::FieldPath;

/// Any JSON. Cheap to clone.
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

/// A list of JSON values: one text, and the end of each value in it. Cheap to clone.
#[derive(Clone)]
pub struct Items {
    /// The text of the whole list.
    all: Arc<RawValue>,
    /// The end of each value in the text. No document is longer than 32 bits can count.
    ends: Arc<[u32]>,
}

impl Json {
    /// `null`.
    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned().into())
    }

    /// Reads a text into canonical form; the error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        check(text).map_err(|why| FieldPath::Root.invalid(why, "write one JSON value"))?;
        Self::canonical(text, FieldPath::Root)
    }

    /// Keeps a text as it is, without the white space around it: keys in any order, and also twice.
    /// The error says what is wrong with the text.
    pub fn verbatim(text: &str) -> Result<Self, String> {
        check(text)?;
        Ok(Self(raw(text.trim_ascii().to_owned())))
    }

    /// A Rust value as serde writes it.
    pub fn of(value: &impl Serialize) -> Result<Self, Invalid> {
        let text = serde_json::to_string(value)
            .map_err(|error| FieldPath::Root.invalid(error.to_string(), "use what JSON can say"))?;
        // A raw value may have white space, and keys in another order.
        Self::canonical(&text, FieldPath::Root)
    }

    /// Makes a value of a text that is known to be JSON.
    pub(crate) fn canonical(text: &str, place: FieldPath<'_>) -> Result<Self, Invalid> {
        let mut out = String::with_capacity(text.len());
        Scanner::new(text).canonical(&mut out, place)?;
        Ok(Self(raw(out)))
    }

    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// The value as a Rust type. Numbers beyond 64 bits depend on the type: a `serde_json::Value`
    /// rounds them; `u128`, `i128` and `Box<RawValue>` don't.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.get())
    }

    /// The text of the value at a JSON pointer (RFC 6901), if there is one.
    pub fn pointer(&self, pointer: &str) -> Option<&str> {
        let mut text = self.get();
        let Some(names) = pointer.strip_prefix('/') else {
            return pointer.is_empty().then_some(text);
        };
        for name in names.split('/') {
            let name = name.replace("~1", "/").replace("~0", "~");
            text = match text.as_bytes().first()? {
                b'{' => members(text).find(|(key, _)| *key == name)?.1,
                b'[' if name == "0" || !name.starts_with(['0', '+']) => {
                    elements(text).nth(name.parse().ok()?)?
                }
                _ => return None,
            };
        }
        Some(text)
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::null()
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self::of(&value).expect("a tree is JSON, and has each key once")
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Json {}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Items {
    /// Makes a list of a text that is known to be a JSON list.
    pub(crate) fn canonical(text: &str, place: FieldPath<'_>) -> Result<Self, Invalid> {
        let mut out = String::with_capacity(text.len());
        let mut ends = Vec::new();
        for (index, element) in elements(text).enumerate() {
            out.push(if index == 0 { '[' } else { ',' });
            Scanner::new(element).canonical(&mut out, place.index(index))?;
            ends.push(end(&out));
        }
        Ok(Self::closed(out, ends))
    }

    fn closed(mut out: String, ends: Vec<u32>) -> Self {
        if ends.is_empty() {
            out.push('[');
        }
        out.push(']');
        Self { all: raw(out), ends: ends.into() }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The text of the value at this index. Panics past the end.
    pub fn get(&self, index: usize) -> &str {
        // After the bracket or the comma.
        let from = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize) + 1;
        &self.all.get()[from..self.ends[index] as usize]
    }

    /// The value at this index. Panics past the end.
    pub fn json(&self, index: usize) -> Json {
        Json(raw(self.get(index).to_owned()))
    }

    /// The texts of all values.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The whole list as one text.
    pub fn text(&self) -> &str {
        self.all.get()
    }

    /// The bytes of memory that the list takes.
    pub fn weight(&self) -> usize {
        self.text().len() + size_of_val(&*self.ends)
    }
}

impl FromIterator<Json> for Items {
    fn from_iter<T: IntoIterator<Item = Json>>(values: T) -> Self {
        let (mut out, mut ends) = (String::new(), Vec::new());
        for value in values {
            out.push(if ends.is_empty() { '[' } else { ',' });
            out.push_str(value.get());
            ends.push(end(&out));
        }
        Self::closed(out, ends)
    }
}

impl From<Vec<Value>> for Items {
    fn from(values: Vec<Value>) -> Self {
        values.into_iter().map(Json::from).collect()
    }
}

impl PartialEq for Items {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Serialize for Items {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.all.serialize(serializer)
    }
}

/// A list that is built in Rust may be longer than any document, and is refused then.
fn end(out: &str) -> u32 {
    u32::try_from(out.len()).expect("a list of less than 4 GiB")
}

fn raw(text: String) -> Arc<RawValue> {
    RawValue::from_string(text).expect("it was checked").into()
}

/// Checks that a text is JSON that every program can read: no more than [`MAX_DEPTH`] levels deep,
/// and without half a surrogate pair in a string. Numbers may have any length.
pub fn check(text: &str) -> Result<(), String> {
    serde_json::from_str::<&RawValue>(text).map_err(|error| format!("not JSON: {error}"))?;
    let scanner = Scanner::new(text);
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => {
                let end = scanner.string_end(at);
                let string = &text[at..end];
                if string.contains("\\u") {
                    serde_json::from_str::<String>(string).map_err(|error| {
                        let error = error.to_string();
                        let why = error.split(" at line ").next().unwrap_or_default();
                        format!("not JSON: {why}{}", whereabouts(text, at))
                    })?;
                }
                at = end;
                continue;
            }
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(format!("{TOO_DEEP}{}", whereabouts(text, at)));
                }
            }
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

pub(crate) const TOO_DEEP: &str = "nested too deep";

fn whereabouts(text: &str, at: usize) -> String {
    let before = &text.as_bytes()[..at];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    format!(" at line {line} column {column}")
}

/// The depth to which lists and objects are nested in a text that is JSON.
pub(crate) fn depth(text: &str) -> usize {
    let scanner = Scanner::new(text);
    let (mut depth, mut deepest, mut at) = (0_usize, 0, 0);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => {
                at = scanner.string_end(at);
                continue;
            }
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// The texts of a list's values.
pub(crate) fn elements(list: &str) -> impl Iterator<Item = &str> {
    let mut scanner = Scanner { text: list, at: 1 };
    std::iter::from_fn(move || {
        scanner.next_in(b']')?;
        Some(scanner.value())
    })
}

/// The names of an object, unescaped, and the texts of its values.
pub(crate) fn members(object: &str) -> impl Iterator<Item = (String, &str)> {
    let mut scanner = Scanner { text: object, at: 1 };
    std::iter::from_fn(move || {
        scanner.next_in(b'}')?;
        let name = unescaped(scanner.value());
        scanner.next_in(b'}')?;
        Some((name, scanner.value()))
    })
}

/// The text of a JSON string.
pub(crate) fn unescaped(string: &str) -> String {
    if string.contains('\\') {
        serde_json::from_str(string).expect("it was checked")
    } else {
        string[1..string.len() - 1].to_owned()
    }
}

/// A cursor over a text that is JSON.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> u8 {
        self.text.as_bytes()[self.at]
    }

    /// Moves to the next value of the list or object that `end` closes; `None` if there is none.
    fn next_in(&mut self, end: u8) -> Option<()> {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r' | b',' | b':') {
            self.at += 1;
        }
        (self.peek() != end).then_some(())
    }

    /// The position after the string that begins at `from`.
    fn string_end(&self, from: usize) -> usize {
        let bytes = self.text.as_bytes();
        let mut at = from + 1;
        loop {
            match bytes[at] {
                b'"' => return at + 1,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
    }

    /// Skips the value that begins here.
    fn value(&mut self) -> &'a str {
        let (bytes, from) = (self.text.as_bytes(), self.at);
        let mut depth = 0_usize;
        loop {
            match bytes.get(self.at) {
                Some(b'"') => self.at = self.string_end(self.at),
                Some(b'[' | b'{') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b']' | b'}') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' | b']' | b'}') | None => {
                    if depth == 0 {
                        break;
                    }
                    self.at += 1;
                }
                Some(_) => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                break;
            }
        }
        &self.text[from..self.at]
    }

    /// Writes the value that begins here in canonical form. Refuses a key that appears twice,
    /// because one of its values would be lost.
    fn canonical(&mut self, out: &mut String, place: FieldPath<'_>) -> Result<(), Invalid> {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        match self.peek() {
            b'{' => self.canonical_object(out, place),
            b'[' => {
                self.at += 1;
                out.push('[');
                let mut index = 0;
                while self.next_in(b']').is_some() {
                    if index > 0 {
                        out.push(',');
                    }
                    self.canonical(out, place.index(index))?;
                    index += 1;
                }
                self.at += 1;
                out.push(']');
                Ok(())
            }
            b'"' => {
                let string = self.value();
                if string.contains('\\') {
                    write_string(out, &unescaped(string));
                } else {
                    out.push_str(string);
                }
                Ok(())
            }
            _ => {
                let plain = self.value();
                out.push_str(plain);
                Ok(())
            }
        }
    }

    fn canonical_object(&mut self, out: &mut String, place: FieldPath<'_>) -> Result<(), Invalid> {
        self.at += 1;
        out.push('{');
        let begun = out.len();
        let mut members = Vec::new();
        while self.next_in(b'}').is_some() {
            if !members.is_empty() {
                out.push(',');
            }
            let from = out.len();
            let key = unescaped(self.value());
            write_string(out, &key);
            out.push(':');
            self.next_in(b'}');
            self.canonical(out, place.field(&key))?;
            members.push((key, from - begun..out.len() - begun));
        }
        self.at += 1;
        if !members.is_sorted_by(|one, next| one.0 < next.0) {
            members.sort_by(|one, other| one.0.cmp(&other.0));
            if let Some(pair) = members.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(place.twice("key", &pair[0].0));
            }
            let text = out.split_off(begun);
            for (number, (_, range)) in members.into_iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                out.push_str(&text[range]);
            }
        }
        out.push('}');
        Ok(())
    }
}

pub(crate) fn write_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).expect("a string can be written"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(text: &str, canonical: &str) {
        let json = Json::parse(text).unwrap();
        assert_eq!(json.get(), canonical);
        assert_eq!(Json::parse(canonical).unwrap(), json);
    }

    #[test]
    fn white_space_order_and_escapes_are_one_and_numbers_as_written() {
        reads(
            " [ 1 , 1.0,1e0, -0 , 1E+400 ,12345678901234567890123 ] ",
            "[1,1.0,1e0,-0,1E+400,12345678901234567890123]",
        );
        reads(r#"{"b" : {"z":1,"a":[ ]} ,"a":{ }}"#, r#"{"a":{},"b":{"a":[],"z":1}}"#);
        reads(r#""\u0061\/\u00e9\n\"" "#, r#""a/é\n\"""#);
        reads(r#"{"a]}":"[{\"","\\":null}"#, r#"{"\\":null,"a]}":"[{\""}"#);
        reads("true", "true");
    }

    #[test]
    fn what_others_could_not_read_is_refused() {
        for (text, why) in [
            ("", "not JSON: EOF while parsing a value at line 1 column 0"),
            ("NaN", "not JSON: expected value at line 1 column 1"),
            ("[1, 2", "not JSON: EOF while parsing a list at line 1 column 5"),
            (r#"["\ud800"]"#, "not JSON: unexpected end of hex escape at line 1 column 2"),
            (&"[".repeat(101), "not JSON: EOF while parsing a list at line 1 column 101"),
            (&("[".repeat(101) + &"]".repeat(101)), "nested too deep at line 1 column 101"),
        ] {
            assert_eq!(check(text), Err(why.to_owned()), "{text:.20}");
        }
    }

    #[test]
    fn items_are_found_in_their_text() {
        let items: Items =
            Items::canonical(r#" [1.50, "a,]\"" ,[ 2, {"b":1,"a":2}],{}]"#.trim(), FieldPath::Root)
                .unwrap();
        assert_eq!(
            items.iter().collect::<Vec<_>>(),
            ["1.50", r#""a,]\"""#, r#"[2,{"a":2,"b":1}]"#, "{}"]
        );
        assert_eq!(items.text(), r#"[1.50,"a,]\"",[2,{"a":2,"b":1}],{}]"#);
        let again: Items = (0..4).map(|index| items.json(index)).collect();
        assert_eq!(again, items);
        let none: Items = Items::canonical("[ ]", FieldPath::Root).unwrap();
        assert!(none.is_empty() && none.text() == "[]");
    }

    #[test]
    fn a_pointer_finds_the_text_of_a_value() {
        let json = Json::parse(r#"{"a/b":{"~":[0,{"":123456789012345678901234567890}]}}"#).unwrap();
        assert_eq!(json.pointer("/a~1b/~0/1/"), Some("123456789012345678901234567890"));
        assert_eq!(json.pointer(""), Some(json.get()));
        for none in ["/a", "/a~1b/~0/2", "/a~1b/~0/01", "/a~1b/~0/0/x", "x"] {
            assert_eq!(json.pointer(none), None, "{none}");
        }
    }
}

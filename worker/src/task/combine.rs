//! The built-in reduce tasks `sum`, `merge_counts` and `concat`, as functions of their inputs.

use std::collections::BTreeMap;

use async_trait::async_trait;
use longshore_protocol::{Input, Json, Outcome};
use serde_json::Value;
use serde_json::value::RawValue;

use super::threads::run_one_on_a_thread;
use super::{Handler, permanent};
use crate::Context;

/// A reduce task: a function of the JSON of all inputs that gives JSON. Its error names the wrong
/// input.
pub(super) struct Combine(pub(super) fn(&[Json]) -> Result<String, String>);

#[async_trait]
impl Handler for Combine {
    async fn run(&self, _ctx: Context, input: Input) -> Outcome {
        let inputs = match input {
            Input::Combine { inputs } => Ok(inputs),
            Input::Item(item) => item.read::<Vec<Box<RawValue>>>().map_or(Err(item), |inputs| {
                Ok(inputs
                    .into_iter()
                    .map(|input| Json::of(&input).expect("a part of JSON"))
                    .collect())
            }),
            other => Err(Json::of(&other).unwrap_or_default()),
        };
        let inputs = match inputs {
            Ok(inputs) => inputs,
            Err(found) => {
                return permanent(format!(
                    "this task combines results: name it in `reduce`, or give it a list, not {}",
                    shorten(found.get())
                ));
            }
        };
        let combine = self.0;
        run_one_on_a_thread(move || match combine(&inputs) {
            Ok(json) => Outcome::Success(json),
            Err(error) => permanent(error),
        })
        .await
    }
}

/// Adds numbers. Whole numbers are added exactly, those beyond 64 bits too; one that is not written
/// as a whole number makes the sum a floating-point number.
pub(super) fn sum(inputs: &[Json]) -> Result<String, String> {
    let mut total = Total::default();
    for (place, input) in inputs.iter().enumerate() {
        if kind(input.get()) != "a number" {
            let found = kind(input.get());
            return Err(format!("sum: inputs[{place}] is {found}, not a number"));
        }
        total.add(input.get()).map_err(|why| format!("sum: inputs[{place}] {why}"))?;
    }
    total.finish().map_err(|why| format!("sum: the result {why}"))
}

/// Adds up objects of numbers by key.
pub(super) fn merge_counts(inputs: &[Json]) -> Result<String, String> {
    let mut totals: BTreeMap<String, Total> = BTreeMap::new();
    for (place, input) in inputs.iter().enumerate() {
        let counts: BTreeMap<String, Box<RawValue>> = input.read().map_err(|_| {
            let found = kind(input.get());
            format!("merge_counts: inputs[{place}] is {found}, not an object")
        })?;
        for (key, value) in counts {
            let found = kind(value.get());
            if found != "a number" {
                return Err(format!(
                    "merge_counts: inputs[{place}].{key} is {found}, not a number"
                ));
            }
            let wrong = |why| format!("merge_counts: inputs[{place}].{key} {why}");
            totals.entry(key.clone()).or_default().add(value.get()).map_err(wrong)?;
        }
    }
    let mut merged = Vec::with_capacity(totals.len());
    for (key, total) in totals {
        let number =
            total.finish().map_err(|why| format!("merge_counts: the count of {key} {why}"))?;
        merged.push(format!("{}:{number}", Value::from(key)));
    }
    Ok(format!("{{{}}}", merged.join(",")))
}

/// Joins lists to one list, or strings to one string.
pub(super) fn concat(inputs: &[Json]) -> Result<String, String> {
    let mut expected = None;
    let mut parts = Vec::with_capacity(inputs.len());
    for (place, input) in inputs.iter().enumerate() {
        let found = kind(input.get());
        let is_joined = ["a list", "a string"].contains(&found);
        if !is_joined || expected.is_some_and(|expected| expected != found) {
            let expected = expected.unwrap_or("a list or a string");
            return Err(format!("concat: inputs[{place}] is {found}, not {expected}"));
        }
        expected = Some(found);
        // JSON is compact: joined is the text between the brackets or the quotes.
        let inner = &input.get()[1..input.get().len() - 1];
        if found == "a string" || !inner.is_empty() {
            parts.push(inner);
        }
    }
    Ok(match expected {
        Some("a string") => format!("\"{}\"", parts.concat()),
        _ => format!("[{}]", parts.join(",")),
    })
}

/// Floating-point numbers hold all whole numbers up to this one exactly.
const EXACT: u128 = 1 << 53;

/// A sum that is exact, or refused.
#[derive(Default)]
struct Total {
    whole: i128,
    fraction: Option<f64>,
}

impl Total {
    fn add(&mut self, number: &str) -> Result<(), String> {
        let is_whole = !number.contains(['.', 'e', 'E']);
        if is_whole {
            let sum = number.parse().ok().and_then(|number| self.whole.checked_add(number));
            self.whole =
                sum.ok_or("leads out of the range of 128 bits, in which sums are exact")?;
            return Ok(());
        }
        let number: f64 = number.parse().unwrap_or(f64::INFINITY);
        let sum = self.fraction.unwrap_or_default() + number;
        if !sum.is_finite() {
            return Err("leads out of the range of floating-point numbers".into());
        }
        self.fraction = Some(sum);
        Ok(())
    }

    fn finish(self) -> Result<String, String> {
        match self.fraction {
            Some(_) if self.whole.unsigned_abs() > EXACT => Err(format!(
                "adds fractions to {}, which a floating-point number can't hold exactly",
                self.whole
            )),
            #[expect(clippy::cast_precision_loss, reason = "it is small enough to be exact")]
            Some(fraction) => Ok(Value::from(fraction + self.whole as f64).to_string()),
            None => Ok(self.whole.to_string()),
        }
    }
}

fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'n') | None => "null",
        Some(b't' | b'f') => "a boolean",
        Some(b'"') => "a string",
        Some(b'[') => "a list",
        Some(b'{') => "an object",
        Some(_) => "a number",
    }
}

fn shorten(text: &str) -> String {
    let cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Task = fn(&[Json]) -> Result<String, String>;

    #[track_caller]
    fn combines(task: Task, inputs: Value, expected: Result<Value, &str>) {
        let Value::Array(inputs) = inputs else { panic!("a list") };
        let inputs: Vec<Json> = inputs.into_iter().map(Json::from).collect();
        let expected = expected.map(|value| value.to_string());
        assert_eq!(task(&inputs), expected.map_err(str::to_owned));
    }

    #[track_caller]
    fn adds(task: Task, inputs: &[&str], expected: Result<&str, &str>) {
        let inputs: Vec<Json> =
            inputs.iter().map(|input| Json::parse(input).expect("JSON")).collect();
        assert_eq!(task(&inputs), expected.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn large_numbers_are_added_exactly_or_refused() {
        adds(sum, &["12345678901234567890123", "1"], Ok("12345678901234567890124"));
        adds(sum, &["18446744073709551615", "1"], Ok("18446744073709551616"));
        let most = i128::MAX.to_string();
        let out = "leads out of the range of 128 bits, in which sums are exact";
        adds(sum, &[&most, "1"], Err(&format!("sum: inputs[1] {out}")));
        adds(sum, &["1", &"9".repeat(50)], Err(&format!("sum: inputs[1] {out}")));
        let out = "leads out of the range of floating-point numbers";
        adds(sum, &["1e400"], Err(&format!("sum: inputs[0] {out}")));
        let inexact = "sum: the result adds fractions to 9007199254740993, which a floating-point \
                       number can't hold exactly";
        adds(sum, &["9007199254740993", "0.5"], Err(inexact));
        adds(
            merge_counts,
            &[r#"{"a":98765432109876543210,"b":1}"#, r#"{"a":1}"#],
            Ok(r#"{"a":98765432109876543211,"b":1}"#),
        );
        adds(
            concat,
            &["[1.50,12345678901234567890123]", "[1e2]"],
            Ok("[1.50,12345678901234567890123,1e2]"),
        );
        adds(concat, &[r#""a\"""#, r#""é\n""#], Ok(r#""a\"é\n""#));
    }

    #[test]
    fn whole_numbers_are_summed_exactly() {
        combines(sum, json!([1, -2, 4]), Ok(json!(3)));
        combines(sum, json!([9_007_199_254_740_993_u64, 0]), Ok(json!(9_007_199_254_740_993_u64)));
        combines(sum, json!([u64::MAX, -1, 1]), Ok(json!(u64::MAX)));
        combines(sum, json!([1, 0.5]), Ok(json!(1.5)));
        combines(sum, json!([1, "2"]), Err("sum: inputs[1] is a string, not a number"));
    }

    #[test]
    fn counts_are_added_by_key() {
        combines(
            merge_counts,
            json!([{"a": 1, "b": 2}, {}, {"b": 3, "c": 4}]),
            Ok(json!({"a": 1, "b": 5, "c": 4})),
        );
        combines(
            merge_counts,
            json!([{"a": 1}, null]),
            Err("merge_counts: inputs[1] is null, not an object"),
        );
        combines(
            merge_counts,
            json!([{"a": []}]),
            Err("merge_counts: inputs[0].a is a list, not a number"),
        );
    }

    #[test]
    fn lists_and_strings_are_joined_but_not_mixed() {
        combines(concat, json!([[1], [], [2, 3]]), Ok(json!([1, 2, 3])));
        combines(concat, json!(["a", "b"]), Ok(json!("ab")));
        combines(concat, json!([["a"], "b"]), Err("concat: inputs[1] is a string, not a list"));
        combines(concat, json!([1]), Err("concat: inputs[0] is a number, not a list or a string"));
    }
}

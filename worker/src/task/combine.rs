//! The built-in reduce tasks: pure functions over the results that they combine.

use std::collections::BTreeMap;

use async_trait::async_trait;
use longshore_protocol::{Input, Outcome};
use serde_json::{Map, Number, Value};

use super::threads::on_a_thread;
use super::{Handler, permanent};
use crate::Context;

/// A function over all inputs; its error says which input is wrong.
pub(super) struct Combine(pub(super) fn(Vec<Value>) -> Result<Value, String>);

#[async_trait]
impl Handler for Combine {
    async fn run(&self, _ctx: Context, input: Input) -> Outcome {
        let inputs = match input {
            Input::Combine { inputs } | Input::Item(Value::Array(inputs)) => inputs,
            other => {
                let found = serde_json::to_string(&other).unwrap_or_default();
                return permanent(format!(
                    "this task combines results: name it in `reduce`, or give it a list, not {}",
                    shorten(&found)
                ));
            }
        };
        let combine = self.0;
        on_a_thread(move || match combine(inputs) {
            Ok(value) => Outcome::Success(value.to_string()),
            Err(error) => permanent(error),
        })
        .await
    }
}

/// Adds numbers. Whole numbers are added exactly and must fit 64 bits in the end; one that is not
/// whole makes the sum a floating-point number.
pub(super) fn sum(inputs: Vec<Value>) -> Result<Value, String> {
    let mut total = Total::default();
    for (place, input) in inputs.into_iter().enumerate() {
        let Value::Number(number) = &input else {
            return Err(format!("sum: inputs[{place}] is {}, not a number", kind(&input)));
        };
        total.add(number);
    }
    total.finish().map(Value::Number).ok_or_else(|| format!("sum: the result {OUT_OF_RANGE}"))
}

/// Adds up objects of numbers by key.
pub(super) fn merge_counts(inputs: Vec<Value>) -> Result<Value, String> {
    let mut totals: BTreeMap<String, Total> = BTreeMap::new();
    for (place, input) in inputs.into_iter().enumerate() {
        let Value::Object(counts) = input else {
            let found = kind(&input);
            return Err(format!("merge_counts: inputs[{place}] is {found}, not an object"));
        };
        for (key, value) in counts {
            let Value::Number(number) = &value else {
                let found = kind(&value);
                return Err(format!(
                    "merge_counts: inputs[{place}].{key} is {found}, not a number"
                ));
            };
            totals.entry(key).or_default().add(number);
        }
    }
    let mut merged = Map::new();
    for (key, total) in totals {
        let number = total
            .finish()
            .ok_or_else(|| format!("merge_counts: the count of {key} {OUT_OF_RANGE}"))?;
        merged.insert(key, Value::Number(number));
    }
    Ok(Value::Object(merged))
}

/// Joins lists to one list, or strings to one string.
pub(super) fn concat(inputs: Vec<Value>) -> Result<Value, String> {
    let mut all = None;
    for (place, input) in inputs.into_iter().enumerate() {
        match (&mut all, input) {
            (None, input @ (Value::Array(_) | Value::String(_))) => all = Some(input),
            (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
            (Some(Value::String(text)), Value::String(more)) => text.push_str(&more),
            (before, input) => {
                let expected = before.as_ref().map_or("a list or a string", kind);
                let found = kind(&input);
                return Err(format!("concat: inputs[{place}] is {found}, not {expected}"));
            }
        }
    }
    Ok(all.unwrap_or_else(|| Value::Array(Vec::new())))
}

const OUT_OF_RANGE: &str = "is out of the range of 64 bits";

/// A sum that stays exact as long as it can.
#[derive(Default)]
struct Total {
    /// 2^63 inputs of 64 bits each would be needed to overflow this.
    whole: i128,
    fraction: Option<f64>,
}

impl Total {
    fn add(&mut self, number: &Number) {
        if let Some(number) = number.as_i128() {
            self.whole += number;
        } else {
            *self.fraction.get_or_insert(0.0) += number.as_f64().unwrap_or(f64::NAN);
        }
    }

    fn finish(self) -> Option<Number> {
        match self.fraction {
            #[expect(clippy::cast_precision_loss, reason = "a sum with fractions is a float")]
            Some(fraction) => Number::from_f64(fraction + self.whole as f64),
            None => Number::from_i128(self.whole),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
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

    type Task = fn(Vec<Value>) -> Result<Value, String>;

    #[track_caller]
    fn combines(task: Task, inputs: Value, expected: Result<Value, &str>) {
        let Value::Array(inputs) = inputs else { panic!("a list") };
        assert_eq!(task(inputs), expected.map_err(str::to_owned));
    }

    #[test]
    fn whole_numbers_are_summed_exactly() {
        combines(sum, json!([1, -2, 4]), Ok(json!(3)));
        combines(sum, json!([9_007_199_254_740_993_u64, 0]), Ok(json!(9_007_199_254_740_993_u64)));
        combines(sum, json!([u64::MAX, -1, 1]), Ok(json!(u64::MAX)));
        combines(sum, json!([u64::MAX, 1]), Err("sum: the result is out of the range of 64 bits"));
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

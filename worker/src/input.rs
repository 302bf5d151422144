//! Resolves the input of a subtask (its part of the split) or of a reduce node (results).

use std::borrow::Cow;
use std::ops::Range;

use longshore_ledger::{Error, Ledger, ResultsParams};
use longshore_protocol::{Input, JobId, Json, Outcome, Plan, ResultBody};

use crate::result_store::ResultStore;

/// Results are fetched in pages of about this many bytes.
const PAGE_BYTES: u64 = 1 << 20;

/// Why there is no input.
#[derive(Debug)]
pub(crate) enum NoInput {
    /// Not the subtask's fault: it is released and runs later.
    NotNow(String),
    /// The ledger can't be reached; the caller tries again.
    Away,
    /// The subtask can't run; this is its outcome.
    Failed(Outcome),
}

/// The input of subtask or reduce node `index`.
pub(crate) async fn resolve(
    ledger: &dyn Ledger,
    store: &dyn ResultStore,
    job: JobId,
    plan: &Plan,
    index: u64,
) -> Result<Input, NoInput> {
    if index < plan.total() {
        return Ok(plan.input(index));
    }
    let node = plan.reduce_tree().and_then(|tree| tree.node(index));
    let Some(node) = node else {
        let error = format!("the job has no subtask and no reduce node {index}");
        return Err(NoInput::Failed(Outcome::Failure { error, retry: false }));
    };
    Ok(Input::Combine { inputs: results(ledger, store, job, node.children).await? })
}

/// The results of all `children`, in order.
async fn results(
    ledger: &dyn Ledger,
    store: &dyn ResultStore,
    job: JobId,
    children: Range<u64>,
) -> Result<Vec<Json>, NoInput> {
    let count = usize::try_from(children.end - children.start).expect("a fan-in fits memory");
    let mut found: Vec<Option<Json>> = vec![None; count];
    let mut next = children.start;
    while next < children.end {
        let page = ledger.results(job, &ResultsParams::new(next..children.end, PAGE_BYTES)).await;
        let page = page.map_err(|error| match error {
            Error::Unavailable { .. } => NoInput::Away,
            error => NoInput::NotNow(error.to_string()),
        })?;
        for run in &page.runs {
            let text = lines(store, &run.body).await?;
            for (index, line) in (run.from..run.from + run.count).zip(text.lines()) {
                if children.contains(&index) {
                    let value = Json::verbatim(line).map_err(|why| garbled(index, &why))?;
                    let place = usize::try_from(index - children.start).expect("below the count");
                    found[place] = Some(value);
                }
            }
        }
        if page.next <= next {
            break;
        }
        next = page.next;
    }
    let missing = found.iter().zip(children.clone()).find(|(value, _)| value.is_none());
    if let Some((_, index)) = missing {
        return Err(NoInput::NotNow(format!("the result of {index} is missing")));
    }
    Ok(found.into_iter().flatten().collect())
}

/// The lines of a result body, from the object that holds them if there is one.
async fn lines<'a>(store: &dyn ResultStore, body: &'a ResultBody) -> Result<Cow<'a, str>, NoInput> {
    let (url, first_line) = match body {
        ResultBody::Lines(lines) => return Ok(lines.into()),
        ResultBody::Object { url, first_line } => (url, *first_line),
    };
    let bytes = store.read(url).await.map_err(|error| {
        let text = format!("result object: {error}");
        // An object that is gone or that this worker may not read does not come back without a
        // change; a store that is away does.
        if error.is_users_fault() {
            NoInput::Failed(Outcome::Failure { error: text, retry: true })
        } else {
            NoInput::NotNow(text)
        }
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let skip = usize::try_from(first_line).unwrap_or(usize::MAX);
    Ok(text.split_inclusive('\n').skip(skip).collect::<String>().into())
}

fn garbled(index: u64, why: &str) -> NoInput {
    let error = format!("the result of {index} can't be read: {why}");
    NoInput::Failed(Outcome::Failure { error, retry: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result_store::Files;

    async fn read(body: &ResultBody) -> Result<String, NoInput> {
        lines(&Files::default(), body).await.map(Cow::into_owned)
    }

    #[tokio::test]
    async fn an_object_is_read_from_its_first_line_or_from_a_later_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let prefix = format!("file://{}", folder.path().display());
        let url = longshore_storage::write(&prefix, "j/0-3.jsonl", b"1\n2\n3\n".to_vec())
            .await
            .expect("it can be written");
        let all = read(&ResultBody::object(&url)).await.expect("it can be read");
        assert_eq!(all, "1\n2\n3\n");
        let rest = read(&ResultBody::Object { url, first_line: 2 }).await.expect("it can be read");
        assert_eq!(rest, "3\n");
    }

    #[tokio::test]
    async fn an_object_that_is_gone_fails_the_attempt() {
        let answer = read(&ResultBody::object("file:///nowhere/at/all.jsonl")).await;
        assert!(matches!(answer, Err(NoInput::Failed(_))), "{answer:?}");
    }
}

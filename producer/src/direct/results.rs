//! Streams results in index order, a page at a time.

use std::ops::Range;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::try_unfold;
use longshore_ledger::{Ledger, ResultsParams};
use longshore_protocol::{JobId, ResultBody, ResultRun, ResultsPage};
use longshore_storage::AllowedRoots;
use serde_json::value::RawValue;

use crate::Error;

/// The size of a page, bytes. It bounds the memory of a stream of results, whatever the job's size.
const PAGE_BYTES: u64 = 1 << 20;

/// The first page of all results of a job, those of its reduce included.
pub(crate) async fn first_page(ledger: &dyn Ledger, job: JobId) -> Result<ResultsPage, Error> {
    Ok(ledger.results(job, &ResultsParams::new(0..u64::MAX, PAGE_BYTES)).await?)
}

/// The results with these indices, in order. `page` is their first page, if that was read already.
pub(crate) fn stream(
    (ledger, roots): (Arc<dyn Ledger>, AllowedRoots),
    job: JobId,
    indices: Range<u64>,
    page: Option<ResultsPage>,
) -> impl Stream<Item = Result<(u64, Box<RawValue>), Error>> + Send + 'static {
    let Range { start: next, end } = indices;
    let (runs, lines) = (Vec::new(), Lines::default());
    let mut reader = Reader { ledger, roots, job, next, end, upto: next, runs, lines };
    if let Some(page) = page {
        reader.turn_to(page);
    }
    try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|result| (result, reader)))
    })
}

struct Reader {
    ledger: Arc<dyn Ledger>,
    /// Where result objects may lie.
    roots: AllowedRoots,
    job: JobId,
    /// The first index that was neither returned nor found missing.
    next: u64,
    end: u64,
    /// The index that the next page begins at.
    upto: u64,
    /// The runs of the page that are still to be read, last first.
    runs: Vec<ResultRun>,
    lines: Lines,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<(u64, Box<RawValue>)>, Error> {
        loop {
            while let Some((index, line)) = self.lines.next() {
                // A run may begin before the indices that were asked for, and end after them.
                if index < self.next || index >= self.end {
                    continue;
                }
                let value = RawValue::from_string(line.to_owned()).map_err(|error| {
                    let detail = format!("the result of subtask {index} is not JSON: {error}");
                    Error::Corrupt { job: self.job, detail }
                })?;
                self.next = index + 1;
                return Ok(Some((index, value)));
            }
            if self.lines.left > 0 {
                let detail =
                    format!("{} results before {} are missing", self.lines.left, self.upto);
                return Err(Error::Corrupt { job: self.job, detail });
            }
            if let Some(run) = self.runs.pop() {
                self.lines = self.open(run).await?;
            } else if !self.page().await? {
                return Ok(None);
            }
        }
    }

    /// Reads the next page; `false` if there is none.
    async fn page(&mut self) -> Result<bool, Error> {
        self.next = self.next.max(self.upto);
        if self.next >= self.end {
            return Ok(false);
        }
        let params = ResultsParams::new(self.next..self.end, PAGE_BYTES);
        let page = self.ledger.results(self.job, &params).await?;
        if page.next <= self.next {
            let detail = format!("results stop at {} of {}", page.next, self.end);
            return Err(Error::Corrupt { job: self.job, detail });
        }
        self.turn_to(page);
        Ok(true)
    }

    fn turn_to(&mut self, page: ResultsPage) {
        self.upto = page.next.min(self.end);
        self.runs = page.runs;
        self.runs.retain(|run| run.from < self.end);
        self.runs.reverse();
    }

    /// The lines of a run, read from a file or object if they are there.
    async fn open(&self, run: ResultRun) -> Result<Lines, Error> {
        let (url, first_line) = match run.body {
            ResultBody::Lines(text) => {
                return Ok(Lines { text, at: 0, index: run.from, left: run.count });
            }
            ResultBody::Object { url, first_line } => (url, first_line),
        };
        self.roots.check(&url).await?;
        let bytes = longshore_storage::read(&url).await?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::Corrupt { job: self.job, detail: format!("{url} is not UTF-8") })?;
        let mut lines = Lines { text, at: 0, index: 0, left: first_line };
        while lines.next().is_some() {}
        Ok(Lines { index: run.from, left: run.count, ..lines })
    }
}

/// The lines of one run, with the index of each.
#[derive(Default)]
struct Lines {
    text: String,
    /// The offset of the next line, bytes.
    at: usize,
    /// The index of the next line.
    index: u64,
    /// The number of lines of the run that are still to come.
    left: u64,
}

impl Lines {
    fn next(&mut self) -> Option<(u64, &str)> {
        let rest = &self.text[self.at..];
        if self.left == 0 || rest.is_empty() {
            return None;
        }
        let line = rest.split('\n').next().unwrap_or(rest);
        self.at = (self.at + line.len() + 1).min(self.text.len());
        self.left -= 1;
        self.index += 1;
        Some((self.index - 1, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut lines: Lines) -> Vec<(u64, String)> {
        std::iter::from_fn(|| lines.next().map(|(index, line)| (index, line.to_owned()))).collect()
    }

    #[test]
    fn lines_have_their_indices_and_end_with_the_run() {
        let lines = Lines { text: "1\n2\n3\n".into(), at: 0, index: 7, left: 2 };
        assert_eq!(all(lines), [(7, "1".to_owned()), (8, "2".to_owned())]);
        let lines = Lines { text: "1\n2".into(), at: 0, index: 0, left: 9 };
        assert_eq!(all(lines), [(0, "1".to_owned()), (1, "2".to_owned())]);
        assert_eq!(all(Lines::default()), []);
    }

    #[tokio::test]
    async fn an_object_can_be_read_from_a_line_on() {
        use longshore_ledger::memory::{MemoryLedger, SystemClock};

        let file = tempfile::NamedTempFile::new().expect("a folder for it");
        std::fs::write(file.path(), "0\n1\n2\n3\n").expect("written");
        let mut reader = Reader {
            ledger: Arc::new(MemoryLedger::new(Arc::new(SystemClock))),
            roots: AllowedRoots::default(),
            job: JobId::from_uuid(uuid::Uuid::nil()),
            next: 0,
            end: 9,
            upto: 0,
            runs: Vec::new(),
            lines: Lines::default(),
        };
        let url = format!("file://{}", file.path().display());
        let body = ResultBody::Object { url, first_line: 2 };
        let run = ResultRun { from: 7, body, count: 2 };
        let lines = reader.open(run.clone()).await.expect("it can be read");
        assert_eq!(all(lines), [(7, "2".to_owned()), (8, "3".to_owned())]);
        reader.roots = AllowedRoots::new(&["/nowhere"]).expect("a good root");
        let error = reader.open(run).await.err().expect("it is refused").to_string();
        assert!(error.contains("outside of what jobs may touch"), "{error}");
    }
}

//! Progress bars of jobs, which are drawn on standard error if that is a terminal.

use std::io::IsTerminal;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use longshore_protocol::JobSummary;

use super::job::seconds;
use super::{is_watched, talk};

/// A progress bar, or nothing without a terminal.
pub(crate) struct Bar(Option<ProgressBar>);

/// Counts things that are done, on a terminal only.
pub(crate) struct Counter(Option<ProgressBar>);

/// Several bars, one below the other.
pub(crate) struct Bars(MultiProgress);

impl Bar {
    /// Creates a bar, which is drawn with the first report.
    pub(crate) fn new() -> Self {
        Self(is_watched().then(|| {
            // indicatif asks the terminal for its width and leaves colours out; the style has none.
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
                .with_style(style("{bar:32} {pos}/{len} {msg}"))
        }))
    }

    /// Whether the bar is visible.
    pub(crate) fn is_drawn(&self) -> bool {
        self.0.is_some()
    }

    /// Prints a message above the bar.
    pub(crate) fn talk(&self, line: impl std::fmt::Display) {
        match &self.0 {
            Some(bar) => bar.suspend(|| talk(line)),
            None => talk(line),
        }
    }

    /// Shows the progress of the job.
    pub(crate) fn report(&self, job: &JobSummary) {
        let Some(bar) = &self.0 else {
            return;
        };
        bar.set_length(job.counts.total);
        bar.set_position(job.counts.done + job.counts.failed + job.counts.cancelled);
        bar.set_message(message(job));
    }

    /// Removes the bar from the terminal.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Counter {
    /// Creates a counter, which is drawn with the first thing.
    pub(crate) fn new(what: &'static str) -> Self {
        // Lines on standard output, on the same terminal, are progress enough.
        let is_drawn = is_watched() && !std::io::stdout().is_terminal();
        Self(is_drawn.then(|| {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
                .with_style(style("{pos} {msg}, {elapsed}"))
                .with_message(what)
        }))
    }

    /// One more is done.
    pub(crate) fn add(&self) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
    }

    /// Removes the counter from the terminal.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Bars {
    pub(crate) fn new() -> Self {
        Self(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
    }

    /// Adds a bar that begins with the job's id.
    pub(crate) fn add(&self, job: &JobSummary) -> Bar {
        let bar = ProgressBar::no_length().with_style(style("{prefix} {bar:24} {pos}/{len} {msg}"));
        let bar = self.0.add(bar).with_prefix(job.id.to_string());
        Bar(Some(bar))
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is right").progress_chars("=> ")
}

fn message(job: &JobSummary) -> String {
    let mut words = Vec::new();
    if !matches!(job.state.as_str(), "running" | "queued") {
        words.push(job.state.as_str().to_owned());
    }
    if job.reduce.total > 0 && job.reduce.done > 0 {
        words.push(format!("combined {}/{}", job.reduce.done, job.reduce.total));
    }
    if job.rate > 0.0 && !job.state.is_terminal() {
        words.push(format!("{:.0}/s", job.rate));
    }
    let eta = job.eta.filter(|_| job.counts.open() + job.reduce.open() > 0);
    words.extend(eta.map(|eta| format!("{} to go", seconds(eta))));
    if job.counts.failed > 0 {
        words.push(format!("{} failed", job.counts.failed));
    }
    words.join(", ")
}

//! Reads the history of a run, derives interruptions and recoveries from it, records submissions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use crate::clock::Moment;
use crate::marks::{What, append_to};

/// The name of the submitters' file in the folder of the history.
const SUBMISSIONS: &str = "submissions";

/// One line of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The event.
    pub what: What,
    /// The job.
    pub job: Uuid,
    /// The subtask.
    pub index: u64,
    /// The attempt, as the handler received it.
    pub attempt: u32,
    /// The process of the worker.
    pub worker: u32,
    /// The time of the event.
    pub at: Moment,
}

/// A job that a submitter wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The task.
    pub task: String,
    /// The number of subtasks.
    pub total: u64,
    /// Whether `longshore submit` has confirmed the job.
    pub confirmed: bool,
}

/// A worker that was killed, frozen or cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerLoss {
    /// The process of the worker.
    pub worker: u32,
    /// The time of the loss.
    pub at: Moment,
    /// Whether it was killed. Other workers may continue later.
    pub for_good: bool,
}

/// The history of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// All marks, in no particular order.
    pub marks: Vec<Mark>,
    /// All jobs that submitters intended to submit.
    pub intents: BTreeMap<Uuid, Intent>,
}

impl History {
    /// Reads a folder. The last line of a file may be incomplete, because its writer was killed.
    ///
    /// # Panics
    /// When anything else can't be read.
    pub fn read(folder: &Path) -> Self {
        let mut history = Self::default();
        let entries = fs::read_dir(folder).expect("the folder of the history");
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
            let text = fs::read_to_string(&path).expect("plain text");
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            if name == SUBMISSIONS {
                whole.lines().for_each(|line| history.take_submission(line));
            } else if let Some(name) = name.strip_suffix(".marks") {
                let worker = name.rsplit('.').nth(1).and_then(|pid| pid.parse().ok());
                let worker = worker.expect("the worker's process in the name");
                let mark = |line| mark(line, worker).unwrap_or_else(|| panic!("{path:?}: {line}"));
                history.marks.extend(whole.lines().map(mark));
            }
        }
        history
    }

    fn take_submission(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["intent", job, task, total] => {
                let total = total.parse().expect("a number");
                let job = job.parse().expect("a UUID");
                let intent = Intent { task: task.into(), total, confirmed: false };
                // A second submission of the same document adds no intent.
                self.intents.entry(job).or_insert(intent);
            }
            ["confirmed", job] => {
                let job = job.parse().expect("a UUID");
                self.intents.get_mut(&job).expect("an intent before it").confirmed = true;
            }
            ["deleted", job] => {
                self.intents.remove(&job.parse().expect("a UUID"));
            }
            _ => panic!("{SUBMISSIONS}: {line}"),
        }
    }

    /// The attempts that a loss interrupted on the lost worker. A signal takes time to arrive, so
    /// an attempt that a killed worker ended after the loss was not interrupted.
    pub fn interrupted(&self, loss: WorkerLoss) -> Vec<Mark> {
        let ended = |mark: &Mark| loss.for_good && mark.what != What::Start;
        let before =
            |mark: &&Mark| mark.worker == loss.worker && (mark.at <= loss.at || ended(mark));
        let mut open = BTreeMap::new();
        let mut marks: Vec<&Mark> = self.marks.iter().filter(before).collect();
        marks.sort_by_key(|mark| mark.at);
        for mark in marks {
            match mark.what {
                What::Start => drop(open.insert((mark.job, mark.index), *mark)),
                What::End | What::Fail => drop(open.remove(&(mark.job, mark.index))),
            }
        }
        open.into_values().collect()
    }

    /// For each interrupted attempt, the time until the subtask began elsewhere; `None` if it never
    /// did.
    pub fn recoveries(&self, losses: &[WorkerLoss]) -> Vec<Option<Duration>> {
        let mut starts: HashMap<(Uuid, u64), Vec<&Mark>> = HashMap::new();
        for mark in self.marks.iter().filter(|mark| mark.what == What::Start) {
            starts.entry((mark.job, mark.index)).or_default().push(mark);
        }
        let mut times = Vec::new();
        for loss in losses {
            for attempt in self.interrupted(*loss) {
                let again = starts[&(attempt.job, attempt.index)].iter();
                let again = again.filter(|mark| mark.at > loss.at && mark.worker != loss.worker);
                times.push(again.map(|mark| mark.at.since(loss.at)).min());
            }
        }
        times
    }

    /// The end of the last pause without new attempts, as the time since `from`. Only pauses of at
    /// least `lull` count that end within `watched`; zero if there was none.
    pub fn standstill(&self, from: Moment, watched: Duration, lull: Duration) -> Duration {
        let starts = self.marks.iter().filter(|mark| mark.what == What::Start);
        let mut starts: Vec<Moment> = starts.map(|mark| mark.at).collect();
        starts.sort_unstable();
        let pauses =
            starts.windows(2).filter(|pair| pair[1] > from && pair[1].since(pair[0]) >= lull);
        let ends = pauses.map(|pair| pair[1].since(from)).filter(|end| *end <= watched);
        ends.max().unwrap_or_default()
    }

    /// How many attempts at each subtask began. Faults cause more than one.
    pub fn starts(&self) -> HashMap<(Uuid, u64), u32> {
        let mut starts = HashMap::new();
        for mark in self.marks.iter().filter(|mark| mark.what == What::Start) {
            *starts.entry((mark.job, mark.index)).or_default() += 1;
        }
        starts
    }

    /// How many attempts began in each second since the first attempt.
    pub fn starts_per_second(&self) -> Vec<usize> {
        let starts = self.marks.iter().filter(|mark| mark.what == What::Start);
        let first = starts.clone().map(|mark| mark.at).min().unwrap_or_default();
        let mut counts = Vec::new();
        for mark in starts {
            let second = usize::try_from(mark.at.since(first).as_secs()).unwrap_or_default();
            counts.resize(counts.len().max(second + 1), 0);
            counts[second] += 1;
        }
        counts
    }

    /// The jobs of which handlers ran subtasks.
    pub fn jobs_seen(&self) -> BTreeSet<Uuid> {
        self.marks.iter().map(|mark| mark.job).collect()
    }
}

fn mark(line: &str, worker: u32) -> Option<Mark> {
    let mut words = line.split(' ');
    let what = What::of(words.next()?)?;
    let job = words.next()?.parse().ok()?;
    let index = words.next()?.parse().ok()?;
    let attempt = words.next()?.parse().ok()?;
    let at = Moment { ns: words.next()?.parse().ok()? };
    words.next().is_none().then_some(Mark { what, job, index, attempt, worker, at })
}

/// Writes the history of submissions: the intent before the first try, the confirmation after the
/// last.
#[derive(Clone, Copy, Debug)]
pub struct Submissions<'a> {
    /// The folder of the history.
    pub folder: &'a Path,
}

impl Submissions<'_> {
    /// Records that a job will be submitted.
    pub fn intend(self, job: Uuid, task: &str, total: u64) {
        self.write(&format!("intent {job} {task} {total}\n"));
    }

    /// Records that Longshore has confirmed the job.
    pub fn confirm(self, job: Uuid) {
        self.write(&format!("confirmed {job}\n"));
    }

    /// Records that the job was deleted, so that its id may be used again.
    pub fn forget(self, job: Uuid) {
        self.write(&format!("deleted {job}\n"));
    }

    fn write(self, line: &str) {
        let mut file = append_to(&self.folder.join(SUBMISSIONS));
        file.write_all(line.as_bytes()).expect("a line of the history is written");
    }
}

/// Formats percentiles of durations: `p50 1.2s p99 3.4s max 4s of 50`.
pub fn percentiles(times: &[Duration]) -> String {
    let mut text = String::new();
    for (name, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
        let _ = write!(text, "{name} {:.3} s, ", percentile(times, percent).as_secs_f64());
    }
    text + &format!("of {}", times.len())
}

/// The smallest duration that is at least as long as `percent` per cent of all; zero if there are
/// none.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: Uuid = Uuid::from_u128(7);

    fn at(what: What, index: u64, worker: u32, ms: u64) -> Mark {
        let at = Moment { ns: ms * 1_000_000 };
        Mark { what, job: JOB, index, attempt: 1, worker, at }
    }

    #[test]
    fn written_lines_are_read_except_an_incomplete_last_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let submissions = Submissions { folder: folder.path() };
        submissions.intend(JOB, "mark", 5);
        submissions.confirm(JOB);
        submissions.intend(JOB, "mark", 5);
        let other = Uuid::from_u128(8);
        submissions.intend(other, "mark", 5);
        submissions.forget(other);
        let lines = format!("start {JOB} 3 1 1000000\nend {JOB} 3 1 2000000\nstart {JOB} 4");
        fs::write(folder.path().join("host-a.77.78.marks"), lines).expect("room");
        let history = History::read(folder.path());
        assert_eq!(history.marks, [at(What::Start, 3, 77, 1), at(What::End, 3, 77, 2)]);
        let intent = Intent { task: "mark".into(), total: 5, confirmed: true };
        assert_eq!(history.intents, BTreeMap::from([(JOB, intent)]));
    }

    #[test]
    fn a_recovery_is_the_time_from_the_loss_to_the_first_start_elsewhere() {
        let marks = vec![
            at(What::Start, 1, 10, 1),
            at(What::End, 1, 10, 2),
            at(What::Start, 2, 10, 3),
            at(What::Start, 3, 10, 4),
            at(What::Start, 2, 10, 90),
            at(What::Start, 2, 11, 105),
            at(What::Start, 2, 12, 300),
        ];
        let history = History { marks, ..History::default() };
        let loss = WorkerLoss { worker: 10, at: Moment { ns: 5_000_000 }, for_good: false };
        let times = history.recoveries(&[loss]);
        assert_eq!(times, [Some(Duration::from_millis(100)), None]);
    }

    #[test]
    fn an_attempt_that_a_killed_worker_ended_was_not_interrupted() {
        let marks = vec![at(What::Start, 1, 10, 1), at(What::End, 1, 10, 6)];
        let history = History { marks, ..History::default() };
        let loss = WorkerLoss { worker: 10, at: Moment { ns: 5_000_000 }, for_good: true };
        assert_eq!(history.interrupted(loss), []);
        let frozen = WorkerLoss { for_good: false, ..loss };
        assert_eq!(history.interrupted(frozen).len(), 1);
    }

    #[test]
    fn a_standstill_ends_with_the_last_long_pause() {
        let starts = [0, 90, 300, 310, 320, 1_000, 1_010, 9_000];
        let marks = starts.map(|ms| at(What::Start, ms, 10, ms)).to_vec();
        let history = History { marks, ..History::default() };
        let stands = |from: u64, lull: u64| {
            let (from, lull) = (Moment { ns: from * 1_000_000 }, Duration::from_millis(lull));
            history.standstill(from, Duration::from_secs(5), lull).as_millis()
        };
        assert_eq!(stands(100, 250), 900);
        assert_eq!(stands(100, 700), 0, "a short pause is no standstill");
        assert_eq!(stands(305, 600), 695);
        assert_eq!(stands(1_005, 250), 0, "a pause that ends later has another cause");
    }

    #[test]
    fn percentiles_are_ranks() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(50));
        assert_eq!(percentile(&times, 99), Duration::from_millis(99));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
        assert_eq!(percentiles(&times[..1]), "p50 0.100 s, p99 0.100 s, max 0.100 s, of 1");
    }
}

//! What really happened, as the handlers and the submitters wrote it down.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use crate::clock::Moment;
use crate::marks::{What, append_to};

/// The submitters' file in the folder of the history.
const SUBMISSIONS: &str = "submissions";

/// One line of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What happened.
    pub what: What,
    /// The job.
    pub job: Uuid,
    /// The subtask.
    pub index: u64,
    /// Its attempt, as the handler was told.
    pub attempt: u32,
    /// The worker's process.
    pub worker: u32,
    /// When.
    pub at: Moment,
}

/// What a submitter asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The task.
    pub task: String,
    /// How many subtasks.
    pub total: u64,
    /// Whether `longshore submit` said that the job was accepted.
    pub confirmed: bool,
}

/// A worker that was killed, frozen or cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossCause {
    /// Its process.
    pub worker: u32,
    /// When.
    pub at: Moment,
    /// Whether nothing can come of it after that: it was killed. Others may wake up and go on.
    pub for_good: bool,
}

/// Everything that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// In no particular order.
    pub marks: Vec<Mark>,
    /// Jobs that somebody meant to submit.
    pub intents: BTreeMap<Uuid, Intent>,
}

impl History {
    /// Reads a folder. The last line of a file may be torn: its writer was killed.
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
                // A second submission of the same document is no second intent.
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

    /// Attempts that began before a loss on the worker that was lost, and had not ended by then. A signal takes its time, so what
    /// a killed worker still brought to its end was not cut short.
    pub fn cut_short(&self, loss: LossCause) -> Vec<Mark> {
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

    /// For each attempt that the losses cut short, how long it took until the subtask began elsewhere; `None` if it never did.
    pub fn recoveries(&self, losses: &[LossCause]) -> Vec<Option<Duration>> {
        let mut starts: HashMap<(Uuid, u64), Vec<&Mark>> = HashMap::new();
        for mark in self.marks.iter().filter(|mark| mark.what == What::Start) {
            starts.entry((mark.job, mark.index)).or_default().push(mark);
        }
        let mut times = Vec::new();
        for loss in losses {
            for cut in self.cut_short(*loss) {
                let again = starts[&(cut.job, cut.index)].iter();
                let again = again.filter(|mark| mark.at > loss.at && mark.worker != loss.worker);
                times.push(again.map(|mark| mark.at.since(loss.at)).min());
            }
        }
        times
    }

    /// How long after `from` attempts began again for good, of all pauses that are no mere `lull` and end within `watched`; nothing
    /// if there was none.
    pub fn standstill(&self, from: Moment, watched: Duration, lull: Duration) -> Duration {
        let starts = self.marks.iter().filter(|mark| mark.what == What::Start);
        let mut starts: Vec<Moment> = starts.map(|mark| mark.at).collect();
        starts.sort_unstable();
        let pauses =
            starts.windows(2).filter(|pair| pair[1] > from && pair[1].since(pair[0]) >= lull);
        let ends = pauses.map(|pair| pair[1].since(from)).filter(|end| *end <= watched);
        ends.max().unwrap_or_default()
    }

    /// Attempts at subtasks, by how often each began: more than once is the price of chaos.
    pub fn starts(&self) -> HashMap<(Uuid, u64), u32> {
        let mut starts = HashMap::new();
        for mark in self.marks.iter().filter(|mark| mark.what == What::Start) {
            *starts.entry((mark.job, mark.index)).or_default() += 1;
        }
        starts
    }

    /// How many attempts began in each second from the first on.
    pub fn pace(&self) -> Vec<usize> {
        let starts = self.marks.iter().filter(|mark| mark.what == What::Start);
        let first = starts.clone().map(|mark| mark.at).min().unwrap_or_default();
        let mut pace = Vec::new();
        for mark in starts {
            let second = usize::try_from(mark.at.since(first).as_secs()).unwrap_or_default();
            pace.resize(pace.len().max(second + 1), 0);
            pace[second] += 1;
        }
        pace
    }

    /// Jobs of which handlers ran something.
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

/// The submitters' side: the intent before the first try, the confirmation after the last.
#[derive(Clone, Copy, Debug)]
pub struct Submissions<'a> {
    /// The folder of the history.
    pub folder: &'a Path,
}

impl Submissions<'_> {
    /// Somebody is about to submit a job.
    pub fn intend(self, job: Uuid, task: &str, total: u64) {
        self.tell(&format!("intent {job} {task} {total}\n"));
    }

    /// Longshore says that it has the job.
    pub fn confirm(self, job: Uuid) {
        self.tell(&format!("confirmed {job}\n"));
    }

    /// The job was deleted: its id may be used for another one.
    pub fn forget(self, job: Uuid) {
        self.tell(&format!("deleted {job}\n"));
    }

    fn tell(self, line: &str) {
        let mut file = append_to(&self.folder.join(SUBMISSIONS));
        file.write_all(line.as_bytes()).expect("the history takes a line");
    }
}

/// Percentiles of durations, for people: `p50 1.2s p99 3.4s max 4s of 50`.
pub fn percentiles(times: &[Duration]) -> String {
    let mut text = String::new();
    for (name, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
        let _ = write!(text, "{name} {:.3} s, ", percentile(times, percent).as_secs_f64());
    }
    text + &format!("of {}", times.len())
}

/// The smallest duration that is not below `percent` per cent of them; nothing if there are none.
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
    fn what_is_written_is_read_and_a_torn_last_line_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = Submissions { folder: folder.path() };
        told.intend(JOB, "mark", 5);
        told.confirm(JOB);
        told.intend(JOB, "mark", 5);
        let other = Uuid::from_u128(8);
        told.intend(other, "mark", 5);
        told.forget(other);
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
        let loss = LossCause { worker: 10, at: Moment { ns: 5_000_000 }, for_good: false };
        let times = history.recoveries(&[loss]);
        assert_eq!(times, [Some(Duration::from_millis(100)), None]);
    }

    #[test]
    fn what_a_killed_worker_still_finished_was_not_cut_short() {
        let marks = vec![at(What::Start, 1, 10, 1), at(What::End, 1, 10, 6)];
        let history = History { marks, ..History::default() };
        let loss = LossCause { worker: 10, at: Moment { ns: 5_000_000 }, for_good: true };
        assert_eq!(history.cut_short(loss), []);
        let frozen = LossCause { for_good: false, ..loss };
        assert_eq!(history.cut_short(frozen).len(), 1);
    }

    #[test]
    fn a_standstill_lasts_until_attempts_begin_again_for_good() {
        let starts = [0, 90, 300, 310, 320, 1_000, 1_010, 9_000];
        let marks = starts.map(|ms| at(What::Start, ms, 10, ms)).to_vec();
        let history = History { marks, ..History::default() };
        let stands = |from: u64, lull: u64| {
            let (from, lull) = (Moment { ns: from * 1_000_000 }, Duration::from_millis(lull));
            history.standstill(from, Duration::from_secs(5), lull).as_millis()
        };
        assert_eq!(stands(100, 250), 900);
        assert_eq!(stands(100, 700), 0, "a lull is none");
        assert_eq!(stands(305, 600), 695);
        assert_eq!(stands(1_005, 250), 0, "what ends later has another cause");
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

//! Random jobs, and what has to come of them whatever happens to the fleet.
//!
//! What a subtask does depends on its job, its index and its attempt alone, so the outcome of a job is known beforehand,
//! and an infrastructure failure that used up an attempt, lost a result or counted something twice shows in it.

use std::ops::Range;
use std::time::Duration;

use longshore_protocol::document::{Changed, Chunk, Placement, Reduce, Results, Retry, Split};
use longshore_protocol::{InputFile, JobDocument, JobId, Manifest, ReduceTree};
use serde_json::json;
use uuid::Uuid;

use crate::dice::{Dice, mix};
use crate::storage::LOCATION;

/// The task of all subtasks.
pub(crate) const WORK: &str = "work";
/// The task of subtasks that must not overlap.
pub(crate) const EXCLUSIVE: &str = "exclusive";
/// The task of all reductions.
pub(crate) const ADD: &str = "add";

/// A result is the value of its index, and this times the number of the attempt. No value is as large.
pub(crate) const MARK: u64 = 1_000_000_000;

/// So many subtasks at most are slow, and take so many milliseconds at most.
const SLOW: u64 = 30;
const SLOWEST: u64 = 600;

/// Longer than any time limit of a job.
const OVERRUN: Duration = Duration::from_secs(3_600);

/// What runs when its time is up keeps its slot for so long, to wind up.
const WIND_UP: Duration = Duration::from_millis(500);

/// A job, what is done to it, and what its subtasks are like.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) document: JobDocument,
    pub(crate) total: u64,
    pub(crate) submitted_after: Duration,
    /// The document is published this often.
    pub(crate) copies: u64,
    pub(crate) controls: Vec<(Duration, Control)>,
    moods: Moods,
    /// Milliseconds that a subtask takes at most,
    longest: u64,
    /// but for these, which are not like those before them.
    slow: Range<u64>,
    salt: u64,
}

/// What somebody asks of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Pause,
    Resume,
    Cancel,
    Retry,
}

/// Of a thousand subtasks, how many are of each kind.
#[derive(Clone, Debug)]
struct Moods {
    fails_first: u64,
    fails_for_good: u64,
    defers: u64,
    overruns: u64,
}

/// What a subtask is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Temper {
    Succeeds,
    /// The first so many attempts fail.
    FailsFirst(u32),
    /// And says that trying again is no use.
    FailsForGood,
    /// Says "not now" so many times.
    Defers(u32),
    /// The first so many attempts run into the time limit.
    Overruns(u32),
}

impl Job {
    pub(crate) fn random(dice: &Dice, queues: &[String]) -> Self {
        let bits = u128::from(dice.next()) << 64 | u128::from(dice.next());
        let id = JobId::from_uuid(uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid());
        let total = match dice.among(0..10) {
            0 => 1,
            1..5 => dice.among(2..10),
            5..9 => dice.among(10..60),
            _ => dice.among(60..400),
        };
        let mut document = JobDocument::new(WORK, Split::range(0..total as i64));
        document.id = Some(id);
        shape(&mut document, dice);
        document.queue.clone_from(dice.pick(queues));
        if dice.chance(200) {
            document.task = EXCLUSIVE.into();
        }
        if dice.chance(150) {
            document.split = Split::files([files_glob(total)]);
            // Nobody looks whether they are there.
            document.changed = Changed::Read;
        }
        let seldom = |per_mille, most| if dice.chance(per_mille) { dice.among(1..most) } else { 0 };
        let moods = Moods {
            fails_first: seldom(500, 400),
            fails_for_good: seldom(100, 60),
            defers: seldom(300, 200),
            overruns: if document.timeout.is_some() { seldom(500, 100) } else { 0 },
        };
        Self {
            id,
            total,
            submitted_after: dice.millis(0..6_000),
            copies: 1 + u64::from(dice.chance(200)),
            controls: controls(dice),
            moods,
            // Long jobs have short subtasks, or the run would never end.
            longest: *dice.pick(match (total, document.timeout) {
                (60.., _) => &[1, 20],
                (_, Some(_)) => &[1, 20, 200],
                (10.., None) => &[1, 20, 200, 600],
                (_, None) => &[1, 200, 1_500, 8_000],
            }),
            slow: if document.timeout.is_none() && dice.chance(400) {
                let from = dice.among(0..total);
                from..total.min(from + SLOW)
            } else {
                0..0
            },
            salt: dice.next(),
            document,
        }
    }

    /// Whether attempts at one subtask must not overlap.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.document.task == EXCLUSIVE
    }

    /// Whether its attempts begin again though nothing but the ledger was away: exclusive ones stop
    /// in an outage, and whoever asks for a retry gets one.
    pub(crate) fn may_begin_again(&self) -> bool {
        self.is_exclusive() || self.controls.iter().any(|(_, control)| *control == Control::Retry)
    }

    pub(crate) fn temper(&self, index: u64) -> Temper {
        if index >= self.total {
            return Temper::Succeeds;
        }
        let Moods { fails_first, fails_for_good, defers, overruns } = self.moods;
        let times = 1 + (self.throw(index, 2) % 3) as u32;
        let mut draw = self.throw(index, 1) % 1_000;
        let kinds = [
            (fails_first, Temper::FailsFirst(times)),
            (fails_for_good, Temper::FailsForGood),
            (defers, Temper::Defers(times)),
            (overruns, Temper::Overruns(times)),
        ];
        for (weight, temper) in kinds {
            if draw < weight {
                return temper;
            }
            draw -= weight;
        }
        Temper::Succeeds
    }

    /// Whether the subtask fails for good in the end.
    pub(crate) fn fails(&self, index: u64) -> bool {
        match self.temper(index) {
            Temper::FailsForGood => true,
            Temper::FailsFirst(times) | Temper::Overruns(times) => {
                times >= self.document.retry.attempts
            }
            Temper::Succeeds | Temper::Defers(_) => false,
        }
    }

    /// How long the attempt works before it says how it went.
    pub(crate) fn duration(&self, index: u64, attempt: u32) -> Duration {
        match self.temper(index) {
            Temper::Overruns(times) if attempt <= times => OVERRUN,
            _ => {
                let longest = if self.slow.contains(&index) { SLOWEST } else { self.longest };
                Duration::from_millis(self.throw(index, 100 + u64::from(attempt)) % longest)
            }
        }
    }

    /// How long all attempts of all subtasks take together.
    pub(crate) fn work(&self) -> Duration {
        let attempts = |index| match self.temper(index) {
            Temper::Succeeds | Temper::FailsForGood => 1,
            Temper::FailsFirst(times) | Temper::Defers(times) | Temper::Overruns(times) => {
                times + 1
            }
        };
        let limit = self.document.timeout.unwrap_or(OVERRUN);
        let cut = |took: Duration| if took > limit { limit + WIND_UP } else { took };
        (0..self.total)
            .flat_map(|index| (1..=attempts(index)).map(move |attempt| (index, attempt)))
            .map(|(index, attempt)| cut(self.duration(index, attempt)))
            .sum()
    }

    /// The result of a subtask, or of a node of the reduce.
    pub(crate) fn value(&self, index: u64) -> u64 {
        let Some(node) = self.tree().and_then(|tree| tree.node(index)) else {
            return self.throw(index, 3) % 1_000;
        };
        node.children.map(|child| self.value(child)).sum()
    }

    pub(crate) fn tree(&self) -> Option<ReduceTree> {
        let reduce = self.document.reduce.as_ref()?;
        Some(ReduceTree::new(self.total, reduce.fan_in))
    }

    /// How many subtasks fail for good, if all run.
    pub(crate) fn failures(&self) -> u64 {
        (0..self.total).filter(|index| self.fails(*index)).count() as u64
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.controls.iter().any(|(_, control)| *control == Control::Cancel)
    }

    /// Whether it may end before all of it has run.
    pub(crate) fn may_be_cut_short(&self) -> bool {
        self.is_cancelled()
            || self.document.deadline.is_some()
            || self.document.stop_after_failures.is_some()
    }

    fn throw(&self, index: u64, what: u64) -> u64 {
        mix(self.salt ^ mix(index ^ mix(what)))
    }
}

/// A glob that matches so many files.
fn files_glob(total: u64) -> String {
    format!("/data/{total}/*")
}

/// What it matches.
pub(crate) fn files_of(glob: &str) -> Manifest {
    let total: u64 =
        glob.split('/').nth(2).and_then(|total| total.parse().ok()).unwrap_or_default();
    let file =
        |number| InputFile { path: format!("/data/{total}/{number:06}"), size: 1, version: None };
    Manifest::new((0..total).map(file).collect())
}

fn shape(document: &mut JobDocument, dice: &Dice) {
    document.tenant.clone_from(dice.pick(&["default".to_owned(), "harbour".to_owned()]));
    document.priority = dice.among(0..10) as u8;
    document.params = json!(null).into();
    document.chunk = match dice.among(0..4) {
        0 => Chunk::Fixed(1),
        1 => Chunk::Fixed(dice.among(2..30)),
        _ => Chunk::Auto,
    };
    document.placement = match dice.among(0..6) {
        0 => Placement::RoundRobin,
        1 => Placement::Hash(String::new()),
        _ => Placement::Shared,
    };
    document.retry = Retry {
        attempts: dice.among(1..5) as u32,
        backoff: dice.millis(0..300),
        max_backoff: Duration::from_secs(2),
        ..Retry::default()
    };
    let sometimes = |per_mille| dice.chance(per_mille);
    document.reduce = sometimes(300).then(|| Reduce { task: ADD.into(), fan_in: dice.among(2..9) });
    document.max_parallel = sometimes(300).then(|| dice.among(1..5));
    document.timeout = sometimes(200).then(|| Duration::from_millis(500));
    if sometimes(300) {
        document.results = Results::Url(LOCATION.into());
    }
    document.deadline = sometimes(100).then(|| dice.millis(2_000..15_000));
    document.stop_after_failures = sometimes(100).then(|| dice.among(1..4));
}

fn controls(dice: &Dice) -> Vec<(Duration, Control)> {
    let mut controls = Vec::new();
    if dice.chance(300) {
        let pause = dice.millis(0..8_000);
        controls.push((pause, Control::Pause));
        controls.push((pause + dice.millis(10..12_000), Control::Resume));
    }
    if dice.chance(80) {
        controls.push((dice.millis(0..8_000), Control::Cancel));
    }
    if dice.chance(150) {
        controls.push((dice.millis(1_000..12_000), Control::Retry));
    }
    controls
}

/// Names of the pools of workers.
pub(crate) fn queues(dice: &Dice) -> Vec<String> {
    let names = ["default", "crane"];
    names[..dice.among(1..3) as usize].iter().map(|name| (*name).to_owned()).collect()
}

/// A job that nobody submitted.
pub(crate) fn stranger() -> JobId {
    JobId::from_uuid(Uuid::from_u128(0xbad))
}

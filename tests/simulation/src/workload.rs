//! Random jobs, and the outcome that each must have regardless of faults.
//!
//! The behavior of a subtask depends on its job, its index and its attempt only, so the outcome of
//! a job is known beforehand. A fault that uses up an attempt, loses a result or counts a subtask
//! twice shows in it.

use std::ops::Range;
use std::time::Duration;

use longshore_protocol::document::{Changed, Chunk, Placement, Reduce, Results, Retry, Split};
use longshore_protocol::{InputFile, JobDocument, JobId, Manifest, ReduceTree};
use serde_json::json;
use uuid::Uuid;

use crate::rng::{Rng, mix};
use crate::storage::LOCATION;

/// The task of all subtasks.
pub(crate) const WORK: &str = "work";
/// The task of subtasks that must not overlap.
pub(crate) const EXCLUSIVE: &str = "exclusive";
/// The task of all reductions.
pub(crate) const ADD: &str = "add";

/// A result is the value of its index plus this times the number of the run. Values are smaller.
pub(crate) const MARK: u64 = 1_000_000_000;

/// The maximum number of slow subtasks of a job, and their longest duration in milliseconds.
const SLOW: u64 = 30;
const SLOWEST: u64 = 600;

/// The duration of an attempt that overruns: longer than any time limit of a job.
const OVERRUN: Duration = Duration::from_secs(3_600);

/// How long an attempt that has timed out may keep its slot to clean up.
const CLEAN_UP: Duration = Duration::from_millis(500);

/// A job, its controls, and the behavior of its subtasks.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) document: JobDocument,
    pub(crate) total: u64,
    pub(crate) submitted_after: Duration,
    /// How often the document is published.
    pub(crate) submissions: u64,
    pub(crate) controls: Vec<(Duration, Control)>,
    mix_of_behaviors: BehaviorMix,
    /// The longest duration of a subtask that is not slow, in milliseconds.
    longest: u64,
    /// The slow subtasks, whose duration differs from those before them.
    slow: Range<u64>,
    salt: u64,
}

/// A control operation that the application performs on a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Pause,
    Resume,
    Cancel,
    Retry,
}

/// How many subtasks have each behavior, per mille.
#[derive(Clone, Debug)]
struct BehaviorMix {
    fails_first: u64,
    fails_for_good: u64,
    defers: u64,
    overruns: u64,
}

/// How a subtask behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behavior {
    Succeeds,
    /// This number of attempts fail, then one succeeds.
    FailsFirst(u32),
    /// The first attempt fails permanently.
    FailsForGood,
    /// This number of attempts are deferred (`not_now`).
    Defers(u32),
    /// This number of attempts run into the time limit.
    Overruns(u32),
}

impl Job {
    pub(crate) fn random(rng: &Rng, queues: &[String]) -> Self {
        let bits = u128::from(rng.next()) << 64 | u128::from(rng.next());
        let id = JobId::from_uuid(uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid());
        let total = match rng.among(0..10) {
            0 => 1,
            1..5 => rng.among(2..10),
            5..9 => rng.among(10..60),
            _ => rng.among(60..400),
        };
        let mut document = JobDocument::new(WORK, Split::range(0..total as i64));
        document.id = Some(id);
        shape(&mut document, rng);
        document.queue.clone_from(rng.pick(queues));
        if rng.chance(200) {
            document.task = EXCLUSIVE.into();
        }
        if rng.chance(150) {
            document.split = Split::files([files_glob(total)]);
            // The files need not exist: no subtask opens them.
            document.changed = Changed::Read;
        }
        let seldom = |per_mille, most| if rng.chance(per_mille) { rng.among(1..most) } else { 0 };
        let mix_of_behaviors = BehaviorMix {
            fails_first: seldom(500, 400),
            fails_for_good: seldom(100, 60),
            defers: seldom(300, 200),
            overruns: if document.timeout.is_some() { seldom(500, 100) } else { 0 },
        };
        Self {
            id,
            total,
            submitted_after: rng.millis(0..6_000),
            submissions: 1 + u64::from(rng.chance(200)),
            controls: controls(rng),
            mix_of_behaviors,
            // Long jobs have short subtasks, so that the run ends soon.
            longest: *rng.pick(match (total, document.timeout) {
                (60.., _) => &[1, 20],
                (_, Some(_)) => &[1, 20, 200],
                (10.., None) => &[1, 20, 200, 600],
                (_, None) => &[1, 200, 1_500, 8_000],
            }),
            slow: if document.timeout.is_none() && rng.chance(400) {
                let from = rng.among(0..total);
                from..total.min(from + SLOW)
            } else {
                0..0
            },
            salt: rng.next(),
            document,
        }
    }

    /// Whether attempts at one subtask must not overlap.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.document.task == EXCLUSIVE
    }

    /// Whether its attempts may begin twice though only the ledger had an outage: exclusive
    /// subtasks stop in an outage, and a `retry` control starts failed ones again.
    pub(crate) fn may_begin_again(&self) -> bool {
        self.is_exclusive() || self.controls.iter().any(|(_, control)| *control == Control::Retry)
    }

    pub(crate) fn behavior(&self, index: u64) -> Behavior {
        if index >= self.total {
            return Behavior::Succeeds;
        }
        let BehaviorMix { fails_first, fails_for_good, defers, overruns } = self.mix_of_behaviors;
        let times = 1 + (self.draw(index, 2) % 3) as u32;
        let mut draw = self.draw(index, 1) % 1_000;
        let kinds = [
            (fails_first, Behavior::FailsFirst(times)),
            (fails_for_good, Behavior::FailsForGood),
            (defers, Behavior::Defers(times)),
            (overruns, Behavior::Overruns(times)),
        ];
        for (weight, behavior) in kinds {
            if draw < weight {
                return behavior;
            }
            draw -= weight;
        }
        Behavior::Succeeds
    }

    /// Whether the subtask fails for good in the end.
    pub(crate) fn fails(&self, index: u64) -> bool {
        match self.behavior(index) {
            Behavior::FailsForGood => true,
            Behavior::FailsFirst(times) | Behavior::Overruns(times) => {
                times >= self.document.retry.attempts
            }
            Behavior::Succeeds | Behavior::Defers(_) => false,
        }
    }

    /// The duration of an attempt.
    pub(crate) fn duration(&self, index: u64, attempt: u32) -> Duration {
        match self.behavior(index) {
            Behavior::Overruns(times) if attempt <= times => OVERRUN,
            _ => {
                let longest = if self.slow.contains(&index) { SLOWEST } else { self.longest };
                Duration::from_millis(self.draw(index, 100 + u64::from(attempt)) % longest)
            }
        }
    }

    /// The total duration of all attempts of all subtasks.
    pub(crate) fn work(&self) -> Duration {
        let attempts = |index| match self.behavior(index) {
            Behavior::Succeeds | Behavior::FailsForGood => 1,
            Behavior::FailsFirst(times) | Behavior::Defers(times) | Behavior::Overruns(times) => {
                times + 1
            }
        };
        let limit = self.document.timeout.unwrap_or(OVERRUN);
        let cut = |took: Duration| if took > limit { limit + CLEAN_UP } else { took };
        (0..self.total)
            .flat_map(|index| (1..=attempts(index)).map(move |attempt| (index, attempt)))
            .map(|(index, attempt)| cut(self.duration(index, attempt)))
            .sum()
    }

    /// The result of a subtask or of a node of the reduce tree.
    pub(crate) fn value(&self, index: u64) -> u64 {
        let Some(node) = self.tree().and_then(|tree| tree.node(index)) else {
            return self.draw(index, 3) % 1_000;
        };
        node.children.map(|child| self.value(child)).sum()
    }

    pub(crate) fn tree(&self) -> Option<ReduceTree> {
        let reduce = self.document.reduce.as_ref()?;
        Some(ReduceTree::new(self.total, reduce.fan_in))
    }

    /// The number of subtasks that fail for good, if all run.
    pub(crate) fn failures(&self) -> u64 {
        (0..self.total).filter(|index| self.fails(*index)).count() as u64
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.controls.iter().any(|(_, control)| *control == Control::Cancel)
    }

    /// Whether the job may end before all its subtasks have run.
    pub(crate) fn may_be_cut_short(&self) -> bool {
        self.is_cancelled()
            || self.document.deadline.is_some()
            || self.document.stop_after_failures.is_some()
    }

    fn draw(&self, index: u64, what: u64) -> u64 {
        mix(self.salt ^ mix(index ^ mix(what)))
    }
}

/// A glob that matches `total` files.
fn files_glob(total: u64) -> String {
    format!("/data/{total}/*")
}

/// The files that a glob of [`files_glob`] matches.
pub(crate) fn files_of(glob: &str) -> Manifest {
    let total: u64 =
        glob.split('/').nth(2).and_then(|total| total.parse().ok()).unwrap_or_default();
    let file =
        |number| InputFile { path: format!("/data/{total}/{number:06}"), size: 1, version: None };
    Manifest::new((0..total).map(file).collect())
}

fn shape(document: &mut JobDocument, rng: &Rng) {
    document.tenant.clone_from(rng.pick(&["default".to_owned(), "harbour".to_owned()]));
    document.priority = rng.among(0..10) as u8;
    document.params = json!(null).into();
    document.chunk = match rng.among(0..4) {
        0 => Chunk::Fixed(1),
        1 => Chunk::Fixed(rng.among(2..30)),
        _ => Chunk::Auto,
    };
    document.placement = match rng.among(0..6) {
        0 => Placement::RoundRobin,
        1 => Placement::Hash(String::new()),
        _ => Placement::Shared,
    };
    document.retry = Retry {
        attempts: rng.among(1..5) as u32,
        backoff: rng.millis(0..300),
        max_backoff: Duration::from_secs(2),
        ..Retry::default()
    };
    let sometimes = |per_mille| rng.chance(per_mille);
    document.reduce = sometimes(300).then(|| Reduce { task: ADD.into(), fan_in: rng.among(2..9) });
    document.max_parallel = sometimes(300).then(|| rng.among(1..5));
    document.timeout = sometimes(200).then(|| Duration::from_millis(500));
    if sometimes(300) {
        document.results = Results::Url(LOCATION.into());
    }
    document.deadline = sometimes(100).then(|| rng.millis(2_000..15_000));
    document.stop_after_failures = sometimes(100).then(|| rng.among(1..4));
}

fn controls(rng: &Rng) -> Vec<(Duration, Control)> {
    let mut controls = Vec::new();
    if rng.chance(300) {
        let pause = rng.millis(0..8_000);
        controls.push((pause, Control::Pause));
        controls.push((pause + rng.millis(10..12_000), Control::Resume));
    }
    if rng.chance(80) {
        controls.push((rng.millis(0..8_000), Control::Cancel));
    }
    if rng.chance(150) {
        controls.push((rng.millis(1_000..12_000), Control::Retry));
    }
    controls
}

/// Names of the pools of workers.
pub(crate) fn queues(rng: &Rng) -> Vec<String> {
    let names = ["default", "crane"];
    names[..rng.among(1..3) as usize].iter().map(|name| (*name).to_owned()).collect()
}

/// The id of a job that was never submitted.
pub(crate) fn unsubmitted() -> JobId {
    JobId::from_uuid(Uuid::from_u128(0xbad))
}

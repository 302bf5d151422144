//! Keeps which tasks can't be started on this host: why, since when, and when they are tried again.
//!
//! An attempt that can't start is the host's failure and not the subtask's: a program that is
//! missing or not executable, a folder that is gone, no descriptors or memory left, an endpoint
//! that refuses connections. The task is disabled then. Heartbeats report it, schedulers hand out
//! its chunks to other nodes, and after a pause the task is on trial: reported like other tasks
//! until the next attempt starts, which enables the task, or does not, which doubles the pause.
//!
//! Deliberately absent: attempts that fail once they have started.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longshore_protocol::{Backoff, DisabledTask};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::heartbeat::clock;
use crate::task::Handlers;

/// First and longest pause before a disabled task is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The disabled tasks of a worker.
#[derive(Debug, Default)]
pub(crate) struct Availability {
    disabled: Mutex<BTreeMap<String, Disabled>>,
    /// Whether any task is disabled or on trial: most chunks look no further.
    is_any_disabled: AtomicBool,
    /// Wakes the heartbeat.
    changed: Notify,
    /// Wakes [`Self::probe`].
    probe: Notify,
}

#[derive(Debug)]
struct Disabled {
    task: DisabledTask,
    backoff: Backoff,
    /// When the next trial begins.
    trial_at: Instant,
    on_trial: bool,
}

impl Availability {
    /// Disables a task: an attempt can't be started. Gives whether the task was enabled before.
    pub(crate) fn disable(&self, task: &str, reason: String) -> bool {
        let mut all = self.disabled.lock();
        let (mut backoff, since) = match all.get(task) {
            // One of several attempts that were begun side by side.
            Some(disabled) if !disabled.on_trial => return false,
            Some(disabled) => (disabled.backoff, disabled.task.since),
            None => (Backoff::doubling(FIRST_PAUSE, LONGEST_PAUSE), clock()),
        };
        let disabled = Disabled {
            task: DisabledTask { task: task.to_owned(), reason, since },
            trial_at: Instant::now() + backoff.next_pause(),
            backoff,
            on_trial: false,
        };
        let was_enabled = all.insert(task.to_owned(), disabled).is_none();
        self.is_any_disabled.store(true, Ordering::Release);
        self.changed.notify_one();
        self.probe.notify_one();
        was_enabled
    }

    /// Enables a task on trial: an attempt was started.
    pub(crate) fn started(&self, task: &str) {
        if !self.is_any_disabled.load(Ordering::Acquire) {
            return;
        }
        let mut all = self.disabled.lock();
        // Where the task is still disabled, the attempt was started before that.
        if all.get(task).is_some_and(|disabled| disabled.on_trial) {
            info!(task, "task enabled again: it can be started on this host");
            all.remove(task);
            self.is_any_disabled.store(!all.is_empty(), Ordering::Release);
        }
    }

    /// Why a task is disabled; `None` if it is not.
    pub(crate) fn why_disabled(&self, task: &str) -> Option<String> {
        if !self.is_any_disabled.load(Ordering::Acquire) {
            return None;
        }
        let all = self.disabled.lock();
        all.get(task).filter(|disabled| !disabled.on_trial).map(|it| it.task.reason.clone())
    }

    /// The disabled tasks, by name.
    pub(crate) fn disabled(&self) -> Vec<DisabledTask> {
        let all = self.disabled.lock();
        all.values().filter(|it| !it.on_trial).map(|it| it.task.clone()).collect()
    }

    /// Waits until a task is disabled or on trial.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Puts tasks on trial that were disabled for long enough and look as if they could be started.
    /// Never ends.
    pub(crate) async fn probe(&self, handlers: &Handlers) {
        loop {
            let waits = |disabled: &&Disabled| !disabled.on_trial;
            let next = {
                let all = self.disabled.lock();
                let next = all.values().filter(waits).min_by_key(|disabled| disabled.trial_at);
                next.map(|disabled| (disabled.task.task.clone(), disabled.trial_at))
            };
            let Some((task, trial_at)) = next else {
                self.probe.notified().await;
                continue;
            };
            tokio::select! {
                biased;
                () = self.probe.notified() => continue,
                () = tokio::time::sleep_until(trial_at) => {}
            }
            let checked = match handlers.find(&task) {
                Some(handler) => handler.check().await,
                None => Ok(()),
            };
            self.probed(&task, checked);
        }
    }

    fn probed(&self, task: &str, checked: Result<(), String>) {
        let mut all = self.disabled.lock();
        let Some(disabled) = all.get_mut(task) else { return };
        match checked {
            Ok(()) => {
                debug!(task, "disabled task put on trial");
                disabled.on_trial = true;
                self.changed.notify_one();
            }
            Err(reason) => {
                disabled.task.reason = reason;
                disabled.trial_at = Instant::now() + disabled.backoff.next_pause();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_disabled_task_is_put_on_trial_after_growing_pauses_until_it_starts() {
        let (tasks, handlers) =
            (Availability::default(), Handlers::new(&Default::default(), HashMap::new()));
        let names = || tasks.disabled().into_iter().map(|it| it.task).collect::<Vec<_>>();
        let begun = Instant::now();
        let trials = async {
            let mut trials = Vec::new();
            for _ in 0..3 {
                tasks.disable("noop", "no program".into());
                tasks.disable("noop", "an attempt that was begun beside it".into());
                assert_eq!(tasks.why_disabled("noop").as_deref(), Some("no program"));
                assert_eq!((names(), tasks.why_disabled("sum")), (vec!["noop".to_owned()], None));
                tasks.started("noop");
                assert_eq!(names(), ["noop"], "that one was started before");
                while tasks.why_disabled("noop").is_some() {
                    tasks.changed().await;
                }
                trials.push(begun.elapsed().as_secs());
            }
            trials
        };
        let trials = tokio::select! {
            () = tasks.probe(&handlers) => unreachable!("it never ends"),
            trials = trials => trials,
        };
        assert_eq!(trials, [1, 1 + 2, 1 + 2 + 4]);
        tasks.started("noop");
        assert!(!tasks.is_any_disabled.load(Ordering::Relaxed));
    }
}

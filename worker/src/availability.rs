//! Which tasks can't be started on this machine at the moment: why, since when, and when that is
//! tried again.
//!
//! What can't start is the machine's failure and not the subtask's: a program that is missing or
//! must not be executed, a folder that is gone, no descriptors or memory left, an endpoint that
//! refuses connections. The task is disabled then. Heartbeats announce it, schedulers hand out its
//! chunks elsewhere, and after a pause it is on trial: announced as a task like others until the
//! next attempt starts, which enables it, or does not, which doubles the pause.
//!
//! Deliberately absent: attempts that fail once they have started.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longshore_protocol::DisabledTask;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::heart::clock;
use crate::task::Handlers;

/// First and longest pause before a disabled task is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The tasks of a worker that can't be started.
#[derive(Debug, Default)]
pub(crate) struct Availability {
    troubles: Mutex<BTreeMap<String, Trouble>>,
    /// Whether there are any: most chunks need no more than this.
    is_troubled: AtomicBool,
    /// Wakes the heart.
    news: Notify,
    /// Wakes [`Self::probe`].
    disabled: Notify,
}

#[derive(Debug)]
struct Trouble {
    task: DisabledTask,
    pause: Duration,
    again_at: Instant,
    on_trial: bool,
}

impl Availability {
    /// An attempt can't be started. Gives whether that is news.
    pub(crate) fn disable(&self, task: &str, reason: String) -> bool {
        let mut troubles = self.troubles.lock();
        let pause = match troubles.get(task) {
            // One of several that were begun side by side.
            Some(trouble) if !trouble.on_trial => return false,
            Some(trouble) => (trouble.pause * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        let since = troubles.get(task).map_or_else(clock, |trouble| trouble.task.since);
        let trouble = Trouble {
            task: DisabledTask { task: task.to_owned(), reason, since },
            pause,
            again_at: Instant::now() + pause,
            on_trial: false,
        };
        let is_news = troubles.insert(task.to_owned(), trouble).is_none();
        self.is_troubled.store(true, Ordering::Release);
        self.news.notify_one();
        self.disabled.notify_one();
        is_news
    }

    /// An attempt was started.
    pub(crate) fn started(&self, task: &str) {
        if !self.is_troubled.load(Ordering::Acquire) {
            return;
        }
        let mut troubles = self.troubles.lock();
        // Of one that is still disabled it was begun before.
        if troubles.get(task).is_some_and(|trouble| trouble.on_trial) {
            info!(task, "task enabled again: it can be started on this machine");
            troubles.remove(task);
            self.is_troubled.store(!troubles.is_empty(), Ordering::Release);
        }
    }

    /// Why a task can't be started; `None` if it can, as far as is known.
    pub(crate) fn why_disabled(&self, task: &str) -> Option<String> {
        if !self.is_troubled.load(Ordering::Acquire) {
            return None;
        }
        let troubles = self.troubles.lock();
        troubles.get(task).filter(|trouble| !trouble.on_trial).map(|it| it.task.reason.clone())
    }

    /// What is disabled, by name.
    pub(crate) fn disabled(&self) -> Vec<DisabledTask> {
        let troubles = self.troubles.lock();
        troubles.values().filter(|it| !it.on_trial).map(|it| it.task.clone()).collect()
    }

    /// Waits until something was disabled, or is on trial.
    pub(crate) async fn changed(&self) {
        self.news.notified().await;
    }

    /// Puts on trial what was disabled for long enough and looks as if it could be started. Never
    /// ends.
    pub(crate) async fn probe(&self, handlers: &Handlers) {
        loop {
            let waits = |trouble: &&Trouble| !trouble.on_trial;
            let next = {
                let troubles = self.troubles.lock();
                let next = troubles.values().filter(waits).min_by_key(|trouble| trouble.again_at);
                next.map(|trouble| (trouble.task.task.clone(), trouble.again_at))
            };
            let Some((task, again_at)) = next else {
                self.disabled.notified().await;
                continue;
            };
            tokio::select! {
                biased;
                () = self.disabled.notified() => continue,
                () = tokio::time::sleep_until(again_at) => {}
            }
            let checked = match handlers.find(&task) {
                Some(handler) => handler.check().await,
                None => Ok(()),
            };
            self.probed(&task, checked);
        }
    }

    fn probed(&self, task: &str, checked: Result<(), String>) {
        let mut troubles = self.troubles.lock();
        let Some(trouble) = troubles.get_mut(task) else { return };
        match checked {
            Ok(()) => {
                debug!(task, "a disabled task is on trial");
                trouble.on_trial = true;
                self.news.notify_one();
            }
            Err(reason) => {
                trouble.task.reason = reason;
                trouble.pause = (trouble.pause * 2).min(LONGEST_PAUSE);
                trouble.again_at = Instant::now() + trouble.pause;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_disabled_task_is_tried_again_after_ever_longer_pauses_until_it_starts() {
        let (tasks, handlers) = (Availability::default(), Handlers::new(HashMap::new()));
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
        assert!(!tasks.is_troubled.load(Ordering::Relaxed));
    }
}

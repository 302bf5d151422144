//! Builds a worker from settings and tasks, and refuses those that could never run.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use longshore_protocol::names::{check_label, check_name};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::availability::Availability;
use crate::task::{Handler, Handlers, Pool, TaskSpec, asynchronous, blocking};
use crate::{AllowedRoots, BuildError, BuiltinTasks, Config, Context, Environment, Worker};

pub(crate) type Setup = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), String>> + Send>;
pub(crate) type Teardown = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// Most slots of a worker: the broker's prefetch count has 16 bits, and more than this is a
/// mistake.
const MAX_SLOTS: u32 = 4096;

/// Builds a worker; see [`Worker::builder`].
#[derive(Default)]
pub struct Builder {
    config: Config,
    environment: Environment,
    tasks: Vec<(String, Arc<dyn Handler>)>,
    specs: Vec<(String, TaskSpec)>,
    setup: Option<Setup>,
    teardown: Option<Teardown>,
}

impl Builder {
    /// An async task. Its argument is the input of the subtask, its output the result, both by
    /// serde. Errors are retried unless they are a [`crate::TaskError`] that says otherwise; a
    /// panic is a failed attempt.
    #[must_use]
    pub fn task<F, T, Fut, O, E>(mut self, name: impl Into<String>, task: F) -> Self
    where
        F: Fn(Context, T) -> Fut + Send + Sync + 'static,
        T: DeserializeOwned + Send + 'static,
        Fut: Future<Output = Result<O, E>> + Send + 'static,
        O: Serialize,
        E: Display + 'static,
    {
        self.tasks.push((name.into(), Arc::new(asynchronous(task))));
        self
    }

    /// A task that computes or blocks: it runs on a thread of its own. A long one should look at
    /// [`Context::is_cancelled`] now and then, since nothing else can stop it.
    #[must_use]
    pub fn blocking_task<F, T, O, E>(mut self, name: impl Into<String>, task: F) -> Self
    where
        F: Fn(Context, T) -> Result<O, E> + Send + Sync + 'static,
        T: DeserializeOwned + Send + 'static,
        O: Serialize + 'static,
        E: Display + 'static,
    {
        self.tasks.push((name.into(), Arc::new(blocking(task))));
        self
    }

    /// A task from the configuration: a command, a served command or a URL. Programs need
    /// [`init`](crate::init()) in `main`.
    #[must_use]
    pub fn configured_task(mut self, name: impl Into<String>, spec: TaskSpec) -> Self {
        self.specs.push((name.into(), spec));
        self
    }

    /// Subtasks of this task are never executed speculatively: no second worker starts one that
    /// takes much longer than the others, though it is idle. For tasks that must not run twice at
    /// the same time, and for tasks whose subtasks differ much in length.
    #[must_use]
    pub fn non_speculative(mut self, name: impl Into<String>) -> Self {
        self.config.non_speculative.insert(name.into());
        self
    }

    /// Two attempts at a subtask of this task must never overlap: its attempts stop when the worker
    /// loses the ledger, before another worker may begin them, and are never executed
    /// speculatively. Without this they go on, and end when the ledger says that they run
    /// elsewhere. A blocking task must look at [`Context::is_cancelled`], since nothing else can
    /// stop it.
    #[must_use]
    pub fn exclusive(mut self, name: impl Into<String>) -> Self {
        self.config.exclusive.insert(name.into());
        self
    }

    /// Runs `setup` once before the first claim. If it fails, so does [`Worker::run`], and nothing
    /// is claimed.
    #[must_use]
    pub fn setup<F, Fut, E>(mut self, setup: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        self.setup = Some(Box::new(|| {
            setup().map(|done| done.map_err(|error| format!("{error:#}"))).boxed()
        }));
        self
    }

    /// Runs `teardown` once after the last subtask ended.
    #[must_use]
    pub fn teardown<F, Fut>(mut self, teardown: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.teardown = Some(Box::new(|| teardown().boxed()));
        self
    }

    /// How many chunks run side by side; one a core unless set.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.config.slots = slots;
        self
    }

    /// The queues that the worker consumes; `default` unless set.
    #[must_use]
    pub fn queues<S: Into<String>>(mut self, queues: impl IntoIterator<Item = S>) -> Self {
        self.config.queues = queues.into_iter().map(Into::into).collect();
        self
    }

    /// Where the files and results of jobs may lie; everywhere unless set.
    #[must_use]
    pub fn allow_roots(mut self, roots: AllowedRoots) -> Self {
        self.config.allow_roots = roots;
        self
    }

    /// The built-in tasks that the worker offers; all unless set.
    #[must_use]
    pub fn builtin_tasks(mut self, tasks: BuiltinTasks) -> Self {
        self.config.builtin_tasks = tasks;
        self
    }

    /// Labels of the node, free text.
    #[must_use]
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.config.labels = labels;
        self
    }

    /// All settings at once.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// What the worker takes from its host; the host of this process unless set.
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Checks everything that can be checked before the worker runs.
    pub fn build(self) -> Result<Worker, BuildError> {
        check(&self.config)?;
        let mut own: HashMap<String, Arc<dyn Handler>> = HashMap::new();
        let mut config = self.config;
        let non_speculative = self.specs.iter().filter(|(_, spec)| !spec.is_speculative());
        config.non_speculative.extend(non_speculative.map(|(name, _)| name.clone()));
        let exclusive = self.specs.iter().filter(|(_, spec)| spec.is_exclusive());
        config.exclusive.extend(exclusive.map(|(name, _)| name.clone()));
        config.non_speculative.extend(config.exclusive.iter().cloned());
        let availability = Availability::default();
        for (task, spec) in &self.specs {
            if let Err(reason) = spec.check() {
                availability.disable(task, reason);
            }
        }
        let pool = Pool::new(config.slots, config.pass_env.clone());
        let addresses = &config.http_allow_addresses;
        let configured =
            self.specs.into_iter().map(|(task, spec)| match spec.handler(&pool, addresses) {
                Ok(handler) => Ok((task, handler)),
                Err(reason) => Err(BuildError::BadTask { task, reason }),
            });
        for task in self.tasks.into_iter().map(Ok).chain(configured) {
            let (name, handler) = task?;
            if name.trim().is_empty() {
                return Err(BuildError::UnnamedTask);
            }
            check_name("task", &name).map_err(BuildError::BadName)?;
            if own.insert(name.clone(), handler).is_some() {
                return Err(BuildError::DuplicateTask(name));
            }
        }
        let mut environment = self.environment;
        environment.allow_roots(config.allow_roots.clone());
        Ok(Worker {
            id: environment.new_node(),
            drain: CancellationToken::new(),
            environment: Arc::new(environment),
            handlers: Arc::new(Handlers::new(&config.builtin_tasks, own)),
            config,
            availability: Arc::new(availability),
            setup: self.setup,
            teardown: self.teardown,
        })
    }
}

fn check(config: &Config) -> Result<(), BuildError> {
    let bad =
        |setting, reason: &str| Err(BuildError::BadSetting { setting, reason: reason.into() });
    if !(1..=MAX_SLOTS).contains(&config.slots) {
        return bad("slots", &format!("{}; use 1 to {MAX_SLOTS}", config.slots));
    }
    if config.queues.is_empty() || config.queues.iter().any(|queue| queue.trim().is_empty()) {
        return bad("queues", "name at least one queue, as in [\"default\"]");
    }
    for queue in &config.queues {
        check_name("queues", queue).map_err(BuildError::BadName)?;
    }
    for (name, value) in &config.labels {
        check_label("labels", name, value).map_err(BuildError::BadName)?;
    }
    let mut queues = config.queues.clone();
    queues.sort_unstable();
    if queues.windows(2).any(|pair| pair[0] == pair[1]) {
        return bad("queues", "a queue is named twice");
    }
    if config.heartbeat.is_zero() {
        return bad("heartbeat", "must be longer than 0s");
    }
    if config.dead_after < 2 * config.heartbeat {
        return bad("dead_after", "must be at least twice `heartbeat`");
    }
    if config.max_result == 0 {
        return bad("max_result", "must be at least 1 byte");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn refused(builder: Builder, complaint: &str) {
        let error = builder.build().expect_err("it is refused").to_string();
        assert_eq!(error, complaint);
    }

    fn task(builder: Builder, name: &str) -> Builder {
        builder.blocking_task(name, |_, _: u64| Ok::<_, String>(()))
    }

    #[test]
    fn mistakes_are_refused_by_name() {
        let worker = Worker::builder;
        refused(task(task(worker(), "a"), "a"), "task `a` is defined twice");
        refused(task(worker(), " "), "a task needs a name");
        refused(worker().slots(0), "slots: 0; use 1 to 4096");
        refused(worker().queues([""]), "queues: name at least one queue, as in [\"default\"]");
        refused(
            worker().queues(["my queue/1"]),
            "queues: `my queue/1` with the character ` `; use 1 to 100 characters out of \
             A-Z a-z 0-9 . _ -",
        );
        refused(
            task(worker(), "a b"),
            "task: `a b` with the character ` `; use 1 to 100 characters out of A-Z a-z 0-9 . _ -",
        );
        refused(worker().queues(["a", "a"]), "queues: a queue is named twice");
        let hasty = Config { dead_after: Duration::from_millis(1500), ..Config::default() };
        refused(worker().config(hasty), "dead_after: must be at least twice `heartbeat`");
    }

    #[test]
    fn a_program_that_is_missing_disables_its_task_and_not_the_worker() {
        let builder = task(Worker::builder(), "fine");
        let builder = builder.configured_task("t", TaskSpec::command(["pythn3"]));
        let worker = builder.build().expect("it can do the rest");
        let [disabled] = &worker.disabled()[..] else { panic!("{:?}", worker.disabled()) };
        let reason = "command: no program `pythn3` on this host";
        assert_eq!((&*disabled.task, &*disabled.reason), ("t", reason));
        let tasks = worker.tasks();
        assert!(tasks.contains(&"fine".into()) && !tasks.contains(&"t".into()), "{tasks:?}");
    }

    #[test]
    fn every_worker_has_the_built_in_tasks_and_a_name_of_its_own() {
        let one = task(Worker::builder(), "own").build().expect("it is fine");
        let two = task(Worker::builder(), "sum").build().expect("a built-in name may be reused");
        assert_ne!(one.id(), two.id());
        let names = ["concat", "fail", "merge_counts", "noop", "own", "sleep", "sum", "wordcount"];
        assert_eq!(one.handlers.names(), names);
    }

    #[test]
    fn built_in_tasks_that_are_off_are_not_announced() {
        let tasks = |builtin: BuiltinTasks| {
            let builder = task(Worker::builder(), "sum").builtin_tasks(builtin);
            builder.build().expect("it is fine").tasks()
        };
        assert_eq!(tasks(BuiltinTasks::none()), ["sum"], "its own task of that name stays");
        let some = BuiltinTasks::only(["noop", "wordcount"]).expect("there are such tasks");
        assert_eq!(tasks(some), ["noop", "sum", "wordcount"]);
        let error = BuiltinTasks::only(["noop", "wordcont"]).expect_err("there is none");
        assert_eq!(
            error.to_string(),
            "builtin_tasks: no task `wordcont`; use true, false, or names out of concat, fail, \
             merge_counts, noop, sleep, sum, wordcount"
        );
    }
}

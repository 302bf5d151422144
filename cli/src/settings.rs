//! Merges and checks the settings: flags over the environment over a file over built-in defaults.
//!
//! Deliberately absent: defaults in code. They are in `defaults.toml`, which is read like any other
//! layer.

mod files;
mod reach;
mod settings_file;
mod values;
mod variables;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use longshore_broker::rabbit::WorkQueueKind;
use longshore_protocol::{ApiSecret, Invalid, names};
use longshore_tls::{ServerFiles, TlsFiles};
use longshore_worker::TaskSpec;
use serde::Deserialize;

use crate::environment::{Environment, check_variables, settings_in};
use crate::failure::Failure;
use crate::restrictions::{BuiltinChoice, GivenRestrictions, Restrictions};

use files::{server_files, url};
use reach::ServerFlag;
pub(crate) use reach::{NO_TOKEN, Reach};
use settings_file::{parse, read_file};
pub(crate) use values::parse_duration;
use values::{address, duration, duration_from, kind, labels_from, trimmed};
use variables::from_environment;

/// The default settings with comments.
pub(crate) const DEFAULTS: &str = include_str!("defaults.toml");

/// The most slots of a worker: each may be a process, and RabbitMQ counts prefetch in 16 bits.
const MAX_SLOTS: u32 = 4096;

/// The longest duration of a setting. A sensible one is shorter, and adding it to a time can't
/// overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The settings that every verb takes as flags. Flags of single verbs are in a [`Layer`] of their
/// own.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Flags {
    /// Read settings from this file instead of ./longshore.toml
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LONGSHORE_CONFIG",
        help_heading = "Settings"
    )]
    config: Option<PathBuf>,
    /// The URL of RabbitMQ [env: LONGSHORE_AMQP_URL]
    #[arg(long, global = true, value_name = "URL", help_heading = "Settings")]
    amqp_url: Option<String>,
    /// The URL of Redis [env: LONGSHORE_REDIS_URL]
    #[arg(long, global = true, value_name = "URL", help_heading = "Settings")]
    redis_url: Option<String>,
    #[command(flatten)]
    server: ServerFlag,
    /// The prefix of all names in RabbitMQ and Redis [env: LONGSHORE_NAMESPACE]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Settings")]
    namespace: Option<String>,
}

/// The flags of verbs that run a worker.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct WorkerFlags {
    /// The number of chunks to run at once [default: one per core] [env: LONGSHORE_SLOTS]
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// The time that running subtasks get after a request to stop [env: LONGSHORE_GRACE]
    #[arg(long, value_name = "DURATION")]
    grace: Option<String>,
}

/// Flags of `longshore worker` alone.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct FleetFlags {
    /// The queues to take work from [env: LONGSHORE_QUEUES]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    queues: Option<Vec<String>>,
    /// The labels of the worker, as name=value [env: LONGSHORE_LABELS]
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',')]
    labels: Option<Vec<String>>,
}

/// All settings, complete and checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) amqp_url: String,
    pub(crate) redis_url: String,
    pub(crate) namespace: String,
    pub(crate) reach: Reach,
    pub(crate) token: Option<ApiSecret>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) work_queues: WorkQueueKind,
    pub(crate) dead_after: Duration,
    pub(crate) http_listen: Option<SocketAddr>,
    pub(crate) http_behind_proxy: bool,
    /// How clients judge servers, and which certificate they present to them.
    pub(crate) tls: TlsFiles,
    /// The certificate of the HTTP API.
    pub(crate) http_tls: Option<ServerFiles>,
    pub(crate) slots: Option<u32>,
    pub(crate) queues: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) heartbeat: Duration,
    pub(crate) ack_after: Duration,
    pub(crate) grace: Duration,
    pub(crate) restrictions: Restrictions,
    pub(crate) tasks: BTreeMap<String, TaskSpec>,
    /// The file that was read, if any.
    pub(crate) file: Option<PathBuf>,
    /// The variables and flags that gave settings, in the order of precedence.
    pub(crate) overrides: Vec<String>,
}

/// The settings of one source; absent fields are not set there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    amqp_url: Option<String>,
    amqp_url_file: Option<PathBuf>,
    redis_url: Option<String>,
    redis_url_file: Option<PathBuf>,
    tls_ca: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    namespace: Option<String>,
    server: Option<String>,
    token_file: Option<PathBuf>,
    /// Never in a file of settings, which others may read.
    #[serde(skip)]
    token: Option<ApiSecret>,
    #[serde(default, deserialize_with = "kind")]
    work_queues: Option<WorkQueueKind>,
    #[serde(default, deserialize_with = "duration")]
    dead_after: Option<Duration>,
    #[serde(default, deserialize_with = "address")]
    http_listen: Option<SocketAddr>,
    http_behind_proxy: Option<bool>,
    http_tls_cert: Option<PathBuf>,
    http_tls_key: Option<PathBuf>,
    http_tls_client_ca: Option<PathBuf>,
    slots: Option<u32>,
    queues: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "duration")]
    heartbeat: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    ack_after: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    grace: Option<Duration>,
    allow_roots: Option<Vec<String>>,
    builtin_tasks: Option<BuiltinChoice>,
    pass_env: Option<Vec<String>>,
    http_allow_addresses: Option<Vec<String>>,
    task: Option<BTreeMap<String, TaskSpec>>,
}

impl Settings {
    /// Reads all layers.
    pub(crate) fn load(
        flags: &Flags,
        worker: &WorkerFlags,
        fleet: &FleetFlags,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        Self::read(flags, worker, fleet, environment).map_err(Failure::of_settings)
    }

    fn read(
        flags: &Flags,
        worker: &WorkerFlags,
        fleet: &FleetFlags,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        check_variables(environment)?;
        let (file, from_file) = read_file(flags.config.as_deref())?;
        let overrides = flags.given().chain(worker.given()).chain(fleet.given());
        let overrides = overrides.map(str::to_owned).chain(settings_in(environment)).collect();
        let layers = [
            from_flags(flags, worker, fleet)?,
            from_environment(|name| environment.get(name).cloned())?,
            from_file,
            parse(DEFAULTS, "the built-in defaults")?,
        ];
        let reach = reach::of(&layers[..layers.len() - 1]);
        let merged = layers.into_iter().reduce(Layer::or).expect("there are layers");
        merged.complete(reach, file, overrides)
    }
}

impl Layer {
    /// Merges two layers; `self` wins over `below`. Tasks of both are kept, those of `self` first.
    fn or(self, below: Self) -> Self {
        let tasks = match (self.task, below.task) {
            (Some(mut ours), Some(theirs)) => {
                for (name, spec) in theirs {
                    ours.entry(name).or_insert(spec);
                }
                Some(ours)
            }
            (ours, theirs) => ours.or(theirs),
        };
        // A URL and the file of a URL stand for each other, so the layers below add nothing.
        let (amqp_url, amqp_url_file) = match (self.amqp_url, self.amqp_url_file) {
            (None, None) => (below.amqp_url, below.amqp_url_file),
            ours => ours,
        };
        let (redis_url, redis_url_file) = match (self.redis_url, self.redis_url_file) {
            (None, None) => (below.redis_url, below.redis_url_file),
            ours => ours,
        };
        Self {
            amqp_url,
            amqp_url_file,
            redis_url,
            redis_url_file,
            tls_ca: self.tls_ca.or(below.tls_ca),
            tls_cert: self.tls_cert.or(below.tls_cert),
            tls_key: self.tls_key.or(below.tls_key),
            namespace: self.namespace.or(below.namespace),
            server: self.server.or(below.server),
            token_file: self.token_file.or(below.token_file),
            token: self.token.or(below.token),
            work_queues: self.work_queues.or(below.work_queues),
            dead_after: self.dead_after.or(below.dead_after),
            http_listen: self.http_listen.or(below.http_listen),
            http_behind_proxy: self.http_behind_proxy.or(below.http_behind_proxy),
            http_tls_cert: self.http_tls_cert.or(below.http_tls_cert),
            http_tls_key: self.http_tls_key.or(below.http_tls_key),
            http_tls_client_ca: self.http_tls_client_ca.or(below.http_tls_client_ca),
            slots: self.slots.or(below.slots),
            queues: self.queues.or(below.queues),
            labels: self.labels.or(below.labels),
            heartbeat: self.heartbeat.or(below.heartbeat),
            ack_after: self.ack_after.or(below.ack_after),
            grace: self.grace.or(below.grace),
            allow_roots: self.allow_roots.or(below.allow_roots),
            builtin_tasks: self.builtin_tasks.or(below.builtin_tasks),
            pass_env: self.pass_env.or(below.pass_env),
            http_allow_addresses: self.http_allow_addresses.or(below.http_allow_addresses),
            task: tasks,
        }
    }

    fn complete(
        self,
        reach: Reach,
        file: Option<PathBuf>,
        overrides: Vec<String>,
    ) -> Result<Settings, Failure> {
        const BUILT_IN: &str = "defaults.toml has a value for it";
        let heartbeat = self.heartbeat.expect(BUILT_IN);
        let http_tls =
            server_files(self.http_tls_cert, self.http_tls_key, self.http_tls_client_ca)?;
        let restrictions = GivenRestrictions {
            allow_roots: self.allow_roots,
            builtin_tasks: self.builtin_tasks,
            pass_env: self.pass_env,
            http_allow_addresses: self.http_allow_addresses,
        };
        let settings = Settings {
            amqp_url: url("amqp_url", self.amqp_url, self.amqp_url_file)?,
            redis_url: url("redis_url", self.redis_url, self.redis_url_file)?,
            namespace: self.namespace.expect(BUILT_IN),
            reach,
            token: self.token,
            token_file: self.token_file,
            work_queues: self.work_queues.expect(BUILT_IN),
            dead_after: self.dead_after.unwrap_or_else(|| dead_after(heartbeat)),
            http_listen: self.http_listen,
            http_behind_proxy: self.http_behind_proxy.expect(BUILT_IN),
            tls: TlsFiles { ca: self.tls_ca, cert: self.tls_cert, key: self.tls_key },
            http_tls,
            slots: self.slots,
            queues: trimmed(self.queues.expect(BUILT_IN)),
            labels: self.labels.expect(BUILT_IN),
            heartbeat,
            ack_after: self.ack_after.expect(BUILT_IN),
            grace: self.grace.expect(BUILT_IN),
            restrictions: restrictions.complete()?,
            tasks: self.task.unwrap_or_default(),
            file,
            overrides,
        };
        settings.check()?;
        Ok(settings)
    }
}

impl Settings {
    /// Checks the values, whichever layer they come from.
    fn check(&self) -> Result<(), Failure> {
        let wrong = |setting: &str, found: String, allowed: &str| {
            let (place, allowed) = (setting.to_owned(), allowed.to_owned());
            Err(Failure::from(Invalid { place, found, allowed }))
        };
        if let Some(slots) = self.slots.filter(|slots| !(1..=MAX_SLOTS).contains(slots)) {
            return wrong("slots", slots.to_string(), "use 1 to 4096");
        }
        self.tls.check().map_err(Failure::usage)?;
        names::check_namespace("namespace", &self.namespace)?;
        self.reach.check()?;
        if self.queues.is_empty() || self.queues.iter().any(String::is_empty) {
            return wrong("queues", "a name is missing".into(), "name at least one queue");
        }
        for queue in &self.queues {
            names::check_name("queues", queue)?;
        }
        for (name, value) in &self.labels {
            names::check_label("labels", name, value)?;
        }
        for task in self.tasks.keys() {
            names::check_name("task", task)?;
        }
        let durations = [
            ("heartbeat", self.heartbeat),
            ("dead_after", self.dead_after),
            ("ack_after", self.ack_after),
            ("grace", self.grace),
        ];
        if let Some((name, long)) = durations.into_iter().find(|(_, value)| *value > LONGEST) {
            let found = humantime::format_duration(long).to_string();
            return wrong(name, found, "use at most 366days");
        }
        if self.heartbeat < Duration::from_millis(50) {
            let found = humantime::format_duration(self.heartbeat).to_string();
            return wrong("heartbeat", found, "use at least 50ms");
        }
        if self.dead_after < self.heartbeat * 2 {
            let found = humantime::format_duration(self.dead_after).to_string();
            let twice = humantime::format_duration(self.heartbeat * 2);
            return wrong(
                "dead_after",
                found,
                &format!("use at least twice the heartbeat, {twice}"),
            );
        }
        if self.ack_after.is_zero() {
            return wrong("ack_after", "0s".into(), "use a duration above zero");
        }
        Ok(())
    }
}

/// The default of `dead_after`, which allows for several late or lost heartbeats.
fn dead_after(heartbeat: Duration) -> Duration {
    heartbeat.saturating_mul(5).max(Duration::from_secs(5))
}

impl Flags {
    fn given(&self) -> impl Iterator<Item = &'static str> {
        given([
            ("--amqp-url", self.amqp_url.is_some()),
            ("--redis-url", self.redis_url.is_some()),
            ("--server", self.server.url().is_some()),
            ("--namespace", self.namespace.is_some()),
        ])
    }
}

impl WorkerFlags {
    fn given(&self) -> impl Iterator<Item = &'static str> {
        given([("--slots", self.slots.is_some()), ("--grace", self.grace.is_some())])
    }
}

impl FleetFlags {
    fn given(&self) -> impl Iterator<Item = &'static str> {
        given([("--queues", self.queues.is_some()), ("--labels", self.labels.is_some())])
    }
}

fn given<const N: usize>(flags: [(&'static str, bool); N]) -> impl Iterator<Item = &'static str> {
    flags.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name)
}

fn from_flags(flags: &Flags, worker: &WorkerFlags, fleet: &FleetFlags) -> Result<Layer, Failure> {
    Ok(Layer {
        amqp_url: flags.amqp_url.clone(),
        redis_url: flags.redis_url.clone(),
        namespace: flags.namespace.clone(),
        server: flags.server.url().cloned(),
        slots: worker.slots,
        grace: worker.grace.as_deref().map(|text| duration_from("--grace", text)).transpose()?,
        queues: fleet.queues.clone(),
        labels: match &fleet.labels {
            Some(pairs) => Some(labels_from("--labels", pairs.iter().map(String::as_str))?),
            None => None,
        },
        ..Layer::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        toml: &str,
        environment: &[(&str, &str)],
        slots: Option<u32>,
    ) -> Result<Settings, String> {
        let file = tempfile(toml);
        let flags = Flags { config: Some(file.clone()), ..Flags::default() };
        let worker = WorkerFlags { slots, ..WorkerFlags::default() };
        let variable = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = environment.iter().map(variable).collect();
        let loaded = Settings::load(&flags, &worker, &FleetFlags::default(), &environment);
        let name = file.display().to_string();
        std::fs::remove_file(&file).unwrap();
        loaded.map_err(|failure| failure.to_string().replace(&name, "FILE"))
    }

    fn tempfile(text: &str) -> PathBuf {
        let name = format!("longshore-{}.toml", uuid::Uuid::new_v4());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[track_caller]
    fn refused(toml: &str, environment: &[(&str, &str)], message: &str) {
        assert_eq!(load(toml, environment, None).unwrap_err(), message);
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file_and_that_over_the_defaults() {
        let file = "slots = 2\ngrace = \"1m\"\nnamespace = \"file\"";
        let environment = [("LONGSHORE_SLOTS", "3"), ("LONGSHORE_GRACE", "2m")];
        let settings = load(file, &environment, Some(4)).unwrap();
        assert_eq!(settings.slots, Some(4));
        assert_eq!(settings.grace, Duration::from_secs(120));
        assert_eq!(settings.namespace, "file");
        assert_eq!(settings.dead_after, Duration::from_secs(5));
        let dead_after = |toml| load(toml, &[], None).unwrap().dead_after;
        assert_eq!(dead_after("heartbeat = \"10s\""), Duration::from_secs(50));
        assert_eq!(dead_after("heartbeat = \"100ms\""), Duration::from_secs(5));
        assert_eq!(dead_after("heartbeat = \"10s\"\ndead_after = \"20s\"").as_secs(), 20);
        assert_eq!(load(file, &environment, None).unwrap().slots, Some(3));
        assert_eq!(load(file, &[], None).unwrap().slots, Some(2));
        assert_eq!(load("", &[], None).unwrap().slots, None);
    }

    #[test]
    fn lists_and_labels_come_from_the_environment_too() {
        let environment = [("LONGSHORE_QUEUES", "a, b"), ("LONGSHORE_LABELS", "gpu=true,zone=x=y")];
        let settings = load("", &environment, None).unwrap();
        assert_eq!(settings.queues, ["a", "b"]);
        assert_eq!(settings.overrides, ["LONGSHORE_LABELS", "LONGSHORE_QUEUES"]);
        assert_eq!(settings.labels["gpu"], "true");
        assert_eq!(settings.labels["zone"], "x=y");
    }

    #[test]
    fn tasks_are_read_from_their_tables() {
        let file = "[task.a]\ncommand = [\"sh\"]\n[task.b]\nhttp = \"http://127.0.0.1/\"";
        let settings = load(file, &[], None).unwrap();
        assert_eq!(settings.tasks.keys().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_url_or_its_file_in_a_higher_layer_wins_over_both_below() {
        let secret = tempfile("redis://:secret@r\n");
        let path = secret.to_str().unwrap();
        let of_file = format!("redis_url_file = \"{path}\"");
        let url = |toml: &str, environment: &[(&str, &str)]| {
            load(toml, environment, None).map(|settings| settings.redis_url)
        };
        assert_eq!(url(&of_file, &[]).unwrap(), "redis://:secret@r");
        assert_eq!(url(&of_file, &[("LONGSHORE_REDIS_URL", "redis://e")]).unwrap(), "redis://e");
        let given = "redis_url = \"redis://f\"";
        assert_eq!(url(given, &[("LONGSHORE_REDIS_URL_FILE", path)]).unwrap(), "redis://:secret@r");
        let both = url(&format!("{given}\n{of_file}"), &[]).unwrap_err();
        assert_eq!(both, "redis_url: redis_url_file is set as well; set one of them");
        std::fs::remove_file(&secret).unwrap();
        assert!(url(&of_file, &[]).unwrap_err().ends_with("no such file"));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        refused(
            "\n  slot = 4",
            &[],
            "FILE:2:3: unknown field `slot`, expected one of `amqp_url`, `amqp_url_file`, \
             `redis_url`, `redis_url_file`, `tls_ca`, `tls_cert`, `tls_key`, `namespace`, \
             `server`, `token_file`, `work_queues`, `dead_after`, `http_listen`, \
             `http_behind_proxy`, `http_tls_cert`, `http_tls_key`, `http_tls_client_ca`, `slots`, \
             `queues`, `labels`, `heartbeat`, `ack_after`, `grace`, `allow_roots`, \
             `builtin_tasks`, `pass_env`, `http_allow_addresses`, `task`",
        );
        refused("slots = 0", &[], "slots: 0; use 1 to 4096");
        refused("queues = []", &[], "queues: a name is missing; name at least one queue");
        refused("dead_after = \"1s\"", &[], "dead_after: 1s; use at least twice the heartbeat, 2s");
        refused("heartbeat = \"0s\"", &[], "heartbeat: 0s; use at least 50ms");
        // Twice as much is no duration any more.
        refused(
            "heartbeat = \"18446744073709551615s\"\ndead_after = \"1day\"",
            &[],
            "heartbeat: 584542046090years 7months 15days 17h 5m 3s; use at most 366days",
        );
        refused("grace = \"2years\"", &[], "grace: 2years; use at most 366days");
        refused("ack_after = \"0s\"", &[], "ack_after: 0s; use a duration above zero");
        refused(
            "grace = \"5\"",
            &[],
            "FILE:1:9: `5` is no duration; write one like \"30s\", \"5m\" or \"1h 30m\"",
        );
        refused(
            "work_queues = \"stream\"",
            &[],
            "FILE:1:15: unknown kind `stream`; use classic or quorum",
        );
        refused(
            "",
            &[("LONGSHORE_SLOTS", "four")],
            "LONGSHORE_SLOTS: `four` is no whole number; use 1 to 4096",
        );
        refused(
            "",
            &[("LONGSHORE_WORK_QUEUES", "x")],
            "LONGSHORE_WORK_QUEUES: unknown kind `x`; use classic or quorum",
        );
        refused(
            "",
            &[("LONGSHORE_HTTP_BEHIND_PROXY", "yes")],
            "LONGSHORE_HTTP_BEHIND_PROXY: `yes`; use true or false",
        );
        refused(
            "",
            &[("LONGSHORE_LABELS", "gpu")],
            "LONGSHORE_LABELS: `gpu` is no label; write name=value",
        );
        refused(
            "namespace = \"a b\"",
            &[],
            "namespace: `a b` with the character ` `; use 1 to 64 characters out of A-Z a-z 0-9 . _ -",
        );
        refused(
            "namespace = \"a.work\"",
            &[],
            "namespace: `a.work` with the part `.work`; use one without the parts `.work` and \
             `.node`, which begin the names of queues",
        );
        let name = "use 1 to 100 characters out of A-Z a-z 0-9 . _ -";
        refused(
            "queues = [\"my queue/1\"]",
            &[],
            &format!("queues: `my queue/1` with the character ` `; {name}"),
        );
        refused(
            "[task.\"a/b\"]\ncommand = [\"sh\"]",
            &[],
            &format!("task: `a/b` with the character `/`; {name}"),
        );
        refused(
            "",
            &[("LONGSHORE_LABELS", "zone=a\u{1b}b")],
            "labels: the value of `zone`; use at most 1000 printable characters",
        );
    }

    #[test]
    fn space_around_the_name_of_a_queue_counts_nowhere() {
        let from_file = load("queues = [\"default\", \" gpu\"]", &[], None).unwrap();
        assert_eq!(from_file.queues, ["default", "gpu"]);
        let environment = [("LONGSHORE_QUEUES", "default, gpu")];
        assert_eq!(load("", &environment, None).unwrap().queues, ["default", "gpu"]);
        let queues = Some(vec!["default".to_owned(), " gpu".to_owned()]);
        let fleet = FleetFlags { queues, labels: None };
        let layer = from_flags(&Flags::default(), &WorkerFlags::default(), &fleet).unwrap();
        assert_eq!(trimmed(layer.queues.unwrap()), ["default", "gpu"]);
    }
}

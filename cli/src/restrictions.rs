//! Reads the settings that restrict what jobs may touch: files, tasks, variables, networks.

use longshore_protocol::Invalid;
use longshore_worker::{AllowedRoots, BuiltinTasks, HttpAddresses, PassEnv};
use serde::Deserialize;

/// What jobs may touch on this host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Restrictions {
    pub(crate) allow_roots: AllowedRoots,
    pub(crate) builtin_tasks: BuiltinTasks,
    pub(crate) pass_env: PassEnv,
    pub(crate) http_allow_addresses: HttpAddresses,
}

/// These settings as one source gives them; absent ones are not set there.
#[derive(Clone, Debug, Default)]
pub(crate) struct GivenRestrictions {
    pub(crate) allow_roots: Option<Vec<String>>,
    pub(crate) builtin_tasks: Option<BuiltinChoice>,
    pub(crate) pass_env: Option<Vec<String>>,
    pub(crate) http_allow_addresses: Option<Vec<String>>,
}

/// The setting `builtin_tasks`: all, none, or those of these names.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "builtin_tasks: use true, false, or a list of names of tasks")]
pub(crate) enum BuiltinChoice {
    All(bool),
    Only(Vec<String>),
}

impl BuiltinChoice {
    /// Reads `true`, `false`, or names separated by commas.
    pub(crate) fn from_text(text: &str) -> Self {
        match text.trim() {
            "true" => Self::All(true),
            "false" => Self::All(false),
            names => Self::Only(names.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }
}

impl GivenRestrictions {
    /// Checks the values.
    pub(crate) fn complete(self) -> Result<Restrictions, Invalid> {
        let unless_set = Restrictions::default();
        Ok(Restrictions {
            allow_roots: match self.allow_roots {
                Some(roots) => AllowedRoots::new(&roots)?,
                None => unless_set.allow_roots,
            },
            builtin_tasks: match self.builtin_tasks {
                Some(BuiltinChoice::All(false)) => BuiltinTasks::none(),
                Some(BuiltinChoice::Only(names)) => BuiltinTasks::only(names)?,
                Some(BuiltinChoice::All(true)) | None => unless_set.builtin_tasks,
            },
            pass_env: match self.pass_env {
                Some(names) => PassEnv::only(names)?,
                None => unless_set.pass_env,
            },
            http_allow_addresses: match self.http_allow_addresses {
                Some(allowed) => HttpAddresses::allowing(&allowed)?,
                None => unless_set.http_allow_addresses,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(given: GivenRestrictions, message: &str) {
        assert_eq!(given.complete().expect_err("it is wrong").to_string(), message);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let list = |value: &str| Some(vec![value.to_owned()]);
        let unset = GivenRestrictions::default;
        refused(
            GivenRestrictions { allow_roots: list("in"), ..unset() },
            "allow_roots[0]: `in` is relative; use an absolute folder without `..`, such as \
             /data, or a URL such as s3://bucket/prefix/",
        );
        let builtin_tasks = Some(BuiltinChoice::from_text("noop, sleeep"));
        refused(
            GivenRestrictions { builtin_tasks, ..unset() },
            "builtin_tasks: no task `sleeep`; use true, false, or names out of concat, fail, \
             merge_counts, noop, sleep, sum, wordcount",
        );
        refused(
            GivenRestrictions { http_allow_addresses: list("169.254.0.0/99"), ..unset() },
            "http_allow_addresses[0]: `169.254.0.0/99` is no address and no network; use \
             addresses such as 169.254.170.2 and networks such as fe80::/10",
        );
        refused(
            GivenRestrictions { pass_env: list("LONGSHORE_REDIS_URL"), ..unset() },
            "pass_env[0]: `LONGSHORE_REDIS_URL` is a setting of the worker; give a command what \
             it needs by `env` in its [task.NAME]",
        );
        let error = toml::from_str::<toml::Table>("x = 1").expect("TOML")["x"].clone();
        let error = BuiltinChoice::deserialize(error).expect_err("a number is no choice");
        assert!(error.to_string().contains("use true, false, or a list of names"), "{error}");
    }

    #[test]
    fn built_in_tasks_are_chosen_by_a_word_or_by_names() {
        let chosen = |text: &str| {
            let builtin_tasks = Some(BuiltinChoice::from_text(text));
            let given = GivenRestrictions { builtin_tasks, ..GivenRestrictions::default() };
            given.complete().expect("it is fine").builtin_tasks
        };
        assert_eq!(chosen("true"), BuiltinTasks::default());
        assert_eq!(chosen(" false"), BuiltinTasks::none());
        assert_eq!(chosen("noop, sum"), BuiltinTasks::only(["noop", "sum"]).expect("names"));
    }
}

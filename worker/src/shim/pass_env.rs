//! Decides which variables of the worker's environment the commands of tasks get.
//!
//! Never those that begin with `LONGSHORE_`: they are the worker's own settings, with passwords in
//! URLs. Deliberately absent: guesses at which other names hold secrets.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use longshore_protocol::Invalid;

/// The prefix of the worker's own settings.
const OWN: &str = "LONGSHORE_";

/// Passed whatever is set: without these many programs don't start, or mistake their user.
const ALWAYS: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "TERM",
];

/// Which variables commands get. The default is all but those of the worker's own settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassEnv(Option<Vec<String>>);

impl PassEnv {
    /// Those that every program needs (`PATH`, `HOME`, `LANG` and such) and those with these names.
    /// A name may end in `*`.
    ///
    /// # Errors
    /// For a name that no variable can have, that is a setting of the worker, or that has a `*`
    /// inside.
    pub fn only<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Result<Self, Invalid> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        for (at, name) in names.iter().enumerate() {
            let bad = |found: String, allowed: &str| {
                let (place, allowed) = (format!("pass_env[{at}]"), allowed.to_owned());
                Err(Invalid { place, found, allowed })
            };
            let stem = name.strip_suffix('*').unwrap_or(name);
            if name.is_empty() || stem.contains(['*', '=', '\0']) {
                return bad(
                    format!("`{name}` is no name of a variable"),
                    "use names such as CUDA_VISIBLE_DEVICES, beginnings such as AWS_*, or * for all",
                );
            }
            if stem.starts_with(OWN) {
                return bad(
                    format!("`{name}` is a setting of the worker"),
                    "give a command what it needs by `env` in its [task.NAME]",
                );
            }
        }
        Ok(Self(Some(names)))
    }

    /// Whether commands get the variable of this name.
    pub(crate) fn passes(&self, name: &OsStr) -> bool {
        let name = name.as_bytes();
        if name.starts_with(OWN.as_bytes()) {
            return false;
        }
        let Some(names) = &self.0 else { return true };
        let mut passed = ALWAYS.into_iter().chain(names.iter().map(String::as_str));
        passed.any(|passed| match passed.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning.as_bytes()),
            None => name == passed.as_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pass: &PassEnv, passed: &[&str], withheld: &[&str]) {
        for name in passed {
            assert!(pass.passes(OsStr::new(name)), "{name}");
        }
        for name in withheld {
            assert!(!pass.passes(OsStr::new(name)), "{name}");
        }
    }

    const OWN: [&str; 4] = [
        "LONGSHORE_AMQP_URL",
        "LONGSHORE_REDIS_URL",
        "LONGSHORE_PASSWORD",
        "LONGSHORE_SUPERVISED_NODE",
    ];

    #[test]
    fn unless_set_everything_passes_but_the_settings_of_the_worker() {
        let passed = ["PATH", "CUDA_VISIBLE_DEVICES", "AWS_SECRET_ACCESS_KEY", "LONGSHORE", "X"];
        check(&PassEnv::default(), &passed, &OWN);
        check(&PassEnv::only(["*"]).expect("all"), &passed, &OWN);
    }

    #[test]
    fn a_list_adds_to_what_every_program_needs() {
        let pass = PassEnv::only(["CUDA_VISIBLE_DEVICES", "AWS_*", "LONG*"]).expect("good names");
        check(
            &pass,
            &["PATH", "HOME", "LANG", "LC_ALL", "CUDA_VISIBLE_DEVICES", "AWS_REGION", "LONGER"],
            &["CUDA", "CUDA_VISIBLE_DEVICES_2", "PATHS", "VIRTUAL_ENV", "path"],
        );
        check(&pass, &[], &OWN);
        check(&PassEnv::only::<&str>([]).expect("none"), &["PATH", "LC_TIME"], &["AWS_REGION"]);
    }

    #[test]
    fn bad_names_are_refused_with_their_place() {
        let said = |name: &str| PassEnv::only(["A", name]).expect_err("it is wrong").to_string();
        let allowed =
            "use names such as CUDA_VISIBLE_DEVICES, beginnings such as AWS_*, or * for all";
        for name in ["", "A*B", "A=b", "**"] {
            let found = format!("pass_env[1]: `{name}` is no name of a variable; {allowed}");
            assert_eq!(said(name), found);
        }
        for name in ["LONGSHORE_AMQP_URL", "LONGSHORE_*"] {
            assert_eq!(
                said(name),
                format!(
                    "pass_env[1]: `{name}` is a setting of the worker; give a command what it \
                     needs by `env` in its [task.NAME]"
                )
            );
        }
    }
}

//! Where a worker takes host name, random numbers and result store from, unless it is simulated.
//!
//! It also decides whether heartbeats get a thread of their own.
//!
//! A simulation of whole clusters runs many workers on one thread in simulated time, and must be
//! able to repeat a run exactly. So everything that a worker takes from its host, other than time,
//! comes through this type.
//!
//! Deliberately absent: time. This crate takes it from tokio everywhere, where tests can pause it.

use std::fmt;
use std::sync::Arc;

use longshore_protocol::names::machine_name;
use longshore_protocol::{NodeId, Token};
use longshore_storage::AllowedRoots;
use sysinfo::System;
use uuid::Uuid;

use crate::result_store::{Files, ResultStore};

/// What a worker takes from its host. The default is the host of this process.
#[derive(Default)]
pub struct Environment {
    simulated: Option<Simulated>,
    files: Files,
}

struct Simulated {
    name: String,
    random: Box<dyn Fn() -> u64 + Send + Sync>,
    results: Option<Arc<dyn ResultStore>>,
}

impl Environment {
    /// The environment of a simulated host with this name. Random numbers come from `random`, and
    /// heartbeats run on the worker's runtime, since a thread of their own would not share its
    /// simulated time.
    pub fn simulated(
        name: impl Into<String>,
        random: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        let simulated =
            Some(Simulated { name: name.into(), random: Box::new(random), results: None });
        Self { simulated, files: Files::default() }
    }

    /// Keeps results in this store, in place of files and objects. Has no effect outside of a
    /// simulation.
    #[must_use]
    pub fn with_results(mut self, store: Arc<dyn ResultStore>) -> Self {
        if let Some(simulated) = &mut self.simulated {
            simulated.results = Some(store);
        }
        self
    }

    /// The store of results that are not kept in the ledger.
    pub(crate) fn results(&self) -> &dyn ResultStore {
        let simulated = self.simulated.as_ref();
        let simulated = simulated.and_then(|simulated| simulated.results.as_deref());
        simulated.unwrap_or(&self.files)
    }

    /// Keeps results below these roots only.
    pub(crate) fn allow_roots(&mut self, roots: AllowedRoots) {
        self.files = Files(roots);
    }

    pub(crate) fn is_simulated(&self) -> bool {
        self.simulated.is_some()
    }

    /// The host's name, for ids that people read.
    pub(crate) fn name(&self) -> String {
        let name = match &self.simulated {
            Some(simulated) => simulated.name.clone(),
            None => System::host_name().unwrap_or_default(),
        };
        machine_name(&name)
    }

    /// A new node id. A worker draws one at every start, so that an earlier run never looks alive.
    pub(crate) fn new_node(&self) -> NodeId {
        let id = uuid::Builder::from_random_bytes(self.bytes()).into_uuid();
        NodeId::new(format!("{}-{}", self.name(), Uuid::hyphenated(id)))
    }

    pub(crate) fn token(&self) -> Token {
        Token::from_bytes(self.bytes())
    }

    /// A random number in `0.0..1.0`, for jitter.
    pub(crate) fn random(&self) -> f64 {
        match &self.simulated {
            Some(simulated) => ((simulated.random)() >> 11) as f64 / (1_u64 << 53) as f64,
            None => rand::random(),
        }
    }

    fn bytes(&self) -> [u8; 16] {
        match &self.simulated {
            Some(simulated) => {
                let halves = [(simulated.random)(), (simulated.random)()];
                (u128::from(halves[0]) << 64 | u128::from(halves[1])).to_be_bytes()
            }
            None => rand::random(),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Environment").field(&self.name()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_environment_draws_no_random_numbers_of_its_own() {
        let environment = || Environment::simulated("crane", || u64::MAX >> 1);
        assert_eq!(environment().token(), environment().token());
        assert_eq!(environment().new_node(), environment().new_node());
        assert!(environment().new_node().as_str().starts_with("crane-"));
        assert!((0.499..0.501).contains(&environment().random()), "{}", environment().random());
    }

    #[test]
    fn the_default_environment_never_draws_the_same_twice() {
        let environment = Environment::default();
        assert_ne!(environment.token(), environment.token());
        assert_ne!(environment.new_node(), environment.new_node());
        assert!((0.0..1.0).contains(&environment.random()));
    }
}

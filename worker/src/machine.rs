//! The machine under a worker: its name, its randomness, a thread for the heart.
//!
//! A simulation of whole fleets runs many workers on one thread in a time of its own, and must be
//! able to repeat a run exactly; so everything that a worker takes from the machine, other than
//! time, comes through here. So does the storage of results, which all machines share.
//!
//! Deliberately absent: time, which is tokio's everywhere in this room and can be paused there.

use std::fmt;
use std::sync::Arc;

use longshore_protocol::names::machine_name;
use longshore_protocol::{NodeId, Token};
use sysinfo::System;
use uuid::Uuid;

use crate::result_store::{Files, ResultStore};

/// What a worker runs on. The default is the machine of this process.
#[derive(Default)]
pub struct Machine(Option<Simulated>);

struct Simulated {
    name: String,
    random: Box<dyn Fn() -> u64 + Send + Sync>,
    results: Option<Arc<dyn ResultStore>>,
}

impl Machine {
    /// A machine that exists within a simulation: it has this name, draws its random numbers from
    /// `random`, and the heart beats on the runtime of the worker, since a thread of its own would
    /// live in another time.
    pub fn simulated(
        name: impl Into<String>,
        random: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Simulated { name: name.into(), random: Box::new(random), results: None }))
    }

    /// A simulated machine that keeps results in this store, in place of files and objects.
    #[must_use]
    pub fn with_results(mut self, store: Arc<dyn ResultStore>) -> Self {
        if let Some(simulated) = &mut self.0 {
            simulated.results = Some(store);
        }
        self
    }

    /// Where results are kept that are not in the ledger.
    pub(crate) fn results(&self) -> &dyn ResultStore {
        let simulated = self.0.as_ref().and_then(|simulated| simulated.results.as_deref());
        simulated.unwrap_or(&Files)
    }

    pub(crate) fn is_simulated(&self) -> bool {
        self.0.is_some()
    }

    /// The machine's name, for ids that people read.
    pub(crate) fn name(&self) -> String {
        let name = match &self.0 {
            Some(simulated) => simulated.name.clone(),
            None => System::host_name().unwrap_or_default(),
        };
        machine_name(&name)
    }

    /// A new name at every start, so that an old incarnation never looks alive.
    pub(crate) fn new_node(&self) -> NodeId {
        let id = uuid::Builder::from_random_bytes(self.bytes()).into_uuid();
        NodeId::new(format!("{}-{}", self.name(), Uuid::hyphenated(id)))
    }

    pub(crate) fn token(&self) -> Token {
        Token::from_bytes(self.bytes())
    }

    /// A random number in `0.0..1.0`, for jitter.
    pub(crate) fn share(&self) -> f64 {
        match &self.0 {
            Some(simulated) => ((simulated.random)() >> 11) as f64 / (1_u64 << 53) as f64,
            None => rand::random(),
        }
    }

    fn bytes(&self) -> [u8; 16] {
        match &self.0 {
            Some(simulated) => {
                let halves = [(simulated.random)(), (simulated.random)()];
                (u128::from(halves[0]) << 64 | u128::from(halves[1])).to_be_bytes()
            }
            None => rand::random(),
        }
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Machine").field(&self.name()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_machine_has_no_chance_of_its_own() {
        let machine = || Machine::simulated("crane", || u64::MAX >> 1);
        assert_eq!(machine().token(), machine().token());
        assert_eq!(machine().new_node(), machine().new_node());
        assert!(machine().new_node().as_str().starts_with("crane-"));
        assert!((0.499..0.501).contains(&machine().share()), "{}", machine().share());
    }

    #[test]
    fn a_real_one_never_draws_the_same_twice() {
        let machine = Machine::default();
        assert_ne!(machine.token(), machine.token());
        assert_ne!(machine.new_node(), machine.new_node());
        assert!((0.0..1.0).contains(&machine.share()));
    }
}

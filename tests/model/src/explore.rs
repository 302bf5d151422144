//! Explores every reachable state of a model, and finds violations with a shortest trace.
//!
//! It searches breadth first. It is not an existing library because the main property is "from
//! every state the end can still be reached" (in CTL: AG EF done), which checkers of "eventually"
//! along paths don't express. It takes one backward walk over the steps that are no faults.
//!
//! States are identified by hashes of 128 bits: among a hundred million states, two have the same
//! hash with a probability below 10^-22. Of each state only the hash, the step that found it first,
//! and the steps into it are kept; its data is dropped once its successors are known, and a trace
//! is rebuilt by repeating the steps.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Debug, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};

/// A model to explore.
pub trait Model {
    /// Everything that later steps depend on, and the history that the properties need.
    type State: Clone;
    /// A step.
    type Action: Copy + Debug;

    /// The initial state.
    fn initial(&self) -> Self::State;

    /// A key that is equal for states with the same behavior. Only the first of them is explored
    /// further.
    fn key(&self, state: &Self::State) -> Vec<u8>;

    /// The possible steps in a state.
    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;

    /// The state after a step. The error is the property that it violates.
    fn next(&self, state: &Self::State, action: Self::Action) -> Result<Self::State, &'static str>;

    /// Whether the step is a fault. The end must be reachable without faults.
    fn is_fault(&self, action: Self::Action) -> bool;

    /// Whether the state is an end.
    fn is_done(&self, state: &Self::State) -> bool;

    /// Describes a state in one line, for traces.
    fn describe(&self, state: &Self::State) -> String;
}

/// The result of an exploration.
#[derive(Debug)]
pub struct Report {
    /// The number of different states.
    pub states: usize,
    /// The number of steps between states.
    pub steps: usize,
    /// The number of end states.
    pub done: usize,
    /// The number of steps to the farthest state.
    pub depth: usize,
    /// The first violation found.
    pub violation: Option<Violation>,
}

/// A violated property with a shortest trace.
pub struct Violation {
    /// The property.
    pub property: &'static str,
    /// The steps from the initial state, with the state after each.
    pub trace: String,
}

impl Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.property, self.trace)
    }
}

/// The property that some state violates from which no end can be reached without faults.
pub const DEAD_END: &str = "L4: from every state the end can be reached once faults stop";

/// How a state was first found.
#[derive(Clone, Copy)]
struct Origin {
    from: u32,
    choice: u16,
}

const NOWHERE: Origin = Origin { from: u32::MAX, choice: 0 };

struct Exploration<'a, M: Model> {
    model: &'a M,
    known: HashMap<u128, u32>,
    origins: Vec<Origin>,
    done: Vec<u32>,
    /// Steps that are no faults, as (to, from).
    sound: Vec<(u32, u32)>,
    steps: usize,
}

/// Explores the whole model, or up to the first violation.
pub fn explore<M: Model>(model: &M) -> Report {
    let mut exploration = Exploration {
        model,
        known: HashMap::new(),
        origins: Vec::new(),
        done: Vec::new(),
        sound: Vec::new(),
        steps: 0,
    };
    let (first, _) = exploration.meet(&model.initial(), NOWHERE);
    let mut layer = vec![(first, model.initial())];
    let mut depth = 0;
    let violation = loop {
        match exploration.advance(layer) {
            Ok(next) if next.is_empty() => break exploration.dead_end(),
            Ok(next) => layer = next,
            Err(violation) => break Some(violation),
        }
        depth += 1;
    };
    Report {
        states: exploration.origins.len(),
        steps: exploration.steps,
        done: exploration.done.len(),
        depth,
        violation,
    }
}

/// States to explore next, by number.
type Layer<S> = Vec<(u32, S)>;

impl<M: Model> Exploration<'_, M> {
    /// The number of a state, and whether it is new.
    fn meet(&mut self, state: &M::State, origin: Origin) -> (u32, bool) {
        let number = u32::try_from(self.origins.len()).expect("fewer than 2^32 fit in memory");
        match self.known.entry(fingerprint(&self.model.key(state))) {
            Entry::Occupied(known) => (*known.get(), false),
            Entry::Vacant(unknown) => {
                unknown.insert(number);
                self.origins.push(origin);
                if self.model.is_done(state) {
                    self.done.push(number);
                }
                (number, true)
            }
        }
    }

    /// Takes every step from the states of a layer; returns the new states.
    fn advance(&mut self, layer: Layer<M::State>) -> Result<Layer<M::State>, Violation> {
        let mut next = Vec::new();
        for (from, state) in layer {
            for (choice, action) in self.model.actions(&state).into_iter().enumerate() {
                let after = self
                    .model
                    .next(&state, action)
                    .map_err(|property| self.violation(property, from, Some(action)))?;
                let choice = choice.try_into().expect("a handful of choices");
                let (to, is_new) = self.meet(&after, Origin { from, choice });
                self.steps += 1;
                if !self.model.is_fault(action) {
                    self.sound.push((to, from));
                }
                if is_new {
                    next.push((to, after));
                }
            }
        }
        Ok(next)
    }

    /// The first state found from which no path without faults leads to an end.
    fn dead_end(&mut self) -> Option<Violation> {
        self.sound.sort_unstable();
        let mut reaches = vec![false; self.origins.len()];
        let mut todo = self.done.clone();
        while let Some(to) = todo.pop() {
            if std::mem::replace(&mut reaches[to as usize], true) {
                continue;
            }
            let begin = self.sound.partition_point(|(into, _)| *into < to);
            let into = self.sound[begin..].iter().take_while(|(into, _)| *into == to);
            todo.extend(into.map(|(_, from)| *from));
        }
        let stuck = reaches.iter().position(|reaches| !reaches)?;
        Some(self.violation(DEAD_END, stuck.try_into().expect("an id"), None))
    }

    fn violation(&self, property: &'static str, at: u32, last: Option<M::Action>) -> Violation {
        let mut path = Vec::new();
        let mut id = at;
        while self.origins[id as usize].from != NOWHERE.from {
            path.push(self.origins[id as usize].choice);
            id = self.origins[id as usize].from;
        }
        let mut state = self.model.initial();
        let mut trace = String::new();
        for choice in path.into_iter().rev() {
            let action = self.model.actions(&state)[usize::from(choice)];
            state = self.model.next(&state, action).expect("it was taken before");
            let _ = writeln!(trace, "{action:?}\n    {}", self.model.describe(&state));
        }
        if let Some(action) = last {
            let _ = writeln!(trace, "{action:?}");
        }
        Violation { property, trace }
    }
}

fn fingerprint(key: &[u8]) -> u128 {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, key).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

//! The subtasks of workers that are silent, slow or failing.

#![expect(clippy::print_stdout, reason = "the figures are for people: --nocapture shows them")]

mod failing_nodes;
mod living;
mod long_subtasks;
mod silence;

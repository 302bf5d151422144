//! What becomes of subtasks when their workers fall silent or take long.

#![expect(clippy::print_stdout, reason = "the figures are for people: --nocapture shows them")]

mod holes;
mod living;
mod long_subtasks;
mod silence;

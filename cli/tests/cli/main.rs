//! Tests of the command line that need no service: arguments, files and standard input in; standard
//! output, standard error and an exit code out.

mod bad_input;
mod closed_output;
mod dev;
mod given;
mod object_store;
mod run;

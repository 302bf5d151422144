//! The command line as people and programs meet it: arguments, files and standard input in; standard output, standard
//! error and an exit code out. Needs no service.

mod bad_input;
mod closed_output;
mod dev;
mod given;
mod object_store;
mod run;

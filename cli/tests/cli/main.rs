//! Tests of the command line that need no service, on its arguments, files, output and exit codes.

mod bad_input;
mod closed_output;
mod dev;
mod given;
mod http;
mod object_store;
mod run;

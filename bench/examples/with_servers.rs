//! Runs a command with a private RabbitMQ and a private Redis: `with_servers COMMAND…`.
//!
//! Both servers have the configuration that their vendors ship. The command gets their URLs in
//! `LONGSHORE_AMQP_URL` and `LONGSHORE_REDIS_URL`; they stop when it ends. `bench/run` uses this.
#![expect(clippy::print_stderr, reason = "a command for developers prints its errors")]

use std::process::{Command, ExitCode};

use longshore_test_servers::{Rabbit, RabbitOptions, Redis, RedisOptions};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: with_servers COMMAND…");
        return ExitCode::from(2);
    };
    let rabbit =
        Rabbit::start_with(&RabbitOptions { as_shipped: true, ..RabbitOptions::default() });
    // The usual setting with an append-only file, and that of the published baselines.
    let redis =
        Redis::start_with(&RedisOptions { appendfsync: "everysec", ..RedisOptions::default() });
    let mut command = Command::new(&program);
    command.args(arguments);
    command.env("LONGSHORE_AMQP_URL", rabbit.url()).env("LONGSHORE_REDIS_URL", redis.url());
    match command.status() {
        Ok(status) => {
            ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("{}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}

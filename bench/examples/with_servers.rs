//! Runs a command with a RabbitMQ and a Redis of its own, as their vendors ship them: `with_servers COMMAND…`. The command
//! finds them in `LONGSHORE_AMQP_URL` and `LONGSHORE_REDIS_URL`; they are gone when it ends. `bench/run` uses it.
#![expect(clippy::print_stderr, reason = "a command of developers says what is wrong")]

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
    // The usual choice of those who keep an append-only file, and the one of the published yardsticks.
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

//! Measures how many calls per second of a small writing function Redis executes.
//!
//! The function makes a check, sets a bit and increments a counter.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};

use crate::Error;
use crate::services::Services;

/// The number of connections. Each writes together the requests that arrive together.
const CONNECTIONS: usize = 4;

/// The number of requests in flight on each connection.
const IN_FLIGHT: usize = 64;

/// The library of the function. `NAME` is replaced by a unique name, because the names of libraries
/// are shared by all clients of the server.
const LIBRARY: &str = "#!lua name=NAME
redis.register_function('NAME', function(keys, args)
  if redis.call('SETBIT', keys[1], args[1], 1) == 1 then return 0 end
  return redis.call('HINCRBY', keys[2], 'done', 1)
end)
";

/// Measures the calls per second.
pub(super) async fn calls(
    services: &Services,
    namespace: &str,
    time: Duration,
) -> Result<f64, Error> {
    let name = namespace.replace('-', "_");
    let mut queries = services.queries.clone();
    let mut load = cmd("FUNCTION");
    load.arg("LOAD").arg("REPLACE").arg(LIBRARY.replace("NAME", &name));
    load.query_async::<()>(&mut queries).await?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(services.redis().await?);
    }
    let begun = Instant::now();
    let callers = (0..CONNECTIONS * IN_FLIGHT).map(|caller| {
        call(connections[caller % CONNECTIONS].clone(), namespace, &name, caller, time)
    });
    let counts = try_join_all(callers).await;
    let seconds = begun.elapsed().as_secs_f64();
    cmd("FUNCTION").arg("DELETE").arg(&name).query_async::<()>(&mut queries).await?;
    Ok(counts?.into_iter().sum::<u64>() as f64 / seconds)
}

async fn call(
    mut connection: MultiplexedConnection,
    namespace: &str,
    name: &str,
    caller: usize,
    time: Duration,
) -> Result<u64, RedisError> {
    let (bits, counts) = (format!("{namespace}:bits"), format!("{namespace}:counts"));
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < time {
        // Each caller sets bits of its own within one million bits that all callers share.
        let bit = (count * (CONNECTIONS * IN_FLIGHT) as u64 + caller as u64) % 1_000_000;
        let mut function = cmd("FCALL");
        function.arg(name).arg(2).arg(&bits).arg(&counts).arg(bit);
        function.query_async::<u64>(&mut connection).await?;
        count += 1;
    }
    Ok(count)
}

//! Finds free TCP ports on the loopback address, and returns each of them once.
//!
//! A port is free when no process listens on it now; nothing reserves it until the server binds it.
//! Code that starts a server therefore checks that the answer comes from that server, and tries
//! again with another port if another process took the port first.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::TcpListener;
use std::sync::Mutex;

/// Below the ports that Linux uses for outgoing connections (32768 and up): a client that
/// repeatedly connects to a stopped server there may connect to itself, and then the server can't
/// restart on its old port.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// The maximum number of tries.
const TRIES: usize = 200;

static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port of 127.0.0.1 without a listener that this process has not returned before.
///
/// # Errors
/// When no free port was found.
pub fn free_port() -> io::Result<u16> {
    let mut given = GIVEN.lock().map_err(|_| io::Error::other("a test panicked here before"))?;
    let given = given.get_or_insert_default();
    for _ in 0..TRIES {
        // Each `RandomState` has new random keys, the only random numbers in std.
        let random = RandomState::new().hash_one(given.len());
        let span = u64::from(PORTS.end - PORTS.start);
        let offset = u16::try_from(random % span).unwrap_or_default();
        let port = PORTS.start + offset;
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no free port in {PORTS:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_given_once() {
        let ports: HashSet<u16> = (0..50).map(|_| free_port().expect("a free port")).collect();
        assert_eq!(ports.len(), 50);
        assert!(ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
    }
}

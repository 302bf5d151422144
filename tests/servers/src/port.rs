//! Free TCP ports on the loopback address.
//!
//! A port is free when nobody listens on it now; nothing holds it until the server binds it. Who
//! starts a server therefore checks that the answer comes from that very server, and tries again
//! with another port when it lost the race.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::TcpListener;
use std::sync::Mutex;

/// Below the ports that Linux gives to outgoing connections (32768 and up): a client that keeps
/// redialling a stopped server there can end up connected to itself, and the server's restart on
/// its old port then fails.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// Tries before giving up; a machine on which 200 random ports are taken is not one to test on.
const TRIES: usize = 200;

static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port of 127.0.0.1 that nobody listens on and that this process has not given out before.
///
/// # Errors
/// When no free port was found.
pub fn free_port() -> io::Result<u16> {
    let mut given = GIVEN.lock().map_err(|_| io::Error::other("a test panicked here before"))?;
    let given = given.get_or_insert_default();
    for _ in 0..TRIES {
        // Every RandomState has keys of its own, which makes it the randomness that std offers.
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

//! Checks whether a RabbitMQ serves: opens an AMQP 0-9-1 connection up to an open virtual host.
//!
//! Deliberately absent: everything after that.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A server on the loopback address that does not answer within this is not ready.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

const CONNECTION: u16 = 10;
const START: u16 = 10;
const START_OK: u16 = 11;
const TUNE: u16 = 30;
const TUNE_OK: u16 = 31;
const OPEN: u16 = 40;
const OPEN_OK: u16 = 41;
const METHOD_FRAME: u8 = 1;
const FRAME_END: u8 = 0xCE;

/// Logs in as guest on the virtual host `/`.
///
/// # Errors
/// When the server does not listen, refuses, or sends an unexpected answer.
pub(crate) fn log_in(port: u16) -> io::Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWERS_WITHIN)?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    stream.set_write_timeout(Some(ANSWERS_WITHIN))?;
    stream.write_all(b"AMQP\0\0\x09\x01")?;
    expect(&mut stream, START)?;
    // An empty table of client properties, mechanism, response, locale.
    let mut login = vec![0, 0, 0, 0];
    short_string(&mut login, "PLAIN");
    login.extend([0, 0, 0, 12]);
    login.extend(b"\0guest\0guest");
    short_string(&mut login, "en_US");
    send(&mut stream, START_OK, &login)?;
    // The server's proposals (channels, frame size, heartbeat) are accepted.
    let limits = expect(&mut stream, TUNE)?;
    send(&mut stream, TUNE_OK, &limits)?;
    let mut host = Vec::new();
    short_string(&mut host, "/");
    // Two reserved fields: an empty string and a bit.
    host.extend([0, 0]);
    send(&mut stream, OPEN, &host)?;
    expect(&mut stream, OPEN_OK).map(drop)
}

fn short_string(into: &mut Vec<u8>, text: &str) {
    into.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    into.extend(text.as_bytes());
}

fn send(stream: &mut TcpStream, method: u16, arguments: &[u8]) -> io::Result<()> {
    let size = u32::try_from(arguments.len() + 4).map_err(io::Error::other)?;
    let mut frame = vec![METHOD_FRAME, 0, 0];
    frame.extend(size.to_be_bytes());
    frame.extend(CONNECTION.to_be_bytes());
    frame.extend(method.to_be_bytes());
    frame.extend(arguments);
    frame.push(FRAME_END);
    stream.write_all(&frame)
}

/// Reads a method of the connection and returns its arguments.
fn expect(stream: &mut TcpStream, method: u16) -> io::Result<Vec<u8>> {
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    // The server's greeting is around 500 bytes; anything huge is not AMQP.
    if head[0] != METHOD_FRAME || !(4..65_536).contains(&size) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("not AMQP: {head:?}")));
    }
    let mut payload = vec![0; usize::try_from(size).map_err(io::Error::other)? + 1];
    stream.read_exact(&mut payload)?;
    let found = [payload[0], payload[1], payload[2], payload[3]];
    let [a, b] = CONNECTION.to_be_bytes();
    let [c, d] = method.to_be_bytes();
    if found != [a, b, c, d] || payload.pop() != Some(FRAME_END) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("expected method {CONNECTION}.{method}, got {found:?}"),
        ));
    }
    Ok(payload.split_off(4))
}

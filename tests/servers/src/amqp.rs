//! Checks whether a RabbitMQ serves, and what its users may do, over AMQP 0-9-1.
//!
//! It opens a connection up to an open virtual host, and a channel for one operation. Deliberately
//! absent: everything else.

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
const HEADER_FRAME: u8 = 2;
const BODY_FRAME: u8 = 3;
const FRAME_END: u8 = 0xCE;

const CHANNEL: u16 = 20;
const QUEUE: u16 = 50;
const BASIC: u16 = 60;
const CHANNEL_CLOSE: [u8; 4] = [0, 20, 0, 40];

/// What a user tries to do.
#[derive(Clone, Copy, Debug)]
pub enum AmqpAttempt<'a> {
    /// Declare a durable queue of this name.
    Declare(&'a str),
    /// Get a message from this queue, and leave it there.
    Get(&'a str),
    /// Publish an empty message to this exchange with a routing key that no queue has.
    Publish(&'a str),
}

/// Tries something as a user of the virtual host `/`; the inner error is the server's refusal.
///
/// # Errors
/// When the server does not listen, refuses the login, or sends an unexpected answer.
pub(crate) fn attempt(
    port: u16,
    (user, password): (&str, &str),
    attempt: AmqpAttempt<'_>,
) -> io::Result<Result<(), String>> {
    let mut stream = open(port, user, password)?;
    // Channel 1, with a reserved argument.
    send_on(&mut stream, METHOD_FRAME, 1, &method(CHANNEL, 10, &[0]))?;
    read_frame(&mut stream)?;
    let mut name = vec![0, 0];
    let (class, number, arguments) = match attempt {
        AmqpAttempt::Declare(queue) => {
            short_string(&mut name, queue);
            // Durable; no arguments.
            name.extend([0b10, 0, 0, 0, 0]);
            (QUEUE, 10, name)
        }
        AmqpAttempt::Get(queue) => {
            short_string(&mut name, queue);
            name.push(0);
            (BASIC, 70, name)
        }
        AmqpAttempt::Publish(exchange) => {
            short_string(&mut name, exchange);
            short_string(&mut name, "nowhere");
            name.push(0);
            (BASIC, 40, name)
        }
    };
    send_on(&mut stream, METHOD_FRAME, 1, &method(class, number, &arguments))?;
    if let AmqpAttempt::Publish(_) = attempt {
        let mut header = BASIC.to_be_bytes().to_vec();
        // No weight, a body of one byte, no properties.
        header.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
        send_on(&mut stream, HEADER_FRAME, 1, &header)?;
        send_on(&mut stream, BODY_FRAME, 1, b"x")?;
        // A publish has no answer; the one to this comes after a refusal.
        send_on(&mut stream, METHOD_FRAME, 1, &method(BASIC, 10, &[0, 0, 0, 0, 0, 1, 0]))?;
    }
    let answer = read_frame(&mut stream)?;
    match answer.strip_prefix(&CHANNEL_CLOSE) {
        // A code, and a short string.
        Some([_, _, _, text @ ..]) => Ok(Err(String::from_utf8_lossy(text).into_owned())),
        _ => Ok(Ok(())),
    }
}

/// Logs in as guest on the virtual host `/`.
///
/// # Errors
/// When the server does not listen, refuses, or sends an unexpected answer.
pub(crate) fn log_in(port: u16) -> io::Result<()> {
    open(port, "guest", "guest").map(drop)
}

/// An open connection to the virtual host `/`.
fn open(port: u16, user: &str, password: &str) -> io::Result<TcpStream> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWERS_WITHIN)?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    stream.set_write_timeout(Some(ANSWERS_WITHIN))?;
    stream.write_all(b"AMQP\0\0\x09\x01")?;
    expect(&mut stream, START)?;
    // An empty table of client properties, mechanism, response, locale.
    let mut login = vec![0, 0, 0, 0];
    short_string(&mut login, "PLAIN");
    let response = format!("\0{user}\0{password}");
    let size = u32::try_from(response.len()).map_err(io::Error::other)?;
    login.extend(size.to_be_bytes());
    login.extend(response.as_bytes());
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
    expect(&mut stream, OPEN_OK)?;
    Ok(stream)
}

/// The payload of a frame with a method.
fn method(class: u16, number: u16, arguments: &[u8]) -> Vec<u8> {
    [&class.to_be_bytes(), &number.to_be_bytes(), arguments].concat()
}

fn send_on(stream: &mut TcpStream, kind: u8, channel: u16, payload: &[u8]) -> io::Result<()> {
    let size = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut frame = vec![kind];
    frame.extend(channel.to_be_bytes());
    frame.extend(size.to_be_bytes());
    frame.extend(payload);
    frame.push(FRAME_END);
    stream.write_all(&frame)
}

/// The payload of the next frame.
fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut payload = vec![0; usize::try_from(size).map_err(io::Error::other)? + 1];
    stream.read_exact(&mut payload)?;
    payload.pop();
    Ok(payload)
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

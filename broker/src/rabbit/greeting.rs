//! Reads the server's product and version from its greeting, the frame `connection.start`.
//!
//! lapin does not expose the greeting, so this opens a connection of its own, and closes it before
//! the login.
//!
//! Deliberately absent: everything after the greeting, and TLS.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEADER: &[u8] = b"AMQP\0\0\x09\x01";
const METHOD_FRAME: u8 = 1;
/// `connection` is class 10, `start` its method 10.
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];
/// Longest greeting, bytes. RabbitMQ's has some 500; a longer one is not AMQP.
const LONGEST: u32 = 64 * 1024;

/// The server's product and version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) product: String,
    pub(crate) version: String,
}

/// Sends the protocol header and reads the greeting.
pub(crate) async fn greet(stream: &mut TcpStream) -> io::Result<Greeting> {
    stream.write_all(HEADER).await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    if head[0] != METHOD_FRAME || size > LONGEST {
        return Err(not_amqp());
    }
    let mut payload = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    stream.read_exact(&mut payload).await?;
    parse(&payload).ok_or_else(not_amqp)
}

fn not_amqp() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the server does not speak AMQP 0-9-1")
}

/// Parses the method, two bytes of protocol version and the table of properties; the rest is not
/// needed.
fn parse(payload: &[u8]) -> Option<Greeting> {
    let rest = payload.strip_prefix(&CONNECTION_START)?.get(2..)?;
    let (mut table, _) = long(rest)?;
    let (mut product, mut version) = (None, None);
    while let Some((&length, rest)) = table.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(length))?;
        let (&kind, rest) = rest.split_first()?;
        let (value, rest) = match kind {
            b'S' | b'F' => long(rest)?,
            b't' => rest.split_at_checked(1)?,
            // RabbitMQ sends no other type, and the size of an unknown one is unknown.
            _ => return None,
        };
        let text = || Some(String::from_utf8_lossy(value).into_owned());
        match name {
            b"product" => product = text(),
            b"version" => version = text(),
            _ => {}
        }
        table = rest;
    }
    Some(Greeting { product: product?, version: version? })
}

/// Splits off a field with a length of four bytes; gives the field and the rest.
fn long(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, u8, &[u8])]) -> Vec<u8> {
        let mut table = Vec::new();
        for (name, kind, value) in entries {
            table.push(u8::try_from(name.len()).expect("short"));
            table.extend(name.as_bytes());
            table.push(*kind);
            if *kind != b't' {
                table.extend(u32::try_from(value.len()).expect("small").to_be_bytes());
            }
            table.extend(*value);
        }
        let mut sized = u32::try_from(table.len()).expect("small").to_be_bytes().to_vec();
        sized.append(&mut table);
        sized
    }

    fn payload(properties: &[u8]) -> Vec<u8> {
        [&CONNECTION_START[..], &[0, 9], properties, b"\0\0\0\x05PLAIN"].concat()
    }

    #[test]
    fn product_and_version_are_found_among_other_properties() {
        let properties = table(&[
            ("capabilities", b'F', b"\x05basic"),
            ("cluster", b't', b"\x01"),
            ("product", b'S', b"RabbitMQ"),
            ("version", b'S', b"3.10.8"),
        ]);
        let expected = Greeting { product: "RabbitMQ".to_owned(), version: "3.10.8".to_owned() };
        assert_eq!(parse(&payload(&properties)), Some(expected));
    }

    #[test]
    fn anything_else_is_no_greeting() {
        assert_eq!(parse(b"HTTP/1.1 400 Bad Request"), None);
        assert_eq!(parse(&payload(&table(&[("product", b'S', b"RabbitMQ")]))), None);
        let whole = payload(&table(&[("product", b'S', b"RabbitMQ"), ("version", b'S', b"4")]));
        for end in 0..whole.len() - b"\0\0\0\x05PLAIN".len() {
            assert_eq!(parse(&whole[..end]), None, "cut after {end} bytes");
        }
    }
}

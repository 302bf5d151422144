//! Sends one command to Redis and reads the reply: as much of RESP2 as tests need.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A server on the loopback address that does not answer within this counts as down.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// A reply of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A simple or a bulk string; bytes that are not UTF-8 are replaced.
    Text(String),
    /// An integer.
    Int(i64),
    /// The null of both kinds.
    Nil,
    /// An array.
    List(Vec<Reply>),
    /// An error, which starts with its code.
    Error(String),
}

impl Reply {
    /// The text of a string, the digits of an integer, `None` for everything else.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Int(number) => Some(number.to_string()),
            Self::Nil | Self::List(_) | Self::Error(_) => None,
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Error(text) => f.write_str(text),
            Self::Int(number) => write!(f, "{number}"),
            Self::Nil => f.write_str("(nil)"),
            Self::List(list) => f.debug_list().entries(list).finish(),
        }
    }
}

/// Sends one command over a new connection.
pub(crate) fn call(port: u16, command: &[&str]) -> io::Result<Reply> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWERS_WITHIN)?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    stream.set_write_timeout(Some(ANSWERS_WITHIN))?;
    let mut request = format!("*{}\r\n", command.len());
    for word in command {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes())?;
    read_reply(&mut BufReader::new(stream))
}

fn read_reply(from: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end();
    let Some((kind, rest)) = line.split_at_checked(1) else {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no reply"));
    };
    match kind {
        "+" => Ok(Reply::Text(rest.to_owned())),
        "-" => Ok(Reply::Error(rest.to_owned())),
        ":" => rest.parse().map(Reply::Int).map_err(|_| unreadable(line)),
        "$" => match usize::try_from(length(rest, line)?) {
            Err(_) => Ok(Reply::Nil),
            Ok(length) => {
                let mut bytes = vec![0; length + "\r\n".len()];
                from.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
        },
        "*" => match usize::try_from(length(rest, line)?) {
            Err(_) => Ok(Reply::Nil),
            Ok(length) => {
                (0..length).map(|_| read_reply(from)).collect::<Result<_, _>>().map(Reply::List)
            }
        },
        _ => Err(unreadable(line)),
    }
}

/// Parses a length; negative means null.
fn length(digits: &str, line: &str) -> io::Result<i64> {
    digits.parse().map_err(|_| unreadable(line))
}

fn unreadable(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP: {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wire: &str, expected: &Reply) {
        let reply = read_reply(&mut wire.as_bytes()).expect("a readable reply");
        assert_eq!(&reply, expected);
    }

    #[test]
    fn replies_of_every_kind_are_read() {
        check("+PONG\r\n", &Reply::Text("PONG".into()));
        check("-ERR no\r\n", &Reply::Error("ERR no".into()));
        check(":-7\r\n", &Reply::Int(-7));
        check("$4\r\na\r\nb\r\n", &Reply::Text("a\r\nb".into()));
        check("$-1\r\n", &Reply::Nil);
        check(
            "*2\r\n:1\r\n*1\r\n$0\r\n\r\n",
            &Reply::List(vec![Reply::Int(1), Reply::List(vec![Reply::Text(String::new())])]),
        );
    }

    #[test]
    fn an_empty_answer_is_an_error() {
        let error = read_reply(&mut "".as_bytes()).expect_err("nothing to read");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

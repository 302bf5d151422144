//! Links of chaos tests cut, delay and reset connections as a network does.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use longshore_chaos::link::{Direction, Link, LinkState};

const LONG: Duration = Duration::from_secs(30);

/// Long enough for a byte on an open link, short enough for a test that expects none.
const SHORT: Duration = Duration::from_millis(300);

/// Both ends of a connection over a link, and the link.
fn connection() -> (TcpStream, TcpStream, Link) {
    let server = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let link = Link::to(server.local_addr().expect("an address").port());
    let process = TcpStream::connect(("127.0.0.1", link.port())).expect("the link listens");
    let (server, _) = server.accept().expect("the link connects");
    (process, server, link)
}

/// Sends a byte; returns whether it arrives within a time.
#[track_caller]
fn passes(from: &mut TcpStream, to: &mut TcpStream, within: Duration) -> bool {
    from.write_all(b"x").expect("a link takes bytes");
    arrives(to, within)
}

#[track_caller]
fn arrives(to: &mut TcpStream, within: Duration) -> bool {
    to.set_read_timeout(Some(within)).expect("a socket");
    match to.read(&mut [0]) {
        Ok(count) => count == 1,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn bytes_on_a_cut_link_arrive_once_it_is_open_again() {
    let (mut process, mut server, link) = connection();
    assert!(passes(&mut process, &mut server, LONG));
    assert!(passes(&mut server, &mut process, LONG));
    link.set(LinkState::CUT);
    assert!(!passes(&mut process, &mut server, SHORT));
    assert!(!passes(&mut server, &mut process, SHORT));
    link.set(LinkState::OPEN);
    assert!(arrives(&mut server, LONG));
    assert!(arrives(&mut process, LONG));
}

#[test]
fn one_direction_can_be_stuck_alone() {
    let (mut process, mut server, link) = connection();
    link.set(LinkState { to_server: Direction::Stuck, to_process: Direction::Flows });
    assert!(!passes(&mut process, &mut server, SHORT));
    assert!(passes(&mut server, &mut process, LONG));
    link.set(LinkState::slow(Duration::from_millis(20)));
    assert!(arrives(&mut server, LONG));
}

#[test]
fn a_reset_reaches_both_ends_and_new_connections_work() {
    let (mut process, mut server, link) = connection();
    assert!(passes(&mut process, &mut server, LONG));
    link.reset();
    for end in [&mut process, &mut server] {
        end.set_read_timeout(Some(LONG)).expect("a socket");
        let error = end.read(&mut [0]).expect_err("the connection is reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    TcpStream::connect(("127.0.0.1", link.port())).expect("the link still listens");
}

#[test]
fn closing_one_end_closes_the_other() {
    let (process, mut server, _link) = connection();
    drop(process);
    server.set_read_timeout(Some(LONG)).expect("a socket");
    assert_eq!(server.read(&mut [0]).expect("an end, not a failure"), 0);
}

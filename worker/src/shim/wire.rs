//! Encodes and decodes what worker and shim send each other over a pair of sockets.
//!
//! A request is a letter; [`START`] carries the three pipes of the command, and a length and a
//! [`Request`] follow. A reply is a letter and a number. Both ends are the same program, so there
//! is no version.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// Run a command. At most one runs at a time.
pub(super) const START: u8 = b'S';
/// Ask the command and all processes that it started to end, and kill them later.
pub(super) const END: u8 = b'E';
/// Kill the command and all processes that it started.
pub(super) const KILL: u8 = b'K';

/// The shim is ready.
pub(super) const READY: u8 = b'r';
/// The command runs.
pub(super) const STARTED: u8 = b's';
/// The command could not be started; the number is the system's error.
pub(super) const FAILED: u8 = b'f';
/// The command itself has ended; the number is its wait status.
pub(super) const EXITED: u8 = b'x';
/// No process of the command is left; the shim is idle again. Sent once for each command.
pub(super) const EMPTY: u8 = b'e';

/// The bytes of a reply.
pub(super) const REPLY: usize = 5;

/// The longest request, bytes: more than the system allows for arguments and environment.
const LONGEST: usize = 8 << 20;

/// The number of a command's pipes.
const PIPES: usize = 3;

/// The command to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Program and arguments; never empty.
    pub(crate) argv: Vec<String>,
    /// Added to the shim's environment.
    pub(crate) env: Vec<(String, String)>,
    /// The working directory; the worker's own unless set.
    pub(crate) cwd: Option<PathBuf>,
}

/// Standard input, output and error of a command.
pub(super) type Stdio = [OwnedFd; PIPES];

/// Sends the letter of [`START`] with the pipes; the rest of the request follows as plain bytes.
pub(super) fn send_pipes(socket: BorrowedFd<'_>, pipes: &Stdio) -> io::Result<()> {
    let pipes = pipes.each_ref().map(AsFd::as_fd);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PIPES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = control.push(SendAncillaryMessage::ScmRights(&pipes));
    debug_assert!(fits, "the space was measured");
    sendmsg(socket, &[IoSlice::new(&[START])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The bytes that follow the letter of [`START`].
pub(super) fn body(request: &Request) -> Vec<u8> {
    let json = serde_json::to_vec(request).expect("it is plain data");
    let length = u32::try_from(json.len()).expect("a configuration is shorter");
    [&length.to_le_bytes(), json.as_slice()].concat()
}

/// The next letter, with pipes if there are any; `None` when the worker is gone.
pub(super) fn receive(socket: &UnixStream) -> io::Result<Option<(u8, Option<Stdio>)>> {
    let mut letter = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PIPES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let slice = &mut [IoSliceMut::new(&mut letter)];
    let received = recvmsg(socket, slice, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut pipes = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            pipes.extend(fds);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((letter[0], pipes.try_into().ok())))
}

/// Reads the bytes that follow the letter of [`START`].
pub(super) fn read_body(mut socket: &UnixStream) -> io::Result<Request> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut json = vec![0; length];
    socket.read_exact(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

/// The bytes of a reply.
pub(super) fn reply(letter: u8, number: i32) -> [u8; REPLY] {
    let [a, b, c, d] = number.to_le_bytes();
    [letter, a, b, c, d]
}

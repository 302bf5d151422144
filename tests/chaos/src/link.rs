//! A TCP proxy between a process and a server that a test can cut, slow down or reset.
//!
//! ```text
//!   process ──▶ Link ──▶ server        each direction: flows, is stuck, or is slow
//! ```
//!
//! A stuck direction behaves like a cut cable: sent bytes stay on the way, neither end is notified,
//! and the bytes arrive once the direction flows again, as with TCP retransmissions. It can't
//! simulate a connection attempt without an answer: the attempt succeeds, and then nothing arrives.
//!
//! Deliberately absent: knowledge of the protocol; the link of a broken build has a `FrameRewriter`
//! for that.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::mutant::{FrameRewriter, Mutant};

/// The size of a read, larger than any message of the tests.
const BUFFER: usize = 64 << 10;

/// The state of one direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Bytes pass.
    #[default]
    Flows,
    /// Nothing passes; bytes on the way wait.
    Stuck,
    /// Each read arrives this much later.
    Slow(Duration),
}

/// The state of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// From the process to the server.
    pub to_server: Direction,
    /// From the server to the process.
    pub to_process: Direction,
}

impl LinkState {
    /// Everything passes.
    pub const OPEN: Self = Self { to_server: Direction::Flows, to_process: Direction::Flows };
    /// Nothing passes.
    pub const CUT: Self = Self { to_server: Direction::Stuck, to_process: Direction::Stuck };

    /// Both directions are slow.
    pub const fn slow(delay: Duration) -> Self {
        Self { to_server: Direction::Slow(delay), to_process: Direction::Slow(delay) }
    }
}

/// A link to a server on this machine.
#[derive(Debug)]
pub struct Link {
    port: u16,
    state: watch::Sender<LinkState>,
    resets: watch::Sender<u64>,
    mutated: Arc<AtomicU64>,
    listening: JoinHandle<()>,
}

impl Link {
    /// A link to a port of 127.0.0.1, which may have no listener.
    ///
    /// # Panics
    /// When no port is free.
    pub fn to(server: u16) -> Self {
        Self::mutating(server, None)
    }

    /// [`Link::to`] a RabbitMQ, on which the process behaves as a broken build.
    ///
    /// # Panics
    /// When no port is free.
    pub fn mutating(server: u16, mutant: Option<Mutant>) -> Self {
        let listener =
            runtime().block_on(TcpListener::bind(("127.0.0.1", 0))).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let state = watch::Sender::new(LinkState::OPEN);
        let resets = watch::Sender::new(0);
        let mutated = Arc::new(AtomicU64::new(0));
        let far = Far { server, mutant, mutated: mutated.clone() };
        let listening = runtime().spawn(listen(listener, far, state.clone(), resets.clone()));
        Self { port, state, resets, mutated, listening }
    }

    /// The port that the process connects to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets the state of the link for current and future connections.
    pub fn set(&self, state: LinkState) {
        self.state.send_replace(state);
    }

    /// Breaks all current connections with a TCP reset on both sides.
    pub fn reset(&self) {
        self.resets.send_modify(|count| *count += 1);
    }

    /// How many frames were changed or dropped so far.
    pub fn mutated(&self) -> u64 {
        self.mutated.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The task owns the connections, so they end with it.
        self.listening.abort();
    }
}

/// The runtime of all links of a test.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("links").enable_all();
        builder.build().expect("threads for the links")
    })
}

/// The server of a link, and the mutant on the way.
#[derive(Clone)]
struct Far {
    server: u16,
    mutant: Option<Mutant>,
    mutated: Arc<AtomicU64>,
}

async fn listen(
    listener: TcpListener,
    far: Far,
    state: watch::Sender<LinkState>,
    resets: watch::Sender<u64>,
) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((process, _)) = listener.accept().await {
            connections.spawn(connect(process, far.clone(), state.subscribe(), resets.subscribe()));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Forwards one connection until either end closes it or it is reset. Also resets it if the server
/// does not accept.
async fn connect(
    mut process: TcpStream,
    far: Far,
    state: watch::Receiver<LinkState>,
    mut resets: watch::Receiver<u64>,
) {
    let address = SocketAddr::from(([127, 0, 0, 1], far.server));
    let Ok(mut server) = TcpStream::connect(address).await else {
        return drop(process.set_zero_linger());
    };
    let _ = (process.set_nodelay(true), server.set_nodelay(true));
    let was_reset = {
        let (from_process, to_process) = process.split();
        let (from_server, to_server) = server.split();
        let mut rewriter = far.mutant.map(FrameRewriter::new);
        let rewrite = |sent: &mut Vec<u8>| {
            if let Some(rewriter) = &mut rewriter {
                let (rewritten, count) = rewriter.rewrite(sent);
                sent.clear();
                sent.extend(rewritten);
                far.mutated.fetch_add(count, Ordering::Relaxed);
            }
        };
        tokio::select! {
            // First, so that bytes stuck at the reset don't pass if the link is opened at the same
            // time.
            biased;
            changed = resets.changed() => match changed {
                Ok(()) => true,
                Err(_) => pending().await,
            },
            _ = pump(from_process, to_server, state.clone(), |now| now.to_server, rewrite) => false,
            _ = pump(from_server, to_process, state, |now| now.to_process, |_| ()) => false,
        }
    };
    if was_reset {
        let _ = (process.set_zero_linger(), server.set_zero_linger());
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<LinkState>,
    direction: fn(&LinkState) -> Direction,
    mut rewrite: impl FnMut(&mut Vec<u8>),
) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        state.wait_for(|now| direction(now) != Direction::Stuck).await.map_err(gone)?;
        let count = tokio::select! {
            count = from.read_buf(&mut buffer) => count?,
            changed = state.changed() => {
                changed.map_err(gone)?;
                continue;
            }
        };
        if count == 0 {
            return Ok(());
        }
        rewrite(&mut buffer);
        let delay = match direction(&state.borrow()) {
            Direction::Slow(delay) => delay,
            Direction::Flows | Direction::Stuck => Duration::ZERO,
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        state.wait_for(|now| direction(now) != Direction::Stuck).await.map_err(gone)?;
        to.write_all(&buffer).await?;
    }
}

//! A network link that can be broken: a TCP proxy between a process and a server.
//!
//! ```text
//!   process ──▶ Link ──▶ server        each direction: flows, is stuck, or is slow
//! ```
//!
//! A stuck direction behaves as a cut cable does: what was sent stays on the way, neither end learns anything, and it arrives
//! once the direction flows again, as TCP's retransmissions see to. What it can't show is a connection attempt that gets no
//! answer at all: the attempt succeeds and then hears nothing.
//!
//! Deliberately absent: knowledge of what flows; a broken build's link has a `Forger` for that.

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

use crate::forge::{Forger, Forgery};

/// Read at once; more than any message of ours.
const BUFFER: usize = 64 << 10;

/// How one direction of a link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lane {
    /// Bytes pass.
    #[default]
    Flows,
    /// Nothing passes; what is on the way waits.
    Stuck,
    /// Whatever is read together arrives this much later.
    Slow(Duration),
}

/// How a link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// From the process to the server.
    pub out: Lane,
    /// From the server to the process.
    pub back: Lane,
}

impl Weather {
    /// Everything passes.
    pub const FAIR: Self = Self { out: Lane::Flows, back: Lane::Flows };
    /// Nothing passes.
    pub const CUT: Self = Self { out: Lane::Stuck, back: Lane::Stuck };

    /// Both directions are slow.
    pub const fn slow(delay: Duration) -> Self {
        Self { out: Lane::Slow(delay), back: Lane::Slow(delay) }
    }
}

/// A link to a server on this machine.
#[derive(Debug)]
pub struct Link {
    port: u16,
    weather: watch::Sender<Weather>,
    resets: watch::Sender<u64>,
    forged: Arc<AtomicU64>,
    listening: JoinHandle<()>,
}

impl Link {
    /// A link to a port of 127.0.0.1, whether somebody listens there or not.
    ///
    /// # Panics
    /// When no port is free.
    pub fn to(server: u16) -> Self {
        Self::forging(server, None)
    }

    /// [`Link::to`] a RabbitMQ, to which the process seems to be a broken build of itself.
    ///
    /// # Panics
    /// When no port is free.
    pub fn forging(server: u16, forgery: Option<Forgery>) -> Self {
        let listener =
            runtime().block_on(TcpListener::bind(("127.0.0.1", 0))).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let weather = watch::Sender::new(Weather::FAIR);
        let resets = watch::Sender::new(0);
        let forged = Arc::new(AtomicU64::new(0));
        let far = Far { server, forgery, forged: forged.clone() };
        let listening = runtime().spawn(listen(listener, far, weather.clone(), resets.clone()));
        Self { port, weather, resets, forged, listening }
    }

    /// Where the process connects to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes how it is, for connections that stand and for those to come.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Breaks every connection that stands with a TCP reset on both sides.
    pub fn reset(&self) {
        self.resets.send_modify(|count| *count += 1);
    }

    /// How many frames were forged so far.
    pub fn forged(&self) -> u64 {
        self.forged.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The connections are this task's, and go with it.
        self.listening.abort();
    }
}

/// What all links of a test run on, whichever thread makes them.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("links").enable_all();
        builder.build().expect("threads for the links")
    })
}

/// Where a link leads, and what becomes of the way there.
#[derive(Clone)]
struct Far {
    server: u16,
    forgery: Option<Forgery>,
    forged: Arc<AtomicU64>,
}

async fn listen(
    listener: TcpListener,
    far: Far,
    weather: watch::Sender<Weather>,
    resets: watch::Sender<u64>,
) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((process, _)) = listener.accept().await {
            connections.spawn(connect(
                process,
                far.clone(),
                weather.subscribe(),
                resets.subscribe(),
            ));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, until either end closes it or it is reset. A reset is also what a server that is away answers.
async fn connect(
    mut process: TcpStream,
    far: Far,
    weather: watch::Receiver<Weather>,
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
        let mut forger = far.forgery.map(Forger::new);
        let forge = |sent: &mut Vec<u8>| {
            if let Some(forger) = &mut forger {
                let (told, forged) = forger.forge(sent);
                sent.clear();
                sent.extend(told);
                far.forged.fetch_add(forged, Ordering::Relaxed);
            }
        };
        tokio::select! {
            // First: what was stuck when the link was reset must not get through because the weather is fair again.
            biased;
            changed = resets.changed() => match changed {
                Ok(()) => true,
                Err(_) => pending().await,
            },
            _ = pump(from_process, to_server, weather.clone(), |w| w.out, forge) => false,
            _ = pump(from_server, to_process, weather, |w| w.back, |_| ()) => false,
        }
    };
    if was_reset {
        let _ = (process.set_zero_linger(), server.set_zero_linger());
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut weather: watch::Receiver<Weather>,
    lane: fn(&Weather) -> Lane,
    mut forge: impl FnMut(&mut Vec<u8>),
) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        weather.wait_for(|now| lane(now) != Lane::Stuck).await.map_err(gone)?;
        let count = tokio::select! {
            count = from.read_buf(&mut buffer) => count?,
            changed = weather.changed() => {
                changed.map_err(gone)?;
                continue;
            }
        };
        if count == 0 {
            return Ok(());
        }
        forge(&mut buffer);
        let delay = match lane(&weather.borrow()) {
            Lane::Slow(delay) => delay,
            Lane::Flows | Lane::Stuck => Duration::ZERO,
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        weather.wait_for(|now| lane(now) != Lane::Stuck).await.map_err(gone)?;
        to.write_all(&buffer).await?;
    }
}

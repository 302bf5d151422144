//! Connects over TCP or TLS, and repairs incoming frames so that lapin can parse them.
//!
//! The repairs are those of `sanitizer`. lapin takes its streams from a runtime kit; the one here
//! is tokio's with another type of stream.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::{AsyncRead, AsyncWrite, Stream};
use lapin::uri::{AMQPScheme, AMQPUri};
use longshore_tls::TlsFiles;
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncReadCompatExt;
use tracing::warn;

use super::sanitizer::{Change, Sanitizer};

/// Size of the read buffer, bytes: a few deliveries of chunks.
const READ: usize = 16 << 10;

/// A byte stream in both directions: TCP, or TLS over TCP.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A connected stream, plain or with TLS, whose frames lapin can parse.
pub(crate) struct Transport {
    stream: Box<dyn Duplex>,
    sanitizer: Sanitizer,
    read: Box<[u8]>,
    /// Sanitized bytes; those from `handed` on are still to be passed on.
    ready: Vec<u8>,
    handed: usize,
}

impl Transport {
    /// Connects to the host of the URI; also gives a second handle of the socket. Must be awaited
    /// on tokio's runtime.
    pub(crate) async fn connect(
        uri: &AMQPUri,
        tls: &TlsFiles,
    ) -> io::Result<(Self, std::net::TcpStream)> {
        let runtime = Runtime::tokio_current();
        let target = (uri.authority.host.as_str(), uri.authority.port);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut connected = None;
        // Not through lapin's runtime kit, which panics when tokio gives up a look-up.
        for address in tokio::net::lookup_host(target).await? {
            match runtime.tcp_connect_addr(address).await {
                Ok(stream) => {
                    connected = Some(stream);
                    break;
                }
                Err(error) => last = error,
            }
        }
        let Some(stream) = connected else { return Err(last) };
        let socket = stream.get_ref().as_fd().try_clone_to_owned()?.into();
        let stream: Box<dyn Duplex> = match uri.scheme {
            AMQPScheme::AMQP => Box::new(stream),
            AMQPScheme::AMQPS => {
                let stream: TcpStream = stream.into_inner();
                Box::new(longshore_tls::connect(&uri.authority.host, stream, tls).await?.compat())
            }
        };
        Ok((Self::over(stream, uri.query.frame_max), socket))
    }

    /// No frame that is passed on is longer than `frame_max`; absent and 0 mean no limit.
    fn over(stream: Box<dyn Duplex>, frame_max: Option<u32>) -> Self {
        let frame_max = frame_max.filter(|most| *most > 0).unwrap_or(u32::MAX) as usize;
        let (sanitizer, read) = (Sanitizer::new(frame_max), vec![0; READ].into());
        Self { stream, sanitizer, read, ready: Vec::new(), handed: 0 }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, sanitizer, read, ready, handed } = self.get_mut();
        while *handed == ready.len() {
            ready.clear();
            *handed = 0;
            let count = ready!(Pin::new(&mut *stream).poll_read(cx, read))?;
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            match sanitizer.take(&read[..count], ready) {
                Some(Change::Replaced) => {
                    warn!("a message has properties that are not UTF-8; replaced the bytes by `?`");
                }
                Some(Change::Dropped) => {
                    warn!("a message has unreadable or oversized properties; dropped them");
                }
                None => {}
            }
        }
        let waiting = &ready[*handed..];
        let count = waiting.len().min(buffer.len());
        buffer[..count].copy_from_slice(&waiting[..count]);
        *handed += count;
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}

/// The runtime kit for lapin: tokio, with [`Transport`] as the stream.
pub(crate) type Kit = RuntimeParts<Tokio, Sanitizing>;

/// The caller's runtime.
pub(crate) fn runtime() -> Runtime<Kit> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), Sanitizing(tokio)))
}

/// Tokio's reactor with another type of stream.
#[derive(Clone, Debug)]
pub(crate) struct Sanitizing(Tokio);

impl Reactor for Sanitizing {
    type TcpStream = Transport;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, period: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(period)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Transport>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move { Ok(Transport::over(Box::new(connecting.await?), None)) }
    }
}

//! The byte stream below HTTP: TCP, TLS over TCP, or TLS through a TLS proxy. It counts what is read, since a request
//! may be replayed only when not one byte of an answer came, and it is the RAII count of open connections.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Counters of one client, shared by its connections.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) open: AtomicUsize,
    pub(crate) opened: AtomicU64,
    pub(crate) in_flight: AtomicUsize,
    /// The sweeper's rounds: the pool's clock, which costs a request nothing.
    pub(crate) ticks: AtomicU64,
}

/// What is known of one connection from outside its task.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    bytes_read: AtomicU64,
    writing: AtomicBool,
}

impl Meter {
    /// Bytes of plaintext read so far. Relaxed is enough: the error that asks for it came through a channel from the
    /// task that read.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Whether something was written and not yet flushed, which HTTP does once it has no more to write.
    pub(crate) fn is_writing(&self) -> bool {
        self.writing.load(Ordering::Relaxed)
    }
}

/// The layers that may lie below HTTP.
pub(crate) enum Layers {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    TlsInTls(Box<TlsStream<TlsStream<TcpStream>>>),
}

/// One open connection.
pub(crate) struct Transport {
    layers: Layers,
    meter: Arc<Meter>,
    counters: Arc<Counters>,
}

impl Transport {
    pub(crate) fn new(layers: Layers, counters: Arc<Counters>) -> Self {
        counters.open.fetch_add(1, Ordering::Relaxed);
        counters.opened.fetch_add(1, Ordering::Relaxed);
        Self { layers, meter: Arc::default(), counters }
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Calls one method of whichever layer is there; every layer is `Unpin`.
macro_rules! each {
    ($transport:expr, $io:ident => $call:expr) => {
        match &mut $transport.get_mut().layers {
            Layers::Tcp(io) => {
                let $io = Pin::new(io);
                $call
            }
            Layers::Tls(io) => {
                let $io = Pin::new(io.as_mut());
                $call
            }
            Layers::TlsInTls(io) => {
                let $io = Pin::new(io.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = each!(Pin::new(&mut *this), io => io.poll_read(cx, buf));
        let read = buf.filled().len() - before;
        if read > 0 {
            // One task reads a connection, so load and store do without the locked instruction.
            let bytes = this.meter.bytes_read.load(Ordering::Relaxed) + read as u64;
            this.meter.bytes_read.store(bytes, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.meter.writing.store(true, Ordering::Relaxed);
        each!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.meter.writing.store(true, Ordering::Relaxed);
        each!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.layers {
            Layers::Tcp(io) => io.is_write_vectored(),
            Layers::Tls(io) => io.is_write_vectored(),
            Layers::TlsInTls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = each!(Pin::new(&mut *this), io => io.poll_flush(cx));
        this.meter.writing.store(flushed.is_pending(), Ordering::Relaxed);
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_shutdown(cx))
    }
}

//! The mock as a running server: sockets, TLS, HTTP/1.1 and HTTP/2 on one port. Every request goes on
//! to `service`.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::ledger::{Connection, Ledger, MockStats, Received};
use crate::rules::{Playbook, ScriptFile};
use crate::service::{Shared, handle};
use crate::tls::MockTls;

/// Largest header block taken over HTTP/2, in bytes: scripts travel in a header.
const MAX_HEADER_BYTES: u32 = 1 << 20;

/// How a mock server is started.
#[derive(Debug, Clone)]
pub struct MockOptions {
    /// Address to listen on; port 0 = any free port.
    pub listen: SocketAddr,
    /// Scripts of the requests that bring none.
    pub script: ScriptFile,
    /// Speaks TLS with this certificate; plain text without.
    pub tls: Option<MockTls>,
    /// SETTINGS_MAX_CONCURRENT_STREAMS of HTTP/2 connections; `None` = the HTTP library's default.
    pub http2_max_streams: Option<u32>,
    /// Keeps received requests for assertions.
    pub record: bool,
}

impl Default for MockOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            script: ScriptFile::default(),
            tls: None,
            http2_max_streams: None,
            record: false,
        }
    }
}

/// A running mock server. Dropping it stops it.
pub struct MockServer {
    addr: SocketAddr,
    scheme: &'static str,
    ledger: Arc<Ledger>,
    accepting: JoinHandle<()>,
}

impl MockServer {
    /// Starts a server on the current tokio runtime; it listens when this returns.
    pub async fn start(options: MockOptions) -> io::Result<Self> {
        let acceptor = options.tls.as_ref().map(MockTls::acceptor).transpose()?;
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind(options.listen).await?;
        let addr = listener.local_addr()?;
        let ledger = Arc::new(Ledger::new(options.record));
        let shared =
            Arc::new(Shared { playbook: Playbook::new(options.script), ledger: Arc::clone(&ledger) });
        let mut http = Builder::new(TokioExecutor::new());
        http.http2().max_header_list_size(MAX_HEADER_BYTES);
        if let Some(limit) = options.http2_max_streams {
            http.http2().max_concurrent_streams(limit);
        }
        let port = Arc::new(Port { shared, http, acceptor });
        let accepting = tokio::spawn(accept(listener, port));
        Ok(Self { addr, scheme, ledger, accepting })
    }

    /// Address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Base URL for clients: `http(s)://addr/v1`.
    pub fn base_url(&self) -> String {
        format!("{}://{}/v1", self.scheme, self.addr)
    }

    /// Requests received so far, in order; empty unless they are recorded.
    pub fn received(&self) -> Vec<Received> {
        self.ledger.received()
    }

    /// Counters.
    pub fn stats(&self) -> MockStats {
        self.ledger.stats()
    }

    /// Stops listening and drops every connection.
    pub async fn stop(mut self) {
        self.accepting.abort();
        if !self.accepting.is_finished() {
            // An aborted task ends with an error that says so.
            let _ = (&mut self.accepting).await;
        }
    }

    /// Waits for the end of the accept loop, which only comes with an error.
    pub(crate) async fn closed(&mut self) {
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What every connection of a server shares.
struct Port {
    shared: Arc<Shared>,
    http: Builder<TokioExecutor>,
    acceptor: Option<TlsAcceptor>,
}

async fn accept(listener: TcpListener, port: Arc<Port>) {
    // Owned here, so that stopping this task drops every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => drop(connections.spawn(serve(socket, Arc::clone(&port)))),
                Err(err) => {
                    tracing::warn!(error = %err, "the mock could not accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(socket: TcpStream, port: Arc<Port>) {
    if let Err(err) = socket.set_nodelay(true) {
        tracing::debug!(error = %err, "TCP_NODELAY could not be set");
    }
    let connection = Connection::open(Arc::clone(&port.shared.ledger));
    let socket = Watched { socket, connection: Arc::clone(&connection) };
    let serving = async {
        let result = match &port.acceptor {
            None => speak(socket, &port, &connection).await,
            Some(acceptor) => match acceptor.accept(socket).await {
                Ok(stream) => speak(stream, &port, &connection).await,
                Err(err) => Err(err.into()),
            },
        };
        if let Err(err) = result {
            tracing::debug!(error = %err, "a connection to the mock ended with an error");
        }
    };
    // A scripted cut drops the socket with everything on it.
    tokio::select! {
        () = serving => {}
        () = connection.killed() => {}
    }
}

async fn speak<S>(
    stream: S,
    port: &Port,
    connection: &Arc<Connection>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| handle(Arc::clone(&port.shared), Arc::clone(connection), request));
    port.http.serve_connection(TokioIo::new(stream), service).await
}

/// A socket that tells its connection whether the last write had to wait.
struct Watched {
    socket: TcpStream,
    connection: Arc<Connection>,
}

impl Watched {
    fn note<T>(&self, poll: Poll<T>) -> Poll<T> {
        self.connection.write_blocked.store(poll.is_pending(), Ordering::Relaxed);
        poll
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.socket).poll_write(cx, data);
        self.note(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.socket).poll_write_vectored(cx, data);
        self.note(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

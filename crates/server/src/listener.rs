//! The listeners of the data plane: bind, accept, bound, drain.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use magicapi_config::{Listen, ListenSource};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::connection::{self, Serving};
use crate::phase::Phase;
use crate::snapshot::Shared;
use crate::tls::TlsAcceptor;

/// What the kernel may queue before `accept`.
const BACKLOG: i32 = 1024;

/// What a connection that is turned away gets for its request, and again for our answer.
const TURN_AWAY: Duration = Duration::from_secs(2);

/// Pause after an `accept` that failed for want of memory or descriptors, so that it cannot spin.
const BREATH: Duration = Duration::from_millis(50);

/// Binds every address. Of the default pair one loopback may be missing; a named address may not. Port 0 on the first
/// address is a free port, which the others then share.
pub fn bind(listen: &Listen) -> io::Result<Vec<TcpListener>> {
    let mut bound: Vec<TcpListener> = Vec::new();
    let mut chosen = None;
    for address in &listen.addresses {
        let mut address = *address;
        if address.port() == 0
            && let Some(port) = chosen
        {
            address.set_port(port);
        }
        match bind_one(address) {
            Ok(listener) => {
                chosen = chosen.or(listener.local_addr().ok().map(|address| address.port()));
                bound.push(listener);
            }
            Err(error) if listen.source == ListenSource::Default && missing(&error) => {
                tracing::warn!(%address, %error, "this machine lacks a loopback; going on without it");
            }
            Err(error) => {
                let text = format!("cannot listen on {address}: {error}");
                return Err(io::Error::new(error.kind(), text));
            }
        }
    }
    if bound.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "none of the addresses can be listened on",
        ));
    }
    Ok(bound)
}

fn missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        // EAFNOSUPPORT has no kind of its own.
        || error.raw_os_error() == Some(97)
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// How long what is cut may take to end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Accepts on all listeners until the drain's delay is over, then finishes what runs. Returns once every connection
/// has ended or was cut.
pub async fn serve(shared: Arc<Shared>, listeners: Vec<TcpListener>, tls: Option<TlsAcceptor>) {
    let serving = Arc::new(Serving::new(shared.clone(), tls));
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(serving.clone(), listener));
    }
    let mut phase = shared.phases.changes();
    let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
    let drain = shared.snapshot().config.server.drain;
    let _ = tokio::time::timeout(drain.delay, phase.wait_for(|phase| *phase == Phase::Cutting)).await;
    accepting.shutdown().await;
    serving.finish_connections();
    let ended = tokio::time::timeout(drain.timeout, async {
        tokio::select! {
            () = serving.all_ended() => {}
            _ = phase.wait_for(|phase| *phase == Phase::Cutting) => {}
        }
    });
    let _ = ended.await;
    shared.enter(Phase::Cutting);
    // Streams that are left get their error frame; whoever does not read it is cut.
    let _ = tokio::time::timeout(LAST_WORDS, serving.all_ended()).await;
    serving.abort_connections();
    // Whoever was cut writes its rows before telemetry and store end.
    let _ = tokio::time::timeout(LAST_WORDS, serving.all_ended()).await;
}

async fn accept(serving: Arc<Serving>, listener: TcpListener) {
    let mut reserve = std::fs::File::open("/dev/null").ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => admit_connection(&serving, stream, peer),
            Err(error) if out_of_descriptors(&error) => {
                serving.shared.counts.connections_refused.fetch_add(1, Ordering::Relaxed);
                // Give up the spare descriptor for one connection, to tell it so.
                drop(reserve.take());
                if let Ok((stream, _)) = listener.accept().await {
                    connection::turn_away(stream, TURN_AWAY / 2).await;
                }
                reserve = std::fs::File::open("/dev/null").ok();
                tokio::time::sleep(BREATH).await;
            }
            Err(error) => {
                // The peer gave up before it was accepted, or the like: nothing to do with the listener.
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

fn admit_connection(serving: &Arc<Serving>, stream: TcpStream, peer: SocketAddr) {
    let counts = &serving.shared.counts;
    let limit = serving.shared.snapshot().config.server.limits.connections as u64;
    if counts.connections.load(Ordering::Relaxed) >= limit {
        counts.connections_refused.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(connection::turn_away(stream, TURN_AWAY));
        return;
    }
    serving.spawn(stream, peer);
}

/// EMFILE and ENFILE.
fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

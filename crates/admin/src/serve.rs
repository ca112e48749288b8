//! Listeners and connections of the admin plane: bounded in number and in time, and ended with the gateway.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::plane::{AdminState, Plane};
use crate::routes::router;

/// Connections at a time, over all listeners. Further ones wait in the system's queue.
const CONNECTIONS: usize = 256;
/// Time for a request's head to arrive, and for an idle connection to ask again.
const HEAD: Duration = Duration::from_secs(30);
/// Bytes of a request's head, and of what is read at a time.
const BUFFER: usize = 64 * 1024;
/// A pause after a failed accept: without one a full table of files would spin.
const PAUSE: Duration = Duration::from_millis(100);
/// What answers under way get once the plane ends.
const GRACE: Duration = Duration::from_secs(2);

/// Serves the admin plane on these listeners until `shutdown` is over; then ends streams that follow, lets answers
/// under way finish for two seconds, and returns.
pub async fn serve(state: AdminState, listeners: Vec<TcpListener>, shutdown: impl Future<Output = ()>) {
    let (end, ending) = watch::channel(false);
    let router = router(Arc::new(Plane::new(state, ending.clone())));
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, router.clone(), slots.clone(), ending.clone()));
    }
    shutdown.await;
    // A receiver is held here, so it is heard.
    end.send_replace(true);
    while accepting.join_next().await.is_some() {}
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    // All slots are free again when the last connection has ended. Those that have not by then are left to the runtime.
    let _ = tokio::time::timeout(GRACE, slots.acquire_many(all)).await;
}

async fn accept(
    listener: TcpListener,
    router: Router,
    slots: Arc<Semaphore>,
    mut ending: watch::Receiver<bool>,
) {
    let mut ended = pin!(wait_for_end(ending.clone()));
    loop {
        let accepted = tokio::select! {
            () = &mut ended => return,
            accepted = next(&listener, &slots) => accepted,
        };
        match accepted {
            Some((stream, slot)) => {
                tokio::spawn(connection(stream, router.clone(), slot, ending.clone()));
            }
            None => {
                tokio::select! {
                    _ = ending.wait_for(|ended| *ended) => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
}

/// The next connection; `None` when none could be had.
async fn next(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        // The other end left while it waited: the next one is there.
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => None,
        Err(error) => {
            tracing::warn!(%error, "admin: a connection cannot be accepted");
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    _slot: OwnedSemaphorePermit,
    ending: watch::Receiver<bool>,
) {
    // Events are small and are to arrive at once; without it they only come later.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = wait_for_end(ending) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin: a connection ended early");
    }
}

/// Ends when the plane does, or when nobody is left to say so.
async fn wait_for_end(mut ending: watch::Receiver<bool>) {
    let _ = ending.wait_for(|ended| *ended).await;
}

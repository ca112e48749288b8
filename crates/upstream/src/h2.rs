//! HTTP/2 connections of one origin: which one takes the next stream, when another is opened, who waits for it.
//!
//! Built on the `h2` crate itself rather than on hyper's connection: the pool must see the peer's stream limit and a
//! GOAWAY as they arrive (hyper shows neither to a sender), and a dropped stream must be reset even while its request
//! is still being sent. No request ever waits for another stream's end: when every connection carries
//! min(peer's limit, `max_streams_per_connection`), another is opened. Requests that come while one is being opened
//! share it, as many as it may be expected to carry.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong};
use magicapi_model::ErrorKind;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Sleep;

use crate::fault::Fault;
use crate::origin::Origin;
use crate::transport::{Meter, Transport};

/// A connection with open streams that was silent for so long is probed; silent for as long again, it is dead.
const PING_EVERY: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(20) };
/// What a peer may send ahead of the reader, per stream. The connection's window is this times the streams it may
/// carry, so that a slow reader never starves the other streams.
const STREAM_WINDOW: u32 = 1 << 20;
const MAX_WINDOW: u32 = (1 << 31) - 1;
const MAX_HEADER_LIST: u32 = 64 << 10;
/// Aborts are everyday here; late frames of a reset stream must not break the connection.
const MAX_RESET_STREAMS: usize = 1024;

/// What the connection's task shows to the pool.
#[derive(Debug)]
struct Shown {
    /// The peer's stream limit; 1 until its SETTINGS came.
    limit: AtomicUsize,
    in_flight: AtomicUsize,
    /// Takes no new stream: closed, or told to go away.
    closed: AtomicBool,
    /// Closed because the peer stopped answering: a timeout, never replayed.
    silent: AtomicBool,
}

/// One open connection. Dropping it, with its last stream gone, closes it.
pub(crate) struct H2Conn {
    send: SendRequest<Bytes>,
    task: OnceLock<AbortHandle>,
    shown: Arc<Shown>,
    meter: Arc<Meter>,
    /// The sweeper's tick when the last stream ended.
    idle_since: AtomicU64,
    /// Bytes that were read when the connection last carried nothing.
    idle_read: AtomicU64,
}

impl Drop for H2Conn {
    fn drop(&mut self) {
        // h2 does not wake a parked connection when its last handle goes.
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl H2Conn {
    fn is_closed(&self) -> bool {
        self.shown.closed.load(Ordering::Relaxed)
    }
}

/// The use of one stream's place on a connection.
pub(crate) struct H2Lease {
    conn: Arc<H2Conn>,
    origin: Arc<Origin>,
    read_before: u64,
    /// The connection had served, carried nothing, and was not heard of since: the peer may have closed it meanwhile,
    /// and then neither this request nor those that came with it were begun.
    pub(crate) stale: bool,
}

impl H2Lease {
    /// Made under the list's lock, so that a place is never given twice.
    fn new(conn: Arc<H2Conn>, origin: Arc<Origin>) -> Self {
        origin.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        let read_before = conn.meter.bytes_read();
        if conn.shown.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            conn.idle_read.store(read_before, Ordering::Relaxed);
        }
        let stale = read_before > 0 && read_before == conn.idle_read.load(Ordering::Relaxed);
        Self { conn, origin, read_before, stale }
    }

    pub(crate) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    pub(crate) fn sender(&self) -> SendRequest<Bytes> {
        self.conn.send.clone()
    }

    /// Whether not one byte came since the lease began.
    pub(crate) fn is_silent(&self) -> bool {
        self.conn.meter.bytes_read() == self.read_before
    }

    /// Whether the peer stopped answering pings.
    pub(crate) fn is_timed_out(&self) -> bool {
        self.conn.shown.silent.load(Ordering::Relaxed)
    }

    /// The connection refused a stream: no other may be tried on it.
    pub(crate) fn retire(&self) {
        self.conn.shown.closed.store(true, Ordering::Relaxed);
    }
}

impl Drop for H2Lease {
    fn drop(&mut self) {
        self.origin.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.conn.shown.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            let now = self.origin.counters.ticks.load(Ordering::Relaxed);
            self.conn.idle_since.store(now, Ordering::Relaxed);
        }
    }
}

/// How an opening ended, for those who wait for it.
#[derive(Clone)]
pub(crate) enum Opened {
    /// Look again: it can take streams, or the peer chose HTTP/1.1.
    Ready,
    Failed(Fault),
}

/// What a request is to do.
pub(crate) enum Place {
    /// Go ahead.
    Taken(H2Lease),
    /// Wait for a connection that is being opened.
    Wait(watch::Receiver<Option<Opened>>),
    /// Open another.
    Open(Opening),
}

struct Pending {
    id: u64,
    /// How many more may wait for it.
    seats: usize,
    ended: watch::Receiver<Option<Opened>>,
}

struct List {
    conns: Vec<Arc<H2Conn>>,
    pending: Vec<Pending>,
    next_id: u64,
    /// Streams that a connection here is expected to carry.
    expected: usize,
}

/// The HTTP/2 connections of one origin.
pub(crate) struct Streams {
    list: Mutex<List>,
    max: usize,
}

impl Streams {
    pub(crate) fn new(max: usize) -> Self {
        let list = List { conns: Vec::new(), pending: Vec::new(), next_id: 0, expected: max };
        Self { list: Mutex::new(list), max }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // The critical sections cannot panic half-way; a poisoned list is whole.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place on the least loaded connection, if any has one.
    pub(crate) fn take(&self, origin: &Arc<Origin>) -> Option<H2Lease> {
        self.take_from(&mut self.list(), origin)
    }

    fn take_from(&self, list: &mut List, origin: &Arc<Origin>) -> Option<H2Lease> {
        list.conns.retain(|conn| !conn.is_closed());
        let load = |conn: &H2Conn| conn.shown.in_flight.load(Ordering::Relaxed);
        let conn = list
            .conns
            .iter()
            .filter(|conn| load(conn) < self.max.min(conn.shown.limit.load(Ordering::Relaxed)))
            .min_by_key(|conn| load(conn))?;
        Some(H2Lease::new(conn.clone(), origin.clone()))
    }

    /// A place now, a connection to wait for, or the order to open one.
    pub(crate) fn place(&self, origin: &Arc<Origin>) -> Place {
        let mut list = self.list();
        if let Some(lease) = self.take_from(&mut list, origin) {
            return Place::Taken(lease);
        }
        if let Some(pending) = list.pending.iter_mut().find(|pending| pending.seats > 0) {
            pending.seats -= 1;
            return Place::Wait(pending.ended.clone());
        }
        let (tell, ended) = watch::channel(None);
        let id = list.next_id;
        list.next_id += 1;
        let seats = list.expected.saturating_sub(1);
        list.pending.push(Pending { id, seats, ended });
        Place::Open(Opening { origin: Arc::downgrade(origin), id, tell })
    }

    /// Closes what carried nothing for too long.
    pub(crate) fn sweep(&self, young: impl Fn(u64) -> bool) {
        // New places are given under this lock alone, so that a connection without streams gets none meanwhile.
        self.list().conns.retain(|conn| {
            let busy = conn.shown.in_flight.load(Ordering::Relaxed) > 0;
            !conn.is_closed() && (busy || young(conn.idle_since.load(Ordering::Relaxed)))
        });
    }

    /// Uses no connection again that carries nothing.
    pub(crate) fn retire_idle(&self) {
        self.list().conns.retain(|conn| conn.shown.in_flight.load(Ordering::Relaxed) > 0);
    }

    pub(crate) fn idle_count(&self) -> usize {
        let list = self.list();
        list.conns
            .iter()
            .filter(|conn| !conn.is_closed() && conn.shown.in_flight.load(Ordering::Relaxed) == 0)
            .count()
    }
}

/// A connection that is being opened. Dropped without a word, those who wait look again and one of them opens.
pub(crate) struct Opening {
    /// Weak: the connection's task may hold this, and the origin holds the connection.
    origin: Weak<Origin>,
    id: u64,
    tell: watch::Sender<Option<Opened>>,
}

impl Opening {
    pub(crate) fn end(self, how: Opened) {
        self.forget();
        self.tell.send_replace(Some(how));
    }

    fn forget(&self) {
        if let Some(origin) = self.origin.upgrade() {
            origin.streams.list().pending.retain(|pending| pending.id != self.id);
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Starts HTTP/2 on an open transport and takes its first stream. Those who wait for `opening` are told once the
/// peer's limit is known; the first request does not wait for that.
pub(crate) async fn start(
    transport: Transport,
    origin: &Arc<Origin>,
    opening: Option<Opening>,
) -> Result<H2Lease, Fault> {
    let meter = transport.meter().clone();
    let window = STREAM_WINDOW.saturating_mul(origin.limits.max_streams as u32).clamp(4 << 20, MAX_WINDOW);
    let (send, mut connection) = h2::client::Builder::new()
        .initial_max_send_streams(1)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(window)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .enable_push(false)
        .handshake(transport)
        .await
        .map_err(|e| {
            let message = format!("HTTP/2 with {} could not begin: {e}", origin.place());
            Fault::new(ErrorKind::ConnectFailed, message)
        })?;
    let shown = Arc::new(Shown {
        limit: AtomicUsize::new(1),
        in_flight: AtomicUsize::new(0),
        closed: AtomicBool::new(false),
        silent: AtomicBool::new(false),
    });
    let conn = Arc::new(H2Conn {
        send: send.clone(),
        task: OnceLock::new(),
        shown: shown.clone(),
        meter: meter.clone(),
        idle_since: AtomicU64::new(origin.counters.ticks.load(Ordering::Relaxed)),
        idle_read: AtomicU64::new(0),
    });
    // Listed before its task runs, which wakes those who will look for it.
    let lease = {
        let mut list = origin.streams.list();
        list.conns.push(conn.clone());
        H2Lease::new(conn, origin.clone())
    };
    let ping = connection.ping_pong();
    let task = tokio::spawn(Driver {
        probe: send,
        connection,
        ping,
        tick: Box::pin(tokio::time::sleep(PING_EVERY)),
        read: 0,
        awaits_pong: false,
        shown,
        meter,
        opening,
    });
    let _ = lease.conn.task.set(task.abort_handle());
    Ok(lease)
}

/// Drives one connection: frames, the peer's limit, GOAWAY, pings.
struct Driver {
    connection: Connection<Transport, Bytes>,
    /// Tells of a GOAWAY as soon as it is read.
    probe: SendRequest<Bytes>,
    ping: Option<PingPong>,
    tick: Pin<Box<Sleep>>,
    /// Bytes read by the last tick.
    read: u64,
    awaits_pong: bool,
    shown: Arc<Shown>,
    meter: Arc<Meter>,
    opening: Option<Opening>,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let ended = Pin::new(&mut this.connection).poll(cx);
        this.show(cx);
        if let Poll::Ready(result) = ended {
            if let Err(error) = result {
                tracing::debug!(%error, "an HTTP/2 connection to a provider ended");
            }
            this.shown.closed.store(true, Ordering::Relaxed);
            return Poll::Ready(());
        }
        this.keep_alive(cx)
    }
}

impl Driver {
    fn show(&mut self, cx: &mut Context<'_>) {
        let limit = self.connection.max_concurrent_send_streams();
        self.shown.limit.store(limit, Ordering::Relaxed);
        if matches!(self.probe.poll_ready(cx), Poll::Ready(Err(_))) {
            self.shown.closed.store(true, Ordering::Relaxed);
        }
        // The first frame that a peer sends is its SETTINGS.
        if self.meter.bytes_read() > 0
            && let Some(opening) = self.opening.take()
        {
            if let Some(origin) = opening.origin.upgrade() {
                origin.streams.list().expected = limit.clamp(1, origin.streams.max);
            }
            opening.end(Opened::Ready);
        }
    }

    fn keep_alive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(ping) = &mut self.ping else { return Poll::Pending };
        if ping.poll_pong(cx).is_ready() {
            self.awaits_pong = false;
        }
        while self.tick.as_mut().poll(cx).is_ready() {
            let read = self.meter.bytes_read();
            let quiet = read == self.read;
            self.read = read;
            if quiet && self.awaits_pong {
                self.shown.silent.store(true, Ordering::Relaxed);
                self.shown.closed.store(true, Ordering::Relaxed);
                tracing::debug!("an HTTP/2 connection to a provider answers no ping; it is closed");
                // Dropping the connection fails its streams.
                return Poll::Ready(());
            }
            if quiet && !self.awaits_pong && self.shown.in_flight.load(Ordering::Relaxed) > 0 {
                self.awaits_pong = ping.send_ping(Ping::opaque()).is_ok();
            }
            self.tick.as_mut().reset(tokio::time::Instant::now() + PING_EVERY);
        }
        Poll::Pending
    }
}

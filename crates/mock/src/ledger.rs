//! What happened: the counters, the received requests, and the [`Watch`] that travels with a request
//! from its head to the last byte of its answer and tells a finished answer from an abandoned one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use serde::Serialize;
use tokio::sync::Notify;

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Method, in upper case.
    pub method: String,
    /// Path with the query.
    pub path: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub http_version: String,
    /// Headers in arrival order of their names, lower case; values that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// Body bytes; what had arrived when the client left early.
    pub body: Bytes,
    /// The client went away before our answer ended.
    pub closed_by_peer: bool,
}

impl Received {
    /// First value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Counters since the start; requests to `/mock/…` are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MockStats {
    /// Requests begun.
    pub requests: u64,
    /// Answers sent to their scripted end (a scripted cut is such an end).
    pub completed: u64,
    /// Requests whose client went away before our answer ended, in any phase.
    pub aborted: u64,
    /// Connections open now.
    pub open_connections: u64,
    /// Requests in flight now.
    pub open_streams: u64,
    /// Most requests ever in flight at once on one connection.
    pub max_streams_per_connection: u64,
}

/// One kept request; filled in as it progresses.
struct Entry {
    head: Received,
    parts: Mutex<Vec<Bytes>>,
    closed_by_peer: AtomicBool,
}

/// Counters and kept requests of one server.
#[derive(Default)]
pub(crate) struct Ledger {
    record: bool,
    requests: AtomicU64,
    completed: AtomicU64,
    aborted: AtomicU64,
    connections: AtomicU64,
    streams: AtomicU64,
    max_streams: AtomicU64,
    kept: Mutex<Vec<Arc<Entry>>>,
}

impl Ledger {
    pub(crate) fn new(record: bool) -> Self {
        Self { record, ..Self::default() }
    }

    pub(crate) fn stats(&self) -> MockStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MockStats {
            requests: get(&self.requests),
            completed: get(&self.completed),
            aborted: get(&self.aborted),
            open_connections: get(&self.connections),
            open_streams: get(&self.streams),
            max_streams_per_connection: get(&self.max_streams),
        }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        let kept = lock(&self.kept).clone();
        kept.iter().map(|entry| entry.snapshot()).collect()
    }

    pub(crate) fn forget(&self) {
        lock(&self.kept).clear();
    }
}

impl Entry {
    fn snapshot(&self) -> Received {
        let parts = lock(&self.parts);
        let body = match parts.as_slice() {
            [one] => one.clone(),
            many => many
                .iter()
                .fold(BytesMut::new(), |mut all, part| {
                    all.extend_from_slice(part);
                    all
                })
                .freeze(),
        };
        let closed_by_peer = self.closed_by_peer.load(Ordering::Relaxed);
        Received { body, closed_by_peer, ..self.head.clone() }
    }
}

/// A connection, as the requests on it see it.
pub(crate) struct Connection {
    ledger: Arc<Ledger>,
    streams: AtomicU64,
    kill: Notify,
    killed: AtomicBool,
    /// The last write to the socket had to wait; kept by `server`'s socket wrapper.
    pub(crate) write_blocked: AtomicBool,
}

impl Connection {
    pub(crate) fn open(ledger: Arc<Ledger>) -> Arc<Self> {
        ledger.connections.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            ledger,
            streams: AtomicU64::new(0),
            kill: Notify::new(),
            killed: AtomicBool::new(false),
            write_blocked: AtomicBool::new(false),
        })
    }

    /// Has the socket dropped, whatever else is going on on it.
    pub(crate) fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        self.kill.notify_one();
    }

    /// Waits for [`Self::kill`].
    pub(crate) async fn killed(&self) {
        self.kill.notified().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.ledger.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Follows one request; dropping it unfinished means that the client went away.
pub(crate) struct Watch {
    connection: Arc<Connection>,
    entry: Option<Arc<Entry>>,
    number: u64,
    finished: bool,
}

impl Watch {
    /// Begins to follow a request.
    pub(crate) fn begin(connection: Arc<Connection>, parts: &Parts) -> Self {
        let ledger = &connection.ledger;
        let number = ledger.requests.fetch_add(1, Ordering::Relaxed) + 1;
        ledger.streams.fetch_add(1, Ordering::Relaxed);
        let here = connection.streams.fetch_add(1, Ordering::Relaxed) + 1;
        ledger.max_streams.fetch_max(here, Ordering::Relaxed);
        let entry = ledger.record.then(|| {
            let entry = Arc::new(Entry {
                head: head_of(parts),
                parts: Mutex::default(),
                closed_by_peer: AtomicBool::new(false),
            });
            lock(&ledger.kept).push(Arc::clone(&entry));
            entry
        });
        Self { connection, entry, number, finished: false }
    }

    /// Number of the request, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Notes a piece of the request's body.
    pub(crate) fn note_body(&self, part: &Bytes) {
        if let Some(entry) = &self.entry {
            lock(&entry.parts).push(part.clone());
        }
    }

    /// Our answer has been handed over to its end.
    pub(crate) fn finish(&mut self) {
        self.settle(true);
    }

    fn settle(&mut self, completed: bool) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let ledger = &self.connection.ledger;
        if completed || self.connection.killed.load(Ordering::Relaxed) {
            ledger.completed.fetch_add(1, Ordering::Relaxed);
        } else {
            ledger.aborted.fetch_add(1, Ordering::Relaxed);
            if let Some(entry) = &self.entry {
                entry.closed_by_peer.store(true, Ordering::Relaxed);
            }
        }
        ledger.streams.fetch_sub(1, Ordering::Relaxed);
        self.connection.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.settle(false);
    }
}

fn head_of(parts: &Parts) -> Received {
    let headers = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    Received {
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        http_version: format!("{:?}", parts.version),
        headers,
        body: Bytes::new(),
        closed_by_peer: false,
    }
}

/// A poisoned lock still holds usable counters and bytes.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A served plane, the log behind it, and a client that sends what it is told, byte by byte.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use magicapi_config::MetricsAccess;
use magicapi_kernel::{
    Arrivals, Followed, LogError, LogFollower, LogQuery, LogRow, Page, RequestLogReader, Tokens,
};
use magicapi_model::{Money, Secret};
use magicapi_plugin::async_trait;
use magicapi_telemetry::Telemetry;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;

use crate::{AdminState, DataPlaneFacts, HealthFacts, HealthSource, JournalFacts, LedgerFacts, StoreFacts};

pub(super) const TOKEN: &str = "correct-horse-battery-staple";

/// A running plane; it ends with this.
pub(super) struct Place {
    pub(super) address: SocketAddr,
    pub(super) log: Arc<FakeLog>,
    end: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

/// What a plane is made of.
pub(super) struct Set {
    pub(super) metrics: MetricsAccess,
    pub(super) hosts: Vec<String>,
    pub(super) log: bool,
    pub(super) telemetry: Telemetry,
    pub(super) health: HealthFacts,
}

impl Default for Set {
    fn default() -> Self {
        Self {
            metrics: MetricsAccess::Token,
            hosts: Vec::new(),
            log: true,
            telemetry: Telemetry::disabled(),
            health: facts(),
        }
    }
}

impl Place {
    pub(super) async fn new(set: Set) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let log = Arc::new(FakeLog::default());
        let state = AdminState {
            token: Secret::new(TOKEN),
            metrics: set.metrics,
            hosts: set.hosts,
            logs: set.log.then(|| -> Arc<dyn RequestLogReader> { log.clone() }),
            telemetry: set.telemetry,
            health: Arc::new(FixedHealth(set.health)),
        };
        let (end, ended) = oneshot::channel();
        let serving = tokio::spawn(crate::serve(state, vec![listener], async {
            let _ = ended.await;
        }));
        Self { address, log, end: Some(end), serving }
    }

    /// Ends it and waits for that.
    pub(super) async fn end(mut self) {
        drop(self.end.take());
        soon(self.serving).await.expect("served");
    }

    /// Sends these bytes and reads the whole answer.
    pub(super) async fn raw(&self, request: &str) -> Answer {
        let mut stream = self.connect(request).await;
        let mut bytes = Vec::new();
        soon(stream.read_to_end(&mut bytes)).await.expect("an answer");
        Answer::parse(&bytes)
    }

    pub(super) async fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("sends");
        stream
    }

    /// A request with these header lines, besides `Host`.
    pub(super) async fn send(&self, method: &str, path: &str, headers: &[&str]) -> Answer {
        let lines: String = headers.iter().flat_map(|line| [*line, "\r\n"]).collect();
        self.raw(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n"))
            .await
    }

    /// A `GET` with the token.
    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[&authorization()]).await
    }
}

pub(super) fn authorization() -> String {
    format!("Authorization: Bearer {TOKEN}")
}

/// Fails a test that would hang.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Code and message of a refusal.
    pub(super) fn refusal(&self) -> (String, String) {
        let error = &self.json()["error"];
        let text = |name: &str| error[name].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned();
        (text("code"), text("message"))
    }
}

/// A log in memory.
pub(super) struct FakeLog {
    rows: Mutex<Vec<LogRow>>,
    follow: broadcast::Sender<Arc<LogRow>>,
    pub(super) asked: Mutex<Option<LogQuery>>,
    pub(super) broken: Mutex<Option<LogError>>,
    /// Pages of arrivals until it breaks; for ever when absent.
    pub(super) pages_left: Mutex<Option<usize>>,
}

impl Default for FakeLog {
    fn default() -> Self {
        Self {
            rows: Mutex::default(),
            follow: broadcast::Sender::new(4),
            asked: Mutex::default(),
            broken: Mutex::default(),
            pages_left: Mutex::default(),
        }
    }
}

impl FakeLog {
    /// Stores a row and tells followers.
    pub(super) fn add(&self, change: impl FnOnce(&mut LogRow)) {
        let mut rows = self.rows.lock().expect("rows");
        let seq = i64::try_from(rows.len()).expect("few") + 1;
        let mut row = row(seq);
        change(&mut row);
        rows.push(row.clone());
        drop(rows);
        let _ = self.follow.send(Arc::new(row));
    }

    fn rows(&self) -> Result<Vec<LogRow>, LogError> {
        let broken = self.broken.lock().expect("broken").clone();
        broken.map_or_else(|| Ok(self.rows.lock().expect("rows").clone()), Err)
    }
}

pub(super) fn row(seq: i64) -> LogRow {
    LogRow {
        seq,
        id: format!("msg_{seq}"),
        timestamp_ms: 1_000 * seq,
        provider: Some("groq".into()),
        operation: "chat".into(),
        outcome: "completed".into(),
        status: "success".into(),
        status_code: 200,
        latency: 250,
        tokens: Tokens { input: Some(48), output: Some(865), total: Some(913) },
        cost: Money::from_usd(0.0456),
        path: "/v1/chat/completions".into(),
        method: "POST".into(),
        metadata: json!({ "attempts": 1 }),
        ..LogRow::default()
    }
}

/// Not canonical, to show that nobody writes it anew.
pub(super) const DOCUMENT: &str = "{ \"b\":1.0,\"a\" : 1e400,  \"b\":2 }";

impl RequestLogReader for FakeLog {
    fn list(&self, query: &LogQuery) -> Result<Page, LogError> {
        *self.asked.lock().expect("asked") = Some(query.clone());
        let rows = self.rows()?.into_iter().rev().filter(|row| query.matches(row));
        let rows: Vec<LogRow> = rows.take(query.page_size()).collect();
        let next = (rows.len() == query.page_size()).then(|| "1000-1".to_owned());
        Ok(Page { timed_out: query.text.is_some(), rows, next })
    }

    fn get(&self, id: &str) -> Result<Option<Bytes>, LogError> {
        let known = self.rows()?.iter().any(|row| row.id == id || row.id == format!("msg_{id}"));
        Ok(known.then(|| Bytes::from_static(DOCUMENT.as_bytes())))
    }

    fn position(&self, since: Option<i64>) -> Result<i64, LogError> {
        let rows = self.rows()?;
        let first = since.and_then(|since| rows.iter().find(|row| row.timestamp_ms >= since));
        Ok(first.map_or(rows.last().map_or(0, |row| row.seq), |row| row.seq - 1))
    }

    fn arrivals(&self, query: &LogQuery, after: i64) -> Result<Arrivals, LogError> {
        if let Some(left) = self.pages_left.lock().expect("pages").as_mut() {
            *left = left.checked_sub(1).ok_or_else(|| LogError::Unavailable("x.db: damaged".into()))?;
        }
        let rows: Vec<LogRow> = self.rows()?.into_iter().filter(|row| row.seq > after).take(2).collect();
        let position = rows.last().map_or(after, |row| row.seq);
        Ok(Arrivals { rows: rows.into_iter().filter(|row| query.matches(row)).collect(), position })
    }

    fn subscribe(&self) -> Box<dyn LogFollower> {
        Box::new(Follower(self.follow.subscribe()))
    }
}

struct Follower(broadcast::Receiver<Arc<LogRow>>);

#[async_trait]
impl LogFollower for Follower {
    async fn next(&mut self) -> Option<Followed> {
        match self.0.recv().await {
            Ok(row) => Some(Followed::Row(row)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Followed::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

struct FixedHealth(HealthFacts);

impl HealthSource for FixedHealth {
    fn snapshot(&self) -> HealthFacts {
        self.0.clone()
    }
}

/// All is well.
pub(super) fn facts() -> HealthFacts {
    HealthFacts {
        version: "1.2.3".into(),
        started_at: SystemTime::UNIX_EPOCH,
        config_hash: "abc".into(),
        phase: "serving".into(),
        data_plane: DataPlaneFacts { in_flight: 1, connections: 2, connections_refused: 3, held_bytes: 4 },
        store: Some(StoreFacts { file_bytes: 4096, ..StoreFacts::default() }),
        journals: vec![JournalFacts { name: "ledger", bytes: 7, ..JournalFacts::default() }],
        ledger: Some(LedgerFacts { ready: true, on_full: "count", ..LedgerFacts::default() }),
        providers: vec!["groq".into()],
        degraded: Vec::new(),
    }
}

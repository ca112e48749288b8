//! PostgreSQL with a fault. No script speaks enough of its protocol to stand for it, so it is a real server: what a
//! server says itself, it is made to say; the rest is done by a relay before it, which reads as much of the protocol as
//! tells which records a commit is about.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use magicapi_testkit::back_end::Fault;
use magicapi_testkit::postgres::Postgres;
use magicapi_testkit::reserved::Reserved;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

use crate::vendors::POISON;

/// The table and the least rights, as the exporter's page has them.
const TABLE: &str = "CREATE TABLE ai_gateway_logs (id SERIAL PRIMARY KEY, timestamp TIMESTAMPTZ NOT NULL, \
     log_data JSONB NOT NULL, ttfb INTEGER, latency INTEGER, record_id TEXT); \
     CREATE UNIQUE INDEX ai_gateway_logs_record_id ON ai_gateway_logs (record_id)";
/// Before the rows of a binary `COPY`.
const COPY_HEADER: usize = 19;

pub(crate) struct Database {
    server: Postgres,
    /// Of database and role.
    name: String,
    fault: Fault,
    /// Where the relay listens.
    relay: Reserved,
    real: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: Option<JoinHandle<()>>,
}

/// What the relay does, and what came of it.
struct State {
    fault: Option<Fault>,
    /// How often each record was in a commit that the server made and whose answer nobody got.
    unanswered: BTreeMap<String, usize>,
}

impl Database {
    /// A database, a role and a relay; `None` where there is no server.
    pub(crate) async fn start(fault: Fault) -> Option<Self> {
        let server = Postgres::named()?;
        let name = format!("faults_{}", word(fault));
        server.database(&name);
        server.sql("postgres", &format!("DROP ROLE IF EXISTS {name}"));
        server.sql("postgres", &format!("CREATE ROLE {name} LOGIN PASSWORD 'right'"));
        server.sql(&name, TABLE);
        let grants = format!(
            "GRANT INSERT, SELECT (record_id) ON ai_gateway_logs TO {name}; \
             GRANT USAGE ON SEQUENCE ai_gateway_logs_id_seq TO {name}"
        );
        server.sql(&name, &grants);
        let url = server.url(&name);
        let real = url.rsplit_once('@').and_then(|(_, place)| place.split('/').next());
        let mut real = tokio::net::lookup_host(real.expect("a place")).await.expect("an address");
        let real = real.next().expect("an address");
        let relay = Reserved::new();
        let state = Arc::new(Mutex::new(State { fault: Some(fault), unanswered: BTreeMap::new() }));
        let mut database = Self { server, name, fault, relay, real, state, serving: None };
        if fault != Fault::Dead {
            database.serve();
        }
        Some(database)
    }

    /// Where the gateway finds it.
    pub(crate) fn url(&self) -> String {
        let (name, relay) = (&self.name, self.relay.address);
        format!("postgres://{name}:right@{relay}/{name}?sslmode=disable")
    }

    /// Breaks what only a server itself can say; connections do not outlive it.
    pub(crate) fn break_down(&self) {
        if let Some((broken, _)) = self.statements() {
            self.server.sql(&self.name, &broken);
            let cut = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'",
                self.name
            );
            self.server.sql("postgres", &cut);
        }
    }

    /// From now on nothing is wrong with it.
    pub(crate) fn mend(&mut self) {
        self.state().fault = None;
        if let Some((_, mended)) = self.statements() {
            self.server.sql(&self.name, &mended);
        }
        if self.serving.is_none() {
            self.serve();
        }
    }

    /// How many rows hold each record.
    pub(crate) fn taken(&self) -> BTreeMap<String, usize> {
        let rows = "SELECT log_data #>> '{attributes,id}', count(*) FROM ai_gateway_logs GROUP BY 1";
        let rows = self.server.sql(&self.name, rows);
        let row = |row: &str| {
            let (id, count) = row.split_once('|').expect("two columns");
            (id.to_owned(), count.parse().expect("a number"))
        };
        rows.lines().map(row).collect()
    }

    pub(crate) fn unanswered(&self) -> BTreeMap<String, usize> {
        self.state().unanswered.clone()
    }

    /// What breaks the server, and what mends it.
    fn statements(&self) -> Option<(String, String)> {
        let role = &self.name;
        let constraint = "ALTER TABLE ai_gateway_logs";
        Some(match self.fault {
            Fault::Dead | Fault::Slow(_) | Fault::Closing => return None,
            Fault::Refusing(400) => (
                format!("REVOKE INSERT ON ai_gateway_logs FROM {role}"),
                format!("GRANT INSERT ON ai_gateway_logs TO {role}"),
            ),
            Fault::Refusing(_) => (
                format!("ALTER ROLE {role} PASSWORD 'another'"),
                format!("ALTER ROLE {role} PASSWORD 'right'"),
            ),
            // "too many connections for role", SQLSTATE 53300.
            Fault::Throttling => (
                format!("ALTER ROLE {role} CONNECTION LIMIT 0"),
                format!("ALTER ROLE {role} CONNECTION LIMIT -1"),
            ),
            Fault::RejectingItems => (
                format!(
                    "{constraint} ADD CONSTRAINT no_poison \
                     CHECK (log_data #>> '{{attributes,thread_id}}' <> '{POISON}')"
                ),
                format!("{constraint} DROP CONSTRAINT no_poison"),
            ),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&mut self) {
        let listener = self.relay.listen();
        let (real, state) = (self.real, self.state.clone());
        self.serving = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(relay(client, real, state.clone()));
            }
        }));
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

/// What a database is called that has this fault: tests run beside each other.
fn word(fault: Fault) -> String {
    match fault {
        Fault::Slow(_) => "slow".to_owned(),
        Fault::Refusing(status) => format!("refusing_{status}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// One connection of the gateway, handed on.
async fn relay(mut client: TcpStream, real: SocketAddr, state: Arc<Mutex<State>>) -> Option<()> {
    let mut server = TcpStream::connect(real).await.ok()?;
    // Small messages in turn: without this each waits for the acknowledgement of the one before.
    client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).ok()?;
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    let mut listener = Listener::default();
    loop {
        tokio::select! {
            read = client.read_buf(&mut asked) => {
                (read.ok()? > 0).then_some(())?;
                server.write_all(&asked).await.ok()?;
                let committed = listener.hear(&asked);
                asked.clear();
                if !committed.is_empty() {
                    answer(&mut client, &mut server, &committed, &state).await?;
                }
            }
            read = server.read_buf(&mut answered) => {
                (read.ok()? > 0).then_some(())?;
                client.write_all(&answered).await.ok()?;
                answered.clear();
            }
        }
    }
}

/// Hands on the answer to a commit, or does not; `None` when nobody is there to get it.
async fn answer(
    client: &mut TcpStream,
    server: &mut TcpStream,
    committed: &[String],
    state: &Mutex<State>,
) -> Option<()> {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let patience = match lock().fault {
        Some(Fault::Slow(delay)) => Some(delay),
        Some(Fault::Closing) => None,
        _ => return Some(()),
    };
    // All of it, so that the commit is made.
    let (mut whole, mut rest) = (Vec::new(), Vec::new());
    loop {
        let from = rest.len();
        (server.read_buf(&mut rest).await.ok()? > 0).then_some(())?;
        whole.extend_from_slice(&rest[from..]);
        let messages = std::iter::from_fn(|| message(&mut rest));
        if messages.last().is_some_and(|(kind, _)| kind == b'Z') {
            break;
        }
    }
    if let Some(delay) = patience {
        let left = tokio::time::timeout(delay, client.read(&mut [0; 16])).await;
        if left.is_err() {
            return client.write_all(&whole).await.ok();
        }
    }
    let mut state = lock();
    for id in committed {
        *state.unanswered.entry(id.clone()).or_default() += 1;
    }
    None
}

/// Hears what the gateway says (PostgreSQL's manual, "Frontend/Backend Protocol").
#[derive(Default)]
struct Listener {
    heard: Vec<u8>,
    has_begun: bool,
    /// Of the last `COPY`.
    rows: Vec<u8>,
}

impl Listener {
    /// The records that a commit among these bytes puts into the table; none when there is no commit.
    fn hear(&mut self, bytes: &[u8]) -> Vec<String> {
        self.heard.extend_from_slice(bytes);
        if !self.has_begun {
            // The first message has a length and no kind.
            let Some(length) = length(&self.heard).filter(|length| *length <= self.heard.len()) else {
                return Vec::new();
            };
            self.heard.drain(..length);
            self.has_begun = true;
        }
        let mut committed = Vec::new();
        while let Some((kind, content)) = message(&mut self.heard) {
            let is_commit = || content.windows(6).any(|word| word == b"COMMIT");
            match kind {
                b'd' => self.rows.extend_from_slice(&content),
                b'Q' if is_commit() => committed = ids(&std::mem::take(&mut self.rows)),
                _ => {}
            }
        }
        committed
    }
}

/// The first message: its kind and content.
fn message(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let end = 1 + length(bytes.get(1..)?)?;
    (bytes.len() >= end).then(|| (bytes[0], bytes.drain(..end).skip(5).collect()))
}

fn length(bytes: &[u8]) -> Option<usize> {
    let (length, _) = bytes.split_first_chunk::<4>()?;
    usize::try_from(i32::from_be_bytes(*length)).ok()
}

/// The first column of every row of a binary `COPY`.
fn ids(copied: &[u8]) -> Vec<String> {
    let mut rest = copied.get(COPY_HEADER..).unwrap_or_default();
    let mut ids = Vec::new();
    while let Some((columns, mut row)) = rest.split_first_chunk::<2>() {
        for column in 0..i16::from_be_bytes(*columns) {
            // A NULL has the length -1.
            let value = length(row).map_or(4, |length| 4 + length);
            if column == 0 {
                ids.push(String::from_utf8(row[4..value].to_vec()).expect("an id"));
            }
            row = &row[value..];
        }
        rest = row;
    }
    ids
}

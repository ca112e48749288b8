//! Tests of the whole store: what goes in comes out, once, within bounds, whatever the disk does.

mod files;
mod journal;
mod ledger;
mod log;
mod retention;
mod speed;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use magicapi_kernel::{AttemptRow, LedgerEntry};
use magicapi_model::{Money, Outcome, RequestId, Usage};
use magicapi_plugin::{Delivery, Facts, RequestMetrics, TelemetryConfig};
use tempfile::TempDir;

use crate::limits::Limits;
use crate::{Store, StoreError, StoreOptions};

const DAY: Duration = Duration::from_hours(24);
const SOON: Duration = Duration::from_secs(20);

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("dir") }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data").join("magicapi.db")
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("data/journal/ledger")
    }

    fn options(&self) -> StoreOptions {
        StoreOptions {
            path: self.path(),
            retention_age: 7 * DAY,
            retention_size: 1 << 30,
            journal: Some(self.journal()),
        }
    }

    fn open(&self) -> Store {
        Store::open(self.options()).expect("opens")
    }

    fn open_with(&self, limits: Limits) -> Store {
        Store::open_with(self.options(), limits).expect("opens")
    }

    /// A connection like another program's.
    fn other(&self) -> rusqlite::Connection {
        let conn = rusqlite::Connection::open(self.path()).expect("opens");
        conn.busy_timeout(Duration::from_secs(5)).expect("timeout");
        conn
    }
}

fn entry(id: RequestId, attempts: u32) -> LedgerEntry {
    let usage = Usage::of(10, 0);
    let attempt = |attempt| AttemptRow {
        attempt,
        provider: "openai".into(),
        model: Some("gpt".into()),
        status_code: 200,
        error_type: None,
        latency_ms: 12,
        usage,
        cost: Some(Money::from_pico_usd(123_456_789)),
    };
    LedgerEntry {
        id,
        timestamp: crate::value::time(crate::value::unix_ms(SystemTime::now())),
        key_name: Some("app-1".into()),
        project_id: None,
        org_id: None,
        user_id: None,
        provider: Some("openai".into()),
        model: Some("gpt".into()),
        operation: "chat".into(),
        outcome: Outcome::Completed,
        status_code: 200,
        usage,
        usage_final: true,
        cost: Some(Money::from_pico_usd(123_456_789)),
        price_version: Some("2026-01".into()),
        service_tier: None,
        attempts: (1..=attempts).map(attempt).collect(),
    }
}

fn ledger_rows(path: &Path) -> Vec<LedgerEntry> {
    let reader = crate::Reader::open(path).expect("reader");
    reader.ledger_rows(i64::MIN..i64::MAX, None, 1_000_000).expect("rows")
}

/// A record, `age` old, whose request body says `text`.
fn record(age: Duration, text: &str) -> Arc<RequestMetrics> {
    record_with(age, text, |_| {})
}

fn record_with(age: Duration, text: &str, change: impl FnOnce(&mut Facts)) -> Arc<RequestMetrics> {
    let mut facts = Facts::new(RequestId::mint(), SystemTime::now() - age);
    facts.provider = Some("openai".into());
    facts.model = Some("gpt".into());
    facts.operation = "chat";
    facts.outcome = Outcome::Completed;
    facts.status_code = 200;
    facts.path = "/v1/chat/completions".into();
    facts.method = "POST".into();
    change(&mut facts);
    let body = serde_json::to_vec(&serde_json::json!({ "content": text })).expect("json");
    let resource = Arc::new(TelemetryConfig::default());
    Arc::new(RequestMetrics::seal(facts, resource, Some(body.into()), Some("{\"ok\":true}".into()), None))
}

/// Text that does not compress, the same for the same seed.
fn noise(bytes: usize, mut seed: u64) -> String {
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        char::from(b' ' + 2 + (seed % 88) as u8)
    };
    (0..bytes).map(|_| next()).collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(future)
}

fn export(store: &Store, batch: &[Arc<RequestMetrics>]) -> Delivery {
    block_on(store.request_log().export(batch))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

//! `kill -9` under load: with `telemetry.durable` each request that was sent 200 ms before has exactly one record and one
//! ledger row after the restart, complete where its answer was read 200 ms before; without it, what is lost is measured.
//!
//! Three kills by default, twenty with `--ignored`.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]
#![allow(clippy::print_stdout, reason = "what is lost without `durable` is measured")]

mod scene;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use magicapi_kernel::LedgerEntry;
use magicapi_model::Outcome;
use magicapi_testkit::ask::{buffered, streaming_with_usage};
use magicapi_testkit::bulk::{Bulk, Way};
use magicapi_testkit::wire::until;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::scene::{Scene, ledger_in};

/// What the promise gives the gateway.
const PROMISE: Duration = Duration::from_millis(200);
/// Clients at once.
const CLIENTS: usize = 12;
/// Every so many-th request waits for its answer for ever.
const WAITS: u64 = 20;

/// What the clients noted of one request: when it was sent, and when the whole answer had been read.
#[derive(Clone, Copy)]
struct Noted {
    sent: Instant,
    read: Option<Instant>,
}

type Notes = Arc<Mutex<BTreeMap<String, Noted>>>;

/// What becomes of a request; each kind in turn.
fn kind(number: u64) -> (Value, Value) {
    match number % WAITS {
        0 => (json!({ "delay_headers_ms": 600_000 }), buffered()),
        7 => (json!({ "chunks": 40, "gap_ms": 15 }), streaming_with_usage()),
        odd if odd % 2 == 1 => (json!({ "text": "a b c" }), streaming_with_usage()),
        _ => (json!({ "text": "a b c" }), buffered()),
    }
}

fn request(id: &str, script: &Value, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ncontent-type: application/json\r\n\
         x-request-id: {id}\r\nx-mock: {script}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    head.into_bytes()
}

/// Sends one request and reads its answer, as far as the gateway lives; `None` once it does not.
async fn live(address: SocketAddr, number: u64, notes: &Notes) -> Option<()> {
    let id = format!("killed-{number}");
    let (script, body) = kind(number);
    let mut socket = TcpStream::connect(address).await.ok()?;
    socket.write_all(&request(&id, &script, &body)).await.ok()?;
    notes.lock().expect("notes").insert(id.clone(), Noted { sent: Instant::now(), read: None });
    let mut answer = Vec::new();
    if number.is_multiple_of(WAITS) {
        // It waits for its answer, and the client goes on to the next.
        tokio::spawn(async move { socket.read_to_end(&mut answer).await });
        return Some(());
    }
    socket.read_to_end(&mut answer).await.ok()?;
    let text = String::from_utf8_lossy(&answer);
    let whole =
        text.starts_with("HTTP/1.1 200 ") && (text.contains("[DONE]") || text.trim_end().ends_with('}'));
    if whole {
        notes.lock().expect("notes").get_mut(&id).expect("sent").read = Some(Instant::now());
    }
    Some(())
}

/// Load until the gateway is killed, after a while that differs from round to round; gives when that was.
async fn load_and_kill(scene: &mut Scene, round: u64, numbers: &Arc<AtomicU64>, notes: &Notes) -> Instant {
    let mut clients = JoinSet::new();
    let address = scene.gateway.socket();
    for _ in 0..CLIENTS {
        let (numbers, notes) = (numbers.clone(), notes.clone());
        clients.spawn(async move {
            while live(address, numbers.fetch_add(1, Ordering::Relaxed), &notes).await.is_some() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(700 + round * 37 % 300)).await;
    let killed_at = Instant::now();
    scene.gateway.kill();
    while clients.join_next().await.is_some() {}
    killed_at
}

/// What the back end has of each request, by the client's own id.
fn records(bulk: &Bulk) -> HashMap<String, Vec<Value>> {
    let mut records: HashMap<String, Vec<Value>> = HashMap::new();
    for record in bulk.documents().into_values() {
        let id =
            record["attributes"]["metadata"]["client_request_id"].as_str().unwrap_or_default().to_owned();
        records.entry(id).or_default().push(record);
    }
    records
}

fn config(address: SocketAddr, durable: bool) -> Value {
    json!({ "telemetry": { "durable": durable, "exporters": [
        { "type": "elasticsearch", "url": format!("http://{address}"), "batch": { "age": "50ms" } },
    ] } })
}

/// Waits until everything that waited has been delivered.
async fn settled(scene: &Scene) {
    until("everything delivered", async || {
        let details = scene.admin("/health/details").await.json();
        let waits = |one: &Value| {
            ["entries", "queue_records", "spool_records"].iter().any(|key| one[*key].as_u64() > Some(0))
        };
        let parts = ["journals", "exporters"].map(|part| details[part].as_array().expect("a list").clone());
        (!parts.iter().flatten().any(waits)).then_some(())
    })
    .await;
}

/// What one kill left.
#[derive(Default, Debug)]
struct Found {
    sent: usize,
    /// Answers that had been read by then.
    read: usize,
    whole: usize,
    killed: usize,
    without_record: usize,
    without_row: usize,
    incomplete: usize,
    late: usize,
    /// New rows of whole answers, with a record or without.
    rows: usize,
}

/// Whether the record holds the whole answer; of a stream its events too.
fn said(id: &str, attributes: &Value) -> bool {
    let (_, body) = kind(id.trim_start_matches("killed-").parse().expect("a number"));
    let choice = &attributes["response"]["choices"][0];
    let joined = if body["stream"] == true { &choice["delta"] } else { &choice["message"] };
    let whole = choice["finish_reason"] == "stop" && joined["content"].is_string();
    let events = attributes["response"]["streamed_data"].as_array().map_or(0, Vec::len);
    whole && (body["stream"] != true || events > 2)
}

/// Compares what clients noted with what back end and ledger have. No request has two records or rows.
fn compare(
    notes: &Notes,
    killed_at: Instant,
    records: &HashMap<String, Vec<Value>>,
    rows: &[LedgerEntry],
) -> Found {
    let mut by_id: HashMap<String, Vec<&LedgerEntry>> = HashMap::new();
    for row in rows {
        by_id.entry(row.id.to_string()).or_default().push(row);
    }
    let mut found = Found::default();
    let before = |at: Instant| at + PROMISE <= killed_at;
    for (id, noted) in notes.lock().expect("notes").iter() {
        let of_it = records.get(id).map(Vec::as_slice).unwrap_or_default();
        assert!(of_it.len() <= 1, "{id} has {} records", of_it.len());
        if !before(noted.sent) {
            found.late += 1;
            continue;
        }
        found.sent += 1;
        found.read += usize::from(noted.read.is_some_and(before));
        let Some(record) = of_it.first() else {
            found.without_record += 1;
            continue;
        };
        let (attributes, metadata) = (&record["attributes"], &record["attributes"]["metadata"]);
        let rows =
            by_id.get(attributes["id"].as_str().expect("an id")).map(Vec::as_slice).unwrap_or_default();
        assert!(rows.len() <= 1, "{id} has {} rows", rows.len());
        found.without_row += usize::from(rows.is_empty());
        if noted.read.is_some_and(before) {
            found.whole += 1;
            let complete = metadata["outcome"] == "completed"
                && metadata["tokens"]["output"].as_u64() > Some(0)
                && attributes["request"]["model"] == "gpt-4o-mini"
                && said(id, attributes)
                && rows.iter().all(|row| row.outcome == Outcome::Completed && row.usage.output > Some(0));
            found.incomplete += usize::from(!complete);
        }
        if metadata["error_type"] == "gateway_killed" {
            found.killed += 1;
            assert_eq!(metadata["outcome"], "gateway_error");
            assert_eq!(
                (&metadata["tokens"]["total"], &metadata["cost"]),
                (&Value::Null, &Value::Null),
                "{record}"
            );
            assert_eq!(
                (&metadata["method"], &metadata["path"]),
                (&json!("POST"), &json!("/v1/chat/completions"))
            );
            assert_eq!(
                (&attributes["provider"], &attributes["model"]),
                (&json!("openai"), &json!("gpt-4o-mini"))
            );
        }
    }
    found
}

async fn kills(rounds: u64, durable: bool) -> Vec<Found> {
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let bulk = Bulk::start("127.0.0.1:0".parse().expect("an address")).await;
    let way = Way::to(bulk.address);
    let start = async || Scene::start_in(&directory, config(way.address, durable), |options| options).await;
    let numbers = Arc::new(AtomicU64::new(0));
    let mut scene = start().await;
    let (mut all, mut known) = (Vec::new(), 0);
    for round in 0..rounds {
        // Every other time the back end is away, so that nothing has been delivered yet.
        way.set(round % 2 == 0);
        let notes = Notes::default();
        let killed_at = load_and_kill(&mut scene, round, &numbers, &notes).await;
        way.set(true);
        scene = start().await;
        settled(&scene).await;
        let rows = ledger_in(&scene.gateway.data_path());
        let mut found = compare(&notes, killed_at, &records(&bulk), &rows);
        let whole = |row: &&LedgerEntry| row.outcome == Outcome::Completed && row.usage.output > Some(0);
        found.rows = rows.iter().filter(whole).count()
            - std::mem::replace(&mut known, rows.iter().filter(whole).count());
        println!("durable: {durable}, kill {round}: {found:?}");
        all.push(found);
    }
    all
}

async fn nothing_is_lost(rounds: u64) {
    for found in kills(rounds, true).await {
        assert!(found.sent > 50 && found.whole > 20 && found.killed > 3, "{found:?}");
        assert_eq!((found.without_record, found.without_row, found.incomplete), (0, 0, 0), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn telemetry_durable_loses_nothing_to_three_kills() {
    nothing_is_lost(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute: ./test --all"]
async fn telemetry_durable_loses_nothing_to_twenty_kills() {
    nothing_is_lost(20).await;
}

/// What may be lost is said in `docs/durability.md`: what was under way and what waited in memory, but no row of a request
/// that had ended. The numbers are printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_durable_records_no_request_has_two() {
    let found = kills(2, false).await;
    assert!(found.iter().all(|found| found.killed == 0), "nobody knew of them: {found:?}");
    assert!(found.iter().all(|found| found.rows >= found.read && found.read > 20), "rows: {found:?}");
    let [there, away] = [0, 1].map(|round| found[round].without_record);
    assert!(away > there, "what waited in memory is lost while the back end is away: {found:?}");
    assert!(
        found.iter().any(|found| found.without_record > 0),
        "what waited for its answer is lost: {found:?}"
    );
}

#[tokio::test]
async fn telemetry_journal_disk_bounds_the_journal() {
    // Nobody listens there, and nothing goes to the spool: everything stays in the journal.
    let elsewhere = json!({ "type": "elasticsearch", "url": "http://127.0.0.1:1", "buffer": { "when_full": "drop_oldest" } });
    let telemetry = json!({ "durable": true, "journal": { "disk": "1MiB" }, "metrics_on_data_plane": true,
        "exporters": [elsewhere, { "type": "prometheus" }] });
    let scene = Scene::start(json!({ "telemetry": telemetry })).await;
    let mut body = buffered();
    body["messages"][0]["content"] = json!("x".repeat(16 << 10));
    for _ in 0..80 {
        let answer = scene.post("/v1/chat/completions", &json!({ "text": "a b c" }), &[], &body).await;
        assert_eq!(answer.status, 200);
    }
    let journal = until("what did not fit is counted", async || {
        let details = scene.admin("/health/details").await.json();
        let journal = details["journals"][0].clone();
        let said = details["reasons"].to_string().contains("journal telemetry: ");
        (said && journal["unwritten"].as_u64() > Some(0)).then_some(journal)
    })
    .await;
    assert_eq!(journal["name"], "telemetry");
    assert!(
        journal["bytes"].as_u64().is_some_and(|bytes| (512 << 10..=1 << 20).contains(&bytes)),
        "{journal}"
    );
    let page = scene.admin("/metrics").await.text();
    for metric in ["bytes", "limit_bytes", "entries", "oldest_age_seconds", "failing", "unwritten_total"] {
        for name in ["telemetry", "ledger"] {
            let series = format!("gateway_journal_{metric}{{journal=\"{name}\"}}");
            let expected = metric != "unwritten_total" || name == "telemetry";
            assert!(!expected || page.contains(&series), "no {series} in {page}");
        }
    }
}

//! Many and large: nothing is lost or doubled, nothing stays behind, memory keeps its bounds, no stream waits for another.
//!
//! Each test runs small by default and at full size with `--ignored`.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::scene::{Left, Scene, before, stop};
use magicapi_mock::{MockOptions, MockServer, MockTls};
use magicapi_testkit::ask::{buffered, chat_request, streaming};
use magicapi_testkit::wire::{Part, Wire, patiently, until};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

const MIB: u64 = 1 << 20;

/// Requests under way at once.
const AT_ONCE: usize = 40;

/// What becomes of a request; each kind in turn.
fn kind(number: usize) -> (&'static str, Value, Value) {
    let stream = json!({ "chunks": 60, "chunk_bytes": 200, "ttft_ms": 1, "gap_ms": 1, "stall_after": 50 });
    match number % 10 {
        0 => ("completed", json!({ "text": "a b c" }), streaming()),
        1 => ("completed", json!({ "text": "a b c" }), buffered()),
        2 => ("truncated", json!({ "text": "a b c d", "cut_after": 3 }), streaming()),
        3 => ("provider_error", json!({ "status": 500 }), streaming()),
        4 => ("left early", json!({ "delay_headers_ms": 600_000 }), streaming()),
        _ => ("left", stream, streaming()),
    }
}

/// Sends one request and takes as much of its answer as its kind says: of those that are left, any number of parts.
async fn live(address: SocketAddr, number: usize) {
    let (kind, script, body) = kind(number);
    let mut wire = Wire::connect(address).await;
    wire.send(&chat_request(&number.to_string(), &script, &body)).await;
    if kind == "left early" {
        return;
    }
    if kind != "left" {
        patiently("an answer", wire.answer()).await.expect("an answer");
        return;
    }
    // Anywhere from before the head to the middle; spread, but the same each time.
    let parts = number.wrapping_mul(2_654_435_761) % 40;
    if parts == 0 || wire.head().await.is_none() {
        return;
    }
    for _ in 1..parts {
        assert!(matches!(wire.part().await, Part::Data(_)), "request {number}");
    }
    if number.is_multiple_of(3) {
        wire.reset();
    }
}

async fn live_all(address: SocketAddr, numbers: std::ops::Range<usize>) {
    let next = Arc::new(AtomicU64::new(numbers.start as u64));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let next = next.clone();
        let end = numbers.end;
        tasks.spawn(async move {
            loop {
                let number = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("a number");
                if number >= end {
                    return;
                }
                live(address, number).await;
            }
        });
    }
    tasks.join_all().await;
}

/// How often each value occurs.
fn tally<'v>(values: impl Iterator<Item = &'v Value>) -> BTreeMap<&'v str, usize> {
    let mut tally = BTreeMap::new();
    for value in values {
        *tally.entry(value.as_str().expect("a word")).or_default() += 1;
    }
    tally
}

/// Waits until nothing is under way on either side of the gateway.
async fn calm(scene: &Scene) {
    until("no request and no connection", async || {
        let held = scene.gateway.data_plane().await;
        let calm = held["in_flight"] == 0 && held["connections"] == 0 && held["held_bytes"] == 0;
        (calm && scene.mock.stats().open_streams == 0).then_some(())
    })
    .await;
}

async fn come_and_go(requests: usize) {
    let mock = MockServer::start(MockOptions::default()).await.expect("the mock");
    let gateway = before(&mock.base_url(), json!({})).await;
    let scene = Scene { mock, gateway };
    // The pools, the allocator and the store find their size.
    let warm = requests / 4;
    live_all(scene.gateway.socket(), 0..warm).await;
    calm(&scene).await;
    let (memory, descriptors) = (scene.gateway.resident(), scene.gateway.descriptors());
    live_all(scene.gateway.socket(), warm..requests).await;
    calm(&scene).await;
    // Idle connections to the provider may stay, as many as there were requests at once.
    let allowed = descriptors + AT_ONCE;
    assert!(scene.gateway.descriptors() <= allowed, "{} > {allowed}", scene.gateway.descriptors());
    let grown = scene.gateway.resident().saturating_sub(memory);
    assert!(grown < 48 * MIB, "memory grew by {grown} bytes");
    let asked = scene.mock.stats().requests;
    let left = stop(scene.gateway).await;
    assert_all_there(&left, requests);
    let attempts: usize = left.ledger.iter().map(|row| row.attempts.len()).sum();
    // Who leaves at once may have left before the provider was reached.
    let attempts = attempts as u64;
    assert!((asked..=requests as u64).contains(&attempts), "{attempts} attempts, {asked} at the provider");
}

fn assert_all_there(left: &Left, requests: usize) {
    assert_eq!((left.records.len(), left.ledger.len()), (requests, requests));
    let attributes = || left.records.iter().map(|record| &record["attributes"]);
    let ids: HashSet<&str> = attributes().filter_map(|record| record["id"].as_str()).collect();
    let cases: HashSet<&str> = attributes().filter_map(|record| record["thread_id"].as_str()).collect();
    assert_eq!((ids.len(), cases.len()), (requests, requests), "none twice");
    assert!(
        left.ledger.iter().all(|row| ids.contains(row.id.to_string().as_str())),
        "the same ids in the ledger"
    );
    for record in attributes() {
        let number: usize = record["thread_id"].as_str().and_then(|id| id.parse().ok()).expect("a number");
        let expected = kind(number).0;
        let expected = if expected.starts_with("left") { "client_closed" } else { expected };
        assert_eq!(record["metadata"]["outcome"], expected, "request {number}: {record}");
    }
    let outcomes = tally(attributes().map(|record| &record["metadata"]["outcome"]));
    assert_eq!(outcomes["client_closed"], requests / 10 * 6, "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_come_and_go() {
    come_and_go(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute: ./test --all"]
async fn ten_thousand_come_and_go() {
    come_and_go(10_000).await;
}

/// The most memory that a process had while this watches.
struct Peak {
    stop: Arc<AtomicBool>,
    task: std::thread::JoinHandle<u64>,
}

impl Peak {
    fn watch(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = std::thread::spawn(move || {
            let mut peak = 0;
            while !stopped.load(Ordering::Relaxed) {
                peak = peak.max(magicapi_testkit::gateway::resident(pid));
                std::thread::sleep(Duration::from_millis(10));
            }
            peak
        });
        Self { stop, task }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.join().expect("the watch")
    }
}

/// Large streams at once, through a gateway that may hold `memory` for records.
async fn large_streams(streams: usize, chunks: u64, memory: u64) {
    const CHUNK: u64 = 4000;
    let mock = MockServer::start(MockOptions::default()).await.expect("the mock");
    let capture =
        json!({ "max_response": "1MiB", "max_chunks": "1MiB", "memory": format!("{}MiB", memory / MIB) });
    // The provider shares this machine and its cores: that it is slow to accept is not what is tested.
    let changes = json!({ "telemetry": { "capture": capture }, "timeouts": { "connect": "60s" } });
    let gateway = before(&mock.base_url(), changes).await;
    let before = gateway.resident();
    let peak = Peak::watch(gateway.pid);
    let mut tasks = JoinSet::new();
    for number in 0..streams {
        let address = gateway.socket();
        tasks.spawn(async move {
            let script = json!({ "chunks": chunks, "chunk_bytes": CHUNK });
            let mut wire = Wire::connect(address).await;
            wire.send(&chat_request(&number.to_string(), &script, &streaming())).await;
            let head = wire.head().await.expect("a head");
            assert_eq!(head.status, 200, "stream {number}: {:?}", wire.part().await);
            let (mut bytes, mut last) = (0, Vec::new());
            while let Part::Data(data) = wire.part().await {
                bytes += data.len() as u64;
                last = data;
            }
            assert!(last.ends_with(b"data: [DONE]\n\n"), "stream {number} was cut");
            assert!(bytes > chunks * CHUNK, "stream {number}: {bytes}");
        });
    }
    tasks.join_all().await;
    gateway.idle().await;
    let grown = peak.end().saturating_sub(before);
    // Beside the records: sockets' buffers and one event of each stream.
    let allowed = memory + 64 * MIB + streams as u64 * (MIB / 4);
    assert!(grown < allowed, "memory grew by {grown}, allowed {allowed}");
    let left = stop(gateway).await;
    assert_eq!((left.records.len(), left.ledger.len()), (streams, streams));
    for number in 0..streams {
        let case = number.to_string();
        let metadata = left.metadata(&case);
        assert_eq!(metadata["outcome"], "completed", "{case}");
        assert_eq!(metadata["tokens"]["output"], chunks, "{case}");
        assert_eq!(left.row(&case).usage.output, Some(chunks), "{case}");
        let cut = metadata["truncated"]["streamed_data"].as_u64().is_some_and(|bytes| bytes > 0);
        assert!(
            cut || metadata["content_dropped"] == "memory",
            "{case}: what is missing is marked: {metadata}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_stream_is_not_held() {
    large_streams(1, 5_000, 16 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_share_the_memory_for_records() {
    large_streams(30, 350, 8 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "200 MB: ./test --all"]
async fn a_stream_of_two_hundred_megabytes_is_not_held() {
    large_streams(1, 50_000, 16 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "1 GB: ./test --all"]
async fn a_thousand_streams_share_the_memory_for_records() {
    large_streams(1_000, 350, 64 * MIB).await;
}

/// A provider's certificate, and the file of the authority that signed it.
fn certificate(dir: &TempDir) -> (MockTls, std::path::PathBuf) {
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, authority.self_signed(&authority_key).expect("an authority").pem())
        .expect("a file");
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let cert_pem = leaf.signed_by(&key, &issuer).expect("a certificate").pem().into_bytes();
    (MockTls { cert_pem, key_pem: key.serialize_pem().into_bytes() }, file)
}

/// The provider allows ten streams on a connection, and none of two hundred ever ends: each must still begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_first_byte_waits_for_another_streams_end() {
    const STREAMS: u64 = 200;
    let dir = TempDir::new().expect("a directory");
    let (tls, ca_file) = certificate(&dir);
    let options =
        MockOptions { tls: Some(tls), http2_max_streams: Some(10), record: true, ..MockOptions::default() };
    let mock = MockServer::start(options).await.expect("the mock");
    let base_url = format!("https://localhost:{}/v1", mock.addr().port());
    let gateway = before(&base_url, json!({ "upstream": { "tls": { "ca_file": ca_file } } })).await;
    let mut tasks = JoinSet::new();
    for number in 0..STREAMS {
        let address = gateway.socket();
        tasks.spawn(async move {
            let mut wire = Wire::connect(address).await;
            let script = json!({ "text": "a b c", "stall_after": 2 });
            wire.send(&chat_request(&number.to_string(), &script, &streaming())).await;
            assert_eq!(wire.head().await.expect("a head").status, 200, "stream {number}");
            assert!(matches!(wire.part().await, Part::Data(_)), "stream {number}");
            wire
        });
    }
    let wires = tasks.join_all().await;
    let stats = mock.stats();
    assert_eq!((stats.open_streams, stats.completed, stats.aborted), (STREAMS, 0, 0));
    assert!((2..=10).contains(&stats.max_streams_per_connection), "{stats:?}");
    assert!(mock.received().iter().all(|request| request.http_version == "HTTP/2.0"));
    drop(wires);
    until("the streams ending", async || (mock.stats().aborted == STREAMS).then_some(())).await;
    let left = stop(gateway).await;
    assert_eq!(left.records.len() as u64, STREAMS);
    assert!(left.records.iter().all(|record| record["attributes"]["metadata"]["outcome"] == "client_closed"));
}

//! What the request log costs per record, in CPU time of its two threads:
//! `cargo run --release -p magicapi-store --example request_log [RECORDS] [BATCH]`.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a measurement: whatever fails ends it")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use magicapi_model::{Money, Outcome, RequestId, Usage};
use magicapi_plugin::{Facts, RequestMetrics, TelemetryConfig};
use magicapi_store::{Store, StoreOptions};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let (records, batch): (usize, usize) =
        (arguments.next().unwrap_or(60_000), arguments.next().unwrap_or(500));
    let dir = tempfile::tempdir().expect("a directory");
    let options = StoreOptions {
        path: dir.path().join("magicapi.db"),
        retention_age: Duration::from_hours(24),
        retention_size: 4 << 30,
        journal: None,
    };
    let store = Store::open(options).expect("opens");
    let exporter = store.request_log();
    let writer = writer();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (mut encoding, mut writing) = (Duration::ZERO, Duration::ZERO);
    for begun in (0..records).step_by(batch) {
        let given: Vec<_> = (begun..records.min(begun + batch)).map(record).collect();
        let before = (cpu("self"), cpu(&writer));
        runtime.block_on(exporter.export(&given));
        encoding += cpu("self").saturating_sub(before.0);
        writing += cpu(&writer).saturating_sub(before.1);
    }
    assert_eq!(store.status().request_log.written as usize, records, "all stored");
    let each = |time: Duration| time.as_nanos() as f64 / records as f64 / 1000.0;
    let bytes = store.status().file_bytes as usize / records;
    println!(
        "batches of {batch}: {:5.2} µs encoding + {:5.2} µs writing = {:5.2} µs per record, {bytes} bytes of file",
        each(encoding),
        each(writing),
        each(encoding + writing)
    );
}

/// A chat of about 1 KB each way, encoded already, as another exporter would have had it done.
fn record(number: usize) -> Arc<RequestMetrics> {
    let mut facts = Facts::new(RequestId::mint(), SystemTime::now());
    facts.provider = Some("openai".into());
    facts.model = Some("gpt-4o-mini".into());
    facts.requested_model = Some("gpt-4o-mini".into());
    facts.operation = "chat";
    facts.outcome = Outcome::Completed;
    facts.status_code = 200;
    facts.path = "/v1/chat/completions".into();
    facts.method = "POST".into();
    facts.usage = Usage::of(48, 865);
    facts.cost = Some(Money::from_pico_usd(45_600_000_000));
    facts.finish_reasons = vec!["stop".into()];
    let text = format!("{number} {}", "The quick brown fox jumps over the lazy dog, again. ".repeat(19));
    let request = format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let response = format!(
        r#"{{"id":"chatcmpl-{number}","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}}}}]}}"#
    );
    let record = RequestMetrics::seal(
        facts,
        Arc::new(TelemetryConfig::default()),
        Some(request.into()),
        Some(response.into()),
        None,
    );
    record.otel_log_json();
    Arc::new(record)
}

/// The store's thread, below `/proc/self/task`.
fn writer() -> String {
    let is_store =
        |task: &Path| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == "store");
    loop {
        // A thread gets its name a moment after it starts.
        let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
        if let Some(task) = tasks.flatten().map(|task| task.path()).find(|task| is_store(task)) {
            return task.file_name().expect("a name").to_string_lossy().into_owned();
        }
    }
}

/// What a thread of this process has run; `self` is the first.
fn cpu(thread: &str) -> Duration {
    let thread = if thread == "self" { std::process::id().to_string() } else { thread.to_owned() };
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).expect("Linux");
    Duration::from_nanos(text.split(' ').next().and_then(|first| first.parse().ok()).expect("a number"))
}

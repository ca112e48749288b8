//! What a record costs from its tap to a file: CPU time of the whole process per record, without any HTTP.
//!
//! `cargo run --release -p magicapi-telemetry --example record_cost -- DIRECTORY`; compare two builds in turns.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a program for developers")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use magicapi_exporters::file::FilePlugin;
use magicapi_plugin::{
    Facts, Host, Http, HttpError, HttpTransport, MetricRegistry, Outcome, RequestId, Settings, Signals,
    TelemetryPlugin, async_trait,
};
use magicapi_telemetry::{BodyKind, ExporterSetup, Finished, PipelineSettings, Telemetry, TelemetrySettings};

/// The file exporter sends nothing.
struct NoNetwork;

#[async_trait]
impl HttpTransport for NoNetwork {
    async fn send(&self, _: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        Err(HttpError::Connect("there is no network here".into()))
    }
}

/// One kind of request: its body, and what the provider answers.
struct Load {
    name: &'static str,
    request: Bytes,
    response: Bytes,
    kind: BodyKind,
    records: u32,
    /// Sent before the sender pauses, so that the queues never overflow.
    burst: u32,
}

fn loads() -> [Load; 3] {
    let request = |size: usize| {
        let content = "All work and no play. ".repeat(size / 22);
        let messages = serde_json::json!([{ "role": "user", "content": content }]);
        Bytes::from(serde_json::json!({ "model": "gpt-4o-mini", "messages": messages }).to_string())
    };
    let answer = Bytes::from_static(
        br#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Hello!"},"finish_reason":"stop"}],"usage":{"prompt_tokens":240,"completion_tokens":9,"total_tokens":249}}"#,
    );
    let event = "data: {\"id\":\"chatcmpl-1\",\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}\n\n";
    let events = Bytes::from(event.repeat(400) + "data: [DONE]\n\n");
    let whole = BodyKind::Whole;
    [
        Load {
            name: "1 KB",
            request: request(1 << 10),
            response: answer.clone(),
            kind: whole,
            records: 100_000,
            burst: 30,
        },
        Load {
            name: "100 KB",
            request: request(100 << 10),
            response: answer,
            kind: whole,
            records: 6_000,
            burst: 10,
        },
        Load {
            name: "400 events",
            request: request(1 << 10),
            response: events,
            kind: BodyKind::EventStream,
            records: 6_000,
            burst: 10,
        },
    ]
}

/// User and system time of the process so far, in seconds.
fn cpu() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit_once(')').expect("a name").1;
    let ticks =
        after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().expect("ticks"));
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

fn facts() -> Facts {
    let mut facts = Facts::new(RequestId::mint(), SystemTime::now());
    facts.provider = Some("openai".into());
    facts.model = Some("gpt-4o-mini".into());
    facts.usage.input = Some(240);
    facts.usage.output = Some(9);
    facts.cost = magicapi_plugin::Money::from_usd(0.000_041);
    (facts.latency_ms, facts.ttfb_ms, facts.provider_latency_ms) = (250, Some(240), Some(235));
    (facts.status_code, facts.provider_status_code, facts.attempts) = (200, 200, 1);
    facts.operation = "chat";
    facts.outcome = Outcome::Completed;
    facts
}

fn send(telemetry: &Telemetry, load: &Load) {
    let mut tap = telemetry.tap();
    tap.request(Bytes::copy_from_slice(&load.request));
    for chunk in load.response.chunks(4096) {
        tap.response_chunk(chunk);
    }
    let mut end = Finished::new(facts());
    end.response_kind = load.kind;
    tap.finish(end);
}

fn measure(load: &Load, path: &std::path::Path) {
    let host = Host::new(Http::new(Arc::new(NoNetwork)), Arc::new(MetricRegistry::default()).meter(""), None);
    let settings = Settings::from(serde_json::json!({ "path": path }));
    let setup = ExporterSetup {
        name: "file".into(),
        kind: "file",
        exporter: FilePlugin.create_exporter(settings, host).expect("settings"),
        pipeline: PipelineSettings::default(),
        signals: Signals::RECORDS,
        needs: magicapi_plugin::Needs::default(),
        exclusive: false,
        fingerprint: String::new(),
    };
    let telemetry =
        Telemetry::start(TelemetrySettings::default(), Arc::default(), vec![setup]).expect("threads");
    let before = cpu();
    for number in 0..load.records {
        send(&telemetry, load);
        if number % load.burst == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    telemetry.shutdown(Duration::from_secs(30));
    let each = (cpu() - before) * 1e6 / f64::from(load.records);
    let status = telemetry.status().remove(0);
    println!("{:>10}: {each:6.1} µs a record ({} sent, {} dropped)", load.name, status.sent, status.dropped);
    std::fs::remove_file(path).expect("the file");
}

fn main() {
    let directory = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    for load in loads() {
        measure(&load, &std::path::Path::new(&directory).join("record_cost.jsonl"));
    }
}

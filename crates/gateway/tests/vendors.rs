//! `datadog`, `newrelic` and `webhook` through the binary, against scripted servers that know each vendor's address,
//! key, coding and limits, put the gateway off first, and keep what they take.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy sees no test here")]

mod scene;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use magicapi_testkit::Gateway;
use magicapi_testkit::ask::chat;
use magicapi_testkit::asked::Asked;
use magicapi_testkit::configuration::RECORDS;
use magicapi_testkit::records::{line_of, parse};
use magicapi_testkit::wire::until;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use self::scene::{BINARY, Scene};

const DD_KEY: &str = "0123456789abcdef0123456789abcdef";
const NR_KEY: &str = "0123456789abcdef0123456789abcdefFFFFNRAL";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A status, or `None`: the connection is closed without an answer.
type Act = Option<u16>;

/// What a vendor says of a request: the records in it, or a status.
type Rule = fn(&Asked) -> Result<Vec<Value>, u16>;

#[derive(Default)]
struct Seen {
    /// What was taken, in order.
    taken: Vec<Value>,
    /// The headers of every request with records, taken or not.
    headers: Vec<BTreeMap<String, String>>,
    /// Statuses of what the rule refused.
    refused: Vec<u16>,
    script: VecDeque<Act>,
}

/// A vendor's server: its rule first, then the script, then 202.
struct Vendor {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    serving: JoinHandle<()>,
}

impl Vendor {
    async fn start(rule: Rule, script: &[Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free address");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Seen { script: script.iter().copied().collect(), ..Seen::default() }));
        let kept = seen.clone();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, rule, kept.clone()));
            }
        });
        Self { address, seen, serving }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Waits until it has so many records of the log's kind, and gives them.
    async fn records(&self, count: usize) -> Vec<Value> {
        until(&format!("{count} records"), async || {
            let seen = self.seen.lock().expect("seen");
            assert_eq!(seen.refused, [0_u16; 0], "the vendor's rule refused a request");
            let records: Vec<_> = seen.taken.iter().filter(|one| one.get("metric").is_none()).collect();
            (records.len() >= count).then(|| records.into_iter().cloned().collect())
        })
        .await
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut socket: TcpStream, rule: Rule, seen: Arc<Mutex<Seen>>) -> Option<()> {
    let mut received = Vec::new();
    loop {
        let asked = Asked::read(&mut socket, &mut received).await?;
        let act = {
            let mut seen = seen.lock().expect("seen");
            match rule(&asked) {
                Err(status) => {
                    seen.refused.push(status);
                    Some(status)
                }
                Ok(records) if records.is_empty() => Some(200),
                Ok(records) => {
                    seen.headers.push(asked.headers.clone());
                    let act = seen.script.pop_front().unwrap_or(Some(202));
                    if act == Some(202) {
                        seen.taken.extend(records);
                    }
                    act
                }
            }
        };
        let status = act?;
        let answer = format!("HTTP/1.1 {status} x\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{{}}");
        socket.write_all(answer.as_bytes()).await.ok()?;
    }
}

fn require(holds: bool, status: u16) -> Result<(), u16> {
    holds.then_some(()).ok_or(status)
}

/// The elements of a list somewhere in a JSON body.
fn list(asked: &Asked, at: &str) -> Result<Vec<Value>, u16> {
    asked.json().pointer(at).and_then(Value::as_array).cloned().ok_or(400)
}

fn datadog(asked: &Asked) -> Result<Vec<Value>, u16> {
    let header = |name: &str| asked.headers.get(name).map(String::as_str);
    require(header("dd-api-key") == Some(DD_KEY), 403)?;
    let coding = header("content-encoding");
    match asked.path.as_str() {
        "/api/v1/validate" => Ok(Vec::new()),
        "/api/v2/logs" => {
            require(coding == Some("gzip"), 415)?;
            let logs = list(asked, "")?;
            require(asked.body.len() <= 5_000_000 && logs.len() <= 1000, 413)?;
            for log in &logs {
                let text = |key: &str| log[key].as_str().is_some_and(|text| !text.is_empty());
                let complete = ["message", "ddsource", "ddtags", "service", "status"].into_iter().all(text);
                require(complete && log["timestamp"].is_u64() && log.to_string().len() <= 1_000_000, 400)?;
            }
            Ok(logs)
        }
        "/api/v2/series" => {
            require(coding == Some("gzip") && asked.packed <= 512_000, 413)?;
            let series = list(asked, "/series")?;
            for one in &series {
                let point = &one["points"][0];
                require(one["metric"].is_string() && one["tags"].is_array(), 400)?;
                require(point["timestamp"].is_u64() && point["value"].is_f64(), 400)?;
                require(one["type"] == 3 || (one["type"] == 1 && one["interval"].is_u64()), 400)?;
            }
            Ok(series)
        }
        "/api/v1/distribution_points" => {
            require(coding == Some("deflate"), 415)?;
            let series = list(asked, "/series")?;
            for one in &series {
                let values = one["points"][0][1].as_array().ok_or(400_u16)?;
                require(one["points"][0][0].is_u64() && values.iter().all(Value::is_f64), 400)?;
            }
            Ok(series)
        }
        _ => Err(404),
    }
}

fn newrelic(asked: &Asked) -> Result<Vec<Value>, u16> {
    require(asked.path == "/log/v1", 404)?;
    require(asked.headers.get("api-key").is_some_and(|key| key == NR_KEY), 403)?;
    require(asked.headers.get("content-type").is_some_and(|of| of == "application/json"), 415)?;
    require(asked.packed <= 1_000_000, 413)?;
    let logs = list(asked, "/0/logs")?;
    for log in &logs {
        let attributes = log["attributes"].as_object().ok_or(400_u16)?;
        let flat =
            attributes.values().all(|value| value.is_string() || value.is_number() || value.is_boolean());
        require(
            flat && attributes.len() <= 255 && log["timestamp"].is_u64() && log["message"].is_string(),
            400,
        )?;
    }
    Ok(logs)
}

fn webhook(asked: &Asked) -> Result<Vec<Value>, u16> {
    let header = |name: &str| asked.header(name);
    require(asked.path == "/in?token=canary-path" && header("x-tenant") == "canary-header", 404)?;
    // What is behind it is checked where the exporter is.
    let signature = header("webhook-signature").strip_prefix("v1,").unwrap_or_default();
    require(signature.len() == 44 && header("webhook-timestamp").parse::<u64>().is_ok(), 401)?;
    list(asked, "")
}

#[tokio::test]
async fn records_arrive_whole_at_all_three() {
    let (dd, nr, hook) = (
        Vendor::start(datadog, &[Some(429), None, Some(503)]).await,
        Vendor::start(newrelic, &[Some(503), None, Some(429)]).await,
        Vendor::start(webhook, &[None, Some(429), Some(500)]).await,
    );
    let exporters = json!([
        { "type": "file", "path": RECORDS, "batch": { "age": "20ms" } },
        { "type": "datadog", "api_key": DD_KEY, "logs_url": dd.url(""), "api_url": dd.url(""),
          "tags": ["team:core"], "batch": { "age": "20ms" } },
        { "type": "newrelic", "license_key": NR_KEY, "url": nr.url("/log/v1"), "batch": { "age": "20ms" } },
        { "type": "webhook", "url": hook.url("/in?token=canary-path"), "secret": SECRET,
          "headers": { "x-tenant": "canary-header" }, "batch": { "age": "20ms" } },
    ]);
    let changes = json!({ "telemetry": { "exporters": exporters, "metrics": { "interval": "1s" } } });
    let scene = Scene::start(changes).await;
    let error = json!({ "error": { "status": 429 } });
    let cases = [
        ("chat", json!({}), json!({})),
        ("stream", json!({}), json!({ "stream": true })),
        ("error", error, json!({})),
        ("large", json!({}), json!({ "messages": [{ "role": "user", "content": "x".repeat(90_000) }] })),
    ];
    for (case, script, more) in &cases {
        scene.chat(case, script, &chat("gpt-4o-mini", more)).await;
    }
    let (logs, attributes, bodies) =
        (dd.records(cases.len()).await, nr.records(cases.len()).await, hook.records(cases.len()).await);
    assert_eq!([logs.len(), attributes.len(), bodies.len()], [cases.len(); 3], "none twice");
    for (case, ..) in &cases {
        let line = line_of(&scene.gateway.path(RECORDS), case).await;
        let record = parse(&line);
        assert!(bodies.contains(&record), "{case}: the webhook's is the record itself");
        let own = &record["attributes"];
        let log = logs.iter().find(|log| log["id"] == own["id"]).expect("a log of Datadog's");
        let found = attributes.iter().find(|log| log["attributes"]["id"] == own["id"]);
        let flat = &found.expect("a log of New Relic's")["attributes"];
        assert_eq!((&log["metadata"], &log["resource"]), (&own["metadata"], &record["resource"]), "{case}");
        assert_eq!(flat["metadata.outcome"], own["metadata"]["outcome"]);
        assert_eq!(flat["metadata.latency"], own["metadata"]["latency"]);
        for one in [log, flat] {
            let text = |key: &str| one[key].as_str().map_or(Value::Null, parse);
            assert_eq!(text("request"), own["request"], "{case}");
            let mut response = text("response");
            if one["streamed_data"].is_string() {
                response["streamed_data"] = text("streamed_data");
            }
            assert_eq!(response, own["response"], "{case}");
        }
        assert!(
            log["ddtags"].as_str().is_some_and(|tags| tags.contains("provider:openai,model:gpt-4o-mini"))
        );
        assert_eq!(log["status"], if *case == "error" { "error" } else { "info" });
    }
    let seen = hook.seen.lock().expect("seen").headers.clone();
    assert_eq!(seen[0]["webhook-id"], seen[1]["webhook-id"], "a retry keeps its id");
    said_nothing_secret(&scene.gateway);
}

fn said_nothing_secret(gateway: &Gateway) {
    let log = gateway.log().join("\n");
    for secret in [DD_KEY, NR_KEY, SECRET, "canary"] {
        assert!(!log.contains(secret), "{secret} stands in the log");
    }
}

/// The counter of requests and the distribution of their latency, as the gateway counts them.
#[tokio::test]
async fn metrics_arrive_as_what_was_added() {
    let dd = Vendor::start(datadog, &[]).await;
    let exporters = json!([{ "type": "datadog", "api_key": DD_KEY, "logs_url": dd.url(""),
        "api_url": dd.url(""), "batch": { "age": "20ms" } }]);
    let scene =
        Scene::start(json!({ "telemetry": { "exporters": exporters, "metrics": { "interval": "1s" } } }))
            .await;
    for _ in 0..3 {
        scene.chat("metrics", &json!({}), &chat("gpt-4o-mini", &json!({}))).await;
    }
    let page = scene.admin("/api/v1/exporters").await;
    assert_eq!(page.status, 200);
    let (counted, timed) = until("three requests counted", async || {
        let seen = dd.seen.lock().expect("seen");
        assert_eq!(seen.refused, [0_u16; 0], "the vendor's rule refused a request");
        let of_model = |one: &&Value| {
            one["tags"].as_array().is_some_and(|tags| tags.contains(&json!("model:gpt-4o-mini")))
        };
        let sum: f64 = (seen.taken.iter().filter(|one| one["type"] == 1).filter(of_model))
            .filter(|one| one["metric"].as_str().is_some_and(|name| name.ends_with("requests")))
            .filter_map(|one| one["points"][0]["value"].as_f64())
            .sum();
        let values: usize = (seen.taken.iter().filter(|one| one["type"] == "distribution").filter(of_model))
            .filter(|one| {
                one["metric"].as_str().is_some_and(|name| name.ends_with("request_duration_seconds"))
            })
            .filter_map(|one| one["points"][0][1].as_array().map(Vec::len))
            .sum();
        (sum >= 3.0 && values >= 3).then_some((sum, values))
    })
    .await;
    assert_eq!((counted, timed), (3.0, 3), "no snapshot is counted twice");
}

#[tokio::test]
async fn a_wrong_key_is_said_and_records_wait() {
    let dd = Vendor::start(datadog, &[]).await;
    let exporters = json!([{ "type": "datadog", "api_key": "canary-of-another-site", "logs_url": dd.url(""),
        "api_url": dd.url("") }]);
    let scene = Scene::start(json!({ "telemetry": { "exporters": exporters } })).await;
    assert_eq!(scene.chat("wrong", &json!({}), &chat("gpt-4o-mini", &json!({}))).await.status, 200);
    let said = until("the refusal", async || {
        let list = scene.admin("/api/v1/exporters").await.json();
        let one = list["data"].as_array()?.iter().find(|one| one["name"] == "datadog")?.clone();
        let waits = one["queue_records"] == 1;
        one["last_error"].as_str().filter(|_| waits).map(str::to_owned)
    })
    .await;
    assert!(said.contains("403") && said.contains("DD_API_KEY") && said.contains("DD_SITE"), "{said}");
    assert!(!said.contains("canary"));
    said_nothing_secret(&scene.gateway);
}

/// Settings from the environment alone, checked without a connection.
#[test]
fn the_environment_configures_all_three() {
    let check = |variables: &[(&str, &str)]| {
        let mut command = Command::new(BINARY);
        command.env_clear().env("ENABLED_EXPORTERS", "datadog,newrelic,webhook").arg("check");
        let output = command.envs(variables.iter().copied()).output().expect("the binary");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (code, said) = check(&[]);
    assert_eq!(code, Some(2), "{said}");
    for part in ["DD_API_KEY", "NEW_RELIC_LICENSE_KEY", "WEBHOOK_URL"] {
        assert!(said.contains(part), "{said}");
    }
    let keys = [
        ("DD_API_KEY", DD_KEY),
        ("DD_SITE", "datadoghq.eu"),
        ("NEW_RELIC_LICENSE_KEY", NR_KEY),
        ("NEW_RELIC_REGION", "EU"),
        ("WEBHOOK_URL", "https://hooks.example/canary"),
        ("WEBHOOK_SECRET", SECRET),
    ];
    let (code, said) = check(&keys);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = check(&[&keys[..], &[("DD_SITE", "https://app.datadoghq.eu")]].concat());
    assert!(code == Some(2) && said.contains("site") && said.contains("datadoghq.eu"), "{said}");
    assert!(!said.contains(DD_KEY) && !said.contains("canary"));
}

//! The canary: known secrets in every place that the gateway reads, at TRACE, with back ends that are away and back ends
//! that repeat what they were sent. Then every byte that came out is looked through.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::net::SocketAddr;
use std::path::Path;

use magicapi_testkit::Response;
use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::canary::Canary;
use magicapi_testkit::configuration::{RECORDS, configuration, records_file};
use magicapi_testkit::gateway::STDOUT;
use magicapi_testkit::http::request;
use magicapi_testkit::wire::{Wire2, rest, until};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::scene::{Scene, mock, options, stderr, stdout};

/// A secret without a form by which one could tell it: 34 letters and digits.
fn plain(number: usize) -> String {
    format!("{number:02}q7Zt4Lw9Xk2Vb8Nm5Rc1Hd6Js3Gf0Py")
}

/// One as vendors make them. Put together here, so that no scanner takes this file for a leak.
fn formed(number: usize) -> String {
    format!("sk-{}-{}", "proj", plain(number))
}

/// A back end that answers everything with this status and with what it was sent, head and all.
async fn parrot(status: u16) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free address");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut received = vec![0; 64 << 10];
                let mut read = 0;
                while !received[..read].windows(4).any(|four| four == b"\r\n\r\n") {
                    let more = socket.read(&mut received[read..]).await.unwrap_or(0);
                    if more == 0 {
                        return;
                    }
                    read += more;
                }
                let said = String::from_utf8_lossy(&received[..read]).into_owned();
                let error = json!({ "error": { "type": said, "reason": said }, "message": said }).to_string();
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n",
                    error.len()
                );
                let answer = format!("{head}content-type: application/json\r\n\r\n{error}");
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

/// An address at which nobody listens.
fn nowhere() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free address");
    listener.local_addr().expect("an address")
}

/// Where secrets are, by number.
const PLACES: [&str; 25] = [
    "the provider's key",
    "the admin token",
    "the hash key",
    "the password for Elasticsearch",
    "the API key for Elasticsearch",
    "the webhook's address",
    "the webhook's header",
    "the proxy's password",
    "the bearer token for a back end",
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-aws-access-key-id",
    "x-aws-secret-access-key",
    "x-aws-session-token",
    "cookie",
    "proxy-authorization",
    "the query",
    "a request",
    "an answer",
    "a stream",
    "a form",
    "an error of the provider's",
    "a label",
];
/// The id of a request that stays under way.
const UNDER_WAY: &str = "canary-under-way";
const DATADOG: &str = "c0ffee0123456789abcdef0123456789";
const NEW_RELIC: &str = "c0ffee0123456789abcdef0123456789FFFFNRAL";
const WEBHOOK: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn number(place: &str) -> usize {
    PLACES.iter().position(|one| *one == place).unwrap_or_else(|| panic!("no place {place}"))
}

/// The secret of a place: one that is content has a form, one that is a credential need not.
fn secret(place: &str) -> String {
    let number = number(place);
    if number >= number_of_content() { formed(number) } else { plain(number) }
}

fn number_of_content() -> usize {
    number("a request")
}

fn canary() -> Canary {
    let secrets: Vec<(String, String)> = PLACES
        .iter()
        .map(|place| ((*place).to_owned(), secret(place)))
        .chain(
            [("Datadog", DATADOG), ("New Relic", NEW_RELIC), ("the webhook's secret", WEBHOOK)]
                .map(|(name, secret)| (name.to_owned(), secret.to_owned())),
        )
        .collect();
    Canary::new(secrets.iter().map(|(name, secret)| (name.as_str(), secret.as_str())))
}

async fn changes() -> Value {
    let (bad_request, forbidden, dead) = (parrot(400).await, parrot(403).await, nowhere());
    let quick = json!({ "records": 5, "bytes": "16KiB", "age": "20ms" });
    let exporters = json!([
        records_file(&json!({})),
        { "type": "console" },
        { "type": "prometheus" },
        { "type": "elasticsearch", "name": "refusing", "url": format!("http://{bad_request}"), "username": "elastic",
            "password": secret("the password for Elasticsearch"), "batch": quick },
        { "type": "elasticsearch", "name": "dead", "url": format!("http://{dead}"),
            "api_key": secret("the API key for Elasticsearch"), "batch": quick, "buffer": { "memory": "32KiB" } },
        { "type": "datadog", "api_key": DATADOG, "logs_url": format!("http://{forbidden}"),
            "api_url": format!("http://{forbidden}"), "batch": quick },
        { "type": "newrelic", "license_key": NEW_RELIC, "url": format!("http://{bad_request}"), "batch": quick },
        { "type": "webhook", "url": format!("http://{bad_request}/{}", secret("the webhook's address")),
            "secret": WEBHOOK, "auth": { "bearer": secret("the bearer token for a back end") }, "headers": { "x-token": secret("the webhook's header") }, "batch": quick },
    ]);
    json!({
        "admin": { "token": secret("the admin token") },
        "providers": { "openai": { "api_key": secret("the provider's key") } },
        "telemetry": { "exporters": exporters, "durable": true,
            "redact": { "replace": "hash", "hash_key": secret("the hash key") } },
    })
}

fn variables() -> [(&'static str, String); 2] {
    let proxy = format!("http://user:{}@127.0.0.1:1", secret("the proxy's password"));
    [("RUST_LOG", "trace".to_owned()), ("HTTPS_PROXY", proxy)]
}

/// Sends secrets in every place of a request. Gives the answers that are the gateway's own.
async fn ask(scene: &Scene) -> Vec<(String, Response)> {
    let mut own = Vec::new();
    let hello = chat("gpt-4o-mini", &json!({}));
    // A library of its own reads HTTP/2, and writes a log.
    let mut wire = Wire2::connect(scene.gateway.socket()).await;
    for header in &PLACES[number("authorization")..number("the query")] {
        let key = secret(header);
        let value = match *header {
            "authorization" => format!("Bearer {key}"),
            "cookie" => format!("session={key}"),
            "proxy-authorization" => format!("Basic {key}"),
            _ => key.clone(),
        };
        // A provider that repeats the key that it was sent, in an error and in an answer.
        let error = json!({ "error": { "status": 401, "body": { "error": { "message": format!("no such key: {key}") } } } });
        for script in [error, json!({ "text": format!("your key is {key}"), "chunk_bytes": 5 })] {
            for stream in [false, true] {
                let body = chat("gpt-4o-mini", &json!({ "stream": stream })).to_string();
                // Only the keys that go to the provider can come back from it.
                let repeats = number(header) <= number("x-goog-api-key");
                let script = if repeats { script.to_string() } else { "{}".into() };
                let headers = [(*header, &*value), ("x-mock", &script), ("content-type", "application/json")];
                scene.send(CHAT, header, &headers, body.clone()).await;
                let (_, mut answer) = wire.send("POST", CHAT, &headers, body.as_bytes()).await.head().await;
                let (_, whole) = rest(&mut answer).await;
                assert!(whole, "{header}");
            }
        }
        // The gateway's own refusals quote requests.
        for (path, body) in [(CHAT, "{"), ("/v1/nowhere", "{}"), (CHAT, "{\"model\":1}")] {
            own.push((
                format!("{path} with {header}"),
                scene.send(path, "own", &[(header, &value)], body).await,
            ));
        }
        let unknown = [(*header, value.as_str()), ("x-provider", "nobody")];
        own.push(("unknown provider".into(), scene.send(CHAT, "own", &unknown, hello.to_string()).await));
    }
    let ours = secret("the provider's key");
    let error =
        json!({ "error": { "status": 401, "body": { "error": { "message": format!("wrong: {ours}") } } } });
    scene.chat("ours", &error, &hello).await;
    scene.chat("ours", &json!({ "echo_headers": true }), &hello).await;
    let query = secret("the query");
    let url = format!("{CHAT}?key={query}&api_key={query}");
    scene.send(&url, "query", &[], hello.to_string()).await;
    own.push(("query".into(), scene.send(&format!("/v1/nowhere?key={query}"), "query", &[], "{}").await));
    content(scene).await;
    own
}

/// Secrets in bodies and labels.
async fn content(scene: &Scene) {
    let saying = |place: &str, stream: bool| {
        let mut body = chat("gpt-4o-mini", &json!({ "stream": stream }));
        body["messages"][0]["content"] = json!(format!("It is {}.", secret(place)));
        body
    };
    let text = |place: &str| json!({ "text": format!("It is {}.", secret(place)), "chunk_bytes": 3 });
    scene.chat("content", &text("an answer"), &saying("a request", false)).await;
    scene.chat("content", &text("a stream"), &saying("a request", true)).await;
    let broken = json!({ "text": format!("It is {}. And on.", secret("a stream")), "chunk_bytes": 3, "cut_after": 18 });
    scene.chat("content", &broken, &saying("a request", true)).await;
    let message = format!("cannot read {}", secret("an error of the provider's"));
    for status in [400, 500] {
        let error = json!({ "error": { "status": status, "body": { "error": { "message": message } } } });
        scene.chat("content", &error, &saying("a request", true)).await;
    }
    let field = |name: &str, value: &str| {
        format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let form = format!("{}{}--b--\r\n", field("model", "whisper-1"), field("prompt", &secret("a form")));
    let kind = ("content-type", "multipart/form-data; boundary=b");
    scene.send("/v1/audio/transcriptions", "content", &[kind], form).await;
    let label = secret("a label");
    let labels =
        [("x-user-id", label.as_str()), ("x-request-id", label.as_str()), ("x-project-name", &label)];
    scene.send(CHAT, "content", &labels, chat(&label, &json!({})).to_string()).await;
    scene.send(&format!("/proxy/openai/v1/{label}"), "content", &[("x-provider", &label)], "{}").await;
    // A caller that takes its own key for a model and for its name.
    let key = secret("authorization");
    let bearer = format!("Bearer {key}");
    let names = [("authorization", bearer.as_str()), ("x-provider", "openai"), ("x-user-id", &key)];
    let answer = scene.send(CHAT, "content", &names, chat(&key, &json!({})).to_string()).await;
    assert_eq!(answer.status, 200);
    // Enough to fill the memory of the back end that is away.
    let mut long = saying("a request", false);
    long["messages"][0]["content"] = json!(format!("{} {}", "x".repeat(4 << 10), secret("a request")));
    for _ in 0..30 {
        scene.chat("content", &json!({}), &long).await;
    }
}

/// A request that stays under way, with secrets wherever it has words of its own: its entry stands in the journal.
async fn under_way(scene: &Scene) -> TcpStream {
    let (key, label) = (secret("authorization"), secret("a label"));
    let body = chat(&format!("gpt-{label}"), &json!({})).to_string();
    let head = format!(
        "POST /proxy/openai/v1/chat/{label} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n\
         authorization: Bearer {key}\r\nx-user-id: {key}\r\nx-thread-id: {label}\r\nx-request-id: {UNDER_WAY}\r\n\
         x-mock: {{\"delay_headers_ms\":600000}}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut socket = TcpStream::connect(scene.gateway.socket()).await.expect("the gateway");
    socket.write_all(head.as_bytes()).await.expect("a request");
    let journal = scene.gateway.data_path().join("journal/telemetry");
    until("its entry in the journal", async || {
        let entries = std::fs::read_dir(&journal).ok()?;
        let mut files = entries.filter_map(|entry| std::fs::read(entry.ok()?.path()).ok());
        files.any(|file| String::from_utf8_lossy(&file).contains(UNDER_WAY)).then_some(())
    })
    .await;
    socket
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, |entries| {
        entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_file())).count()
    })
}

/// Every page of the admin plane, once all requests and all refusals show in them.
async fn look_at_pages(scene: &Scene, canary: &mut Canary) {
    let bearer = format!("Bearer {}", secret("the admin token"));
    let page = async |path: &str| {
        let url = scene.gateway.admin_url(path);
        request("GET", &url, &[("authorization", &bearer)], "").await
    };
    until("every back end's refusal", async || {
        let exporters = page("/api/v1/exporters").await.text();
        (exporters.matches("\"last_error\":\"").count() >= 5).then_some(())
    })
    .await;
    let asked = scene.mock.received().len();
    let (list, ids) = until("every request in the log", async || {
        let list = page("/api/v1/logs?limit=500").await;
        let rows = list.json()["data"].as_array().cloned().unwrap_or_default();
        let ids = rows.iter().filter_map(|row| Some(row["id"].as_str()?.to_owned()));
        let ids: Vec<String> = ids.collect();
        (ids.len() >= asked).then_some((list, ids))
    })
    .await;
    assert!(asked > 70, "{asked}");
    canary.look("the log's page", list.text());
    for id in ids {
        canary.look("a logged request", page(&format!("/api/v1/logs/{id}")).await.text());
    }
    for path in ["/metrics", "/health/details", "/api/v1/exporters", "/api/v1/openapi.json", "/nowhere"] {
        canary.look(path, page(path).await.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_comes_out_anywhere() {
    let directory = std::sync::Arc::new(TempDir::new().expect("a directory"));
    let mock = mock().await;
    let config = configuration(&mock.base_url(), changes().await);
    let variables = variables();
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let start = options(&config, &variables).data_dir(&directory).keep_stdout();
    let gateway = magicapi_testkit::Gateway::start(start).await;
    let scene = Scene { mock, gateway };
    let mut canary = canary();
    for (what, answer) in ask(&scene).await {
        assert!(answer.status >= 400, "{what}: {}", answer.status);
        canary.look(&what, answer.text());
        for (name, value) in &answer.headers {
            canary.look(&format!("{what}: {name}"), value);
        }
    }
    let spool = scene.gateway.data_path().join("spool");
    until("dead letters and a spool", async || {
        (files(&spool.join("webhook/dead")) > 0 && files(&spool.join("dead")) > 0).then_some(())
    })
    .await;
    look_at_pages(&scene, &mut canary).await;
    let under_way = under_way(&scene).await;
    canary.look_below(&scene.gateway.data_path(), &["gateway.json", "admin.token"]);
    drop(under_way);
    scene.gateway.signal("TERM");
    let mut gateway = scene.gateway;
    gateway.wait(magicapi_testkit::DEADLINE).await;
    canary.look_below(&gateway.data_path(), &["gateway.json", "admin.token"]);
    let log = gateway.log().join("\n");
    assert!(log.contains("\"TRACE\"") && log.contains("[REDACTED:"), "{log}");
    canary.look("stderr", log);
    for written in [STDOUT, RECORDS] {
        let records = std::fs::read(gateway.path(written)).expect("records");
        assert!(records.len() > 100_000, "{written}: {}", records.len());
        canary.look(written, records);
    }
    for command in ["check", "config"] {
        let output = options(&config, &variables).data_dir(&directory).arg(command).output();
        assert!(output.status.success(), "{}", stderr(&output));
        canary.look(command, stdout(&output) + &stderr(&output));
    }
    for exporter in ["refusing", "datadog", "newrelic", "webhook"] {
        let test =
            options(&config, &variables).data_dir(&directory).arg("exporters").arg("test").arg(exporter);
        let output = test.output();
        assert!(
            !output.status.success() && stdout(&output).contains("HTTP 40"),
            "{exporter}: {}",
            stdout(&output)
        );
        canary.look("exporters test", stdout(&output) + &stderr(&output));
    }
    assert!(canary.looked() > 2_000_000, "{}", canary.looked());
    canary.silent();
}

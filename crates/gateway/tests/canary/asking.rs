//! Requests with secrets in every place that a request has.

use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::canary::Canary;
use magicapi_testkit::http::post_json;
use magicapi_testkit::wire::{Wire2, rest, until};
use magicapi_testkit::{Gateway, Response};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::places::{CREDENTIALS, SENT_ON, secret};
use crate::scene::Scene;

/// The id of a request that stays under way.
const UNDER_WAY: &str = "canary-under-way";

/// Looks through an answer that is the gateway's own.
fn own(canary: &mut Canary, what: &str, answer: &Response) {
    assert!(answer.status >= 400, "{what}: {}", answer.status);
    canary.look(what, answer.text());
    for (name, value) in &answer.headers {
        canary.look(&format!("{what}: {name}"), value);
    }
}

/// A provider's refusal that says this.
fn refusal(message: &str) -> Value {
    json!({ "error": { "status": 401, "body": { "error": { "message": message } } } })
}

/// A caller's header with its secret.
fn credential(header: &str) -> String {
    let key = secret(header);
    match header {
        "authorization" => format!("Bearer {key}"),
        "cookie" => format!("session={key}"),
        "proxy-authorization" => format!("Basic {key}"),
        _ => key,
    }
}

/// Keys of callers in every header, over both versions of HTTP; the provider repeats those that it gets.
pub(crate) async fn credentials(scene: &Scene, canary: &mut Canary) {
    // A library of its own reads HTTP/2, and writes a log.
    let mut wire = Wire2::connect(scene.gateway.socket()).await;
    for header in CREDENTIALS {
        let (key, value) = (secret(header), credential(header));
        for script in [
            refusal(&format!("no such key: {key}")),
            json!({ "text": format!("your key is {key}"), "chunk_bytes": 5 }),
        ] {
            for stream in [false, true] {
                let body = chat("gpt-4o-mini", &json!({ "stream": stream })).to_string();
                let script = if SENT_ON.contains(&header) { script.to_string() } else { "{}".into() };
                let headers = [(header, &*value), ("x-mock", &script), ("content-type", "application/json")];
                scene.send(CHAT, header, &headers, body.clone()).await;
                let (_, mut answer) = wire.send("POST", CHAT, &headers, body.as_bytes()).await.head().await;
                assert!(rest(&mut answer).await.1, "{header}");
            }
        }
        // The gateway's own refusals quote requests.
        for (path, body) in [(CHAT, "{"), ("/v1/nowhere", "{}"), (CHAT, "{\"model\":1}")] {
            let answer = scene.send(path, "own", &[(header, &value)], body).await;
            own(canary, &format!("{path} with {header}"), &answer);
        }
        for provider in ["nobody", "groq"] {
            let elsewhere = [(header, value.as_str()), ("x-provider", provider)];
            let hello = chat("gpt-4o-mini", &json!({})).to_string();
            own(canary, provider, &scene.send(CHAT, "own", &elsewhere, hello).await);
        }
    }
    let hello = chat("gpt-4o-mini", &json!({}));
    let ours = secret("providers.openai.api_key");
    scene.chat("ours", &refusal(&format!("wrong: {ours}")), &hello).await;
    scene.chat("ours", &json!({ "echo_headers": true }), &hello).await;
    query(&scene.gateway, canary, &[]).await;
}

/// A secret in the URL.
async fn query(gateway: &Gateway, canary: &mut Canary, headers: &[(&str, &str)]) {
    let query = format!("key={0}&api_key={0}&{0}", secret("the query"));
    let hello = chat("gpt-4o-mini", &json!({})).to_string();
    gateway.send(&format!("{CHAT}?{query}"), "query", headers, hello).await;
    own(canary, "query", &gateway.send(&format!("/v1/nowhere?{query}"), "query", headers, "{}").await);
    gateway.send(&format!("/proxy/openai/v1/models?{query}"), "query", headers, "{}").await;
}

/// Secrets in bodies and labels.
pub(crate) async fn content(scene: &Scene) {
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
    labels(scene).await;
    // Enough to fill the memory of the back end that is away.
    let mut long = saying("a request", false);
    long["messages"][0]["content"] = json!(format!("{} {}", "x".repeat(4 << 10), secret("a request")));
    for _ in 0..30 {
        scene.chat("content", &json!({}), &long).await;
    }
}

/// Secrets in everything by which a caller names a request.
async fn labels(scene: &Scene) {
    let label = secret("a label");
    let names = [
        "x-user-id",
        "x-request-id",
        "x-project-id",
        "x-project-name",
        "x-organisation-id",
        "x-experiment-id",
        "x-thread-id",
        "traceparent",
        "tracestate",
        "user-agent",
        "referer",
        "openai-organization",
    ];
    let labels = names.map(|name| (name, label.as_str()));
    let answer = post_json(&scene.url(CHAT), &labels, &chat(&label, &json!({ "user": label }))).await;
    assert_eq!(answer.status, 200);
    // Next to a trace's id, where a record may keep it.
    let state = format!("vendor={label}");
    let trace =
        [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("tracestate", &state)];
    post_json(&scene.url(CHAT), &trace, &chat("gpt-4o-mini", &json!({}))).await;
    scene.send(&format!("/proxy/openai/v1/{label}"), "content", &[("x-provider", &label)], "{}").await;
    // A caller that takes its own key for a model and for its name.
    let (key, bearer) = (secret("authorization"), credential("authorization"));
    let names = [
        ("authorization", bearer.as_str()),
        ("x-provider", "openai"),
        ("x-user-id", &key),
        ("x-thread-id", &key),
    ];
    let answer = post_json(&scene.url(CHAT), &names, &chat(&key, &json!({}))).await;
    assert_eq!(answer.status, 200);
}

/// Virtual keys in every header, right ones and a wrong one.
pub(crate) async fn virtual_keys(scene: &Scene, canary: &mut Canary) {
    let ours = secret("OPENAI_API_KEY");
    for header in SENT_ON {
        for place in ["GATEWAY_API_KEYS", "auth.keys"] {
            let key = secret(place);
            let value = if *header == "authorization" { format!("Bearer {key}") } else { key.clone() };
            let mut body = chat("gpt-4o-mini", &json!({ "stream": true }));
            body["messages"][0]["content"] = json!(format!("I call you with {key}."));
            for script in [
                refusal(&format!("wrong: {ours}")),
                json!({ "echo_headers": true }),
                json!({ "chunk_bytes": 5 }),
            ] {
                let headers = [(*header, &*value), ("x-user-id", &key), ("x-mock", &script.to_string())];
                let answer = scene.send(CHAT, place, &headers, body.to_string()).await;
                assert_ne!(answer.header("x-gateway-error-origin"), "gateway", "{header}: {}", answer.text());
            }
            query(&scene.gateway, canary, &[(header, &value)]).await;
        }
        let key = secret("a wrong virtual key");
        let value = if *header == "authorization" { format!("Bearer {key}") } else { key };
        let answer =
            scene.send(CHAT, "wrong", &[(header, &value)], chat("gpt-4o-mini", &json!({})).to_string()).await;
        assert_eq!(answer.status, 401);
        own(canary, "a wrong key", &answer);
    }
    query(&scene.gateway, canary, &[]).await;
}

/// A request that stays under way, with secrets wherever it has words of its own: its entry stands in the journal.
pub(crate) async fn under_way(scene: &Scene) -> TcpStream {
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

//! Redaction through the binary: what records hold, what traffic holds, what the settings do.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use magicapi_testkit::Response;
use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::configuration::{configuration, records_file};
use magicapi_testkit::wire::{events, until};
use serde_json::{Value, json};

use crate::scene::{Scene, options, refusal, stderr, stdout};

/// Put together here, so that no scanner takes this file for a leak.
fn secret() -> String {
    ["sk-proj", "aB3dE5fG7hJ9kL2mN4pQ6rS8tU1vW0xYz"].join("-")
}

const MASK: &str = "[REDACTED:openai_key]";
const MAIL: &str = "jane.doe@example.com";

fn redact(settings: Value) -> Value {
    let mut changes = json!({ "telemetry": {} });
    changes["telemetry"]["redact"] = settings;
    changes
}

/// A chat request that says this.
fn saying(text: &str, more: &Value) -> Value {
    let mut body = chat("gpt-4o-mini", more);
    body["messages"][0]["content"] = json!(text);
    body
}

/// The record of a case as its line, without the secret, and what it says was found.
async fn clean_line(scene: &Scene, case: &str) -> (String, Value) {
    let line = scene.line(case).await;
    assert!(!line.contains(&secret()), "{case}: {line}");
    let record: Value = serde_json::from_str(&line).expect("json");
    (line, record["attributes"]["metadata"]["redacted"].clone())
}

/// The text of all deltas in a stream.
fn text_of(answer: &Response, pointer: &str) -> String {
    let events = events(&answer.text()).into_iter();
    let values = events.filter_map(|data| serde_json::from_str::<Value>(&data).ok());
    values.filter_map(|event| Some(event.pointer(pointer)?.as_str()?.to_owned())).collect()
}

#[tokio::test]
async fn a_secret_in_pieces_reaches_the_caller_and_no_record() {
    let scene = Scene::start(json!({})).await;
    let text = format!("The key is {}, keep it.", secret());
    let script = json!({ "text": text, "chunk_bytes": 5 });
    let asked = saying("Which key?", &json!({ "stream": true }));
    let answer = scene.chat("streamed", &script, &asked).await;
    assert_eq!(text_of(&answer, "/choices/0/delta/content"), text, "traffic is as the provider sent it");
    let (line, found) = clean_line(&scene, "streamed").await;
    assert_eq!(found, json!({ "openai_key": 1 }));
    let record: Value = serde_json::from_str(&line).expect("json");
    let response = &record["attributes"]["response"];
    assert_eq!(response["choices"][0]["delta"]["content"], format!("The key is {MASK}, keep it."));
    let slices = response["streamed_data"].as_array().expect("events").iter();
    let slices: String =
        slices.filter_map(|event| event.pointer("/choices/0/delta/content")?.as_str()).collect();
    assert_eq!(slices, format!("The key is {MASK}, keep it."), "the events add up to the answer");

    let script =
        json!({ "tool_calls": [{ "name": "login", "arguments": { "key": secret() } }], "chunk_bytes": 5 });
    let answer = scene.chat("tool", &script, &asked).await;
    let arguments = text_of(&answer, "/choices/0/delta/tool_calls/0/function/arguments");
    assert!(arguments.contains(&secret()), "{arguments}");
    let (line, _) = clean_line(&scene, "tool").await;
    assert!(line.contains(MASK), "{line}");
}

#[tokio::test]
async fn secrets_in_any_body_label_or_error_are_in_no_record_and_no_log() {
    let exporters = json!([records_file(&json!({})), { "type": "prometheus" }]);
    let scene = Scene::start(json!({ "telemetry": { "exporters": exporters } })).await;
    let secret = secret();
    let ask = saying(&format!("My key: {secret}"), &json!({}));
    let answer = scene.chat("buffered", &json!({ "text": format!("Is it {secret}?") }), &ask).await;
    assert!(answer.text().contains(&secret));
    assert_eq!(scene.received().body, ask.to_string(), "the provider gets what the caller sent");
    assert_eq!(clean_line(&scene, "buffered").await.1, json!({ "openai_key": 2 }));

    let embed = json!({ "model": "text-embedding-3-small", "input": ["a", secret] }).to_string();
    scene.send("/v1/embeddings", "embeddings", &[], embed).await;
    assert!(clean_line(&scene, "embeddings").await.0.contains(&format!("\"input\":[\"a\",\"{MASK}\"]")));

    let field = |name: &str, value: &str| {
        format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let form = format!("{}{}--b--\r\n", field("model", "whisper-1"), field("prompt", &secret));
    let kind = ("content-type", "multipart/form-data; boundary=b");
    scene.send("/v1/audio/transcriptions", "form", &[kind], form).await;
    assert!(clean_line(&scene, "form").await.0.contains(MASK));

    let error = json!({ "error": { "message": format!("Incorrect API key provided: {secret}.") } });
    let script = json!({ "error": { "status": 401, "body": error } });
    let answer = scene.chat("error", &script, &saying("hello", &json!({}))).await;
    assert!(answer.status == 401 && answer.text().contains(&secret));
    let (line, _) = clean_line(&scene, "error").await;
    assert!(line.contains(&format!("Incorrect API key provided: {MASK}.")), "{line}");

    // What the gateway itself says about a request quotes it.
    let refused = scene.send(CHAT, "refused", &[("x-provider", secret.as_str())], ask.to_string()).await;
    assert_eq!(refused.status, 400);
    let (line, _) = clean_line(&scene, "refused").await;
    assert!(line.contains(&format!("names the provider `{MASK}`")), "{line}");
    let labels = [("x-user-id", secret.as_str()), ("x-request-id", secret.as_str())];
    let path = format!("/proxy/openai/v1/{secret}");
    scene.send(&path, "labels", &labels, "{}").await;
    let record: Value = serde_json::from_str(&clean_line(&scene, "labels").await.0).expect("json");
    let attributes = &record["attributes"];
    assert_eq!(attributes["user_id"], MASK);
    assert_eq!(attributes["metadata"]["path"], format!("/proxy/openai/v1/{MASK}"));
    assert_eq!(attributes["metadata"]["client_request_id"], MASK);

    let answer = scene.chat("model", &json!({}), &chat(&secret, &json!({}))).await;
    assert_eq!((answer.status, answer.header("x-gateway-model")), (200, secret.as_str()));
    assert_eq!(scene.record("model").await["attributes"]["model"], MASK);

    let page = until("the counts", async || {
        let page = scene.admin("/metrics").await.text();
        page.contains("gateway_redactions_total{").then_some(page)
    })
    .await;
    assert!(page.contains("class=\"secret\"") && page.contains("name=\"openai_key\""), "{page}");
    assert!(!page.contains(&secret), "a model's name is a label");
    let log = scene.log().join("\n");
    assert!(log.contains(MASK) && !log.contains(&secret), "{log}");
    let left = scene::stop(scene.gateway).await;
    assert_eq!(left.row("labels").user_id.as_deref(), Some(MASK));
    assert_eq!(left.row("model").model.as_deref(), Some(MASK));
}

#[tokio::test]
async fn telemetry_redact_pii_is_taken_out_when_asked_and_a_reload_asks() {
    let scene = Scene::start(json!({})).await;
    let ask = saying(&format!("Write to {MAIL} or call +49 30 901820."), &json!({}));
    scene.send(CHAT, "before", &[("x-user-id", MAIL)], ask.to_string()).await;
    let line = scene.line("before").await;
    assert!(line.contains(&format!("Write to {MAIL}")) && line.contains("\"redacted\":null"), "{line}");
    scene.rewrite(redact(json!({ "pii": ["email"] })));
    scene.logged("configuration reloaded", 1).await;
    scene.send(CHAT, "after", &[("x-user-id", MAIL)], ask.to_string()).await;
    assert!(scene.received().body.windows(MAIL.len()).any(|window| window == MAIL.as_bytes()));
    let line = scene.line("after").await;
    assert!(!line.contains(MAIL) && line.contains("+49 30 901820"), "{line}");
    // The mock repeats the question.
    assert!(line.contains("\"redacted\":{\"email\":3}"), "{line}");
    scene.rewrite(redact(json!({ "pii": true })));
    scene.logged("configuration reloaded", 2).await;
    scene.chat("all", &json!({}), &ask).await;
    assert!(scene.line("all").await.contains("Write to [REDACTED:email] or call [REDACTED:phone]."));
    let left = scene::stop(scene.gateway).await;
    assert_eq!(left.row("after").user_id.as_deref(), Some(MAIL), "spend is counted by it");
}

#[tokio::test]
async fn telemetry_redact_patterns_and_paths_name_what_else_goes() {
    let settings = json!({ "patterns": [{ "name": "ticket", "regex": "\\bTCK-\\d{4}\\b" }],
        "paths": ["$.request.user", "$.response.choices[*].message.content"] });
    let scene = Scene::start(redact(settings)).await;
    let ask = saying("About TCK-1234 and TCK-12.", &json!({ "user": "jane" }));
    scene.chat("case", &json!({ "text": "Nothing to say." }), &ask).await;
    let record = scene.record("case").await["attributes"].take();
    assert_eq!(record["request"]["messages"][0]["content"], "About [REDACTED:ticket] and TCK-12.");
    assert_eq!(record["request"]["user"], "[REDACTED:path]");
    assert_eq!(record["response"]["choices"][0]["message"]["content"], "[REDACTED:path]");
    assert_eq!(record["metadata"]["redacted"], json!({ "path": 2, "ticket": 1 }));
}

#[tokio::test]
async fn telemetry_redact_replace_hash_tells_secrets_apart() {
    let hashes = async |key: &str| {
        let scene = Scene::start(redact(json!({ "replace": "hash", "hash_key": key }))).await;
        let other = secret().replace("aB3d", "zY9x");
        let text = format!("{} {} {other}", secret(), secret());
        scene.chat("case", &json!({ "text": "" }), &saying(&text, &json!({}))).await;
        let record = scene.record("case").await;
        let said = record["attributes"]["request"]["messages"][0]["content"].as_str().expect("text");
        said.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let first = hashes("0123456789abcdef").await;
    assert!(first.iter().all(|one| one.starts_with("[REDACTED:openai_key:") && one.len() == 34), "{first:?}");
    assert!(first[0] == first[1] && first[0] != first[2], "{first:?}");
    assert_ne!(hashes("another key of 16").await[0], first[0]);
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused_offline_where_they_stand() {
    let file = |redact: &str| format!("telemetry:\n  redact:\n{redact}");
    for (yaml, said) in [
        (
            "    patterns:\n      - { name: a, regex: 'x' }\n      - { name: b, regex: 'a(b' }\n",
            "gateway.yaml:5:20: telemetry.redact.patterns[1].regex: no regular expression: unclosed group, at \
             character 2; look-around and back-references are not known",
        ),
        (
            "    paths: [ \"$.request\", \"$.reqest.user\" ]\n",
            "gateway.yaml:3:27: telemetry.redact.paths[1]: `$.reqest.user` begins at `reqest`, which no record has; \
             begin at one of request, response,",
        ),
        (
            "    pii: [ emial ]\n",
            "gateway.yaml:3:12: telemetry.redact.pii[0]: expected `email`, `phone`, `card`, `iban`, `ip` or \
             `national_id`, found `emial`; did you mean `email`?",
        ),
        (
            "    replace: hash\n",
            "gateway.yaml:3:5: telemetry.redact.replace: `hash` needs a key; set `hash_key` to a secret of 16 bytes \
             or more",
        ),
        (
            "    replace: hash\n    hash_key: short-one\n",
            "gateway.yaml:4:5: telemetry.redact.hash_key: has 9 bytes; give a secret of 16 or more",
        ),
    ] {
        let start = options(&json!({}), &[]).config(file(yaml));
        for command in [start.output(), options(&json!({}), &[]).config(file(yaml)).arg("check").output()] {
            let shown = stderr(&command);
            assert_eq!(command.status.code(), Some(2), "{shown}");
            assert!(shown.contains(said) && !shown.contains("short-one"), "{said}\n{shown}");
        }
    }
    let good = configuration("http://127.0.0.1:1/v1", redact(json!({ "pii": true })));
    let checked = options(&good, &[]).arg("check").output();
    assert!(stdout(&checked).starts_with("ok: "), "{}", stderr(&checked));
    let twice = json!([{ "name": "a", "regex": "x" }, { "name": "a", "regex": "y" }]);
    assert!(refusal(&configuration("", redact(json!({ "patterns": twice }))), &[]).contains("given twice"));
}

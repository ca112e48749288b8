//! Which provider gets a request, with whose credential, and which headers cross the gateway.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod access;
mod choice;
mod credentials;
mod forms;
mod headers;
mod pages;
#[path = "../scene/mod.rs"]
mod scene;

use magicapi_mock::Received;
use magicapi_testkit::ask::CHAT;
use magicapi_testkit::configuration::configuration;
use magicapi_testkit::{Gateway, Response};
use serde_json::{Value, json};

use crate::scene::{Scene, mock, options};

/// Providers that are all the mock, each below a path of its own: `openai`, `groq`, `together` with keys of ours, and
/// `local`, a server that speaks as OpenAI does.
async fn start(mut changes: Value) -> Scene {
    let mock = mock().await;
    let at = |name: &str| format!("http://{}/{name}/v1", mock.addr());
    if changes.get("providers").is_none() {
        changes["providers"] = json!({
            "groq": { "api_key": "sk-ours-groq", "base_url": at("groq") },
            "together": { "api_key": "sk-ours-together", "base_url": at("together") },
            "local": { "type": "openai", "base_url": at("local") },
        });
    }
    let gateway = Gateway::start(options(&configuration(&at("openai"), changes), &[])).await;
    Scene { mock, gateway }
}

/// The provider and the model that the last request went to.
fn went_to(scene: &Scene) -> (String, String) {
    let received = scene.received();
    let body: Value = serde_json::from_slice(&received.body).expect("JSON upstream");
    let provider = received.path.split('/').nth(1).expect("a provider's path");
    (provider.to_owned(), body["model"].as_str().expect("a model").to_owned())
}

fn question_to(model: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": "hello there" }] })
}

async fn ask(scene: &Scene, headers: &[(&str, &str)], model: &str) -> Response {
    scene.post(CHAT, &json!({}), headers, &question_to(model)).await
}

/// A model that groq alone of the configured providers has.
const GROQS: &str = "llama-guard-3-8b";

/// The credential headers that reached the provider.
fn credentials_of(received: &Received) -> Vec<(String, String)> {
    let names = ["authorization", "x-api-key", "api-key", "x-goog-api-key"];
    let kept = |name: &str| names.contains(&name) || name.starts_with("x-aws-");
    received.headers.iter().filter(|(name, _)| kept(name)).cloned().collect()
}

/// One bearer credential and no other.
fn bearer(key: &str) -> Vec<(String, String)> {
    vec![("authorization".to_owned(), format!("Bearer {key}"))]
}

fn assert_error(answer: &Response, status: u16, code: &str) -> String {
    let text = answer.text();
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (status, &json!(code)), "{text}");
    text
}

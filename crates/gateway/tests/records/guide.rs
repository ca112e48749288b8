//! The two log samples of the original guide: ours have every key of theirs, with the same type and, where the sample
//! is a result of what went in, the same value.

use magicapi_testkit::ask::CHAT;
use magicapi_testkit::configuration::OUR_KEY;
use serde_json::{Value, json};

use super::golden::assert_golden;
use crate::scene::Scene;
use crate::with_prices;

/// Rows that make the samples' costs of the samples' tokens.
const PRICES: &str = r#"{"provider":"azure","model":"gpt-4-turbo","price":{"standard":{"base":{"input":85,"output":48}}}}
{"provider":"groq","model":"llama-3.1-8b-instant","price":{"standard":{"base":{"input":106,"output":87}}}}
"#;

async fn scene() -> Scene {
    with_prices(PRICES, &["azure", "groq"], |options| options.env("DEPLOYMENT_ENVIRONMENT", "production"))
        .await
}

fn sample(name: &str) -> Value {
    let path = format!("{}/tests/golden/guide/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("the sample")).expect("JSON")
}

/// Every key path of `theirs` is in `ours`, with the same type where it has a value.
fn assert_covers(path: &str, theirs: &Value, ours: &Value) {
    match (theirs, ours) {
        (Value::Null, _) | (Value::Bool(_), Value::Bool(_)) | (Value::String(_), Value::String(_)) => {}
        (Value::Number(theirs), Value::Number(ours)) => {
            assert_eq!(theirs.is_f64(), ours.is_f64(), "{path}: {theirs}, {ours}");
        }
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, value) in theirs {
                let ours = ours.get(key).unwrap_or_else(|| panic!("{path}.{key} is missing"));
                assert_covers(&format!("{path}.{key}"), value, ours);
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            // The sample leaves chunks out between its first and its last.
            let pairs = [(theirs.first(), ours.first()), (theirs.last(), ours.last())];
            for (theirs, ours) in pairs {
                assert_covers(&format!("{path}[]"), theirs.expect("one"), ours.expect("one"));
            }
        }
        _ => panic!("{path}: the sample has {theirs}, the record {ours}"),
    }
}

#[tokio::test]
async fn the_buffered_sample() {
    let scene = scene().await;
    let usage = json!({ "prompt_tokens": 48, "completion_tokens": 865, "total_tokens": 913 });
    let script = json!({ "text": "A plan.", "usage": usage,
        "headers": { "x-request-id": "req_01jnkrrz2ken1bej7emqf9j2af" } });
    let headers = [
        ("x-provider", "azure"),
        ("x-organisation-id", "org_123"),
        ("x-user-id", "user_456"),
        ("x-project-id", "proj_design"),
        ("x-project-name", "UX Design"),
        ("x-experiment-id", "exp_7"),
        ("x-mock", &script.to_string()),
    ];
    let body =
        json!({ "model": "gpt-4-turbo", "messages": [{ "role": "user", "content": "Plan a design" }] });
    let answer = scene.send(CHAT, "thread_29", &headers, body.to_string()).await;
    let record = scene.record("thread_29").await;
    assert_golden("guide_buffered", &record);

    let sample = sample("buffered");
    assert_covers("", &sample, &record);
    let (ours, theirs) = (&record["attributes"], &sample["attributes"]);
    for key in ["thread_id", "org_id", "user_id", "project_id", "provider", "model"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    assert_eq!(ours["experiment_id"], "exp_7");
    assert_eq!(ours["request"], body);
    assert_eq!(ours["response"], answer.json());
    for key in
        ["project_id", "project_name", "cost", "status", "path", "method", "status_code", "error_count"]
    {
        assert_eq!(ours["metadata"][key], theirs["metadata"][key], "{key}");
    }
    for key in ["input", "output", "total"] {
        assert_eq!(ours["metadata"]["tokens"][key], theirs["metadata"]["tokens"][key], "{key}");
    }
    assert_eq!(ours["metadata"]["provider_request_id"], theirs["metadata"]["provider_request_id"]);
    assert_eq!(ours["metadata"]["response_size"], answer.body.len());
    let received = &scene.mock.received()[0];
    assert_eq!(received.header("api-key"), Some(OUR_KEY), "Azure's own form of a key");
}

#[tokio::test]
async fn the_streamed_sample() {
    let scene = scene().await;
    let sample = sample("streamed");
    let theirs = &sample["attributes"];
    // Between the sample's first and its last: the elided ones, written so that the texts match.
    let elided = ["\"Moonlit Dreams\"", "\n\nThe night is dark..."].map(|text| {
        json!({ "nonce": "77", "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] })
    });
    let shown = theirs["response"]["streamed_data"].as_array().expect("chunks");
    let chunks = json!([shown[0], elided[0], elided[1], shown[1]]);
    let headers = [
        ("x-provider", "groq"),
        ("x-organisation-id", "org_123"),
        ("x-user-id", "user_456"),
        ("x-project-id", "proj_chat"),
        ("x-mock", &json!({ "raw_chunks": chunks }).to_string()),
    ];
    scene.send(CHAT, "thread_31", &headers, theirs["request"].to_string()).await;
    let record = scene.record("thread_31").await;
    assert_golden("guide_streamed", &record);

    assert_covers("", &sample, &record);
    let ours = &record["attributes"];
    for key in ["thread_id", "org_id", "user_id", "project_id", "provider", "model", "request"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    assert_eq!(ours["response"]["streamed_data"], chunks, "each chunk whole");
    for key in ["id", "model"] {
        assert_eq!(ours["response"][key], theirs["response"][key], "{key}");
    }
    assert_eq!(ours["response"]["choices"][0]["delta"], theirs["response"]["choices"][0]["delta"]);
    let (ours, theirs) = (&ours["metadata"], &theirs["metadata"]);
    for key in ["input", "output", "total"] {
        assert_eq!(ours["tokens"][key], theirs["tokens"][key], "{key}");
    }
    assert_eq!((&ours["cost"], &ours["status"]), (&theirs["cost"], &theirs["status"]));
    assert!(record["attributes"].get("experiment_id").is_none(), "its header did not come");
}

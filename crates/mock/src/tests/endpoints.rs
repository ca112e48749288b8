use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::client_for_tests::{Got, head, post, send, server};
use crate::{MockServer, Script};

async fn start() -> MockServer {
    server(Script::default()).await
}

async fn plain(path: &str, body: Value) -> Got {
    let server = start().await;
    post(server.addr(), path, json!({}), &body).await
}

#[tokio::test]
async fn embeddings_in_both_formats() {
    let body = json!({"model": "e", "input": ["a", "b c"], "dimensions": 4});
    let floats = plain("/v1/embeddings", body.clone()).await.json();
    assert_eq!(floats["usage"]["prompt_tokens"], 3);
    let mut body = body;
    body["encoding_format"] = json!("base64");
    let coded = plain("/v1/embeddings", body).await.json();
    let bytes = STANDARD.decode(coded["data"][1]["embedding"].as_str().unwrap()).unwrap();
    let decoded: Vec<f64> =
        bytes.chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect();
    let listed: Vec<f64> =
        floats["data"][1]["embedding"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
    assert_eq!(decoded, listed);
}

#[tokio::test]
async fn models() {
    let server = start().await;
    let list = send(server.addr(), &head("GET", "/openai/v1/models", &[], b"")).await.json();
    assert_eq!(list["data"][0]["object"], "model");
    let one = send(server.addr(), &head("GET", "/v1/models/org%2Fm", &[], b"")).await.json();
    assert_eq!(one["id"], "org/m");
    assert_eq!(send(server.addr(), &head("GET", "/v1/models/missing", &[], b"")).await.status, 404);
    assert_eq!(send(server.addr(), &head("GET", "/v1/chat/completions", &[], b"")).await.status, 405);
    let unknown = send(server.addr(), &head("GET", "/v1/nope", &[], b"")).await;
    assert_eq!(
        (unknown.status, unknown.json()["error"]["type"].as_str()),
        (404, Some("invalid_request_error"))
    );
}

#[tokio::test]
async fn completions() {
    let body = json!({"model": "m", "prompt": "say it"});
    let whole = plain("/v1/completions", body).await.json();
    assert_eq!(whole["object"], "text_completion");
    assert!(whole["choices"][0]["text"].as_str().unwrap().ends_with("say it"));
    let body =
        json!({"model": "m", "prompt": "p", "stream": true, "stream_options": {"include_usage": true}});
    let got = plain("/v1/completions", body).await;
    let events = got.events();
    assert_eq!(events.last().unwrap()["choices"], json!([]));
    let text: String = events.iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, "Hello from the mock provider. You said: p");
    assert!(got.text().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn responses() {
    let script =
        json!({"text": "ok then", "reasoning": "hm", "tool_calls": [{"name": "f", "arguments": "{}"}]});
    let server = start().await;
    let body = json!({"model": "m", "input": "x"});
    let whole = post(server.addr(), "/v1/responses", script.clone(), &body).await.json();
    assert_eq!(whole["output"][1]["content"][0]["text"], "ok then");
    assert_eq!(whole["output"][2]["call_id"], "call_mock_0");
    let body = json!({"model": "m", "input": "x", "stream": true});
    let got = post(server.addr(), "/v1/responses", script, &body).await;
    let events = got.events();
    assert_eq!(events[0]["type"], "response.created");
    assert_eq!(events.last().unwrap()["type"], "response.completed");
    let mut completed = events.last().unwrap()["response"].clone();
    completed["id"] = whole["id"].clone();
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], n);
        assert!(got.text().contains(&format!("event: {}\n", event["type"].as_str().unwrap())));
    }
    let text: String = events
        .iter()
        .filter(|e| e["type"] == "response.output_text.delta")
        .filter_map(|e| e["delta"].as_str())
        .collect();
    assert_eq!(text, "ok then");
}

#[tokio::test]
async fn images_speech_and_lists() {
    let image = plain("/v1/images/generations", json!({"prompt": "a b", "n": 2})).await.json();
    let png = STANDARD.decode(image["data"][1]["b64_json"].as_str().unwrap()).unwrap();
    assert_eq!(&png[..4], b"\x89PNG");
    let speech = plain("/v1/audio/speech", json!({"input": "x", "response_format": "wav"})).await;
    assert_eq!((speech.body.len(), speech.header("content-type")), (4096, Some("audio/wav")));
    assert!(speech.body.contains(&0) && speech.body.contains(&255));
    let moderated = plain("/v1/moderations", json!({"input": ["fine", "flagme"]})).await.json();
    assert_eq!(moderated["results"][1]["flagged"], true);
    let body = json!({"model": "r", "query": "red fox", "documents": ["blue", "red fox", "red"], "top_n": 2,
        "return_documents": true});
    let ranked = plain("/v1/rerank", body).await.json();
    assert_eq!(
        ranked["results"][0],
        json!({"index": 1, "relevance_score": 1.0, "document": {"text": "red fox"}})
    );
    assert_eq!(ranked["results"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn multipart() {
    let server = start().await;
    let form = "--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nw\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n12345\r\n--B--\r\n";
    let kind = [("content-type", "multipart/form-data; boundary=B")];
    let request = head("POST", "/v1/audio/transcriptions", &kind, form.as_bytes());
    let got = send(server.addr(), &request).await.json();
    assert_eq!(got["text"], "Mock transcription of 5 bytes.");
    assert_eq!(got["bytes_received"], form.len());
    let request = head("POST", "/v1/files", &kind, form.as_bytes());
    let got = send(server.addr(), &request).await.json();
    assert_eq!((got["bytes"].as_u64(), got["filename"].as_str()), (Some(5), Some("a.wav")));
    assert_eq!(plain("/v1/files", json!({})).await.status, 400);
}

#[tokio::test]
async fn malformed_requests() {
    let server = start().await;
    let got = send(server.addr(), &head("POST", "/v1/chat/completions", &[], b"{oops")).await;
    assert_eq!(got.status, 400);
    let got = plain("/v1/chat/completions", json!({"model": "m"})).await;
    assert_eq!(got.json()["error"]["param"], "messages");
    let got = plain("/v1/chat/completions", json!({"messages": []})).await;
    assert_eq!(got.json()["error"]["param"], "model");
}

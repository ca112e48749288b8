//! What a test says to a gateway before a scripted provider, and where it finds what became of it. A script travels in
//! the header `x-mock`; a case is named by `x-thread-id`, which its record carries.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::configuration::{RECORDS, lay_over};
use crate::http::{Response, get, post_json, request};
use crate::records::{line_of, parse, read_records, wait_for_records};
use crate::wire::{self, Answer, Wire, patiently, until};
use crate::{DEADLINE, Gateway};

/// The path of chat completions.
pub const CHAT: &str = "/v1/chat/completions";

/// A chat body.
pub fn chat(model: &str, more: &Value) -> Value {
    let mut body = json!({ "model": model, "messages": [{ "role": "user", "content": "hello there" }] });
    lay_over(&mut body, more.clone());
    body
}

/// A question of 2 words.
pub fn question() -> Value {
    chat("gpt-4o-mini", &json!({}))
}

/// The question, to be answered with one document, which it says.
pub fn buffered() -> Value {
    chat("gpt-4o-mini", &json!({ "stream": false }))
}

/// The question, to be answered with a stream.
pub fn streaming() -> Value {
    chat("gpt-4o-mini", &json!({ "stream": true }))
}

/// The question, to be answered with a stream and its usage.
pub fn streaming_with_usage() -> Value {
    chat("gpt-4o-mini", &json!({ "stream": true, "stream_options": { "include_usage": true } }))
}

/// The bytes of a chat request under a script.
pub fn chat_request(case: &str, script: &Value, body: &Value) -> Vec<u8> {
    json_request(CHAT, case, script, body.to_string().as_bytes())
}

/// The bytes of a JSON request under a script.
pub fn json_request(path: &str, case: &str, script: &Value, body: &[u8]) -> Vec<u8> {
    let script = script.to_string();
    let headers = [("content-type", "application/json"), ("x-thread-id", case), ("x-mock", script.as_str())];
    wire::request("POST", path, &headers, body)
}

impl Gateway {
    /// Asks the question under a script.
    pub async fn ask(&self, script: &Value, headers: &[(&str, &str)]) -> Response {
        self.post(CHAT, script, headers, &question()).await
    }

    /// Asks the question under a script, to be answered with a stream.
    pub async fn streamed(&self, script: &Value) -> Response {
        self.post(CHAT, script, &[], &streaming()).await
    }

    /// Sends a JSON document under a script.
    pub async fn post(&self, path: &str, script: &Value, headers: &[(&str, &str)], body: &Value) -> Response {
        let script = script.to_string();
        let headers: Vec<_> = headers.iter().copied().chain([("x-mock", script.as_str())]).collect();
        post_json(&self.url(path), &headers, body).await
    }

    /// Sends a chat request of a case under a script and reads the whole answer.
    pub async fn chat(&self, case: &str, script: &Value, body: &Value) -> Response {
        self.send(CHAT, case, &[("x-mock", &script.to_string())], body.to_string()).await
    }

    /// Sends any document of a case: JSON, unless `headers` name another content type.
    pub async fn send(
        &self,
        path: &str,
        case: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response {
        let mut all = vec![("x-thread-id", case)];
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            all.push(("content-type", "application/json"));
        }
        all.extend_from_slice(headers);
        request("POST", &self.url(path), &all, body).await
    }

    /// Sends a chat request of a case under a script; the connection on which the answer comes.
    pub async fn open(&self, case: &str, script: &Value, body: &Value) -> Wire {
        let mut wire = Wire::connect(self.socket()).await;
        wire.send(&chat_request(case, script, body)).await;
        wire
    }

    /// The whole answer to a chat request, as it was framed.
    ///
    /// # Panics
    /// When there is none.
    pub async fn answer(&self, case: &str, script: &Value, body: &Value) -> Answer {
        let mut wire = self.open(case, script, body).await;
        let answer = patiently(case, wire.answer()).await;
        answer.unwrap_or_else(|| panic!("{case}: no answer: {}", self.log().join("\n")))
    }

    /// A page of the admin plane, with the token that the gateway made.
    pub async fn admin(&self, path: &str) -> Response {
        let bearer = format!("Bearer {}", self.admin_token());
        get(&self.admin_url(path), &[("authorization", &bearer)]).await
    }

    /// What the data plane holds now.
    pub async fn data_plane(&self) -> Value {
        self.admin("/health/details").await.json()["data_plane"].take()
    }

    /// Waits until no request is under way.
    pub async fn idle(&self) {
        until("no request under way", async || (self.data_plane().await["in_flight"] == 0).then_some(()))
            .await;
    }

    /// The line that is the record of a case.
    pub async fn line(&self, case: &str) -> String {
        line_of(&self.path(RECORDS), case).await
    }

    /// The record of a case.
    pub async fn record(&self, case: &str) -> Value {
        parse(&self.line(case).await)
    }

    /// `metadata` of the record of a case.
    pub async fn metadata(&self, case: &str) -> Value {
        self.record(case).await["attributes"]["metadata"].take()
    }

    /// The records, once there are so many.
    pub async fn records(&self, count: usize) -> Vec<Value> {
        wait_for_records(&self.path(RECORDS), count, DEADLINE).await
    }

    /// `attributes` of the last record, once there are so many.
    ///
    /// # Panics
    /// When none are waited for.
    pub async fn last_of(&self, count: usize) -> Value {
        self.records(count).await.pop().expect("a record")["attributes"].take()
    }

    /// The record of an answer whose `x-request-id` is the gateway's own.
    ///
    /// # Panics
    /// When it is not.
    pub async fn record_of(&self, answer: &Response) -> Value {
        let id = answer.header("x-request-id");
        assert!(id.starts_with("msg_"), "not an id of the gateway's: {id:?}");
        self.record_where(id, |record| record["attributes"]["id"] == id).await
    }

    /// The first record that is looked for.
    pub async fn record_where(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let records = || read_records(&self.path(RECORDS)).into_iter();
        until(&format!("a record of {what}"), async || records().find(&wanted)).await
    }

    /// Waits until the log has so many lines with this message.
    pub async fn logged(&self, message: &str, count: usize) -> Vec<Value> {
        until(message, async || {
            // At TRACE there are many lines, most of which need not be read.
            let lines = self.log().into_iter().filter(|line| line.contains(message));
            let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            let found: Vec<Value> = lines.filter(|line| line["message"] == message).collect();
            (found.len() >= count).then_some(found)
        })
        .await
    }
}

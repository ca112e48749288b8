//! A real Elasticsearch, as its administrator sees it, when the environment names one.

#![allow(clippy::print_stdout, reason = "a skipped test says so")]

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::request;

/// The server.
pub struct Elasticsearch {
    /// Its address, as `http://127.0.0.1:9200`.
    pub url: String,
    /// The password of its user `elastic`.
    pub password: String,
}

impl Elasticsearch {
    /// The server that the environment names; says that the test is skipped when there is none.
    #[expect(clippy::disallowed_methods, reason = "which server to test with is no setting of the product")]
    pub fn named() -> Option<Self> {
        let url = std::env::var("MAGICAPI_TEST_ELASTICSEARCH").ok();
        let password = std::env::var("MAGICAPI_TEST_ELASTICSEARCH_PASSWORD").ok();
        let found = url.zip(password).map(|(url, password)| Self { url, password });
        if found.is_none() {
            println!(
                "skipped: no server; eval \"$(tests/servers/elasticsearch/start.sh)\" sets \
                 MAGICAPI_TEST_ELASTICSEARCH and MAGICAPI_TEST_ELASTICSEARCH_PASSWORD"
            );
        }
        found
    }

    /// The OpenSearch without security that the environment names, which takes any password.
    #[expect(clippy::disallowed_methods, reason = "which server to test with is no setting of the product")]
    pub fn open_search() -> Option<Self> {
        let url = std::env::var("MAGICAPI_TEST_OPENSEARCH").ok();
        if url.is_none() {
            println!(
                "skipped: no server; eval \"$(tests/servers/opensearch/start.sh)\" sets MAGICAPI_TEST_OPENSEARCH"
            );
        }
        url.map(|url| Self { url, password: "any".into() })
    }

    /// Its address without the scheme.
    ///
    /// # Panics
    /// When it is no address of a socket.
    pub fn address(&self) -> SocketAddr {
        self.url.trim_start_matches("http://").parse().expect("an address as 127.0.0.1:9200")
    }

    /// Asks its API: status and answer. `Null` is no body.
    pub async fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let credential = format!("Basic {}", STANDARD.encode(format!("elastic:{}", self.password)));
        let headers = [("authorization", credential.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = request(method, &format!("{}{path}", self.url), &headers, body).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    /// The same, for what must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub async fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// Removes an index and its template.
    pub async fn clean(&self, index: &str) {
        self.call("DELETE", &format!("/{index}"), &Value::Null).await;
        self.call("DELETE", &format!("/_index_template/{index}"), &Value::Null).await;
    }

    /// How many documents of the index the query finds.
    ///
    /// # Panics
    /// When there is no such index.
    pub async fn count(&self, index: &str, query: &Value) -> u64 {
        self.done("POST", &format!("/{index}/_refresh"), &Value::Null).await;
        let answer = self.done("POST", &format!("/{index}/_count"), &json!({ "query": query })).await;
        answer["count"].as_u64().expect("a count")
    }

    /// What it has of the records with this `thread_id`, all when it is empty; at most 10,000. None when there is no
    /// such index.
    pub async fn documents(&self, index: &str, thread: &str) -> Vec<Value> {
        self.call("POST", &format!("/{index}/_refresh"), &Value::Null).await;
        let all = json!({ "match_all": {} });
        let query =
            if thread.is_empty() { all } else { json!({ "term": { "attributes.thread_id": thread } }) };
        let search = json!({ "size": 10_000, "query": query });
        let (_, mut answer) = self.call("POST", &format!("/{index}/_search"), &search).await;
        let hits = answer["hits"]["hits"].take();
        hits.as_array().into_iter().flatten().map(|hit| hit["_source"].clone()).collect()
    }
}

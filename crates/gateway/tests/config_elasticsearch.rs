//! Each key of the exporter `elasticsearch`, and `retry.max_age` of any: what the cluster sees of it. The cluster is
//! the mock, which knows none of its paths; that the real one understands is shown elsewhere.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::io::Read as _;

use magicapi_mock::{MockOptions, MockServer, Received, ScriptFile};
use magicapi_testkit::Gateway;
use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::configuration::configuration;
use magicapi_testkit::http::post_json;
use magicapi_testkit::wire::until;
use serde_json::{Value, json};

use crate::scene::options;

/// A gateway whose records go to a cluster that refuses them for now.
struct Scene {
    cluster: MockServer,
    gateway: Gateway,
}

impl Scene {
    async fn of(changes: Value, variables: &[(&str, &str)]) -> Self {
        let provider = scene::mock().await;
        let script = json!({ "rules": [{ "match": { "path": "/_bulk" }, "script": { "status": 503 } }] });
        let script = ScriptFile::from_json(script.to_string().as_bytes()).expect("a script");
        let recording = MockOptions { record: true, script, ..MockOptions::default() };
        let cluster = MockServer::start(recording).await.expect("the mock");
        let url = format!("http://{}", cluster.addr());
        let config = if variables.is_empty() {
            let mut entry =
                json!({ "type": "elasticsearch", "url": url, "template": false, "batch": { "age": "20ms" } });
            for (name, value) in changes.as_object().expect("an object") {
                entry[name] = value.as_str().map_or(value.clone(), |text| text.replace("{url}", &url).into());
            }
            configuration(&provider.base_url(), json!({ "telemetry": { "exporters": [entry] } }))
        } else {
            let mut config = configuration(&provider.base_url(), json!({}));
            config.as_object_mut().expect("an object").remove("telemetry");
            config
        };
        let mut all: Vec<(&str, String)> =
            variables.iter().map(|(name, value)| (*name, value.replace("{url}", &url))).collect();
        all.push(("RUST_LOG", "info".into()));
        let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let gateway = Gateway::start(options(&config, &all)).await;
        assert_eq!(post_json(&gateway.url(CHAT), &[], &question()).await.status, 200);
        Self { cluster, gateway }
    }

    /// The first request that is looked for.
    async fn saw(&self, wanted: impl Fn(&Received) -> bool) -> Received {
        until("a request to the cluster", async || {
            self.cluster.received().into_iter().find(|one| wanted(one))
        })
        .await
    }

    async fn bulk(&self) -> Received {
        self.saw(|request| request.path.contains("/_bulk") && !request.body.is_empty()).await
    }
}

#[tokio::test]
async fn elasticsearch_url_and_index_are_where_records_go() {
    let scene = Scene::of(json!({ "url": "{url}/in/front", "index": "ai-requests" }), &[]).await;
    let bulk = scene.bulk().await;
    let path = bulk.path.split('?').next();
    assert_eq!((bulk.method.as_str(), path), ("POST", Some("/in/front/ai-requests/_bulk")));
}

#[tokio::test]
async fn elasticsearch_username_and_password_are_sent() {
    let scene = Scene::of(json!({ "username": "Aladdin", "password": "open sesame" }), &[]).await;
    assert_eq!(scene.bulk().await.header("authorization"), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
}

#[tokio::test]
async fn elasticsearch_api_key_is_sent() {
    let scene = Scene::of(json!({ "api_key": "id:key" }), &[]).await;
    assert_eq!(scene.bulk().await.header("authorization"), Some("ApiKey aWQ6a2V5"));
}

#[tokio::test]
async fn elasticsearch_compression_packs_bodies() {
    let packed = Scene::of(json!({ "compression": "gzip" }), &[]).await.bulk().await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(packed.body.as_ref()).read_to_string(&mut text).expect("gzip");
    let plain = Scene::of(json!({ "compression": "none" }), &[]).await.bulk().await;
    assert_eq!(plain.header("content-encoding"), None);
    for text in [text, String::from_utf8_lossy(&plain.body).into_owned()] {
        assert!(text.starts_with("{\"create\":") && text.contains("ai_gateway_request_log"), "{text}");
    }
}

#[tokio::test]
async fn elasticsearch_template_is_kept_up_to_date_or_left_alone() {
    let is_template = |request: &Received| request.path.contains("_index_template");
    let on = Scene::of(json!({ "template": true }), &[]).await;
    on.saw(is_template).await;
    let off = Scene::of(json!({ "template": false }), &[]).await;
    off.bulk().await;
    assert!(!off.cluster.received().iter().any(is_template));
}

#[tokio::test]
async fn elasticsearch_variables_are_its_settings() {
    let variables = [
        ("ENABLED_EXPORTERS", "elasticsearch"),
        ("ELASTICSEARCH_URL", "{url}"),
        ("ELASTICSEARCH_INDEX", "by-variable"),
        ("ELASTICSEARCH_API_KEY", "id:key"),
    ];
    let scene = Scene::of(json!({}), &variables).await;
    let template = scene.saw(|request| request.path.contains("_index_template/")).await;
    assert!(template.path.contains("/by-variable"), "{}", template.path);
    assert_eq!(template.header("authorization"), Some("ApiKey aWQ6a2V5"));
    let variables = [
        ("ENABLED_EXPORTERS", "elasticsearch"),
        ("ELASTICSEARCH_URL", "{url}"),
        ("ELASTICSEARCH_USERNAME", "Aladdin"),
        ("ELASTICSEARCH_PASSWORD", "open sesame"),
    ];
    let scene = Scene::of(json!({}), &variables).await;
    let first = scene.saw(|request| request.path.contains("_index_template/noveum-metrics")).await;
    assert_eq!(first.header("authorization"), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
}

#[tokio::test]
async fn telemetry_exporters_retry_max_age_gives_up() {
    let scene = Scene::of(json!({ "retry": { "max_age": "500ms" } }), &[]).await;
    let dropped = until("a dropped record", async || {
        let details = scene.gateway.admin("/health/details").await.json();
        let exporters = details["exporters"].as_array().cloned().unwrap_or_default();
        exporters.into_iter().find(|one| one["name"] == "elasticsearch" && one["dropped"] == 1)
    })
    .await;
    assert!(dropped["retried"].as_u64() >= Some(1), "it was tried before: {dropped}");
    assert_eq!(dropped["queue_records"], 0);
}

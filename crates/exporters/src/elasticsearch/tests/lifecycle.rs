//! A data stream's life, on a cluster that keeps what it is told.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use magicapi_plugin::{
    Health, Host, Http, HttpError, HttpTransport, MetricRegistry, Settings, TelemetryConfig, TelemetryPlugin,
    async_trait,
};
use serde_json::{Value, json};

use super::{ElasticsearchPlugin, plain};

#[derive(Default)]
struct Cluster(Mutex<State>);

#[derive(Default)]
struct State {
    template: Option<Value>,
    /// `None`: there is no stream. `Null`: it has no life.
    life: Option<Value>,
    /// It is one that knows no lifecycle.
    is_old: bool,
    /// It refuses to tell the stream.
    refuses: Option<u16>,
    /// What was put since it was asked last: paths' last segments, and bodies.
    puts: Vec<(String, Value)>,
}

impl State {
    fn answer(&mut self, request: &Request<Bytes>) -> (u16, Value) {
        let is_put = request.method() == "PUT";
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let path = request.uri().path();
        if is_put {
            let last = path.rsplit('/').next().expect("a segment").to_owned();
            self.puts.push((last, body.clone()));
        }
        match (path, is_put) {
            ("/_cluster/health", _) => (200, json!({})),
            ("/_index_template/ai-requests", true)
                if self.is_old && body["template"]["lifecycle"].is_object() =>
            {
                (400, json!({ "error": { "type": "x_content_parse_exception" } }))
            }
            ("/_index_template/ai-requests", true) => {
                self.template = Some(body);
                (200, json!({}))
            }
            ("/_index_template/ai-requests", false) => match &self.template {
                None => (404, json!({})),
                Some(template) => (200, json!({ "index_templates": [{ "index_template": template }] })),
            },
            ("/_data_stream/ai-requests/_lifecycle", _) if self.is_old => {
                (405, json!({ "error": "no handler" }))
            }
            ("/_data_stream/ai-requests/_lifecycle", is_put) => match (&mut self.life, self.refuses) {
                (None, _) => (404, json!({})),
                (_, Some(status)) if is_put => (status, json!({})),
                (Some(life), _) if is_put => {
                    *life = body;
                    life["enabled"] = json!(true);
                    (200, json!({}))
                }
                (Some(Value::Null), _) => (200, json!({ "data_streams": [{ "name": "ai-requests" }] })),
                (Some(life), _) => {
                    (200, json!({ "data_streams": [{ "name": "ai-requests", "lifecycle": life }] }))
                }
            },
            other => panic!("{other:?}"),
        }
    }
}

#[async_trait]
impl HttpTransport for Cluster {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (status, body) = self.0.lock().expect("no panic").answer(&request);
        Ok(Response::builder().status(status).body(body.to_string().into()).expect("an answer"))
    }
}

/// A start with these settings: what was put, and the state.
async fn start(cluster: &Arc<Cluster>, settings: Value) -> (Result<Vec<(String, Value)>, String>, Health) {
    let mut all = plain();
    all["data_stream"] = json!(true);
    all.as_object_mut().expect("settings").extend(settings.as_object().expect("settings").clone());
    let meter = Arc::new(MetricRegistry::default()).meter("test");
    let host = Host::new(Http::new(cluster.clone()), meter, None);
    let exporter = ElasticsearchPlugin.create_exporter(Settings::from(all), host).expect("settings");
    let done = exporter.init(&TelemetryConfig::default()).await;
    let puts = std::mem::take(&mut cluster.0.lock().expect("no panic").puts);
    (done.map(|()| puts).map_err(|e| e.to_string()), exporter.health().await)
}

/// A cluster on which a start with these settings was made, and the stream after it, with this life.
async fn begun(settings: Value, life: Value) -> Arc<Cluster> {
    let cluster = Arc::new(Cluster::default());
    assert_eq!(start(&cluster, settings).await.1, Health::Ok);
    cluster.set(|state| state.life = Some(life));
    cluster
}

impl Cluster {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().expect("no panic"));
    }

    fn life(&self) -> Value {
        self.0.lock().expect("no panic").life.clone().expect("a stream")
    }

    fn template(&self) -> Value {
        self.0.lock().expect("no panic").template.clone().expect("a template")["template"].clone()
    }
}

fn month() -> Value {
    json!({ "retention": "30d" })
}

fn told(life: Value) -> (String, Value) {
    ("_lifecycle".to_owned(), life)
}

#[tokio::test]
async fn a_data_streams_life_stands_in_its_template() {
    for (settings, lifecycle, policy) in [
        (json!({}), json!({}), Value::Null),
        (month(), json!({ "data_retention": "30d" }), Value::Null),
        (json!({ "lifecycle_policy": "hot" }), Value::Null, json!({ "index.lifecycle.name": "hot" })),
    ] {
        let cluster = Arc::new(Cluster::default());
        let (puts, health) = start(&cluster, settings.clone()).await;
        let [(path, template)] = &puts.expect("init")[..] else { panic!("one request") };
        assert_eq!((path.as_str(), health), ("ai-requests", Health::Ok));
        assert_eq!(template["data_stream"], json!({}));
        assert_eq!(template["template"]["mappings"]["properties"]["@timestamp"], json!({ "type": "date" }));
        assert_eq!(
            (&template["template"]["lifecycle"], &template["template"]["settings"]),
            (&lifecycle, &policy)
        );
        let (puts, _) = start(&cluster, settings).await;
        assert_eq!(puts, Ok(Vec::new()), "it stands there already");
    }
}

#[tokio::test]
async fn a_stream_that_is_there_is_told_when_its_life_is_another() {
    // One of an earlier gateway, which nothing divides.
    let cluster = begun(json!({}), Value::Null).await;
    assert_eq!(start(&cluster, json!({})).await, (Ok(vec![told(json!({}))]), Health::Ok));
    let (puts, _) = start(&cluster, month()).await;
    assert_eq!(puts.expect("init")[0], told(json!({ "data_retention": "30d" })));
    assert_eq!(cluster.life()["data_retention"], "30d");
    assert_eq!(start(&cluster, month()).await.0, Ok(Vec::new()));
    // Somebody changed it since.
    for other in [json!({ "enabled": true }), json!({ "enabled": false, "data_retention": "30d" })] {
        cluster.set(|state| state.life = Some(other));
        let (puts, _) = start(&cluster, month()).await;
        assert_eq!(puts, Ok(vec![told(json!({ "data_retention": "30d" }))]));
    }
}

/// The template was put, and what the stream should be told came to nothing: the next start makes up for it.
#[tokio::test]
async fn a_stream_that_could_not_be_told_is_told_at_the_next_start() {
    for settings in [month(), json!({})] {
        // A retention to give, and one to take back.
        let (before, after) =
            if settings == month() { (json!({}), json!("30d")) } else { (month(), Value::Null) };
        let life = json!({ "enabled": true, "data_retention": before["retention"] });
        let cluster = begun(before, life).await;
        cluster.set(|state| state.refuses = Some(503));
        let (failed, _) = start(&cluster, settings.clone()).await;
        assert!(failed.expect_err("not ready").contains("_lifecycle: HTTP 503"));
        for _ in 0..2 {
            cluster.set(|state| state.refuses = Some(403));
            let (_, health) = start(&cluster, settings.clone()).await;
            let Health::Degraded(why) = health else { panic!("degraded: {health:?}") };
            assert!(why.contains("HTTP 403") && why.contains("manage_data_stream_lifecycle"), "{why}");
            assert_eq!(cluster.template()["lifecycle"]["data_retention"], after, "streams to come have it");
        }
        cluster.set(|state| state.refuses = None);
        let (puts, health) = start(&cluster, settings.clone()).await;
        assert_eq!((puts.expect("init")[0].0.as_str(), health), ("_lifecycle", Health::Ok));
        assert_eq!(cluster.life()["data_retention"], after);
        assert_eq!(start(&cluster, settings).await.0, Ok(Vec::new()));
    }
}

#[tokio::test]
async fn a_retention_that_is_no_longer_configured_is_taken_back_and_another_is_left_alone() {
    for settings in [json!({}), json!({ "lifecycle_policy": "hot" })] {
        let cluster = begun(month(), json!({ "enabled": true, "data_retention": "30d" })).await;
        let (puts, _) = start(&cluster, settings.clone()).await;
        assert_eq!(puts.expect("init")[0], told(json!({})));
        assert_eq!(
            cluster.life(),
            json!({ "enabled": true }),
            "it goes on being divided, and deletes nothing"
        );
        let theirs = json!({ "enabled": true, "data_retention": "7d" });
        for before in [json!({}), month()] {
            let cluster = begun(before, theirs.clone()).await;
            start(&cluster, settings.clone()).await.0.expect("init");
            assert_eq!(cluster.life(), theirs);
        }
    }
}

/// OpenSearch, and Elasticsearch before 8.11: everything else of the template holds.
#[tokio::test]
async fn a_cluster_without_lifecycles_gets_the_rest_and_is_asked_again() {
    let cluster = Arc::new(Cluster::default());
    cluster.set(|state| (state.is_old, state.life) = (true, Some(Value::Null)));
    assert_eq!(start(&cluster, json!({})).await.1, Health::Ok);
    assert_eq!(
        (&cluster.template()["lifecycle"], &cluster.template()["mappings"]["dynamic"]),
        (&Value::Null, &json!(false))
    );
    let (_, health) = start(&cluster, month()).await;
    let Health::Degraded(why) = health else { panic!("degraded") };
    assert!(why.contains("HTTP 400 x_content_parse_exception") && why.contains("lifecycle_policy"), "{why}");
    // It was brought up to date.
    cluster.set(|state| state.is_old = false);
    assert_eq!(start(&cluster, month()).await.1, Health::Ok);
    assert_eq!(cluster.template()["lifecycle"], json!({ "data_retention": "30d" }));
    assert_eq!(cluster.life()["data_retention"], "30d");
}

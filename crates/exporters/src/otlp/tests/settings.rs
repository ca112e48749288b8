//! Settings of one signal alone, and presets.

use super::*;

/// What one export asks for, whatever becomes of it.
async fn asked(settings: Value) -> Vec<Request<Bytes>> {
    let script = Arc::new(Script::default());
    script.answer(200, "").answer(200, "");
    exporter(&script, settings).export(&batch(1)).await;
    script.seen()
}

fn gzipped(request: &Request<Bytes>) -> bool {
    request.headers().get("content-encoding").is_some_and(|coding| coding == "gzip")
}

#[tokio::test]
async fn what_stands_for_one_signal_wins_over_what_stands_for_all() {
    let sent = asked(json!({
        "endpoint": "http://collector:4318", "compression": "gzip", "request_timeout_ms": 2000,
        "traces_compression": "none", "logs_protocol": "grpc", "logs_request_timeout_ms": 3000,
    }))
    .await;
    let [traces, logs] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((traces.uri().path(), traces.version()), ("/v1/traces", Version::HTTP_11));
    assert!(!gzipped(traces));
    assert_eq!(logs.uri().path(), "/opentelemetry.proto.collector.logs.v1.LogsService/Export");
    assert_eq!(
        (logs.version(), &logs.headers()["grpc-timeout"]),
        (Version::HTTP_2, &"3000m".parse().unwrap())
    );
    assert_eq!(logs.headers()["grpc-encoding"], "gzip");
}

#[tokio::test(start_paused = true)]
async fn one_signals_answer_has_a_time_of_its_own() {
    /// Never answers.
    struct Silence;
    #[magicapi_plugin::async_trait]
    impl magicapi_plugin::HttpTransport for Silence {
        async fn send(&self, _: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            std::future::pending().await
        }
    }
    let meter = Arc::new(MetricRegistry::default()).meter("otlp");
    let host = magicapi_plugin::Host::new(magicapi_plugin::Http::new(Arc::new(Silence)), meter, None);
    let settings = json!({ "request_timeout_ms": 900, "traces_request_timeout_ms": 400 });
    let exporter = magicapi_plugin::TelemetryPlugin::create_exporter(&OtlpPlugin, settings.into(), host);
    let begun = tokio::time::Instant::now();
    assert_eq!(exporter.expect("settings").export(&batch(1)).await, Delivery::Unknown);
    assert_eq!(begun.elapsed().as_millis(), 400);
}

#[test]
fn every_variable_of_the_specification_is_read() {
    let spec = magicapi_plugin::TelemetryPlugin::settings(&OtlpPlugin);
    let mut read: Vec<_> = spec.keys().iter().filter_map(|key| key.env.clone()).collect();
    let tls = spec.tls().expect("variables");
    for tls in std::iter::once(tls).chain(tls.parts) {
        read.extend(tls.keys().map(|(_, variable)| variable.to_owned()));
    }
    let names = ["ENDPOINT", "HEADERS", "PROTOCOL", "COMPRESSION", "TIMEOUT", "INSECURE", "CERTIFICATE"];
    for name in names.into_iter().chain(["CLIENT_CERTIFICATE", "CLIENT_KEY"]) {
        for signal in ["", "TRACES_", "METRICS_", "LOGS_"] {
            let variable = format!("OTEL_EXPORTER_OTLP_{signal}{name}");
            assert!(read.contains(&variable), "{variable}");
        }
    }
    assert!(read.contains(&"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE".into()));
}

#[tokio::test]
async fn an_address_without_a_scheme_is_grpcs_and_has_tls_unless_it_is_insecure() {
    let grpc = |more: Value| {
        let mut settings = json!({ "endpoint": "collector:4317", "protocol": "grpc", "signals": ["traces"] });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    };
    for (more, expected) in [
        (json!({}), "https://collector:4317/"),
        (json!({ "insecure": true }), "http://collector:4317/"),
        (json!({ "traces_insecure": true, "insecure": false }), "http://collector:4317/"),
        (json!({ "traces_insecure": false, "insecure": true }), "https://collector:4317/"),
        (json!({ "traces_endpoint": "[::1]:9", "insecure": true }), "http://[::1]:9/"),
        // A scheme says it itself, and so does the default address.
        (json!({ "endpoint": "https://collector:4317", "insecure": true }), "https://collector:4317/"),
        (json!({ "endpoint": "http://collector:4317" }), "http://collector:4317/"),
        (json!({ "endpoint": null }), "http://localhost:4317/"),
    ] {
        let [request] = asked(grpc(more.clone())).await.try_into().expect("one request");
        let url = request.uri().to_string();
        assert!(url.starts_with(expected), "{more}: {url}");
    }
    let script = Arc::new(Script::default());
    for (more, part) in [
        (json!({ "protocol": "http/protobuf", "insecure": true }), "endpoint: begins with neither"),
        (json!({ "traces_endpoint": "dns:///collector" }), "traces_endpoint: not an address"),
        (json!({ "endpoint": "user:canary@collector:4317" }), "endpoint: holds a user or password"),
    ] {
        let error = create(&OtlpPlugin, grpc(more.clone()), &script).err().unwrap_or_default();
        assert!(error.contains(part) && !error.contains("canary"), "{more}: {error}");
    }
}

const EU_KEY: &str = "eu01xx0123456789abcdef0123456789abFFNRAL";

#[tokio::test]
async fn new_relic_is_a_preset() {
    let sent = asked(json!({ "preset": "newrelic", "license_key": EU_KEY })).await;
    let [traces] = &sent[..] else { panic!("logs are the exporter newrelic's: {sent:?}") };
    assert_eq!(traces.uri(), "https://otlp.eu01.nr-data.net/v1/traces");
    assert_eq!(traces.headers()["api-key"], EU_KEY);
    assert!(traces.headers()["api-key"].is_sensitive() && gzipped(traces));
    for (key, region, host) in [
        ("0123456789abcdef0123456789abcdefFFFFNRAL", "", "https://otlp.nr-data.net/v1/traces"),
        ("0123456789abcdef0123456789abcdefFFFFNRAL", "eu", "https://otlp.eu01.nr-data.net/v1/traces"),
        ("gov01x0123456789abcdef0123456789abFFNRAL", "", "https://gov-otlp.nr-data.net/v1/traces"),
    ] {
        let sent = asked(json!({ "preset": "newrelic", "license_key": key, "region": region })).await;
        assert_eq!(sent[0].uri(), host);
    }
    // What is given wins.
    let sent = asked(json!({
        "preset": "newrelic", "license_key": EU_KEY, "endpoint": "http://relay:4318", "compression": "none",
        "signals": ["traces", "logs"],
    }))
    .await;
    assert_eq!(sent[0].uri(), "http://relay:4318/v1/traces");
    assert!(!gzipped(&sent[0]) && sent.len() == 2);
}

/// Its limits: texts of 4,095 characters, requests of 1 MB, sums since the last delivery.
#[tokio::test]
async fn the_preset_keeps_to_new_relics_limits() {
    let settings = json!({ "preset": "newrelic", "license_key": EU_KEY, "compression": "none" });
    let script = Arc::new(Script::default());
    let own = |facts: &mut magicapi_plugin::Facts| facts.id = magicapi_plugin::RequestId::mint();
    let long = record(|facts| (own(facts), facts.requested_model = Some("m".repeat(9000))).1);
    let many: Vec<_> = (0..1000).map(|_| record(own)).chain([long]).collect();
    for _ in 0..10 {
        script.answer(200, "");
    }
    let delivery = exporter(&script, settings.clone()).export(&many).await;
    assert!(delivery == Delivery::Delivered);
    let sent = script.seen();
    assert!(sent.len() > 1 && sent.iter().all(|request| request.body().len() <= 1_000_000));
    let all: Vec<Span> = sent.iter().flat_map(spans).collect();
    assert_eq!(all.len(), 1001);
    assert_eq!(text(&all[1000].attributes, "gateway.requested_model").len(), 4095);

    let registry = Arc::new(MetricRegistry::default());
    let asked = registry.meter("gateway").u64_counter("asked").build();
    let exporter = exporter(&script, settings);
    for value in [3, 4] {
        asked.add(value, &[]);
        assert_eq!(exporter.export_metrics(&registry.snapshot()).await, Delivery::Delivered);
    }
    let sums: Vec<_> = script.seen().iter().map(|request| request.body().clone()).collect();
    let last = ExportMetricsServiceRequest::decode(&sums[1][..]).expect("metrics");
    let metric = last.resource_metrics[0].scope_metrics[0].metrics[0].data.clone();
    let Some(Data::Sum(sum)) = metric else { panic!("a sum") };
    assert_eq!(
        sum.aggregation_temporality(),
        opentelemetry_proto::tonic::metrics::v1::AggregationTemporality::Delta
    );
}

#[test]
fn a_preset_has_its_credential_and_nothing_else_does() {
    let script = Arc::new(Script::default());
    for (settings, part) in [
        (json!({ "preset": "newrelic" }), "license_key: missing; `preset: newrelic` needs it"),
        (json!({ "preset": "newrelic", "license_key": "NRAK-canary" }), "license_key: is a user key"),
        (
            json!({ "preset": "newrelic", "license_key": EU_KEY, "region": "us" }),
            "region: is us, but the key",
        ),
        (
            json!({ "preset": "newrelic", "license_key": EU_KEY, "region": "mars" }),
            "region: \"mars\" is none",
        ),
        (json!({ "preset": "honeycomb", "license_key": EU_KEY }), "honeycomb"),
        (json!({ "license_key": "canary" }), "license_key: means nothing without `preset: newrelic`"),
        (json!({ "region": "eu" }), "region: means nothing without"),
        (json!({ "logs_request_timeout_ms": 0 }), "logs_request_timeout_ms: is 0"),
        (json!({ "traces_protocol": "http/json" }), "http/json"),
    ] {
        let error = create(&OtlpPlugin, settings.clone(), &script).err().unwrap_or_default();
        assert!(
            error.contains(part) && !error.contains("canary") && !error.contains(EU_KEY),
            "{settings}: {error}"
        );
    }
}

//! Events: what a record's is called, and the second one of a call that failed.

use opentelemetry_proto::tonic::logs::v1::LogRecord;

use super::*;

fn events(request: &Request<Bytes>) -> Vec<LogRecord> {
    let request = ExportLogsServiceRequest::decode(&request.body()[..]).expect("a request");
    let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
    scopes.flat_map(|scope| scope.log_records).collect()
}

/// A call that the provider refused.
fn failed(operation: &'static str) -> Arc<RequestMetrics> {
    record(|facts| {
        facts.operation = operation;
        (facts.outcome, facts.error_type) = (Outcome::ProviderError, Some("provider_status"));
        facts.error_message = Some("the provider answered 429".into());
    })
}

async fn sent(record: Arc<RequestMetrics>) -> Vec<LogRecord> {
    let script = Arc::new(Script::default());
    script.answer(200, "");
    let delivery = exporter(&script, json!({ "signals": ["logs"] })).export(&[record]).await;
    assert_eq!(delivery, Delivery::Delivered);
    script.seen().iter().flat_map(events).collect()
}

#[tokio::test]
async fn a_call_that_failed_is_an_exception_too() {
    let [details, exception] = sent(failed("chat")).await.try_into().expect("two events");
    assert_eq!(details.event_name, "gen_ai.client.inference.operation.details");
    assert_eq!(exception.event_name, "gen_ai.client.operation.exception");
    assert_eq!((exception.severity_number, exception.severity_text.as_str()), (13, "WARN"));
    assert_eq!((&exception.trace_id, &exception.span_id), (&details.trace_id, &details.span_id));
    let list = &exception.attributes;
    for (key, expected) in [
        ("exception.type", "provider_status"),
        ("exception.message", "the provider answered 429"),
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt, 4o"),
        ("server.address", "api.openai.com"),
    ] {
        assert_eq!(text(list, key), expected, "{key}");
    }
    assert_eq!(text(list, "gateway.id"), text(&details.attributes, "gateway.id"));
    for absent in ["exception.stacktrace", "gen_ai.input.messages", "gen_ai.output.messages"] {
        assert_eq!(value(list, absent), None, "{absent}");
    }
}

#[tokio::test]
async fn only_calls_of_models_that_failed_are() {
    for (record, expected) in [
        (record(|_| {}), vec!["gen_ai.client.inference.operation.details"]),
        (failed("files"), vec!["ai_gateway_request_log"]),
        (failed("embeddings"), vec!["ai_gateway_request_log", "gen_ai.client.operation.exception"]),
    ] {
        let names: Vec<_> = sent(record).await.into_iter().map(|event| event.event_name).collect();
        assert_eq!(names, expected);
    }
}

/// The server counts events, of which a record may have two.
#[tokio::test]
async fn a_server_that_keeps_one_of_two_events_has_not_rejected_the_record() {
    for (rejected, is_delivered) in [(1, true), (2, false)] {
        let script = Arc::new(Script::default());
        script.answer(200, partial(rejected, "too old"));
        let delivery = exporter(&script, json!({ "signals": ["logs"] })).export(&[failed("chat")]).await;
        assert_eq!(delivery == Delivery::Delivered, is_delivered, "{rejected}: {delivery:?}");
    }
}

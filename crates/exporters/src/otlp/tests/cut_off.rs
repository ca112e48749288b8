//! Exports that are cut off, and the tries after them.

use super::*;

/// With a request for each record.
fn both(script: &Arc<Script>) -> Box<dyn TelemetryExporter> {
    exporter(script, json!({ "signals": ["traces", "logs"], "request_bytes": 1024 }))
}

async fn cut_off(exporter: &dyn TelemetryExporter, records: &[Arc<RequestMetrics>]) -> Delivery {
    assert!(tokio::time::timeout(Duration::from_secs(5), exporter.export(records)).await.is_err());
    exporter.cut_off(records)
}

/// What a server has under one signal, or of one request, is not sent again because the rest took too long.
#[tokio::test(start_paused = true)]
async fn an_export_that_is_cut_off_leaves_what_it_knows() {
    let script = Arc::new(Script::default());
    let both = both(&script);
    // Three spans, a request for each; of the events the first.
    script.answer(200, "").answer(200, "").answer(200, "").answer(200, "").hang();
    let records = batch(3);
    let known = vec![ItemOutcome::Delivered, ItemOutcome::Unknown, ItemOutcome::Retry];
    assert_eq!(cut_off(&*both, &records).await, Delivery::Items(known));
    script.seen();
    script.answer(200, "").answer(200, "");
    assert_eq!(both.export(&records[1..]).await, Delivery::Delivered);
    assert!(
        script.seen().iter().all(|request| request.uri().path().ends_with("/logs")),
        "the spans are there"
    );
}

/// That an earlier try had an answer for a signal is no news of a later try that is cut off.
#[tokio::test(start_paused = true)]
async fn what_was_known_before_is_not_left_behind() {
    let script = Arc::new(Script::default());
    let both = both(&script);
    let records = batch(2);
    script.answer(200, "").answer(200, "").answer(503, "");
    assert_eq!(both.export(&records).await, Delivery::Retry { after: None });
    script.answer(200, "").answer(200, "");
    assert_eq!(both.export(&records).await, Delivery::Delivered);
    // Replayed: nothing is known of them any more.
    script.seen();
    script.hang();
    let known = vec![ItemOutcome::Unknown, ItemOutcome::Retry];
    assert_eq!(cut_off(&*both, &records).await, Delivery::Items(known));
    script.seen();
    (0..4).for_each(|_| {
        script.answer(200, "");
    });
    assert_eq!(both.export(&records).await, Delivery::Delivered);
    let spans = script.seen().iter().filter(|request| request.uri().path().ends_with("/traces")).count();
    assert_eq!(spans, 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_not_forgotten_by_a_try_that_is_cut_off() {
    let script = Arc::new(Script::default());
    let both = both(&script);
    let records = batch(2);
    // As spans the first is rejected, the second put off; the events are put off.
    script.answer(400, "").answer(503, "").answer(503, "");
    assert_eq!(both.export(&records).await, Delivery::Retry { after: None });
    script.hang();
    let known = vec![ItemOutcome::Retry, ItemOutcome::Unknown];
    assert_eq!(cut_off(&*both, &records).await, Delivery::Items(known));
    script.answer(200, "").answer(200, "").answer(200, "");
    let rejected = ItemOutcome::Rejected { reason: "traces: HTTP 400".into() };
    assert_eq!(both.export(&records).await, Delivery::Items(vec![rejected, ItemOutcome::Delivered]));
}

#[tokio::test(start_paused = true)]
async fn a_missing_answer_under_one_signal_is_not_forgotten_under_the_next() {
    let script = Arc::new(Script::default());
    let both = both(&script);
    let records = batch(3);
    // As spans the first is there, the second unclear, the third not sent.
    script.answer(200, "").then(Err(HttpError::NoAnswer("closed".into()))).hang();
    let known = vec![ItemOutcome::Unknown, ItemOutcome::Unknown, ItemOutcome::Retry];
    assert_eq!(cut_off(&*both, &records).await, Delivery::Items(known));
    script.hang();
    let known = vec![ItemOutcome::Retry, ItemOutcome::Unknown, ItemOutcome::Retry];
    assert_eq!(cut_off(&*both, &records).await, Delivery::Items(known), "it was said once");
}

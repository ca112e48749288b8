use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use magicapi_plugin::{
    ContentDropped, ContentLevel, Health, MetricsSnapshot, Needs, PointValue, RequestMetrics, Signals,
};
use proptest::prelude::*;

use super::Telemetry;
use crate::lane::{ExporterState, ExporterStatus};
use crate::scripted::{Answer, Script, facts};
use crate::settings::{CaptureSettings, ExporterSetup, PipelineSettings, TelemetrySettings};
use crate::tap::{BodyKind, Finished, Tap};

const REQUEST: &[u8] = b"{\"model\":\"m\",\n \"messages\":[]}";
const SOON: Duration = Duration::from_secs(10);

fn quick() -> PipelineSettings {
    PipelineSettings { batch_age: Duration::from_millis(5), batch_records: 50, ..PipelineSettings::default() }
}

fn start_with(capture: CaptureSettings, exporters: Vec<ExporterSetup>) -> Telemetry {
    let settings = TelemetrySettings { capture, ..TelemetrySettings::default() };
    Telemetry::start(settings, Arc::default(), exporters).expect("threads")
}

fn start(exporters: Vec<ExporterSetup>) -> Telemetry {
    start_with(CaptureSettings::default(), exporters)
}

/// One request with a buffered body and a buffered answer.
fn send(telemetry: &Telemetry) {
    let mut tap = telemetry.tap();
    tap.request(Bytes::from_static(REQUEST));
    tap.response(Bytes::from_static(b"{\"id\":\"1\"}"));
    tap.finish(Finished::new(facts()));
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The sum over all series.
fn number(snapshot: &MetricsSnapshot, name: &str) -> u64 {
    let metric = snapshot.metrics.iter().find(|metric| metric.name == name).expect("a metric");
    let value = |value: &PointValue| match value {
        PointValue::Number(number) => format!("{number}").parse().expect("a whole number"),
        PointValue::Histogram(histogram) => histogram.counts.iter().sum::<u64>(),
        _ => panic!("{value:?}"),
    };
    metric.points.iter().map(|point| value(&point.value)).sum()
}

fn balanced(status: &ExporterStatus) {
    let settled = status.sent + status.rejected + status.dropped;
    assert_eq!(status.received, settled + status.queue_records as u64, "{status:?}");
}

fn memory(telemetry: &Telemetry) -> usize {
    telemetry.0.core.budget().used()
}

#[test]
fn a_record_reaches_every_exporter_at_its_level() {
    let (full, less) = (Script::new([]), Script::new([]));
    let metadata = PipelineSettings { content: ContentLevel::Metadata, ..quick() };
    let telemetry = start(vec![full.setup("full", quick()), less.setup("less", metadata)]);
    send(&telemetry);
    telemetry.shutdown(SOON);
    let record = full.seen.lock().unwrap().pop().expect("a record");
    assert_eq!(record.request().expect("a body").as_ref(), b"{\"model\":\"m\",  \"messages\":[]}");
    assert_eq!(record.response().expect("a body").as_ref(), b"{\"id\":\"1\"}");
    let same = less.seen.lock().unwrap().pop().expect("a record");
    assert_eq!((same.id(), same.request().is_none()), (record.id(), true));
    assert_eq!(same.facts().content_dropped, Some(ContentDropped::Config));
    drop((record, same));
    assert_eq!(memory(&telemetry), 0);
    assert_eq!(full.ended.load(Ordering::Relaxed), 1);
    assert!(telemetry.status().iter().all(|status| status.state == ExporterState::Stopped));
}

#[test]
fn without_exporters_a_tap_is_nothing() {
    for telemetry in [Telemetry::disabled(), start(Vec::new())] {
        let mut tap = telemetry.tap();
        tap.request_chunk(&[0; 1000]);
        assert_eq!(memory(&telemetry), 0);
        tap.finish(Finished::new(facts()));
        assert_eq!(number(&telemetry.snapshot(), "gateway_requests"), 0);
        telemetry.shutdown(Duration::ZERO);
    }
}

#[test]
fn what_was_said_is_read_for_those_who_need_it() {
    let (needs, level) = (Needs::CONVERSATION, ContentLevel::Metadata);
    let scripts = [Script::new([]), Script::new([]), Script::new([])];
    let [messages, metadata, alone] = &scripts;
    let send_chat = |telemetry: &Telemetry| {
        let mut tap = telemetry.tap();
        tap.request(Bytes::from_static(b"{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}"));
        tap.finish(Finished::new(facts()));
    };
    let telemetry = start(vec![
        ExporterSetup { needs, ..messages.setup("messages", quick()) },
        ExporterSetup { needs, ..metadata.setup("metadata", PipelineSettings { content: level, ..quick() }) },
    ]);
    send_chat(&telemetry);
    let nobody_needs = start(vec![alone.setup("alone", quick())]);
    send_chat(&nobody_needs);
    eventually("all arrive", || scripts.iter().all(|script| script.acknowledged() == 1));
    let said = |script: &Script| {
        let seen = script.seen.lock().unwrap();
        seen[0].conversation().map(|said| said.input[0].role.clone())
    };
    assert_eq!([said(messages), said(metadata), said(alone)], [Some("user".into()), None, None]);
}

#[test]
fn a_scraped_exporter_sees_every_request_and_captures_no_body() {
    let script = Script::new([]);
    let setup = ExporterSetup { signals: Signals::SCRAPE, ..script.setup("prometheus", quick()) };
    let telemetry = start(vec![setup]);
    let mut tap = telemetry.tap();
    tap.request(Bytes::from_static(REQUEST));
    tap.response_chunk(b"x");
    assert_eq!(memory(&telemetry), 0);
    tap.finish(Finished::new(facts()));
    eventually("counted", || number(&telemetry.snapshot(), "gateway_requests") == 1);
    let page = telemetry.scrape("text/plain").expect("a page");
    assert!(page.text().contains("gateway_request_duration_seconds"), "{}", page.text());
    assert_eq!(telemetry.status()[0].state, ExporterState::Running);
}

#[test]
fn a_dead_exporter_slows_neither_the_tap_nor_its_neighbour() {
    let (good, blocked) = (Script::new([]), Script::always(Answer::Block(Duration::from_secs(3))));
    let telemetry = start(vec![blocked.setup("blocked", quick()), good.setup("good", quick())]);
    let begun = Instant::now();
    for _ in 0..500 {
        send(&telemetry);
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    eventually("the neighbour has all", || good.acknowledged() == 500);
    assert!(begun.elapsed() < Duration::from_secs(3));
    // The blocked thread is left behind and its records are counted as lost.
    telemetry.shutdown(Duration::from_millis(200));
    for status in telemetry.status() {
        balanced(&status);
    }
    assert_eq!(telemetry.status()[0].dropped + telemetry.status()[0].sent, 500);
}

#[test]
fn a_shutdown_delivers_what_is_there_and_counts_the_rest() {
    let (good, down) = (Script::new([]), Script::always(Answer::Retry(None)));
    let slow = PipelineSettings { batch_age: Duration::from_mins(1), ..PipelineSettings::default() };
    let telemetry = start(vec![good.setup("good", slow.clone()), down.setup("down", slow)]);
    for _ in 0..300 {
        send(&telemetry);
    }
    let begun = Instant::now();
    telemetry.shutdown(Duration::from_secs(1));
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    let [good, down] = telemetry.status().try_into().expect("two");
    assert_eq!((good.sent, down.sent, down.dropped), (300, 0, 300));
    send(&telemetry);
    let snapshot = telemetry.snapshot();
    assert_eq!(number(&snapshot, "gateway_records_dropped"), 1, "too late, but counted");
    assert_eq!(number(&snapshot, "gateway_requests"), 301);
    assert_eq!(number(&snapshot, "gateway_exporter_dropped"), 300);
}

#[test]
fn records_wait_for_init_and_a_required_exporter_is_reported() {
    let late = Script::new([]);
    late.failing_inits.store(1, Ordering::Relaxed);
    let never = Script::new([]);
    never.failing_inits.store(usize::MAX, Ordering::Relaxed);
    let required =
        PipelineSettings { require_healthy: true, init_timeout: Duration::from_millis(50), ..quick() };
    let telemetry = start(vec![late.setup("late", quick()), never.setup("never", required)]);
    send(&telemetry);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let unhealthy = runtime.block_on(telemetry.unhealthy());
    assert_eq!((unhealthy.exporter.as_str(), unhealthy.error.as_str()), ("never", "not yet"));
    let never_begun = &telemetry.status()[1];
    assert_eq!((never_begun.state, &never_begun.health), (ExporterState::Starting, &None), "not known yet");
    eventually("delivered after the second init", || late.acknowledged() == 1);
    telemetry.shutdown(Duration::from_millis(50));
    assert_eq!(telemetry.status()[1].dropped, 1);
    assert_eq!(never.ended.load(Ordering::Relaxed), 0, "what was not begun is not ended");
}

#[test]
fn records_that_wait_too_long_for_init_are_dropped_and_counted() {
    let never = Script::new([]);
    never.failing_inits.store(usize::MAX, Ordering::Relaxed);
    let impatient = PipelineSettings { retry_max_age: Duration::from_millis(20), ..quick() };
    let telemetry = start(vec![never.setup("never", impatient)]);
    (0..3).for_each(|_| send(&telemetry));
    eventually("dropped", || telemetry.status()[0].dropped == 3);
    assert_eq!(telemetry.status()[0].state, ExporterState::Starting);
    let snapshot = telemetry.snapshot();
    let dropped = snapshot.metrics.iter().find(|metric| metric.name == "gateway_exporter_dropped");
    let labels = dropped.expect("a metric").points[0].labels.clone();
    assert_eq!(labels, [("exporter", "never".to_owned()), ("reason", "expired".to_owned())]);
    assert_eq!((telemetry.status()[0].queue_bytes, memory(&telemetry)), (0, 0));
    telemetry.shutdown(Duration::ZERO);
}

#[test]
fn status_says_what_the_exporter_says_of_its_back_end() {
    let script = Script::new([]);
    *script.health.lock().unwrap() = Some(Health::Degraded("the template is missing".into()));
    let telemetry = start(vec![script.setup("x", quick())]);
    let degraded = Health::Degraded("the template is missing".into());
    eventually("asked", || telemetry.status()[0].health.as_ref() == Some(&degraded));
    assert_eq!(telemetry.status()[0].state, ExporterState::Running);
    telemetry.shutdown(SOON);
}

#[test]
fn a_back_end_that_takes_no_records_is_not_healthy_whatever_the_exporter_says() {
    for (answer, state, word) in [
        (Answer::Retry(None), ExporterState::Retrying, "degraded"),
        (Answer::Refused, ExporterState::Refused, "down"),
    ] {
        let telemetry = start(vec![Script::always(answer).setup("x", quick())]);
        send(&telemetry);
        eventually("asked to wait", || telemetry.status()[0].state == state);
        let status = telemetry.status().remove(0);
        let health = status.health.expect("known");
        assert_eq!((health.as_str(), health.reason()), (word, status.last_error.as_deref()));
        telemetry.shutdown(Duration::ZERO);
    }
}

#[test]
fn metrics_are_pushed_and_once_more_at_the_end() {
    let script = Script::new([]);
    let signals = Signals::RECORDS | Signals::METRICS;
    let setup = ExporterSetup { signals, ..script.setup("both", quick()) };
    let settings =
        TelemetrySettings { metrics_interval: Duration::from_millis(100), ..TelemetrySettings::default() };
    let telemetry = Telemetry::start(settings, Arc::default(), vec![setup]).expect("threads");
    eventually("pushed", || script.metrics.load(Ordering::Relaxed) >= 2);
    let before = script.metrics.load(Ordering::Relaxed);
    telemetry.shutdown(SOON);
    assert!(script.metrics.load(Ordering::Relaxed) > before);
}

#[test]
fn used_up_memory_costs_bodies_then_records_and_never_numbers() {
    let script = Script::new([Answer::Block(Duration::from_millis(50))]);
    // An eighth is kept for records without bodies: eight of them.
    let capture = CaptureSettings { memory: 128 << 10, ..CaptureSettings::default() };
    let telemetry = start_with(capture, vec![script.setup("slow", quick())]);
    let mut taps: Vec<Tap> = (0..80).map(|_| telemetry.tap()).collect();
    for tap in &mut taps {
        tap.request_chunk(&[b'x'; 3000]);
    }
    assert!(memory(&telemetry) <= 112 << 10);
    // A tap that is dropped gives its memory back.
    let held = memory(&telemetry);
    drop(taps.remove(0));
    assert_eq!(memory(&telemetry), held - 4096);
    for tap in taps {
        tap.finish(Finished::new(facts()));
    }
    let count = |name| number(&telemetry.snapshot(), name);
    eventually("all counted", || count("gateway_requests") == 79);
    assert!(count("gateway_records_without_bodies") > 0);
    assert!(memory(&telemetry) <= 128 << 10);
    let status = &telemetry.status()[0];
    assert_eq!(status.received + count("gateway_records_dropped"), 79);
    telemetry.shutdown(SOON);
    let seen: Vec<Arc<RequestMetrics>> = std::mem::take(&mut script.seen.lock().unwrap());
    assert!(seen.iter().any(|record| record.facts().content_dropped == Some(ContentDropped::Memory)));
    drop(seen);
    assert_eq!(memory(&telemetry), 0);
}

#[test]
fn a_body_past_its_limit_is_kept_as_far_as_it_fits() {
    let script = Script::new([]);
    let capture =
        CaptureSettings { max_request: 10, max_response: 10, max_chunks: 10, ..CaptureSettings::default() };
    let telemetry = start_with(capture, vec![script.setup("x", quick())]);
    let mut tap = telemetry.tap();
    tap.request(Bytes::from_static(REQUEST));
    for byte in b"{\"text\":\"hello\"}" {
        tap.response_chunk(&[*byte]);
    }
    tap.finish(Finished { request_type: Some("application/json".into()), ..Finished::new(facts()) });
    telemetry.shutdown(SOON);
    let record = script.seen.lock().unwrap().pop().expect("a record");
    let request = record.to_otel_log()["attributes"]["request"].clone();
    assert_eq!(
        request,
        serde_json::json!({"content_type": "application/json", "bytes": REQUEST.len(), "sha256": null,
            "truncated": true, "text": "{\"model\":\""})
    );
    assert_eq!(record.facts().truncated.request, REQUEST.len() as u64 - 10);
    assert_eq!(record.facts().truncated.response, 6);
}

#[test]
fn a_reload_keeps_adds_changes_and_removes() {
    let [kept, removed, old, new, added] = [(); 5].map(|()| Script::new([]));
    let changed =
        |script: &Arc<Script>| ExporterSetup { fingerprint: "2".into(), ..script.setup("changed", quick()) };
    let telemetry = start(vec![
        kept.setup("kept", quick()),
        removed.setup("removed", quick()),
        old.setup("changed", quick()),
    ]);
    (0..100).for_each(|_| send(&telemetry));
    let unused = Script::new([]);
    telemetry
        .reload(
            CaptureSettings::default(),
            None,
            vec![changed(&new), unused.setup("kept", quick()), added.setup("added", quick())],
        )
        .expect("threads");
    (0..100).for_each(|_| send(&telemetry));
    let names: Vec<_> = telemetry.status().into_iter().map(|status| status.name).collect();
    assert_eq!(names, ["changed", "kept", "added"]);
    eventually("all delivered", || {
        kept.acknowledged() == 200 && old.acknowledged() + new.acknowledged() == 200
    });
    assert!(new.acknowledged() >= 1 && unused.acknowledged() == 0 && added.acknowledged() >= 100);
    eventually("the old ones end", || {
        removed.ended.load(Ordering::Relaxed) + old.ended.load(Ordering::Relaxed) == 2
    });
    telemetry.shutdown(SOON);
}

#[test]
fn a_changed_exporters_rest_goes_to_its_replacement() {
    let (old, new) = (Script::always(Answer::Refused), Script::new([]));
    let telemetry = start(vec![old.setup("x", quick())]);
    (0..20).for_each(|_| send(&telemetry));
    eventually("refused", || telemetry.status()[0].state == ExporterState::Refused);
    let setup = ExporterSetup { fingerprint: "2".into(), ..new.setup("x", quick()) };
    telemetry.reload(CaptureSettings::default(), None, vec![setup]).expect("threads");
    (0..20).for_each(|_| send(&telemetry));
    eventually("the new one has all", || new.acknowledged() == 40);
    assert_eq!(old.ended.load(Ordering::Relaxed), 1, "the old one ended first");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn every_request_is_one_record(requests in 1usize..400, threads in 1usize..4, chunked in any::<bool>()) {
        let script = Script::new([Answer::TooLarge, Answer::Unknown]);
        let settings = TelemetrySettings { threads, ..TelemetrySettings::default() };
        let telemetry =
            Telemetry::start(settings, Arc::default(), vec![script.setup("x", quick())]).expect("threads");
        for _ in 0..requests {
            let mut tap = telemetry.tap();
            if chunked { REQUEST.chunks(7).for_each(|chunk| tap.request_chunk(chunk)) } else {
                tap.request(Bytes::from_static(REQUEST));
            }
            tap.response_chunk(b"data: {\"choices\":[]}\n\n");
            tap.finish(Finished { response_kind: BodyKind::EventStream, ..Finished::new(facts()) });
        }
        telemetry.shutdown(SOON);
        let acknowledged = script.acknowledged.lock().unwrap();
        prop_assert_eq!(acknowledged.len(), requests);
        prop_assert!(acknowledged.values().all(|times| *times == 1));
        script.seen.lock().unwrap().clear();
        prop_assert_eq!(memory(&telemetry), 0);
    }
}

/// One that blocks its thread for ever is left behind: its replacement gets what it had.
#[test]
fn a_replacement_of_one_that_is_blocked_gets_its_records() {
    let (old, new) = (Script::always(Answer::Block(Duration::from_mins(2))), Script::new([]));
    let telemetry = start(vec![old.setup("x", quick())]);
    (0..20).for_each(|_| send(&telemetry));
    eventually("on its way", || !old.batches.lock().unwrap().is_empty());
    let setup = ExporterSetup { fingerprint: "2".into(), ..new.setup("x", quick()) };
    telemetry.reload(CaptureSettings::default(), None, vec![setup]).expect("threads");
    (0..20).for_each(|_| send(&telemetry));
    // What a replaced one may take, and a little more.
    std::thread::sleep(Duration::from_secs(12));
    eventually("all", || new.acknowledged() == 40);
    let sent = old.batches.lock().unwrap()[0] as u64;
    assert_eq!(number(&telemetry.snapshot(), "gateway_exporter_ambiguous"), sent);
    balanced(&telemetry.status()[0]);
    telemetry.shutdown(Duration::from_millis(100));
}

#[test]
fn a_replacement_is_begun_beside_the_old_one_unless_it_is_exclusive() {
    for exclusive in [false, true] {
        let (old, new) = (Script::new([Answer::Block(Duration::from_secs(2))]), Script::new([]));
        let telemetry = start(vec![old.setup("x", quick())]);
        (0..20).for_each(|_| send(&telemetry));
        eventually("on its way", || !old.batches.lock().unwrap().is_empty());
        let setup = ExporterSetup { fingerprint: "2".into(), exclusive, ..new.setup("x", quick()) };
        telemetry.reload(CaptureSettings::default(), None, vec![setup]).expect("threads");
        eventually("begun", || new.inits.load(Ordering::Relaxed) == 1);
        let old_had_ended = old.ended.load(Ordering::Relaxed) == 1;
        assert_eq!(old_had_ended, exclusive);
        assert!(exclusive || new.acknowledged() == 0, "the old one still drains");
        telemetry.shutdown(Duration::from_millis(100));
    }
}

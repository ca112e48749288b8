//! Trials of a scripted exporter: through a running pipeline and alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use magicapi_plugin::{Health, MetricRegistry, Signals, TelemetryConfig};

use super::{Trial, TrialEnd, TrialStage, try_alone};
use crate::scripted::{Answer, Script};
use crate::settings::{ExporterSetup, PipelineSettings, TelemetrySettings};
use crate::telemetry::Telemetry;

fn start(setups: Vec<ExporterSetup>) -> Telemetry {
    Telemetry::start(TelemetrySettings::default(), Arc::new(MetricRegistry::default()), setups)
        .expect("threads")
}

fn end_of(trial: &Trial, stage: TrialStage) -> TrialEnd {
    trial.steps.iter().find(|step| step.stage == stage).unwrap_or_else(|| panic!("{stage:?}: {trial:?}")).end
}

#[tokio::test]
async fn what_the_back_end_answers_is_told_and_nothing_is_counted() {
    for (answer, end) in [
        (Answer::Delivered, TrialEnd::Ok),
        (Answer::Items(0), TrialEnd::Ok),
        (Answer::Items(1), TrialEnd::PutOff),
        (Answer::Items(2), TrialEnd::Rejected),
        (Answer::TooFewItems, TrialEnd::Unknown),
        (Answer::Retry(None), TrialEnd::PutOff),
        (Answer::TooLarge, TrialEnd::TooLarge),
        (Answer::Refused, TrialEnd::Refused),
        (Answer::Unknown, TrialEnd::Unknown),
        (Answer::NoneThere, TrialEnd::Unknown),
        (Answer::Panic, TrialEnd::Panicked),
        (Answer::Hang, TrialEnd::TimedOut),
    ] {
        let pipeline =
            PipelineSettings { timeout: Duration::from_millis(200), ..PipelineSettings::default() };
        let running = Script::always(answer.clone());
        let telemetry = start(vec![running.setup("x", pipeline.clone())]);
        let trial = telemetry.try_exporter("x").await.expect("the exporter");
        assert_eq!(end_of(&trial, TrialStage::Record), end, "{answer:?}: {trial:?}");
        assert_eq!(trial.passed(), end == TrialEnd::Ok, "{trial:?}");
        assert_eq!(end.remedy().is_none(), end == TrialEnd::Ok);
        let sent = running.seen.lock().unwrap()[0].clone();
        let facts = sent.facts();
        assert_eq!((facts.operation, facts.model.as_deref()), ("test", Some("exporters-test")));
        assert_eq!(Some(facts.id), trial.record);
        let status = telemetry.status().remove(0);
        assert_eq!((status.received, status.sent, status.retried, status.ambiguous), (0, 0, 0, 0));

        let alone = Script::always(answer.clone());
        let setup = alone.setup("x", pipeline);
        let trial = try_alone(setup, TelemetryConfig::default(), telemetry.snapshot());
        assert_eq!(end_of(&trial, TrialStage::Record), end, "{answer:?}: {trial:?}");
        assert_eq!(end_of(&trial, TrialStage::Init), TrialEnd::Ok);
        assert_eq!(alone.ended.load(Ordering::Relaxed), 1, "it is shut down");
        assert!(telemetry.try_exporter("y").await.is_none());
    }
}

#[tokio::test]
async fn an_exporter_that_cannot_start_tries_again_at_once_and_says_why() {
    let script = Script::new([]);
    script.failing_inits.store(usize::MAX, Ordering::Relaxed);
    let telemetry = start(vec![script.setup("x", PipelineSettings::default())]);
    for _ in 0..3 {
        let trial = telemetry.try_exporter("x").await.expect("the exporter");
        assert_eq!(end_of(&trial, TrialStage::Init), TrialEnd::Failed);
        assert_eq!(trial.steps[0].says.as_deref(), Some("not yet"));
        assert!(!trial.passed());
    }
    let trial = try_alone(
        script.setup("x", PipelineSettings::default()),
        TelemetryConfig::default(),
        telemetry.snapshot(),
    );
    assert_eq!(
        (end_of(&trial, TrialStage::Init), trial.steps.len(), trial.record),
        (TrialEnd::Failed, 1, None)
    );
    script.failing_inits.store(0, Ordering::Relaxed);
    // The first may still be answered by the try that was under way.
    let _first = telemetry.try_exporter("x").await.expect("the exporter");
    assert!(telemetry.try_exporter("x").await.expect("the exporter").passed());
}

#[tokio::test]
async fn the_exporters_view_of_its_back_end_is_the_cause() {
    let script = Script::always(Answer::Retry(None));
    *script.health.lock().unwrap() = Some(Health::Down("connection refused".into()));
    let telemetry = start(vec![script.setup("x", PipelineSettings::default())]);
    let trial = telemetry.try_exporter("x").await.expect("the exporter");
    let record = trial.steps.iter().find(|step| step.stage == TrialStage::Record).expect("a record");
    assert_eq!(record.says.as_deref(), Some("connection refused"));
    assert_eq!(end_of(&trial, TrialStage::Health), TrialEnd::Unwell);
}

#[tokio::test]
async fn metrics_and_pages_are_tried_where_they_are_taken() {
    let script = Script::new([]);
    let with =
        |name: &str, signals| ExporterSetup { signals, ..script.setup(name, PipelineSettings::default()) };
    let setups = || {
        vec![
            with("both", Signals::RECORDS | Signals::METRICS),
            with("metrics", Signals::METRICS),
            with("page", Signals::SCRAPE),
        ]
    };
    let telemetry = start(setups());
    for setup in setups() {
        let running = telemetry.try_exporter(&setup.name).await.expect("the exporter");
        let name = setup.name.clone();
        let alone = try_alone(setup, TelemetryConfig::default(), telemetry.snapshot());
        for trial in [running, alone] {
            let has = |stage| trial.steps.iter().any(|step| step.stage == stage);
            assert_eq!(has(TrialStage::Record), name == "both", "{trial:?}");
            assert_eq!(has(TrialStage::Metrics), name != "page", "{trial:?}");
            assert_eq!(has(TrialStage::Page), name == "page", "{trial:?}");
            assert!(trial.passed(), "{trial:?}");
        }
    }
    assert_eq!(script.metrics.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_thread_that_is_blocked_is_said_to_be() {
    let script = Script::always(Answer::Block(Duration::from_mins(1)));
    let telemetry = start(vec![script.setup("x", PipelineSettings::default())]);
    let first = telemetry.clone();
    let stuck = tokio::spawn(async move { first.try_exporter("x").await });
    while script.batches.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let trial = telemetry.try_exporter("x").await.expect("the exporter");
    assert_eq!(end_of(&trial, TrialStage::Record), TrialEnd::Blocked);
    stuck.abort();
}

//! `exporters test`: one marked record through one exporter, and what came of it.
//!
//! ```text
//! running   Telemetry::try_exporter -> Trials -> the exporter's own thread (worker), beside its batches
//! alone     try_alone: a thread and a runtime of its own, from `init` to `shutdown`
//! ```
//!
//! The record passes no filter, sample, queue or breaker and is not counted: it tests the exporter and its back end, not
//! the pipeline before them.

mod calls;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use magicapi_plugin::{
    ContentLevel, Delivery, Facts, Health, ItemOutcome, MetricsSnapshot, Outcome, RequestId, RequestMetrics,
    Signals, TelemetryConfig, TelemetryExporter,
};

pub(crate) use self::calls::Trials;
use crate::guard::{Guarded, guarded, panic_text};
use crate::settings::{ExporterSetup, PipelineSettings};
use crate::stop::StopSignal;

/// The record's `provider`, `model` and `metadata.operation`: nobody takes it for traffic.
const PROVIDER: &str = "test";
const MODEL: &str = "exporters-test";
const OPERATION: &str = "test";
/// How long metrics, `health` and `shutdown` may take each.
const METRICS: Duration = Duration::from_secs(30);
const HEALTH: Duration = Duration::from_secs(5);
const SHUTDOWN: Duration = Duration::from_secs(10);
/// What a trial may take beside sending the record.
pub(crate) const BESIDE: Duration = Duration::from_secs(40);
/// How soon a thread that works takes a trial up.
const TAKEN: Duration = Duration::from_secs(10);

/// What came of testing one exporter.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its name.
    pub exporter: String,
    /// Its plug-in's name.
    pub kind: &'static str,
    /// The record's id; `None` when none was sent.
    pub record: Option<RequestId>,
    /// What was tried, in order.
    pub steps: Vec<TrialStep>,
}

/// One call of the exporter.
#[derive(Clone, Debug)]
pub struct TrialStep {
    /// Which.
    pub stage: TrialStage,
    /// How it ended.
    pub end: TrialEnd,
    /// What exporter or back end said.
    pub says: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// The calls of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialStage {
    /// `init`.
    Init,
    /// The record.
    Record,
    /// The metrics.
    Metrics,
    /// The page that others fetch.
    Page,
    /// What the exporter says of its back end.
    Health,
    /// `shutdown`.
    Shutdown,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialEnd {
    /// Well; of what is sent: the back end has it.
    Ok,
    /// The back end will never take this record.
    Rejected,
    /// The back end refuses the credential or set-up.
    Refused,
    /// The back end cannot be reached, or takes nothing now.
    PutOff,
    /// The back end finds one small record too large.
    TooLarge,
    /// Sent, but no answer came.
    Unknown,
    /// It did not end in time.
    TimedOut,
    /// It panicked.
    Panicked,
    /// It failed.
    Failed,
    /// The exporter works, its back end in part or not.
    Unwell,
    /// The exporter's thread did not take the trial up.
    Blocked,
}

impl Trial {
    /// Whether everything that was to arrive has arrived.
    pub fn passed(&self) -> bool {
        let counts = |step: &&TrialStep| !matches!(step.stage, TrialStage::Health | TrialStage::Shutdown);
        let arrives = [TrialStage::Record, TrialStage::Metrics, TrialStage::Page];
        self.steps.iter().filter(counts).all(|step| step.end == TrialEnd::Ok)
            && self.steps.iter().any(|step| arrives.contains(&step.stage))
    }
}

impl TrialStage {
    /// The call's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Record => "record",
            Self::Metrics => "metrics",
            Self::Page => "page",
            Self::Health => "health",
            Self::Shutdown => "shutdown",
        }
    }
}

impl TrialEnd {
    /// The end's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::PutOff => "put_off",
            Self::TooLarge => "too_large",
            Self::Unknown => "unknown",
            Self::TimedOut => "timed_out",
            Self::Panicked => "panicked",
            Self::Failed => "failed",
            Self::Unwell => "unwell",
            Self::Blocked => "blocked",
        }
    }

    /// What an operator can do about it.
    pub const fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Ok | Self::Unwell => None,
            Self::Rejected => {
                Some("the back end answers but does not take the record: mend what its reason names there")
            }
            Self::Refused => {
                Some("mend the credential or set-up that the reason names; records wait until then")
            }
            Self::PutOff => Some(
                "check address, name, port, proxy and TLS of the exporter's settings, and whether its back end \
                 runs; records wait until then",
            ),
            Self::TooLarge => Some("raise the back end's limit on the size of a request"),
            Self::Unknown | Self::TimedOut => Some(
                "the record may be there: look for its id; check the back end's load, the network and the \
                 exporter's `timeout`",
            ),
            Self::Panicked => Some("a fault of the exporter: report it, with the gateway's log"),
            Self::Failed => Some("mend what the reason names; records wait until then"),
            Self::Blocked => Some(
                "the exporter blocks its thread or is being ended: see the gateway's log, then restart it",
            ),
        }
    }
}

impl TrialStep {
    fn new(stage: TrialStage, end: TrialEnd, says: Option<String>, began: Instant) -> Self {
        Self { stage, end, says, took: began.elapsed() }
    }

    /// The trial was not taken up.
    pub(crate) fn blocked(began: Instant, says: &str) -> Self {
        Self::new(TrialStage::Record, TrialEnd::Blocked, Some(says.to_owned()), began)
    }

    /// `init` ended like this.
    pub(crate) fn init(end: TrialEnd, says: impl Into<String>, began: Instant) -> Self {
        Self::new(TrialStage::Init, end, Some(says.into()), began)
    }
}

/// The marked record.
pub(crate) fn record(resource: Arc<TelemetryConfig>, level: ContentLevel) -> RequestMetrics {
    let mut facts = Facts::new(RequestId::mint(), SystemTime::now());
    facts.provider = Some(PROVIDER.into());
    facts.model = Some(MODEL.into());
    facts.requested_model = Some(MODEL.into());
    facts.operation = OPERATION;
    facts.outcome = Outcome::Completed;
    facts.status_code = 200;
    facts.path = "/exporters/test".into();
    facts.method = "POST".into();
    facts.thread_id = Some(MODEL.into());
    let text = "a test record, sent by `exporters test`";
    let message = |role: &str| serde_json::json!({ "role": role, "content": text });
    let request = serde_json::json!({ "model": MODEL, "messages": [message("user")] });
    let choice = serde_json::json!({ "index": 0, "message": message("assistant"), "finish_reason": "stop" });
    let response = serde_json::json!({ "model": MODEL, "choices": [choice] });
    let body = |document: serde_json::Value| Some(Bytes::from(document.to_string()));
    RequestMetrics::seal(facts, resource, body(request), body(response), None).with_content(level)
}

/// What is tried, and with what.
pub(crate) struct Subject<'a> {
    pub(crate) exporter: &'a dyn TelemetryExporter,
    pub(crate) signals: Signals,
    pub(crate) pipeline: &'a PipelineSettings,
}

impl Subject<'_> {
    /// Sends the record and, where it takes them, the metrics; asks for its health between the two.
    pub(crate) async fn probe(
        &self,
        record: &Arc<RequestMetrics>,
        snapshot: &MetricsSnapshot,
        stop: &mut StopSignal,
    ) -> Vec<TrialStep> {
        let mut steps = Vec::new();
        if self.signals.contains(Signals::RECORDS) {
            let began = Instant::now();
            let batch = [record.clone()];
            let sent =
                guarded(async { self.exporter.export(&batch).await }, self.pipeline.timeout, stop).await;
            let (end, says) = judged(sent);
            steps.push(TrialStep::new(TrialStage::Record, end, says, began));
        }
        let began = Instant::now();
        let (end, says) = match guarded(async { self.exporter.health().await }, HEALTH, stop).await {
            Guarded::Done(Health::Ok) => (TrialEnd::Ok, None),
            Guarded::Done(Health::Degraded(reason) | Health::Down(reason)) => {
                (TrialEnd::Unwell, Some(reason))
            }
            other => failed(other),
        };
        // A delivery that was put off has no reason of its own: the exporter's view of its back end is the cause.
        for step in steps.iter_mut().filter(|step| step.end != TrialEnd::Ok && step.says.is_none()) {
            step.says.clone_from(&says);
        }
        steps.push(TrialStep::new(TrialStage::Health, end, says, began));
        if self.signals.contains(Signals::METRICS) {
            let began = Instant::now();
            let sent = guarded(async { self.exporter.export_metrics(snapshot).await }, METRICS, stop).await;
            let (end, says) = judged(sent);
            steps.push(TrialStep::new(TrialStage::Metrics, end, says, began));
        }
        steps
    }

    /// Renders the page.
    pub(crate) fn page(&self, snapshot: &MetricsSnapshot) -> TrialStep {
        let began = Instant::now();
        let page = catch_unwind(AssertUnwindSafe(|| self.exporter.scrape(snapshot, "")));
        let (end, says) = match page {
            Ok(Some(page)) => {
                let series = page.text().lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
                let mut says = format!("{} series, {} bytes", series.count(), page.body.len());
                let _ = write!(says, ", {}", page.content_type);
                (TrialEnd::Ok, Some(says))
            }
            Ok(None) => (TrialEnd::Failed, Some("it makes no page".to_owned())),
            Err(payload) => (TrialEnd::Panicked, Some(panic_text(payload.as_ref()))),
        };
        TrialStep::new(TrialStage::Page, end, says, began)
    }

    async fn init(&self, config: &TelemetryConfig, stop: &mut StopSignal) -> TrialStep {
        let began = Instant::now();
        let call = async { self.exporter.init(config).await };
        let (end, says) = match guarded(call, self.pipeline.init_timeout, stop).await {
            Guarded::Done(Ok(())) => (TrialEnd::Ok, None),
            Guarded::Done(Err(error)) => (TrialEnd::Failed, Some(error.to_string())),
            other => failed(other),
        };
        TrialStep::new(TrialStage::Init, end, says, began)
    }

    async fn shutdown(&self, stop: &mut StopSignal) -> TrialStep {
        let began = Instant::now();
        let (end, says) = match guarded(async { self.exporter.shutdown().await }, SHUTDOWN, stop).await {
            Guarded::Done(Ok(())) => (TrialEnd::Ok, None),
            Guarded::Done(Err(error)) => (TrialEnd::Failed, Some(error.to_string())),
            other => failed(other),
        };
        TrialStep::new(TrialStage::Shutdown, end, says, began)
    }
}

fn asks_to_wait(after: Duration) -> String {
    format!("the back end asks to wait for {after:?}")
}

fn judged(sent: Guarded<Delivery>) -> (TrialEnd, Option<String>) {
    match sent {
        Guarded::Done(Delivery::Delivered) => (TrialEnd::Ok, None),
        Guarded::Done(Delivery::Items(outcomes)) => match outcomes.as_slice() {
            [ItemOutcome::Delivered] => (TrialEnd::Ok, None),
            [ItemOutcome::Retry] => (TrialEnd::PutOff, None),
            [ItemOutcome::RetryAfter(after)] => (TrialEnd::PutOff, Some(asks_to_wait(*after))),
            [ItemOutcome::Rejected { reason }] => (TrialEnd::Rejected, Some(reason.clone())),
            [ItemOutcome::Unknown] => (TrialEnd::Unknown, None),
            _ => (TrialEnd::Unknown, Some("the exporter did not answer for every record".to_owned())),
        },
        Guarded::Done(Delivery::Retry { after }) => (TrialEnd::PutOff, after.map(asks_to_wait)),
        Guarded::Done(Delivery::TooLarge) => (TrialEnd::TooLarge, None),
        Guarded::Done(Delivery::Refused { reason }) => (TrialEnd::Refused, Some(reason)),
        Guarded::Done(Delivery::Unknown) => (TrialEnd::Unknown, None),
        other => failed(other),
    }
}

/// What did not come to its own end.
fn failed<T>(outcome: Guarded<T>) -> (TrialEnd, Option<String>) {
    match outcome {
        Guarded::Done(_) => (TrialEnd::Ok, None),
        Guarded::Panicked(message) => (TrialEnd::Panicked, Some(message)),
        Guarded::TimedOut => (TrialEnd::TimedOut, Some("it did not end in time".to_owned())),
        Guarded::TooLate => (TrialEnd::Blocked, Some("the exporter is being ended".to_owned())),
    }
}

/// Tests an exporter that nothing else runs, from `init` to `shutdown`, on a thread of its own. Blocks until its answer
/// or until all its timeouts are over.
pub fn try_alone(setup: ExporterSetup, config: TelemetryConfig, snapshot: MetricsSnapshot) -> Trial {
    let began = Instant::now();
    let pipeline = &setup.pipeline;
    let patience = pipeline.init_timeout + pipeline.timeout + METRICS + HEALTH + SHUTDOWN + TAKEN;
    let mut trial = Trial { exporter: setup.name.clone(), kind: setup.kind, record: None, steps: Vec::new() };
    let (done, answer) = mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("test-{}", setup.name));
    let spawned = thread.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let steps = runtime.map(|runtime| runtime.block_on(alone(&setup, config, &snapshot)));
        let _nobody_waits = done.send(steps);
    });
    let error = match spawned.map(|_| answer.recv_timeout(patience)) {
        Ok(Ok(Ok((record, steps)))) => {
            (trial.record, trial.steps) = (record, steps);
            return trial;
        }
        Ok(Ok(Err(error))) | Err(error) => error.to_string(),
        Ok(Err(_)) => "the exporter does not let go of its thread".to_owned(),
    };
    trial.steps.push(TrialStep::blocked(began, &error));
    trial
}

async fn alone(
    setup: &ExporterSetup,
    config: TelemetryConfig,
    snapshot: &MetricsSnapshot,
) -> (Option<RequestId>, Vec<TrialStep>) {
    let subject =
        Subject { exporter: setup.exporter.as_ref(), signals: setup.signals, pipeline: &setup.pipeline };
    if setup.signals.contains(Signals::SCRAPE) {
        return (None, vec![subject.page(snapshot)]);
    }
    // Nobody gives the order to end; it only must not look as if somebody had gone.
    let (_order, mut stop) = StopSignal::new();
    let mut steps = vec![subject.init(&config, &mut stop).await];
    let begun = steps.iter().all(|step| step.end == TrialEnd::Ok);
    let mut id = None;
    if begun {
        let record = Arc::new(record(Arc::new(config), setup.pipeline.content));
        id = setup.signals.contains(Signals::RECORDS).then(|| record.id());
        steps.extend(subject.probe(&record, snapshot, &mut stop).await);
        steps.push(subject.shutdown(&mut stop).await);
    }
    (id, steps)
}

#[cfg(test)]
mod tests;

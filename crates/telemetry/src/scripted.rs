//! For tests: an exporter that answers by a script and remembers what its back end has.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use magicapi_plugin::{
    Delivery, ExportError, Facts, Health, ItemOutcome, MetricsSnapshot, Needs, RequestId, RequestMetrics,
    ScrapePage, Signals, TelemetryConfig, TelemetryExporter, async_trait,
};

use crate::redact::{RedactionSettings, Redactor};
use crate::settings::{ExporterSetup, PipelineSettings};

/// One answer.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Delivered,
    /// Per record, by its place: Delivered, Retry, Rejected in turn, beginning with this one.
    Items(usize),
    /// The first half is there, of the rest nobody knows.
    HalfUnanswered,
    /// The first half is there, the rest may come after that.
    HalfLater(Duration),
    /// Of the first nobody knows, the others were not sent.
    NoneThere,
    TooFewItems,
    Retry(Option<Duration>),
    TooLarge,
    Refused,
    Unknown,
    Panic,
    Hang,
    /// The same, but the exporter knows that the first record is there and the last was not sent.
    HangKnowing,
    /// Blocks the thread.
    Block(Duration),
}

/// What happened to a scripted exporter, and what will.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) answers: Mutex<VecDeque<Answer>>,
    /// What comes once the answers are used up; `Delivered` when there is none.
    pub(crate) then: Mutex<Option<Answer>>,
    pub(crate) failing_inits: AtomicUsize,
    pub(crate) inits: AtomicUsize,
    /// How often the back end acknowledged each record.
    pub(crate) acknowledged: Mutex<HashMap<RequestId, usize>>,
    /// Every record as it was sent, and how large its batches were.
    pub(crate) seen: Mutex<Vec<Arc<RequestMetrics>>>,
    pub(crate) batches: Mutex<Vec<usize>>,
    pub(crate) metrics: AtomicUsize,
    pub(crate) ended: AtomicUsize,
    /// What it says of its back end; `Ok` when it says nothing.
    pub(crate) health: Mutex<Option<Health>>,
    /// What it knows of a batch that was cut off.
    known: Mutex<Option<Vec<ItemOutcome>>>,
}

pub(crate) struct Scripted(pub(crate) Arc<Script>);

impl Script {
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() })
    }

    pub(crate) fn always(answer: Answer) -> Arc<Self> {
        Arc::new(Self { then: Mutex::new(Some(answer)), ..Self::default() })
    }

    pub(crate) fn setup(self: &Arc<Self>, name: &str, pipeline: PipelineSettings) -> ExporterSetup {
        ExporterSetup {
            name: name.into(),
            kind: "scripted",
            exporter: Box::new(Scripted(self.clone())),
            pipeline,
            signals: Signals::RECORDS,
            needs: Needs::default(),
            exclusive: false,
            fingerprint: "1".into(),
        }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().values().sum()
    }

    fn acknowledge(&self, record: &RequestMetrics) {
        *self.acknowledged.lock().unwrap().entry(record.id()).or_default() += 1;
    }
}

#[async_trait]
impl TelemetryExporter for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn init(&self, _config: &TelemetryConfig) -> Result<(), ExportError> {
        self.0.inits.fetch_add(1, Ordering::Relaxed);
        let left = self.0.failing_inits.load(Ordering::Relaxed);
        if left == 0 {
            return Ok(());
        }
        self.0.failing_inits.store(left - 1, Ordering::Relaxed);
        Err("not yet".into())
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let script = &self.0;
        script.batches.lock().unwrap().push(batch.len());
        script.seen.lock().unwrap().extend(batch.iter().cloned());
        let answer = script.answers.lock().unwrap().pop_front();
        let answer = answer.or_else(|| script.then.lock().unwrap().clone()).unwrap_or(Answer::Delivered);
        match answer {
            Answer::Delivered => {}
            Answer::Items(first) => {
                let outcome = |(place, record): (usize, &Arc<RequestMetrics>)| match (first + place) % 3 {
                    0 => {
                        script.acknowledge(record);
                        ItemOutcome::Delivered
                    }
                    1 => ItemOutcome::Retry,
                    _ => ItemOutcome::Rejected { reason: "bad".into() },
                };
                return Delivery::Items(batch.iter().enumerate().map(outcome).collect());
            }
            Answer::HalfUnanswered => {
                let (there, rest) = batch.split_at(batch.len() / 2);
                for record in there {
                    script.acknowledge(record);
                }
                let outcomes =
                    [vec![ItemOutcome::Delivered; there.len()], vec![ItemOutcome::Unknown; rest.len()]];
                return Delivery::Items(outcomes.concat());
            }
            Answer::HalfLater(after) => {
                let (there, rest) = batch.split_at(batch.len() / 2);
                for record in there {
                    script.acknowledge(record);
                }
                let later = vec![ItemOutcome::RetryAfter(after); rest.len()];
                return Delivery::Items([vec![ItemOutcome::Delivered; there.len()], later].concat());
            }
            Answer::NoneThere => {
                let mut outcomes = vec![ItemOutcome::Retry; batch.len()];
                outcomes[0] = ItemOutcome::Unknown;
                return Delivery::Items(outcomes);
            }
            Answer::TooFewItems => return Delivery::Items(Vec::new()),
            Answer::Retry(after) => return Delivery::Retry { after },
            Answer::TooLarge => return Delivery::TooLarge,
            Answer::Refused => return Delivery::Refused { reason: "wrong key".into() },
            Answer::Unknown => return Delivery::Unknown,
            Answer::Panic => panic!("scripted"),
            Answer::Hang => std::future::pending().await,
            Answer::HangKnowing => {
                let mut known = vec![ItemOutcome::Unknown; batch.len()];
                (known[batch.len() - 1], known[0]) = (ItemOutcome::Retry, ItemOutcome::Delivered);
                script.acknowledge(&batch[0]);
                *script.known.lock().unwrap() = Some(known);
                std::future::pending::<()>().await;
            }
            Answer::Block(time) => std::thread::sleep(time),
        }
        for record in batch {
            script.acknowledge(record);
        }
        Delivery::Delivered
    }

    fn cut_off(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let known = self.0.known.lock().unwrap().take();
        known.filter(|known| known.len() == batch.len()).map_or(Delivery::Unknown, Delivery::Items)
    }

    async fn export_metrics(&self, _snapshot: &MetricsSnapshot) -> Delivery {
        self.0.metrics.fetch_add(1, Ordering::Relaxed);
        Delivery::Delivered
    }

    fn scrape(&self, snapshot: &MetricsSnapshot, _accept: &str) -> Option<ScrapePage> {
        let body: String = snapshot.metrics.iter().flat_map(|metric| [metric.name.as_str(), "\n"]).collect();
        Some(ScrapePage::new("text/plain", body))
    }

    async fn health(&self) -> Health {
        self.0.health.lock().unwrap().clone().unwrap_or(Health::Ok)
    }

    async fn shutdown(&self) -> Result<(), ExportError> {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Facts of a finished chat request.
pub(crate) fn facts() -> Facts {
    let mut facts = Facts::new(RequestId::mint(), SystemTime::now());
    facts.provider = Some("groq".into());
    facts.model = Some("llama-3.1-8b-instant".into());
    facts.attempts = 1;
    facts.status_code = 200;
    facts.provider_status_code = 200;
    facts.operation = "chat";
    facts.outcome = magicapi_plugin::Outcome::Completed;
    facts
}

/// One that looks for secrets.
pub(crate) fn redactor() -> Arc<Redactor> {
    Arc::new(Redactor::new(&RedactionSettings::default()).expect("the built-in patterns"))
}

//! What taps and assembly threads share: the plan in force, the budget, the hand-over.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use magicapi_plugin::{
    ContentLevel, Facts, MetricRegistry, MetricsSnapshot, Secret, Signals, TelemetryConfig,
};

use crate::gate::Gate;
use crate::intake::Intake;
use crate::journal::RecordJournal;
use crate::lane::{ExporterStatus, Lane};
use crate::memory::Budget;
use crate::metrics::{DropReason, GatewayMetrics};
use crate::redact::{self, Content, Outcome, Redactor};
use crate::settings::CaptureSettings;
use crate::spool::Spooler;
use crate::tap::{Finished, Pending, Tap};

/// What is captured and who gets it, swapped whole at a reload.
pub(crate) struct Plan {
    /// Nobody takes anything.
    pub(crate) off: bool,
    /// `bodies` is the most that any exporter gets.
    pub(crate) limits: CaptureSettings,
    /// The content levels in use, the fullest first, and who gets them.
    pub(crate) levels: Vec<(ContentLevel, Vec<Arc<Lane>>)>,
    /// What takes secrets out of records, and of what is said of them. `None` lets nothing through.
    pub(crate) redactor: Option<Arc<Redactor>>,
}

impl Plan {
    pub(crate) fn new(
        mut limits: CaptureSettings,
        redactor: Option<Arc<Redactor>>,
        lanes: &[Arc<Lane>],
    ) -> Self {
        let mut levels = Vec::new();
        for level in [ContentLevel::Full, ContentLevel::NoChunks, ContentLevel::Metadata] {
            let takers: Vec<_> = lanes
                .iter()
                .filter(|lane| lane.takes(Signals::RECORDS) && lane.content(limits.bodies) == level)
                .cloned()
                .collect();
            if !takers.is_empty() {
                levels.push((level, takers));
            }
        }
        limits.bodies = levels.first().map_or(ContentLevel::Metadata, |(level, _)| *level);
        Self { off: lanes.is_empty(), limits, levels, redactor }
    }

    /// Takes out of a record what must not be in it.
    pub(crate) fn redact(
        &self,
        caller_key: Option<&Secret>,
        content: &mut Content,
        facts: &mut Facts,
    ) -> Outcome {
        match &self.redactor {
            Some(redactor) => redactor.apply_knowing(caller_key, content, facts),
            None => redact::refuse(content, facts),
        }
    }

    /// Whether nothing would be taken out of a text.
    fn is_clean(&self, caller_key: Option<&Secret>, text: &str) -> bool {
        self.redactor.as_ref().is_some_and(|redactor| redactor.text_knowing(caller_key, text) == text)
    }
}

/// The part of [`crate::Telemetry`] that lives as long as its last tap.
pub(crate) struct Core {
    plan: ArcSwap<Plan>,
    /// Every exporter of the plan, scraped ones among them, in the configuration's order.
    lanes: Mutex<Vec<Arc<Lane>>>,
    budget: Arc<Budget>,
    intake: Intake<Box<Pending>>,
    /// Shut while an exporter with `when_full: refuse` is full.
    pub(crate) gate: Arc<Gate>,
    pub(crate) metrics: Arc<GatewayMetrics>,
    registry: Arc<MetricRegistry>,
    pub(crate) config: Arc<TelemetryConfig>,
    /// `None` without a data directory.
    pub(crate) spooler: Option<Spooler>,
    /// Empty unless records are durable.
    journal: OnceLock<Arc<RecordJournal>>,
}

impl Core {
    pub(crate) fn new(
        config: TelemetryConfig,
        capture: CaptureSettings,
        registry: Arc<MetricRegistry>,
        spooler: Option<Spooler>,
    ) -> Arc<Self> {
        Arc::new(Self {
            plan: ArcSwap::from_pointee(Plan::new(capture, None, &[])),
            lanes: Mutex::default(),
            budget: Budget::new(capture.memory),
            intake: Intake::default(),
            gate: Arc::default(),
            metrics: Arc::new(GatewayMetrics::new(&registry.meter("gateway"), &registry.meter(""))),
            registry,
            config: Arc::new(config),
            spooler,
            journal: OnceLock::new(),
        })
    }

    /// Makes records durable, once, before the first tap.
    pub(crate) fn keep_records(&self, journal: Arc<RecordJournal>) {
        // Set once: there is one journal per process.
        let _already_set = self.journal.set(journal);
    }

    pub(crate) fn journal(&self) -> Option<&Arc<RecordJournal>> {
        self.journal.get()
    }

    pub(crate) fn tap(self: &Arc<Self>) -> Tap {
        let plan = self.plan.load();
        if plan.off { Tap::off() } else { Tap::new(self, plan.limits) }
    }

    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(crate) fn intake(&self) -> &Intake<Box<Pending>> {
        &self.intake
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Puts exporters, redaction and capture limits in force; taps that are open keep their limits.
    pub(crate) fn set_plan(
        &self,
        capture: CaptureSettings,
        redactor: Option<Arc<Redactor>>,
        lanes: Vec<Arc<Lane>>,
    ) {
        self.budget.set_limit(capture.memory);
        self.plan.store(Arc::new(Plan::new(capture, redactor, &lanes)));
        *self.lanes.lock().unwrap_or_else(PoisonError::into_inner) = lanes;
    }

    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a finished request. A name that holds a secret never becomes a label.
    pub(crate) fn observe(&self, facts: &Facts, caller_key: Option<&Secret>) {
        self.metrics.observe(facts, |name| self.plan.load().is_clean(caller_key, name));
    }

    pub(crate) fn hand_over(&self, pending: Box<Pending>) {
        if let Err(pending) = self.intake.push(pending) {
            self.lose(&pending.end, DropReason::Shutdown);
        }
    }

    /// A record that gets no further than here. It still counts in the metrics.
    pub(crate) fn lose(&self, end: &Finished, reason: DropReason) {
        self.observe(&end.facts, end.caller_key.as_ref());
        self.metrics.record_dropped(reason);
    }

    pub(crate) fn status(&self) -> Vec<ExporterStatus> {
        self.lanes().iter().map(|lane| lane.status()).collect()
    }

    /// All metrics now, gauges brought up to date.
    pub(crate) fn snapshot(&self) -> MetricsSnapshot {
        self.metrics.refresh(self.budget.used(), self.budget.limit(), &self.status());
        self.registry.snapshot()
    }
}

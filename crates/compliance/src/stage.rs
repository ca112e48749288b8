//! Where a case is played: a thread with a runtime of its own, as the pipeline gives an exporter, its panics caught, its
//! log heard, its time bounded.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use magicapi_plugin::{
    ConfigError, Delivery, ItemOutcome, RequestMetrics, Settings, SettingsSpec, TelemetryConfig,
    TelemetryExporter,
};
use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::backend::{Backend, Behaviour};
use crate::suite::{Finding, REFUSED, Suite};
use crate::words::{Listener, Words, reasons, wrong_with};

/// Calls that a case may wait for to their end, one after the other: it ends one that hangs, and measures nothing.
const CALLS: u32 = 6;

/// A case's own place.
pub(crate) struct Stage {
    pub(crate) suite: Suite,
    pub(crate) spec: SettingsSpec,
    case: String,
    runtime: Runtime,
    directory: TempDir,
    found: Arc<Mutex<Vec<Finding>>>,
}

/// Plays one case and gives what it found.
pub(crate) fn play(suite: &Suite, case: &str, act: impl FnOnce(&Stage) + Send + 'static) -> Vec<Finding> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let report = |what: String| {
        let finding = Finding { case: case.to_owned(), what };
        found.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
    };
    let (ended, end) = mpsc::channel();
    let own = (suite.clone(), case.to_owned(), found.clone());
    let thread = std::thread::Builder::new().name(format!("compliance: {case}")).spawn(move || {
        let (suite, case, found) = own;
        let played = catch_unwind(AssertUnwindSafe(|| stand(suite, case, found, act)));
        // Nobody listens any more when it was given up.
        let _ = ended.send(match played {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("could not be played: {error}")),
            Err(panic) => Some(format!("panics: {}", said(&*panic))),
        });
    });
    let deadline = suite.patience * CALLS;
    match thread.map(|_| end.recv_timeout(deadline)) {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(what))) => report(what),
        Ok(Err(_)) => report(format!("{HANGS} within {} s", deadline.as_secs())),
        Err(error) => report(format!("could not be played: {error}")),
    }
    std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner))
}

fn stand(
    suite: Suite,
    case: String,
    found: Arc<Mutex<Vec<Finding>>>,
    act: impl FnOnce(&Stage),
) -> std::io::Result<()> {
    let directory = tempfile::tempdir()?;
    for folder in ["data", "files"] {
        std::fs::create_dir(directory.path().join(folder))?;
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let spec = suite.plugin.settings();
    let stage = Stage { suite, spec, case, runtime, directory, found };
    let listener = Listener::default();
    tracing::subscriber::with_default(listener.clone(), || act(&stage));
    let words = stage.words();
    for line in listener.lines() {
        if let Some(what) = words.within(&line) {
            stage.finding(format!("the log shows {what}"));
        }
    }
    Ok(())
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

impl Stage {
    /// Reports something that is wrong.
    pub(crate) fn finding(&self, what: impl Into<String>) {
        let finding = Finding { case: self.case.clone(), what: what.into() };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if !found.iter().any(|known| known.what == finding.what) {
            found.push(finding);
        }
    }

    /// Where an exporter may write: `data_dir`, and `{directory}` of the settings.
    pub(crate) fn folders(&self) -> [PathBuf; 2] {
        ["data", "files"].map(|folder| self.directory.path().join(folder))
    }

    /// The author's settings for a back end.
    pub(crate) fn settings(&self, backend: &Backend) -> Map<String, Value> {
        let [_, files] = self.folders();
        self.suite.settings_for(&backend.address.to_string(), &files.to_string_lossy())
    }

    /// What must come out nowhere. The address that stands in a secret does not matter.
    pub(crate) fn words(&self) -> Words {
        Words::of(&self.spec, &self.suite.settings_for("{address}", "{directory}"))
    }

    /// A back end that behaves so.
    pub(crate) fn backend(&self, behaviour: Behaviour) -> Option<Backend> {
        let backend = Backend::new(self.suite.answer(), behaviour, self.words().quotes());
        match backend {
            Ok(backend) => Some(backend),
            Err(error) => {
                self.finding(format!("no port is free on 127.0.0.1: {error}"));
                None
            }
        }
    }

    /// Makes an exporter, outside of the runtime: `check` makes them without one.
    pub(crate) fn make(
        &self,
        settings: Map<String, Value>,
        backend: &Backend,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let [data, _] = self.folders();
        self.suite.plugin.create_exporter(Settings::new(settings), backend.host_in(Some(&data)))
    }

    /// A back end, and an exporter to it that has been told to begin; whether it could is in the last place.
    pub(crate) fn started(
        &self,
        behaviour: Behaviour,
    ) -> Option<(Backend, Box<dyn TelemetryExporter>, Option<bool>)> {
        let backend = self.backend(behaviour)?;
        let exporter = match self.make(self.settings(&backend), &backend) {
            Ok(exporter) => exporter,
            Err(error) => {
                self.finding(format!("{REFUSED}: {error}"));
                return None;
            }
        };
        let config = TelemetryConfig::default();
        let patience = if behaviour == Behaviour::Silent { SHORT } else { self.suite.patience };
        let begun = self.within(patience, exporter.init(&config)).map(|result| match result {
            Ok(()) => true,
            Err(error) => {
                self.text("the error of init", &error.to_string());
                self.text("the error of init, as Debug,", &format!("{error:?}"));
                false
            }
        });
        if begun.is_none() && behaviour != Behaviour::Silent {
            self.finding(format!("init {HANGS}"));
        }
        Some((backend, exporter, begun))
    }

    /// Exports, and checks the form of what comes back. `None` when the pipeline would have cut it.
    pub(crate) fn export(
        &self,
        exporter: &dyn TelemetryExporter,
        batch: &[Arc<RequestMetrics>],
        patience: Duration,
    ) -> Option<Delivery> {
        let delivery = self.within(patience, exporter.export(batch))?;
        if let Delivery::Items(items) = &delivery
            && items.len() != batch.len()
        {
            self.finding(format!("{} outcomes for a batch of {}", items.len(), batch.len()));
        }
        for reason in reasons(&delivery) {
            self.text("a reason", &reason);
        }
        Some(delivery)
    }

    /// Asks for the health, and ends.
    pub(crate) fn end(&self, exporter: &dyn TelemetryExporter) {
        match self.within(self.suite.patience, exporter.health()) {
            Some(health) => {
                if let Some(reason) = health.reason() {
                    self.text("the health", reason);
                }
            }
            None => self.finding(format!("health {HANGS}")),
        }
        match self.within(self.suite.patience, exporter.shutdown()) {
            Some(Ok(())) => {}
            Some(Err(error)) => self.text("the error of shutdown", &error.to_string()),
            None => self.finding(format!("shutdown {HANGS}")),
        }
    }

    /// Checks a text for the operator.
    pub(crate) fn text(&self, what: &str, text: &str) {
        if let Some(wrong) = wrong_with(&self.words(), text) {
            self.finding(format!("{what} {wrong}"));
        }
    }

    /// Runs a future on the exporter's own thread; `None` when it was dropped because it took longer.
    pub(crate) fn within<T>(&self, patience: Duration, future: impl Future<Output = T>) -> Option<T> {
        self.runtime.block_on(async { timeout(patience, future).await.ok() })
    }
}

/// What the pipeline would wait for a back end that says nothing.
pub(crate) const SHORT: Duration = Duration::from_millis(300);
/// What is said of a call, or a case, that was given up.
pub(crate) const HANGS: &str = "does not come to an end";

/// Whether the back end is said to have a record that was sent.
pub(crate) fn delivers(delivery: &Delivery) -> bool {
    match delivery {
        Delivery::Delivered => true,
        Delivery::Items(items) => items.contains(&ItemOutcome::Delivered),
        _ => false,
    }
}

/// Whether a record is thrown away.
pub(crate) fn rejects(delivery: &Delivery) -> bool {
    matches!(delivery, Delivery::Items(items)
        if items.iter().any(|item| matches!(item, ItemOutcome::Rejected { .. })))
}

//! The pipeline as the gateway sees it: start, tap, look, reload, end.

use std::borrow::Cow;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use magicapi_plugin::{Facts, MetricRegistry, MetricsSnapshot, ScrapePage, Secret, Signals};
use tokio::time::Instant;

use crate::assemble;
use crate::core::Core;
use crate::journal::{DurableSettings, JournalStatus, RecordJournal, Recovery};
use crate::lane::{ExporterState, ExporterStatus, Lane};
use crate::metrics::{DropReason, GatewayMetrics};
use crate::redact::{Content, RedactionSettings, Redactor, UNREAD};
use crate::settings::{CaptureSettings, ExporterSetup, TelemetrySettings};
use crate::spool::{Spooler, Spools};
use crate::stop::Stop;
use crate::tap::Tap;
use crate::trial::{self, Subject, Trial, TrialStep};
use crate::worker::Handle;

/// How long a replaced or removed exporter may go on delivering.
const RELOAD_DRAIN: Duration = Duration::from_secs(10);
/// What an exporter's `shutdown` gets after its last batch, at most; it is part of the deadline.
const EXPORTER_END: Duration = Duration::from_secs(2);
/// What the spool thread may take beyond the deadline to write what is left. Not spent when nothing is.
const SPOOL_END: Duration = Duration::from_secs(5);
/// How often a blocking wait looks.
const LOOK: Duration = Duration::from_millis(2);

/// The telemetry pipeline. Clones are the same pipeline.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    metrics_interval: Duration,
    control: Mutex<Control>,
    unbooked: Mutex<Vec<Facts>>,
}

/// Threads, and who may start and end them.
struct Control {
    assemblers: Vec<JoinHandle<()>>,
    running: Vec<Handle>,
    /// Replaced or removed, not yet known to have ended.
    leaving: Vec<Handle>,
}

/// A required exporter that did not start in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unhealthy {
    /// Its name.
    pub exporter: String,
    /// What went wrong last, for the operator.
    pub error: String,
}

impl Telemetry {
    /// Starts the threads. `init` of the exporters runs on them, beside traffic.
    pub fn start(
        settings: TelemetrySettings,
        registry: Arc<MetricRegistry>,
        exporters: Vec<ExporterSetup>,
    ) -> io::Result<Self> {
        let spooler = settings.spool_dir.map(Spooler::start).transpose()?;
        if spooler.is_none() && !exporters.is_empty() {
            tracing::info!("no data directory: records that have no room in memory are dropped");
        }
        let redactor = match settings.redactor {
            Some(redactor) => redactor,
            None => Arc::new(Redactor::new(&RedactionSettings::default()).map_err(io::Error::other)?),
        };
        let core = Core::new(settings.config, settings.capture, registry, spooler);
        let recovery = match &settings.durable {
            Some(durable) => Some(keep_records(&core, durable)?),
            None => None,
        };
        let telemetry = Self::with(core.clone(), settings.metrics_interval);
        for number in 0..settings.threads.max(1) {
            let core = core.clone();
            let thread = std::thread::Builder::new()
                .name(format!("assemble-{number}"))
                .spawn(move || assemble::run(&core))?;
            telemetry.control().assemblers.push(thread);
        }
        telemetry.reload(settings.capture, Some(redactor), exporters)?;
        if let Some(spools) = telemetry.spools() {
            spools.say_orphans();
        }
        if let Some(recovery) = recovery {
            *telemetry.0.unbooked.lock().unwrap_or_else(PoisonError::into_inner) = recovery.unbooked();
            std::thread::Builder::new().name("recover".into()).spawn(move || recovery.run(&core))?;
        }
        Ok(telemetry)
    }

    /// Requests that were under way when an earlier process was killed, and those that had ended just before: for whoever
    /// keeps books of them beside their records, and may not have had the time. Given once; none unless records are
    /// durable.
    pub fn take_unbooked(&self) -> Vec<Facts> {
        std::mem::take(&mut *self.0.unbooked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The journal of records; `None` unless they are durable.
    pub fn journal(&self) -> Option<JournalStatus> {
        self.0.core.journal().map(|journal| journal.status())
    }

    /// A pipeline without exporters and threads, for tests.
    pub fn disabled() -> Self {
        let settings = TelemetrySettings::default();
        let core = Core::new(settings.config, settings.capture, Arc::default(), None);
        Self::with(core, settings.metrics_interval)
    }

    fn with(core: Arc<Core>, metrics_interval: Duration) -> Self {
        let control = Control { assemblers: Vec::new(), running: Vec::new(), leaving: Vec::new() };
        // An interval of nothing would spin.
        let metrics_interval = metrics_interval.max(Duration::from_millis(100));
        Self(Arc::new(Inner {
            core,
            metrics_interval,
            control: Mutex::new(control),
            unbooked: Mutex::default(),
        }))
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.0.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tap of one request; one that does nothing when there is no exporter.
    pub fn tap(&self) -> Tap {
        self.0.core.tap()
    }

    /// Whether new requests are refused because an exporter with `when_full: refuse` is full. One atomic load.
    pub fn refuses(&self) -> bool {
        self.0.core.gate.is_shut()
    }

    /// The gateway's own metrics.
    pub fn metrics(&self) -> &GatewayMetrics {
        &self.0.core.metrics
    }

    /// All metrics now.
    pub fn snapshot(&self) -> MetricsSnapshot {
        self.0.core.snapshot()
    }

    /// The page for a monitoring system; `None` when no exporter makes one.
    pub fn scrape(&self, accept: &str) -> Option<ScrapePage> {
        let lane = self.0.core.lanes().into_iter().find(|lane| lane.takes(Signals::SCRAPE))?;
        let snapshot = self.snapshot();
        catch_unwind(AssertUnwindSafe(|| lane.exporter.scrape(&snapshot, accept))).ok().flatten()
    }

    /// Every exporter, in the configuration's order.
    pub fn status(&self) -> Vec<ExporterStatus> {
        self.0.core.status()
    }

    /// Sends a marked record through one exporter and tells what came of it; `None` when no exporter has this name.
    pub async fn try_exporter(&self, name: &str) -> Option<Trial> {
        let core = &self.0.core;
        let lane = core.lanes().into_iter().find(|lane| lane.name == name)?;
        let mut trial =
            Trial { exporter: lane.name.clone(), kind: lane.kind, record: None, steps: Vec::new() };
        if lane.is_active() {
            let captured = core.plan().limits.bodies;
            let record = Arc::new(trial::record(core.config.clone(), lane.content(captured)));
            trial.record = lane.takes(Signals::RECORDS).then(|| record.id());
            trial.steps = lane.try_out(record).await;
            return Some(trial);
        }
        let snapshot = self.snapshot();
        // A plug-in makes the page; it must not hold up this thread.
        let page = tokio::task::spawn_blocking(move || {
            let (exporter, signals) = (lane.exporter.as_ref(), lane.signals);
            Subject { exporter, signals, pipeline: &lane.pipeline }.page(&snapshot)
        });
        let began = std::time::Instant::now();
        trial.steps = vec![page.await.unwrap_or_else(|_| TrialStep::blocked(began, "it ended early"))];
        Some(trial)
    }

    /// The exporters' spools, to look at and to work on; `None` without a data directory. May wait while exporters
    /// are exchanged.
    pub fn spools(&self) -> Option<Spools> {
        let root = self.0.core.spooler.as_ref()?.root().to_owned();
        let control = self.control();
        let running = control.running.iter().filter_map(|handle| handle.lane.spool.clone()).collect();
        let ending = control.leaving.iter().filter(|handle| !handle.has_ended());
        let leaving = ending.map(|handle| handle.lane.name.clone()).collect();
        drop(control);
        Some(Spools::of_running(root, running, leaving))
    }

    /// Waits for an exporter with `require_healthy` whose `init` has not succeeded within its `init_timeout`; for ever
    /// when there is none. Looks at the exporters of the moment when it is called.
    pub async fn unhealthy(&self) -> Unhealthy {
        let mut required = self.0.core.lanes();
        required.retain(|lane| lane.pipeline.require_healthy);
        required.sort_by_key(|lane| lane.created_at + lane.pipeline.init_timeout);
        for lane in required {
            tokio::time::sleep_until(lane.created_at + lane.pipeline.init_timeout).await;
            if lane.state() == ExporterState::Starting {
                let error = lane.status().last_error.unwrap_or_else(|| "init has not ended".into());
                return Unhealthy { exporter: lane.name.clone(), error };
            }
        }
        std::future::pending().await
    }

    /// A text for a log line, without what a record would not show either. `caller_key`: as in
    /// [`crate::Finished`].
    pub fn redacted<'t>(&self, caller_key: Option<&Secret>, text: &'t str) -> Cow<'t, str> {
        self.looked_at(|redactor| redactor.text_knowing(caller_key, text))
    }

    /// A text that spend is counted by, without secrets. `caller_key`: as in [`crate::Finished`].
    pub fn without_secrets<'t>(&self, caller_key: Option<&Secret>, text: &'t str) -> Cow<'t, str> {
        self.looked_at(|redactor| redactor.without_secrets(caller_key, text))
    }

    fn looked_at<'t>(&self, look: impl FnOnce(&Redactor) -> Cow<'t, str>) -> Cow<'t, str> {
        self.0.core.plan().redactor.as_deref().map_or(Cow::Borrowed(UNREAD), look)
    }

    /// Puts these exporters, this redactor (`None`: the one in force) and these capture limits in force, without
    /// waiting. A record is redacted by what is in force when it is assembled. An exporter whose name and fingerprint are
    /// known runs on untouched. A changed one delivers what it can in a few seconds, then its replacement takes over
    /// the rest; a removed one leaves the rest in the spool, or loses it, counted. On an error nothing has changed.
    pub fn reload(
        &self,
        capture: CaptureSettings,
        redactor: Option<Arc<Redactor>>,
        exporters: Vec<ExporterSetup>,
    ) -> io::Result<()> {
        let core = &self.0.core;
        let redactor = redactor.or_else(|| core.plan().redactor.clone());
        let mut control = self.control();
        control.leaving.retain(|handle| !handle.has_ended());
        let (mut lanes, mut made) = (Vec::new(), Vec::new());
        for setup in exporters {
            let known = control.running.iter().find(|handle| handle.lane.name == setup.name);
            if let Some(handle) = known.filter(|handle| handle.fingerprint == setup.fingerprint) {
                lanes.push(handle.lane.clone());
                made.push(None);
                continue;
            }
            let all = control.running.iter().chain(&control.leaving);
            let predecessors =
                all.filter(|handle| handle.lane.name == setup.name).filter_map(Handle::predecessor).collect();
            let fingerprint = setup.fingerprint.clone();
            let lane = Arc::new(Lane::new(setup, redactor.clone(), core));
            lanes.push(lane.clone());
            made.push(Some(Handle::start(lane, fingerprint, core, self.0.metrics_interval, predecessors)?));
        }
        core.set_plan(capture, redactor, lanes.clone());
        control.exchange(&lanes, made, core);
        Ok(())
    }

    /// Ends the pipeline: takes nothing more, assembles what is there, drains the queues until the deadline, ends the
    /// exporters. What is left goes to the spool, for which there are a few seconds more, or is counted as lost. Blocks
    /// for as long as that takes, so call it where blocking is allowed.
    pub fn shutdown(&self, deadline: Duration) {
        let end_by = Instant::now() + deadline;
        let drain_until = end_by - EXPORTER_END.min(deadline / 4);
        let core = &self.0.core;
        core.intake().close();
        if let Some(journal) = core.journal() {
            journal.begin_to_close();
        }
        let mut control = self.control();
        wait_until(drain_until, || control.assemblers.iter().all(JoinHandle::is_finished));
        for pending in core.intake().rest() {
            core.lose(&pending.end, DropReason::Shutdown);
            pending.capture.share.give_up();
        }
        if let Some(spooler) = &core.spooler {
            spooler.hurry();
        }
        // A directory is let go by those that leave before those that replace them take it.
        let handles: Vec<Handle> = std::mem::take(&mut control.leaving)
            .into_iter()
            .chain(std::mem::take(&mut control.running))
            .collect();
        for handle in &handles {
            handle.stop(Stop { drain_until, end_by });
        }
        wait_until(end_by, || handles.iter().all(Handle::has_ended));
        for handle in &handles {
            // A worker that hangs has not done it.
            handle.lane.save_rest();
            if let Some(spool) = &handle.lane.spool {
                wait_until(end_by + SPOOL_END, || !spool.is_writing());
                spool.close();
            }
        }
        if let Some(journal) = core.journal() {
            journal.close();
        }
    }
}

/// Opens the journal of records.
fn keep_records(core: &Arc<Core>, settings: &DurableSettings) -> io::Result<Recovery> {
    let of = Arc::downgrade(core);
    let clean = Box::new(move |facts: &mut Facts, caller_key: Option<&Secret>| {
        if let Some(core) = of.upgrade() {
            core.plan().redact(caller_key, &mut Content::default(), facts);
        }
    });
    let (journal, recovery) = RecordJournal::start(settings, core.config.clone(), clean)
        .map_err(|error| io::Error::other(error.to_string()))?;
    core.keep_records(journal);
    Ok(recovery)
}

impl Control {
    /// Takes the new handles (`None` = as before) and orders those that are no longer wanted to end.
    fn exchange(&mut self, lanes: &[Arc<Lane>], made: Vec<Option<Handle>>, core: &Core) {
        let mut before = std::mem::take(&mut self.running);
        for (lane, handle) in lanes.iter().zip(made) {
            let same = before.iter().position(|known| Arc::ptr_eq(&known.lane, lane));
            self.running.extend(handle.or_else(|| same.map(|at| before.swap_remove(at))));
        }
        let now = Instant::now();
        let order = Stop { drain_until: now + RELOAD_DRAIN, end_by: now + RELOAD_DRAIN + EXPORTER_END };
        for old in before {
            let successor = lanes.iter().find(|lane| lane.name == old.lane.name);
            match successor {
                Some(successor) if successor.takes(Signals::RECORDS) => old.lane.hand_to(successor.clone()),
                Some(_) => {}
                None => core.metrics.forget(&old.lane.name),
            }
            old.lane.retire();
            old.stop(order);
            self.leaving.push(old);
        }
    }
}

impl Drop for Inner {
    /// Without a shutdown the assembly threads end by themselves, and so do the workers: their senders go with it.
    fn drop(&mut self) {
        self.core.intake().close();
        if let Some(journal) = self.core.journal() {
            journal.begin_to_close();
            journal.close();
        }
    }
}

fn wait_until(deadline: Instant, done: impl Fn() -> bool) {
    while !done() && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests;

//! One exporter's thread: begins it, feeds it batches and metrics, ends it.
//!
//! The thread has a runtime of its own. Whatever the exporter does there, block, spin or panic, stops it alone.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use magicapi_plugin::{Delivery, Health, Signals};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::backoff::Backoff;
use crate::core::Core;
use crate::deliver::Deliverer;
use crate::feed::Feed;
use crate::guard::{Guarded, guarded};
use crate::lane::{ExporterState, Lane};
use crate::stop::{Stop, StopSender, StopSignal};
use crate::trial::{Subject, TrialEnd, TrialStep};

/// How long one `export_metrics` may take.
const METRICS_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an exporter is asked for its health, and how long the answer may take.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a worker looks whether its predecessor has ended.
const LOOK: Duration = Duration::from_millis(20);
/// After which one that has not ended in its time counts as blocked.
const LATE: Duration = Duration::from_secs(1);

/// The control side of a worker.
pub(crate) struct Handle {
    pub(crate) lane: Arc<Lane>,
    pub(crate) fingerprint: String,
    /// `None` for an exporter that has nothing to do by itself (`SCRAPE`).
    thread: Option<(Arc<JoinHandle<()>>, StopSender)>,
}

/// A worker that another replaces: two never deliver at the same time, unless the first hangs.
pub(crate) struct Predecessor {
    lane: Arc<Lane>,
    thread: Arc<JoinHandle<()>>,
    stop: StopSignal,
}

pub(crate) struct Worker {
    lane: Arc<Lane>,
    core: Arc<Core>,
    metrics_interval: Duration,
    stop: StopSignal,
    predecessors: Vec<Predecessor>,
}

impl Handle {
    /// Starts the worker of a lane.
    pub(crate) fn start(
        lane: Arc<Lane>,
        fingerprint: String,
        core: &Arc<Core>,
        metrics_interval: Duration,
        predecessors: Vec<Predecessor>,
    ) -> io::Result<Self> {
        if !lane.is_active() {
            return Ok(Self { lane, fingerprint, thread: None });
        }
        let (sender, stop) = StopSignal::new();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let worker = Worker { lane: lane.clone(), core: core.clone(), metrics_interval, stop, predecessors };
        let thread = std::thread::Builder::new()
            .name(format!("exporter-{}", lane.name))
            .spawn(move || runtime.block_on(worker.run()))?;
        Ok(Self { lane, fingerprint, thread: Some((Arc::new(thread), sender)) })
    }

    /// Orders the worker to end.
    pub(crate) fn stop(&self, order: Stop) {
        if let Some((_, sender)) = &self.thread {
            sender.send_replace(Some(order));
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(|(thread, _)| thread.is_finished())
    }

    /// What its replacement must wait for.
    pub(crate) fn predecessor(&self) -> Option<Predecessor> {
        let (thread, sender) = self.thread.as_ref()?;
        let stop = StopSignal::of(sender);
        Some(Predecessor { lane: self.lane.clone(), thread: thread.clone(), stop })
    }
}

impl Predecessor {
    /// Whether it should have ended a while ago, and nothing of it is on its way to the disk any more.
    fn hangs(&self) -> bool {
        let late = self.stop.order().is_some_and(|order| order.end_by + LATE < Instant::now());
        late && !self.lane.spool.as_ref().is_some_and(|spool| spool.is_writing())
    }
}

impl Worker {
    async fn run(mut self) {
        let (inherited, begun) = self.take_office().await;
        if inherited && begun {
            self.lane.enter(ExporterState::Running, None);
            let records = self.lane.takes(Signals::RECORDS);
            let metrics = self.lane.takes(Signals::METRICS);
            tokio::join!(
                async {
                    if records {
                        self.deliver_records().await;
                    }
                },
                async {
                    if metrics {
                        self.deliver_metrics().await;
                    }
                },
                self.watch_health(),
                self.serve_trials(),
            );
        }
        self.end(begun).await;
    }

    /// Whether it has taken over what its predecessors left, and whether `init` has succeeded. One that may live beside
    /// them is begun while they drain, so that delivery goes on at once.
    async fn take_office(&mut self) -> (bool, bool) {
        let predecessors = std::mem::take(&mut self.predecessors);
        if self.lane.exclusive {
            let inherited = self.inherit(predecessors).await;
            return (inherited, inherited && self.begin().await);
        }
        tokio::join!(self.inherit(predecessors), self.begin())
    }

    /// Waits until every predecessor has ended and takes over what they left; `false` when the time to end came first. One
    /// whose thread is blocked does not hold up for ever who may live beside it.
    async fn inherit(&self, predecessors: Vec<Predecessor>) -> bool {
        let (mut stop, mut all) = (self.stop.clone(), true);
        for predecessor in predecessors {
            let has_left = || predecessor.thread.is_finished() || !self.lane.exclusive && predecessor.hangs();
            let left = loop {
                if has_left() || !stop.pause(LOOK).await {
                    break has_left();
                }
            };
            if left {
                self.lane.take_over(&predecessor.lane);
            }
            all &= left;
        }
        if !all {
            return false;
        }
        if let Some(spool) = &self.lane.spool {
            spool.open();
        }
        true
    }

    /// Runs `init` until it succeeds; `false` when the time to end came first.
    async fn begin(&self) -> bool {
        let (lane, mut stop) = (self.lane.clone(), self.stop.clone());
        let mut backoff = Backoff::new(lane.pipeline.retry_first, lane.pipeline.retry_longest);
        let timeout = lane.pipeline.init_timeout;
        let mut said = None;
        loop {
            let error =
                match guarded(async { lane.exporter.init(&lane.config).await }, timeout, &mut stop).await {
                    Guarded::Done(Ok(())) => {
                        lane.note_health(Health::Ok);
                        return true;
                    }
                    Guarded::Done(Err(error)) => error.to_string(),
                    Guarded::Panicked(message) => format!("init panicked: {message}"),
                    Guarded::TimedOut => format!("init did not end within {timeout:?}"),
                    Guarded::TooLate => return false,
                };
            let error = lane.redacted(&error).into_owned();
            lane.note(&error);
            if said.as_ref() != Some(&error) {
                tracing::warn!(
                    exporter = lane.name.as_str(),
                    error,
                    "exporter: cannot start yet, records wait"
                );
                said = Some(error.clone());
            }
            lane.expire();
            for call in lane.trials.take() {
                let began = call.began;
                call.answer(vec![TrialStep::init(TrialEnd::Failed, &error, began)]);
            }
            // A test that is asked for is a reason to try again at once.
            let in_time = tokio::select! {
                in_time = stop.pause(backoff.next(None)) => in_time,
                () = lane.trials.called() => true,
            };
            if !in_time {
                return false;
            }
        }
    }

    /// Several exports may be under way on this one thread.
    async fn deliver_records(&self) {
        let deliverer = Deliverer::new(self.lane.clone(), self.stop.clone());
        let mut slots = JoinSet::new();
        for _ in 0..self.lane.pipeline.concurrency.max(1) {
            let feed = Feed::new(self.lane.clone(), self.core.budget().clone(), self.stop.clone());
            slots.spawn(feed.run(deliverer.clone()));
        }
        while slots.join_next().await.is_some() {}
    }

    /// Asks the exporter how its back end is, until the order to end.
    async fn watch_health(&self) {
        let (mut stop, mut ordered) = (self.stop.clone(), self.stop.clone());
        let asking = async {
            loop {
                let health = async { self.lane.exporter.health().await };
                self.lane.note_health(match guarded(health, HEALTH_TIMEOUT, &mut stop).await {
                    Guarded::Done(health) => health,
                    Guarded::Panicked(message) => Health::Down(format!("health panicked: {message}")),
                    Guarded::TimedOut => Health::Degraded("health did not answer in time".into()),
                    Guarded::TooLate => return,
                });
                tokio::time::sleep(HEALTH_INTERVAL).await;
            }
        };
        tokio::select! {
            () = ordered.ordered() => {}
            () = asking => {}
        }
    }

    /// Runs tests that are asked for, beside the batches, until the order to end.
    async fn serve_trials(&self) {
        let (mut stop, mut ordered) = (self.stop.clone(), self.stop.clone());
        let lane = &self.lane;
        let subject =
            Subject { exporter: lane.exporter.as_ref(), signals: lane.signals, pipeline: &lane.pipeline };
        let serving = async {
            loop {
                lane.trials.called().await;
                for call in lane.trials.take() {
                    let mut steps = vec![TrialStep::init(TrialEnd::Ok, "has started", call.began)];
                    steps.extend(subject.probe(&call.record, &self.core.snapshot(), &mut stop).await);
                    call.answer(steps);
                }
            }
        };
        tokio::select! {
            () = ordered.ordered() => {}
            () = serving => {}
        }
    }

    async fn deliver_metrics(&self) {
        let mut stop = self.stop.clone();
        let mut ticks =
            tokio::time::interval_at(Instant::now() + self.metrics_interval, self.metrics_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut working = true;
        loop {
            let last = tokio::select! {
                biased;
                () = stop.ordered() => true,
                _ = ticks.tick() => false,
            };
            let snapshot = self.core.snapshot();
            let export = async { self.lane.exporter.export_metrics(&snapshot).await };
            let failure = match guarded(export, METRICS_TIMEOUT, &mut stop).await {
                Guarded::Done(Delivery::Delivered) => None,
                Guarded::Done(Delivery::Refused { reason }) => Some(reason),
                Guarded::Done(_) => Some("the back end did not take metrics".to_owned()),
                Guarded::Panicked(message) => Some(format!("export_metrics panicked: {message}")),
                Guarded::TimedOut => Some("export_metrics did not end in time".to_owned()),
                Guarded::TooLate => return,
            };
            // Nothing is retried: the next snapshot says it all again.
            self.say_metrics(failure.as_deref(), &mut working);
            if last {
                return;
            }
        }
    }

    fn say_metrics(&self, failure: Option<&str>, working: &mut bool) {
        let exporter = self.lane.name.as_str();
        match failure {
            Some(reason) => {
                self.lane.note(reason);
                if *working {
                    let reason = &*self.lane.redacted(reason);
                    tracing::warn!(exporter, reason, "exporter: metrics are not delivered");
                }
            }
            None if !*working => tracing::info!(exporter, "exporter: metrics are delivered again"),
            None => {}
        }
        *working = failure.is_none();
    }

    async fn end(mut self, begun: bool) {
        let lane = self.lane.clone();
        self.stop.ordered().await;
        // Who waits learns that nobody will answer.
        drop(lane.trials.take());
        if !lane.has_successor() {
            lane.save_rest();
        }
        if begun {
            let end_by = self.stop.order().map_or_else(Instant::now, |order| order.end_by);
            let shutdown = tokio::time::timeout_at(end_by, async { lane.exporter.shutdown().await });
            let failure = match crate::guard::caught(shutdown).await {
                Ok(Ok(Ok(()))) => None,
                Ok(Ok(Err(error))) => Some(error.to_string()),
                Ok(Err(_)) => Some("shutdown did not end in time".to_owned()),
                Err(message) => Some(format!("shutdown panicked: {message}")),
            };
            if let Some(error) = failure {
                lane.note(&error);
                let error = &*lane.redacted(&error);
                tracing::warn!(exporter = lane.name.as_str(), error, "exporter: not ended cleanly");
            }
        }
        self.leave_spool().await;
        lane.enter(ExporterState::Stopped, None);
    }

    /// Lets the spool's directory go, for whoever opens it next.
    async fn leave_spool(&self) {
        let Some(spool) = &self.lane.spool else { return };
        let end_by = self.stop.order().map_or_else(Instant::now, |order| order.end_by);
        while spool.is_writing() && Instant::now() < end_by {
            tokio::time::sleep(LOOK).await;
        }
        // Who replaces this one takes what is left; at the very end whoever ended us waits a little longer, and closes it.
        if !spool.is_writing() && !self.lane.has_successor() {
            spool.close();
        }
    }
}

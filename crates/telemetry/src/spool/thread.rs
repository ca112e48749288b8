//! The pipeline's one spool thread: writes what lanes hand over, and removes what is too old.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use magicapi_spool::SpoolError;

use super::{Spool, lock, reason_of};
use crate::gate::Valve;
use crate::guard::panic_text;
use crate::metrics::{DropReason, Event};
use crate::put_off::PutOff;
use crate::queue::Item;
use crate::settings::PipelineSettings;
use crate::tally::Tally;

/// How long a hand-over gathers records, so that a queue that overflows one by one does not make a file of each.
const GATHER: Duration = Duration::from_millis(100);
/// How long one spool is written to before it is another's turn.
const TURN: Duration = Duration::from_millis(250);
/// How often the age of files is looked at.
const EXPIRY: Duration = Duration::from_secs(1);

/// Makes spools and runs their thread.
pub(crate) struct Spooler {
    root: PathBuf,
    signal: Arc<Signal>,
}

/// How spools call the thread.
#[derive(Default)]
pub(super) struct Signal {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    called: VecDeque<Arc<Spool>>,
    known: Vec<Weak<Spool>>,
    /// Nobody gathers any more: the end has come.
    hurry: bool,
    /// A hand-over fills up: the next is written without waiting for more.
    pressed: bool,
    ended: bool,
}

impl Spooler {
    /// Starts the thread. `root` holds one directory per exporter.
    pub(crate) fn start(root: PathBuf) -> std::io::Result<Self> {
        let signal = Arc::new(Signal::default());
        let its = signal.clone();
        std::thread::Builder::new().name("spool".into()).spawn(move || run(&its))?;
        Ok(Self { root, signal })
    }

    /// The spool of one exporter, not yet opened.
    pub(crate) fn spool(
        &self,
        tally: &Arc<Tally>,
        pipeline: &PipelineSettings,
        valve: Option<Arc<Valve>>,
        put_off: Arc<PutOff>,
    ) -> Arc<Spool> {
        let spool = Spool::new(&self.root, tally, pipeline, self.signal.clone());
        let spool = Arc::new(Spool { valve, put_off, ..spool });
        let mut state = lock(&self.signal.state);
        state.known.retain(|known| known.strong_count() > 0);
        state.known.push(Arc::downgrade(&spool));
        spool
    }

    /// Where the exporters' directories are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// From now on everything is written at once.
    pub(crate) fn hurry(&self) {
        lock(&self.signal.state).hurry = true;
        self.signal.wake.notify_one();
    }
}

impl Drop for Spooler {
    fn drop(&mut self) {
        lock(&self.signal.state).ended = true;
        self.signal.wake.notify_one();
    }
}

impl Signal {
    pub(super) fn call(&self, spool: Arc<Spool>) {
        lock(&self.state).called.push_back(spool);
        self.wake.notify_one();
    }

    /// A hand-over fills up.
    pub(super) fn press(&self) {
        let pressed = std::mem::replace(&mut lock(&self.state).pressed, true);
        if !pressed {
            self.wake.notify_one();
        }
    }

    /// Waits for a call or until it is time to look at ages; `None` at the end.
    fn wait(&self, until: Instant) -> Option<(Vec<Arc<Spool>>, bool)> {
        let mut state = lock(&self.state);
        loop {
            if !state.called.is_empty() || Instant::now() >= until {
                return Some((state.called.drain(..).collect(), state.hurry));
            }
            if state.ended {
                return None;
            }
            let time = until.saturating_duration_since(Instant::now());
            state = self.wake.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn gather(&self) {
        let gathering = |state: &mut State| !state.hurry && !state.ended && !state.pressed;
        let waited = self.wake.wait_timeout_while(lock(&self.state), GATHER, gathering);
        waited.unwrap_or_else(PoisonError::into_inner).0.pressed = false;
    }

    fn known(&self) -> Vec<Arc<Spool>> {
        lock(&self.state).known.iter().filter_map(Weak::upgrade).collect()
    }
}

fn run(signal: &Signal) {
    let mut look_at = Instant::now() + EXPIRY;
    while let Some((called, hurry)) = signal.wait(look_at) {
        if !called.is_empty() && !hurry {
            signal.gather();
        }
        for spool in called {
            spool.caught(Spool::write_waiting);
            if spool.has_more() {
                spool.call();
            }
        }
        if Instant::now() >= look_at {
            for spool in signal.known() {
                spool.caught(Spool::expire);
                spool.caught(Spool::write_waiting);
            }
            look_at = Instant::now() + EXPIRY;
        }
    }
}

impl Spool {
    /// Does a piece of the thread's work. A panic costs the records that were being written, counted, and nothing else:
    /// the thread goes on, and the next look finds what still waits.
    fn caught(&self, work: impl FnOnce(&Self)) {
        let Err(payload) = catch_unwind(AssertUnwindSafe(|| work(self))) else { return };
        let lost = std::mem::take(&mut lock(&self.handover).writing);
        self.dead.give_up();
        self.drop_records(lost, DropReason::Panic);
        tracing::error!(
            exporter = self.tally.name(),
            records = lost,
            panic = panic_text(payload.as_ref()),
            "spool: writing failed inside; these records are lost, the rest goes on"
        );
    }

    /// Writes what waits, as far as the disk takes it, for one turn: records that come faster than that keep neither the
    /// other spools nor the look at ages waiting.
    fn write_waiting(&self) {
        self.called.store(false, std::sync::atomic::Ordering::Release);
        self.dead.write();
        let begun = Instant::now();
        while begun.elapsed() < TURN {
            let untried = std::mem::take(&mut lock(&self.handover).untried);
            if untried {
                lock(&self.files).try_at_once();
            } else if lock(&self.failure).is_some() && !lock(&self.files).may_try() {
                return;
            }
            let items = self.take_handover(true);
            if items.is_empty() {
                return;
            }
            let unwritten = self.write(items);
            let go_on = unwritten.is_empty();
            let mut handover = lock(&self.handover);
            handover.writing = 0;
            let closed = handover.closed;
            let lost = unwritten.len();
            if !closed {
                for item in unwritten.into_iter().rev() {
                    handover.bytes += item.memory();
                    handover.waiting.push_front(item);
                }
            }
            drop(handover);
            self.regate();
            if closed {
                let reason = lock(&self.failure).as_ref().map_or(DropReason::Shutdown, |(reason, _)| *reason);
                self.drop_records(lost, reason);
            }
            if !go_on {
                // The worker may deliver from memory what cannot be written.
                self.arrived.notify_one();
                return;
            }
        }
    }

    /// Writes one file; gives the records back when that failed.
    fn write(&self, items: Vec<Item>) -> Vec<Item> {
        #[cfg(test)]
        super::tests::writing(self.tally.name());
        let mut displaced = 0;
        let written = self.opened_files(|files| files.put(&items, self.valve.is_none(), &mut displaced));
        self.drop_records(usize::try_from(displaced).unwrap_or_default(), DropReason::DiskFull);
        let records = items.len();
        match written {
            Some(Ok(kept)) => {
                self.tell(None);
                if kept {
                    self.tally.count(Event::Spooled, records);
                    self.arrived.notify_one();
                } else {
                    self.drop_records(records, DropReason::DiskFull);
                }
                Vec::new()
            }
            Some(Err(error)) => {
                self.tell(Some((reason_of(&error), error.to_string())));
                items
            }
            None => items,
        }
    }

    /// Does something with the open files. `None` while they may not be opened.
    pub(super) fn opened_files<T>(
        &self,
        act: impl FnOnce(&mut super::Files) -> Result<T, SpoolError>,
    ) -> Option<Result<T, SpoolError>> {
        if !self.keeps() && !self.dir.exists() {
            return None;
        }
        let mut files = lock(&self.files);
        let opened = files.open(&self.dir, self.limits.disk)?;
        let done = opened.and_then(|found| {
            if found > 0 {
                self.records.fetch_add(found, std::sync::atomic::Ordering::Relaxed);
                self.tally.receive(found);
                tracing::info!(exporter = self.tally.name(), records = found, "spool: records wait there");
            }
            act(&mut files)
        });
        drop(files);
        if let Err(error) = &done {
            self.tell(Some((reason_of(error), error.to_string())));
        }
        self.measure();
        Some(done)
    }
}

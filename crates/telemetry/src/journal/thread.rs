//! The journal's thread: writes open and done entries in batches, and moves on what would hold old segments.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use magicapi_plugin::{Facts, Secret, TelemetryConfig};

use super::kept::Held;
use super::{Clean, Failure, RESERVE, RecordJournal, entry, lock};

/// How long the first message waits for others. A request that ends within it needs no open entry.
const GATHER: Duration = Duration::from_millis(20);
/// How often it looks whether a sync is due.
const TICK: Duration = Duration::from_millis(500);
/// How soon it looks again whether moving entries on pays, when it did not.
const CARRY_AGAIN: Duration = Duration::from_millis(100);
/// Open entries that may wait to be written.
const MOST_OPEN: usize = 16_384;
/// What is moved on at once, in bytes.
const CARRY: u64 = 16 << 20;

/// The way to the thread.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    opens: usize,
    asleep: bool,
    end: bool,
    has_ended: bool,
}

enum Message {
    Open(Arc<Held>, Box<Facts>, Option<Secret>),
    Done(Arc<Held>),
}

impl Inbox {
    /// `false` when too many wait.
    pub(super) fn open(&self, held: Arc<Held>, facts: &Facts, caller_key: Option<&Secret>) -> bool {
        // Copied before the lock is taken.
        let (facts, caller_key) = (Box::new(facts.clone()), caller_key.cloned());
        let mut state = lock(&self.state);
        if state.opens >= MOST_OPEN || state.end {
            return false;
        }
        state.opens += 1;
        state.messages.push_back(Message::Open(held, facts, caller_key));
        self.rouse(state);
        true
    }

    pub(super) fn done(&self, held: Arc<Held>) {
        let mut state = lock(&self.state);
        state.messages.push_back(Message::Done(held));
        self.rouse(state);
    }

    /// Whether the thread has nothing in its hands and nothing to come.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let state = lock(&self.state);
        state.messages.is_empty() && state.asleep
    }

    fn rouse(&self, mut state: std::sync::MutexGuard<'_, State>) {
        let asleep = std::mem::replace(&mut state.asleep, false);
        drop(state);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// What waits, after the first has waited for others; `None` once there is nothing more to come.
    fn take(&self) -> Option<VecDeque<Message>> {
        let mut state = lock(&self.state);
        if state.messages.is_empty() && !state.end {
            state.asleep = true;
            let waited = self.wake.wait_timeout_while(state, TICK, |state| state.asleep && !state.end);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
            state.asleep = false;
        }
        if !state.end && !state.messages.is_empty() {
            drop(state);
            std::thread::sleep(GATHER);
            state = lock(&self.state);
        }
        state.opens = 0;
        let taken = std::mem::take(&mut state.messages);
        (!taken.is_empty() || !state.end).then_some(taken)
    }

    pub(super) fn end(&self) {
        lock(&self.state).end = true;
        self.wake.notify_one();
    }

    pub(super) fn wait_for_end(&self, within: Duration) {
        let state = lock(&self.state);
        // Whether it ended in time changes nothing: what it did not write comes back.
        let _waited = self.ended.wait_timeout_while(state, within, |state| !state.has_ended);
    }
}

/// `clean` takes out of an open entry what must not stand on a disk.
pub(super) fn start(
    journal: &Arc<RecordJournal>,
    config: Arc<TelemetryConfig>,
    clean: Clean,
) -> std::io::Result<()> {
    let journal = journal.clone();
    std::thread::Builder::new().name("journal".into()).spawn(move || {
        let (mut sync_at, mut carry_at) = (Instant::now(), Instant::now());
        while let Some(messages) = journal.inbox.take() {
            // What it panics over is not in the journal; the rest must be.
            let process = || journal.process(messages, &config, &clean);
            if catch_unwind(AssertUnwindSafe(process)).is_err() {
                journal.missed(1);
            }
            let now = Instant::now();
            if sync_at <= now {
                journal.sync();
                sync_at = now + TICK;
            }
            if carry_at <= now && journal.is_half_full() && !journal.carry_on() {
                carry_at = now + CARRY_AGAIN;
            }
        }
        lock(&journal.inbox.state).has_ended = true;
        journal.inbox.ended.notify_all();
    })?;
    Ok(())
}

impl RecordJournal {
    fn process(&self, messages: VecDeque<Message>, config: &Arc<TelemetryConfig>, clean: &Clean) {
        let (mut opens, mut done) = (Vec::new(), Vec::new());
        for message in messages {
            match message {
                Message::Open(held, mut facts, caller_key) if held.wants_open() => {
                    clean(&mut facts, caller_key.as_ref());
                    opens.push((held, entry::open(*facts, config.clone())));
                }
                Message::Open(..) => {}
                Message::Done(held) => done.push(held),
            }
        }
        self.write_opens(opens);
        self.write_done(&done);
    }

    fn write_opens(&self, opens: Vec<(Arc<Held>, Vec<u8>)>) {
        if opens.is_empty() {
            return;
        }
        let (held, entries): (Vec<_>, Vec<_>) = opens.into_iter().unzip();
        let Some(pin) = self.write(&entries, self.limit - self.limit / RESERVE / 2) else {
            self.missed(held.len() as u64);
            return;
        };
        let mut live = lock(&self.live);
        for (held, entry) in held.into_iter().zip(entries) {
            held.opened(pin.clone(), entry, self.next());
            live.insert(held.id, held);
        }
    }

    /// A done entry stands behind every entry that it speaks of; only then may their segments go.
    fn write_done(&self, done: &[Arc<Held>]) {
        let mut live = lock(&self.live);
        for held in done {
            live.remove(&held.id);
        }
        drop(live);
        let (mut ids, mut pins) = (Vec::new(), Vec::new());
        for held in done {
            let (was_written, pin) = held.release();
            if was_written && !held.is_spared() {
                ids.push(held.id);
            }
            pins.extend(pin);
        }
        if !ids.is_empty() {
            // Where it cannot be written, they may come back: twice is better than never.
            drop(self.write(&[entry::done(ids)], self.limit));
        }
        drop(pins);
    }

    fn sync(&self) {
        let journal = lock(&self.journal).clone();
        match journal.map(|journal| journal.sync_if_due()) {
            Some(Err(error)) => self.tell(Some(Failure::of(&error, 0))),
            _ => self.tell_that_it_works(false),
        }
    }

    fn is_half_full(&self) -> bool {
        self.room() < self.limit - self.limit / 2
    }

    /// What the files may still grow by.
    fn room(&self) -> u64 {
        let journal = lock(&self.journal);
        journal.as_ref().map_or(0, |journal| self.limit.saturating_sub(self.used(journal)))
    }

    /// Moves the oldest entries that somebody still needs into the segment that is written, so that one long stream or
    /// one record that waits does not hold everything behind it. Pays when most of the journal is done with; `false` when
    /// nothing was moved.
    fn carry_on(&self) -> bool {
        if self.recovering.load(Ordering::Relaxed) {
            return false;
        }
        let mut live: Vec<_> = lock(&self.live).values().cloned().collect();
        let bytes: u64 = live.iter().map(|held| held.order_and_length().1 as u64).sum();
        if bytes > self.limit / 4 {
            return false;
        }
        let most = CARRY.min(self.room());
        // Asked once each: assembly moves them meanwhile, and an order that changes makes sorting panic.
        live.sort_by_cached_key(|held| held.order_and_length().0);
        let (mut moved, mut entries, mut bytes) = (Vec::new(), Vec::new(), 0);
        for held in live.into_iter().filter(|held| !held.is_done()) {
            // Where one cannot move, moving those behind it frees nothing.
            let Some((entry, is_open)) = held.entry() else { break };
            bytes += entry.len() as u64 + 8;
            if bytes > most && !entries.is_empty() {
                break;
            }
            moved.push((held, is_open));
            entries.push(entry);
        }
        if entries.is_empty() {
            return false;
        }
        let Some(pin) = self.write(&entries, self.limit) else { return false };
        for ((held, is_open), entry) in moved.into_iter().zip(entries) {
            if is_open {
                held.opened(pin.clone(), entry, self.next());
            } else {
                held.recorded(pin.clone(), entry.len(), self.next());
            }
        }
        true
    }
}

//! Delivers one batch: sends, judges the answer, sends again what may be sent again, until all of it is settled.
//!
//! The exporter never retries by itself; every decision about a [`Delivery`] stands here. Records keep their order.

mod decision;
mod rejections;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use magicapi_plugin::{ContentDropped, Delivery, ItemOutcome};
use tokio::time::Instant;

use self::decision::{Admission, Next, took_nothing};
use self::rejections::Rejections;
use crate::backoff::Backoff;
use crate::breaker::Gate;
use crate::guard::{Guarded, guarded};
use crate::lane::{ExporterState, Lane};
use crate::metrics::{DropReason, Event};
use crate::queue::Item;
use crate::rate::Pace;
use crate::spool::{Origin, Spool};
use crate::stop::StopSignal;

/// What a probe may take beyond its timeout before it counts as gone.
const PROBE_SLACK: Duration = Duration::from_secs(5);
/// How long an exporter may think about why its back end takes no records.
const WHY: Duration = Duration::from_secs(1);
/// Panics over one batch before it is halved to find the record that causes them.
const MAX_PANICS: u32 = 3;
/// Why what was sent is sent again.
const UNANSWERED: &str = "sent, but no answer came";
const NONE_TAKEN: &str = "the back end takes no record now";
const CUT_OFF: &str = "the export did not end in time";

/// Delivers batches of one exporter, one after the other. Clones deliver beside each other, under one breaker and at
/// one pace.
#[derive(Clone)]
pub(crate) struct Deliverer {
    lane: Arc<Lane>,
    stop: StopSignal,
    backoff: Backoff,
    pace: Arc<Pace>,
    rejections: Arc<Mutex<Rejections>>,
    /// The try that the order to end calls for has been made.
    tried_last: bool,
    /// What the exporter says of its back end since the last try, when that did not work.
    cause: Option<String>,
}

/// Records that are delivered together.
pub(crate) struct Batch {
    /// `None`: the queue.
    pub(crate) origin: Option<Origin>,
    pub(crate) items: Vec<Item>,
}

/// A part of a batch that is sent together.
struct Parcel {
    origin: Option<Origin>,
    items: Vec<Item>,
    /// It is one record, and its bodies were taken away because it was too large.
    stripped: bool,
    panics: u32,
}

impl Deliverer {
    pub(crate) fn new(lane: Arc<Lane>, stop: StopSignal) -> Self {
        let pace = Arc::new(Pace::new(lane.pipeline.rate_limit));
        let backoff = Backoff::new(lane.pipeline.retry_first, lane.pipeline.retry_longest);
        let rejections = Arc::default();
        Self { lane, stop, backoff, pace, rejections, tried_last: false, cause: None }
    }

    /// Delivers a batch, or moves it to the spool when the breaker opens. `false` when the time to end came first: what
    /// is left is back where it came from.
    pub(crate) async fn deliver(&mut self, batch: Batch) -> bool {
        let Batch { origin, items } = batch;
        let all = items.len();
        let mut parcels = VecDeque::from([Parcel { origin, items, stripped: false, panics: 0 }]);
        while let Some(mut parcel) = parcels.pop_front() {
            self.expire(&mut parcel);
            if parcel.items.is_empty() {
                continue;
            }
            let go_on = match self.admit(&parcel).await {
                Admission::Send => {
                    let answer = self.send(&parcel).await;
                    self.act(parcel, answer, &mut parcels).await
                }
                Admission::Divert => {
                    parcels.push_front(parcel);
                    self.divert(origin, all, parcels);
                    return true;
                }
                Admission::TooLate => {
                    parcels.push_front(parcel);
                    false
                }
            };
            if !go_on {
                self.give_back(origin, all, parcels);
                return false;
            }
        }
        if let (Some(Origin::File(id)), Some(spool)) = (origin, &self.lane.spool) {
            spool.finish(id);
        }
        true
    }

    /// Does what the answer calls for; `false` when it is too late for more.
    async fn act(
        &mut self,
        mut parcel: Parcel,
        answer: Guarded<Delivery>,
        parcels: &mut VecDeque<Parcel>,
    ) -> bool {
        match self.judge(&mut parcel, answer) {
            Next::Done => true,
            Next::Halve => {
                let second = parcel.items.split_off(parcel.items.len() / 2);
                parcels.push_front(Parcel {
                    origin: parcel.origin,
                    items: second,
                    stripped: false,
                    panics: 0,
                });
                parcels.push_front(Parcel { panics: 0, ..parcel });
                true
            }
            Next::Wait(delay) => {
                let open = self.lane.breaker.holds_until().is_some();
                let diverts = open && self.diverts(parcel.origin);
                if open && !diverts && parcel.origin.is_none() {
                    // The next probe is something else, in case nobody ever takes this.
                    match self.lane.queue.put_last(std::mem::take(&mut parcel.items)) {
                        Ok(()) => return true,
                        Err(items) => parcel.items = items,
                    }
                }
                parcels.push_front(parcel);
                diverts || self.stop.pause(delay).await
            }
            Next::GiveUp => {
                parcels.push_front(parcel);
                false
            }
        }
    }

    /// Waits until the breaker and the pace let a parcel pass.
    async fn admit(&mut self, parcel: &Parcel) -> Admission {
        let mut paid = false;
        loop {
            if let Some(until) = self.lane.breaker.holds_until() {
                if self.stop.order().is_some() && !std::mem::replace(&mut self.tried_last, true) {
                    return Admission::Send;
                }
                if self.diverts(parcel.origin) {
                    return Admission::Divert;
                }
                let mut stop = self.stop.clone();
                let in_time = tokio::select! {
                    in_time = stop.pause(until.saturating_duration_since(Instant::now())) => in_time,
                    () = self.lane.breaker.changed() => true,
                };
                if !in_time {
                    return Admission::TooLate;
                }
                continue;
            }
            let delay = if std::mem::replace(&mut paid, true) {
                self.pace.held()
            } else {
                self.pace.take(parcel.items.iter().map(Item::encoded).sum())
            };
            if delay.is_zero() {
                // The last question: whoever asks it has the turn.
                if self.lane.breaker.admit(self.lane.pipeline.timeout + PROBE_SLACK) == Gate::Pass {
                    return Admission::Send;
                }
            } else if !self.stop.pause(delay).await {
                return Admission::TooLate;
            }
        }
    }

    /// Whether a batch that cannot be sent now goes to the spool instead of waiting in memory.
    fn diverts(&self, origin: Option<Origin>) -> bool {
        let works = || self.lane.spool.as_deref().is_some_and(Spool::works);
        matches!(origin, Some(Origin::File(_))) || works()
    }

    fn divert(&self, origin: Option<Origin>, all: usize, parcels: VecDeque<Parcel>) {
        match origin {
            Some(_) => self.give_back(origin, all, parcels),
            None => self.lane.divert(parcels.into_iter().flat_map(|parcel| parcel.items).collect()),
        }
    }

    fn give_back(&self, origin: Option<Origin>, all: usize, parcels: VecDeque<Parcel>) {
        let rest: Vec<_> = parcels.into_iter().flat_map(|parcel| parcel.items).collect();
        match (origin, &self.lane.spool) {
            (Some(origin), Some(spool)) => {
                let whole = rest.len() == all;
                spool.give_back(origin, rest, whole);
            }
            _ => self.lane.queue.put_back(rest),
        }
    }

    async fn send(&mut self, parcel: &Parcel) -> Guarded<Delivery> {
        let records: Vec<_> = parcel.items.iter().map(|item| item.record.clone()).collect();
        let exporter = self.lane.exporter.clone();
        let timeout = self.lane.pipeline.timeout;
        let answer = guarded(async { exporter.export(&records).await }, timeout, &mut self.stop).await;
        self.cause = None;
        if let Guarded::Done(delivery) = &answer
            && took_nothing(delivery)
            && let Guarded::Done(health) =
                guarded(async { exporter.health().await }, WHY, &mut self.stop).await
        {
            self.cause = health.reason().map(str::to_owned);
        }
        answer
    }

    fn judge(&mut self, parcel: &mut Parcel, answer: Guarded<Delivery>) -> Next {
        match answer {
            Guarded::Done(Delivery::Delivered) => {
                self.settle(parcel.origin, std::mem::take(&mut parcel.items), Event::Sent);
                self.works();
                Next::Done
            }
            Guarded::Done(Delivery::Items(outcomes)) => self.judge_items(parcel, outcomes, NONE_TAKEN),
            Guarded::Done(Delivery::Retry { after }) => {
                self.again(parcel, after, "the back end cannot take records now")
            }
            Guarded::Done(Delivery::TooLarge) => self.too_large(parcel),
            Guarded::Done(Delivery::Refused { reason }) => {
                self.lane.enter(ExporterState::Refused, Some(&reason));
                let delay = self.lane.breaker.refused();
                // While draining there is no time to wait for an operator.
                if self.stop.order().is_some() { Next::GiveUp } else { Next::Wait(delay) }
            }
            // `Unknown`, which is the safe reading of anything else too.
            Guarded::Done(_) => self.ambiguous(parcel, UNANSWERED),
            Guarded::TimedOut => self.cut_off(parcel),
            Guarded::Panicked(message) => self.panicked(parcel, &message),
            Guarded::TooLate => {
                // What is left was under way, and is kept for a later try.
                let next = self.cut_off(parcel);
                self.lane.breaker.undecided();
                if matches!(next, Next::Done) { next } else { Next::GiveUp }
            }
        }
    }

    /// The export took too long; the exporter may know of some records what became of them.
    fn cut_off(&mut self, parcel: &mut Parcel) -> Next {
        let records: Vec<_> = parcel.items.iter().map(|item| item.record.clone()).collect();
        let known = catch_unwind(AssertUnwindSafe(|| self.lane.exporter.cut_off(&records)));
        match known {
            Ok(Delivery::Items(outcomes)) => {
                self.lane.note(CUT_OFF);
                self.judge_items(parcel, outcomes, CUT_OFF)
            }
            _ => self.ambiguous(parcel, CUT_OFF),
        }
    }

    /// `otherwise`: why none was taken, unless answers are missing.
    fn judge_items(&mut self, parcel: &mut Parcel, outcomes: Vec<ItemOutcome>, otherwise: &str) -> Next {
        if outcomes.len() != parcel.items.len() {
            return self.ambiguous(parcel, "the exporter did not answer for every record");
        }
        let (mut sent, mut rejected, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        let mut put_off = Vec::new();
        let after = outcomes.iter().filter_map(ItemOutcome::after).max();
        let unanswered = outcomes.iter().filter(|outcome| **outcome == ItemOutcome::Unknown).count();
        for (item, outcome) in std::mem::take(&mut parcel.items).into_iter().zip(outcomes) {
            match outcome {
                ItemOutcome::Delivered => sent.push(item),
                ItemOutcome::Retry | ItemOutcome::RetryAfter(_) => {
                    put_off.push(item.clone());
                    rest.push(item);
                }
                ItemOutcome::Rejected { reason } => {
                    self.say_rejected(&reason);
                    self.lane.bury(&item, &reason);
                    rejected.push(item);
                }
                _ => rest.push(item),
            }
        }
        self.lane.put_off.add(&put_off);
        let progress = !sent.is_empty() || !rejected.is_empty();
        self.settle(parcel.origin, sent, Event::Sent);
        self.settle(parcel.origin, rejected, Event::Rejected);
        parcel.items = rest;
        self.lane.count(Event::Ambiguous, unanswered);
        if progress {
            self.works();
        }
        match (parcel.items.len(), progress) {
            (0, _) => Next::Done,
            (left, true) => {
                self.lane.count(Event::Retried, left);
                self.hold(after);
                Next::Wait(self.backoff.next(after))
            }
            (_, false) if unanswered > 0 && otherwise == NONE_TAKEN => self.again(parcel, after, UNANSWERED),
            (_, false) => self.again(parcel, after, otherwise),
        }
    }

    fn again(&mut self, parcel: &Parcel, after: Option<Duration>, reason: &str) -> Next {
        self.lane.count(Event::Retried, parcel.items.len());
        self.hold(after);
        let said = self.cause.take().map(|cause| format!("{reason}: {cause}"));
        self.lane.enter(ExporterState::Retrying, Some(said.as_deref().unwrap_or(reason)));
        Next::Wait(self.lane.breaker.failed(after))
    }

    fn hold(&self, after: Option<Duration>) {
        if let Some(after) = after {
            self.pace.hold(after);
        }
    }

    fn ambiguous(&mut self, parcel: &Parcel, reason: &str) -> Next {
        self.lane.count(Event::Ambiguous, parcel.items.len());
        self.again(parcel, None, reason)
    }

    fn too_large(&mut self, parcel: &mut Parcel) -> Next {
        self.lane.breaker.undecided();
        match parcel.items.as_mut_slice() {
            [item] if !parcel.stripped => {
                item.record = Arc::new(item.record.without_content(ContentDropped::TooLarge));
                parcel.stripped = true;
                Next::Wait(Duration::ZERO)
            }
            [_] => self.reject(parcel, "too large even without bodies"),
            _ => Next::Halve,
        }
    }

    fn panicked(&mut self, parcel: &mut Parcel, message: &str) -> Next {
        self.lane.count(Event::Panicked, 1);
        parcel.panics += 1;
        // The exporter's fault over these records, not its back end's: it opens no breaker.
        self.lane.breaker.undecided();
        let records = parcel.items.len();
        if records == 1 && parcel.panics >= MAX_PANICS {
            return self.reject(parcel, "the exporter panics over it");
        }
        self.lane.count(Event::Ambiguous, records);
        match records {
            2.. if parcel.panics >= MAX_PANICS => Next::Halve,
            _ => {
                self.lane.count(Event::Retried, records);
                let reason = format!("the exporter panicked: {message}");
                self.lane.enter(ExporterState::Retrying, Some(&reason));
                Next::Wait(self.backoff.next(None))
            }
        }
    }

    fn reject(&mut self, parcel: &mut Parcel, reason: &str) -> Next {
        self.bury(parcel.origin, std::mem::take(&mut parcel.items), reason);
        Next::Done
    }

    /// Records are rejected, and kept for a person.
    fn bury(&self, origin: Option<Origin>, items: Vec<Item>, reason: &str) {
        self.say_rejected(reason);
        for item in &items {
            self.lane.bury(item, reason);
        }
        self.settle(origin, items, Event::Rejected);
    }

    fn say_rejected(&self, reason: &str) {
        self.rejections.lock().unwrap_or_else(PoisonError::into_inner).say(&self.lane, reason);
    }

    fn expire(&mut self, parcel: &mut Parcel) {
        let on_disk = self.lane.spool.as_ref().filter(|_| parcel.origin.is_some());
        let max_age = on_disk.map_or(self.lane.pipeline.retry_max_age, |spool| spool.max_age());
        let (old, young): (Vec<_>, _) =
            std::mem::take(&mut parcel.items).into_iter().partition(|item| item.is_older_than(max_age));
        parcel.items = young;
        let (put_off, old): (Vec<_>, _) = old.into_iter().partition(|item| self.lane.put_off.contains(item));
        if !put_off.is_empty() {
            let reason = format!("the exporter put it off until it was older than {max_age:?}");
            self.bury(parcel.origin, put_off, &reason);
        }
        self.settle(parcel.origin, old, Event::Dropped(DropReason::Expired));
    }

    /// Records are done with: they leave the account of queue or spool, and the budget's with the last exporter.
    fn settle(&self, origin: Option<Origin>, items: Vec<Item>, event: Event) {
        self.lane.put_off.remove(&items);
        let records = items.len();
        if let (Some(_), Some(spool)) = (origin, &self.lane.spool) {
            drop(items);
            spool.settle(records);
            self.lane.count(event, records);
            return;
        }
        // A queue that was closed meanwhile has saved them, or counted them as lost.
        let is_ours = self.lane.queue.settle(&items);
        drop(items);
        if is_ours {
            self.lane.count(event, records);
        }
    }

    fn works(&mut self) {
        self.backoff.reset();
        self.lane.breaker.worked();
        if let Some(spool) = &self.lane.spool {
            spool.worked();
        }
        let draining = self.stop.order().is_some();
        self.lane.enter(if draining { ExporterState::Draining } else { ExporterState::Running }, None);
    }
}

#[cfg(test)]
mod tests;

//! Delivers one batch: sends, judges the answer, sends again what may be sent again, until all of it is settled.
//!
//! The exporter never retries by itself; every decision about a [`Delivery`] stands in `judge`. Records keep their order, but
//! for what the back end does not take while it takes others.

mod decision;
mod judge;
mod remarks;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use magicapi_plugin::Delivery;
use tokio::time::Instant;

use self::decision::{Admission, Next, leaves_some};
use self::remarks::Remarks;
use crate::backoff::Backoff;
use crate::breaker::Gate;
use crate::guard::{Guarded, guarded};
use crate::lane::Lane;
use crate::queue::Item;
use crate::rate::Pace;
use crate::spool::{Fate, Origin, Spool};
use crate::stop::StopSignal;

/// What a probe may take beyond its timeout before it counts as gone.
const PROBE_SLACK: Duration = Duration::from_secs(5);
/// How long an exporter may think about why its back end takes no records.
const WHY: Duration = Duration::from_secs(1);

/// Delivers batches of one exporter, one after the other. Clones deliver beside each other, under one breaker and at
/// one pace.
#[derive(Clone)]
pub(crate) struct Deliverer {
    lane: Arc<Lane>,
    stop: StopSignal,
    backoff: Backoff,
    pace: Arc<Pace>,
    remarks: Arc<Mutex<Remarks>>,
    /// The try that the order to end calls for has been made.
    tried_last: bool,
    /// The batch under way was sent, and the back end took so many of it.
    tried: bool,
    took: usize,
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
        let remarks = Arc::default();
        let (tried_last, tried, took, cause) = (false, false, 0, None);
        Self { lane, stop, backoff, pace, remarks, tried_last, tried, took, cause }
    }

    /// Delivers a batch, or moves it to the spool when the breaker opens. `false` when the time to end came first: what
    /// is left is back where it came from.
    pub(crate) async fn deliver(&mut self, batch: Batch) -> bool {
        let Batch { origin, items } = batch;
        let all = items.len();
        (self.tried, self.took) = (false, 0);
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
            spool.finish(id, self.took > 0);
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
                if open && !diverts && self.put_last(&mut parcel) {
                    return true;
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

    /// The next probe is something else, in case nobody ever takes this. `false` when there is nothing else.
    fn put_last(&self, parcel: &mut Parcel) -> bool {
        // What has become of it so far is known here alone.
        if parcel.stripped || parcel.panics > 0 {
            return false;
        }
        match (parcel.origin, &self.lane.spool) {
            (None, _) => match self.lane.queue.put_last(std::mem::take(&mut parcel.items)) {
                Ok(()) => return true,
                Err(items) => parcel.items = items,
            },
            (Some(Origin::Handover), Some(spool)) => {
                let fate = Fate { whole: false, tried: true, sent: self.took };
                spool.give_back(Origin::Handover, std::mem::take(&mut parcel.items), fate);
                return true;
            }
            _ => {}
        }
        false
    }

    /// Waits until the breaker, the pace and the back end's own delay let a parcel pass. The order to end calls for one more
    /// try, which neither breaker nor delay holds up.
    async fn admit(&mut self, parcel: &Parcel) -> Admission {
        let mut paid = false;
        loop {
            let last = self.stop.order().is_some() && !self.tried_last;
            if let Some(until) = self.lane.breaker.holds_until().filter(|_| !last) {
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
            let owed = if std::mem::replace(&mut paid, true) {
                Duration::ZERO
            } else {
                self.pace.take(parcel.items.iter().map(Item::encoded).sum())
            };
            let held = self.pace.held();
            let delay = if last { owed } else { owed.max(held) };
            if !delay.is_zero() {
                if !self.stop.pause(delay).await {
                    return Admission::TooLate;
                }
            } else if last && (!held.is_zero() || self.lane.breaker.holds_until().is_some()) {
                self.tried_last = true;
                return Admission::Send;
            } else if self.lane.breaker.admit(self.lane.pipeline.timeout + PROBE_SLACK) == Gate::Pass {
                // That was the last question: whoever asks it has the turn.
                return Admission::Send;
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
                let fate = Fate { whole: rest.len() == all, tried: self.tried, sent: self.took };
                spool.give_back(origin, rest, fate);
            }
            _ => self.lane.queue.put_back(rest),
        }
    }

    async fn send(&mut self, parcel: &Parcel) -> Guarded<Delivery> {
        let records: Vec<_> = parcel.items.iter().map(|item| item.record.clone()).collect();
        let exporter = self.lane.exporter.clone();
        let timeout = self.lane.pipeline.timeout;
        let answer = guarded(async { exporter.export(&records).await }, timeout, &mut self.stop).await;
        (self.cause, self.tried) = (None, true);
        if let Guarded::Done(delivery) = &answer
            && leaves_some(delivery)
            && let Guarded::Done(health) =
                guarded(async { exporter.health().await }, WHY, &mut self.stop).await
        {
            self.cause = health.reason().map(str::to_owned);
        }
        answer
    }
}

#[cfg(test)]
mod tests;

//! The assembly threads: from what a tap gathered to sealed records in the queues of the exporters that want them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use magicapi_plugin::{ContentDropped, ContentLevel, Facts, RequestMetrics, Secret, TelemetryConfig};

use crate::body::{self, Bodies};
use crate::conversation;
use crate::core::{Core, Plan};
use crate::journal::Kept;
use crate::lane::Lane;
use crate::memory::Reservation;
use crate::metrics::{DropReason, Event};
use crate::queue::Item;
use crate::redact::Content;
use crate::selection::Selected;
use crate::tap::{Capture, Finished, Pending, RECORD_BYTES};

/// Sealed records that wait for their append, in bytes: what is appended together is lost together, and late.
const APPEND: usize = 4 << 20;

/// Assembles until the intake is closed and empty.
pub(crate) fn run(core: &Core) {
    let mut batch = Vec::new();
    while core.intake().take(&mut batch) {
        let plan = core.plan();
        let (mut accepted, mut bytes) = (Vec::new(), 0);
        for pending in batch.drain(..) {
            let assembled = catch_unwind(AssertUnwindSafe(|| {
                let sealed = assemble(core, &plan, *pending)?;
                if core.journal().is_some() {
                    return Some(sealed);
                }
                sealed.hand_out();
                None
            }));
            match assembled {
                Ok(sealed) => {
                    bytes += sealed.as_ref().map_or(0, |sealed| sealed.share.bytes());
                    accepted.extend(sealed);
                }
                Err(_) => core.metrics.record_dropped(DropReason::Panic),
            }
            if bytes > APPEND {
                hand_out_durably(core, std::mem::take(&mut accepted));
                bytes = 0;
            }
        }
        hand_out_durably(core, accepted);
    }
}

/// Records stand in the journal before any exporter gets them.
fn hand_out_durably(core: &Core, sealed: Vec<Sealed<'_>>) {
    if let Some(journal) = core.journal() {
        let kept: Vec<_> = sealed.iter().filter_map(Sealed::kept).collect();
        journal.append(&kept);
    }
    for one in sealed {
        if catch_unwind(AssertUnwindSafe(|| one.hand_out())).is_err() {
            core.metrics.record_dropped(DropReason::Panic);
        }
    }
}

fn assemble<'a>(core: &Core, plan: &'a Plan, mut pending: Pending) -> Option<Sealed<'a>> {
    let caller_key = pending.end.caller_key.take();
    core.observe(&pending.end.facts, caller_key.as_ref());
    let takers = takers(plan, &pending.end.facts);
    let most = takers.iter().map(|taker| taker.form.level).max()?;
    let level = most.min(pending.capture.limits.bodies);
    let (bodies, mut facts, mut share) = open(core, pending, level, body::read);
    let Content { request, response, streamed_data, .. } =
        redact(core, plan, caller_key.as_ref(), bodies, &mut facts);
    let record = RequestMetrics::seal(facts, core.config.clone(), request, response, streamed_data);
    let record = Arc::new(with_what_was_said(record, &takers));
    let forms = forms(&takers);
    let mut records: Vec<_> = forms.iter().map(|form| form.of(&record, level, &core.config)).collect();
    let has_bodies = records.iter().any(|record| record.request().is_some() || record.response().is_some());
    if has_bodies && !fit(&mut share, &records) {
        let reason = ContentDropped::Memory;
        core.metrics.content_dropped(reason);
        records = records.iter().map(|record| Arc::new(record.without_content(reason))).collect();
        share.shrink_to(RECORD_BYTES);
    }
    if let Some(journal) = core.journal().filter(|_| share.kept().is_none()) {
        share.keep(journal.keep(record.id()));
    }
    Some(Sealed::new(takers, forms, records, share))
}

/// A record in all its forms, and the lanes that want it.
pub(crate) struct Sealed<'a> {
    takers: Vec<Taker<'a>>,
    /// The fullest first.
    forms: Vec<Form>,
    records: Vec<Arc<RequestMetrics>>,
    share: Arc<Reservation>,
}

impl<'a> Sealed<'a> {
    fn new(
        takers: Vec<Taker<'a>>,
        forms: Vec<Form>,
        records: Vec<Arc<RequestMetrics>>,
        share: Reservation,
    ) -> Self {
        if let Some(kept) = share.kept() {
            kept.name_forms(&records);
        }
        Self { takers, forms, records, share: Arc::new(share) }
    }

    /// A record that was sealed by an earlier process.
    pub(crate) fn again(
        takers: Vec<Taker<'a>>,
        record: RequestMetrics,
        share: Reservation,
        resource: &Arc<TelemetryConfig>,
    ) -> Self {
        let forms = forms(&takers);
        let record = Arc::new(with_what_was_said(record, &takers));
        let records = forms.iter().map(|form| form.of(&record, ContentLevel::Full, resource)).collect();
        Self::new(takers, forms, records, share)
    }

    /// Its place in the journal, and what stands there: the fullest form, from which every other can be made.
    fn kept(&self) -> Option<(&Kept, &RequestMetrics)> {
        Some((self.share.kept()?, self.records.first()?.as_ref()))
    }

    /// Puts it into the queues.
    pub(crate) fn hand_out(self) {
        for (record, form) in self.records.into_iter().zip(&self.forms) {
            let item = Item::new(record, self.share.clone());
            for taker in self.takers.iter().filter(|taker| taker.form == *form) {
                taker.lane.push(item.clone());
            }
        }
    }
}

/// A lane that gets this record, and in which form.
pub(crate) struct Taker<'a> {
    lane: &'a Arc<Lane>,
    form: Form,
}

impl Taker<'_> {
    /// The exporter's.
    pub(crate) fn name(&self) -> &str {
        &self.lane.name
    }

    /// Whether its queue is more than half full.
    pub(crate) fn is_pressed(&self) -> bool {
        self.lane.queue.depth().bytes > self.lane.queue.capacity() / 2
    }

    /// Whether what its queue has no room for goes to the disk.
    pub(crate) fn spools(&self) -> bool {
        self.lane.spool.as_ref().is_some_and(|spool| spool.works())
    }
}

/// What a record is sealed as; lanes with the same form share one.
#[derive(Clone, Copy, PartialEq)]
struct Form {
    level: ContentLevel,
    sample_rate: f64,
}

/// Filter and sample each lane's share. Decided on facts alone, before bodies are read.
pub(crate) fn takers<'a>(plan: &'a Plan, facts: &Facts) -> Vec<Taker<'a>> {
    let mut takers = Vec::new();
    for (level, lanes) in &plan.levels {
        for lane in lanes {
            match lane.pipeline.select(facts) {
                Selected::Kept { sample_rate } => {
                    takers.push(Taker { lane, form: Form { level: *level, sample_rate } });
                }
                Selected::Filtered => lane.count(Event::Filtered, 1),
                Selected::SampledOut => lane.count(Event::SampledOut, 1),
            }
        }
    }
    takers
}

/// The forms in use, the fullest first.
fn forms(takers: &[Taker<'_>]) -> Vec<Form> {
    let mut forms: Vec<Form> = Vec::new();
    for taker in takers {
        if !forms.contains(&taker.form) {
            forms.push(taker.form);
        }
    }
    forms
}

impl Form {
    /// The record in this form, of one that holds this much; the very record when it is in this form already.
    #[expect(clippy::float_cmp, reason = "one rate is written into both, none is computed")]
    fn of(
        self,
        record: &Arc<RequestMetrics>,
        level: ContentLevel,
        resource: &Arc<TelemetryConfig>,
    ) -> Arc<RequestMetrics> {
        if self.level >= level && self.sample_rate == record.facts().sample_rate {
            return record.clone();
        }
        let less = record.with_content(level.min(self.level));
        let mut facts = less.facts().clone();
        facts.sample_rate = self.sample_rate;
        let [request, response, streamed_data] =
            [less.request(), less.response(), less.streamed_data()].map(Option::<&_>::cloned);
        let sealed = RequestMetrics::seal(facts, resource.clone(), request, response, streamed_data);
        Arc::new(sealed.with_conversation(less.shared_conversation()))
    }
}

/// The record with its conversation, when a taker needs it.
fn with_what_was_said(record: RequestMetrics, takers: &[Taker<'_>]) -> RequestMetrics {
    if !takers.iter().any(|taker| taker.lane.needs_conversation()) {
        return record;
    }
    conversation::complete(record)
}

/// Turns the captured bytes into documents. A body that makes this panic costs the record its bodies.
fn open(
    core: &Core,
    pending: Pending,
    level: ContentLevel,
    read: fn(&mut Capture, &Finished, ContentLevel) -> Bodies,
) -> (Bodies, Facts, Reservation) {
    let Pending { mut capture, end } = pending;
    let bodies = catch_unwind(AssertUnwindSafe(|| read(&mut capture, &end, level)));
    let Capture { share, starved, .. } = *capture;
    let mut facts = end.facts;
    let lost = match (&bodies, level) {
        (Err(_), _) => Some(ContentDropped::Panic),
        (Ok(_), ContentLevel::Metadata) => Some(ContentDropped::Config),
        (Ok(_), _) => starved.then_some(ContentDropped::Memory),
    };
    if let Some(reason) = lost.filter(|reason| *reason != ContentDropped::Config) {
        core.metrics.content_dropped(reason);
    }
    facts.content_dropped = lost.or(facts.content_dropped);
    (bodies.unwrap_or_default(), facts, share)
}

/// Takes out of the record what must not be in it: here, once, for every exporter and form.
fn redact(
    core: &Core,
    plan: &Plan,
    caller_key: Option<&Secret>,
    bodies: Bodies,
    facts: &mut Facts,
) -> Content {
    let Bodies { request, response, streamed_data, truncated, described } = bodies;
    facts.truncated = truncated;
    let mut content = Content { request, response, streamed_data, described };
    let outcome = plan.redact(caller_key, &mut content, facts);
    core.metrics.redacted(&outcome.found);
    if outcome.failed {
        core.metrics.content_dropped(ContentDropped::Redaction);
    }
    content
}

/// Makes the reservation what the records will hold: bodies once, an encoding for each of them.
fn fit(share: &mut Reservation, records: &[Arc<RequestMetrics>]) -> bool {
    let encodings = records.iter().skip(1).map(|record| record.memory() / 2 + RECORD_BYTES);
    let needed = records.first().map_or(0, |record| record.memory()) + encodings.sum::<usize>();
    let held = share.bytes();
    if needed <= held {
        share.shrink_to(needed);
        return true;
    }
    share.grow_for_content(needed - held)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use magicapi_plugin::{ContentDropped, ContentLevel, RequestMetrics, TelemetryConfig};

    use super::{Form, open, redact};
    use crate::body::Bodies;
    use crate::core::Core;
    use crate::redact::Content;
    use crate::scripted::facts;
    use crate::settings::CaptureSettings;
    use crate::tap::{Finished, Pending, Tap};

    #[test]
    fn a_body_that_makes_assembly_panic_costs_the_bodies_alone() {
        let limits = CaptureSettings::default();
        let core = Core::new(TelemetryConfig::default(), limits, std::sync::Arc::default(), None);
        let mut tap = Tap::new(&core, limits);
        tap.request_chunk(b"{}");
        let pending = Pending { capture: tap.into_capture(), end: Finished::new(facts()) };
        let (bodies, facts, share) = open(&core, pending, ContentLevel::Full, |_, _, _| panic!("scripted"));
        assert!(bodies.request.is_none());
        assert_eq!(facts.content_dropped, Some(ContentDropped::Panic));
        drop(share);
        assert_eq!(core.budget().used(), 0);
    }

    #[test]
    fn a_form_that_changes_nothing_is_the_record_itself() {
        use ContentLevel::{Full, Metadata, NoChunks};
        let core = Core::new(TelemetryConfig::default(), CaptureSettings::default(), Arc::default(), None);
        let body = |text: &'static str| Some(bytes::Bytes::from_static(text.as_bytes()));
        let full = RequestMetrics::seal(facts(), core.config.clone(), body("{}"), body("{}"), body("[1]"));
        let bare = RequestMetrics::seal(facts(), core.config.clone(), None, None, None);
        let (full, bare) = (Arc::new(full), Arc::new(bare));
        for (record, holds, level, sample_rate, same) in [
            (&full, Full, Full, 1.0, true),
            (&full, Full, Full, 0.5, false),
            (&full, Full, NoChunks, 1.0, false),
            (&full, Full, Metadata, 1.0, false),
            // An exporter may want more than what was captured.
            (&bare, Metadata, Full, 1.0, true),
        ] {
            let made = Form { level, sample_rate }.of(record, holds, &core.config);
            assert_eq!(Arc::ptr_eq(&made, record), same, "{level:?} of {holds:?}, {sample_rate}");
            assert_eq!(made.streamed_data().is_some(), level == Full && holds == Full);
            assert!((made.facts().sample_rate - sample_rate).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn without_redaction_there_is_no_content_and_that_is_counted() {
        let core = Core::new(TelemetryConfig::default(), CaptureSettings::default(), Arc::default(), None);
        let mut facts = facts();
        (facts.user_id, facts.error_message) = (Some("jane".into()), Some("no".into()));
        let bodies = Bodies { request: Some("{}".into()), response: Some("{}".into()), ..Bodies::default() };
        let content = redact(&core, &core.plan(), None, bodies, &mut facts);
        assert_eq!(content, Content::default());
        assert_eq!(facts.content_dropped, Some(ContentDropped::Redaction));
        assert_eq!((facts.user_id.as_deref(), facts.error_message), (Some("[REDACTED]"), None));
        assert_eq!((facts.status_code, facts.operation), (200, "chat"), "what is no text stays");
        let snapshot = core.snapshot();
        let metric = snapshot.metrics.iter().find(|metric| metric.name == "gateway_records_without_bodies");
        let points = &metric.expect("the metric").points;
        assert_eq!(points[0].labels, [("reason", "redaction".to_owned())]);
    }
}

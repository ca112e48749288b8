use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use magicapi_plugin::{ContentDropped, ContentLevel, Health, RequestMetrics, TelemetryConfig};
use proptest::prelude::*;
use tokio::runtime::Builder;
use tokio::time::Instant;

use super::{Batch, Deliverer};
use crate::core::Core;
use crate::lane::{ExporterState, ExporterStatus, Lane};
use crate::memory::Reservation;
use crate::queue::Item;
use crate::scripted::{Answer, Script, facts, redactor};
use crate::settings::{CaptureSettings, PipelineSettings};
use crate::stop::{Stop, StopSender, StopSignal};

struct Bench {
    core: Arc<Core>,
    lane: Arc<Lane>,
    deliverer: Deliverer,
    stop: StopSender,
}

fn bench(script: &Arc<Script>, pipeline: PipelineSettings) -> Bench {
    let core = Core::new(TelemetryConfig::default(), CaptureSettings::default(), Arc::default(), None);
    let lane = Arc::new(Lane::new(script.setup("x", pipeline), Some(redactor()), &core));
    let (stop, signal) = StopSignal::new();
    Bench { deliverer: Deliverer::new(lane.clone(), signal), core, lane, stop }
}

impl Bench {
    fn push(&self, records: usize) {
        for _ in 0..records {
            let body = Some("{\"prompt\":\"x\"}".into());
            let record = RequestMetrics::seal(facts(), self.core.config.clone(), body, None, None);
            let mut share = Reservation::empty(self.core.budget());
            assert!(share.grow_for_content(record.memory()));
            self.lane.push(Item::new(Arc::new(record), Arc::new(share)));
        }
    }

    /// Delivers everything; the clock is paused, so waiting costs nothing.
    async fn drain(&mut self) {
        loop {
            let batch = self.lane.queue.take();
            if batch.is_empty() || !self.deliverer.deliver(Batch { origin: None, items: batch }).await {
                return;
            }
        }
    }

    fn balanced(&self, script: &Script) -> ExporterStatus {
        let status = self.lane.status();
        let settled = status.sent + status.rejected + status.dropped;
        assert_eq!(status.received, settled + status.queue_records as u64, "{status:?}");
        assert_eq!(status.sent as usize, script.acknowledged(), "{status:?}");
        let held = script.acknowledged.lock().unwrap();
        assert!(held.values().all(|times| *times == 1), "an acknowledged record was sent again");
        status
    }
}

fn run(script: &Arc<Script>, records: usize, pipeline: PipelineSettings) -> ExporterStatus {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
        let mut bench = bench(script, pipeline);
        bench.push(records);
        bench.drain().await;
        script.seen.lock().unwrap().clear();
        assert_eq!(bench.core.budget().used(), 0, "memory comes back");
        bench.balanced(script)
    })
}

fn status_of(answers: Vec<Answer>, records: usize) -> (ExporterStatus, Arc<Script>) {
    let script = Script::new(answers);
    (run(&script, records, PipelineSettings::default()), script)
}

#[test]
fn only_what_may_be_sent_again_is() {
    let (status, script) = status_of(vec![Answer::Items(0)], 6);
    assert_eq!((status.sent, status.rejected, status.retried), (4, 2, 2));
    assert_eq!(*script.batches.lock().unwrap(), [6, 2]);
    assert_eq!(status.last_error.as_deref(), Some("bad"));
}

#[test]
fn a_batch_that_is_too_large_is_halved_in_order() {
    let (status, script) = status_of(vec![Answer::TooLarge, Answer::TooLarge, Answer::Delivered], 8);
    assert_eq!((status.sent, status.retried), (8, 0));
    assert_eq!(*script.batches.lock().unwrap(), [8, 4, 2, 2, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_too_large_loses_its_bodies_then_itself() {
    let script = Script::new([Answer::TooLarge, Answer::Delivered, Answer::TooLarge, Answer::TooLarge]);
    let mut bench = bench(&script, PipelineSettings::default());
    bench.push(1);
    bench.drain().await;
    let stripped = script.seen.lock().unwrap()[1].clone();
    assert!(stripped.request().is_none());
    assert_eq!(stripped.facts().content_dropped, Some(ContentDropped::TooLarge));
    bench.push(1);
    bench.drain().await;
    let status = bench.balanced(&script);
    assert_eq!((status.sent, status.rejected), (1, 1));
}

#[test]
fn no_answer_is_counted_as_ambiguous_and_sent_again() {
    let answers = vec![Answer::Unknown, Answer::Hang, Answer::TooFewItems, Answer::Panic];
    let (status, script) = status_of(answers, 3);
    assert_eq!((status.sent, status.ambiguous), (3, 12));
    assert_eq!(*script.batches.lock().unwrap(), [3; 5]);
}

#[test]
fn of_a_batch_only_what_has_no_answer_is_ambiguous_and_sent_again() {
    let (status, script) = status_of(vec![Answer::HalfUnanswered, Answer::HalfUnanswered], 6);
    assert_eq!((status.sent, status.ambiguous, status.retried), (6, 5, 5));
    assert_eq!(*script.batches.lock().unwrap(), [6, 3, 2]);
}

#[test]
fn of_an_export_that_was_cut_off_what_the_exporter_knows_counts() {
    let (status, script) = status_of(vec![Answer::HangKnowing, Answer::HangKnowing], 6);
    assert_eq!((status.sent, status.ambiguous, status.retried), (6, 4 + 3, 5 + 4));
    assert_eq!(*script.batches.lock().unwrap(), [6, 5, 4]);
    assert_eq!(status.last_error.as_deref(), Some("the export did not end in time"));
}

#[test]
fn a_record_that_makes_the_exporter_panic_is_found_and_rejected() {
    // The batch three times, then its first half three times; the halves of one record get through.
    let (status, _) = status_of(vec![Answer::Panic; 6], 2);
    assert_eq!((status.sent, status.rejected), (1, 1));
    assert_eq!(status.ambiguous, 3 * 2 + 2, "each that was sent again");
}

#[tokio::test(start_paused = true)]
async fn the_back_ends_delay_is_honoured_and_old_records_expire() {
    let script = Script::new([Answer::Retry(Some(Duration::from_mins(2)))]);
    let mut ours = bench(&script, PipelineSettings::default());
    ours.push(1);
    let begun = Instant::now();
    ours.drain().await;
    assert_eq!(begun.elapsed(), Duration::from_mins(2));
    ours.balanced(&script);

    let script = Script::always(Answer::Retry(None));
    let pipeline = PipelineSettings { retry_max_age: Duration::from_mins(10), ..PipelineSettings::default() };
    let mut ours = bench(&script, pipeline);
    ours.push(2);
    ours.drain().await;
    assert_eq!(ours.balanced(&script).dropped, 2);
    assert!(begun.elapsed() < Duration::from_mins(15));
}

#[tokio::test(start_paused = true)]
async fn what_the_exporter_puts_off_for_too_long_is_rejected_not_dropped() {
    let script = Script::always(Answer::Items(1));
    let pipeline = PipelineSettings { retry_max_age: Duration::from_mins(10), ..PipelineSettings::default() };
    let mut bench = bench(&script, pipeline);
    bench.push(1);
    bench.drain().await;
    let status = bench.balanced(&script);
    assert_eq!((status.rejected, status.dropped), (1, 0));
    assert_eq!(status.last_error.as_deref(), Some("the exporter put it off until it was older than 600s"));
    assert!(bench.lane.put_off.is_empty(), "it is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_nobody_takes_does_not_keep_the_others_waiting() {
    let pipeline = PipelineSettings { batch_records: 1, ..PipelineSettings::default() };
    let failures = pipeline.breaker_failures as usize;
    let script = Script::new(vec![Answer::Retry(None); failures]);
    let mut bench = bench(&script, pipeline);
    bench.push(2);
    bench.drain().await;
    let seen: Vec<_> = script.seen.lock().unwrap().iter().map(|record| record.id()).collect();
    let first = seen[0];
    assert!(seen[..failures].iter().all(|id| *id == first), "tried until the breaker opens: {seen:?}");
    assert!(seen[failures] != first && seen.last() == Some(&first), "{seen:?}");
    assert_eq!(bench.balanced(&script).sent, 2);
}

#[tokio::test(start_paused = true)]
async fn a_delay_for_the_rest_of_a_batch_holds_for_every_batch() {
    const ASKED: Duration = Duration::from_mins(2);
    let script = Script::new([Answer::HalfLater(ASKED)]);
    let pipeline = PipelineSettings { batch_records: 4, ..PipelineSettings::default() };
    let mut ours = bench(&script, pipeline);
    ours.push(5);
    let (first, second) = (ours.lane.queue.take(), ours.lane.queue.take());
    let mut beside = ours.deliverer.clone();
    let begun = Instant::now();
    tokio::join!(
        async { assert!(ours.deliverer.deliver(Batch { origin: None, items: first }).await) },
        async { assert!(beside.deliver(Batch { origin: None, items: second }).await) },
    );
    assert_eq!(begun.elapsed(), ASKED);
    let mut batches = script.batches.lock().unwrap().clone();
    batches[1..].sort_unstable();
    assert_eq!(batches, [4, 1, 2]);
    ours.balanced(&script);
}

#[tokio::test(start_paused = true)]
async fn a_retry_shows_what_the_exporter_says_of_its_back_end() {
    for (answer, what) in [
        (Answer::Retry(None), "the back end cannot take records now: no route to host"),
        (Answer::Unknown, "sent, but no answer came: no route to host"),
        (Answer::NoneThere, "sent, but no answer came: no route to host"),
    ] {
        let script = Script::new([answer]);
        *script.health.lock().unwrap() = Some(Health::Down("no route to host".into()));
        let mut bench = bench(&script, PipelineSettings::default());
        bench.push(2);
        bench.drain().await;
        assert_eq!(bench.lane.status().last_error.as_deref(), Some(what));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_keeps_everything_and_recovers() {
    let script = Script::new([Answer::Refused, Answer::Refused]);
    let mut bench = bench(&script, PipelineSettings::default());
    bench.push(2);
    let batch = bench.lane.queue.take();
    let lane = bench.lane.clone();
    let ((), _) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_secs(31)).await;
            let status = lane.status();
            assert_eq!((status.state, status.queue_records), (ExporterState::Refused, 2));
            assert_eq!(status.last_error.as_deref(), Some("wrong key"));
        },
        bench.deliverer.deliver(Batch { origin: None, items: batch }),
    );
    let status = bench.balanced(&script);
    assert_eq!((status.state, status.sent, status.rejected), (ExporterState::Running, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_order_to_end_puts_the_rest_back_at_its_deadline() {
    let script = Script::always(Answer::Hang);
    let mut bench = bench(&script, PipelineSettings::default());
    bench.push(3);
    let drain_until = Instant::now() + Duration::from_secs(5);
    bench.stop.send_replace(Some(Stop { drain_until, end_by: drain_until }));
    bench.drain().await;
    assert_eq!(Instant::now(), drain_until);
    assert_eq!(bench.lane.queue.depth().records, 3);
    assert_eq!(bench.lane.status().ambiguous, 3, "they were under way");
    bench.lane.save_rest();
    bench.lane.save_rest();
    assert_eq!(bench.balanced(&script).dropped, 3);
}

/// The back end asked for more time than there is: it is tried once more all the same.
#[tokio::test(start_paused = true)]
async fn an_order_to_end_calls_for_one_more_try_whatever_the_back_end_asked_for() {
    let script = Script::new([Answer::Retry(Some(Duration::from_mins(1)))]);
    let mut bench = bench(&script, PipelineSettings::default());
    bench.push(3);
    let (stop, began) = (bench.stop.clone(), Instant::now());
    let order = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let drain_until = Instant::now() + Duration::from_secs(5);
        stop.send_replace(Some(Stop { drain_until, end_by: drain_until }));
    };
    tokio::join!(order, bench.drain());
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert_eq!(bench.balanced(&script).sent, 3);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_is_known_to_be_there_is_not_put_back() {
    let script = Script::always(Answer::HangKnowing);
    let mut bench = bench(&script, PipelineSettings::default());
    bench.push(3);
    let drain_until = Instant::now() + Duration::from_secs(5);
    bench.stop.send_replace(Some(Stop { drain_until, end_by: drain_until }));
    bench.drain().await;
    let status = bench.balanced(&script);
    assert_eq!((status.sent, status.ambiguous, status.queue_records), (1, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_the_oldest_and_counts() {
    let script = Script::new([]);
    let pipeline = PipelineSettings { buffer_memory: 5 * 2100, ..PipelineSettings::default() };
    let mut bench = bench(&script, pipeline);
    bench.push(12);
    assert!(bench.lane.queue.depth().bytes <= 5 * 2100);
    bench.drain().await;
    let status = bench.balanced(&script);
    assert_eq!((status.sent, status.dropped), (5, 7));
    assert_eq!(script.ended.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_larger_than_the_queue_loses_its_bodies() {
    let script = Script::new([]);
    let pipeline = PipelineSettings { buffer_memory: 3000, ..PipelineSettings::default() };
    let mut bench = bench(&script, pipeline);
    let body = Some(format!("\"{}\"", "x".repeat(2000)).into());
    let record = RequestMetrics::seal(facts(), bench.core.config.clone(), body, None, None);
    bench.lane.push(Item::new(Arc::new(record), Arc::new(Reservation::empty(bench.core.budget()))));
    bench.drain().await;
    assert_eq!(bench.balanced(&script).sent, 1);
    assert_eq!(script.seen.lock().unwrap()[0].facts().content_dropped, Some(ContentDropped::Memory));
}

#[test]
fn a_changed_exporter_gets_no_more_content_than_it_may() {
    let script = Script::new([]);
    let old = bench(&script, PipelineSettings::default());
    let pipeline = PipelineSettings { content: ContentLevel::Metadata, ..PipelineSettings::default() };
    let new = bench(&script, pipeline);
    old.push(1);
    old.lane.hand_to(new.lane.clone());
    new.lane.take_over(&old.lane);
    old.push(1);
    let taken = new.lane.queue.take();
    assert_eq!(taken.len(), 2, "what comes late is passed on");
    assert!(taken.iter().all(|item| item.record.request().is_none()), "and has no more either");
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        3 => Just(Answer::Delivered),
        4 => (0usize..3).prop_map(Answer::Items),
        1 => Just(Answer::HalfUnanswered),
        1 => (0u64..90).prop_map(|seconds| Answer::HalfLater(Duration::from_secs(seconds))),
        1 => Just(Answer::TooFewItems),
        2 => Just(Answer::Retry(None)),
        2 => Just(Answer::TooLarge),
        1 => Just(Answer::Refused),
        2 => Just(Answer::Unknown),
        2 => Just(Answer::Panic),
        1 => Just(Answer::Hang),
        1 => Just(Answer::HangKnowing),
    ]
}

proptest! {
    #[test]
    fn received_is_delivered_rejected_or_dropped(
        answers in prop::collection::vec(answer(), 0..40),
        records in 0usize..40,
        batch_records in 1usize..20,
        room in 1usize..60,
        max_age in 1u64..600,
    ) {
        let script = Script::new(answers.into_iter().collect::<VecDeque<_>>());
        let pipeline = PipelineSettings {
            batch_records,
            buffer_memory: room * 2100,
            retry_max_age: Duration::from_secs(max_age),
            ..PipelineSettings::default()
        };
        let status = run(&script, records, pipeline);
        prop_assert_eq!(status.received, records as u64);
        prop_assert_eq!(status.queue_records, 0);
    }
}

//! How records leave a spool that nobody takes: files that are gone, and files whose time is over.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use magicapi_plugin::{RequestMetrics, TelemetryConfig};
use magicapi_spool::Batches;
use tempfile::TempDir;

use super::{balanced, dropped, eventually, files, only, send, small, start};
use crate::core::Core;
use crate::lane::Lane;
use crate::memory::Reservation;
use crate::metrics::Event;
use crate::queue::Item;
use crate::scripted::{Answer, Script, facts, redactor};
use crate::settings::{CaptureSettings, PipelineSettings};
use crate::spool::{Fate, Spool, Spooler};
use crate::tally::Tally;

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn a_file_that_somebody_removed_keeps_no_other_away() {
    let root = TempDir::new().expect("a directory");
    let script = Script::always(Answer::Refused);
    let pipeline = PipelineSettings { breaker_refused: Duration::from_millis(50), ..small() };
    let telemetry = start(root.path(), vec![script.setup("x", pipeline)]);
    send(&telemetry, 40);
    eventually("all is on disk", || {
        let status = only(&telemetry);
        status.spooled >= 40 && status.spool_records == 40
    });
    let oldest = files(&root.path().join("x")).into_iter().min().expect("a file");
    // The worker may have read it just now.
    std::fs::remove_file(oldest).expect("a file");
    *script.then.lock().unwrap() = None;
    eventually("the rest", || {
        let status = only(&telemetry);
        status.sent + dropped(&status, "corrupt") == 40 && status.spool_records == 0
    });
    let status = only(&telemetry);
    assert!(status.sent >= 36 && status.spool_error.is_none(), "{status:?}");
    telemetry.shutdown(super::SOON);
    balanced(&only(&telemetry));
}

/// An exporter without a worker, with records on disk that are two hours old.
fn left(root: &TempDir, pipeline: PipelineSettings) -> (Arc<Core>, Arc<Lane>, Vec<Item>) {
    let spooler = Spooler::start(root.path().to_owned()).expect("a thread");
    let core =
        Core::new(TelemetryConfig::default(), CaptureSettings::default(), Arc::default(), Some(spooler));
    let record = |_| Arc::new(RequestMetrics::seal(facts(), core.config.clone(), None, None, None));
    let records: Vec<_> = (0..4).map(record).collect();
    let stored: Vec<_> = records.iter().map(|record| record.to_stored()).collect();
    let mut on_disk = Batches::open(&root.path().join("x"), 1 << 20).expect("a directory");
    on_disk.put(&stored, SystemTime::now() - 2 * HOUR).expect("room");
    let lane = Arc::new(Lane::new(Script::new([]).setup("x", pipeline), Some(redactor()), &core));
    let item = |record: Arc<RequestMetrics>| {
        let share = Reservation::forced(core.budget(), record.memory());
        Item::new(record, Arc::new(share))
    };
    let items = records.into_iter().map(item).collect();
    (core, lane, items)
}

#[test]
fn what_the_exporter_put_off_becomes_a_dead_letter_on_disk_too() {
    let root = TempDir::new().expect("a directory");
    let pipeline = PipelineSettings { buffer_max_age: HOUR, ..small() };
    let (_core, lane, items) = left(&root, pipeline);
    lane.put_off.add(&items[1..3]);
    let spool = lane.spool.as_ref().expect("a spool");
    spool.open();
    // The spool's thread looks at ages, too.
    eventually("it is over", || {
        spool.expire();
        lane.status().dead_letters == 2
    });
    let status = lane.status();
    assert_eq!((status.rejected, dropped(&status, "expired"), status.spool_records), (2, 2, 0));
    assert!(lane.put_off.is_empty());
    balanced(&status);
}

#[test]
fn what_the_worker_takes_from_memory_says_nothing_of_what_is_being_written() {
    let root = TempDir::new().expect("a directory");
    let (core, _lane, items) = left(&root, small());
    let spool = Spool::new(
        &root.path().join("other"),
        &Tally::new("other", &core.metrics),
        &PipelineSettings { batch_records: 2, ..small() },
        Arc::default(),
    );
    let spool = Arc::new(spool);
    assert!(spool.offer(items, Some(0)).is_ok());
    assert_eq!((spool.take_handover(true).len(), spool.take_handover(false).len()), (2, 2));
    assert!(spool.is_writing());
}

/// What was settled comes back with the file, and is sent again.
#[test]
fn a_file_that_cannot_be_written_anew_is_counted_as_sent_twice() {
    let root = TempDir::new().expect("a directory");
    let (core, lane, _) = left(&root, small());
    let spool = lane.spool.as_ref().expect("a spool");
    spool.open();
    let (origin, mut items) = spool.take(core.budget(), &|record| record).expect("a batch");
    spool.settle(2);
    lane.count(Event::Sent, 1);
    lane.count(Event::Rejected, 1);
    std::fs::remove_dir_all(root.path().join("x")).expect("a directory");
    items.drain(..2);
    spool.give_back(origin, items, Fate { whole: false, tried: true, sent: 1 });
    let status = lane.status();
    assert_eq!((status.spool_records, status.sent, status.ambiguous), (4, 1, 1), "{status:?}");
    balanced(&status);
}

/// A whole batch comes when the breaker opens; it is no more here than it was in the queue.
#[test]
fn the_queue_lends_the_hand_over_the_room_that_it_has() {
    let root = TempDir::new().expect("a directory");
    let (core, _lane, _) = left(&root, small());
    let tally = Tally::new("other", &core.metrics);
    let pipeline = PipelineSettings { buffer_memory: 32 << 20, ..small() };
    let spool = Arc::new(Spool::new(&root.path().join("other"), &tally, &pipeline, Arc::default()));
    let large = || {
        let body = Some(format!("\"{}\"", "x".repeat(1 << 20)).into());
        let record = RequestMetrics::seal(facts(), core.config.clone(), body, None, None);
        let share = Reservation::forced(core.budget(), record.memory());
        Item::new(Arc::new(record), Arc::new(share))
    };
    let dropped = || tally.counted().dropped.iter().map(|(_, records)| records).sum::<u64>();
    // 10 of 2 MiB are more than its own 8 MiB.
    assert!(spool.offer((0..10).map(|_| large()).collect(), Some(20 << 20)).is_ok());
    assert_eq!(dropped(), 0);
    assert!(spool.offer(vec![large()], Some(0)).is_ok());
    assert_eq!(dropped(), 8, "the queue has filled up meanwhile");
}

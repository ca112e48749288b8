use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use magicapi_plugin::{Needs, Part, RequestMetrics};
use magicapi_spool::Batches;
use tempfile::TempDir;

use crate::lane::ExporterStatus;
use crate::scripted::{Answer, Script, facts};
use crate::settings::{CaptureSettings, ExporterSetup, PipelineSettings, TelemetrySettings, WhenFull};
use crate::tap::Finished;
use crate::telemetry::Telemetry;

const SOON: Duration = Duration::from_secs(20);

/// Room for five records in memory.
fn small() -> PipelineSettings {
    PipelineSettings {
        batch_age: Duration::from_millis(5),
        batch_records: 4,
        buffer_memory: 5 * 2100,
        ..PipelineSettings::default()
    }
}

fn start(root: &Path, exporters: Vec<ExporterSetup>) -> Telemetry {
    let settings = TelemetrySettings { spool_dir: Some(root.to_owned()), ..TelemetrySettings::default() };
    Telemetry::start(settings, Arc::default(), exporters).expect("threads")
}

fn send(telemetry: &Telemetry, requests: usize) {
    for _ in 0..requests {
        let mut tap = telemetry.tap();
        tap.request(Bytes::from_static(b"{}"));
        tap.finish(Finished::new(facts()));
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn only(telemetry: &Telemetry) -> ExporterStatus {
    telemetry.status().remove(0)
}

fn balanced(status: &ExporterStatus) {
    let settled = status.sent + status.rejected + status.dropped;
    let waiting = status.queue_records as u64 + status.spool_records;
    assert_eq!(status.received, settled + waiting, "{status:?}");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.extension().is_some_and(|ending| ending == "batch")).collect()
}

fn dropped(status: &ExporterStatus, reason: &str) -> u64 {
    status.dropped_by_reason.iter().find(|(name, _)| *name == reason).map_or(0, |(_, count)| *count)
}

/// Leaves so many records in the spool of `x`.
fn left_behind(root: &Path, records: usize) {
    let down = Script::always(Answer::Retry(None));
    let telemetry = start(root, vec![down.setup("x", small())]);
    send(&telemetry, records);
    telemetry.shutdown(Duration::from_millis(100));
    let status = only(&telemetry);
    assert_eq!((status.spool_records, status.dropped), (records as u64, 0), "{status:?}");
    balanced(&status);
}

#[test]
fn an_outage_longer_than_the_memory_loses_nothing_and_sends_nothing_twice() {
    let root = TempDir::new().expect("a directory");
    let script = Script::always(Answer::Retry(None));
    let telemetry = start(root.path(), vec![script.setup("x", small())]);
    send(&telemetry, 100);
    eventually("most is on disk", || only(&telemetry).spooled >= 90);
    *script.then.lock().unwrap() = None;
    send(&telemetry, 20);
    eventually("everything arrives", || script.acknowledged() == 120);
    eventually("nothing waits", || {
        let status = only(&telemetry);
        status.spool_bytes == 0 && status.spool_records == 0 && status.queue_records == 0
    });
    assert!(script.acknowledged.lock().unwrap().values().all(|times| *times == 1));
    telemetry.shutdown(SOON);
    balanced(&only(&telemetry));
    assert_eq!(only(&telemetry).dropped, 0);
    assert!(files(&root.path().join("x")).is_empty());
}

/// The file has the bodies alone; what was said is read out of them again.
#[test]
fn what_was_said_comes_back_from_the_disk() {
    let root = TempDir::new().expect("a directory");
    let needs = Needs::CONVERSATION;
    let with =
        |script: &Arc<Script>| ExporterSetup { needs, ..script.setup("x", PipelineSettings::default()) };
    let down = Script::always(Answer::Retry(None));
    let telemetry = start(root.path(), vec![with(&down)]);
    let mut tap = telemetry.tap();
    tap.request(Bytes::from_static(b"{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}"));
    tap.finish(Finished::new(facts()));
    telemetry.shutdown(Duration::from_millis(100));
    let up = Script::new([]);
    let telemetry = start(root.path(), vec![with(&up)]);
    eventually("it arrives", || up.acknowledged() == 1);
    let seen = up.seen.lock().unwrap().clone();
    let said = seen[0].conversation().expect("a conversation");
    assert_eq!(said.input[0].parts, [Part::Text("hello".into())]);
    telemetry.shutdown(SOON);
}

#[test]
fn a_thread_that_blocks_keeps_neither_overflow_nor_its_own_batch_from_the_disk() {
    let root = TempDir::new().expect("a directory");
    let blocked = Script::always(Answer::Block(Duration::from_secs(4)));
    let telemetry = start(root.path(), vec![blocked.setup("x", small())]);
    send(&telemetry, 60);
    eventually("the overflow is on disk", || only(&telemetry).spooled >= 50);
    telemetry.shutdown(Duration::from_millis(300));
    let status = only(&telemetry);
    balanced(&status);
    assert_eq!((status.dropped, status.spool_records + status.sent), (0, 60), "{status:?}");
    assert!(status.ambiguous >= 1, "what the thread holds may have arrived");
    let good = Script::new([]);
    let next = start(root.path(), vec![good.setup("x", small())]);
    eventually("delivered", || good.acknowledged() as u64 == status.spool_records);
    next.shutdown(SOON);
}

#[test]
fn what_an_earlier_process_left_is_delivered() {
    let root = TempDir::new().expect("a directory");
    left_behind(root.path(), 50);
    let good = Script::new([]);
    // Also when the spool is no longer wanted.
    let pipeline = PipelineSettings { when_full: WhenFull::DropOldest, ..small() };
    let telemetry = start(root.path(), vec![good.setup("x", pipeline)]);
    eventually("delivered", || good.acknowledged() == 50);
    telemetry.shutdown(SOON);
    let status = only(&telemetry);
    assert_eq!((status.received, status.sent), (50, 50));
    balanced(&status);
}

#[test]
fn a_corrupt_file_is_set_aside_and_counted_and_the_rest_is_delivered() {
    let root = TempDir::new().expect("a directory");
    left_behind(root.path(), 50);
    let dir = root.path().join("x");
    let victim = files(&dir).remove(0);
    let mut bytes = std::fs::read(&victim).expect("a file");
    *bytes.last_mut().expect("a byte") ^= 1;
    std::fs::write(&victim, bytes).expect("a file");
    let good = Script::new([]);
    let telemetry = start(root.path(), vec![good.setup("x", small())]);
    eventually("all but the file", || {
        let status = only(&telemetry);
        status.spool_records == 0 && status.sent + dropped(&status, "corrupt") == 50
    });
    let status = only(&telemetry);
    balanced(&status);
    assert!((1..=4).contains(&dropped(&status, "corrupt")), "{status:?}");
    assert_eq!(files(&dir.join("corrupt")).len(), 1);
    telemetry.shutdown(SOON);
}

#[test]
fn the_bound_costs_the_oldest_and_age_costs_what_is_old() {
    let root = TempDir::new().expect("a directory");
    let down = Script::always(Answer::Retry(None));
    let bounded = PipelineSettings { buffer_disk: 8 << 10, ..small() };
    let aged = PipelineSettings { buffer_max_age: Duration::from_millis(300), ..small() };
    let telemetry = start(root.path(), vec![down.setup("bounded", bounded), down.setup("aged", aged)]);
    let mut sent = 0;
    eventually("both dropped", || {
        send(&telemetry, 20);
        sent += 20;
        let [bounded, aged] = telemetry.status().try_into().expect("two");
        dropped(&bounded, "disk_full") > 0 && dropped(&aged, "expired") > 0
    });
    let status = only(&telemetry);
    assert!(status.spool_bytes <= 8 << 10, "{status:?}");
    assert!(status.spool_records > 0, "the newest stay: {status:?}");
    telemetry.shutdown(Duration::from_millis(100));
    telemetry.status().iter().for_each(balanced);
}

/// The thread is one for all spools.
#[test]
fn records_that_come_faster_than_the_disk_takes_them_keep_no_other_spool_waiting() {
    let root = TempDir::new().expect("a directory");
    let down = Script::always(Answer::Retry(None));
    let telemetry = start(root.path(), vec![down.setup("slow disk", small()), down.setup("beside", small())]);
    let spooled = |place: usize| telemetry.status()[place].spooled;
    eventually("the slow one is written", || {
        send(&telemetry, 20);
        spooled(0) > 0
    });
    let before = spooled(1);
    eventually("the other one is written too", || {
        send(&telemetry, 20);
        spooled(1) > before
    });
    telemetry.shutdown(Duration::from_millis(100));
}

#[test]
fn a_directory_that_cannot_be_written_costs_counted_records_and_recovers() {
    let root = TempDir::new().expect("a directory");
    // A file where the directory belongs: root is refused too.
    let dir = root.path().join("x");
    std::fs::write(&dir, b"").expect("a file");
    let script = Script::always(Answer::Retry(None));
    // One record in memory, many in a file: each file is synced.
    let pipeline =
        PipelineSettings { buffer_memory: 2100, batch_records: 200, batch_bytes: 1 << 20, ..small() };
    let telemetry = start(root.path(), vec![script.setup("x", pipeline)]);
    eventually("dropped", || {
        send(&telemetry, 400);
        dropped(&only(&telemetry), "disk_error") > 0
    });
    let status = only(&telemetry);
    assert!(status.spool_error.as_deref().is_some_and(|error| error.contains("/x")), "{status:?}");
    std::fs::remove_file(&dir).expect("a file");
    eventually("written again", || {
        send(&telemetry, 5);
        let status = only(&telemetry);
        status.spool_error.is_none() && status.spool_bytes > 0
    });
    *script.then.lock().unwrap() = None;
    eventually("everything else arrives", || {
        let status = only(&telemetry);
        status.queue_records == 0 && status.spool_records == 0
    });
    telemetry.shutdown(SOON);
    balanced(&only(&telemetry));
}

#[test]
fn what_no_disk_takes_is_counted_at_the_end() {
    let root = TempDir::new().expect("a directory");
    std::fs::write(root.path().join("x"), b"").expect("a file");
    let script = Script::always(Answer::Refused);
    let telemetry = start(root.path(), vec![script.setup("x", small())]);
    send(&telemetry, 4);
    eventually("refused", || only(&telemetry).last_error.is_some());
    send(&telemetry, 60);
    telemetry.shutdown(Duration::from_secs(2));
    let status = only(&telemetry);
    balanced(&status);
    assert!(status.spool_records == 0 && status.dropped > 0, "{status:?}");
}

#[test]
fn what_no_disk_takes_is_delivered_at_the_end_where_the_back_end_takes_it() {
    let root = TempDir::new().expect("a directory");
    std::fs::write(root.path().join("x"), b"").expect("a file");
    let script = Script::new(vec![Answer::Refused]);
    let telemetry = start(root.path(), vec![script.setup("x", small())]);
    send(&telemetry, 4);
    eventually("refused", || only(&telemetry).last_error.is_some());
    send(&telemetry, 60);
    telemetry.shutdown(SOON);
    let status = only(&telemetry);
    assert_eq!((status.sent, status.dropped), (64, 0), "{status:?}");
}

/// No room for a moment: what was written meanwhile is not needed to learn that it is over.
#[test]
fn a_spool_without_work_learns_that_files_can_be_written_again() {
    let root = TempDir::new().expect("a directory");
    std::fs::write(root.path().join("x"), b"").expect("a file");
    let script = Script::always(Answer::Refused);
    let pipeline = PipelineSettings { breaker_refused: Duration::from_millis(50), ..small() };
    let telemetry = start(root.path(), vec![script.setup("x", pipeline)]);
    send(&telemetry, 40);
    eventually("it cannot be written", || only(&telemetry).spool_error.is_some());
    *script.then.lock().unwrap() = None;
    eventually("delivered from memory", || only(&telemetry).sent == 40);
    std::fs::remove_file(root.path().join("x")).expect("a file");
    eventually("it can", || only(&telemetry).spool_error.is_none());
    telemetry.shutdown(SOON);
}

/// A file that cannot be opened for want of a descriptor is as good as ever.
#[test]
fn a_file_that_cannot_be_read_just_now_is_read_later() {
    let root = TempDir::new().expect("a directory");
    let first = Script::always(Answer::Refused);
    let telemetry = start(root.path(), vec![first.setup("x", small())]);
    send(&telemetry, 40);
    eventually("refused", || only(&telemetry).last_error.is_some());
    telemetry.shutdown(SOON);
    // A directory in a file's place: it is there, and reading it fails for another reason than what is in it.
    let dir = std::fs::read_dir(root.path().join("x")).expect("a directory");
    let files = dir.map(|file| file.expect("a file").path());
    let batches = files.filter(|path| path.extension().is_some_and(|ending| ending == "batch"));
    let file = batches.min().expect("the oldest batch");
    let aside = root.path().join("aside");
    std::fs::rename(&file, &aside).expect("a file");
    std::fs::create_dir(&file).expect("a directory");
    let second = Script::new([]);
    let telemetry = start(root.path(), vec![second.setup("x", small())]);
    eventually("it cannot be read", || only(&telemetry).spool_error.is_some());
    eventually("the others are delivered", || only(&telemetry).spool_records == 4);
    assert!(only(&telemetry).spool_error.is_some());
    std::fs::remove_dir(&file).expect("a directory");
    std::fs::rename(&aside, &file).expect("a file");
    eventually("everything", || {
        let status = only(&telemetry);
        status.sent == 40 && status.spool_records == 0 && status.spool_error.is_none()
    });
    assert!(dropped(&only(&telemetry), "corrupt") == 0);
    telemetry.shutdown(SOON);
}

#[test]
fn a_changed_exporter_takes_its_spool_over_and_a_removed_one_leaves_it() {
    let root = TempDir::new().expect("a directory");
    let (down, good) = (Script::always(Answer::Refused), Script::new([]));
    let telemetry = start(root.path(), vec![down.setup("x", small()), down.setup("y", small())]);
    send(&telemetry, 50);
    eventually("on disk", || telemetry.status().iter().all(|status| status.spooled >= 40));
    let changed = ExporterSetup { fingerprint: "2".into(), ..good.setup("x", small()) };
    telemetry.reload(CaptureSettings::default(), None, vec![changed]).expect("threads");
    eventually("the new one has all", || good.acknowledged() == 50);
    eventually("the removed one has ended", || down.ended.load(Ordering::Relaxed) == 2);
    let again = ExporterSetup { fingerprint: "2".into(), ..good.setup("x", small()) };
    telemetry
        .reload(CaptureSettings::default(), None, vec![again, good.setup("y", small())])
        .expect("threads");
    eventually("its spool is delivered when it comes back", || good.acknowledged() == 100);
    telemetry.shutdown(SOON);
}

#[test]
fn rejected_records_are_kept_with_their_reason() {
    let root = TempDir::new().expect("a directory");
    let script = Script::new([Answer::Items(2), Answer::Delivered]);
    let telemetry = start(root.path(), vec![script.setup("x", small())]);
    send(&telemetry, 1);
    eventually("kept", || only(&telemetry).dead_letters == 1);
    let status = only(&telemetry);
    assert!((status.rejected, status.dead_letter_bytes > 0) == (1, true), "{status:?}");
    telemetry.shutdown(SOON);
    let dead = Batches::open(&root.path().join("x/dead"), u64::MAX).expect("a directory");
    let letter = dead.read(dead.oldest().expect("a letter").id).expect("a letter").remove(0);
    let end = letter.iter().position(|byte| *byte == b'\n').expect("a line");
    let line: serde_json::Value = serde_json::from_slice(&letter[..end]).expect("JSON");
    assert_eq!(line["reason"], "bad");
    let record = RequestMetrics::from_stored(&letter.slice(end + 1..)).expect("a record");
    assert_eq!(record.id(), script.seen.lock().unwrap()[0].id());
}

#[test]
fn several_exports_are_under_way_at_once() {
    let root = TempDir::new().expect("a directory");
    let script = Script::always(Answer::Hang);
    let pipeline = PipelineSettings { concurrency: 3, buffer_memory: 1 << 20, ..small() };
    let telemetry = start(root.path(), vec![script.setup("x", pipeline)]);
    send(&telemetry, 40);
    eventually("three", || script.batches.lock().unwrap().len() == 3);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(script.batches.lock().unwrap().len(), 3, "and no more");
    telemetry.shutdown(Duration::from_millis(100));
    assert_eq!(only(&telemetry).spool_records, 40);
}

/// Makes the next writes of the exporter `panics` panic.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Called before a file is written.
pub(super) fn writing(exporter: &str) {
    let spend = |left: usize| left.checked_sub(1);
    let fails =
        exporter == "panics" && PANICS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok();
    assert!(!fails, "scripted");
    if exporter == "slow disk" {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_panic_while_writing_costs_the_records_at_hand_alone() {
    let root = TempDir::new().expect("a directory");
    let down = Script::always(Answer::Retry(None));
    PANICS.store(2, Ordering::Relaxed);
    let telemetry = start(root.path(), vec![down.setup("panics", small()), down.setup("beside", small())]);
    send(&telemetry, 100);
    eventually("the rest is written", || telemetry.status().iter().all(|status| status.spooled >= 80));
    let [panicked, beside] = telemetry.status().try_into().expect("two");
    assert!((1..=8).contains(&dropped(&panicked, "panic")), "{panicked:?}");
    assert_eq!((PANICS.load(Ordering::Relaxed), beside.dropped), (0, 0));
    *down.then.lock().unwrap() = None;
    eventually("and delivered", || telemetry.status().iter().all(|status| status.spool_records == 0));
    telemetry.shutdown(SOON);
    telemetry.status().iter().for_each(balanced);
}

mod commands;
mod ends;
mod refuse;

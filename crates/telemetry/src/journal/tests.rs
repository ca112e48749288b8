use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use magicapi_plugin::{ContentLevel, Facts, Outcome, RequestId, RequestMetrics, Secret, TelemetryConfig};
use proptest::prelude::*;
use tempfile::TempDir;

use super::entry::{self, Entry};
use super::{DurableSettings, Fsync, JournalStatus, Kept, RecordJournal};
use crate::scripted::{Answer, Script, facts};
use crate::settings::{ExporterSetup, PipelineSettings, TelemetrySettings, WhenFull};
use crate::tap::{Finished, Tap};
use crate::telemetry::Telemetry;

pub(super) const SOON: Duration = Duration::from_secs(5);

fn settings(dir: &Path, disk: u64) -> DurableSettings {
    DurableSettings { dir: dir.join("journal/telemetry"), disk, fsync: Fsync::Never }
}

pub(super) fn start(dir: &Path, exporters: Vec<ExporterSetup>) -> Telemetry {
    start_within(dir, exporters, 64 << 20)
}

pub(super) fn start_within(dir: &Path, exporters: Vec<ExporterSetup>, disk: u64) -> Telemetry {
    let telemetry = TelemetrySettings {
        spool_dir: Some(dir.join("spool")),
        durable: Some(settings(dir, disk)),
        ..TelemetrySettings::default()
    };
    Telemetry::start(telemetry, Arc::default(), exporters).expect("threads")
}

/// What the next process would find if this one were killed now.
pub(super) fn killed_now(dir: &Path) -> TempDir {
    let copy = TempDir::new().expect("a directory");
    copy_all(dir, copy.path());
    copy
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_all(&path, &target);
        } else {
            // A file may go while it is looked at; then it was settled.
            let _gone = std::fs::copy(&path, target);
        }
    }
}

pub(super) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn begin(telemetry: &Telemetry) -> (Tap, Facts) {
    let facts = facts();
    let mut tap = telemetry.tap();
    tap.open(&facts, None);
    (tap, facts)
}

pub(super) fn end(tap: Tap, facts: Facts) -> RequestId {
    let id = facts.id;
    tap.finish(Finished::new(facts));
    id
}

/// A record whose bodies were taken away stands in no other form any more, and can be moved on all the same.
#[test]
fn a_form_that_takes_the_place_of_all_others_is_known() {
    let dir = TempDir::new().expect("a directory");
    let clean = Box::new(|_: &mut Facts, _: Option<&Secret>| {});
    let (journal, _) =
        RecordJournal::start(&settings(dir.path(), 64 << 20), Arc::default(), clean).expect("a journal");
    let record = Arc::new(RequestMetrics::seal(facts(), Arc::default(), None, None, None));
    let kept = journal.keep(record.id());
    kept.name_forms(std::slice::from_ref(&record));
    let stripped = Arc::new(record.without_content(magicapi_plugin::ContentDropped::Memory));
    kept.add_form(&stripped);
    drop(record);
    let (entry, is_open) = kept.held().entry().expect("an entry");
    assert!(!is_open && matches!(entry::read(&entry.into()), Some(Entry::Record(..))));
    drop(kept);
    journal.close();
}

pub(super) fn status(telemetry: &Telemetry) -> JournalStatus {
    telemetry.journal().expect("a journal")
}

pub(super) fn entries(dir: &Path) -> (usize, usize, usize) {
    let files = journal_files(dir);
    let mut count = (0, 0, 0);
    for file in files {
        let bytes: Bytes = std::fs::read(file).expect("a file").into();
        if bytes.len() < 16 {
            continue; // it is just being begun
        }
        let mut rest = bytes.slice(16..);
        while rest.len() > 8 {
            let length = u32::from_le_bytes(rest[..4].try_into().expect("four")) as usize;
            if rest.len() < 8 + length {
                break; // it is just being written
            }
            match entry::read(&rest.slice(8..8 + length)).expect("an entry") {
                Entry::Open(..) => count.0 += 1,
                Entry::Record(..) => count.1 += 1,
                Entry::Done(ids) => count.2 += ids.len(),
            }
            rest = rest.slice(8 + length..);
        }
    }
    count
}

pub(super) fn journal_files(dir: &Path) -> Vec<PathBuf> {
    let dir = dir.join("journal/telemetry");
    let Ok(found) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = found.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "journal")).collect();
    files.sort();
    files
}

/// How often each id was acknowledged.
pub(super) fn acknowledged(script: &Script) -> BTreeMap<RequestId, usize> {
    script.acknowledged.lock().unwrap().iter().map(|(id, count)| (*id, *count)).collect()
}

#[test]
fn a_request_under_way_at_a_kill_becomes_a_record_and_a_finished_one_is_delivered() {
    let dir = TempDir::new().expect("a directory");
    let away = Script::always(Answer::Hang);
    let first = start(dir.path(), vec![away.setup("x", PipelineSettings::default())]);
    let (_tap, open) = begin(&first);
    let (tap, whole) = begin(&first);
    eventually("both open entries", || entries(dir.path()).0 == 2);
    let whole = end(tap, whole);
    eventually("the record", || entries(dir.path()).1 == 1);

    let next = killed_now(dir.path());
    let script = Script::new([]);
    let second = start(next.path(), vec![script.setup("x", PipelineSettings::default())]);
    let unbooked = second.take_unbooked();
    assert_eq!(unbooked.iter().map(|facts| facts.id).collect::<Vec<_>>(), [open.id, whole]);
    assert!(second.take_unbooked().is_empty(), "each once");
    eventually("both records", || script.acknowledged() == 2);
    let seen = script.seen.lock().unwrap().clone();
    let of = |id| seen.iter().find(|record| record.id() == id).expect("a record").clone();
    let record = of(open.id);
    let facts = record.facts();
    assert_eq!((facts.outcome, facts.error_type), (Outcome::GatewayError, Some("gateway_killed")));
    assert!(facts.usage.is_unknown() && facts.cost.is_none());
    assert_eq!((facts.provider.as_deref(), facts.timestamp), (open.provider.as_deref(), open.timestamp));
    assert_eq!(of(whole).facts().outcome, Outcome::Completed);
    assert_eq!((status(&second).recovered, status(&second).killed), (1, 1));
    eventually("an empty journal", || status(&second).records == 0);
    second.shutdown(SOON);
    assert!(journal_files(next.path()).is_empty(), "nothing is left to offer");
    first.shutdown(Duration::ZERO);
}

/// In whatever a caller can write, whether it has a form or is the key that it sent.
#[test]
fn an_open_entry_holds_no_secret() {
    let dir = TempDir::new().expect("a directory");
    let away = Script::always(Answer::Hang);
    let first = start(dir.path(), vec![away.setup("x", PipelineSettings::default())]);
    let formed = format!("sk-{}-aB3dE5fG7hJ9kL2mN4pQ6rS8tU0vW1xY3z", "proj");
    let own = "07q7Zt4Lw9Xk2Vb8Nm5Rc1Hd6Js3Gf0Py";
    let set: [fn(&mut Facts, String); 9] = [
        |facts, text| facts.path = format!("/proxy/openai/{text}"),
        |facts, text| facts.model = Some(text),
        |facts, text| facts.requested_model = Some(text),
        |facts, text| facts.user_id = Some(text),
        |facts, text| facts.org_id = Some(text),
        |facts, text| facts.thread_id = Some(text),
        |facts, text| facts.project_id = Some(text),
        |facts, text| facts.project_name = Some(text),
        |facts, text| facts.client_request_id = Some(text),
    ];
    let mut taps = Vec::new();
    for secret in [formed.as_str(), own] {
        for place in set {
            let mut facts = facts();
            place(&mut facts, format!("a {secret} b"));
            let mut tap = first.tap();
            tap.open(&facts, Some(&Secret::new(own)));
            taps.push(tap);
        }
    }
    eventually("the open entries", || entries(dir.path()).0 == taps.len());
    let next = killed_now(dir.path());
    let script = Script::new([]);
    let second = start(next.path(), vec![script.setup("x", PipelineSettings::default())]);
    eventually("their records", || script.acknowledged() == taps.len());
    let files = journal_files(dir.path()).into_iter().map(|file| std::fs::read(file).expect("a file"));
    let seen = script.seen.lock().unwrap().clone();
    for bytes in files.chain(seen.iter().map(|record| record.to_stored())) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("[REDACTED:"), "{text}");
        assert!(!text.contains(&formed) && !text.contains(own), "{text}");
    }
    second.shutdown(SOON);
    first.shutdown(Duration::ZERO);
}

#[test]
fn what_every_exporter_has_is_not_offered_again() {
    let dir = TempDir::new().expect("a directory");
    let script = Script::new([]);
    let first = start(dir.path(), vec![script.setup("x", PipelineSettings::default())]);
    let (_pins_the_segment, _facts) = begin(&first);
    for _ in 0..20 {
        let (tap, facts) = begin(&first);
        std::thread::sleep(Duration::from_millis(3));
        end(tap, facts);
    }
    eventually("all but the open one are done with", || {
        script.acknowledged() == 20 && entries(dir.path()).2 == 20 && status(&first).records == 1
    });
    let next = killed_now(dir.path());
    let again = Script::new([]);
    let second = start(next.path(), vec![again.setup("x", PipelineSettings::default())]);
    eventually("the open one", || again.acknowledged() == 1);
    second.shutdown(SOON);
    assert_eq!(again.acknowledged(), 1);
    first.shutdown(SOON);
}

#[test]
fn an_end_delivers_or_leaves_to_the_next_start() {
    for when_full in [WhenFull::Spool, WhenFull::DropOldest] {
        let dir = TempDir::new().expect("a directory");
        let down = Script::always(Answer::Retry(None));
        let pipeline = PipelineSettings { when_full, ..PipelineSettings::default() };
        let first = start(dir.path(), vec![down.setup("x", pipeline.clone())]);
        let ids: Vec<_> = (0..30)
            .map(|_| {
                let (tap, facts) = begin(&first);
                end(tap, facts)
            })
            .collect();
        first.shutdown(Duration::from_millis(500));
        drop(first);
        assert_eq!(journal_files(dir.path()).is_empty(), when_full == WhenFull::Spool, "{when_full:?}");
        let script = Script::new([]);
        let second = start(dir.path(), vec![script.setup("x", pipeline)]);
        eventually("each", || acknowledged(&script).len() == ids.len());
        second.shutdown(SOON);
        assert!(acknowledged(&script).values().all(|count| *count == 1), "{when_full:?}");
        assert!(journal_files(dir.path()).is_empty());
    }
}

#[test]
fn a_record_that_nobody_wants_leaves_nothing() {
    let dir = TempDir::new().expect("a directory");
    let script = Script::new([]);
    let mut pipeline = PipelineSettings::default();
    pipeline.only.provider = vec!["nobody".into()];
    let first = start(dir.path(), vec![script.setup("x", pipeline)]);
    let (tap, facts) = begin(&first);
    eventually("an open entry", || entries(dir.path()).0 == 1);
    end(tap, facts);
    eventually("done with", || entries(dir.path()).2 == 1 && status(&first).records == 0);
    first.shutdown(SOON);
    assert!(journal_files(dir.path()).is_empty());
}

#[test]
fn each_exporter_gets_its_own_form_again() {
    let dir = TempDir::new().expect("a directory");
    let away = Script::always(Answer::Hang);
    let content = |content| PipelineSettings { content, ..PipelineSettings::default() };
    let both = |script: &Arc<Script>| {
        vec![
            script.setup("full", content(ContentLevel::Full)),
            script.setup("bare", content(ContentLevel::Metadata)),
        ]
    };
    let first = start(dir.path(), both(&away));
    let (mut tap, facts) = begin(&first);
    tap.request(Bytes::from_static(b"{\"model\":\"m\"}"));
    end(tap, facts);
    eventually("the record", || entries(dir.path()).1 == 1);
    let next = killed_now(dir.path());
    let script = Script::new([]);
    let second = start(next.path(), both(&script));
    eventually("both", || script.acknowledged() == 2);
    let seen = script.seen.lock().unwrap().clone();
    let mut bodies: Vec<_> = seen.iter().map(|record| record.request().is_some()).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, [false, true]);
    second.shutdown(SOON);
    first.shutdown(Duration::ZERO);
}

#[test]
fn a_long_stream_does_not_hold_the_journal_up() {
    const DISK: u64 = 2 << 20;
    let dir = TempDir::new().expect("a directory");
    let script = Script::new([]);
    let pipeline = PipelineSettings { batch_age: Duration::from_millis(10), ..PipelineSettings::default() };
    let first = start_within(dir.path(), vec![script.setup("x", pipeline)], DISK);
    let (stream, of_stream) = begin(&first);
    eventually("its open entry", || entries(dir.path()).0 == 1);
    let mut sent = 0;
    // More than the journal holds.
    while sent * 1500 < 2 * DISK as usize {
        for _ in 0..100 {
            let (tap, facts) = begin(&first);
            end(tap, facts);
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(100));
        assert!(status(&first).bytes <= DISK, "{:?}", status(&first));
    }
    eventually("all delivered", || script.acknowledged() == sent);
    assert_eq!(status(&first).unwritten, 0, "{:?}", status(&first));
    let next = killed_now(dir.path());
    let again = Script::new([]);
    let second = start(next.path(), vec![again.setup("x", PipelineSettings::default())]);
    assert_eq!(status(&second).killed, 1, "the stream is still there");
    second.shutdown(SOON);
    end(stream, of_stream);
    first.shutdown(SOON);
    assert_eq!(script.acknowledged(), sent + 1);
}

#[test]
fn a_full_journal_is_said_and_counted_and_costs_no_record_its_delivery() {
    let dir = TempDir::new().expect("a directory");
    let script = Script::always(Answer::Hang);
    let first = start_within(dir.path(), vec![script.setup("x", PipelineSettings::default())], 32 << 10);
    let mut taps: Vec<_> = (0..10).map(|_| begin(&first)).collect();
    // All at once would be more than an empty one holds.
    eventually("some open entries", || entries(dir.path()).0 == 10);
    taps.extend((0..50).map(|_| begin(&first)));
    let ids: Vec<_> = taps.into_iter().map(|(tap, facts)| end(tap, facts)).collect();
    eventually("counted", || status(&first).unwritten > 0);
    let full = status(&first);
    assert!(full.error.as_deref().is_some_and(|error| error.contains("do not fit")), "{full:?}");
    assert!(full.bytes <= 32 << 10, "{full:?}");
    eventually("given to the exporter", || first.status()[0].received == ids.len() as u64);
    first.shutdown(Duration::ZERO);
}

/// What is small may still fit; that does not make a journal that has no room for records work.
#[test]
fn a_full_journal_is_full_until_there_is_room() {
    let dir = TempDir::new().expect("a directory");
    let config = Arc::new(TelemetryConfig::default());
    let (journal, _) =
        RecordJournal::start(&settings(dir.path(), 64 << 10), config.clone(), Box::new(|_, _| ()))
            .expect("a journal");
    let append = |bytes: usize| {
        let body = Some(Bytes::from("\"x\"".repeat(bytes / 3)));
        let record = RequestMetrics::seal(facts(), config.clone(), body, None, None);
        let kept = journal.keep(record.id());
        journal.append(&[(&kept, &record)]);
        kept
    };
    let kept: Vec<_> = (0..7).map(|_| append(9 << 10)).collect();
    assert!(journal.status().unwritten > 0 && journal.status().error.is_some(), "{:?}", journal.status());
    let open = journal.open(&facts(), None);
    eventually("its open entry", || entries(dir.path()).0 == 1);
    assert!(journal.status().error.is_some(), "{:?}", journal.status());
    drop((kept, open));
    eventually("there is room", || journal.status().error.is_none());
    journal.close();
}

/// A disk that takes something again ends the failure, though nothing is written meanwhile.
#[test]
fn a_journal_without_work_learns_that_it_can_be_written_again() {
    let dir = TempDir::new().expect("a directory");
    let (path, away) = (dir.path().join("journal/telemetry"), dir.path().join("away"));
    let config = Arc::new(TelemetryConfig::default());
    let (journal, _) =
        RecordJournal::start(&settings(dir.path(), 1 << 20), config.clone(), Box::new(|_, _| ()))
            .expect("a journal");
    fs::rename(&path, &away).expect("a directory");
    let record = RequestMetrics::seal(facts(), config.clone(), None, None, None);
    let kept = journal.keep(record.id());
    journal.append(&[(&kept, &record)]);
    assert!(journal.status().error.is_some(), "{:?}", journal.status());
    fs::rename(&away, &path).expect("a directory");
    eventually("it works", || journal.status().error.is_none());
    assert_eq!(fs::read_dir(&path).expect("a directory").count(), 0, "the try has left nothing");
    assert_eq!(journal.status().unwritten, 1);
    journal.close();
}

#[test]
fn a_damaged_file_costs_what_stands_behind_the_fault_and_is_set_aside() {
    let dir = TempDir::new().expect("a directory");
    let away = Script::always(Answer::Hang);
    let pipeline = PipelineSettings { when_full: WhenFull::DropOldest, ..PipelineSettings::default() };
    let first = start_within(dir.path(), vec![away.setup("x", pipeline.clone())], 1 << 20);
    for _ in 0..200 {
        // Refused before they were admitted: records without open entries.
        end(first.tap(), facts());
    }
    eventually("several files", || entries(dir.path()).1 == 200 && journal_files(dir.path()).len() > 2);
    let next = killed_now(dir.path());
    let victim = journal_files(next.path()).remove(0);
    let mut bytes = std::fs::read(&victim).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&victim, bytes).expect("a file");
    // As a later release would write it.
    let foreign = next.path().join("journal/telemetry/9999999990.journal");
    std::fs::write(&foreign, b"MAGISPL\0\xffJ\0\0\0\0\0\0").expect("a file");
    let script = Script::new([]);
    let second = start_within(next.path(), vec![script.setup("x", pipeline)], 1 << 20);
    eventually("what can be read", || status(&second).records == 0 && script.acknowledged() > 100);
    assert!(script.acknowledged() < 200);
    second.shutdown(SOON);
    drop(second);
    assert_eq!(journal_files(next.path()), [foreign], "what a later release wrote is left alone");
    let aside = next.path().join("journal/telemetry/corrupt");
    assert_eq!(std::fs::read_dir(aside).expect("a directory").count(), 1);
    first.shutdown(Duration::ZERO);
}

/// Written by the release that introduced the form; never written again.
#[test]
fn the_first_form_stays_readable() {
    let dir = TempDir::new().expect("a directory");
    let place = dir.path().join("journal/telemetry");
    std::fs::create_dir_all(&place).expect("a directory");
    std::fs::write(place.join("0000000000.journal"), include_bytes!("v1.journal")).expect("a file");
    let script = Script::new([]);
    let telemetry = start(dir.path(), vec![script.setup("x", PipelineSettings::default())]);
    let ids = |text| RequestId::parse(text).expect("an id");
    assert_eq!(status(&telemetry).killed, 1);
    let unbooked = telemetry.take_unbooked();
    assert_eq!(unbooked[0].id, ids("msg_0192f3a0-0000-7000-8000-000000000001"));
    eventually("the record", || script.acknowledged() == 2);
    assert!(acknowledged(&script).contains_key(&ids("msg_0192f3a0-0000-7000-8000-000000000002")));
    telemetry.shutdown(SOON);
}

/// What a test does to one of a few requests.
#[derive(Clone, Debug)]
enum Step {
    Open,
    Record(usize),
    Done(usize),
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Open),
        3 => (0usize..20).prop_map(Step::Record),
        2 => (0usize..20).prop_map(Step::Done),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the order of ends: once the thread has written, a kill leaves exactly those that are not done with, each
    /// as far as it had come.
    #[test]
    fn a_kill_leaves_exactly_what_is_not_done_with(steps in steps()) {
        let dir = TempDir::new().expect("a directory");
        let config = Arc::new(TelemetryConfig::default());
        let (journal, _) = RecordJournal::start(&settings(dir.path(), 1 << 20), config.clone(), Box::new(|_, _| ())).expect("a journal");
        let mut requests: Vec<(Facts, Option<Kept>, bool)> = Vec::new();
        for step in steps {
            match step {
                Step::Open => {
                    let facts = facts();
                    let kept = journal.open(&facts, None);
                    requests.push((facts, Some(kept), false));
                }
                Step::Record(number) => {
                    let count = requests.len().max(1);
                    if let Some((facts, Some(kept), recorded)) = requests.get_mut(number % count) && !*recorded {
                        let record = RequestMetrics::seal(facts.clone(), config.clone(), None, None, None);
                        journal.append(&[(kept, &record)]);
                        *recorded = true;
                    }
                }
                Step::Done(number) => {
                    let count = requests.len().max(1);
                    if let Some((_, kept, _)) = requests.get_mut(number % count) {
                        drop(kept.take());
                    }
                }
                Step::Wait => std::thread::sleep(Duration::from_millis(25)),
            }
        }
        let mut killed: Vec<_> = requests.iter().filter(|(_, kept, recorded)| kept.is_some() && !recorded)
            .map(|(facts, ..)| facts.id).collect();
        let recorded = requests.iter().filter(|(_, kept, recorded)| kept.is_some() && *recorded).count();
        killed.sort_unstable();
        let expected = killed.len() + recorded;
        eventually("everything written", || {
            journal.status().records as usize == expected && journal.inbox.is_idle()
        });
        let next = killed_now(dir.path());
        let (_journal, recovery) = RecordJournal::start(&settings(next.path(), 1 << 20), config, Box::new(|_, _| ())).expect("a journal");
        let mut found: Vec<_> = recovery.unbooked().iter()
            .filter(|facts| facts.error_type == Some("gateway_killed")).map(|facts| facts.id).collect();
        found.sort_unstable();
        prop_assert_eq!(found, killed);
        prop_assert_eq!(recovery.records(), recorded);
        journal.close();
    }
}

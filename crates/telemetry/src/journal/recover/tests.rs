use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use magicapi_plugin::{RequestId, RequestMetrics, TelemetryConfig};
use tempfile::TempDir;

use super::super::tests::{
    SOON, acknowledged, begin, end, entries, eventually, journal_files, killed_now, start, start_within,
    status,
};
use super::{Found, entry};
use crate::scripted::{Answer, Script, facts};
use crate::settings::{ExporterSetup, PipelineSettings, WhenFull};

/// Ended records of which one has a provider of its own, as a killed process left them.
fn left_by_a_kill(count: usize, disk: u64) -> (TempDir, RequestId) {
    let dir = TempDir::new().expect("a directory");
    let away = Script::always(Answer::Hang);
    let first = start_within(dir.path(), vec![away.setup("all", PipelineSettings::default())], disk);
    let mut rare = facts();
    rare.provider = Some("rare".into());
    let rare = end(first.tap(), rare);
    for _ in 1..count {
        end(first.tap(), facts());
    }
    eventually("the records", || entries(dir.path()).1 == count);
    let next = killed_now(dir.path());
    first.shutdown(Duration::ZERO);
    (next, rare)
}

/// One that takes all, and one without a spool that takes the rare record.
fn all_and_rare(all: &Arc<Script>, rare: &Arc<Script>) -> Vec<ExporterSetup> {
    let mut pipeline = PipelineSettings { when_full: WhenFull::DropOldest, ..PipelineSettings::default() };
    pipeline.only.provider = vec!["rare".into()];
    vec![all.setup("all", PipelineSettings::default()), rare.setup("rare", pipeline)]
}

#[test]
fn what_was_recovered_and_delivered_is_not_offered_at_a_later_start() {
    const RECORDS: usize = 50;
    let (dir, rare) = left_by_a_kill(RECORDS, 64 << 20);
    let (script, away) = (Script::new([]), Script::always(Answer::Retry(None)));
    let second = start(dir.path(), all_and_rare(&script, &away));
    eventually("all but one are done with", || {
        script.acknowledged() == RECORDS && status(&second).records == 1
    });
    second.shutdown(Duration::from_millis(100));
    drop(second);
    let (again, back) = (Script::new([]), Script::new([]));
    let third = start(dir.path(), all_and_rare(&again, &back));
    eventually("the one", || back.acknowledged() == 1 && status(&third).records == 0);
    third.shutdown(SOON);
    assert_eq!(
        acknowledged(&again).into_keys().collect::<Vec<_>>(),
        [rare],
        "of the others it has none twice"
    );
    assert!(journal_files(dir.path()).is_empty());
}

#[test]
fn a_dead_exporter_without_a_spool_keeps_nothing_from_the_others() {
    const RECORDS: usize = 30;
    let dir = TempDir::new().expect("a directory");
    let away = Script::always(Answer::Hang);
    let first = start(dir.path(), vec![away.setup("x", PipelineSettings::default())]);
    let (_tap, open) = begin(&first);
    eventually("its open entry", || entries(dir.path()).0 == 1);
    for _ in 0..RECORDS {
        end(first.tap(), facts());
    }
    eventually("the records", || entries(dir.path()).1 == RECORDS);
    let next = killed_now(dir.path());
    let (script, dead) = (Script::new([]), Script::always(Answer::Hang));
    let small = PipelineSettings {
        when_full: WhenFull::DropOldest,
        buffer_memory: 8 << 10,
        ..PipelineSettings::default()
    };
    let second =
        start(next.path(), vec![script.setup("x", PipelineSettings::default()), dead.setup("dead", small)]);
    eventually("all, what was under way among them", || script.acknowledged() == RECORDS + 1);
    assert!(acknowledged(&script).contains_key(&open.id));
    assert_eq!(status(&second).recovered, RECORDS as u64);
    second.shutdown(Duration::ZERO);
    first.shutdown(Duration::ZERO);
}

#[test]
fn one_record_that_waits_does_not_hold_an_earlier_processes_files() {
    const DISK: u64 = 256 << 10;
    let (dir, rare) = left_by_a_kill(120, DISK);
    let (script, away) = (Script::new([]), Script::always(Answer::Retry(None)));
    let second = start_within(dir.path(), all_and_rare(&script, &away), DISK);
    let before = status(&second).bytes;
    assert!(before > DISK / 2, "{before}");
    eventually("the old files are gone", || script.acknowledged() == 120 && status(&second).bytes < DISK / 8);
    let settled = status(&second);
    assert_eq!((settled.records, settled.error), (1, None));
    let next = killed_now(dir.path());
    let third = Script::new([]);
    let setup = third.setup("x", PipelineSettings::default());
    let third_telemetry = start_within(next.path(), vec![setup], DISK);
    eventually("the one that waited", || acknowledged(&third).contains_key(&rare));
    third_telemetry.shutdown(SOON);
    assert_eq!(third.acknowledged(), 1);
    second.shutdown(Duration::ZERO);
}

/// Else a start would hold an open entry of every request in the files.
#[test]
fn only_what_is_under_way_is_held_while_files_are_read() {
    let config = Arc::new(TelemetryConfig::default());
    let mut found = Found::default();
    let mut add = |entry: Vec<u8>| {
        found.add("a file", &Bytes::from(entry));
        found.opens.len()
    };
    let [under_way, ended, done, late, late_done] = [(); 5].map(|()| facts());
    let open = |facts: &magicapi_plugin::Facts| entry::open(facts.clone(), config.clone());
    let record = |facts: &magicapi_plugin::Facts| {
        entry::record(facts.id, &RequestMetrics::seal(facts.clone(), config.clone(), None, None, None))
    };
    assert_eq!(add(open(&under_way)), 1);
    assert_eq!((add(open(&ended)), add(record(&ended))), (2, 1));
    assert_eq!((add(open(&done)), add(entry::done([done.id]))), (2, 1));
    assert_eq!((add(record(&late)), add(open(&late))), (1, 1), "written behind its record");
    assert_eq!((add(entry::done([late_done.id])), add(open(&late_done))), (1, 1));
    let killed: Vec<_> = found.killed().iter().map(RequestMetrics::id).collect();
    assert_eq!(killed, [under_way.id]);
}

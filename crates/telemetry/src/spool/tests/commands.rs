//! What `spool list | replay | purge` do, with a pipeline that runs and with none.

use super::*;
use crate::spool::{Purge, SpoolSummary, Spools, SpoolsError};

fn of_nobody(root: &Path) -> Spools {
    Spools::of_nobody(root.to_owned(), vec![("x".into(), small()), ("y".into(), small())])
}

fn summary(spools: &Spools, name: &str) -> Option<SpoolSummary> {
    spools.list().expect("a list").into_iter().find(|one| one.exporter == name)
}

/// Leaves one dead letter of `x`.
fn dead_letter(root: &Path) -> String {
    let script = Script::new([Answer::Items(2)]);
    let telemetry = start(root, vec![script.setup("x", small())]);
    send(&telemetry, 1);
    eventually("kept", || only(&telemetry).dead_letters == 1);
    telemetry.shutdown(SOON);
    let id = script.seen.lock().unwrap()[0].id();
    id.to_string()
}

#[test]
fn dead_letters_are_replayed_by_a_pipeline_that_runs_and_without_one() {
    let root = TempDir::new().expect("a directory");
    let id = dead_letter(root.path());
    let listed = summary(&of_nobody(root.path()), "x").expect("listed");
    assert_eq!((listed.dead.records, listed.waiting.records, listed.orphaned), (1, 0, false));
    assert_eq!(listed.reasons, [("bad".to_owned(), 1)]);
    let contents = of_nobody(root.path()).records("x", true, 10).expect("readable");
    assert_eq!(contents.records[0].record.id().to_string(), id);
    assert_eq!(contents.records[0].reason.as_deref(), Some("bad"));

    let none = of_nobody(root.path()).replay("x", Some("msg_other"));
    assert!(matches!(none, Err(SpoolsError::NoSuchId { .. })), "{none:?}");
    let replayed = of_nobody(root.path()).replay("x", Some(&id)).expect("replayed");
    assert_eq!((replayed.records, replayed.kept.len()), (1, 0));
    let listed = summary(&of_nobody(root.path()), "x").expect("listed");
    assert_eq!((listed.dead.records, listed.waiting.records), (0, 1));

    // The next process rejects it again; the one that runs then takes it.
    let script = Script::new([Answer::Items(2)]);
    let telemetry = start(root.path(), vec![script.setup("x", small())]);
    eventually("a letter again", || only(&telemetry).dead_letters == 1);
    let replayed = telemetry.spools().expect("a directory").replay("x", None).expect("replayed");
    assert_eq!(replayed.records, 1);
    eventually("delivered", || script.acknowledged() == 1);
    eventually("nothing is left", || {
        telemetry.spools().expect("a directory").list().expect("a list").is_empty()
    });
    let status = only(&telemetry);
    balanced(&status);
    assert_eq!((status.received, status.sent, status.rejected, status.dead_letters), (2, 1, 1, 0));
    telemetry.shutdown(SOON);
}

#[test]
fn what_is_set_aside_comes_back_when_it_can_be_read_and_says_why_when_not() {
    let root = TempDir::new().expect("a directory");
    left_behind(root.path(), 20);
    let victim = files(&root.path().join("x")).pop().expect("a file");
    let whole = std::fs::read(&victim).expect("a file");
    std::fs::write(&victim, &whole[..whole.len() - 1]).expect("a file");
    let listed = summary(&of_nobody(root.path()), "x").expect("listed");
    assert_eq!(listed.unreadable.len(), 1, "found before anybody tried to deliver it: {listed:?}");

    let script = Script::new([]);
    let telemetry = start(root.path(), vec![script.setup("x", small())]);
    eventually("the rest is delivered", || {
        let status = only(&telemetry);
        status.sent > 0 && status.spool_records == 0
    });
    let spools = telemetry.spools().expect("a directory");
    let listed = summary(&spools, "x").expect("listed");
    assert!(listed.unreadable[0].file.starts_with("corrupt/"), "{listed:?}");
    assert!(listed.unreadable[0].reason.contains("cut short"), "{listed:?}");
    let replayed = spools.replay("x", None).expect("tried");
    assert_eq!((replayed.records, replayed.kept.len()), (0, 1));
    assert!(replayed.kept[0].1.contains("cut short"), "{replayed:?}");

    let aside = files(&root.path().join("x/corrupt")).remove(0);
    std::fs::write(&aside, &whole).expect("a file");
    let name = aside.file_name().expect("a name").to_string_lossy().into_owned();
    let replayed = spools.replay("x", Some(&name)).expect("replayed");
    assert!(replayed.records > 0 && replayed.kept.is_empty(), "{replayed:?}");
    eventually("all of it arrives", || script.acknowledged() == 20);
    telemetry.shutdown(SOON);
    balanced(&only(&telemetry));
}

#[test]
fn what_would_expire_at_once_stays_a_dead_letter() {
    let root = TempDir::new().expect("a directory");
    dead_letter(root.path());
    let young = PipelineSettings { buffer_max_age: Duration::from_millis(1), ..small() };
    let spools = Spools::of_nobody(root.path().to_owned(), vec![("x".into(), young)]);
    std::thread::sleep(Duration::from_millis(5));
    let replayed = spools.replay("x", None).expect("tried");
    assert!(replayed.records == 0 && replayed.kept[0].1.contains("buffer.max_age"), "{replayed:?}");
    assert_eq!(summary(&spools, "x").expect("listed").dead.records, 1);
    let tight = PipelineSettings { buffer_disk: 1, ..small() };
    let spools = Spools::of_nobody(root.path().to_owned(), vec![("x".into(), tight)]);
    let replayed = spools.replay("x", None).expect("tried");
    assert!(replayed.records == 0 && replayed.kept[0].1.contains("buffer.disk"), "{replayed:?}");
    assert_eq!(summary(&spools, "x").expect("listed").dead.records, 1, "nothing was lost over it");
}

#[test]
fn a_purge_is_counted_spares_what_is_young_and_says_before_it_acts() {
    let root = TempDir::new().expect("a directory");
    dead_letter(root.path());
    left_behind(root.path(), 20);
    let hour = Some(Duration::from_hours(1));
    let all = |dry| Purge { dry, ..Purge::default() };
    let spools = of_nobody(root.path());
    let young = spools.purge("x", &Purge { older_than: hour, ..Purge::default() }).expect("purged");
    assert_eq!(young.records, 0, "nothing is that old");
    let would = spools.purge("x", &all(true)).expect("counted");
    assert_eq!((would.records, would.busy), (21, 0));
    assert_eq!(spools.purge("x", &all(true)).expect("counted"), would, "a dry one removes nothing");

    // The breaker is open, so that the running exporter leaves them where they are.
    let down = Script::always(Answer::Refused);
    let telemetry = start(root.path(), vec![down.setup("x", small())]);
    eventually("refused", || only(&telemetry).last_error.is_some());
    let running = telemetry.spools().expect("a directory");
    let dead = running.purge("x", &Purge { dead_only: true, ..Purge::default() }).expect("purged");
    assert_eq!((dead.records, only(&telemetry).dead_letters, only(&telemetry).spool_records), (1, 0, 20));
    let purged = running.purge("x", &all(false)).expect("purged");
    assert!(purged.records >= 16, "{purged:?}");
    let status = only(&telemetry);
    assert_eq!(dropped(&status, "purged"), purged.records);
    balanced(&status);
    telemetry.shutdown(Duration::from_millis(100));
    balanced(&only(&telemetry));
}

#[test]
fn a_directory_without_exporter_is_an_orphan_that_can_be_purged_alone() {
    let root = TempDir::new().expect("a directory");
    dead_letter(root.path());
    left_behind(root.path(), 20);
    let script = Script::new([]);
    let telemetry = start(root.path(), vec![script.setup("y", small())]);
    let spools = telemetry.spools().expect("a directory");
    let listed = summary(&spools, "x").expect("listed");
    assert!(listed.orphaned && listed.waiting.records == 20, "{listed:?}");
    assert_eq!(spools.records("x", false, 5).expect("readable").records.len(), 5);
    assert_eq!(spools.replay("x", None), Err(SpoolsError::Orphaned("x".into())));
    let unknown = spools.purge("z", &Purge::default());
    assert!(matches!(&unknown, Err(SpoolsError::Unknown { known, .. }) if known == "x, y"), "{unknown:?}");
    assert!(spools.purge("../x", &Purge::default()).is_err());
    assert_eq!(spools.purge("x", &Purge::default()).expect("purged").records, 21);
    assert!(!root.path().join("x").exists(), "and its directory is gone");
    telemetry.shutdown(SOON);
}

#[test]
fn an_exporter_that_is_ending_keeps_its_directory_to_itself() {
    let root = TempDir::new().expect("a directory");
    let slow = Script::always(Answer::Block(Duration::from_secs(2)));
    let telemetry = start(root.path(), vec![slow.setup("x", small())]);
    send(&telemetry, 40);
    eventually("on disk", || only(&telemetry).spooled > 0);
    telemetry.reload(CaptureSettings::default(), None, Vec::new()).expect("threads");
    let ending = telemetry.spools().expect("a directory").purge("x", &Purge::default());
    assert_eq!(ending, Err(SpoolsError::Leaving("x".into())));
    telemetry.shutdown(SOON);
}

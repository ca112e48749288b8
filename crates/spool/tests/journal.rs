//! The journal: what was appended and not settled is there for the next process; what was settled goes.

#![allow(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use magicapi_spool::{Fsync, Journal, JournalSettings, OldSegment, SpoolError};

const SETTINGS: JournalSettings =
    JournalSettings { segment_bytes: 64, max_bytes: 1 << 20, fsync: Fsync::Never };

fn open(dir: &Path) -> (Journal, Vec<OldSegment>) {
    Journal::open(dir, SETTINGS).expect("a journal")
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir).expect("a directory").count()
}

/// All entries that the next process finds.
fn left(dir: &Path) -> Vec<String> {
    let (_journal, old) = open(dir);
    let text = |entry: bytes::Bytes| String::from_utf8(entry.to_vec()).expect("text");
    old.iter().flat_map(|segment| segment.read().0).map(text).collect()
}

#[test]
fn what_is_not_settled_comes_back_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let (journal, old) = open(dir.path());
    assert!(old.is_empty());
    let first =
        journal.append(&["first, and long enough to fill a segment of its own entirely"]).expect("room");
    let second = journal.append(&["second", "third"]).expect("room");
    second.settle();
    drop((first, journal));
    assert_eq!(
        left(dir.path()),
        ["first, and long enough to fill a segment of its own entirely", "second", "third"],
        "a segment is kept as long as an earlier one is"
    );
}

#[test]
fn segments_go_in_order_once_they_are_settled() {
    let dir = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(dir.path());
    let tickets: Vec<_> =
        (0..8).map(|n| journal.append(&[format!("{n} {}", "x".repeat(60))]).expect("room")).collect();
    assert_eq!(files(dir.path()), 8);
    let mut tickets = tickets.into_iter();
    let first = tickets.next().expect("a ticket");
    tickets.for_each(magicapi_spool::Ticket::settle);
    assert_eq!(files(dir.path()), 8, "the first one holds all");
    first.settle();
    assert_eq!(files(dir.path()), 1, "the last one is still written");
    drop(journal);
    assert_eq!(files(dir.path()), 0);
}

#[test]
fn bytes_are_bounded_and_come_back_with_the_segments() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = JournalSettings { max_bytes: 200, ..SETTINGS };
    let (journal, _) = Journal::open(dir.path(), settings).expect("a journal");
    let ticket = journal.append(&["x".repeat(150)]).expect("room");
    let full = journal.append(&["x".repeat(50)]).err().expect("no room");
    assert!(matches!(full, SpoolError::Full { limit: 200, .. }), "{full}");
    assert_eq!(journal.bytes(), 16 + 8 + 150);
    ticket.settle();
    let ticket = journal.append(&["short"]).expect("room, in the next segment");
    ticket.settle();
    assert!(journal.bytes() <= 200, "{}", journal.bytes());
    journal.append(&["x".repeat(50)]).expect("room").settle();
}

#[test]
fn an_entry_cut_short_by_a_kill_hides_none_before_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(dir.path());
    drop(journal.append(&["whole", "also whole"]).expect("room"));
    drop(journal.append(&["cut"]).expect("room"));
    drop(journal);
    let (_, old) = open(dir.path());
    let path = old.first().expect("a segment").path().to_owned();
    let file = fs::read(&path).expect("a file");
    for cut in 1..(8 + 3) {
        fs::write(&path, &file[..file.len() - cut]).expect("a file");
        let (entries, failure) = old.first().expect("a segment").read();
        assert_eq!(entries, ["whole", "also whole"]);
        assert!(matches!(failure, Some(SpoolError::Corrupt { .. })), "{cut} bytes missing: {failure:?}");
    }
}

#[test]
fn old_segments_are_the_callers_to_delete() {
    let dir = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(dir.path());
    drop(journal.append(&["one"]).expect("room"));
    drop(journal);
    let (journal, old) = open(dir.path());
    drop(journal.append(&["two"]).expect("room"));
    for segment in old {
        segment.delete().expect("a file");
    }
    drop(journal);
    assert_eq!(left(dir.path()), ["two"]);
}

#[test]
fn every_way_to_sync_appends() {
    for fsync in [
        Fsync::Never,
        Fsync::Interval(Duration::ZERO),
        Fsync::Interval(Duration::from_hours(1)),
        Fsync::Always,
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, _) =
            Journal::open(dir.path(), JournalSettings { fsync, ..SETTINGS }).expect("a journal");
        drop(journal.append(&["entry"]).expect("room"));
        journal.sync_if_due().expect("a disk");
        drop(journal);
        assert_eq!(left(dir.path()), ["entry"], "{fsync:?}");
    }
}

/// Written by the release that introduced the version; never written again.
#[test]
fn version_1_stays_readable() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("0000000000.journal"), include_bytes!("fixtures/v1.journal")).expect("a file");
    assert_eq!(left(dir.path()), ["an entry", "", "another"]);
}

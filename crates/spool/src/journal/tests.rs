use std::io::{PipeReader, Read as _};
use std::os::fd::OwnedFd;
use std::sync::MutexGuard;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Fsync, Journal, JournalSettings, Writer};
use crate::SpoolError;

const HOUR: Duration = Duration::from_hours(1);

/// A journal whose open segment is a pipe: that takes bytes and refuses to be synced, so each attempt fails and shows.
fn on_a_pipe(fsync: Fsync) -> (Journal, PipeReader, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = JournalSettings { segment_bytes: 64, max_bytes: 1 << 20, fsync };
    let (journal, _) = Journal::open(dir.path(), settings).expect("a journal");
    journal.append(&["begins the segment"]).expect("room").settle();
    let (pipe, end) = std::io::pipe().expect("a pipe");
    writer(&journal).open.as_mut().expect("a segment").file = OwnedFd::from(end).into();
    (journal, pipe, dir)
}

fn writer(journal: &Journal) -> MutexGuard<'_, Writer> {
    journal.0.writer.lock().expect("a writer")
}

fn was_synced<T>(done: Result<T, SpoolError>) -> bool {
    match done {
        Ok(_) => false,
        Err(SpoolError::Io { .. }) => true,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn each_way_to_sync_does_so_when_it_says() {
    for (fsync, by_append, by_timer, by_the_end_of_a_segment) in [
        (Fsync::Never, false, false, false),
        (Fsync::Interval(HOUR), false, false, true),
        (Fsync::Interval(Duration::ZERO), true, true, true),
        (Fsync::Always, true, false, true),
    ] {
        let (journal, mut pipe, _dir) = on_a_pipe(fsync);
        assert!(!was_synced(journal.sync_if_due()), "{fsync:?}: what it began with is synced, or not due");
        let entry = "an entry that is written before it is synced";
        assert_eq!(was_synced(journal.append(&[entry])), by_append, "{fsync:?}");
        assert_eq!(was_synced(journal.sync_if_due()), by_timer, "{fsync:?}");
        // The segment is full: this one goes to another, a real file.
        assert_eq!(was_synced(journal.append(&["next"])), by_the_end_of_a_segment, "{fsync:?}");
        drop(journal);
        let mut written = Vec::new();
        pipe.read_to_end(&mut written).expect("the end of the pipe");
        assert!(written.ends_with(entry.as_bytes()), "{fsync:?}: {} bytes", written.len());
    }
}

#[test]
fn an_interval_that_is_over_is_noticed_by_the_timer() {
    let (journal, _pipe, _dir) = on_a_pipe(Fsync::Interval(Duration::from_millis(1)));
    writer(&journal).synced_at = Instant::now() + HOUR;
    assert!(!was_synced(journal.append(&["entry"])) && !was_synced(journal.sync_if_due()), "not over yet");
    writer(&journal).synced_at = Instant::now();
    sleep(Duration::from_millis(2));
    assert!(was_synced(journal.sync_if_due()));
}

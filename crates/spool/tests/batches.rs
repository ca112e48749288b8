//! Batches on disk: what was put is read, whatever happened to the process or to the file.

#![allow(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use magicapi_spool::{Batches, SpoolError, check_batch, list_batches, list_set_aside, read_batch};
use proptest::prelude::*;

const LIMIT: u64 = 1 << 20;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn only_file(dir: &Path) -> std::path::PathBuf {
    let mut files: Vec<_> =
        fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.is_file());
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

#[test]
fn another_process_finds_what_was_put_oldest_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut batches = Batches::open(dir.path(), LIMIT).expect("a spool");
    batches.put(&["younger"], at(9)).expect("room");
    batches.put(&["older", ""], at(3)).expect("room");
    drop(batches);
    let mut batches = Batches::open(dir.path(), LIMIT).expect("a spool");
    assert_eq!((batches.records(), batches.list().count()), (3, 2));
    let oldest = batches.oldest().expect("two batches").clone();
    assert_eq!((oldest.records, oldest.oldest), (2, at(3)));
    assert_eq!(batches.read(oldest.id).expect("a batch"), ["older", ""]);
    assert_eq!(batches.remove(oldest.id).expect("a file"), 2);
    assert_eq!(batches.list().map(|info| info.records).collect::<Vec<_>>(), [1]);
    let third = batches.put(&["new"], at(9)).expect("room");
    assert_eq!(batches.read(third).expect("a batch"), ["new"], "a number is used once");
}

#[test]
fn files_are_private_and_bounded_in_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = dir.path().join("exporter");
    let mut batches = Batches::open(&spool, 100).expect("a spool");
    batches.put(&["a record"], at(0)).expect("room");
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!((mode(&spool), mode(&only_file(&spool))), (0o700, 0o600));
    let used = batches.bytes();
    assert_eq!(used, fs::metadata(only_file(&spool)).expect("a file").len());
    let noise: Vec<u8> = (0..200_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let full = batches.put(&[noise], at(1));
    assert!(
        matches!(full, Err(SpoolError::Full { used: found, limit: 100, .. }) if found == used),
        "{full:?}"
    );
    assert_eq!(only_file(&spool).extension().expect("an ending"), "batch", "nothing half written is left");
}

#[test]
fn a_half_written_file_is_no_batch() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("1800000000000-00000000-1.batch.tmp"), b"MAGI").expect("a file");
    let batches = Batches::open(dir.path(), LIMIT).expect("a spool");
    assert!(batches.is_empty());
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

#[test]
fn age_takes_the_old_ones_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut batches = Batches::open(dir.path(), LIMIT).expect("a spool");
    let now = SystemTime::now();
    batches.put(&["old", "old"], now - Duration::from_hours(3)).expect("room");
    batches.put(&["young"], now - Duration::from_hours(1)).expect("room");
    assert_eq!(batches.expire(Duration::from_hours(2)).expect("files"), 2);
    assert_eq!(batches.records(), 1);
}

#[test]
fn each_changed_byte_is_found_and_the_file_set_aside() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut batches = Batches::open(dir.path(), LIMIT).expect("a spool");
    let id = batches.put(&["one record", "another"], at(0)).expect("room");
    let path = only_file(dir.path());
    let whole = fs::read(&path).expect("a file");
    for place in (0..whole.len()).filter(|place| !(10..16).contains(place)) {
        let mut changed = whole.clone();
        changed[place] ^= 0x41;
        fs::write(&path, &changed).expect("a file");
        let error = batches.read(id).expect_err("a changed file");
        assert!(error.is_about_content(), "byte {place}: {error}");
    }
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).expect("a file");
        assert!(batches.read(id).is_err(), "{length} bytes of {}", whole.len());
    }
    assert_eq!(batches.set_aside(id).expect("a file"), 2);
    assert!(batches.is_empty() && batches.bytes() == 0);
    assert_eq!(fs::read_dir(dir.path().join("corrupt")).expect("a directory").count(), 1);
    assert!(Batches::open(dir.path(), LIMIT).expect("a spool").is_empty(), "it does not come back");
}

/// Written by the release that introduced the version; never written again.
#[test]
fn version_1_stays_readable() {
    let dir = tempfile::tempdir().expect("a directory");
    let name = "1800000000000-00000000-3.batch";
    fs::write(dir.path().join(name), include_bytes!("fixtures/v1.batch")).expect("a file");
    let batches = Batches::open(dir.path(), LIMIT).expect("a spool");
    let records = batches.read(batches.oldest().expect("a batch").id).expect("records");
    assert_eq!(records, ["{\"id\":\"msg_1\"}", "", "third"]);
}

#[test]
fn a_newer_version_is_named_as_such() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut file = include_bytes!("fixtures/v1.batch").to_vec();
    file[8] = 9;
    fs::write(dir.path().join("1800000000000-00000000-3.batch"), file).expect("a file");
    let batches = Batches::open(dir.path(), LIMIT).expect("a spool");
    let error = batches.read(batches.oldest().expect("a batch").id).expect_err("a newer file");
    assert!(matches!(error, SpoolError::Newer { version: 9, .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_records_are_read_as_they_were_put(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..20)) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut batches = Batches::open(dir.path(), LIMIT).expect("a spool");
        let id = batches.put(&records, at(0)).expect("room");
        prop_assert_eq!(batches.read(id).expect("records"), records);
    }
}

#[test]
fn a_directory_is_looked_at_without_opening_it_and_files_set_aside_come_back() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(list_batches(&dir.path().join("absent")).expect("none").is_empty());
    let mut batches = Batches::open(dir.path(), LIMIT).expect("a spool");
    batches.put(&["younger"], at(9)).expect("room");
    let older = batches.put(&["older", ""], at(3)).expect("room");
    fs::write(dir.path().join("half.tmp"), "unfinished").expect("a file");
    let seen = list_batches(dir.path()).expect("a directory");
    assert_eq!(seen, batches.list().cloned().collect::<Vec<_>>());
    assert!(dir.path().join("half.tmp").exists(), "looking changes nothing");
    let path = dir.path().join(&seen[0].file);
    assert_eq!(read_batch(&path).expect("a batch"), ["older", ""]);
    check_batch(&path).expect("a batch");

    let whole = fs::read(&path).expect("a file");
    fs::write(&path, &whole[..whole.len() - 1]).expect("a file");
    assert!(check_batch(&path).is_err(), "a byte is missing");
    batches.set_aside(older).expect("set aside");
    let aside = list_set_aside(dir.path()).expect("a directory").remove(0);
    assert!(batches.bring_back(&aside.file).is_err_and(|error| error.is_about_content()));
    assert_eq!((batches.records(), list_set_aside(dir.path()).expect("a directory").len()), (1, 1));
    fs::write(dir.path().join("corrupt").join(&aside.file), &whole).expect("a file");
    assert_eq!(batches.bring_back(&aside.file).expect("it can be read now"), 2);
    assert_eq!((batches.records(), list_set_aside(dir.path()).expect("a directory").len()), (3, 0));
    let oldest = batches.oldest().expect("a batch").id;
    assert_eq!(batches.read(oldest).expect("a batch"), ["older", ""]);
    assert!(batches.bring_back("../x.batch").is_err(), "not a name of ours");
}

use std::fs;

use super::*;
use crate::schema::VERSION;
use crate::{LogQuery, Reader};

fn version(conn: &rusqlite::Connection) -> i32 {
    conn.pragma_query_value(None, "user_version", |row| row.get(0)).expect("version")
}

fn refusal(place: &Place) -> StoreError {
    let error = Store::open(place.options()).expect_err("refused");
    assert!(error.to_string().contains("magicapi.db"), "{error}");
    assert!(error.to_string().contains(';'), "names a remedy: {error}");
    error
}

fn prepare(place: &Place, sql: &str) {
    fs::create_dir_all(place.path().parent().expect("dir")).expect("dir");
    place.other().execute_batch(sql).expect("sql");
}

#[test]
fn an_empty_file_of_version_0_becomes_a_store() {
    // Empty; and with a header, made by some tool that wrote nothing of its own.
    for sql in ["", "PRAGMA journal_mode = WAL; VACUUM; CREATE TABLE t (x); DROP TABLE t;"] {
        let place = Place::new();
        prepare(&place, sql);
        assert_eq!(version(&place.other()), 0);
        let store = place.open();
        store.ledger().record(entry(RequestId::mint(), 1));
        store.close(SOON).expect("closes");
        let conn = place.other();
        assert_eq!(version(&conn), VERSION);
        let vacuum: i64 = conn.pragma_query_value(None, "auto_vacuum", |row| row.get(0)).expect("pragma");
        assert_eq!(vacuum, 2, "incremental");
        assert_eq!(ledger_rows(&place.path()).len(), 1);
    }
}

#[test]
fn what_is_not_a_store_is_refused_by_name() {
    let place = Place::new();
    fs::create_dir_all(place.path().parent().expect("dir")).expect("dir");
    fs::write(place.path(), "not a database, but long enough to look at".repeat(100)).expect("file");
    assert!(matches!(refusal(&place), StoreError::NotADatabase { .. }));

    let place = Place::new();
    prepare(&place, "CREATE TABLE theirs (x)");
    assert!(matches!(refusal(&place), StoreError::Foreign { .. }));
    let place = Place::new();
    prepare(&place, "PRAGMA user_version = 7");
    assert!(matches!(refusal(&place), StoreError::Foreign { .. }));
    assert_eq!(version(&place.other()), 7, "untouched");
}

#[test]
fn a_newer_version_is_refused_and_left_alone() {
    let place = Place::new();
    drop(place.open());
    place.other().pragma_update(None, "user_version", VERSION + 1).expect("pragma");
    let found = VERSION + 1;
    assert!(matches!(refusal(&place), StoreError::NewerVersion { found: seen, .. } if seen == found));
    assert!(matches!(Reader::open(&place.path()), Err(StoreError::NewerVersion { .. })));
    assert_eq!(version(&place.other()), found);
}

#[test]
fn a_damaged_file_is_refused() {
    let place = Place::new();
    let store = place.open();
    export(&store, &[record(DAY, "x")]);
    store.close(SOON).expect("closes");
    let mut bytes = fs::read(place.path()).expect("file");
    bytes[100..4096].fill(0x5a);
    fs::write(place.path(), bytes).expect("file");
    assert!(matches!(refusal(&place), StoreError::Corrupt { .. }));
}

#[test]
fn a_locked_file_is_refused() {
    let place = Place::new();
    prepare(&place, "PRAGMA user_version = 0");
    let other = place.other();
    other.execute_batch("BEGIN EXCLUSIVE").expect("locked");
    let limits = Limits { busy: Duration::from_millis(50), ..Limits::default() };
    let error = Store::open_with(place.options(), limits).expect_err("refused");
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
}

#[test]
fn a_directory_that_cannot_be_made_is_refused() {
    let place = Place::new();
    fs::write(place.path().parent().expect("dir"), "a file where the directory should be").expect("file");
    assert!(matches!(refusal(&place), StoreError::Create { .. }));
}

#[cfg(unix)]
#[test]
fn files_and_directory_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    fs::create_dir_all(place.path().parent().expect("dir")).expect("dir");
    fs::write(place.path(), "").expect("file");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o644)).expect("mode");
    let store = place.open();
    export(&store, &[record(DAY, "x")]);
    for file in fs::read_dir(place.path().parent().expect("dir")).expect("dir") {
        let file = file.expect("file");
        let found = file.metadata().expect("metadata");
        let private = if found.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(found.permissions().mode() & 0o777, private, "{file:?}");
    }
    let made = Place::new();
    drop(made.open());
    let mode = made.path().parent().expect("dir").metadata().expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_reader_works_beside_a_gateway_and_without_one() {
    let place = Place::new();
    let missing = Reader::open(&place.path()).expect_err("nothing there");
    assert!(matches!(missing, StoreError::Missing { .. }));
    let store = place.open();
    export(&store, &[record(DAY, "x")]);
    let beside = Reader::open(&place.path()).expect("reader");
    assert_eq!(beside.list(&LogQuery::default()).expect("lists").rows.len(), 1);
    drop(beside);
    store.close(SOON).expect("closes");
    let side = place.path().with_extension("db-wal");
    assert!(!side.exists(), "carried over at the end");
    let alone = Reader::open(&place.path()).expect("reader");
    assert_eq!(alone.list(&LogQuery::default()).expect("lists").rows.len(), 1);
    let write = "INSERT INTO store_state VALUES ('x', 1)";
    assert!(alone.connection().execute(write, []).is_err(), "read-only");
}

#[test]
fn a_reader_leaves_an_empty_file_as_it_is() {
    let place = Place::new();
    prepare(&place, "");
    assert!(matches!(Reader::open(&place.path()), Err(StoreError::OlderVersion { found: 0, .. })));
}

#[test]
fn what_was_committed_survives_a_killed_process() {
    let place = Place::new();
    let store = place.open();
    (0..100).for_each(|_| store.ledger().record(entry(RequestId::mint(), 1)));
    store.flush(SOON).expect("flushed");
    // The files as a killed process leaves them: the write-ahead log is not carried over.
    let copy = Place::new();
    fs::create_dir_all(copy.path().parent().expect("dir")).expect("dir");
    for side in ["db", "db-wal"] {
        fs::copy(place.path().with_extension(side), copy.path().with_extension(side)).expect("copies");
    }
    assert_eq!(ledger_rows(&copy.path()).len(), 100);
    drop(copy.open());
    assert_eq!(ledger_rows(&copy.path()).len(), 100);
}

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.extension().is_some_and(|ending| ending == "journal")).collect()
}

/// Records entries that the store cannot write, because another program holds it; they stand in the journal.
fn write_while_locked(place: &Place, store: &Store, count: usize) -> (rusqlite::Connection, Vec<RequestId>) {
    let other = place.other();
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let ids: Vec<_> = (0..count).map(|_| RequestId::mint()).collect();
    for id in &ids {
        store.ledger().record(entry(*id, 1));
    }
    let until = Instant::now() + SOON;
    while files(&place.journal()).iter().map(|file| fs::metadata(file).expect("a file").len()).sum::<u64>()
        < 300 * count as u64
    {
        assert!(Instant::now() < until, "never in the journal");
        std::thread::sleep(Duration::from_millis(5));
    }
    (other, ids)
}

fn ids_in(path: &Path) -> Vec<RequestId> {
    ledger_rows(path).iter().map(|row| row.id).collect()
}

#[test]
fn rows_of_a_locked_store_survive_a_kill_in_the_journal() {
    let place = Place::new();
    let store = place.open_with(Limits { busy: Duration::from_millis(50), ..Limits::default() });
    store.ledger().record(entry(RequestId::mint(), 2));
    store.flush(SOON).expect("flushed");
    let (other, ids) = write_while_locked(&place, &store, 50);
    // What a kill would leave.
    let next = Place::new();
    fs::create_dir_all(next.journal()).expect("a directory");
    for file in files(&place.journal()) {
        fs::copy(&file, next.journal().join(file.file_name().expect("a name"))).expect("a file");
    }
    let after = next.open();
    after.flush(SOON).expect("flushed");
    let rows = ids_in(&next.path());
    assert!(ids.iter().all(|id| rows.contains(id)), "{} of {}", rows.len(), ids.len());
    assert!(after.status().journal.expect("a journal").recovered >= 50);
    after.close(SOON).expect("closes");
    assert!(files(&next.journal()).is_empty(), "what is in the store is not kept twice");
    other.execute_batch("ROLLBACK").expect("unlocked");
    store.close(SOON).expect("closes");
    assert_eq!(ids_in(&place.path()).len(), 51);
    assert!(files(&place.journal()).is_empty());
}

#[test]
fn what_the_store_cannot_write_at_the_end_waits_for_the_next_start() {
    let place = Place::new();
    let store = place.open_with(Limits { busy: Duration::from_millis(50), ..Limits::default() });
    let (other, ids) = write_while_locked(&place, &store, 20);
    store.close(Duration::from_millis(200)).expect("nothing is lost");
    assert_eq!(store.status().ledger.missing, 0);
    drop(store);
    other.execute_batch("ROLLBACK").expect("unlocked");
    assert!(ids_in(&place.path()).is_empty());
    let after = place.open();
    // One of them comes again, from elsewhere: an id has one row.
    after.ledger().record(entry(ids[0], 1));
    after.close(SOON).expect("closes");
    assert_eq!(ids_in(&place.path()).len(), 20);
    assert_eq!(after.status().ledger.repeated, 1);
    assert!(files(&place.journal()).is_empty());
}

#[test]
fn a_damaged_journal_costs_what_stands_behind_the_fault() {
    let place = Place::new();
    let store = place.open_with(Limits { busy: Duration::from_millis(50), ..Limits::default() });
    let (other, _) = write_while_locked(&place, &store, 20);
    store.close(Duration::from_millis(100)).expect("nothing is lost");
    drop(store);
    other.execute_batch("ROLLBACK").expect("unlocked");
    let victim = files(&place.journal()).pop().expect("a file");
    let mut bytes = fs::read(&victim).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&victim, bytes).expect("a file");
    let after = place.open();
    after.close(SOON).expect("closes");
    let rows = ids_in(&place.path()).len();
    assert!((1..20).contains(&rows), "{rows}");
    assert_eq!(files(&place.journal().join("corrupt")).len(), 1);
    assert!(files(&place.journal()).is_empty());
}

#[test]
fn a_journal_that_cannot_be_written_is_said_and_costs_no_row() {
    let place = Place::new();
    fs::create_dir_all(place.journal().parent().expect("a directory")).expect("a directory");
    fs::write(place.journal(), b"").expect("a file");
    let store = place.open();
    store.ledger().record(entry(RequestId::mint(), 1));
    store.flush(SOON).expect("flushed");
    let status = store.status().journal.expect("a journal");
    assert!(status.error.is_some_and(|error| error.contains("journal/ledger")));
    assert_eq!(status.unwritten, 1);
    assert_eq!(ids_in(&place.path()).len(), 1);
}

/// A disk that takes something again ends the failure, though no row comes meanwhile.
#[test]
fn a_journal_without_work_learns_that_it_can_be_written_again() {
    let place = Place::new();
    let store = place.open();
    let away = place.journal().with_extension("away");
    fs::rename(place.journal(), &away).expect("a directory");
    store.ledger().record(entry(RequestId::mint(), 1));
    store.flush(SOON).expect("flushed");
    let error = || store.status().journal.expect("a journal").error;
    assert!(error().is_some());
    fs::rename(&away, place.journal()).expect("a directory");
    let begun = Instant::now();
    while error().is_some() {
        assert!(begun.elapsed() < SOON * 3, "{:?}", error());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Written by the release that introduced the form; never written again.
#[test]
fn the_first_form_stays_readable() {
    let place = Place::new();
    fs::create_dir_all(place.journal()).expect("a directory");
    fs::write(place.journal().join("0000000000.journal"), include_bytes!("v1.journal")).expect("a file");
    let store = place.open();
    store.close(SOON).expect("closes");
    let rows = ledger_rows(&place.path());
    assert_eq!(rows.len(), 2);
    let of_fixture = |number: u8| {
        let id = RequestId::parse(&format!("msg_0192f3a0-0000-7000-8000-{number:012}")).expect("an id");
        LedgerEntry { timestamp: rows[0].timestamp, ..entry(id, u32::from(number)) }
    };
    assert_eq!(rows, [of_fixture(1), of_fixture(2)]);
}

proptest! {
    #[test]
    fn every_entry_comes_back_from_the_journal(
        texts in prop::collection::vec(prop::option::of(".{0,40}"), 8),
        numbers in prop::collection::vec(prop::option::of(any::<u64>()), 10),
        money in any::<Option<i128>>(),
        attempts in 0u32..3,
    ) {
        let mut given = entry(RequestId::mint(), attempts);
        let mut texts = texts.into_iter();
        let mut text = || texts.next().flatten();
        (given.key_name, given.project_id, given.org_id, given.user_id) = (text(), text(), text(), text());
        (given.provider, given.model, given.price_version, given.service_tier) = (text(), text(), text(), text());
        (given.usage.input, given.usage.cache_read, given.usage.output_audio) = (numbers[0], numbers[1], numbers[2]);
        given.usage.reported_cost = money.map(Money::from_pico_usd);
        given.cost = money.map(Money::from_pico_usd);
        for (attempt, number) in given.attempts.iter_mut().zip(&numbers[3..]) {
            attempt.usage.input = *number;
            attempt.error_type = number.map(|number| format!("e{number}").into());
        }
        let written = crate::journal::row::write(&given);
        prop_assert_eq!(crate::journal::row::read(&written).expect("an entry"), given);
    }
}

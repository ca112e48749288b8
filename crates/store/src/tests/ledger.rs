use std::collections::HashSet;

use magicapi_kernel::Ledger as _;
use proptest::prelude::*;

use super::*;
use crate::NoLedger;

#[test]
fn every_field_comes_back_and_unknown_stays_null() {
    let place = Place::new();
    let store = place.open();
    let mut given = entry(RequestId::mint(), 2);
    given.usage = Usage::default();
    (given.usage.cache_write_1h, given.usage.output_image) = (Some(7), Some(0));
    given.usage.reported_cost = Some(Money::from_pico_usd(5));
    given.cost = None;
    given.outcome = Outcome::TimedOut;
    given.attempts[0].error_type = Some("provider_timeout".into());
    store.ledger().record(given.clone());
    store.close(SOON).expect("closes");

    assert_eq!(ledger_rows(&place.path()), [given]);
    let nulls: i64 = place
        .other()
        .query_row(
            "SELECT (input IS NULL) + (output IS NULL) + (cost IS NULL) FROM ledger_request",
            [],
            |row| row.get(0),
        )
        .expect("row");
    assert_eq!(nulls, 3);
}

#[test]
fn usage_and_money_beyond_the_column_saturate() {
    let place = Place::new();
    let store = place.open();
    let mut given = entry(RequestId::mint(), 0);
    given.usage.input = Some(u64::MAX);
    given.cost = Some(Money::from_pico_usd(i128::MAX));
    store.ledger().record(given);
    store.flush(SOON).expect("flushed");
    let rows = ledger_rows(&place.path());
    assert_eq!(rows[0].usage.input, Some(i64::MAX.unsigned_abs()));
    assert_eq!(rows[0].cost, Some(Money::from_pico_usd(i64::MAX.into())));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// N requests in, exactly N rows out, whatever is written twice and however it is split over runs.
    #[test]
    fn n_entries_in_are_n_rows_out(
        picks in prop::collection::vec((0usize..40, 0u32..4), 1..120),
        reopen in 0usize..120,
    ) {
        let place = Place::new();
        let ids: Vec<_> = (0..40).map(|_| RequestId::mint()).collect();
        let mut store = place.open();
        let mut expected = std::collections::BTreeMap::new();
        let (mut written, mut repeated) = (0, 0);
        for (index, (pick, attempts)) in picks.iter().enumerate() {
            if index == reopen {
                store.close(SOON).expect("closes");
                written += store.status().ledger.written;
                repeated += store.status().ledger.repeated;
                store = place.open();
            }
            store.ledger().record(entry(ids[*pick], *attempts));
            expected.entry(ids[*pick].to_string()).or_insert(*attempts as usize);
        }
        store.close(SOON).expect("closes");
        let status = store.status().ledger;
        prop_assert_eq!((written + status.written) as usize, expected.len());
        prop_assert_eq!((repeated + status.repeated) as usize, picks.len() - expected.len());
        prop_assert_eq!((status.queued, status.missing), (0, 0));
        let found: std::collections::BTreeMap<_, _> =
            ledger_rows(&place.path()).into_iter().map(|row| (row.id.to_string(), row.attempts.len())).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn what_does_not_fit_is_counted_and_nothing_else_is_lost() {
    let place = Place::new();
    let limits = Limits { entries: 100, batch: 16, busy: Duration::from_millis(20), ..Limits::default() };
    let store = Arc::new(place.open_with(limits));
    let blocker = place.other();
    blocker.execute_batch("BEGIN IMMEDIATE").expect("locked");

    let given: u64 = 4 * 250;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let ledger = store.ledger();
            std::thread::spawn(move || (0..250).for_each(|_| ledger.record(entry(RequestId::mint(), 1))))
        })
        .collect();
    for thread in threads {
        thread.join().expect("records");
    }
    let status = store.status().ledger;
    assert_eq!((status.queued, status.missing, status.ready), (100, given - 100, false));
    until("trouble is told", || store.status().last_error.is_some());
    assert!(!store.status().storage_failed, "another program's lock passes");

    blocker.execute_batch("COMMIT").expect("unlocked");
    store.flush(SOON).expect("flushed");
    until("ready again", || store.ready());
    let rows = ledger_rows(&place.path());
    let unique: HashSet<_> = rows.iter().map(|row| row.id).collect();
    assert_eq!((rows.len(), unique.len()), (100, 100));
    assert_eq!(store.status().ledger.missing, given - rows.len() as u64);
    assert_eq!(store.status().last_error, None);
}

#[test]
fn bytes_bound_the_queue_too() {
    let place = Place::new();
    let limits = Limits { bytes: 64 << 10, busy: Duration::from_millis(20), ..Limits::default() };
    let store = place.open_with(limits);
    let blocker = place.other();
    blocker.execute_batch("BEGIN IMMEDIATE").expect("locked");
    for _ in 0..20 {
        let mut large = entry(RequestId::mint(), 0);
        large.user_id = Some("u".repeat(10_000));
        store.ledger().record(large);
    }
    let status = store.status().ledger;
    assert!(status.queued < 7 && status.queued_bytes <= 64 << 10, "{status:?}");
    assert_eq!((status.queued + status.missing, status.ready), (20, false));
}

#[test]
fn record_does_not_wait_for_a_locked_file() {
    let place = Place::new();
    let store = place.open();
    let blocker = place.other();
    blocker.execute_batch("BEGIN IMMEDIATE").expect("locked");
    store.ledger().record(entry(RequestId::mint(), 1));
    std::thread::sleep(Duration::from_millis(100));
    let (ledger, start) = (store.ledger(), Instant::now());
    (0..1000).for_each(|_| ledger.record(entry(RequestId::mint(), 1)));
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    blocker.execute_batch("COMMIT").expect("unlocked");
    store.flush(SOON).expect("flushed");
    assert_eq!(ledger_rows(&place.path()).len(), 1001);
}

#[test]
fn a_full_disk_is_not_ready_and_keeps_what_it_holds() {
    let place = Place::new();
    let limits = Limits { max_pages: Some(40), entries: 4000, ..Limits::default() };
    let store = place.open_with(limits);
    let given = 1500;
    (0..given).for_each(|_| store.ledger().record(entry(RequestId::mint(), 1)));
    until("the disk is full", || store.status().storage_failed);
    assert!(!store.ready());
    let status = store.status();
    assert_eq!(status.ledger.missing, 0, "{status:?}");
    assert!(status.last_error.is_some_and(|error| error.contains("full")));
    store.close(Duration::from_millis(300)).expect("what has no room stands in the journal");
    let status = store.status().ledger;
    assert_eq!((status.missing, status.queued), (0, 0));
    assert!(status.written < given);
    drop(store);
    place.open().close(SOON).expect("closes");
    assert_eq!(ledger_rows(&place.path()).len() as u64, given);
}

#[test]
fn without_a_journal_what_has_no_room_at_the_end_is_counted() {
    let place = Place::new();
    let limits = Limits { max_pages: Some(40), entries: 4000, ..Limits::default() };
    let options = StoreOptions { journal: None, ..place.options() };
    let store = Store::open_with(options, limits).expect("opens");
    let given = 1500;
    (0..given).for_each(|_| store.ledger().record(entry(RequestId::mint(), 1)));
    until("the disk is full", || store.status().storage_failed);
    let left = store.close(Duration::from_millis(300)).expect_err("no room");
    assert!(matches!(left, StoreError::NotFlushed { .. }), "{left}");
    let status = store.status().ledger;
    assert_eq!((status.written + status.missing, status.queued), (given, 0));
    assert_eq!(ledger_rows(&place.path()).len() as u64, status.written);
}

#[test]
fn a_store_that_refuses_finds_out_by_itself_that_it_can_write_again() {
    let place = Place::new();
    let limits = Limits { max_pages: Some(200), tidy: Duration::from_secs(2), ..Limits::default() };
    let store = place.open_with(limits);
    let large = record(DAY, &noise(2_000_000, 7));
    assert!(matches!(export(&store, &[large]), Delivery::Retry { .. }));
    assert!(!store.ready() && store.status().storage_failed);
    until("it writes again", || store.ready());
    assert_eq!(store.status().last_error, None);
}

#[test]
fn the_ledger_is_read_in_pages() {
    let place = Place::new();
    let store = place.open();
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
    for n in 0..50 {
        let mut given = entry(RequestId::mint(), 1);
        given.timestamp = at + Duration::from_millis(n / 5);
        store.ledger().record(given);
    }
    store.flush(SOON).expect("flushed");
    let reader = store.reader().expect("reader");
    let (mut rows, mut last) = (Vec::<LedgerEntry>::new(), None::<LedgerEntry>);
    loop {
        let page = reader.ledger_rows(5000..5009, last.as_ref(), 7).expect("rows");
        last = page.last().cloned();
        if last.is_none() {
            break;
        }
        rows.extend(page);
    }
    assert_eq!(rows.len(), 45);
    let places: Vec<_> = rows.iter().map(|row| (row.timestamp, row.id)).collect();
    assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn on_a_full_disk_the_log_makes_way_for_the_ledger() {
    let place = Place::new();
    let store = place.open_with(Limits { max_pages: Some(1000), ..Limits::default() });
    let mut seed = 0;
    while export(&store, &[record(DAY, &noise(200_000, seed + 7))]) == Delivery::Delivered {
        seed += 1;
    }
    let logged = store.status().request_log.written;
    assert!(store.status().storage_failed && logged > 5);
    (0..2000).for_each(|_| store.ledger().record(entry(RequestId::mint(), 1)));
    store.flush(SOON).expect("flushed");
    assert!(store.ready());
    assert_eq!(ledger_rows(&place.path()).len(), 2000);
    assert!(store.status().request_log.deleted > 0);
}

#[test]
fn after_close_entries_are_counted_as_missing() {
    let place = Place::new();
    let store = place.open();
    let ledger = store.ledger();
    ledger.record(entry(RequestId::mint(), 1));
    store.close(SOON).expect("closes");
    store.close(SOON).expect("closes again");
    ledger.record(entry(RequestId::mint(), 1));
    let status = store.status().ledger;
    assert_eq!((status.written, status.missing, status.ready), (1, 1, false));
    assert_eq!(export(&store, &[record(DAY, "x")]), Delivery::Retry { after: Some(Duration::from_secs(1)) });
}

#[test]
fn dropping_the_store_writes_what_waits() {
    let place = Place::new();
    let store = place.open();
    (0..50).for_each(|_| store.ledger().record(entry(RequestId::mint(), 1)));
    drop(store);
    assert_eq!(ledger_rows(&place.path()).len(), 50);
}

#[test]
fn no_store_counts() {
    let ledger = NoLedger::default();
    ledger.record(entry(RequestId::mint(), 1));
    assert_eq!((ledger.ready(), ledger.missing()), (true, 1));
}

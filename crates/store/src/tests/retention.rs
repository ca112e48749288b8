use super::*;
use crate::LogQuery;

fn all(store: &Store) -> Vec<crate::LogRow> {
    let query = LogQuery { limit: Some(1000), ..LogQuery::default() };
    store.reader().expect("reader").list(&query).expect("lists").rows
}

/// The main file alone, as it is once everything is carried over.
fn file(place: &Place) -> u64 {
    place.path().metadata().expect("file").len()
}

#[test]
fn age_deletes_the_old_and_keeps_the_rest_and_the_ledger() {
    let place = Place::new();
    let store = place.open_with(Limits { tidy: Duration::from_millis(50), ..Limits::default() });
    let mut old = entry(RequestId::mint(), 1);
    old.timestamp = SystemTime::now() - 400 * DAY;
    store.ledger().record(old);
    let aged: Vec<_> = (0..600).map(|_| record(8 * DAY, "old")).collect();
    let young: Vec<_> = (0..30).map(|_| record(6 * DAY, "young")).collect();
    export(&store, &aged);
    export(&store, &young);
    until("the old are gone", || all(&store).len() == 30);
    assert_eq!(store.status().request_log.deleted, 600);
    store.set_retention(DAY, 1 << 30);
    until("all are gone", || all(&store).is_empty());
    store.close(SOON).expect("closes");
    assert_eq!(ledger_rows(&place.path()).len(), 1);
    let bodies: i64 = place
        .other()
        .query_row("SELECT count(*) FROM request_log_body", [], |row| row.get(0))
        .expect("count");
    assert_eq!(bodies, 0);
}

#[test]
fn size_keeps_the_newest_and_the_file_keeps_to_it() {
    for body in [300, 3000, 30_000] {
        let place = Place::new();
        let bound: u64 = 4 << 20;
        let options = StoreOptions { retention_size: bound, ..place.options() };
        let store = Store::open(options).expect("opens");
        store.ledger().record(entry(RequestId::mint(), 2));
        let total = 3 * bound / (body + 1000);
        let mut given = Vec::new();
        for start in (0..total).step_by(100) {
            let batch: Vec<_> = (start..total.min(start + 100))
                .map(|n| {
                    record(
                        Duration::from_secs(total - n),
                        &noise(usize::try_from(body).expect("size"), n + 1),
                    )
                })
                .collect();
            assert_eq!(export(&store, &batch), Delivery::Delivered);
            given.extend(batch);
        }
        let free = place.other();
        until("it is tidy", || {
            let before = store.status().request_log.deleted;
            std::thread::sleep(Duration::from_millis(100));
            let pages: i64 =
                free.pragma_query_value(None, "freelist_count", |row| row.get(0)).expect("pragma");
            before > 0 && store.status().request_log.deleted == before && pages * 4096 <= 512 << 10
        });
        drop(free);
        let kept = all_ids(&store);
        let newest: Vec<_> =
            given.iter().rev().take(kept.len()).map(|record| record.id().to_string()).collect();
        assert_eq!(kept, newest, "the newest are kept");
        store.close(SOON).expect("closes");
        let size = file(&place);
        assert!(size <= bound + bound / 20 && size >= bound / 2, "{size} of {bound} with bodies of {body}");
        assert_eq!(ledger_rows(&place.path()).len(), 1);
    }
}

fn all_ids(store: &Store) -> Vec<String> {
    let reader = store.reader().expect("reader");
    let mut query = LogQuery { limit: Some(1000), ..LogQuery::default() };
    let mut ids = Vec::new();
    loop {
        let page = reader.list(&query).expect("lists");
        ids.extend(page.rows.into_iter().map(|row| row.id));
        query.cursor = page.next;
        if query.cursor.is_none() {
            return ids;
        }
    }
}

#[test]
fn a_smaller_size_shrinks_the_file_while_ledger_rows_go_on() {
    let place = Place::new();
    let store = place.open();
    for batch in 0..20 {
        let batch: Vec<_> = (1..50).map(|n| record(Duration::ZERO, &noise(20_000, batch * 50 + n))).collect();
        export(&store, &batch);
    }
    assert!(store.status().file_bytes > 16 << 20);
    store.set_retention(7 * DAY, 2 << 20);
    for _ in 0..200 {
        store.ledger().record(entry(RequestId::mint(), 1));
        store.flush(Duration::from_secs(5)).expect("no step holds a write for long");
    }
    until("it is small", || {
        std::thread::sleep(Duration::from_millis(50));
        file(&place) < 3 << 20
    });
    store.close(SOON).expect("closes");
    assert_eq!(ledger_rows(&place.path()).len(), 200);
}

#[test]
fn the_sum_of_bytes_is_the_sum_of_the_rows() {
    let place = Place::new();
    let store = place.open_with(Limits { tidy: Duration::from_millis(50), ..Limits::default() });
    let batch: Vec<_> = (0..300).map(|n| record(DAY * (n % 14), "x")).collect();
    export(&store, &batch);
    export(&store, &batch);
    // Those that were deleted come in again, as after a retry, and go again.
    std::thread::sleep(Duration::from_millis(300));
    store.close(SOON).expect("closes");
    let (kept, sum): (i64, i64) = place
        .other()
        .query_row(
            "SELECT (SELECT value FROM store_state WHERE key = 'log_bytes'), sum(stored_bytes) FROM request_log",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .expect("sums");
    assert_eq!(kept, sum);
}

//! What the store does per second: `cargo test -p magicapi-store --release speed -- --ignored --nocapture`.

use super::*;

#[test]
#[ignore = "a measurement"]
fn measure() {
    let place = Place::new();
    let store = place.open();
    let entries: Vec<_> = (0..60_000).map(|_| entry(RequestId::mint(), 1)).collect();
    let (start, count) = (Instant::now(), entries.len());
    let ledger = store.ledger();
    for entry in entries {
        ledger.record(entry);
    }
    let handed = start.elapsed();
    store.flush(SOON).expect("flushed");
    let rate = count as f64 / start.elapsed().as_secs_f64();
    println!("ledger: {rate:.0} entries/s, record() {:?}", handed / u32::try_from(count).expect("count"));

    for (bytes, count) in [(1 << 10, 40_000u64), (10 << 10, 20_000), (100 << 10, 2000)] {
        let text =
            |n| format!("{}{}", noise(bytes / 8, n + 1), "lorem ipsum dolor ".repeat(bytes * 7 / 8 / 18));
        let records: Vec<_> = (0..count).map(|n| record(Duration::ZERO, &text(n))).collect();
        let before = store.status().file_bytes;
        let start = Instant::now();
        for batch in records.chunks(1000) {
            assert_eq!(export(&store, batch), Delivery::Delivered);
        }
        let rate = count as f64 / start.elapsed().as_secs_f64();
        let each = (store.status().file_bytes - before) / count;
        let sum = "SELECT value FROM store_state WHERE key = 'log_bytes'";
        let counted: i64 = place.other().query_row(sum, [], |row| row.get(0)).expect("sum");
        println!(
            "log, {bytes} bytes each: {rate:.0} records/s, {each} bytes of file each, all counted as {counted}"
        );
    }
    let reader = store.reader().expect("reader");
    for query in [
        crate::LogQuery::default(),
        crate::LogQuery { provider: Some("none".into()), ..Default::default() },
        crate::LogQuery { text: Some("not there".into()), budget_ms: Some(30_000), ..Default::default() },
    ] {
        let start = Instant::now();
        let page = reader.list(&query).expect("lists");
        println!(
            "list {:?} text {:?}: {} rows in {:?}",
            query.provider,
            query.text,
            page.rows.len(),
            start.elapsed()
        );
    }
    let start = Instant::now();
    store.close(SOON).expect("closes");
    println!("close {:?}", start.elapsed());
    let start = Instant::now();
    drop(place.open());
    println!("open and close {:?}", start.elapsed());
}

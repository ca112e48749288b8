use std::sync::atomic::{AtomicBool, Ordering};

use magicapi_kernel::{Followed, LogError, RequestLogReader};
use magicapi_plugin::Health;
use serde_json::Value;
use tokio::sync::broadcast::error::TryRecvError;

use super::*;
use crate::value::unix_ms;
use crate::{LogQuery, LogRow};

fn ids(rows: &[LogRow]) -> Vec<String> {
    rows.iter().map(|row| row.id.clone()).collect()
}

#[test]
fn a_record_is_stored_once_and_read_back_byte_for_byte() {
    let place = Place::new();
    let store = place.open();
    let given = record_with(Duration::ZERO, "hello", |facts| {
        facts.ttfb_ms = None;
        facts.cost = Some(Money::from_pico_usd(45_600_000_000));
        facts.usage = Usage::of(48, 865);
        facts.route = Some("smart".into());
    });
    assert_eq!(export(&store, std::slice::from_ref(&given)), Delivery::Delivered);
    assert_eq!(export(&store, &[given.clone(), record(Duration::ZERO, "two")]), Delivery::Delivered);
    assert_eq!(store.status().request_log.written, 2);

    let reader = store.reader().expect("reader");
    let id = given.id().to_string();
    assert_eq!(reader.get(&id).expect("reads"), Some(given.otel_log_json()));
    assert_eq!(reader.get(&id["msg_".len()..]).expect("reads"), Some(given.otel_log_json()));
    assert_eq!(reader.get("msg_0").expect("reads"), None);
    let row = reader.row(&id).expect("reads").expect("there");
    assert_eq!((row.cost.map(Money::usd), row.ttfb, row.tokens.total), (Some(0.0456), None, Some(913)));
    let json = serde_json::to_value(&row).expect("json");
    assert_eq!(json["tokens"]["input"], 48);
    assert_eq!((&json["cost"], &json["ttfb"]), (&serde_json::json!(0.0456), &Value::Null));
    assert_eq!(json["metadata"]["route"], "smart");
    assert_eq!(reader.list(&LogQuery::default()).expect("lists").rows.len(), 2);
}

#[test]
fn a_document_of_16_mib_is_stored_and_read_back() {
    let place = Place::new();
    let store = place.open();
    let given = record(Duration::ZERO, &noise(16 << 20, 3));
    assert_eq!(export(&store, std::slice::from_ref(&given)), Delivery::Delivered);
    let reader = store.reader().expect("reader");
    assert_eq!(reader.get(&given.id().to_string()).expect("reads"), Some(given.otel_log_json()));
}

#[test]
fn one_exporter_keeps_documents_apart() {
    let place = Place::new();
    let store = place.open();
    let exporter = store.request_log();
    // Larger and smaller than the ones before, below and above the buffer that is kept.
    let given: Vec<_> = [10, 3 << 20, 5, 100_000, 700, 0]
        .into_iter()
        .map(|bytes| record(Duration::ZERO, &noise(bytes, 9)))
        .collect();
    for batch in given.chunks(2) {
        assert_eq!(block_on(exporter.export(batch)), Delivery::Delivered);
    }
    let reader = store.reader().expect("reader");
    for record in &given {
        assert_eq!(reader.get(&record.id().to_string()).expect("reads"), Some(record.otel_log_json()));
    }
}

#[test]
fn pages_are_newest_first_complete_and_disjoint() {
    let place = Place::new();
    let store = place.open();
    // Twenty per second of age, so that places with equal times are crossed as well.
    let batch: Vec<_> = (0..200u64).map(|n| record(Duration::from_secs(n / 20), &n.to_string())).collect();
    assert_eq!(export(&store, &batch), Delivery::Delivered);
    let reader = store.reader().expect("reader");
    let mut query = LogQuery { limit: Some(7), ..LogQuery::default() };
    let mut rows = Vec::new();
    loop {
        let page = reader.list(&query).expect("lists");
        assert!(page.rows.len() <= 7 && !page.timed_out);
        rows.extend(page.rows);
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
    }
    let places: Vec<_> = rows.iter().map(|row| (row.timestamp_ms, row.seq)).collect();
    assert_eq!(rows.len(), 200);
    assert!(places.windows(2).all(|pair| pair[0] > pair[1]));
    let bad = reader.list(&LogQuery { cursor: Some("x".into()), ..LogQuery::default() });
    assert!(matches!(bad, Err(StoreError::Cursor(_))));
}

fn odd_one() -> Arc<RequestMetrics> {
    record_with(DAY, "needle Ünïcode \"quoted\"", |facts| {
        facts.provider = Some("groq".into());
        facts.model = Some("llama".into());
        facts.requested_model = Some("smart".into());
        facts.operation = "embeddings";
        facts.outcome = Outcome::TimedOut;
        facts.status_code = 504;
        facts.error_type = Some("timeout_idle");
        facts.error_message = Some("too slow: NEEDLE".into());
        facts.latency_ms = 9000;
        facts.streamed = true;
        facts.key_name = Some("k".into());
        facts.project_id = Some("p".into());
        facts.org_id = Some("o".into());
        facts.user_id = Some("u".into());
        facts.thread_id = Some("t".into());
    })
}

#[test]
fn every_filter_finds_its_row_alone_and_agrees_with_following() {
    let place = Place::new();
    let store = place.open();
    let odd = odd_one();
    let mut batch: Vec<_> = (0..20).map(|n| record(Duration::from_secs(n), "hay")).collect();
    batch.insert(11, odd.clone());
    assert_eq!(export(&store, &batch), Delivery::Delivered);
    let reader = store.reader().expect("reader");
    let all = reader.since(&LogQuery { limit: Some(100), ..LogQuery::default() }, 0).expect("rows").rows;
    assert_eq!(ids(&all), batch.iter().map(|record| record.id().to_string()).collect::<Vec<_>>());
    let half_a_day = all[0].timestamp_ms - i64::try_from(DAY.as_millis()).expect("ms") / 2;

    let some = |text: &str| Some(text.to_owned());
    let none = LogQuery::default;
    let queries = [
        LogQuery { provider: some("groq"), ..none() },
        LogQuery { model: some("llama"), ..none() },
        LogQuery { model: some("smart"), ..none() },
        LogQuery { outcome: some("timed_out"), ..none() },
        LogQuery { status: some("error"), ..none() },
        LogQuery { status_code: Some(504), ..none() },
        LogQuery { error_type: some("timeout_idle"), ..none() },
        LogQuery { key_name: some("k"), ..none() },
        LogQuery { project_id: some("p"), ..none() },
        LogQuery { org_id: some("o"), ..none() },
        LogQuery { user_id: some("u"), ..none() },
        LogQuery { thread_id: some("t"), ..none() },
        LogQuery { operation: some("embeddings"), ..none() },
        LogQuery { streamed: Some(true), ..none() },
        LogQuery { until: Some(half_a_day), ..none() },
        LogQuery { min_latency_ms: Some(9000), ..none() },
        LogQuery { text: some("Needle"), ..none() },
    ];
    for query in &queries {
        let listed = reader.list(query).expect("lists").rows;
        assert_eq!(ids(&listed), [odd.id().to_string()], "{query:?}");
        let followed: Vec<_> = all.iter().filter(|row| query.matches(row)).cloned().collect();
        assert_eq!(listed, followed, "{query:?}");
    }
    for text in ["Ünïcode", "\"quoted\"", "llama"] {
        let query = LogQuery { text: some(text), ..none() };
        assert_eq!(ids(&reader.list(&query).expect("lists").rows), [odd.id().to_string()], "{text}");
    }
    let recent = LogQuery { since: Some(half_a_day), ..none() };
    assert_eq!(reader.list(&recent).expect("lists").rows.len(), 20);
    let both = LogQuery { status: some("error"), provider: some("openai"), ..none() };
    assert_eq!(reader.list(&both).expect("lists").rows.len(), 0);
}

#[test]
fn a_search_that_runs_out_of_time_goes_on_where_it_stopped() {
    let place = Place::new();
    let store = place.open();
    let mut batch: Vec<_> = (1..60).map(|n| record(Duration::from_secs(n), &noise(200_000, n + 1))).collect();
    batch.push(record(DAY, "the needle"));
    for part in batch.chunks(10) {
        assert_eq!(export(&store, part), Delivery::Delivered);
    }
    let reader = store.reader().expect("reader");
    let mut query = LogQuery { text: Some("the needle".into()), budget_ms: Some(1), ..LogQuery::default() };
    let (mut found, mut pages) = (Vec::new(), 0);
    loop {
        let page = reader.list(&query).expect("lists");
        pages += 1;
        found.extend(page.rows);
        let Some(next) = page.next else { break };
        assert!(page.timed_out);
        query.cursor = Some(next);
    }
    assert_eq!(ids(&found), [batch[59].id().to_string()]);
    assert!(pages > 2, "{pages}");
}

#[test]
fn lists_read_no_bodies_and_use_the_indexes() {
    let place = Place::new();
    drop(place.open());
    let conn = place.other();
    let plan = |condition: &str| -> String {
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT id FROM request_log WHERE timestamp <= 5 AND timestamp >= 1 \
             AND (timestamp, seq) < (5, 5) AND (timestamp, seq) >= (1, 1) {condition} \
             ORDER BY timestamp DESC, seq DESC"
        );
        let mut statement = conn.prepare(&sql).expect("sql");
        let lines = statement.query_map([], |row| row.get::<_, String>(3)).expect("plan");
        lines.map(|line| line.expect("line")).collect::<Vec<_>>().join("; ")
    };
    let all = plan("");
    assert!(all.contains("request_log_time (timestamp>? AND timestamp<?)") && !all.contains("TEMP"), "{all}");
    let errors = plan("AND status = 'error' AND status = 'error'");
    assert!(errors.contains("request_log_errors") && !errors.contains("TEMP"), "{errors}");
}

#[test]
fn followers_see_rows_once_stored_and_learn_what_they_missed() {
    let place = Place::new();
    let store = place.open();
    let (mut quick, mut slow) = (store.follow(), store.follow());
    let first = record(Duration::ZERO, "x");
    export(&store, &[first.clone(), first.clone()]);
    assert_eq!(quick.try_recv().expect("row").id, first.id().to_string());
    assert!(matches!(quick.try_recv(), Err(TryRecvError::Empty)), "not again");
    let many: Vec<_> = (0..300).map(|_| record(Duration::ZERO, "x")).collect();
    export(&store, &many);
    assert!(matches!(slow.try_recv(), Err(TryRecvError::Lagged(45))));

    let reader = store.reader().expect("reader");
    let query = LogQuery { limit: Some(1000), ..LogQuery::default() };
    let arrivals = reader.since(&query, 0).expect("rows");
    assert_eq!((arrivals.rows.len(), arrivals.position), (301, reader.position().expect("position")));
    assert_eq!(reader.since(&query, arrivals.position).expect("rows").rows, []);
}

#[test]
fn the_admin_plane_reads_through_the_contract() {
    let place = Place::new();
    let store = place.open();
    let log: &dyn RequestLogReader = &store;
    assert_eq!(log.position(None), Ok(0));
    let mut follower = log.subscribe();
    // The first to arrive is not the first that began.
    let (late, early) = (record(Duration::ZERO, "x"), record(DAY, "x"));
    export(&store, &[late.clone(), early.clone()]);
    let ids: Vec<String> =
        log.list(&LogQuery::default()).expect("lists").rows.into_iter().map(|row| row.id).collect();
    assert_eq!(ids, [late.id().to_string(), early.id().to_string()]);
    assert_eq!(log.get(&ids[0]).expect("reads"), Some(late.otel_log_json()));
    assert_eq!(log.get("nobody"), Ok(None));

    assert_eq!(log.position(None), Ok(2));
    let began = |record: &RequestMetrics| unix_ms(record.facts().timestamp);
    assert_eq!(log.position(Some(began(&early))), Ok(0));
    assert_eq!(log.position(Some(began(&early) + 1)), Ok(0));
    assert_eq!(log.position(Some(began(&late) + 1)), Ok(2), "after the last when there is none");
    let arrivals = log.arrivals(&LogQuery::default(), 1).expect("reads");
    assert_eq!((arrivals.rows.len(), arrivals.position), (1, 2));

    let Some(Followed::Row(row)) = block_on(follower.next()) else { panic!("a row") };
    assert_eq!((row.seq, &row.id), (1, &ids[0]));
    export(&store, &(0..300).map(|_| record(Duration::ZERO, "x")).collect::<Vec<_>>());
    assert!(matches!(block_on(follower.next()), Some(Followed::Missed(45))));
    drop(store);
    while let Some(followed) = block_on(follower.next()) {
        assert!(matches!(followed, Followed::Row(_)));
    }
    let store = place.open();
    let log: &dyn RequestLogReader = &store;
    let bad = log.list(&LogQuery { cursor: Some("x".into()), ..LogQuery::default() });
    assert!(matches!(bad, Err(LogError::Query(_))), "{bad:?}");
}

#[test]
fn reads_go_on_during_heavy_writes() {
    let place = Place::new();
    let store = Arc::new(place.open());
    export(&store, &[record(Duration::ZERO, "x")]);
    let stop = Arc::new(AtomicBool::new(false));
    let writing = {
        let (store, stop) = (store.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut written = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let batch: Vec<_> = (0..200).map(|n| record(Duration::ZERO, &noise(4000, n + 1))).collect();
                (0..500).for_each(|_| store.ledger().record(entry(RequestId::mint(), 1)));
                assert_eq!(export(&store, &batch), Delivery::Delivered);
                written += 200;
            }
            written
        })
    };
    let (mut slowest, mut seen) = (Duration::ZERO, 0);
    for _ in 0..100 {
        let start = Instant::now();
        let reader = store.reader().expect("reader");
        let page = reader.list(&LogQuery::default()).expect("lists");
        let document = reader.get(&page.rows[0].id).expect("reads");
        slowest = slowest.max(start.elapsed());
        assert!(document.is_some());
        seen = seen.max(page.rows.len());
        std::thread::sleep(Duration::from_millis(5));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writing.join().expect("writes") >= 200 && seen == 50);
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
}

#[test]
fn a_file_that_cannot_be_written_is_a_retry_and_health_says_so() {
    let place = Place::new();
    let store = place.open_with(Limits { busy: Duration::from_millis(20), ..Limits::default() });
    let log = store.request_log();
    assert_eq!(log.name(), "request_log");
    let blocker = place.other();
    blocker.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let given = [record(Duration::ZERO, "x")];
    assert_eq!(export(&store, &given), Delivery::Retry { after: Some(Duration::from_secs(1)) });
    assert!(matches!(block_on(log.health()), Health::Degraded(_)));
    blocker.execute_batch("COMMIT").expect("unlocked");
    assert_eq!(export(&store, &given), Delivery::Delivered);
    assert_eq!(block_on(log.health()), Health::Ok);
}

#[test]
fn long_texts_are_cut_in_rows_and_whole_in_documents() {
    let place = Place::new();
    let store = place.open();
    let long = "ü".repeat(5000);
    let given = record_with(Duration::ZERO, "x", |facts| facts.error_message = Some(long.clone()));
    export(&store, std::slice::from_ref(&given));
    let reader = store.reader().expect("reader");
    let row = reader.row(&given.id().to_string()).expect("reads").expect("there");
    assert_eq!(row.error_message.expect("message").len(), 1024);
    let document = reader.get(&row.id).expect("reads").expect("there");
    assert!(String::from_utf8(document.to_vec()).expect("text").contains(&long));
}

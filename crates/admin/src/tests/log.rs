//! Lists and single records.

use magicapi_kernel::{LogError, LogQuery};
use serde_json::json;

use super::place::{DOCUMENT, Place, Set, row};
use crate::logs::LogEntry;

#[tokio::test]
async fn a_list_has_rows_the_next_cursor_and_whether_time_was_up() {
    let place = Place::new(Set::default()).await;
    (0..3).for_each(|_| place.log.add(|_| ()));
    let answer = place.get("/api/v1/logs?limit=2").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({ "data": [row(3), row(2)], "next_cursor": "1000-1", "truncated": false })
    );
    let answer = place.get("/api/v1/logs?text=chat").await.json();
    assert_eq!((answer["truncated"].as_bool(), answer["next_cursor"].is_null()), (Some(true), true));
    assert_eq!(answer["data"][0]["cost"], json!(0.0456), "dollars");
}

#[tokio::test]
async fn every_parameter_reaches_the_query() {
    let place = Place::new(Set::default()).await;
    let text = |text: &str| Some(text.to_owned());
    let path = "/api/v1/logs?provider=p&model=a%2Fm+1&outcome=o&status=error&status_code=504&error_type=e&key_name=k\
                &project_id=pr&org_id=or&user_id=u&thread_id=t&operation=chat&streamed=true&since=-5&until=6\
                &min_latency_ms=7&text=%22x%22&cursor=1-2&limit=500&budget_ms=30000";
    assert_eq!(place.get(path).await.status, 200);
    let asked = place.log.asked.lock().expect("asked").take().expect("asked");
    let expected = LogQuery {
        provider: text("p"),
        model: text("a/m 1"),
        outcome: text("o"),
        status: text("error"),
        status_code: Some(504),
        error_type: text("e"),
        key_name: text("k"),
        project_id: text("pr"),
        org_id: text("or"),
        user_id: text("u"),
        thread_id: text("t"),
        operation: text("chat"),
        streamed: Some(true),
        since: Some(-5),
        until: Some(6),
        min_latency_ms: Some(7),
        text: text("\"x\""),
        cursor: text("1-2"),
        limit: Some(500),
        budget_ms: Some(30_000),
    };
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let place = Place::new(Set::default()).await;
    for (query, code, says) in [
        ("provder=x", "unknown_parameter", "`provider`"),
        ("token=x", "unknown_parameter", "no parameter `token`"),
        ("limits=5", "unknown_parameter", "nearest is `limit`"),
        ("limit=501", "invalid_parameter", "from 1 to 500, not `501`"),
        ("limit=0", "invalid_parameter", "from 1 to 500"),
        ("limit=many", "invalid_parameter", "from 1 to 500"),
        ("budget_ms=30001", "invalid_parameter", "from 1 to 30000"),
        ("status_code=1000", "invalid_parameter", "from 0 to 999"),
        ("min_latency_ms=-1", "invalid_parameter", "a whole number from 0, not"),
        ("streamed=yes", "invalid_parameter", "`true` or `false`"),
        ("since=2026-01-01", "invalid_parameter", "Unix milliseconds or RFC 3339"),
        ("until=2026-01-01T00:00:00+01:00", "invalid_parameter", "%2B"),
        ("provider=", "invalid_parameter", "not empty"),
        ("provider", "invalid_parameter", "not empty"),
        ("provider=a&provider=b", "invalid_parameter", "twice"),
    ] {
        let refused = place.get(&format!("/api/v1/logs?{query}")).await;
        let (is, message) = refused.refusal();
        assert_eq!((refused.status, is.as_str()), (400, code), "{query}");
        assert!(message.contains(says), "{query}: {message}");
    }
    assert!(place.log.asked.lock().expect("asked").is_none(), "the log was not asked");
}

#[tokio::test]
async fn a_record_comes_verbatim_or_not_at_all() {
    let place = Place::new(Set::default()).await;
    place.log.add(|_| ());
    for id in ["msg_1", "1"] {
        let found = place.get(&format!("/api/v1/logs/{id}")).await;
        assert_eq!((found.status, found.body.as_str()), (200, DOCUMENT));
        assert_eq!(found.header("content-type"), Some("application/json"));
        assert_eq!(found.header("content-length"), Some(DOCUMENT.len().to_string().as_str()));
    }
    for id in ["msg_2", "..", "%2e%2e", "a%2Fb", "%27%20OR%201=1"] {
        let unknown = place.get(&format!("/api/v1/logs/{id}")).await;
        assert_eq!((unknown.status, unknown.refusal().0.as_str()), (404, "unknown_record"), "{id}");
    }
    assert_eq!(place.get("/api/v1/logs/%ff").await.refusal().0, "invalid_id");
    // More than may be held at a time, one after the other: each turn is given back.
    for _ in 0..10 {
        assert_eq!(place.get("/api/v1/logs/1").await.status, 200);
    }
}

#[tokio::test]
async fn without_a_log_the_remedy_is_told_and_errors_keep_their_kind() {
    let place = Place::new(Set { log: false, ..Set::default() }).await;
    for path in ["/api/v1/logs", "/api/v1/logs/1", "/api/v1/logs/follow"] {
        let none = place.get(path).await;
        let (code, message) = none.refusal();
        assert_eq!((none.status, code.as_str()), (404, "no_request_log"), "{path}");
        assert!(message.contains("store.url"), "{message}");
    }
    let place = Place::new(Set::default()).await;
    for (error, status, code) in [
        (LogError::Query("not a cursor".into()), 400, "invalid_parameter"),
        (LogError::Unavailable("x.db: damaged".into()), 503, "log_unavailable"),
    ] {
        *place.log.broken.lock().expect("broken") = Some(error.clone());
        for path in ["/api/v1/logs", "/api/v1/logs/1", "/api/v1/logs/follow"] {
            let refused = place.get(path).await;
            assert_eq!(refused.status, status, "{path}");
            assert_eq!(refused.refusal(), (code.to_owned(), error.to_string()), "{path}");
        }
    }
}

#[test]
fn an_entry_shows_what_a_row_has() {
    let row = row(7);
    let entry = serde_json::to_string(&LogEntry::from(row.clone())).expect("JSON");
    assert_eq!(entry, serde_json::to_string(&row).expect("JSON"), "same names in the same order");
}

//! What needs no server: settings, rows, and what errors mean.

use std::sync::Arc;

use magicapi_plugin::RequestMetrics;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::PostgresPlugin;
use super::client::{Fault, judge};
use super::encode;
use super::table::Table;
use crate::testing::{Script, create, fresh, record};

fn problem(settings: Value) -> String {
    create(&PostgresPlugin, settings, &Arc::new(Script::default())).err().expect("wrong settings")
}

#[test]
fn settings_are_checked_without_a_connection_and_quote_no_secret() {
    for (url, expected) in [
        ("", "url: missing; set it, or the variable POSTGRES_URL"),
        ("mysql://u:canary@h/d", "url: begins with neither postgres:// nor postgresql://"),
        ("postgres://h/d", "url: lacks user or host"),
        ("postgres://u:canary@/d", "url: lacks user or host"),
        ("postgres://u:can@ary@h/d", "url: holds / or @ within user"),
        ("postgres://u:can/ary@h/d", "url: holds / or @ within user"),
        ("postgres://u:canary@h:canary/d", "url: its port is no number"),
        ("postgres://u:canary%ff@h/d", "url: holds bytes that are not UTF-8"),
        ("postgres://u:canary%00@h/d", "url: holds %00"),
        ("postgres://u:canary@h/d?sslmode=canary", "url: its sslmode is unknown; known: disable"),
        ("postgres://u:canary@h/d?sslmode=allow", "url: its sslmode allow is not supported"),
        ("postgres://u:canary@h/d?passwd=canary", "url: holds the unknown parameter \"passwd\"; known: user"),
    ] {
        let text = problem(json!({ "url": url }));
        assert!(text.starts_with(expected) && !text.contains("canary"), "{url}: {text}");
    }
    let with = |changes: Value| {
        let mut settings = json!({ "url": "postgres://u:p@h/d" });
        settings.as_object_mut().expect("a map").extend(changes.as_object().expect("a map").clone());
        problem(settings)
    };
    assert!(with(json!({ "keep_days": 3 })).starts_with("keep_days: set without partitions: day"));
    assert!(with(json!({ "keep_days": 0, "partitions": "day" })).starts_with("keep_days: 0 keeps nothing"));
    for table in ["", "1a", "a b", "a.b.c", "a\"b", "a;b", ".a", "a.", "größe", "a--"] {
        assert!(with(json!({ "table": table })).contains("is no table's name"), "{table}");
    }
    assert!(with(json!({ "table": "t".repeat(64) })).ends_with("is 64 bytes long; at most 63 are allowed"));
    let long = json!({ "table": "t".repeat(54), "partitions": "day" });
    assert!(with(long).ends_with("is 54 bytes long; at most 53 are allowed"));
}

#[test]
fn the_address_is_read_as_libpq_reads_it() {
    let read = |url: &str| super::config::address(url).unwrap_or_else(|what| panic!("{url}: {what}"));
    let (options, password) =
        read("postgresql://me%40here:p%2Fw%40d@[::1]:6543/db%20x?sslmode=verify-full&application_name=mine");
    assert_eq!((options.get_host(), options.get_port()), ("::1", 6543));
    assert_eq!((options.get_username(), options.get_database()), ("me@here", Some("db x")));
    assert_eq!(options.get_application_name(), Some("mine"));
    assert!(matches!(options.get_ssl_mode(), sqlx::postgres::PgSslMode::VerifyFull));
    assert_eq!(password.expose(), "p/w@d");
    let (options, password) = read("postgres://me@db.example");
    assert_eq!((options.get_port(), options.get_database()), (5432, Some("me")));
    assert!(matches!(options.get_ssl_mode(), sqlx::postgres::PgSslMode::Prefer) && password.is_empty());
    let (options, password) = read("postgres:///d?host=/run/postgresql&user=u&password=secret&port=1");
    assert_eq!(options.get_socket().and_then(|path| path.to_str()), Some("/run/postgresql"));
    assert_eq!((options.get_username(), options.get_port(), password.expose()), ("u", 1, "secret"));
}

#[test]
fn names_are_folded_and_quoted() {
    let insert = |name: &str| Table::parse(name, 0).expect("a name").insert(false);
    assert!(insert("AI_Logs").starts_with("INSERT INTO \"ai_logs\" (record_id, "));
    assert!(insert("Audit.select").starts_with("INSERT INTO \"audit\".\"select\" ("));
    let table = Table::parse("s.t", 0).expect("a name");
    let day = jiff::civil::date(2026, 2, 28);
    assert!(table.add_part(day).contains(
        "ATTACH PARTITION \"s\".\"t_p20260228\" FOR VALUES FROM ('2026-02-28 00:00+00') TO ('2026-03-01 00:00+00')"
    ));
    assert!(table.drop_part("t_p20260227", day).is_some());
    for other in ["t_p20260228", "t_p2026022", "t_p202602270", "t_pold", "t_default", "u_p20260101"] {
        assert!(table.drop_part(other, day).is_none(), "{other}");
    }
}

/// The fields of a row; `None` for a null.
fn fields(row: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut rest = &row[2..];
    let mut fields = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        let (field, after) = after.split_at(length.unwrap_or(0));
        fields.push(length.map(|_| field.to_vec()));
        rest = after;
    }
    assert_eq!(usize::from(u16::from_be_bytes([row[0], row[1]])), fields.len());
    fields
}

fn row(record: &RequestMetrics) -> Vec<Option<Vec<u8>>> {
    let mut out = Vec::new();
    encode::row(&mut out, record);
    fields(&out)
}

#[test]
fn a_row_has_id_time_document_and_figures() {
    let record = record(7);
    let [id, time, document, ttfb, latency] = row(&record).try_into().expect("five fields");
    assert_eq!(id.expect("an id"), record.id().to_string().as_bytes());
    // 2025-03-05T16:03:20.123Z in microseconds since 2000.
    assert_eq!(time, Some((1_741_190_600_123_000_i64 - 946_684_800_000_000).to_be_bytes().to_vec()));
    assert_eq!(document.expect("a document"), [b"\x01".as_slice(), &record.otel_log_json()].concat());
    assert_eq!((ttfb, latency), (None, Some(7_i32.to_be_bytes().to_vec())));
    let mut facts = record.facts().clone();
    (facts.ttfb_ms, facts.latency_ms) = (Some(0), u64::from(u32::MAX));
    let long = RequestMetrics::seal(facts, Arc::new(record.resource().clone()), None, None, None);
    assert_eq!(row(&long)[3..], [Some(vec![0; 4]), Some(i32::MAX.to_be_bytes().to_vec())]);
}

/// The document that the server gets for a request with this body.
fn document(body: &str) -> Value {
    let bytes = row(&fresh(body, "null", None)).swap_remove(2).expect("a document");
    serde_json::from_slice(&bytes[1..]).expect("JSON")
}

#[test]
fn what_jsonb_refuses_is_replaced_and_counted() {
    for (body, there, count) in [
        (r#""a\u0000b""#, "a\u{fffd}b", 1),
        (r#""\\u0000""#, "\\u0000", 0),
        (r#""\\\u0000""#, "\\\u{fffd}", 1),
        (r#""\ud83d\ude00""#, "\u{1f600}", 0),
        (r#""\uD83D""#, "\u{fffd}", 1),
        (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}", 2),
        (r#""\ud83d\ud83d\ude00\ude00""#, "\u{fffd}\u{1f600}\u{fffd}", 2),
        (r#""\ud83d\\ude00""#, "\u{fffd}\\ude00", 1),
        (r#""\u00e9\u0001""#, "é\u{1}", 0),
    ] {
        let document = document(body);
        assert_eq!(document["attributes"]["request"], there, "{body}");
        let mark = &document["attributes"]["metadata"]["characters_replaced"];
        assert_eq!(*mark, if count > 0 { json!(count) } else { Value::Null }, "{body}");
    }
}

proptest! {
    /// Whatever is escaped, what is left is what `jsonb` takes: no character 0, every surrogate in a pair.
    #[test]
    fn no_text_is_left_that_jsonb_refuses(parts in prop::collection::vec(0..8_usize, 0..12)) {
        let all = ["\\u0000", "\\ud83d", "\\ude00", "\\\\", "u0000", "\\u0041", "x", "\\n"];
        let body = format!("\"{}\"", parts.iter().map(|part| all[*part]).collect::<String>());
        let read = document(&body);
        let text = read["attributes"]["request"].as_str().expect("every surrogate has its half");
        prop_assert!(!text.contains('\0'), "{body}: {text:?}");
        // A reader that is not ours says how many there were.
        let lossy = String::from_utf16_lossy(&units(&body)).replace('\0', "\u{fffd}");
        prop_assert_eq!(text, lossy);
    }
}

/// The UTF-16 units of a JSON text.
fn units(json: &str) -> Vec<u16> {
    let mut units = Vec::new();
    let mut rest = json.trim_matches('"');
    while let Some(c) = rest.chars().next() {
        let length = match rest.as_bytes() {
            [b'\\', b'u', ..] => {
                units.push(u16::from_str_radix(&rest[2..6], 16).expect("hex"));
                6
            }
            [b'\\', b'n', ..] => {
                units.push(10);
                2
            }
            [b'\\', other, ..] => {
                units.push(u16::from(*other));
                2
            }
            _ => {
                units.push(u16::try_from(u32::from(c)).expect("ASCII"));
                1
            }
        };
        rest = &rest[length..];
    }
    units
}

#[test]
fn errors_are_judged_by_their_class() {
    for state in
        ["08006", "40001", "40P01", "53100", "53300", "55P03", "57014", "57P01", "57P03", "58030", "25P03"]
    {
        assert_eq!(judge(state, (None, None), "said"), Fault::Retry(format!("said (SQLSTATE {state})")));
    }
    for state in ["28P01", "28000", "3D000", "42501", "25006", "2200H", "42804", "0A000", "57P04"] {
        let Fault::Refused(text) = judge(state, (None, None), "said") else { panic!("{state}") };
        assert!(text.starts_with(&format!("said (SQLSTATE {state}); ")), "{text}");
    }
    for state in ["22P02", "22P05", "22003", "22021", "23502", "44000", "54000", "54001", "P0001"] {
        let Fault::Record(text) = judge(state, (None, None), "canary") else { panic!("{state}") };
        assert!(text.starts_with(&format!("SQLSTATE {state}: ")) && !text.contains("canary"), "{text}");
    }
    assert!(matches!(judge("42P01", (None, None), "said"), Fault::Unprepared(_)));
    // A column of the operator's own has no value in any record; one of ours lacks it in some.
    assert!(matches!(judge("23502", (None, Some("tenant")), "said"), Fault::Refused(_)));
    assert!(matches!(judge("23502", (None, Some("ttfb")), "said"), Fault::Record(_)));
    // Which index, and whether there is one, makes the difference between a record's fault and the table's.
    assert!(matches!(judge("23505", (Some("logs_pkey"), None), "said"), Fault::Refused(_)));
    assert_eq!(
        judge("23505", (Some("one_a_day"), None), "said"),
        Fault::Record("SQLSTATE 23505: refused by one_a_day".into())
    );
    assert!(matches!(judge("23514", (Some("small"), None), "said"), Fault::Record(_)));
    assert!(matches!(judge("23514", (None, None), "no partition of relation"), Fault::Refused(_)));
}

//! The exporter `postgres` against a real server with passwords and TLS.
//!
//! Start one with `eval "$(tests/servers/postgres/start.sh)"`; without it these tests say that they are skipped.

// clippy's leave for tests does not reach what tests call.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use magicapi_exporters::postgres::PostgresPlugin;
use magicapi_plugin::{
    Delivery, Health, ItemOutcome, RequestMetrics, Settings, TelemetryConfig, TelemetryExporter,
    TelemetryPlugin,
};
use magicapi_testkit::postgres::Postgres;
use serde_json::{Value, json};

use self::support::{batch, host, record};

mod support;

/// What the guide's own program makes.
const GUIDES_TABLE: &str = "CREATE TABLE IF NOT EXISTS ai_gateway_logs (
    id SERIAL PRIMARY KEY,
    timestamp TIMESTAMPTZ NOT NULL,
    log_data JSONB NOT NULL,
    -- Important fields extracted for easy querying
    ttfb INTEGER,  -- Time to First Byte in milliseconds
    latency INTEGER
)";

fn exporter(url: &str, settings: &Value) -> Box<dyn TelemetryExporter> {
    let mut all = json!({ "url": url });
    all.as_object_mut().expect("a map").extend(settings.as_object().expect("settings").clone());
    PostgresPlugin.create_exporter(Settings::from(all), host()).expect("settings")
}

async fn init(exporter: &dyn TelemetryExporter) -> Result<(), String> {
    exporter.init(&TelemetryConfig::default()).await.map_err(|e| e.to_string())
}

/// A database of the test's own, and an exporter that is ready.
async fn ready(server: &Postgres, database: &str, settings: &Value) -> Box<dyn TelemetryExporter> {
    server.database(database);
    let exporter = exporter(&server.url(database), settings);
    init(&*exporter).await.expect("init");
    exporter
}

/// A record that began then.
fn record_at(at: SystemTime) -> Arc<RequestMetrics> {
    let one = record("{}", "{}", None);
    let mut facts = one.facts().clone();
    facts.timestamp = at;
    Arc::new(RequestMetrics::seal(facts, Arc::new(one.resource().clone()), None, None, None))
}

fn refusal(delivery: Delivery) -> String {
    let Delivery::Refused { reason } = delivery else { panic!("{delivery:?}") };
    reason
}

fn rejection(delivery: Delivery) -> String {
    match delivery {
        Delivery::Items(mut items) if items.len() == 1 => match items.remove(0) {
            ItemOutcome::Rejected { reason } => reason,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_table_is_made_and_records_are_rows() {
    let Some(server) = Postgres::named() else { return };
    let exporter = ready(&server, "rows", &json!({})).await;
    let columns = "SELECT column_name, data_type, is_nullable FROM information_schema.columns \
         WHERE table_name = 'ai_gateway_logs' ORDER BY ordinal_position";
    let made = server.sql("rows", columns);
    assert_eq!(
        made,
        "id|integer|NO\ntimestamp|timestamp with time zone|NO\nlog_data|jsonb|NO\nttfb|integer|YES\n\
         latency|integer|YES\nrecord_id|text|YES"
    );
    let one = record(
        r#"{"messages":[{"content":"gr\u00fc\"ß\\e\t"}],"n":[1E5,23456789012345678901234.5,1e400]}"#,
        r#"{"id":"x"}"#,
        Some(r#"[{"n":1},{"n":2}]"#),
    );
    let mut facts = one.facts().clone();
    facts.ttfb_ms = Some(120);
    facts.id = magicapi_plugin::RequestId::mint();
    let streamed = Arc::new(RequestMetrics::seal(facts, Arc::new(one.resource().clone()), None, None, None));
    assert_eq!(exporter.export(&[one.clone(), streamed]).await, Delivery::Delivered);
    assert_eq!(exporter.health().await, Health::Ok);
    let row = server.sql(
        "rows",
        &format!(
            "SET timezone = 'UTC'; SELECT id, timestamp, timestamp = (log_data->>'timestamp')::timestamptz, \
             ttfb IS NULL, latency, log_data FROM ai_gateway_logs WHERE record_id = '{}'",
            one.id()
        ),
    );
    let (figures, document) = row.split_once("|{").expect("a document");
    assert_eq!(figures, "1|2025-03-05 16:03:20.123+00|t|t|6250");
    let there = |path: &str| {
        server.sql(
            "rows",
            &format!("SELECT log_data #>> '{{attributes,{path}}}' FROM ai_gateway_logs WHERE id = 1"),
        )
    };
    assert_eq!(there("request,messages,0,content"), "grü\"ß\\e\t".trim_end());
    assert_eq!(there("request,n,1"), "23456789012345678901234.5");
    assert_eq!(there("request,n,2").len(), 401, "the number that 1e400 is");
    assert_eq!(there("response,streamed_data,1,n"), "2");
    assert_eq!(there("id"), one.id().to_string());
    assert!(!document.contains("characters_replaced"));
    assert_eq!(server.sql("rows", "SELECT ttfb, latency FROM ai_gateway_logs WHERE id = 2"), "120|6250");
    exporter.shutdown().await.expect("shutdown");
}

#[tokio::test]
async fn a_table_of_the_guide_is_taken_over_once() {
    let Some(server) = Postgres::named() else { return };
    server.database("guide");
    server.sql("guide", GUIDES_TABLE);
    let insert =
        "INSERT INTO ai_gateway_logs (timestamp, log_data, ttfb, latency) VALUES (now(), '{}', 0, 5)";
    server.sql("guide", &format!("{insert}; {insert}"));
    let exporters = [(); 4].map(|()| exporter(&server.url("guide"), &json!({ "table": "AI_Gateway_Logs" })));
    let [a, b, c, d] = &exporters;
    // Gateways that start together.
    let all = tokio::join!(init(&**a), init(&**b), init(&**c), init(&**d));
    assert_eq!(all, (Ok(()), Ok(()), Ok(()), Ok(())));
    let records = batch(50);
    let all =
        tokio::join!(a.export(&records), b.export(&records), c.export(&records[20..]), d.export(&records));
    for delivery in [all.0, all.1, all.2, all.3] {
        assert!(matches!(delivery, Delivery::Delivered | Delivery::Retry { .. }), "{delivery:?}");
    }
    assert_eq!(a.export(&records).await, Delivery::Delivered);
    let counts = "SELECT count(*), count(record_id), count(DISTINCT record_id) FROM ai_gateway_logs";
    assert_eq!(server.sql("guide", counts), "52|50|50");
    let indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'ai_gateway_logs' ORDER BY 1";
    let indexes = server.sql("guide", indexes);
    assert_eq!(indexes.lines().count(), 2, "{indexes}");
    assert!(indexes.contains(
        "UNIQUE INDEX ai_gateway_logs_record_id ON public.ai_gateway_logs USING btree (record_id)"
    ));
    // The guide's own program goes on writing there.
    server.sql("guide", insert);
}

#[tokio::test]
async fn characters_that_jsonb_refuses_are_replaced_and_marked() {
    let Some(server) = Postgres::named() else { return };
    let exporter = ready(&server, "characters", &json!({})).await;
    let odd = record(r#"{"a\u0000":"b\u0000\ud800","c":"\\u0000"}"#, "{}", Some(r#"["\udfff"]"#));
    assert_eq!(exporter.export(&[odd, batch(1).remove(0)]).await, Delivery::Delivered);
    let there = "SELECT log_data #> '{attributes,request}', log_data #>> '{attributes,metadata,characters_replaced}' \
         FROM ai_gateway_logs ORDER BY id";
    let there = server.sql("characters", there);
    assert!(there.starts_with("{\"c\": \"\\\\u0000\", \"a\u{fffd}\": \"b\u{fffd}\u{fffd}\"}|4\n"), "{there}");
    assert!(there.ends_with("}|"), "the other is not marked: {there}");
}

#[tokio::test]
async fn a_record_that_the_server_never_takes_is_rejected_alone() {
    let Some(server) = Postgres::named() else { return };
    let exporter = ready(&server, "poison", &json!({})).await;
    server.sql(
        "poison",
        "ALTER TABLE ai_gateway_logs ADD CONSTRAINT small CHECK (length(log_data::text) < 100000); \
         CREATE UNIQUE INDEX one_a_day ON ai_gateway_logs ((log_data #>> '{attributes,request,unique}'))",
    );
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let first = record(r#"{"unique":1}"#, "{}", None);
    assert_eq!(exporter.export(&[first]).await, Delivery::Delivered);
    for (body, expected) in [
        (deep.as_str(), "SQLSTATE 54001: nested too deep"),
        (r#"{"canary":1e200000}"#, "SQLSTATE 22003: a number that is out of range"),
        (r#"{"canary""#, "SQLSTATE 22P02: JSON that jsonb does not take"),
        (&format!("\"{}\"", "canary ".repeat(20_000)), "SQLSTATE 23514: refused by small"),
        (r#"{"unique":1}"#, "SQLSTATE 23505: refused by one_a_day"),
    ] {
        let mut records = batch(20);
        records.insert(7, record(body, "{}", None));
        assert_eq!(exporter.export(&records).await, Delivery::TooLarge, "the pipeline halves: {expected}");
        assert_eq!(rejection(exporter.export(&records[7..8]).await), expected);
        assert!(matches!(exporter.health().await, Health::Degraded(_)));
        assert_eq!(exporter.export(&records[..7]).await, Delivery::Delivered);
        assert_eq!(exporter.export(&records[8..]).await, Delivery::Delivered);
    }
    assert_eq!(server.sql("poison", "SELECT count(*) FROM ai_gateway_logs"), "101");
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'poison' AND state IS NOT NULL \
         AND pid <> pg_backend_pid()";
    assert_eq!(server.sql("poison", connections), "1", "one connection through it all, in no transaction");
}

#[tokio::test]
async fn a_wrong_password_is_refused_until_it_is_right() {
    let Some(server) = Postgres::named() else { return };
    server.database("password");
    server.sql("password", "DROP ROLE IF EXISTS writer");
    server.sql("password", "CREATE ROLE writer LOGIN PASSWORD 'another'; ALTER DATABASE password OWNER TO writer; ALTER SCHEMA public OWNER TO writer");
    let exporter = exporter(&server.url_as("writer", "canary", "password"), &json!({}));
    let said = init(&*exporter).await.expect_err("a wrong password");
    assert!(said.contains("password authentication failed for user \"writer\" (SQLSTATE 28P01)"), "{said}");
    assert!(said.contains("POSTGRES_URL") && !said.contains("canary"), "{said}");
    let records = batch(3);
    assert_eq!(refusal(exporter.export(&records).await), said);
    assert_eq!(exporter.health().await, Health::Down(said.clone()));
    server.sql("password", "ALTER ROLE writer PASSWORD 'canary'");
    assert_eq!(exporter.export(&records).await, Delivery::Delivered, "init was not even needed");
    // A connection that stands is not asked again, a new one is.
    server.sql("password", "ALTER ROLE writer PASSWORD 'another'");
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
    server.sql("password", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'writer'");
    assert_eq!(refusal(exporter.export(&batch(1)).await), said);
    server.sql("password", "ALTER ROLE writer PASSWORD 'canary'");
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
    assert_eq!(server.sql("password", "SELECT count(*) FROM ai_gateway_logs"), "5");
}

#[tokio::test]
async fn faults_of_the_set_up_are_refused_with_a_remedy() {
    let Some(server) = Postgres::named() else { return };
    let absent = exporter(&server.url("nowhere"), &json!({}));
    assert!(init(&*absent).await.expect_err("no database").contains("(SQLSTATE 3D000); create the database"));
    // The server quotes what stands in a wrong place.
    let mistaken = exporter(&server.url(server.password()), &json!({}));
    let said = init(&*mistaken).await.expect_err("no database");
    assert!(said.starts_with("database \"***\" does not exist"), "{said}");
    let exporter = ready(&server, "setup", &json!({})).await;
    let records = batch(2);

    server.sql("setup", "DROP ROLE IF EXISTS poor");
    server.sql("setup", "CREATE ROLE poor LOGIN PASSWORD 'canary'");
    let poor = self::exporter(&server.url_as("poor", "canary", "setup"), &json!({}));
    let said = refusal(poor.export(&records).await);
    assert!(said.contains("(SQLSTATE 42501); grant"), "{said}");
    // What the page says is enough.
    server.sql(
        "setup",
        "GRANT INSERT ON ai_gateway_logs TO poor; GRANT SELECT (record_id) ON ai_gateway_logs TO poor; \
         GRANT USAGE ON SEQUENCE ai_gateway_logs_id_seq TO poor",
    );
    assert_eq!(poor.export(&records).await, Delivery::Delivered);
    server.sql("setup", "DROP OWNED BY poor; DROP ROLE poor");

    server.sql("setup", "ALTER DATABASE setup SET default_transaction_read_only = on");
    let reader = self::exporter(&server.url("setup"), &json!({}));
    assert!(refusal(reader.export(&records).await).contains("(SQLSTATE 25006); url"));
    server.sql("postgres", "ALTER DATABASE setup RESET default_transaction_read_only");

    server.sql("setup", "ALTER SEQUENCE ai_gateway_logs_id_seq RESTART 1");
    assert!(refusal(exporter.export(&batch(1)).await).contains("(SQLSTATE 23505); set the sequence"));
    server.sql("setup", "ALTER SEQUENCE ai_gateway_logs_id_seq RESTART 2147483647");
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
    assert!(refusal(exporter.export(&batch(1)).await).contains("(SQLSTATE 2200H); its ids are used up"));
    server.sql("setup", "ALTER SEQUENCE ai_gateway_logs_id_seq RESTART 100");
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);

    // A table that was dropped is made anew, at the next try.
    server.sql("setup", "DROP TABLE ai_gateway_logs");
    assert!(refusal(exporter.export(&records).await).contains("42P01"));
    assert_eq!(exporter.export(&records).await, Delivery::Delivered);
    assert_eq!(server.sql("setup", "SELECT count(*) FROM ai_gateway_logs"), "2");

    server.sql("setup", "CREATE VIEW ai_view AS SELECT 1");
    let view = self::exporter(&server.url("setup"), &json!({ "table": "public.ai_view" }));
    assert!(init(&*view).await.expect_err("a view").contains("is no table"));
    let daily = self::exporter(&server.url("setup"), &json!({ "partitions": "day" }));
    assert!(init(&*daily).await.expect_err("a plain table").contains("is not split"));
}

#[tokio::test]
async fn what_passes_by_itself_is_waited_for() {
    let Some(server) = Postgres::named() else { return };
    let exporter = ready(&server, "passing", &json!({})).await;
    let records = batch(2);
    server.sql("passing", "ALTER DATABASE passing CONNECTION LIMIT 0; DROP ROLE IF EXISTS many");
    server.sql("passing", "CREATE ROLE many LOGIN PASSWORD 'canary' CONNECTION LIMIT 0");
    let many = self::exporter(&server.url_as("many", "canary", "passing"), &json!({}));
    assert_eq!(many.export(&records).await, Delivery::Retry { after: None });
    let Health::Down(said) = many.health().await else { panic!("down") };
    assert!(said.contains("too many connections") && said.contains("53300"), "{said}");
    server.sql("passing", "DROP ROLE many; ALTER DATABASE passing CONNECTION LIMIT -1");

    let nobody = self::exporter("postgres://u:canary@127.0.0.1:9/d", &json!({}));
    assert!(init(&*nobody).await.expect_err("nobody").starts_with("could not connect: "));
    assert_eq!(nobody.export(&records).await, Delivery::Retry { after: None });

    // Whoever is cut off in the middle sends again.
    server.sql("passing", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'passing' AND pid <> pg_backend_pid()");
    assert_eq!(
        exporter.export(&records).await,
        Delivery::Delivered,
        "an idle connection that is gone costs nothing"
    );
    server.sql(
        "passing",
        "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END'; \
         CREATE TRIGGER cut BEFORE INSERT ON ai_gateway_logs FOR EACH ROW EXECUTE FUNCTION cut()",
    );
    let more = batch(2);
    assert_eq!(exporter.export(&more).await, Delivery::Retry { after: None });
    server.sql("passing", "DROP TRIGGER cut ON ai_gateway_logs");
    assert_eq!(exporter.export(&more).await, Delivery::Delivered);
    assert_eq!(server.sql("passing", "SELECT count(*) FROM ai_gateway_logs"), "4");
}

#[tokio::test]
async fn days_are_parts_and_records_are_unique_across_them() {
    const DAY: Duration = Duration::from_hours(24);
    let Some(server) = Postgres::named() else { return };
    let settings = json!({ "table": "logs.daily", "partitions": "day", "keep_days": 30 });
    server.database("daily");
    server.sql("daily", "CREATE SCHEMA logs");
    let exporters = [(); 3].map(|()| exporter(&server.url("daily"), &settings));
    let [exporter, second, third] = &exporters;
    let all = tokio::join!(init(&**exporter), init(&**second), init(&**third));
    for done in [all.0, all.1, all.2] {
        assert!(done.as_ref().is_ok() || done.as_ref().is_err_and(|e| e.contains("42P07")), "{done:?}");
    }
    init(&**exporter).await.expect("init");
    let parts = || {
        server.sql(
            "daily",
            "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid \
             WHERE inhparent = 'logs.daily'::regclass ORDER BY 1",
        )
    };
    assert_eq!(parts().lines().count(), 2, "today and tomorrow: {}", parts());
    let now = SystemTime::now();
    let records: Vec<_> = [0, 0, 1, 3, 3, 20].map(|days| record_at(now - DAY * days)).into();
    for exporter in [exporter, second, exporter] {
        // The second learns that a part is there only when it asks.
        assert_eq!(exporter.export(&records).await, Delivery::Delivered);
        assert_eq!(server.sql("daily", "SELECT count(*) FROM logs.daily"), "6", "dedup holds across parts");
    }
    assert_eq!(parts().lines().count(), 5, "{}", parts());
    let spread = "SELECT count(DISTINCT tableoid) FROM logs.daily";
    assert_eq!(server.sql("daily", spread), "4");

    // A reader of the table holds nobody up.
    let long = std::thread::spawn({
        let url = server.url("daily");
        move || {
            std::process::Command::new("psql")
                .args([
                    "-XAtqc",
                    "BEGIN; SELECT count(*) FROM logs.daily; SELECT pg_sleep(3); COMMIT",
                    "-d",
                    &url,
                ])
                .output()
        }
    });
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    assert_eq!(exporter.export(&[record_at(now - DAY * 5)]).await, Delivery::Delivered);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    long.join().expect("a thread").expect("psql");

    // What is older than 30 days goes when a new part is made; what is not ours stays.
    server.sql(
        "daily",
        "CREATE TABLE logs.theirs PARTITION OF logs.daily FOR VALUES FROM ('2001-01-01') TO ('2001-02-01')",
    );
    assert_eq!(exporter.export(&[record_at(now - DAY * 40)]).await, Delivery::Delivered);
    assert_eq!(exporter.export(&[record_at(now - DAY * 7)]).await, Delivery::Delivered);
    assert_eq!(server.sql("daily", "SELECT count(*) FROM logs.daily"), "8", "the old one went with its part");
    assert!(parts().contains("theirs") && parts().lines().count() == 8, "{}", parts());
}

/// What stands in the way of dropping a part stands in the way of no record.
#[tokio::test]
async fn a_part_that_cannot_be_dropped_costs_no_record() {
    const DAY: Duration = Duration::from_hours(24);
    let Some(server) = Postgres::named() else { return };
    let settings = json!({ "partitions": "day", "keep_days": 30 });
    let exporter = ready(&server, "stuck", &settings).await;
    let now = SystemTime::now();
    let part = |day: &str, next: &str| {
        let name = format!("ai_gateway_logs_p{}", day.replace('-', ""));
        let bounds = format!("FROM ('{day} 00:00+00') TO ('{next} 00:00+00')");
        server.sql("stuck", &format!("CREATE TABLE {name} PARTITION OF ai_gateway_logs FOR VALUES {bounds}"));
    };
    let parts = || {
        let parts = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'ai_gateway_logs'::regclass";
        server.sql("stuck", parts)
    };
    part("2020-01-01", "2020-01-02");
    part("2020-01-02", "2020-01-03");
    server.sql("stuck", "CREATE VIEW needs AS SELECT * FROM ai_gateway_logs_p20200101");
    assert_eq!(exporter.export(&[record_at(now - DAY * 2)]).await, Delivery::Delivered);
    let Health::Degraded(why) = exporter.health().await else { panic!("degraded") };
    assert!(why.contains("keep_days") && why.contains("(SQLSTATE 2BP01)"), "{why}");
    assert_eq!(parts(), "4", "today, tomorrow, the new one, and the one that the view needs");
    assert_eq!(exporter.export(&[record_at(now)]).await, Delivery::Delivered);
    server.sql("stuck", "DROP VIEW needs");
    assert_eq!(exporter.export(&[record_at(now - DAY * 3)]).await, Delivery::Delivered);
    assert_eq!((parts().as_str(), exporter.health().await), ("4", Health::Ok));

    // Who owns the table but not the part.
    part("2020-01-01", "2020-01-02");
    server.sql("stuck", "DROP ROLE IF EXISTS splitter");
    server.sql(
        "stuck",
        "CREATE ROLE splitter LOGIN PASSWORD 'canary'; GRANT CREATE, USAGE ON SCHEMA public TO splitter; \
         ALTER TABLE ai_gateway_logs OWNER TO splitter",
    );
    let splitter = self::exporter(&server.url_as("splitter", "canary", "stuck"), &settings);
    assert_eq!(splitter.export(&[record_at(now)]).await, Delivery::Delivered);
    let Health::Degraded(why) = splitter.health().await else { panic!("degraded") };
    assert!(why.contains("(SQLSTATE 42501)"), "{why}");
    assert_eq!(server.sql("stuck", "SELECT count(*) FROM ai_gateway_logs"), "4");
    splitter.shutdown().await.expect("shutdown");
    server.sql("stuck", "DROP OWNED BY splitter CASCADE; DROP ROLE splitter");
}

/// Something between the gateway and the server that forgets a connection without a word, as firewalls do.
#[tokio::test]
async fn an_idle_connection_that_went_silent_is_replaced() {
    let Some(server) = Postgres::named() else { return };
    server.database("silent");
    let url = server.url("silent");
    let (root, database) = url.rsplit_once('/').expect("a database");
    let (user, host) = root.rsplit_once('@').expect("a host");
    let (listener, host) =
        (tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("an address"), host.to_owned());
    let port = listener.local_addr().expect("an address").port();
    let (silence, silent) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        for nth in 1.. {
            let (mut near, _) = listener.accept().await.expect("a connection");
            let mut far = tokio::net::TcpStream::connect(&host).await.expect("the server");
            let mut silent = silent.clone();
            tokio::spawn(async move {
                let silent = async { silent.wait_for(|upto| nth <= *upto).await.map(drop) };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    // Kept open: nobody is told.
                    _ = silent => std::future::pending::<()>().await,
                }
            });
        }
    });
    let exporter = exporter(&format!("{user}@127.0.0.1:{port}/{database}?sslmode=disable"), &json!({}));
    init(&*exporter).await.expect("init");
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
    silence.send(1).expect("a listener");
    let begun = Instant::now();
    let records = batch(1);
    let export = tokio::time::timeout(Duration::from_secs(20), exporter.export(&records));
    assert_eq!(export.await, Ok(Delivery::Delivered), "and nothing of it is unclear");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(server.sql("silent", "SELECT count(*) FROM ai_gateway_logs"), "2");
}

/// A table that somebody else splits.
#[tokio::test]
async fn a_table_that_is_split_by_others_is_taken_as_it_is() {
    let Some(server) = Postgres::named() else { return };
    server.database("monthly");
    server.sql(
        "monthly",
        "CREATE TABLE ai_gateway_logs (id SERIAL, timestamp TIMESTAMPTZ NOT NULL, log_data JSONB NOT NULL, ttfb INTEGER, \
         latency INTEGER) PARTITION BY RANGE (timestamp); \
         CREATE TABLE march PARTITION OF ai_gateway_logs FOR VALUES FROM ('2025-03-01') TO ('2025-04-01')",
    );
    let exporter = exporter(&server.url("monthly"), &json!({}));
    init(&*exporter).await.expect("init");
    let records = batch(5);
    for _ in 0..2 {
        assert_eq!(exporter.export(&records).await, Delivery::Delivered);
        assert_eq!(server.sql("monthly", "SELECT count(*) FROM march"), "5");
    }
    let april = record_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_743_500_000));
    assert!(refusal(exporter.export(&[april]).await).contains("make the part"));
}

#[tokio::test]
async fn tls_is_what_sslmode_says() {
    let Some(server) = Postgres::named() else { return };
    server.database("tls");
    let used = |mode: &str| {
        let url = server.url("tls");
        let url = format!("{url}?application_name=tls-{}&{mode}", mode.len());
        let encrypted = format!(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'tls-{}'",
            mode.len()
        );
        let server = &server;
        async move {
            let exporter = exporter(&url, &json!({}));
            init(&*exporter).await.map(|()| server.sql("tls", &encrypted))
        }
    };
    let ca = format!("sslrootcert={}", server.ca);
    assert_eq!(used("sslmode=disable").await.as_deref(), Ok("f"));
    assert_eq!(used("sslmode=prefer").await.as_deref(), Ok("t"));
    assert_eq!(used("sslmode=require").await.as_deref(), Ok("t"));
    assert_eq!(used(&format!("sslmode=verify-full&{ca}")).await.as_deref(), Ok("t"));
    let unknown = used("sslmode=verify-full").await.expect_err("nobody knows it");
    assert!(unknown.starts_with("TLS: invalid peer certificate"), "{unknown}");
    let absent = used("sslmode=verify-ca&sslrootcert=absent.pem").await.expect_err("no file");
    assert!(absent.starts_with("a file that url names cannot be read"), "{absent}");
}

/// Printed, not asserted: how fast it is.
#[tokio::test]
async fn records_per_second() {
    let Some(server) = Postgres::named() else { return };
    let exporter = ready(&server, "speed", &json!({})).await;
    for (size, count, rounds) in [(1 << 10, 1000, 5), (100 << 10, 40, 5), (1 << 20, 4, 5)] {
        let body = format!("{{\"messages\":[{{\"content\":\"{}\"}}]}}", "lorem ipsum\\n".repeat(size / 13));
        let batches: Vec<Vec<_>> =
            (0..rounds).map(|_| (0..count).map(|_| record(&body, "{}", None)).collect()).collect();
        let begun = Instant::now();
        for batch in &batches {
            assert_eq!(exporter.export(batch).await, Delivery::Delivered);
        }
        let seconds = begun.elapsed().as_secs_f64();
        let records = f64::from(count * rounds);
        println!(
            "postgres: {size} B: {:.0} records/s, {:.1} MB/s",
            records / seconds,
            records * size as f64 / seconds / 1e6
        );
    }
    assert_eq!(server.sql("speed", "SELECT count(*) FROM ai_gateway_logs"), "5220");
}

//! Both ways to the log, over a real store, a real admin plane and a real lock.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clap::Parser;
use magicapi_admin::{AdminState, HealthFacts, HealthSource};
use magicapi_config::MetricsAccess;
use magicapi_kernel::LogQuery;
use magicapi_model::{Outcome, RequestId, Secret};
use magicapi_plugin::{Facts, RequestMetrics, TelemetryConfig};
use magicapi_store::{DataDirLock, Store, StoreOptions};
use magicapi_telemetry::Telemetry;
use tokio::net::TcpListener;

use super::source::{Failure, Source};
use super::table::Entry;
use super::{LogsCommand, Pages, collect, run};

const DATABASE: &str = "magicapi.db";
const TOKEN: &str = "token-of-the-test";

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: LogsCommand,
}

fn command(words: &[&str]) -> LogsCommand {
    let words = std::iter::once("logs").chain(words.iter().copied());
    Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).command
}

struct Nobody;

impl HealthSource for Nobody {
    fn snapshot(&self) -> HealthFacts {
        unreachable!("not asked")
    }
}

fn open(dir: &Path) -> Arc<Store> {
    let options = StoreOptions {
        path: dir.join(DATABASE),
        retention_age: Duration::from_hours(24),
        retention_size: 1 << 30,
        journal: None,
    };
    Arc::new(Store::open(options).expect("opens"))
}

async fn add(store: &Store, provider: &str) -> RequestId {
    let mut facts = Facts::new(RequestId::mint(), SystemTime::now());
    let id = facts.id;
    facts.provider = Some(provider.into());
    facts.operation = "chat";
    facts.outcome = Outcome::Completed;
    facts.status_code = 200;
    let body = Bytes::from_static(b"{\"content\":\"needle\"}");
    let record = RequestMetrics::seal(facts, Arc::new(TelemetryConfig::default()), Some(body), None, None);
    store.request_log().export(&[Arc::new(record)]).await;
    id
}

/// The admin plane of a gateway on this directory; it runs until the runtime ends.
async fn gateway(dir: &Path, store: &Arc<Store>, token: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    note(dir, &format!("http://{}", listener.local_addr().expect("bound")), token);
    let state = AdminState {
        token: Secret::new(TOKEN),
        metrics: MetricsAccess::Token,
        hosts: Vec::new(),
        logs: Some(store.clone()),
        telemetry: Telemetry::disabled(),
        health: Arc::new(Nobody),
    };
    tokio::spawn(magicapi_admin::serve(state, vec![listener], std::future::pending()));
}

fn note(dir: &Path, admin: &str, token: &str) {
    let mut file = std::fs::File::create(dir.join("gateway.json")).expect("a note");
    write!(file, "{}", serde_json::json!({ "admin": admin, "token": token, "pid": 1 })).expect("writes");
}

async fn source(dir: &Path) -> Source {
    Source::open(dir, Some(&dir.join(DATABASE))).await.unwrap_or_else(|failure| panic!("{failure}"))
}

async fn refused(dir: &Path) -> String {
    match Source::open(dir, Some(&dir.join(DATABASE))).await {
        Ok(_) => panic!("opened"),
        Err(failure) => failure.to_string(),
    }
}

async fn all(source: &Source, query: LogQuery) -> Vec<Entry> {
    collect(source, query, usize::MAX).await.expect("lists")
}

#[tokio::test]
async fn api_and_file_give_the_same_rows_and_documents() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let first = add(&store, "a b&c").await.to_string();
    add(&store, "groq").await;
    let queries = || {
        [
            LogQuery::default(),
            LogQuery { provider: Some("a b&c".into()), ..LogQuery::default() },
            LogQuery { text: Some("NEEDLE".into()), ..LogQuery::default() },
            LogQuery { text: Some("not there".into()), ..LogQuery::default() },
        ]
    };
    gateway(dir.path(), &store, TOKEN).await;
    let api = source(dir.path()).await;
    assert!(matches!(api, Source::Api(_)));
    let mut over_api = Vec::new();
    for query in queries() {
        over_api.push(all(&api, query).await);
    }
    assert_eq!(over_api.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 2, 0]);
    let document = api.get(&first).await.expect("reads").expect("found");
    assert!(api.get("../exporters").await.expect("reads").is_none(), "an id is no path");

    std::fs::remove_file(dir.path().join("gateway.json")).expect("removed");
    let file = source(dir.path()).await;
    assert!(matches!(file, Source::File { .. }));
    for (query, over_api) in queries().into_iter().zip(over_api) {
        assert_eq!(all(&file, query).await, over_api);
    }
    assert_eq!(file.get(first.trim_start_matches("msg_")).await.expect("reads"), Some(document));
    assert!(file.follow(&LogQuery::default()).await.expect("no error").is_none(), "nothing to follow");
}

#[tokio::test]
async fn pages_go_on_to_the_number_wanted() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    for _ in 0..7 {
        add(&store, "groq").await;
    }
    let source = source(dir.path()).await;
    for (wanted, expected) in [(0, 0), (3, 3), (7, 7), (100, 7)] {
        assert_eq!(collect(&source, LogQuery::default(), wanted).await.expect("lists").len(), expected);
    }
    let mut pages = Pages::new(&source, LogQuery::default(), 5);
    assert_eq!(pages.next().await.expect("lists").map(|page| page.len()), Some(5));
    assert!(pages.next().await.expect("lists").is_none(), "enough");
}

#[tokio::test]
async fn following_brings_what_is_new_and_matches() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    add(&store, "groq").await;
    gateway(dir.path(), &store, TOKEN).await;
    let source = source(dir.path()).await;
    let query = LogQuery { provider: Some("groq".into()), since: Some(0), ..LogQuery::default() };
    let mut live = source.follow(&query).await.expect("follows").expect("a gateway");
    add(&store, "openai").await;
    let id = add(&store, "groq").await.to_string();
    let entry = live.next().await.expect("reads").expect("an event").expect("a row");
    assert!(entry.json.contains(&id), "{}", entry.json);
    assert_eq!(entry.line.seq, 3);
    let until = LogQuery { until: Some(1), ..LogQuery::default() };
    assert!(matches!(source.follow(&until).await, Err(Failure::Usage(_))));
}

#[tokio::test]
async fn what_cannot_be_read_is_said_with_its_remedy() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path();
    assert!(refused(path).await.contains("no such file"));
    assert!(!path.join("lock").exists(), "looking leaves nothing behind");
    assert!(refused(&path.join("nowhere")).await.contains("no such file"));
    assert!(!path.join("nowhere").exists());
    let store = open(path);
    add(&store, "groq").await;

    gateway(path, &store, "wrong").await;
    let text = refused(path).await;
    assert!(text.contains("401") && text.contains("admin token"), "{text}");

    // What a crash leaves: a note and no lock.
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    note(path, &format!("http://{port}"), TOKEN);
    assert_eq!(all(&source(path).await, LogQuery::default()).await.len(), 1);

    let lock = DataDirLock::acquire(path).expect("free");
    let text = refused(path).await;
    let pid = std::process::id().to_string();
    assert!(text.contains(&pid) && text.contains("does not answer"), "{text}");
    std::fs::remove_file(path.join("gateway.json")).expect("removed");
    let text = refused(path).await;
    assert!(text.contains(&pid) && text.contains("gateway.json"), "{text}");
    drop(lock);

    for (content, says) in [("{\"token\":\"s3cret\"", "not a gateway's note"), ("", "not a gateway's note")] {
        std::fs::write(path.join("gateway.json"), content).expect("writes");
        let text = refused(path).await;
        assert!(text.contains(says) && !text.contains("s3cret"), "{text}");
    }
    note(path, "https://127.0.0.1:1", TOKEN);
    assert!(refused(path).await.contains("no http address"));
    note(path, "http://127.0.0.1:1", "no\nheader");
    assert!(refused(path).await.contains("cannot be asked"), "a token that no header can carry");
}

#[tokio::test]
async fn the_exit_status_says_whether_anything_was_found() {
    let is = |code: ExitCode, expected: u8| {
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(expected)));
    };
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path();
    let database = path.join(DATABASE);
    let on = async |words: &[&str]| run(command(words), path, Some(&database)).await;
    is(on(&["search"]).await, 2);
    is(run(command(&["search"]), path, None).await, 2);
    let store = open(path);
    is(on(&["search"]).await, 1);
    is(on(&["tail"]).await, 1);
    let id = add(&store, "groq").await.to_string();
    is(on(&["search"]).await, 0);
    is(on(&["search", "nothing like it"]).await, 1);
    is(on(&["search", "--json", "--provider", "groq", "needle"]).await, 0);
    is(on(&["search", "--since", "soon"]).await, 2);
    is(on(&["tail", "-n", "1"]).await, 0);
    is(on(&["show", &id]).await, 0);
    is(on(&["show", "other"]).await, 1);
}

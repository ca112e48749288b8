//! A gateway whose exporters' back ends have a fault, and a healthy one beside them: what is sent, and what must be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::back_end::{BackEnd, Fault};
use magicapi_testkit::configuration::{RECORDS, lay_over};
use magicapi_testkit::gateway::STDOUT;
use magicapi_testkit::http::Response;
use magicapi_testkit::read_records;
use magicapi_testkit::wire::until;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::database::Database;
use crate::load::Load;
use crate::scene::{Scene, before};
use crate::vendors::{CONTENDERS, POISON, WITHOUT_A_BACK_END};

/// After how long a record is where it can be: ten times what batches and exports of a working back end take.
const IN_TIME: Duration = Duration::from_secs(5);

/// One exporter's back end with the fault.
pub(crate) enum Faulty {
    Scripted(BackEnd),
    Real(Database),
}

/// What a back end has at the end, by ids.
pub(crate) struct Found {
    /// How often it took each record.
    pub(crate) taken: BTreeMap<String, usize>,
    /// How often it took each, or knew it already, and its answer did not arrive.
    pub(crate) unanswered: BTreeMap<String, usize>,
    /// Requests that came before the end of a delay that it had given.
    pub(crate) hasty: usize,
}

impl Faulty {
    pub(crate) fn mend(&mut self) {
        match self {
            Self::Scripted(back_end) => back_end.mend(),
            Self::Real(database) => database.mend(),
        }
    }

    pub(crate) fn found(&self) -> Found {
        match self {
            Self::Scripted(back_end) => {
                let seen = back_end.seen();
                Found { taken: seen.taken.clone(), unanswered: seen.unanswered.clone(), hasty: seen.hasty }
            }
            Self::Real(database) => {
                Found { taken: database.taken(), unanswered: database.unanswered(), hasty: 0 }
            }
        }
    }
}

/// The gateway, its exporters' back ends by name, and the healthy one.
pub(crate) struct Stage {
    /// What it is put under.
    load: Load,
    pub(crate) scene: Scene,
    pub(crate) faulty: BTreeMap<&'static str, Faulty>,
    healthy: BackEnd,
}

/// What a caller got: when the last of it came, its record's id, and whether that is poison.
pub(crate) struct Asked {
    at: Instant,
    id: String,
    pub(crate) is_poison: bool,
}

impl Stage {
    pub(crate) async fn start(load: Load, fault: Fault) -> Self {
        let mut entries = Vec::new();
        let mut faulty = BTreeMap::new();
        for contender in CONTENDERS.iter().filter(|one| load.includes(one.name)) {
            let back_end = BackEnd::start(contender.vendor, Some(fault));
            let url = format!("http://{}", back_end.address);
            entries.push(load.entry(contender.name, contender.name, (contender.settings)(&url)));
            faulty.insert(contender.name, Faulty::Scripted(back_end));
        }
        let [.., webhook] = &CONTENDERS;
        let healthy = BackEnd::start(webhook.vendor, None);
        let url = format!("http://{}", healthy.address);
        entries.push(load.entry(webhook.name, "healthy", (webhook.settings)(&url)));
        // The bounds are read from the page of `prometheus`.
        let has = |name: &&str| *name == "prometheus" || load.includes(name);
        for name in WITHOUT_A_BACK_END.into_iter().filter(has) {
            entries.push(match name {
                "file" => load.entry(name, name, json!({ "path": RECORDS })),
                "prometheus" => json!({ "type": name }),
                name => load.entry(name, name, json!({})),
            });
        }
        let database = if load.includes("postgres") { Database::start(fault).await } else { None };
        if let Some(database) = database {
            let settings = json!({ "url": database.url(), "timeout": "5s" });
            entries.push(load.entry("postgres", "postgres", settings));
            faulty.insert("postgres", Faulty::Real(database));
        }
        let config = json!({ "telemetry": { "exporters": entries, "capture": { "memory": load.capture } } });
        let directory = Arc::new(TempDir::new().expect("a directory"));
        let scene = Scene::start_in(&directory, config, magicapi_testkit::GatewayOptions::keep_stdout).await;
        let stage = Self { load, scene, faulty, healthy };
        stage.begin(fault).await;
        stage
    }

    /// Waits until exporters have begun: those that can.
    async fn begin(&self, fault: Fault) {
        until("exporters that have begun", async || {
            let details = self.scene.admin("/health/details").await.json();
            let has_begun = |one: &Value| one["state"] == "running";
            let may_begin =
                |one: &Value| fault != Fault::Dead || !self.faulty.keys().any(|name| one["name"] == *name);
            exporters(&details).iter().all(|one| has_begun(one) || !may_begin(one)).then_some(())
        })
        .await;
        for back_end in self.faulty.values() {
            if let Faulty::Real(database) = back_end {
                database.break_down();
            }
        }
    }

    /// Sends the requests at their pace, and tells what callers got. Each must get what a gateway without exporters
    /// gives, and the provider what that sends.
    pub(crate) async fn traffic(&self) -> Vec<Asked> {
        let messages = json!([{ "role": "user", "content": "x".repeat(self.load.prompt) }]);
        let body = |more: Value| {
            let mut body = json!({ "messages": messages });
            lay_over(&mut body, more);
            chat("gpt-4o-mini", &body).to_string()
        };
        let bodies = [body(json!({})), body(json!({ "stream": true }))];
        let plain = before(&self.scene.mock.base_url(), json!({ "telemetry": { "exporters": [] } })).await;
        let mut expected = Vec::new();
        for body in &bodies {
            expected.push(what_is_seen(&ask(plain.url(CHAT), body.clone(), "plain").await));
        }
        let upstream = self.upstream();
        assert_eq!(upstream.len(), bodies.len());
        let mut under_way = JoinSet::new();
        let mut pace = tokio::time::interval(self.load.pace);
        for number in 0..self.load.requests {
            pace.tick().await;
            let kind = number as usize % 2;
            let (body, expected) = (bodies[kind].clone(), expected[kind].clone());
            let address = self.scene.url(CHAT);
            let thread = if (number + 1).is_multiple_of(self.load.poison) { POISON } else { "good" };
            under_way.spawn(async move {
                let answer = ask(address, body, thread).await;
                assert_eq!(what_is_seen(&answer), expected, "traffic keeps every status and byte");
                let id = answer.header("x-request-id").to_owned();
                Asked { at: Instant::now(), id, is_poison: thread == POISON }
            });
            if number % self.load.look_every == 0 {
                self.within_bounds().await;
            }
        }
        let mut asked = Vec::new();
        while let Some(answered) = under_way.join_next().await {
            asked.push(answered.expect("a request"));
        }
        assert_eq!(self.upstream(), upstream, "the provider gets the same");
        assert_eq!(ids(&asked, |_| true).len(), self.load.requests as usize);
        asked
    }

    /// The different requests that the provider got.
    fn upstream(&self) -> BTreeSet<String> {
        let received = self.scene.mock.received();
        let one = |one: &magicapi_mock::Received| {
            let body = String::from_utf8_lossy(&one.body).into_owned();
            format!("{} {} {:?}\n{body}", one.method, one.path, one.headers)
        };
        received.iter().map(one).collect()
    }

    pub(crate) async fn within_bounds(&self) {
        let details = self.scene.admin("/health/details").await.json();
        for exporter in exporters(&details) {
            if exporter["name"] != "request_log" {
                assert!(exporter["queue_bytes"].as_u64() <= Some(self.load.memory), "{exporter}");
            }
        }
        let used = self.metric("gateway_capture_memory_used_bytes ").await;
        assert!(used <= self.load.capture as f64, "{used}");
    }

    /// The sum of all series of a metric that begin so.
    async fn metric(&self, begin: &str) -> f64 {
        let page = self.scene.admin("/metrics").await.text();
        assert!(page.contains("gateway_capture_memory_used_bytes "), "no page: {page}");
        let values = page.lines().filter(|line| line.starts_with(begin)).map(|line| {
            let (_, value) = line.rsplit_once(' ').expect("a value");
            value.parse::<f64>().expect("a number")
        });
        values.sum()
    }

    async fn status(&self, name: &str) -> Value {
        let details = self.scene.admin("/health/details").await.json();
        exporters(&details).into_iter().find(|one| one["name"] == name).expect("the exporter")
    }

    /// Waits until every record of an exporter is settled, and gives its status.
    pub(crate) async fn settled(&self, name: &str) -> Value {
        let begun = Instant::now();
        loop {
            let status = self.status(name).await;
            let waits = status["queue_records"] != 0 || status["spool_records"] != 0;
            let buried = status["dead_letters"] == status["rejected"];
            if !waits && buried && status["received"] == self.load.requests {
                return status;
            }
            assert!(begun.elapsed() < self.load.patience, "{name}: {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Every record is, once and in time, wherever no fault keeps it away.
    pub(crate) async fn others_have(&self, asked: &[Asked]) {
        let all = ids(asked, |_| true);
        until("every record at the healthy one", async || {
            (self.healthy.seen().taken.len() == all.len()).then_some(())
        })
        .await;
        {
            let seen = self.healthy.seen();
            for Asked { id, at, .. } in asked {
                assert_eq!(seen.taken.get(id), Some(&1), "{id}");
                let took = seen.arrived[id].saturating_duration_since(*at);
                assert!(took <= IN_TIME, "{id}: {took:?}");
            }
        }
        for (_, path) in
            [("file", RECORDS), ("console", STDOUT)].iter().filter(|(name, _)| self.load.includes(name))
        {
            let path = self.scene.gateway.path(path);
            let written = until("every record on disk", async || {
                let records = read_records(&path);
                (records.len() >= all.len()).then_some(records)
            })
            .await;
            let written = written.iter().map(|record| record["attributes"]["id"].as_str().expect("an id"));
            assert_eq!(written.map(str::to_owned).collect::<BTreeSet<_>>(), all, "{}", path.display());
        }
        let requests = self.metric("gateway_requests_total{").await;
        assert!((requests - f64::from(self.load.requests)).abs() < 0.5, "{requests}");
        let lost = self.metric("gateway_records_").await;
        assert!(lost.abs() < 0.5, "{lost} records lost their bodies, or themselves");
    }
}

fn exporters(details: &Value) -> Vec<Value> {
    details["exporters"].as_array().cloned().expect("exporters")
}

pub(crate) fn ids(asked: &[Asked], wanted: impl Fn(&Asked) -> bool) -> BTreeSet<String> {
    asked.iter().filter(|one| wanted(one)).map(|one| one.id.clone()).collect()
}

async fn ask(address: String, body: String, thread: &str) -> Response {
    let headers = [("content-type", "application/json"), ("x-thread-id", thread)];
    magicapi_testkit::request("POST", &address, &headers, body).await
}

/// What a caller sees, but for what differs from request to request: the record's id, times, and the numbers that the
/// provider gives each answer. A length that does not fit its body is an error of the client already.
fn what_is_seen(answer: &Response) -> String {
    const OWN: [&str; 5] =
        ["content-length", "date", "openai-processing-ms", "x-gateway-overhead-ms", "x-request-id"];
    let headers = answer.headers.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
    let whole = format!("{} {:?}\n{}", answer.status, headers.collect::<Vec<_>>(), answer.text());
    without_numbers(&without_numbers(&whole, "chatcmpl-mock-"), "mock_req_")
}

/// A text without the number behind each `id` in it.
fn without_numbers(text: &str, id: &str) -> String {
    let parts: Vec<_> = text.split(id).collect();
    let cut = |part: &&str| part.trim_start_matches(|digit: char| digit.is_ascii_digit()).to_owned();
    let first = parts.iter().take(1).map(|part| (*part).to_owned());
    first.chain(parts.iter().skip(1).map(cut)).collect::<Vec<_>>().join(id)
}

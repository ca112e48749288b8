//! Seven faults of telemetry back ends, through the binary: all exporters at once, each with a back end of its own that
//! has the fault, and a healthy one beside them. Traffic keeps every status and byte, memory its bound; once the back ends
//! are mended, every record that the policy promises is there.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

#[path = "../scene/mod.rs"]
mod scene;
mod vendors;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::back_end::{BackEnd, Fault};
use magicapi_testkit::wire::until;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::scene::Scene;
use crate::vendors::{CONTENDERS, POISON, WITH_A_REAL_SERVER, WITHOUT_A_BACK_END};

const REQUESTS: u32 = 150;
/// 50 requests a second.
const PACE: Duration = Duration::from_millis(20);
/// Bytes of records that one exporter may hold in memory, of which an outage of all requests is many times more.
const MEMORY: u64 = 64 << 10;
/// How long one export may take.
const TIMEOUT: &str = "500ms";

/// The gateway, its exporters' back ends by name, and the healthy one.
struct Stage {
    scene: Scene,
    faulty: BTreeMap<&'static str, BackEnd>,
    healthy: BackEnd,
}

impl Stage {
    async fn start(fault: Fault) -> Self {
        let mut entries = Vec::new();
        let mut faulty = BTreeMap::new();
        for contender in &CONTENDERS {
            let back_end = BackEnd::start(contender.vendor, Some(fault)).await;
            let url = format!("http://{}", back_end.address);
            entries.push(entry(contender.name, contender.name, (contender.settings)(&url)));
            faulty.insert(contender.name, back_end);
        }
        let [.., webhook] = &CONTENDERS;
        let healthy = BackEnd::start(webhook.vendor, None).await;
        let url = format!("http://{}", healthy.address);
        entries.push(entry(webhook.name, "healthy", (webhook.settings)(&url)));
        let scene = Scene::start(json!({ "telemetry": { "exporters": entries } })).await;
        Self { scene, faulty, healthy }
    }

    /// Sends the requests at their pace, and gives the ids of their records; those of poison apart.
    async fn traffic(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let messages = json!([{ "role": "user", "content": "x".repeat(2000) }]);
        // Usage is asked for, or the gateway would, and take it out again.
        let usage = json!({ "include_usage": true });
        let body = |more: Value| {
            let mut body = chat("gpt-4o-mini", &json!({ "messages": messages }));
            magicapi_testkit::configuration::lay_over(&mut body, more);
            body
        };
        let bodies = [body(json!({})), body(json!({ "stream": true, "stream_options": usage }))];
        let script = json!({});
        let mut straight = Vec::new();
        for body in &bodies {
            straight.push(without_number(&self.scene.straight(&script, body).await.body()));
        }
        let (mut ids, mut poison) = (BTreeSet::new(), BTreeSet::new());
        let mut under_way = JoinSet::new();
        let mut pace = tokio::time::interval(PACE);
        let address = Arc::new(self.scene.gateway.url(CHAT));
        for number in 0..REQUESTS {
            pace.tick().await;
            let (body, expected) =
                (bodies[number as usize % 2].to_string(), straight[number as usize % 2].clone());
            let (address, script) = (address.clone(), script.to_string());
            under_way.spawn(async move {
                let thread = if number % 10 == 9 { POISON } else { "good" };
                let headers =
                    [("content-type", "application/json"), ("x-mock", &*script), ("x-thread-id", thread)];
                let answer = magicapi_testkit::request("POST", &address, &headers, body).await;
                assert_eq!(answer.status, 200);
                assert!(without_number(&answer.body) == expected, "traffic keeps every byte");
                (answer.header("x-request-id").to_owned(), thread == POISON)
            });
            if number % 25 == 0 {
                self.within_bounds().await;
            }
        }
        while let Some(answered) = under_way.join_next().await {
            let (id, is_poison) = answered.expect("a request");
            if is_poison { &mut poison } else { &mut ids }.insert(id);
        }
        assert_eq!(ids.len() + poison.len(), REQUESTS as usize);
        (ids, poison)
    }

    async fn within_bounds(&self) {
        let details = self.scene.admin("/health/details").await.json();
        for exporter in exporters(&details) {
            if exporter["name"] != "request_log" {
                assert!(exporter["queue_bytes"].as_u64() <= Some(MEMORY), "{exporter}");
            }
        }
    }

    async fn status(&self, name: &str) -> Value {
        let details = self.scene.admin("/health/details").await.json();
        exporters(&details).into_iter().find(|one| one["name"] == name).expect("the exporter")
    }

    /// Waits until every record of an exporter is settled, and gives its status.
    async fn settled(&self, name: &str) -> Value {
        until(&format!("{name}: nothing waits"), async || {
            let status = self.status(name).await;
            let waits = status["queue_records"] != 0 || status["spool_records"] != 0;
            let buried = status["dead_letters"] == status["rejected"];
            (!waits && buried && status["received"] == REQUESTS).then_some(status)
        })
        .await
    }
}

fn entry(kind: &str, name: &str, settings: Value) -> Value {
    let mut entry = json!({ "type": kind, "name": name, "timeout": TIMEOUT,
        "batch": { "records": 20, "bytes": "16KiB", "age": "50ms" }, "buffer": { "memory": MEMORY } });
    magicapi_testkit::configuration::lay_over(&mut entry, settings);
    entry
}

fn exporters(details: &Value) -> Vec<Value> {
    details["exporters"].as_array().cloned().expect("exporters")
}

/// An answer without the number that the provider gives each.
fn without_number(answer: &[u8]) -> String {
    const ID: &str = "chatcmpl-mock-";
    let text = String::from_utf8_lossy(answer);
    let mut parts = text.split(ID);
    let begin = parts.next().unwrap_or_default().to_owned();
    parts.fold(begin, |all, part| all + ID + part.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}

/// What an exporter does with records that a fault met.
#[derive(Clone, Copy, PartialEq)]
enum Promise {
    /// All arrive.
    All,
    /// All but the poison ones, which are rejected.
    AllButPoison,
    /// Each is delivered, or rejected and kept as a dead letter.
    EachIsAccountedFor,
}

async fn met_with(fault: Fault, promise: Promise) {
    let mut stage = Stage::start(fault).await;
    let (good, poison) = stage.traffic().await;
    let all: BTreeSet<String> = good.union(&poison).cloned().collect();
    // While the others still have their fault.
    until("every record at the healthy one", async || {
        (stage.healthy.seen().taken.len() == all.len()).then_some(())
    })
    .await;
    let at_the_healthy_one = (stage.healthy.seen().ids(), 0);
    assert_eq!(at_the_healthy_one, (all.clone(), stage.healthy.seen().duplicates()));
    stage.within_bounds().await;
    if promise == Promise::AllButPoison {
        // A poison record that comes after the mending is taken like any other.
        for name in stage.faulty.keys() {
            stage.settled(name).await;
        }
    }
    for back_end in stage.faulty.values_mut() {
        back_end.mend().await;
    }
    for (name, back_end) in &stage.faulty {
        let status = stage.settled(name).await;
        let seen = back_end.seen();
        let number = |key: &str| usize::try_from(status[key].as_u64().expect(key)).expect(key);
        assert_eq!(number("dropped"), 0, "{name}: {status}");
        assert_eq!(number("sent") + number("rejected"), all.len(), "{name}: {status}");
        match promise {
            Promise::All => assert_eq!(seen.ids(), all, "{name}"),
            Promise::AllButPoison => assert_eq!(seen.ids(), good, "{name}"),
            Promise::EachIsAccountedFor => assert_eq!(seen.ids().len(), number("sent"), "{name}"),
        }
        assert_eq!(number("ambiguous"), seen.unanswered, "{name}: {status}");
        let duplicates = if CONTENDERS.iter().any(|one| one.name == *name && one.vendor.has_keys) {
            0
        } else {
            seen.unanswered
        };
        assert_eq!(seen.duplicates(), duplicates, "{name}: each copy is one that was never answered");
        assert_eq!(seen.hasty, 0, "{name}: the back end's own delay is kept");
    }
}

#[test]
fn every_exporter_that_can_fail_takes_part() {
    let contenders = CONTENDERS.iter().map(|contender| contender.name);
    let elsewhere = WITH_A_REAL_SERVER.into_iter().chain(WITHOUT_A_BACK_END);
    let mut accounted: Vec<_> = contenders.chain(elsewhere).collect();
    accounted.sort_unstable();
    assert_eq!(accounted, magicapi_exporters::NAMES);
}

#[tokio::test]
async fn dead_back_ends() {
    met_with(Fault::Dead, Promise::All).await;
}

#[tokio::test]
async fn slow_back_ends() {
    met_with(Fault::Slow(Duration::from_secs(3)), Promise::All).await;
}

#[tokio::test]
async fn back_ends_that_refuse_everything_as_bad() {
    met_with(Fault::Refusing(400), Promise::EachIsAccountedFor).await;
}

#[tokio::test]
async fn back_ends_that_refuse_the_credential() {
    met_with(Fault::Refusing(401), Promise::All).await;
}

#[tokio::test]
async fn back_ends_that_throttle_with_a_delay() {
    met_with(Fault::Throttling, Promise::All).await;
}

#[tokio::test]
async fn back_ends_that_reject_single_records() {
    met_with(Fault::RejectingItems, Promise::AllButPoison).await;
}

#[tokio::test]
async fn back_ends_that_close_the_connection() {
    met_with(Fault::Closing, Promise::All).await;
}

//! File descriptors that run out: new connections are told, nothing spins, and the way back is open.

use std::fs;

use magicapi_mock::{MockOptions, MockServer};
use magicapi_testkit::ask::question;
use magicapi_testkit::configuration::configuration;
use magicapi_testkit::http::get;
use magicapi_testkit::wire::{Wire, request, until};
use magicapi_testkit::{Gateway, GatewayOptions};
use serde_json::json;

use crate::ask;
use crate::scene::BINARY;

/// What the gateway may open, hard limit and all.
const DESCRIPTORS: usize = 96;

/// User and system time of a process, in clock ticks.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let after_name = stat.rsplit_once(") ").expect("a name in parentheses").1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}

/// Takes connections until one is told that there is no room.
async fn use_up(gateway: &Gateway) -> Vec<Wire> {
    let mut held = Vec::new();
    for _ in 0..2 * DESCRIPTORS {
        let mut wire = Wire::connect(gateway.socket()).await;
        let answer = ask(&mut wire, "/health").await.expect("an answer, not a reset");
        if answer.head.status == 503 {
            assert_eq!(answer.head.header("retry-after"), Some("1"));
            assert_eq!(answer.json()["error"]["code"], "overloaded");
            return held;
        }
        assert_eq!(answer.head.status, 200);
        held.push(wire);
    }
    panic!("{} connections with {DESCRIPTORS} descriptors", held.len());
}

#[tokio::test]
async fn descriptors_that_run_out_are_a_503_and_not_a_spin() {
    let mock = MockServer::start(MockOptions::default()).await.expect("a mock");
    let config = configuration(&mock.base_url(), json!({}));
    let limit = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    // `prlimit` becomes the gateway: the process id stays.
    let options = GatewayOptions::new("/usr/bin/prlimit").arg(limit).arg(BINARY).config(config.to_string());
    let gateway = Gateway::start(options).await;
    let mut held = use_up(&gateway).await;
    assert!(held.len() > 10, "{}", held.len());

    // Connections that are there still work; a request that needs another one upstream is told the truth.
    let first = held.first_mut().expect("a connection");
    assert_eq!(ask(first, "/ready").await.expect("an answer").head.status, 200);
    let json = [("content-type", "application/json")];
    first.send(&request("POST", "/v1/chat/completions", &json, question().to_string().as_bytes())).await;
    let answer = first.answer().await.expect("an answer");
    assert_eq!((answer.head.status, &answer.json()["error"]["code"]), (503, &json!("overloaded")));
    assert_eq!(answer.head.header("x-gateway-error-origin"), Some("gateway"));

    // A connection waits in the queue meanwhile: an accept loop that spins would use a whole second of a processor.
    let waiting = Wire::connect(gateway.socket()).await;
    let before = ticks(gateway.pid);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let used = ticks(gateway.pid) - before;
    assert!(used < 50, "{used} of 100 ticks");
    drop(waiting);

    drop(held);
    let url = gateway.url("/health");
    until("descriptors", async || (get(&url, &[]).await.status == 200).then_some(())).await;
    let headers = [("content-type", "application/json")];
    let chat = gateway.url("/v1/chat/completions");
    let answer = magicapi_testkit::request("POST", &chat, &headers, question().to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

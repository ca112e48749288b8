//! Who leaves when: a client in each phase of its request, and the process itself (invariants 3 and 4). Whatever happens,
//! the upstream is let go and one record, one ledger row and one attempt row stay.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use crate::scene::{Left, Scene, before, ended, stop};
use magicapi_testkit::Gateway;
use magicapi_testkit::ask::{CHAT, buffered, chat_request, streaming};
use magicapi_testkit::puppet::Puppet;
use magicapi_testkit::wire::{Part, Wire, Wire2, events, request, rest, until};
use serde_json::{Value, json};

const FOR_EVER: u64 = 600_000;

/// Where a request is when its client leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    BeforeHead,
    BeforeFirstByte,
    Midway,
}

/// One way to leave.
#[derive(Clone, Copy, Debug)]
struct Leaver {
    phase: Phase,
    streamed: bool,
    http2: bool,
}

fn leavers() -> Vec<Leaver> {
    let mut leavers = Vec::new();
    for phase in [Phase::BeforeHead, Phase::BeforeFirstByte, Phase::Midway] {
        for (streamed, http2) in [(false, false), (false, true), (true, false), (true, true)] {
            leavers.push(Leaver { phase, streamed, http2 });
        }
    }
    leavers
}

impl Leaver {
    fn name(self) -> String {
        format!("{self:?}")
    }

    fn body(self) -> Value {
        if self.streamed { streaming() } else { buffered() }
    }

    /// A provider that is still busy when the client leaves.
    fn script(self) -> Value {
        match (self.phase, self.streamed) {
            (Phase::BeforeHead, _) => json!({ "delay_headers_ms": FOR_EVER }),
            (Phase::BeforeFirstByte, _) => json!({ "stall_after": 0 }),
            (Phase::Midway, true) => json!({ "text": "a b c d", "stall_after": 3 }),
            // More than sockets hold on the way.
            (Phase::Midway, false) => json!({ "bytes": 64 << 20 }),
        }
    }

    async fn leave(self, scene: &Scene) {
        let before = scene.mock.stats().requests;
        let arrived = async || (scene.mock.stats().requests > before).then_some(());
        if self.http2 {
            let script = self.script().to_string();
            let name = self.name();
            let headers = [
                ("content-type", "application/json"),
                ("x-thread-id", name.as_str()),
                ("x-mock", script.as_str()),
            ];
            let mut wire = Wire2::connect(scene.gateway.socket()).await;
            let exchange = wire.send("POST", CHAT, &headers, self.body().to_string().as_bytes()).await;
            until("the request at the provider", arrived).await;
            if self.phase == Phase::BeforeHead {
                return drop(exchange);
            }
            let (status, mut body) = exchange.head().await;
            assert_eq!(status, 200);
            if self.phase == Phase::Midway {
                body.data().await.expect("a part").expect("a part");
            }
            // The stream is reset; the connection stays until here.
            drop(body);
            until("the upstream closing", async || (scene.mock.stats().open_streams == 0).then_some(()))
                .await;
            return drop(wire);
        }
        let mut wire = scene.open(&self.name(), &self.script(), &self.body()).await;
        until("the request at the provider", arrived).await;
        if self.phase != Phase::BeforeHead {
            assert_eq!(wire.head().await.expect("a head").status, 200);
        }
        if self.phase == Phase::Midway {
            assert!(matches!(wire.part().await, Part::Data(_)));
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_closes_the_upstream_in_every_phase() {
    let scene = Scene::start(json!({})).await;
    for (gone, leaver) in (1..).zip(leavers()) {
        leaver.leave(&scene).await;
        let closed = async || (scene.mock.stats().aborted == gone).then_some(());
        until(&format!("{leaver:?}: the upstream closing"), closed).await;
    }
    scene.gateway.idle().await;
    assert_eq!(scene.mock.stats().completed, 0);
    let left = stop(scene.gateway).await;
    assert_eq!((left.records.len(), left.ledger.len()), (leavers().len(), leavers().len()));
    for leaver in leavers() {
        let status = if leaver.phase == Phase::BeforeHead { 499 } else { 200 };
        assert_left(&left, &leaver.name(), status);
        let ttfb = &left.metadata(&leaver.name())["ttfb"];
        assert_eq!(ttfb.is_null(), leaver.phase != Phase::Midway, "{leaver:?}: {ttfb}");
    }
}

fn assert_left(left: &Left, case: &str, status: u16) {
    let metadata = left.metadata(case);
    assert_eq!(metadata["outcome"], "client_closed", "{case}");
    assert_eq!((&metadata["status"], &metadata["error_count"]), (&json!("error"), &json!(1)), "{case}");
    assert_eq!(metadata["error_type"], "client_closed", "{case}");
    assert_eq!(metadata["status_code"], status, "{case}");
    assert_eq!(metadata["provider_error_count"], 0, "{case}: it was not the provider's fault");
    let row = left.row(case);
    assert_eq!(
        (row.outcome.as_str(), row.status_code, row.attempts.len()),
        ("client_closed", status, 1),
        "{case}"
    );
}

#[tokio::test]
async fn a_provider_that_bills_anyway_is_read_to_its_end() {
    let scene = Scene::start(json!({ "providers": { "openai": { "on_client_gone": "drain" } } })).await;
    let slow = json!({ "text": "a b c d e f", "gap_ms": 50 });
    let late = json!({ "text": "a b c d e f", "delay_headers_ms": 500 });
    let cases = [
        ("midway", &slow, streaming()),
        ("before the head", &late, streaming()),
        ("a document before the head", &late, buffered()),
    ];
    for (done, (case, script, body)) in (1..).zip(&cases) {
        let mut wire = scene.open(case, script, body).await;
        until("the request at the provider", async || (scene.mock.stats().requests == done).then_some(()))
            .await;
        if *case == "midway" {
            wire.head().await.expect("a head");
            wire.part().await;
        }
        drop(wire);
        until("the answer's end", async || (scene.mock.stats().completed == done).then_some(())).await;
    }
    scene.gateway.idle().await;
    assert_eq!(scene.mock.stats().aborted, 0);
    let left = stop(scene.gateway).await;
    assert_eq!(left.records.len(), cases.len());
    for (case, ..) in &cases {
        assert_left(&left, case, if *case == "midway" { 200 } else { 499 });
        assert_eq!(left.metadata(case)["tokens"]["output"], 6, "{case}");
        assert_eq!(left.metadata(case)["usage_final"], true, "{case}");
        assert_eq!(left.row(case).usage.output, Some(6), "{case}");
        assert!(left.row(case).usage_final && left.row(case).cost.is_some(), "{case}");
    }
}

/// The caller's latency ends with the caller, the attempt's goes on; and whoever left gets no answer.
#[tokio::test]
async fn what_is_read_for_nobody_is_no_latency_and_no_answer() {
    let scene = Scene::start(json!({ "providers": { "openai": { "on_client_gone": "drain" } } })).await;
    let words = json!({ "text": "a b c d e f g h i j", "gap_ms": 300 });
    let late = json!({ "text": "a b c", "delay_headers_ms": 3000 });
    let cases = [("midway", words, streaming(), 200), ("late", late, buffered(), 499)];
    for (asked, (case, script, body, status)) in (1..).zip(&cases) {
        let mut wire = scene.open(case, script, body).await;
        until("the request at the provider", async || (scene.mock.stats().requests == asked).then_some(()))
            .await;
        if *status == 200 {
            wire.head().await.expect("a head");
            wire.part().await;
        }
    }
    scene.gateway.idle().await;
    let left = stop(scene.gateway).await;
    for (case, _, _, status) in &cases {
        let metadata = left.metadata(case);
        let (outcome, code) = (&metadata["outcome"], &metadata["status_code"]);
        assert_eq!((outcome, code), (&json!("client_closed"), &json!(status)), "{case}");
        let latency = metadata["latency"].as_u64().expect("ms");
        let attempt = left.row(case).attempts[0].latency_ms;
        assert!(latency + 500 < attempt, "{case}: {latency} of {attempt} ms");
        if *status == 499 {
            assert_eq!((&metadata["response_size"], &metadata["ttfb"]), (&json!(0), &json!(null)), "{case}");
        }
    }
    assert_eq!(left.metadata("midway")["tokens"]["output"], 10);
}

/// What the provider does after that changes nothing.
#[tokio::test]
async fn a_client_that_left_before_the_provider_failed_has_left() {
    let puppet = Puppet::start().await;
    let drains = json!({ "providers": { "openai": { "on_client_gone": "drain" } } });
    let gateway = before(&puppet.base_url(), drains).await;
    let mut wire = Wire::connect(gateway.socket()).await;
    wire.send(&chat_request("left", &json!({}), &buffered())).await;
    let hand = puppet.asked().await;
    drop(wire);
    until("the client leaving", async || (gateway.data_plane().await["connections"] == 0).then_some(()))
        .await;
    drop(hand);
    gateway.idle().await;
    let left = stop(gateway).await;
    assert_left(&left, "left", 499);
    assert_eq!(left.metadata("left")["response_size"], 0);
}

#[tokio::test]
async fn a_client_that_leaves_within_its_request_is_recorded() {
    let scene = Scene::start(json!({})).await;
    let whole = chat_request("held", &json!({}), &streaming());
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&whole[..whole.len() - 10]).await;
    until("the request", async || (scene.gateway.data_plane().await["in_flight"] == 1).then_some(())).await;
    drop(wire);
    scene.gateway.idle().await;
    let headers = [
        ("content-type", "multipart/form-data; boundary=b"),
        ("x-thread-id", "passing"),
        ("authorization", "Bearer own"),
        ("content-length", "1000000"),
    ];
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&magicapi_testkit::wire::request_head("POST", "/v1/audio/transcriptions", &headers)).await;
    wire.send(b"--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b\r\n").await;
    wire.send(b"content-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF").await;
    until("the upload at the provider", async || (scene.mock.stats().requests == 1).then_some(())).await;
    drop(wire);
    until("the upstream closing", async || (scene.mock.stats().aborted == 1).then_some(())).await;
    scene.gateway.idle().await;
    let left = stop(scene.gateway).await;
    assert_eq!(left.records.len(), 2);
    for (case, attempts) in [("held", 0), ("passing", 1)] {
        assert_eq!(left.metadata(case)["outcome"], "client_closed", "{case}");
        assert_eq!(left.metadata(case)["status_code"], 499, "{case}");
        assert_eq!(left.row(case).attempts.len(), attempts, "{case}");
    }
}

/// An answer without a body has been given whole once its head has: nobody left.
#[tokio::test]
async fn an_empty_answer_is_complete() {
    let scene = Scene::start(json!({})).await;
    let nothing = json!({ "status": 204 });
    for (case, script) in [("none", &nothing), ("empty", &json!({ "body": "" }))] {
        let answer = scene.answer(case, script, &buffered()).await;
        assert!(answer.whole && answer.body().is_empty(), "{case}");
    }
    let left = stop(scene.gateway).await;
    for case in ["none", "empty"] {
        assert_eq!(left.metadata(case)["outcome"], "completed", "{case}");
    }
}

async fn streaming_through(puppet: &Puppet, gateway: &Gateway) -> (Wire, magicapi_testkit::puppet::Hand) {
    let mut wire = Wire::connect(gateway.socket()).await;
    wire.send(&chat_request("running", &json!({}), &streaming())).await;
    let mut hand = puppet.asked().await;
    hand.stream().await;
    hand.send(WORD).await;
    wire.head().await.expect("a head");
    assert_eq!(wire.part().await, Part::Data(WORD.to_vec()));
    (wire, hand)
}

const WORD: &[u8] =
    b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"},\"finish_reason\":null}]}\n\n";
const LAST: &[u8] =
    b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

async fn ready(gateway: &Gateway) -> u16 {
    let mut wire = Wire::connect(gateway.socket()).await;
    wire.send(&request("GET", "/ready", &[], b"")).await;
    wire.answer().await.expect("an answer").head.status
}

#[tokio::test]
async fn the_process_leaves_when_its_streams_have_ended() {
    let puppet = Puppet::start().await;
    let drain = json!({ "server": { "drain": { "delay": "3s", "timeout": "60s" } } });
    let gateway = before(&puppet.base_url(), drain).await;
    let (mut wire, mut hand) = streaming_through(&puppet, &gateway).await;
    assert_eq!(ready(&gateway).await, 200);
    gateway.signal("TERM");
    until("not ready", async || (ready(&gateway).await == 503).then_some(())).await;
    // Balancers need a while to notice: until then requests are served.
    let mut late = Wire::connect(gateway.socket()).await;
    late.send(&chat_request("late", &json!({}), &streaming())).await;
    let mut late_hand = puppet.asked().await;
    late_hand.stream().await;
    late_hand.send(LAST).await;
    late_hand.end().await;
    assert!(late.answer().await.expect("an answer").text().ends_with("[DONE]\n\n"));
    drop(late);
    let refused = async || tokio::net::TcpStream::connect(gateway.socket()).await.is_err().then_some(());
    until("the listener closing", refused).await;
    for _ in 0..3 {
        hand.send(WORD).await;
        assert_eq!(wire.part().await, Part::Data(WORD.to_vec()), "a running stream goes on");
    }
    hand.send(LAST).await;
    hand.end().await;
    assert_eq!(wire.part().await, Part::Data(LAST.to_vec()));
    assert_eq!(wire.part().await, Part::End);
    let left = ended(gateway).await;
    assert_eq!(left.code, Some(0));
    for case in ["late", "running"] {
        assert_eq!(left.metadata(case)["outcome"], "completed", "{case}");
        assert_eq!(left.row(case).outcome.as_str(), "completed", "{case}");
    }
}

#[tokio::test]
async fn told_twice_it_cuts_what_runs_with_an_error_frame() {
    let puppet = Puppet::start().await;
    let gateway = before(&puppet.base_url(), json!({})).await;
    let (mut wire, mut hand) = streaming_through(&puppet, &gateway).await;
    let mut waiting = Wire::connect(gateway.socket()).await;
    waiting.send(&chat_request("waiting", &json!({}), &buffered())).await;
    let mut silent = puppet.asked().await;
    let half = chat_request("half", &json!({}), &buffered());
    let mut sending = Wire::connect(gateway.socket()).await;
    sending.send(&half[..half.len() - 10]).await;
    until("the request", async || (gateway.data_plane().await["in_flight"] == 3).then_some(())).await;
    gateway.signal("TERM");
    until("draining", async || gateway.log().join("\n").contains("draining").then_some(())).await;
    gateway.signal("TERM");
    let Part::Data(frame) = wire.part().await else { panic!("no frame") };
    let frame = events(&String::from_utf8_lossy(&frame)).pop().expect("an event");
    let frame: Value = serde_json::from_str(&frame).expect("JSON");
    assert_eq!(frame["error"]["code"], "shutting_down");
    assert_eq!(wire.part().await, Part::End);
    hand.closed().await;
    silent.closed().await;
    for mut wire in [waiting, sending] {
        let answer = wire.answer().await.expect("an answer, not a bare close");
        assert_eq!((answer.head.status, &answer.json()["error"]["code"]), (503, &json!("shutting_down")));
        assert_eq!(answer.head.header("x-gateway-error-origin"), Some("gateway"));
    }
    let left = ended(gateway).await;
    assert_eq!(left.code, Some(0));
    let cases = [
        ("running", "truncated", 200, 1),
        ("waiting", "truncated", 503, 1),
        ("half", "gateway_error", 503, 0),
    ];
    for (case, outcome, status, attempts) in cases {
        let metadata = left.metadata(case);
        assert_eq!(metadata["error_type"], "shutting_down", "{case}: the client did not leave");
        assert_eq!(
            (&metadata["outcome"], &metadata["status_code"]),
            (&json!(outcome), &json!(status)),
            "{case}"
        );
        assert_eq!(left.row(case).attempts.len(), attempts, "{case}");
    }
}

/// A provider that is read for nobody holds no connection of a client, but its request is still under way.
#[tokio::test]
async fn told_twice_it_records_what_it_read_for_nobody() {
    let puppet = Puppet::start().await;
    let drains = json!({ "providers": { "openai": { "on_client_gone": "drain" } } });
    let gateway = before(&puppet.base_url(), drains).await;
    let (wire, mut hand) = streaming_through(&puppet, &gateway).await;
    let mut waiting = Wire::connect(gateway.socket()).await;
    waiting.send(&chat_request("waiting", &json!({}), &buffered())).await;
    let mut silent = puppet.asked().await;
    drop((wire, waiting));
    let alone = async || {
        let held = gateway.data_plane().await;
        (held["connections"] == 0 && held["in_flight"] == 2).then_some(())
    };
    until("the clients leaving", alone).await;
    gateway.signal("TERM");
    until("draining", async || gateway.log().join("\n").contains("draining").then_some(())).await;
    hand.send(WORD).await;
    gateway.signal("TERM");
    hand.closed().await;
    silent.closed().await;
    let left = ended(gateway).await;
    assert_eq!((left.code, left.records.len()), (Some(0), 2));
    for case in ["running", "waiting"] {
        assert_eq!(left.metadata(case)["outcome"], "client_closed", "{case}");
        assert_eq!(left.row(case).attempts.len(), 1, "{case}");
    }
}

/// An HTTP/2 client sees the same stream, and its connection carries on after another request on it was left.
#[tokio::test]
async fn leaving_one_http2_stream_leaves_the_others() {
    let scene = Scene::start(json!({})).await;
    let mut wire = Wire2::connect(scene.gateway.socket()).await;
    let script = json!({ "stall_after": 2 }).to_string();
    let body = streaming().to_string();
    let one = wire.send("POST", CHAT, &[("x-thread-id", "one"), ("x-mock", &script)], body.as_bytes()).await;
    let (status, one) = one.head().await;
    assert_eq!(status, 200);
    let slow = json!({ "text": "a b c d e f", "gap_ms": 50 }).to_string();
    let two = wire.send("POST", CHAT, &[("x-thread-id", "two"), ("x-mock", &slow)], body.as_bytes()).await;
    let (_, mut two) = two.head().await;
    drop(one);
    until("the upstream closing", async || (scene.mock.stats().aborted == 1).then_some(())).await;
    let (bytes, whole) = rest(&mut two).await;
    assert!(whole && bytes.ends_with(b"data: [DONE]\n\n"));
    let left = stop(scene.gateway).await;
    assert_eq!(left.metadata("one")["outcome"], "client_closed");
    assert_eq!(left.metadata("two")["outcome"], "completed");
}

/// A provider that refuses an upload and does not read it holds nobody: the caller gets its answer and the usual end, and
/// the process can leave.
#[tokio::test]
async fn an_upload_that_is_refused_early_is_let_go() {
    let puppet = Puppet::start().await;
    let gateway = before(&puppet.base_url(), json!({})).await;
    let own = [("authorization", "Bearer sk-mine"), ("x-thread-id", "refused")];
    // More than the sockets hold on the way.
    let upload = request("POST", "/proxy/openai/blob", &own, &vec![b'y'; 30 << 20]);
    let mut wire = Wire::connect(gateway.socket()).await;
    let refuse = async {
        let mut hand = puppet.reached().await;
        hand.raw(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}").await;
        hand
    };
    let (_, mut hand) = tokio::join!(wire.try_send(&upload), refuse);
    let answer = wire.answer().await.expect("an answer");
    assert_eq!((answer.head.status, answer.text().as_str(), answer.whole), (401, "{}", true));
    assert_eq!(answer.head.header("connection"), Some("close"));
    assert!(wire.head().await.is_none(), "the connection ends");
    hand.closed().await;
    drop(wire);
    let left = stop(gateway).await;
    assert_eq!(left.metadata("refused")["provider_status_code"], 401);
}

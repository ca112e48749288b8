//! However a provider's bytes are cut into pieces, the client gets the same bytes and the record says the same
//! (invariant 3); and where nothing is edited, those bytes are the provider's own (invariant 1).
//!
//! Every offset is tried at the level of `dialects`; here a sample goes through the real binary.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::scene::{before, stop};
use magicapi_testkit::Gateway;
use magicapi_testkit::ask::{CHAT, streaming, streaming_with_usage};
use magicapi_testkit::wire::{Answer, Wire, chunk, patiently, request};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A stream as a provider sent it, and whether the gateway changes nothing of it for a caller who asked for usage.
struct Fixture {
    name: &'static str,
    bytes: Vec<u8>,
    untouched: bool,
}

const USAGE: &str = r#"data: {"id":"c1","object":"chat.completion.chunk","model":"m","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16}}

"#;

/// The guide's sample, as Groq streams it.
const GROQ: &str = r#"data: {"id":"chatcmpl-7c6b3e04","object":"chat.completion.chunk","created":1741190600,"model":"llama-3.1-8b-instant","system_fingerprint":"fp_f66ccb39ec","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"x_groq":{"id":"req_01jn"}}

data: {"id":"chatcmpl-7c6b3e04","object":"chat.completion.chunk","created":1741190600,"model":"llama-3.1-8b-instant","system_fingerprint":"fp_f66ccb39ec","choices":[{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}]}

data: {"id":"chatcmpl-7c6b3e04","object":"chat.completion.chunk","created":1741190600,"model":"llama-3.1-8b-instant","system_fingerprint":"fp_f66ccb39ec","choices":[{"index":0,"delta":{"content":" there"},"logprobs":null,"finish_reason":null}]}

data: {"id":"chatcmpl-7c6b3e04","object":"chat.completion.chunk","created":1741190600,"model":"llama-3.1-8b-instant","system_fingerprint":"fp_f66ccb39ec","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"x_groq":{"id":"req_01jn","usage":{"queue_time":0.018,"prompt_tokens":48,"prompt_time":0.004,"completion_tokens":865,"completion_time":1.15,"total_tokens":913,"total_time":1.15}}}

data: [DONE]

"#;

fn delta(delta: &Value, finish: &Value) -> String {
    let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
    format!(
        "data: {}\n\n",
        json!({ "id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": [choice] })
    )
}

fn fixtures() -> Vec<Fixture> {
    let text = delta(&json!({ "role": "assistant", "content": "Grüße " }), &Value::Null)
        + &delta(&json!({ "content": "世界 🦀\u{200d}" }), &Value::Null)
        + &delta(&json!({ "content": "e\u{301}\r\n\"quoted\"" }), &Value::Null)
        + &delta(&json!({}), &json!("stop"));
    let call = |index: u8, id: &str, arguments: &str| {
        json!({ "tool_calls": [{ "index": index, "id": id, "type": "function",
            "function": { "name": "f", "arguments": arguments } }] })
    };
    let tools = delta(&call(0, "a", ""), &Value::Null)
        + &delta(&call(1, "b", "{\"x\""), &Value::Null)
        + &delta(&call(0, "a", "{\"ü\":1}"), &Value::Null)
        + &delta(&call(1, "b", ":2}"), &Value::Null)
        + &delta(&json!({}), &json!("tool_calls"));
    let done = "data: [DONE]\n\n";
    let plain = text.clone() + USAGE + done;
    let error = "data: {\"error\":{\"message\":\"no mörе\",\"type\":\"server_error\",\"code\":500}}\n\n";
    let odd =
        format!(": hi\n\nid: 7\nevent: x\n{text}retry: 5\n\ndata:\n\n{USAGE}{done}data: {{\"late\":1}}\n\n");
    let fixture = |name, text: String, untouched| Fixture { name, bytes: text.into_bytes(), untouched };
    vec![
        fixture("text", plain.clone(), true),
        fixture("crlf", plain.replace('\n', "\r\n"), true),
        fixture("cr", plain.replace('\n', "\r"), true),
        fixture("bom", format!("\u{feff}{plain}"), true),
        fixture("no space", plain.replace("data: ", "data:"), true),
        fixture("tools", tools + USAGE + done, true),
        fixture("groq", GROQ.to_owned(), true),
        fixture("error", text.clone() + error, true),
        fixture("odd", odd.clone(), false),
        fixture("odd crlf", odd.replace('\n', "\r\n"), false),
        fixture("no done", text.clone() + USAGE, false),
        fixture("no end", text.clone() + USAGE.trim_end(), false),
        fixture("cut", plain[..plain.len() / 2].chars().collect(), false),
        fixture("cut crlf", plain.replace('\n', "\r\n")[..text.len() / 2].chars().collect(), false),
    ]
}

/// How a stream is cut: in two at an offset, or into pieces of a size.
#[derive(Clone, Copy, Debug)]
enum Cut {
    At(usize),
    Every(usize),
}

impl Cut {
    fn pieces(self, bytes: &[u8]) -> Vec<&[u8]> {
        match self {
            Self::At(at) => {
                let (before, after) = bytes.split_at(at.min(bytes.len()));
                vec![before, after].into_iter().filter(|piece| !piece.is_empty()).collect()
            }
            Self::Every(size) => bytes.chunks(size).collect(),
        }
    }

    fn name(self) -> String {
        match self {
            Self::At(at) => format!("at:{at}"),
            Self::Every(size) => format!("every:{size}"),
        }
    }

    fn read(name: &str) -> Self {
        let (kind, number) = name.split_once(':').expect("a cut");
        let number = number.parse().expect("a number");
        if kind == "at" { Self::At(number) } else { Self::Every(number) }
    }
}

/// A provider that sends fixture and cut as the header `x-fixture` says.
async fn provider(fixtures: Arc<Vec<Fixture>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, fixtures.clone()));
        }
    });
    address
}

async fn serve(mut socket: TcpStream, fixtures: Arc<Vec<Fixture>>) {
    socket.set_nodelay(true).expect("TCP_NODELAY");
    let mut buffer = Vec::new();
    loop {
        let Some((wanted, length)) = asked(&buffer) else {
            match socket.read_buf(&mut buffer).await {
                Ok(read) if read > 0 => continue,
                _ => return,
            }
        };
        buffer.drain(..length);
        let (number, cut) = wanted.split_once('/').expect("fixture and cut");
        let fixture = &fixtures[number.parse::<usize>().expect("a number")];
        let head =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut answer = head.to_vec();
        // A transfer chunk is a piece of its own to whoever reads it, also when several arrive in one read.
        for piece in Cut::read(cut).pieces(&fixture.bytes) {
            answer.extend_from_slice(&chunk(piece));
        }
        answer.extend_from_slice(b"0\r\n\r\n");
        if socket.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// The header and the length of the first request, once it is whole.
fn asked(buffer: &[u8]) -> Option<(String, usize)> {
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let field = |name: &str| Some(head.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned());
    let length = end + field("content-length:")?.parse::<usize>().ok()?;
    (buffer.len() >= length).then(|| (field("x-fixture:").expect("a fixture"), length))
}

/// The cuts of a fixture: whole first, then single bytes and other sizes, then a sample of offsets and all of the end's.
fn cuts(bytes: usize) -> Vec<Cut> {
    let mut cuts = vec![Cut::At(0), Cut::Every(1), Cut::Every(2), Cut::Every(7), Cut::Every(64)];
    let last = bytes.saturating_sub(24);
    cuts.extend((1..last).step_by(5).chain(last..bytes).map(Cut::At));
    cuts
}

async fn ask(wire: &mut Wire, case: &str, fixture: usize, cut: Cut, body: &Value) -> Answer {
    let wanted = format!("{fixture}/{}", cut.name());
    let headers =
        [("content-type", "application/json"), ("x-thread-id", case), ("x-fixture", wanted.as_str())];
    wire.send(&request("POST", CHAT, &headers, body.to_string().as_bytes())).await;
    patiently(case, wire.answer()).await.unwrap_or_else(|| panic!("{case}: no answer"))
}

/// What a record says, without what differs between any two requests.
fn essence(record: &Value) -> Value {
    let mut attributes = record["attributes"].clone();
    let map = attributes.as_object_mut().expect("attributes");
    for name in ["id", "thread_id"] {
        map.shift_remove(name);
    }
    let metadata = attributes["metadata"].as_object_mut().expect("metadata");
    for name in ["latency", "ttfb", "provider_latency"] {
        metadata.shift_remove(name);
    }
    attributes
}

/// Answers by case, from a few connections at once.
async fn run(gateway: &Gateway, fixtures: &Arc<Vec<Fixture>>, usage: bool) -> HashMap<String, Answer> {
    let body = if usage { streaming_with_usage() } else { streaming() };
    let mut tasks = JoinSet::new();
    for number in 0..fixtures.len() {
        let (fixtures, body, address) = (fixtures.clone(), body.clone(), gateway.socket());
        tasks.spawn(async move {
            let mut wire = Wire::connect(address).await;
            let mut answers = Vec::new();
            for cut in cuts(fixtures[number].bytes.len()) {
                let case = format!("{}/{}/{usage}", fixtures[number].name, cut.name());
                answers.push((case.clone(), ask(&mut wire, &case, number, cut, &body).await));
            }
            answers
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_split_gives_the_same_bytes_and_the_same_record() {
    let fixtures = Arc::new(fixtures());
    let address = provider(fixtures.clone()).await;
    let gateway = before(&format!("http://{address}/v1"), json!({})).await;
    let mut answers = run(&gateway, &fixtures, true).await;
    answers.extend(run(&gateway, &fixtures, false).await);
    let left = stop(gateway).await;
    assert_eq!(left.records.len(), answers.len());
    let by_case: HashMap<&str, &Value> = left
        .records
        .iter()
        .map(|record| (record["attributes"]["thread_id"].as_str().expect("a case"), record))
        .collect();
    assert_eq!(by_case.len(), answers.len(), "a record each");
    let ids: HashSet<_> = left.ledger.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), answers.len(), "a ledger row each");
    for fixture in fixtures.iter() {
        for usage in [true, false] {
            let case = |cut: Cut| format!("{}/{}/{usage}", fixture.name, cut.name());
            let whole = case(Cut::At(0));
            let (expected, record) = (&answers[&whole], essence(by_case[whole.as_str()]));
            if usage && fixture.untouched {
                assert_eq!(
                    expected.text(),
                    String::from_utf8_lossy(&fixture.bytes),
                    "{whole}: a plain relay"
                );
            }
            for cut in cuts(fixture.bytes.len()) {
                let case = case(cut);
                assert_eq!(answers[&case].text(), expected.text(), "{case}");
                assert_eq!((answers[&case].head.status, answers[&case].whole), (200, true), "{case}");
                assert_eq!(essence(by_case[case.as_str()]), record, "{case}");
            }
        }
    }
}

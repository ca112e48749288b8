//! The telemetry back ends that exporters send to, as far as a fault needs them: where a record stands in a request, and
//! how the vendor answers. What a child of `exec` forwards to speaks HTTP like the others.

use magicapi_testkit::asked::Asked;
use magicapi_testkit::back_end::{Item, Said, Vendor};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use prost::Message;
use serde_json::{Value, json};

/// The thread of a record that a back end which rejects single records rejects.
pub(crate) const POISON: &str = "poison";
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// One exporter: its name, its back end, and its own settings for a back end there.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// Whether its back end has each record once, however often it is sent.
    pub(crate) exactly_once: bool,
    pub(crate) vendor: Vendor,
    pub(crate) settings: fn(url: &str) -> Value,
}

/// A plug-in that hands each batch on over HTTP, and says of each record what it was told.
const FORWARDER: &str = r#"
import http.client, json, sys

def say(**answer):
    print(json.dumps(answer), flush=True)

def forward(records):
    connection = http.client.HTTPConnection(sys.argv[1])
    try:
        connection.connect()
    except OSError:
        return [{"retry": True}] * len(records)
    connection.request("POST", "/in", json.dumps([{"attributes": record} for record in records]))
    answer = connection.getresponse()
    body = answer.read()
    if answer.status == 401:
        say(refuse="the credential is not taken")
        return []
    if answer.status == 429:
        return [{"retry": True, "after": answer.getheader("retry-after") + "s"}] * len(records)
    if answer.status == 400:
        return [{"reject": "status 400"}] * len(records)
    return [{"ok": True} if taken else {"reject": "bad"} for taken in json.loads(body)]

say(ready=True)
batch = []
for line in sys.stdin:
    if line == "\n":
        for record, verdict in zip(batch, forward(batch)):
            say(id=record["id"], **verdict)
        batch = []
    else:
        attributes = json.loads(line)["attributes"]
        batch.append({"id": attributes["id"], "thread_id": attributes["thread_id"]})
"#;

/// Exporters of which no back end can stand still or say no: what is written to standard output or to a file, and what
/// is fetched. They are beside the others. A full disk has tests of its own, in `files.rs`.
pub(crate) const WITHOUT_A_BACK_END: [&str; 3] = ["console", "file", "prometheus"];

/// Every exporter that has a back end to send to over HTTP, be it through a child.
pub(crate) const CONTENDERS: [Contender; 6] = [
    Contender {
        name: "elasticsearch",
        exactly_once: true,
        vendor: Vendor {
            items: |asked| {
                let lines = std::str::from_utf8(&asked.body).ok()?.lines().collect::<Vec<_>>();
                let pairs = asked.path.contains("/_bulk").then(|| lines.chunks(2))?;
                let one = |pair: &[&str]| {
                    // What is not created may replace what is there, and has no key.
                    let key = parse(pair[0])["create"]["_id"].as_str().map(str::to_owned);
                    Item { key, ..item(&parse(pair[1])["attributes"]) }
                };
                Some(pairs.map(one).collect())
            },
            answer: |said| {
                let one = |said: &Said| match said {
                    Said::Taken => json!({ "status": 201 }),
                    Said::Known => failed(409, "version_conflict_engine_exception"),
                    Said::Refused => failed(400, "document_parsing_exception"),
                };
                let items: Vec<Value> = said.iter().map(|said| json!({ "create": one(said) })).collect();
                let errors = said.iter().any(|said| *said != Said::Taken);
                (200, json!({ "errors": errors, "items": items }).to_string().into_bytes())
            },
            other: r#"{"status":"green","acknowledged":true}"#,
        },
        settings: |url| json!({ "url": url, "template": false }),
    },
    Contender {
        name: "datadog",
        exactly_once: false,
        vendor: Vendor {
            items: |asked| listed(asked, "/api/v2/logs", "", ""),
            answer: whole_requests,
            other: "{}",
        },
        settings: |url| json!({ "api_key": KEY, "logs_url": url, "api_url": url }),
    },
    Contender {
        name: "exec",
        exactly_once: false,
        vendor: Vendor {
            items: |asked| listed(asked, "/in", "", "/attributes"),
            answer: |said| {
                let taken: Vec<bool> = said.iter().map(|said| *said != Said::Refused).collect();
                (200, json!(taken).to_string().into_bytes())
            },
            other: "{}",
        },
        settings: |url| {
            let address = url.trim_start_matches("http://");
            // Time for an interpreter to start, and less than a slow back end takes.
            json!({ "command": ["python3", "-c", FORWARDER, address], "timeout": "5s",
                "env": { "PATH": "/usr/local/bin:/usr/bin:/bin" } })
        },
    },
    Contender {
        name: "newrelic",
        exactly_once: false,
        vendor: Vendor {
            items: |asked| listed(asked, "/log/v1", "/0/logs", "/attributes"),
            answer: whole_requests,
            other: "{}",
        },
        settings: |url| json!({ "license_key": KEY, "url": format!("{url}/log/v1") }),
    },
    Contender {
        name: "otlp",
        exactly_once: false,
        vendor: Vendor {
            items: spans,
            // An answer that says nothing is a protobuf message of no bytes.
            answer: |said| (whole_requests(said).0, Vec::new()),
            other: "",
        },
        settings: |url| json!({ "endpoint": url, "signals": ["traces"] }),
    },
    Contender {
        name: "webhook",
        exactly_once: false,
        vendor: Vendor {
            items: |asked| listed(asked, "/in", "", "/attributes"),
            answer: whole_requests,
            other: "{}",
        },
        settings: |url| json!({ "url": format!("{url}/in") }),
    },
];

/// A vendor that says yes or no to a request as a whole.
fn whole_requests(said: &[Said]) -> (u16, Vec<u8>) {
    (if said.contains(&Said::Refused) { 400 } else { 202 }, b"{}".to_vec())
}

/// What Elasticsearch says of a record that it did not index.
fn failed(status: u16, kind: &str) -> Value {
    json!({ "status": status, "error": { "type": kind } })
}

/// Records as elements of the list at `list`, their attributes at `attributes` of each.
fn listed(asked: &Asked, path: &str, list: &str, attributes: &str) -> Option<Vec<Item>> {
    let body = (asked.method == "POST" && asked.path == path).then(|| asked.json())?;
    let records = body.pointer(list)?.as_array()?;
    Some(records.iter().filter_map(|record| record.pointer(attributes)).map(item).collect())
}

/// Records as spans; a request without any asks whether the server is there.
fn spans(asked: &Asked) -> Option<Vec<Item>> {
    let request = (asked.path == "/v1/traces").then(|| ExportTraceServiceRequest::decode(&asked.body[..]))?;
    let scopes = request.ok()?.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    let items: Vec<Item> = scopes
        .flat_map(|scope| scope.spans)
        .map(|span| Item {
            id: text(&span.attributes, "gateway.id").expect("an id"),
            key: None,
            poison: text(&span.attributes, "gen_ai.conversation.id").as_deref() == Some(POISON),
        })
        .collect();
    (!items.is_empty()).then_some(items)
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match attributes.iter().find(|one| one.key == key)?.value.clone()?.value? {
        Any::StringValue(text) => Some(text),
        _ => None,
    }
}

fn item(attributes: &Value) -> Item {
    let id = attributes["id"].as_str().expect("an id").to_owned();
    Item { id, key: None, poison: attributes["thread_id"] == POISON }
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).expect("a document")
}

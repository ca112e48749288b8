//! The telemetry back ends that exporters send to over HTTP, as far as a fault needs them: where a record stands in a
//! request, and how the vendor answers.

use magicapi_testkit::asked::Asked;
use magicapi_testkit::back_end::{Item, Vendor};
use serde_json::{Value, json};

/// The thread of a record that a back end which rejects single records rejects.
pub(crate) const POISON: &str = "poison";
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// One exporter: its name, its back end, and its own settings for a back end there.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) vendor: Vendor,
    pub(crate) settings: fn(url: &str) -> Value,
}

/// Every exporter that has a back end to send to over HTTP.
pub(crate) const CONTENDERS: [Contender; 4] = [
    Contender {
        name: "elasticsearch",
        vendor: Vendor {
            items: |asked| {
                let lines = std::str::from_utf8(&asked.body).ok()?.lines().collect::<Vec<_>>();
                let pairs = asked.path.contains("/_bulk").then(|| lines.chunks(2))?;
                Some(pairs.map(|pair| item(&parse(pair[1])["attributes"])).collect())
            },
            has_keys: true,
            answer: |taken| {
                let bad = json!({ "status": 400, "error": { "type": "document_parsing_exception" } });
                let one = |taken: &bool| json!({ "create": if *taken { json!({ "status": 201 }) } else { bad.clone() } });
                let items: Vec<Value> = taken.iter().map(one).collect();
                let errors = taken.contains(&false);
                (200, json!({ "errors": errors, "items": items }).to_string().into_bytes())
            },
            other: r#"{"status":"green","acknowledged":true}"#,
        },
        settings: |url| json!({ "url": url, "template": false }),
    },
    Contender {
        name: "datadog",
        vendor: Vendor {
            items: |asked| listed(asked, "/api/v2/logs", "", ""),
            has_keys: false,
            answer: whole_requests,
            other: "{}",
        },
        settings: |url| json!({ "api_key": KEY, "logs_url": url, "api_url": url }),
    },
    Contender {
        name: "newrelic",
        vendor: Vendor {
            items: |asked| listed(asked, "/log/v1", "/0/logs", "/attributes"),
            has_keys: false,
            answer: whole_requests,
            other: "{}",
        },
        settings: |url| json!({ "license_key": KEY, "url": format!("{url}/log/v1") }),
    },
    Contender {
        name: "webhook",
        vendor: Vendor {
            items: |asked| listed(asked, "/in", "", "/attributes"),
            has_keys: false,
            answer: whole_requests,
            other: "{}",
        },
        settings: |url| json!({ "url": format!("{url}/in") }),
    },
];

/// A vendor that says yes or no to a request as a whole.
fn whole_requests(taken: &[bool]) -> (u16, Vec<u8>) {
    (if taken.contains(&false) { 400 } else { 202 }, b"{}".to_vec())
}

/// Records as elements of the list at `list`, their attributes at `attributes` of each.
fn listed(asked: &Asked, path: &str, list: &str, attributes: &str) -> Option<Vec<Item>> {
    let body = (asked.method == "POST" && asked.path == path).then(|| asked.json())?;
    let records = body.pointer(list)?.as_array()?;
    Some(records.iter().filter_map(|record| record.pointer(attributes)).map(item).collect())
}

fn item(attributes: &Value) -> Item {
    let id = attributes["id"].as_str().expect("an id").to_owned();
    Item { id, poison: attributes["thread_id"] == POISON }
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).expect("a document")
}

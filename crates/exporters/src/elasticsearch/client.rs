//! What the cluster's answers mean.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use magicapi_plugin::{
    Delivery, ExportError, Health, HttpError, ItemOutcome, RequestMetrics, TelemetryConfig, retry_after,
};
use serde::Deserialize;

use super::config::Target;
use crate::endpoint::segment;

/// Keeps a `_bulk` answer to what is read of it; statuses stay complete, or outcomes would lose their positions.
const BULK: &str = "_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason";

/// What to do about a 401.
const CREDENTIAL: &str = "check username and password (ELASTICSEARCH_USERNAME, ELASTICSEARCH_PASSWORD) or \
     api_key (ELASTICSEARCH_API_KEY)";

/// How reasons begin that complain about a resource attribute.
const RESOURCE: [&str; 4] = [
    "object mapping for [resource.",
    "failed to parse field [resource.",
    "can't merge a non object mapping [resource.",
    "can't merge an object mapping [resource.",
];

/// Sends the body of a bulk request.
pub(super) async fn bulk(target: &Target, body: Vec<u8>) -> Result<Response<Bytes>, HttpError> {
    let path = format!("/{}/{BULK}", segment(&target.index));
    // Elasticsearch's own media types are unknown to OpenSearch; this one both know.
    target.endpoint.post(&path, "application/x-ndjson", body).await
}

/// The health call: says early whether address and credential are right. It needs a privilege that writing does not,
/// and serverless clusters lack it, so only what stands in the way of writing is an error.
pub(super) async fn check_cluster(target: &Target) -> Result<Health, ExportError> {
    let url = format!("{}/_cluster/health", target.endpoint.base);
    match target.endpoint.get("/_cluster/health?filter_path=status").await {
        Ok(answer) => match answer.status().as_u16() {
            200..=299 | 404 | 405 | 410 => Ok(Health::Ok),
            403 => Ok(Health::Degraded(
                "the credential may not read the cluster's health; nothing sent yet".into(),
            )),
            status => Err(format!("{url}: {}", refusal(status, answer.body())).into()),
        },
        Err(e @ HttpError::NoAnswer(_)) if url.starts_with("http:") => {
            Err(format!("{url}: {e}; if the cluster speaks TLS, write https:// in url").into())
        }
        Err(e) => Err(format!("{url}: {e}").into()),
    }
}

#[derive(Deserialize)]
struct Answer {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    create: ItemAnswer,
}

#[derive(Deserialize)]
struct ItemAnswer {
    status: u16,
    error: Option<Fault>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Fault {
    #[serde(rename = "type")]
    kind: String,
    reason: String,
}

impl Fault {
    /// The kind of error, in the cluster's word. Anything else may repeat what was sent, the credential included.
    pub(super) fn kind(&self) -> &str {
        let is_kind =
            self.kind.len() <= 100 && self.kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if is_kind && !self.kind.is_empty() { &self.kind } else { "without an explanation" }
    }
}

/// What became of a bulk request with these records. `names` are those that new records have.
pub(super) fn judge(
    answer: &Response<Bytes>,
    batch: &[Arc<RequestMetrics>],
    names: Option<&TelemetryConfig>,
) -> Delivery {
    match answer.status().as_u16() {
        200..=299 => match serde_json::from_slice::<Answer>(answer.body()) {
            Ok(Answer { items }) if items.len() == batch.len() => judge_items(&items, batch, names),
            _ => Delivery::Unknown,
        },
        413 => Delivery::TooLarge,
        408 | 429 | 500 | 502..=599 => Delivery::Retry { after: retry_after(answer.headers()) },
        status => Delivery::Refused { reason: refusal(status, answer.body()) },
    }
}

fn judge_items(items: &[Item], batch: &[Arc<RequestMetrics>], names: Option<&TelemetryConfig>) -> Delivery {
    let none = Fault::default();
    let mut fault_of_setup = None;
    let outcomes: Vec<ItemOutcome> = items
        .iter()
        .zip(batch)
        .map(|(Item { create }, record)| {
            let fault = create.error.as_ref().unwrap_or(&none);
            // What the operator renames stays in the records that wait: to put it right helps the new ones alone.
            let can_be_mended = !is_about_resource(located(&fault.reason))
                || names.is_none_or(|names| are_alike(record.resource(), names));
            match create.status {
                // A conflict under our own id: this very record is there already.
                200..=299 | 409 => ItemOutcome::Delivered,
                429 | 500 | 502..=599 => ItemOutcome::Retry,
                status => match remedy(status, fault).filter(|_| can_be_mended) {
                    // The record is fine; it waits until the operator has put things right.
                    Some(remedy) => {
                        fault_of_setup = Some(format!("HTTP {status} {}: {remedy}", fault.kind()));
                        ItemOutcome::Retry
                    }
                    None => ItemOutcome::Rejected { reason: rejection(status, fault) },
                },
            }
        })
        .collect();
    let all = |outcome: &ItemOutcome| outcomes.iter().all(|one| one == outcome);
    match fault_of_setup {
        Some(reason) if all(&ItemOutcome::Retry) => Delivery::Refused { reason },
        _ if all(&ItemOutcome::Delivered) => Delivery::Delivered,
        _ if all(&ItemOutcome::Retry) => Delivery::Retry { after: None },
        _ => Delivery::Items(outcomes),
    }
}

/// What to do about a fault of the set-up; `None` for a fault of the record. Reasons quote documents, so they are only
/// compared where no document can have written: at their beginning or end.
fn remedy(status: u16, fault: &Fault) -> Option<&'static str> {
    Some(match (status, fault.kind.as_str()) {
        (401, _) => CREDENTIAL,
        (403, "cluster_block_exception") => "the index is blocked for writing; lift its block",
        (403, _) => "the credential may not write there; grant create_doc and auto_configure on the index",
        (404, _) => "no such index; create it, or allow it in action.auto_create_index",
        (_, "index_closed_exception") => "the index is closed; open it",
        (_, "invalid_index_name_exception") => "index is no name that the cluster takes",
        _ if fault.reason.ends_with("data stream timestamp field [@timestamp] is missing") => {
            "index names a data stream; say `data_stream: true`, or name an index or an alias"
        }
        _ if fault.reason.starts_with("no write index is defined for alias") => {
            "index names an alias without a write index; set is_write_index on one of its indices"
        }
        // What stands below `resource` is the operator's, and the same in every record of one set-up.
        _ if is_about_resource(located(&fault.reason)) => {
            "a resource attribute does not fit the index's mapping, as service does not beside service.name; rename it \
             in OTEL_RESOURCE_ATTRIBUTES, or choose another index"
        }
        _ => return None,
    })
}

/// Whether the operator gives attributes of the same names, which is what a mapping is about; values change with every pod.
fn are_alike(one: &TelemetryConfig, other: &TelemetryConfig) -> bool {
    one.deployment_environment.is_some() == other.deployment_environment.is_some()
        && one.resource_attributes.keys().eq(other.resource_attributes.keys())
}

fn is_about_resource(reason: &str) -> bool {
    // So says OpenSearch. Names may hold any words, so these count only where they stand once.
    let mut parts = reason.split("]. Existing mapping for [");
    let moved = match (parts.next(), parts.next(), parts.next()) {
        (Some(begin), Some(path), None) => {
            begin.starts_with("Could not dynamically add mapping for field [")
                && path.starts_with("resource.")
        }
        _ => false,
    };
    moved || RESOURCE.iter().any(|begin| reason.starts_with(begin))
}

/// What an answer without items complains about.
pub(super) fn fault(body: &[u8]) -> Fault {
    #[derive(Default, Deserialize)]
    struct Complaint {
        error: Fault,
    }
    serde_json::from_slice::<Complaint>(body).unwrap_or_default().error
}

/// An error when the cluster asks for patience: `init` is tried again then.
pub(super) fn ready(what: &str, status: u16, body: &[u8]) -> Result<(), ExportError> {
    match status {
        408 | 429 | 500..=599 => Err(format!("{what}: {}", refusal(status, body)).into()),
        _ => Ok(()),
    }
}

/// Status, kind and remedy of an answer without items.
pub(super) fn refusal(status: u16, body: &[u8]) -> String {
    let fault = fault(body);
    let remedy = remedy(status, &fault).unwrap_or("check url and index, and the cluster's log");
    format!("HTTP {status} {}: {remedy}", fault.kind())
}

/// Kind of the fault and field at fault, but nothing else of the reason, which quotes the document.
fn rejection(status: u16, fault: &Fault) -> String {
    let reason = located(&fault.reason);
    let field = ["failed to parse field [", "object mapping for ["]
        .iter()
        .find_map(|begin| reason.strip_prefix(begin))
        .and_then(|rest| rest.split_once(']'))
        .map(|(field, _)| field);
    // Below the two bodies, names are the caller's.
    let bodies = ["attributes.request", "attributes.response"];
    let cut = |field| bodies.into_iter().find(|body| str::starts_with(field, body)).unwrap_or(field);
    let field = field.map(|field| format!(" in {}", word(cut(field)))).unwrap_or_default();
    format!("HTTP {status} {}{field}", fault.kind())
}

/// A reason without the place in the document, `[1:43] `, where it begins with one.
fn located(reason: &str) -> &str {
    match reason.split_once("] ") {
        Some((position, rest)) if position.bytes().all(|b| b"[:".contains(&b) || b.is_ascii_digit()) => rest,
        _ => reason,
    }
}

/// A name as the cluster writes them, kept to what a name can hold.
fn word(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "._@-".contains(*c)).take(100).collect()
}

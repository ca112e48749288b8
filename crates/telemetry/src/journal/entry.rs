//! The entries of the journal of records: a tag, ids as text, a record as it waits on disk.
//!
//! ```text
//! open    0x01  id (40 bytes)  stored record of a request that was killed
//! record  0x02  id (40 bytes)  stored record
//! done    0x03  id (40 bytes)*
//! ```
//!
//! Tags are never used again with another meaning; a later release adds tags, and what it stores stays readable
//! ([`RequestMetrics::from_stored`]).

use std::sync::Arc;

use bytes::Bytes;

use magicapi_plugin::{Facts, Outcome, RequestId, RequestMetrics, TelemetryConfig};

const OPEN: u8 = 1;
const RECORD: u8 = 2;
const DONE: u8 = 3;
/// `msg_` and a UUID.
const ID: usize = 40;

/// The word in `error_type` of a request that was under way when the process was killed.
pub(crate) const KILLED: &str = "gateway_killed";

/// One entry, as it was found.
#[derive(Debug)]
pub(super) enum Entry {
    /// A request was admitted.
    Open(RequestId, Bytes),
    /// A request has ended.
    Record(RequestId, Bytes),
    /// Every exporter is done with these.
    Done(Vec<RequestId>),
}

/// An open entry: the record that it becomes when nothing follows.
pub(super) fn open(facts: Facts, config: Arc<TelemetryConfig>) -> Vec<u8> {
    let id = facts.id;
    let message =
        "the gateway's process was killed while the request was under way; what became of it is not known";
    let facts = killed(facts, message);
    with_id(OPEN, id, &RequestMetrics::seal(facts, config, None, None, None).to_stored())
}

fn killed(mut facts: Facts, message: &str) -> Facts {
    facts.outcome = Outcome::GatewayError;
    facts.error_type = Some(KILLED);
    facts.error_message = Some(message.to_owned());
    facts
}

pub(super) fn record(id: RequestId, record: &RequestMetrics) -> Vec<u8> {
    with_id(RECORD, id, &record.to_stored())
}

fn with_id(tag: u8, id: RequestId, stored: &[u8]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(1 + ID + stored.len());
    entry.push(tag);
    entry.extend_from_slice(id.to_string().as_bytes());
    entry.extend_from_slice(stored);
    entry
}

pub(super) fn done(ids: impl IntoIterator<Item = RequestId>) -> Vec<u8> {
    let mut entry = vec![DONE];
    for id in ids {
        entry.extend_from_slice(id.to_string().as_bytes());
    }
    entry
}

/// Reads an entry; `None` when this release does not know it.
pub(super) fn read(entry: &Bytes) -> Option<Entry> {
    let (tag, rest) = entry.split_first()?;
    match *tag {
        DONE => rest.chunks(ID).map(id).collect::<Option<_>>().map(Entry::Done),
        OPEN | RECORD => {
            let id = id(rest.get(..ID)?)?;
            let stored = entry.slice(1 + ID..);
            Some(if *tag == OPEN { Entry::Open(id, stored) } else { Entry::Record(id, stored) })
        }
        _ => None,
    }
}

fn id(text: &[u8]) -> Option<RequestId> {
    RequestId::parse(std::str::from_utf8(text).ok()?)
}

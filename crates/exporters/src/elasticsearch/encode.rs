//! A batch as the body of a `_bulk` request.

use std::sync::Arc;

use magicapi_plugin::RequestMetrics;

/// Two lines per record: `create` under the record's own id, which makes a second delivery a conflict instead of a
/// second document, and the record.
pub(super) fn bulk(batch: &[Arc<RequestMetrics>]) -> Vec<u8> {
    let mut body = Vec::new();
    for record in batch {
        // An id is letters, digits, `_` and `-`: nothing to escape.
        body.extend_from_slice(format!("{{\"create\":{{\"_id\":\"{}\"}}}}\n", record.id()).as_bytes());
        body.extend_from_slice(&record.otel_log_json());
        body.push(b'\n');
    }
    body
}

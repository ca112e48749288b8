//! A batch as the body of a `_bulk` request.

use std::sync::Arc;

use magicapi_plugin::RequestMetrics;

/// Two lines per record: `create` under the record's own id, which makes a second delivery a conflict instead of a
/// second document, and the record.
pub(super) fn bulk(batch: &[Arc<RequestMetrics>]) -> Vec<u8> {
    // As large as it gets: growing would copy megabytes again and again. An action takes less than 80 bytes.
    let mut body = Vec::with_capacity(batch.iter().map(|record| record.otel_log_len() + 80).sum());
    for record in batch {
        // An id is letters, digits, `_` and `-`: nothing to escape.
        body.extend_from_slice(format!("{{\"create\":{{\"_id\":\"{}\"}}}}\n", record.id()).as_bytes());
        record.otel_log_pieces().for_each(|piece| body.extend_from_slice(piece));
        body.push(b'\n');
    }
    body
}

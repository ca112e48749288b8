//! A batch as the body of a `_bulk` request.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use magicapi_plugin::RequestMetrics;

/// Two lines per record: `create` under the record's own id, which makes a second delivery a conflict instead of a
/// second document, and the record. A data stream wants the time as `@timestamp` in each document, in milliseconds.
pub(super) fn bulk(batch: &[Arc<RequestMetrics>], is_stream: bool) -> Vec<u8> {
    // As large as it gets: growing would copy megabytes again and again. An action and a time take less than 120 bytes.
    let mut body = Vec::with_capacity(batch.iter().map(|record| record.otel_log_len() + 120).sum());
    for record in batch {
        // An id is letters, digits, `_` and `-`: nothing to escape.
        body.extend_from_slice(format!("{{\"create\":{{\"_id\":\"{}\"}}}}\n", record.id()).as_bytes());
        let mut opening: &[u8] = b"";
        if is_stream {
            let since = record.facts().timestamp.duration_since(UNIX_EPOCH).unwrap_or_default();
            body.extend_from_slice(format!("{{\"@timestamp\":{},", since.as_millis()).as_bytes());
            opening = b"{";
        }
        for piece in record.otel_log_pieces() {
            body.extend_from_slice(piece.strip_prefix(std::mem::take(&mut opening)).unwrap_or(piece));
        }
        body.push(b'\n');
    }
    body
}

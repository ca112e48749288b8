//! A batch as the body of a request, and the id under which it goes.

use std::sync::Arc;

use magicapi_plugin::RequestMetrics;
use sha2::{Digest, Sha256};

use super::config::Format;

/// The records, as they are.
pub(super) fn body(batch: &[Arc<RequestMetrics>], format: Format) -> Vec<u8> {
    let mut body = Vec::new();
    for record in batch {
        match format {
            Format::Json => body.push(if body.is_empty() { b'[' } else { b',' }),
            Format::Ndjson => {}
        }
        body.extend_from_slice(&record.otel_log_json());
        if format == Format::Ndjson {
            body.push(b'\n');
        }
    }
    if format == Format::Json {
        body.push(b']');
    }
    body
}

/// An id that the same records have whenever they are sent together. Without a dot, which separates what is signed.
pub(super) fn id(batch: &[Arc<RequestMetrics>]) -> String {
    let mut hasher = Sha256::new();
    for record in batch {
        hasher.update(format!("{}\n", record.id()));
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let half = digest.first_chunk().copied().unwrap_or_default();
    format!("batch_{:032x}", u128::from_be_bytes(half))
}

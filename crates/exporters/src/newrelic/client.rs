//! New Relic's answers to a batch.

use bytes::Bytes;
use http::Response;
use magicapi_plugin::retry_after;
use tracing::debug;

use crate::requests::{Verdict, server_error};

/// What an answer means; the statuses are those of the Log API's documentation.
pub(super) fn judge(answer: &Response<Bytes>) -> Verdict {
    match answer.status().as_u16() {
        200..=299 => {
            // By it, New Relic's support and `NrIntegrationError` name what was sent.
            if let Some(id) = request_id(answer.body()) {
                debug!("newrelic: taken as request {id}");
            }
            Verdict::Delivered
        }
        400 => Verdict::Rejected("HTTP 400".into()),
        408 | 429 => Verdict::Retry(retry_after(answer.headers())),
        status @ 500..=599 => server_error(status, retry_after(answer.headers())),
        413 => Verdict::TooLarge,
        status @ (401 | 403) => Verdict::Refused(format!(
            "HTTP {status}: check license_key (NEW_RELIC_LICENSE_KEY) and whether the account is in this region \
             (NEW_RELIC_REGION)"
        )),
        status => Verdict::Refused(format!("HTTP {status}: check region (NEW_RELIC_REGION) and url")),
    }
}

fn request_id(body: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let id = answer.get("requestId")?.as_str()?;
    Some(id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect())
}

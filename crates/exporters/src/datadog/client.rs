//! Datadog's answers: to a batch, and to the question whether the key is right.

use bytes::Bytes;
use http::{Method, Request, Response};
use magicapi_plugin::{ExportError, Health, retry_after};

use super::config::Target;
use crate::requests::{Verdict, server_error};

/// What to do about a key that is refused: a key of another site looks like a wrong one.
const CREDENTIAL: &str = "check api_key (DD_API_KEY) and whether the key belongs to this site (DD_SITE)";

/// What an answer of an intake means; the statuses are those of Datadog's API reference.
pub(super) fn judge(answer: &Response<Bytes>) -> Verdict {
    match answer.status().as_u16() {
        200..=299 => Verdict::Delivered,
        400 => Verdict::Rejected("HTTP 400".into()),
        408 | 429 => Verdict::Retry(retry_after(answer.headers())),
        status @ 500..=599 => server_error(status, retry_after(answer.headers())),
        413 => Verdict::TooLarge,
        status => Verdict::Refused(refusal(status)),
    }
}

fn refusal(status: u16) -> String {
    match status {
        401 | 403 => format!("HTTP {status}: {CREDENTIAL}"),
        _ => format!("HTTP {status}: check site (DD_SITE), logs_url and api_url"),
    }
}

/// Asks whether the key is valid. What only this question cannot reach does not stand in the way of logs.
pub(super) async fn check_key(target: &Target) -> Result<Health, ExportError> {
    let url = format!("{}/api/v1/validate", target.api);
    let request = Request::builder().method(Method::GET).uri(&url).body(Bytes::new());
    let mut request = request.map_err(|e| e.to_string())?;
    request.headers_mut().extend(target.headers.clone());
    match target.http.send(request).await {
        Ok(answer) => match answer.status().as_u16() {
            200..=299 => Ok(Health::Ok),
            status @ (401 | 403) => Err(format!("{url}: {}", refusal(status)).into()),
            status => Ok(Health::Degraded(format!("{url}: HTTP {status}; the key is not checked"))),
        },
        Err(error) => Err(format!("{url}: {error}").into()),
    }
}

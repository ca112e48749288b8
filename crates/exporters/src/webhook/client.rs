//! A batch to the receiver, signed, and what its answer means.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Response};
use magicapi_plugin::{HttpError, retry_after};
use sha2::Sha256;

use super::config::{Format, Target};
use crate::endpoint::Compression;
use crate::requests::{self, Coding, Verdict};

/// Sends a body under an id at this time.
pub(super) async fn post(
    target: &Target,
    id: &str,
    body: Vec<u8>,
    now: SystemTime,
) -> Result<Response<Bytes>, HttpError> {
    let mut headers = target.headers.clone();
    let content_type = match target.format {
        Format::Json => "application/json",
        Format::Ndjson => "application/x-ndjson",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let packed = match target.compression {
        Compression::Gzip => requests::pack(&body, Coding::Gzip),
        Compression::None => None,
    };
    let body = match packed {
        Some((packed, coding)) => {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
            packed
        }
        None => body.into(),
    };
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let signature = target.key.as_deref().and_then(|key| sign(key, id, seconds, &body));
    let own = [
        ("webhook-id", Some(id.to_owned())),
        ("webhook-timestamp", Some(seconds.to_string())),
        ("webhook-signature", signature),
    ];
    for (name, value) in own {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    requests::post(&target.http, target.url.expose(), headers, body).await
}

/// The signature that Standard Webhooks asks for: over id, time and body, joined by dots.
/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
pub(super) fn sign(key: &[u8], id: &str, seconds: u64, body: &[u8]) -> Option<String> {
    // Fails for no length of key.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// What an answer means: the settings' lists first.
pub(super) fn judge(target: &Target, answer: &Response<Bytes>) -> Verdict {
    let status = answer.status().as_u16();
    let refused = || Verdict::Refused(format!("HTTP {status}: check url, headers and secret"));
    match status {
        200..=299 => Verdict::Delivered,
        413 => Verdict::TooLarge,
        _ if target.reject_on.contains(&status) => Verdict::Rejected(format!("HTTP {status}")),
        _ if target.refuse_on.contains(&status) => refused(),
        _ if target.retry_on.contains(&status) || status >= 500 => {
            requests::server_error(status, retry_after(answer.headers()))
        }
        _ => refused(),
    }
}

//! Turns an answer into an HTTP response: status, headers, coding, and the body that will carry out
//! the plan. The last step before the HTTP library.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use serde_json::Value;

use crate::answer::{Answer, Payload};
use crate::body::{Accident, BodyParts, MockBody, PacedBody};
use crate::encode::{Encoder, choose};
use crate::failure::{Failure, STREAM_ERROR};
use crate::ledger::Watch;
use crate::plan::{Item, Plan, size};
use crate::script::{Script, WireCoding, verbatim};
use crate::sse::Framing;

/// Headers of every answer, the way the original provider sends them.
const USUAL: [(HeaderName, HeaderValue); 8] = [
    (HeaderName::from_static("openai-organization"), HeaderValue::from_static("mock")),
    (HeaderName::from_static("openai-version"), HeaderValue::from_static("2020-10-01")),
    (HeaderName::from_static("x-ratelimit-limit-requests"), HeaderValue::from_static("10000")),
    (HeaderName::from_static("x-ratelimit-limit-tokens"), HeaderValue::from_static("2000000")),
    (HeaderName::from_static("x-ratelimit-remaining-requests"), HeaderValue::from_static("9999")),
    (HeaderName::from_static("x-ratelimit-remaining-tokens"), HeaderValue::from_static("1999900")),
    (HeaderName::from_static("x-ratelimit-reset-requests"), HeaderValue::from_static("6ms")),
    (HeaderName::from_static("x-ratelimit-reset-tokens"), HeaderValue::from_static("3ms")),
];

/// Makes the response.
pub(crate) fn respond(
    answer: Answer,
    script: &Script,
    request: &Parts,
    watch: Watch,
    started: Instant,
) -> Response<MockBody> {
    let mut status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let number = watch.number();
    let accept = request.headers.get("accept-encoding").and_then(|v| v.to_str().ok());
    let mut coding = choose(script, accept);
    let is_stream = matches!(answer.payload, Payload::Events(_));
    let bodiless = request.method == Method::HEAD || matches!(answer.status, 204 | 205 | 304);
    let body = if bodiless { Ok(nothing(watch)) } else { body(answer.payload, script, coding, watch) };
    let body = body.unwrap_or_else(|err| {
        status = StatusCode::INTERNAL_SERVER_ERROR;
        coding = None;
        MockBody::unwatched(Failure::internal(format!("the mock could not encode: {err}")).body())
    });
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(16);
    let content_type = script.content_type.as_deref().unwrap_or(&answer.content_type);
    put(headers, CONTENT_TYPE, content_type);
    if is_stream {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    if let Some(coding) = coding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    put(headers, HeaderName::from_static("x-request-id"), &format!("mock_req_{number}"));
    let took = HeaderValue::from(started.elapsed().as_millis() as u64);
    headers.insert(HeaderName::from_static("openai-processing-ms"), took);
    headers.extend(USUAL);
    if script.connection_close && request.version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    scripted_headers(headers, script);
    response
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

/// Headers of the script; they replace those of the same name. A list gives several of one name.
fn scripted_headers(headers: &mut HeaderMap, script: &Script) {
    for (name, value) in &script.headers {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        let single = std::slice::from_ref(value);
        headers.remove(&name);
        for value in value.as_array().map_or(single, Vec::as_slice) {
            if let (Ok(value), false) =
                (HeaderValue::from_bytes(verbatim(value).as_bytes()), value == &Value::Null)
            {
                headers.append(name.clone(), value);
            }
        }
    }
}

fn nothing(mut watch: Watch) -> MockBody {
    watch.finish();
    MockBody::Whole(None, None)
}

fn body(
    payload: Payload,
    script: &Script,
    coding: Option<WireCoding>,
    watch: Watch,
) -> std::io::Result<MockBody> {
    let encoder = coding.map(WireCoding::encoder).transpose()?.flatten();
    let (plan, size, encoder, is_stream) = match payload {
        Payload::Whole(data) => {
            let data = encoded(data, encoder)?;
            if data.is_empty() {
                return Ok(nothing(watch));
            }
            if script.is_plain_wire() {
                return Ok(MockBody::Whole(Some(data), Some(watch)));
            }
            let size = data.len() as u64;
            (vec![Item::now(data)], Some(size), None, false)
        }
        Payload::Filled(plan) => {
            let size = encoder.is_none().then(|| size(&plan));
            (plan, size, encoder, false)
        }
        Payload::Events(plan) => (plan, None, encoder, true),
    };
    let framing = Framing::of(script);
    let heartbeat = script.heartbeat_ms.filter(|_| is_stream).map(|_| framing.heartbeat());
    let accident = accident(script, framing, is_stream);
    let ttft = if is_stream { script.ttft() } else { Duration::ZERO };
    let parts = BodyParts { plan: settled(plan), size, encoder, accident, heartbeat, ttft };
    Ok(MockBody::Paced(Box::new(PacedBody::new(parts, script, watch))))
}

/// A whole body, coded in one go so that its size is known.
fn encoded(data: Bytes, encoder: Option<Encoder>) -> std::io::Result<Bytes> {
    let Some(mut encoder) = encoder else { return Ok(data) };
    let mut out = BytesMut::from(encoder.encode(&data)?);
    out.extend_from_slice(&encoder.finish()?);
    Ok(out.freeze())
}

/// Leaves out items that carry nothing: an empty frame would be taken for an end.
fn settled(mut plan: Plan) -> Plan {
    plan.retain(|item| item.repeat > 0 && !item.data.is_empty());
    plan
}

/// The first accident the script has in store. A buffered answer is not counted in events.
fn accident(script: &Script, framing: Framing, is_stream: bool) -> Option<(u64, Accident)> {
    if !is_stream {
        return script.stall_after.filter(|&after| after == 0).map(|after| (after, Accident::Stall));
    }
    let error = script.error_after.map(|after| {
        let event = script.error_event.as_ref().map_or_else(|| STREAM_ERROR.to_owned(), verbatim);
        (after, Accident::Error(framing.event(None, &event)))
    });
    let cut = script.cut_after.map(|after| (after, Accident::Cut));
    let stall = script.stall_after.map(|after| (after, Accident::Stall));
    [error, cut, stall].into_iter().flatten().min_by_key(|(after, _)| *after)
}

//! The answer to the caller: the provider's head with the gateway's own headers, or an error.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use magicapi_model::{Error, ErrorKind};
use magicapi_telemetry::BodyKind;

use crate::answer::AnswerBody;
use crate::ask::Answered;
use crate::events::Events;
use crate::exchange::{Ending, Exchange};
use crate::headers;
use crate::labels;
use crate::page;
use crate::relay::Relay;
use crate::request::Share;
use crate::rescue;
use crate::stream::StreamRelay;

/// `x-request-id` out: the caller's when it is short and visible, else the record's id.
pub(crate) fn echoed_id(sent: &HeaderMap, exchange: &Exchange) -> HeaderValue {
    labels::request_id(sent).cloned().unwrap_or_else(|| headers::value(&exchange.facts.id.to_string()))
}

/// Adds the request id.
pub(crate) fn with_id(mut response: Response<AnswerBody>, id: HeaderValue) -> Response<AnswerBody> {
    response.headers_mut().insert(labels::REQUEST_ID, id);
    response
}

/// Hands the provider's answer on.
pub(crate) async fn answer(mut exchange: Box<Exchange>, answered: Answered) -> Response<AnswerBody> {
    let Answered { response, admitted, credential, asked_usage, dropped, deadlines } = answered;
    let (mut head, upstream) = response.into_parts();
    let provider = admitted.provider();
    let from = headers::to_caller(&mut head.headers, provider.as_ref(), &credential);
    exchange.facts.provider_request_id = from.request_id;
    let upstream = match page::understood(&head, upstream, exchange.operation).await {
        Ok(upstream) => upstream,
        Err(error) => {
            page::keep_what_is_not_the_pages(&mut head.headers);
            return refuse_with(exchange, error, head.headers);
        }
    };
    let streamed = head.status.is_success() && is_event_stream(&head.headers);
    let kind = match (streamed, is_json(&head.headers)) {
        (true, _) => BodyKind::EventStream,
        (false, true) => BodyKind::Whole,
        (false, false) => BodyKind::Other,
    };
    exchange.head(head.status, &head.headers, kind);
    own_headers(&mut head.headers, &exchange);
    if !dropped.is_empty() {
        head.headers.insert("x-gateway-params-dropped", headers::value(&dropped.join(", ")));
    }
    if !head.status.is_success() {
        head.headers.insert("x-gateway-error-origin", HeaderValue::from_static("provider"));
    }
    let gone = provider.on_client_gone();
    let body = if streamed {
        for_streams(&mut head.headers);
        let aside = Share::none(exchange.shared.clone());
        let events = Events::new(exchange.operation, &head.headers, asked_usage, aside);
        AnswerBody::Stream(StreamRelay::new(exchange, upstream, events, deadlines, gone))
    } else {
        AnswerBody::Relay(Relay::new(exchange, upstream, head.status, &head.headers, deadlines, gone))
    };
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    content_type(headers).is_some_and(|kind| kind.starts_with("text/event-stream"))
}

fn is_json(headers: &HeaderMap) -> bool {
    content_type(headers).is_none_or(|kind| kind.contains("json"))
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(str::to_ascii_lowercase)
}

/// What the gateway says about the request.
fn own_headers(headers: &mut HeaderMap, exchange: &Exchange) {
    let facts = &exchange.facts;
    let overhead = exchange.started.elapsed().saturating_sub(exchange.provider_latency() + exchange.waited);
    let overhead = format!("{:.3}", overhead.as_secs_f64() * 1000.0);
    headers.insert("x-gateway-overhead-ms", headers::value(&overhead));
    headers.insert("x-gateway-attempts", HeaderValue::from(facts.attempts));
    if let Some(provider) = &facts.provider {
        headers.insert("x-gateway-provider", headers::value(provider));
    }
    if let Some(model) = &facts.model {
        headers.insert("x-gateway-model", headers::value(model));
    }
}

/// Proxies on the way must neither hold back nor compress events.
fn for_streams(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_LENGTH);
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
}

/// Answers with an error in the caller's dialect, and ends the exchange with it.
pub(crate) fn refuse(exchange: Box<Exchange>, error: Error) -> Response<AnswerBody> {
    refuse_with(exchange, error, HeaderMap::new())
}

/// As [`refuse`], with headers of the provider's.
fn refuse_with(mut exchange: Box<Exchange>, error: Error, mut headers: HeaderMap) -> Response<AnswerBody> {
    if tracing::enabled!(tracing::Level::DEBUG) {
        let (said, source) = (error.to_string(), format!("{:?}", error.source));
        let (telemetry, key) = (&exchange.shared.telemetry, exchange.caller_key.as_ref());
        let (error, source) = (&*telemetry.redacted(key, &said), &*telemetry.redacted(key, &source));
        tracing::debug!(id = %exchange.facts.id, error, source, "request failed");
    }
    let rescued = rescue::rescue(&error);
    headers.extend(rescued.headers);
    exchange.head(rescued.status, &headers, BodyKind::Whole);
    own_headers(&mut headers, &exchange);
    // Whoever left gets nothing of it.
    if error.kind != ErrorKind::ClientClosed && !exchange.is_alone() {
        say(&mut exchange, &rescued.body);
    }
    exchange.finish(Ending::Failed(error));
    made(rescued.status, headers, rescued.body)
}

/// Notes a body of the gateway's own as handed over; HEAD gets none.
fn say(exchange: &mut Exchange, body: &Bytes) {
    if exchange.facts.method != "HEAD" {
        exchange.response_whole(body.clone());
        exchange.handed_over(body.len(), true);
    }
}

/// Answers with a document of the gateway's own.
pub(crate) fn own(mut exchange: Box<Exchange>, json: Bytes) -> Response<AnswerBody> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    exchange.head(StatusCode::OK, &headers, BodyKind::Whole);
    own_headers(&mut headers, &exchange);
    say(&mut exchange, &json);
    exchange.finish(Ending::Completed);
    made(StatusCode::OK, headers, json)
}

/// The answer of last resort: the request's task failed, and its exchange with it.
pub(crate) fn failed() -> Response<AnswerBody> {
    let rescued =
        rescue::rescue(&Error::gateway(ErrorKind::Internal, "the gateway failed; the log says why"));
    made(rescued.status, rescued.headers, rescued.body)
}

/// A response made here.
pub(crate) fn made(status: StatusCode, headers: HeaderMap, body: impl Into<Bytes>) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::made(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

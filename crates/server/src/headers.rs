//! Which headers cross the gateway, each way (design, "Headers").

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};
use magicapi_kernel::{Credential, Provider};
use magicapi_plugin::Facts;

use crate::identify::CREDENTIAL_HEADERS;

/// RFC 9110 section 7.6.1, and what older peers still send.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Read by the gateway, of no use to a provider.
const OURS: [HeaderName; 9] = [
    HeaderName::from_static("x-provider"),
    HeaderName::from_static("x-project-id"),
    HeaderName::from_static("x-project-name"),
    HeaderName::from_static("x-organisation-id"),
    HeaderName::from_static("x-organization-id"),
    HeaderName::from_static("x-user-id"),
    HeaderName::from_static("x-experiment-id"),
    HeaderName::from_static("x-thread-id"),
    HeaderName::from_static("x-request-id"),
];

const OPENAI_ACCOUNT: [HeaderName; 2] =
    [HeaderName::from_static("openai-organization"), HeaderName::from_static("openai-project")];

const TRACE: [HeaderName; 2] =
    [HeaderName::from_static("traceparent"), HeaderName::from_static("tracestate")];

/// Codings that the record's reader can undo; nothing else is asked for.
const CODINGS: [&str; 5] = ["gzip", "deflate", "br", "zstd", "identity"];

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    remove_all(headers, &HOP_BY_HOP);
    remove_all(headers, &named);
}

fn remove_all(headers: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        headers.remove(name);
    }
}

/// Turns the caller's headers into the provider's.
pub(crate) fn to_provider(
    headers: &mut HeaderMap,
    provider: &dyn Provider,
    credential: &Credential,
    facts: &Facts,
    streams: bool,
) {
    remove_hop_by_hop(headers);
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
    headers.remove(header::COOKIE);
    remove_all(headers, &CREDENTIAL_HEADERS);
    remove_all(headers, &OURS);
    if provider.trace() {
        continue_trace(headers, facts);
    } else {
        remove_all(headers, &TRACE);
    }
    if !matches!(credential, Credential::Caller(_)) {
        remove_all(headers, &OPENAI_ACCOUNT);
    }
    let codings = if streams { None } else { readable_codings(headers) };
    headers.insert(header::ACCEPT_ENCODING, codings.unwrap_or(HeaderValue::from_static("identity")));
    provider.authorize(credential, headers);
}

/// Names the request's own span as the one that called the provider, in the caller's trace or in one of its own. What
/// the caller's tracer wrote beside a trace that it began goes along, and so does its wish to have it recorded.
fn continue_trace(headers: &mut HeaderMap, facts: &Facts) {
    let [parent, state] = &TRACE;
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let own = || hex(&facts.id.trace_id());
    let flags = headers.get(parent).filter(|_| facts.trace_id.is_some()).and_then(|text| text.to_str().ok());
    let flags = flags.and_then(|text| text.trim().split('-').nth(3)).filter(|flags| flags.len() == 2);
    let flags = flags.unwrap_or("01").to_owned();
    if facts.trace_id.is_none() {
        headers.remove(state);
    }
    let trace = facts.trace_id.clone().unwrap_or_else(own);
    let text = format!("00-{trace}-{}-{flags}", hex(&facts.id.span_id()));
    headers.insert(parent, value(&text));
}

/// What the caller accepts and we can read.
fn readable_codings(headers: &HeaderMap) -> Option<HeaderValue> {
    let accepted: Vec<&str> = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|entry| {
            let coding = entry.split(';').next().unwrap_or_default().trim();
            CODINGS.iter().any(|known| coding.eq_ignore_ascii_case(known))
        })
        .collect();
    (!accepted.is_empty()).then(|| HeaderValue::from_str(&accepted.join(", ")).ok()).flatten()
}

/// What the provider's headers say about itself, taken out on the way.
pub(crate) struct FromProvider {
    /// The provider's own id of the answer.
    pub(crate) request_id: Option<String>,
}

/// Turns the provider's headers into the caller's.
pub(crate) fn to_caller(
    headers: &mut HeaderMap,
    provider: &dyn Provider,
    credential: &Credential,
) -> FromProvider {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // It overrules a length beside it (RFC 9112, 6.3), which would cut the answer short.
        headers.remove(header::CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers);
    headers.remove(header::SET_COOKIE);
    // What the gateway says of itself nobody else says for it.
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-gateway-")).cloned().collect();
    remove_all(headers, &ours);
    if !matches!(credential, Credential::Caller(_)) {
        headers.remove(&OPENAI_ACCOUNT[0]);
    }
    let quirks = provider.quirks();
    for (theirs, standard) in &quirks.rate_limit_headers {
        if let Some(value) = headers.get(theirs).cloned() {
            headers.entry(standard.clone()).or_insert(value);
        }
    }
    let id = headers.remove("x-request-id");
    let own = quirks.request_id_header.as_ref().and_then(|name| headers.get(name).cloned()).or(id);
    let request_id = own.as_ref().and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(own) = own {
        headers.insert("x-gateway-provider-request-id", own);
    }
    FromProvider { request_id }
}

/// A text as a header value; characters that a header cannot hold become `?`.
pub(crate) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| {
        let safe: String = text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect();
        HeaderValue::from_str(&safe).unwrap_or(HeaderValue::from_static("?"))
    })
}

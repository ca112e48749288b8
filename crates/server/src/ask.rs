//! The question to the provider: the caller's body read and edited, its headers turned, the request sent under the
//! timers of an attempt.

use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response, header};
use http_body::Body;
use hyper::body::Incoming;
use magicapi_dialects::encoding::{Coding, Decoder};
use magicapi_dialects::openai_chat::{
    Edits, Operation, ParameterRules, RequestError, RequestFacts, request as dialect,
};
use magicapi_kernel::{Admitted, Credential, OnClientGone, Provider, UsageInStreams};
use magicapi_model::{Error, ErrorKind, Retry};
use magicapi_upstream::{RequestBody, ResponseBody};

use crate::exchange::Exchange;
use crate::headers;
use crate::path::Call;
use crate::request::{self, Passing, Share};
use crate::route::Choice;
use crate::timer::Deadlines;

/// The caller's body as far as it is needed.
pub(crate) enum Content {
    /// Held and read.
    Held { raw: Bytes, plain: Bytes, coded: bool, facts: RequestFacts, share: Share },
    /// Passes through.
    Passing(Incoming),
    /// There is none.
    Empty,
}

impl Content {
    /// The member that continues something stored in the provider's account.
    pub(crate) const fn continues(&self) -> Option<&'static str> {
        match self {
            Self::Held { facts, .. } => facts.continues,
            _ => None,
        }
    }

    /// Whether it names models to fall back to beside `model`, as OpenRouter takes them.
    pub(crate) fn more_models(&self) -> bool {
        matches!(self, Self::Held { facts, .. } if facts.has("models"))
    }
}

/// Upgrades are refused until realtime is built: only 426 makes a client fall back at once. An offer of cleartext
/// HTTP/2 (`Upgrade: h2c`) may be ignored and is.
pub(crate) fn no_websocket(headers: &HeaderMap) -> Result<(), Error> {
    let websocket = headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.to_str().is_ok_and(|v| v.to_ascii_lowercase().contains("websocket")));
    if websocket { Err(upgrade_refused()) } else { Ok(()) }
}

/// Realtime has no other form.
pub(crate) fn no_realtime(operation: Operation) -> Result<(), Error> {
    if operation == Operation::Realtime { Err(upgrade_refused()) } else { Ok(()) }
}

fn upgrade_refused() -> Error {
    Error::client(
        ErrorKind::UpgradeRequired,
        "WebSocket connections are not served; use the HTTP form of the API",
    )
}

/// Reads what of the body must be read. A body that names a model is held; others pass through.
pub(crate) async fn read_body(
    exchange: &mut Exchange,
    headers: &HeaderMap,
    body: Incoming,
    call: &Call,
) -> Result<Content, Error> {
    if !call.operation.names_model() || is_form(call.operation, headers) {
        return Ok(if body.is_end_stream() { Content::Empty } else { Content::Passing(body) });
    }
    let limits = exchange.snapshot.config.server.limits;
    let asked = Instant::now();
    let held = request::hold(&exchange.shared, headers, body, limits.body, limits.header_read).await;
    exchange.waited = asked.elapsed();
    let held = held?;
    exchange.request_body(&held.raw);
    let coded = held.coding.is_some();
    let (raw, plain, share) = held.into_parts();
    let facts = dialect::read(&plain).map_err(|error| refused(&error))?;
    if facts.model.as_ref().is_some_and(|model| model.len() > LONGEST_MODEL) {
        let message = format!("`model` is longer than {LONGEST_MODEL} bytes, which no model's name is");
        return Err(Error::client(ErrorKind::InvalidRequest, message).param("model"));
    }
    if facts.model.is_none() && must_name_model(call.operation) {
        let message = "`model` is missing; name the model as a string, for example \"gpt-4o\" or \"groq/llama-3.1-8b-instant\"";
        return Err(Error::client(ErrorKind::InvalidRequest, message).param("model"));
    }
    exchange.facts.requested_model.clone_from(&facts.model);
    Ok(Content::Held { raw, plain, coded, facts, share })
}

/// Longest name of a model. It goes into a header, the log, the record and the ledger, none of which a caller may fill.
const LONGEST_MODEL: usize = 1024;

/// Whether the body is a form, as image edits may have. Anywhere else the type would be the caller's way around reading
/// the body: many a server reads JSON whatever its type says.
fn is_form(operation: Operation, headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    operation == Operation::Images && kind.to_ascii_lowercase().starts_with("multipart/")
}

const fn must_name_model(operation: Operation) -> bool {
    matches!(operation, Operation::Chat | Operation::Completions | Operation::Embeddings)
}

fn refused(error: &RequestError) -> Error {
    let kind = match error {
        RequestError::Refused { .. } => ErrorKind::UnsupportedParameter,
        RequestError::Stale => return Error::gateway(ErrorKind::Internal, error.to_string()),
        _ => ErrorKind::InvalidRequest,
    };
    let refused = Error::client(kind, error.to_string());
    match error.field() {
        Some(field) => refused.param(field.to_owned()),
        None => refused,
    }
}

/// A question, ready to be sent.
pub(crate) struct Ask {
    admitted: Admitted,
    credential: Credential,
    request: Request<RequestBody>,
    asked_usage: bool,
    dropped: Vec<String>,
    share: Option<Share>,
}

/// A provider's answer, its body not yet read.
pub(crate) struct Answered {
    /// Head and body.
    pub(crate) response: Response<ResponseBody>,
    /// Who answered.
    pub(crate) admitted: Admitted,
    /// Whose key was used.
    pub(crate) credential: Credential,
    /// Whether the stream's usage event is ours to hide.
    pub(crate) asked_usage: bool,
    /// Parameters that were left out.
    pub(crate) dropped: Vec<String>,
    /// The attempt's timers.
    pub(crate) deadlines: Deadlines,
}

/// Turns the caller's request into the provider's.
pub(crate) fn build(
    exchange: &mut Exchange,
    parts: &mut Parts,
    call: &Call,
    choice: &Choice,
    content: Content,
    (admitted, credential): (Admitted, Credential),
) -> Result<Ask, Error> {
    let provider = admitted.provider().clone();
    let uri = provider.base_url().join(&call.below_base, parts.uri.query()).map_err(|error| {
        Error::client(ErrorKind::InvalidRequest, "the path cannot be sent on as it is").source(error)
    })?;
    let mut headers = std::mem::take(&mut parts.headers);
    let streams = matches!(&content, Content::Held { facts, .. } if facts.stream);
    headers::to_provider(&mut headers, provider.as_ref(), &credential, streams);
    let edited = edit(exchange, provider.as_ref(), choice, content, call.operation, &mut headers)?;
    let mut request = Request::new(edited.body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    exchange.facts.params_dropped.clone_from(&edited.dropped);
    Ok(Ask {
        admitted,
        credential,
        request,
        asked_usage: edited.asked_usage,
        dropped: edited.dropped,
        share: edited.share,
    })
}

struct Edited {
    body: RequestBody,
    asked_usage: bool,
    dropped: Vec<String>,
    share: Option<Share>,
}

impl Edited {
    fn untouched(body: RequestBody) -> Self {
        Self { body, asked_usage: false, dropped: Vec::new(), share: None }
    }
}

fn edit(
    exchange: &mut Exchange,
    provider: &dyn Provider,
    choice: &Choice,
    content: Content,
    operation: Operation,
    headers: &mut HeaderMap,
) -> Result<Edited, Error> {
    let (raw, plain, coded, facts, share) = match content {
        Content::Empty => return Ok(Edited::untouched(RequestBody::Full(Bytes::new()))),
        Content::Passing(body) => {
            let limit = exchange.snapshot.config.server.limits.upload;
            let passing = Passing::new(body, limit, exchange.watch_upload())?;
            return Ok(Edited::untouched(RequestBody::Stream(Box::pin(passing) as Pin<Box<_>>)));
        }
        Content::Held { raw, plain, coded, facts, share } => (raw, plain, coded, facts, share),
    };
    // The catalogue's renames and drops describe the chat form; `store` of another path is another parameter.
    let none = ParameterRules::default();
    let rules = if operation.takes_stream_options() { choice.slot.rules() } else { &none };
    let mut edits = Edits::new(rules);
    if let Some(model) = &choice.model {
        edits = edits.set_model(model);
    }
    if operation.takes_stream_options() && provider.quirks().usage_in_streams == UsageInStreams::Ask {
        edits = edits.ask_usage();
    }
    let applied = edits.apply(&plain, &facts).map_err(|error| refused(&error))?;
    let body = if applied.changed.is_empty() {
        raw
    } else {
        if coded {
            headers.remove(header::CONTENT_ENCODING);
        }
        applied.body
    };
    exchange.facts.edits = applied.changed;
    let asked_usage = edits.asks_usage(&facts);
    Ok(Edited { body: RequestBody::Full(body), asked_usage, dropped: applied.dropped, share: Some(share) })
}

impl Ask {
    /// What happens when the client leaves.
    pub(crate) fn on_client_gone(&self) -> OnClientGone {
        self.admitted.provider().on_client_gone()
    }

    /// Sends it. Dropping the future closes the connection to the provider (invariant 4).
    pub(crate) async fn send(self, exchange: &mut Exchange) -> Result<Answered, Error> {
        let mut deadlines = Deadlines::new(exchange.snapshot.config.timeouts, exchange.started.elapsed());
        exchange.attempt_begins(self.admitted.provider(), &self.credential);
        let client = exchange.snapshot.client.clone();
        let sending = client.send(&self.admitted, self.request);
        let response = in_time(sending, exchange, &mut deadlines).await?;
        drop(self.share);
        exchange.attempt_answered(response.status());
        let response = understood(response, exchange.operation).await?;
        Ok(Answered {
            response,
            admitted: self.admitted,
            credential: self.credential,
            asked_usage: self.asked_usage,
            dropped: self.dropped,
            deadlines,
        })
    }
}

/// The answer's head before its deadline. An upload that goes on moves the deadline: the provider cannot answer what it
/// does not have yet.
async fn in_time(
    sending: impl Future<Output = Result<Response<ResponseBody>, Error>>,
    exchange: &Exchange,
    deadlines: &mut Deadlines,
) -> Result<Response<ResponseBody>, Error> {
    let mut sending = std::pin::pin!(sending);
    loop {
        let (deadline, kind) = deadlines.before_first();
        if let Ok(sent) = tokio::time::timeout_at(deadline, &mut sending).await {
            return sent;
        }
        if let Some(moved) = exchange.upload_moved() {
            deadlines.still_sent_at(moved.into());
        }
        if deadlines.before_first().0 <= tokio::time::Instant::now() {
            return Err(deadlines.error(kind));
        }
    }
}

/// Bytes of a foreign page that are read for the error's excerpt, and how long that may take.
const EXCERPT: (usize, std::time::Duration) = (16 << 10, std::time::Duration::from_secs(5));

/// A page where JSON belongs (a proxy's or a load balancer's) becomes an error that the caller's SDK can read.
async fn understood(
    response: Response<ResponseBody>,
    operation: Operation,
) -> Result<Response<ResponseBody>, Error> {
    let kind =
        response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let status = response.status();
    if status.is_informational() {
        // 101: nobody asked for another protocol, and the caller's connection would change to it.
        let message = format!("the provider answered {} where an answer belongs", status.as_u16());
        return Err(Error::provider(ErrorKind::ProtocolError, Retry::Later, message));
    }
    let foreign = kind == "text/html" || (kind == "text/plain" && !status.is_success());
    if !(foreign && speaks_json(operation)) {
        return Ok(response);
    }
    let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.map(str::to_owned);
    let coding =
        response.headers().get(header::CONTENT_ENCODING).and_then(|v| Coding::parse(v.to_str().ok()?));
    let mut body = response.into_body();
    let mut page = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            page.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if page.len() >= EXCERPT.0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(EXCERPT.1, read).await;
    let message = format!(
        "the provider answered {} with {kind} instead of JSON; is its address right? It says: {}",
        status.as_u16(),
        words(&plain(page, coding))
    );
    let error = Error::provider(ErrorKind::ProviderStatus, Retry::Later, message)
        .context("provider_status", status.as_str().to_owned());
    Err(match retry_after {
        Some(after) => error.context("retry_after", after),
        None => error,
    })
}

const fn speaks_json(operation: Operation) -> bool {
    !matches!(operation, Operation::Other | Operation::Files | Operation::Speech | Operation::Transcription)
}

/// What can be read of the beginning of a page.
fn plain(page: Vec<u8>, coding: Option<Coding>) -> Vec<u8> {
    let Some(coding) = coding else { return page };
    let mut plain = Vec::new();
    // It may end early or go on for long: what came out until then is enough.
    let _ = Decoder::new(coding, EXCERPT.0).push(&page, &mut plain);
    plain
}

/// The readable words of a page: tags, scripts and white space left out, cut to a line.
fn words(page: &[u8]) -> String {
    const LONGEST: usize = 200;
    let page = String::from_utf8_lossy(page);
    let mut text = String::new();
    let mut rest = page.as_ref();
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        text.push(' ');
        let hidden = ["script", "style"].into_iter().find(|name| tag.to_ascii_lowercase().starts_with(name));
        let end = match hidden {
            Some(name) => tag.to_ascii_lowercase().find(&format!("</{name}")).map(|at| at + 1),
            None => Some(0),
        };
        rest = end.and_then(|at| tag[at..].split_once('>')).map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() { "(no text)".to_owned() } else { text.chars().take(LONGEST).collect() }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_page_is_reduced_to_its_words() {
        let page = b"<html><head><style>b{}</style><title>502 Bad Gateway</title></head>\n<body><h1>Sorry</h1></body></html>";
        assert_eq!(words(page), "502 Bad Gateway Sorry");
        assert_eq!(words(b"<script>alert(1)"), "(no text)");
        assert_eq!(words(b"plain  words"), "plain words");
        words(b"<\xff<script<\xf0\x9f");
    }
}

//! The question to the provider: the caller's body read and edited, its headers turned, the request sent under the
//! timers of an attempt.

use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response, header};
use magicapi_dialects::openai_chat::{
    Edits, Operation, ParameterRules, RequestError, RequestFacts, request as dialect,
};
use magicapi_kernel::{Admitted, Credential, Identity, OnClientGone, Provider, UsageInStreams};
use magicapi_model::{Error, ErrorKind};
use magicapi_upstream::{RequestBody, ResponseBody};

use crate::body::{CallerBody, OfferedBody};
use crate::exchange::Exchange;
use crate::form::{Form, Reach};
use crate::headers;
use crate::path::Call;
use crate::request::{self, Passing, Share};
use crate::route::{self, Choice};
use crate::timer::Deadlines;

/// The caller's body as far as it is needed.
pub(crate) enum Content {
    /// Held and read.
    Held { raw: Bytes, plain: Bytes, coded: bool, facts: RequestFacts, share: Share },
    /// A form, read as far as its model.
    Form(Form),
    /// Passes through.
    Passing(CallerBody),
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

    /// Whether it may name another model than the one that was routed: in a part that was not read, or that was read
    /// otherwise than the provider may.
    pub(crate) const fn is_unsure(&self) -> bool {
        matches!(self, Self::Form(form) if !form.has_one_model())
    }
}

/// Reads what of the body must be read. A JSON body that names a model is held, a form is read as far as its model;
/// others pass through. Where nothing but the model may name the provider, no body that can name one passes unread.
pub(crate) async fn read_body(
    exchange: &mut Exchange,
    headers: &HeaderMap,
    body: OfferedBody,
    call: &Call,
    identity: Option<&Identity>,
) -> Result<Content, Error> {
    let pointed = route::points(call, headers)?;
    let asked = Instant::now();
    let content = match form_type(call.operation, headers) {
        Some(_) if !body.is_empty() && headers.contains_key(header::CONTENT_ENCODING) && !pointed => {
            Err(coded_form())
        }
        Some(content_type) if !body.is_empty() && !headers.contains_key(header::CONTENT_ENCODING) => {
            let most = exchange.snapshot.config.server.limits.body;
            let one_type = headers.get_all(header::CONTENT_TYPE).iter().count() == 1;
            let reach = match identity {
                _ if pointed => Reach::Leading,
                Some(identity) if one_type && is_bound_to_models(identity) => Reach::Whole(most),
                _ => Reach::Model(most),
            };
            read_form(exchange, content_type, body, reach).await
        }
        None if call.operation.names_model() => hold(exchange, headers, body, call).await,
        None if call.operation == Operation::Transcription && !pointed && !body.is_empty() => {
            hold(exchange, headers, body, call).await
        }
        _ if body.is_empty() => Ok(Content::Empty),
        _ => body.into_passing(&exchange.snapshot.config.server.limits).map(Content::Passing),
    };
    exchange.waited = asked.elapsed();
    content
}

/// Whether a form's model decides what the key may do, as against its provider alone.
fn is_bound_to_models(identity: &Identity) -> bool {
    identity.models.iter().any(|pattern| !matches!(pattern.split_once('/'), Some((_, "*"))))
}

fn coded_form() -> Error {
    let message = "a form with a `content-encoding` is not read, and its `model` may name its provider; send it without a \
                   coding, or name the provider with `x-provider`";
    Error::client(ErrorKind::UnsupportedMediaType, message).param("content-encoding")
}

async fn read_form(
    exchange: &mut Exchange,
    content_type: &str,
    body: OfferedBody,
    reach: Reach,
) -> Result<Content, Error> {
    let body = body.into_passing(&exchange.snapshot.config.server.limits)?;
    let share = Share::none(exchange.shared.clone());
    let form = Form::open(content_type, body, share, reach, &mut exchange.facts.request_size).await?;
    exchange.facts.requested_model = bounded(form.model())?;
    Ok(Content::Form(form))
}

async fn hold(
    exchange: &mut Exchange,
    headers: &HeaderMap,
    body: OfferedBody,
    call: &Call,
) -> Result<Content, Error> {
    let limits = exchange.snapshot.config.server.limits;
    let mut share = Share::none(exchange.shared.clone());
    let raw = request::hold(body.into_held(&limits)?, &mut share, &mut exchange.facts.request_size).await?;
    exchange.request_body(&raw);
    let (plain, coded) = request::plain(headers, &raw, &mut share, limits.body)?;
    let facts = dialect::read(&plain).map_err(|error| refused(&error))?;
    if facts.model.is_none() && must_name_model(call.operation) {
        let message = "`model` is missing; name the model as a string, for example \"gpt-4o\" or \"groq/llama-3.1-8b-instant\"";
        return Err(Error::client(ErrorKind::InvalidRequest, message).param("model"));
    }
    exchange.facts.requested_model = bounded(facts.model.as_deref())?;
    Ok(Content::Held { raw, plain, coded, facts, share })
}

/// A model's name goes into a header, the log, the record and the ledger, none of which a caller may fill.
fn bounded(model: Option<&str>) -> Result<Option<String>, Error> {
    const LONGEST: usize = 1024;
    if model.is_some_and(|model| model.len() > LONGEST) {
        let message = format!("`model` is longer than {LONGEST} bytes, which no model's name is");
        return Err(Error::client(ErrorKind::InvalidRequest, message).param("model"));
    }
    Ok(model.map(str::to_owned))
}

/// The media type of a form, where there may be one. Anywhere else the type would be the caller's way around reading the
/// body: many a server reads JSON whatever its type says.
fn form_type(operation: Operation, headers: &HeaderMap) -> Option<&str> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let multipart = kind.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/"));
    (multipart && matches!(operation, Operation::Images | Operation::Transcription)).then_some(kind)
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
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    exchange.facts.server = uri.host().map(|host| (host.to_owned(), port));
    let mut headers = std::mem::take(&mut parts.headers);
    let streams = matches!(&content, Content::Held { facts, .. } if facts.stream);
    headers::to_provider(&mut headers, provider.as_ref(), &credential, &exchange.facts, streams);
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
        Content::Passing(rest) => {
            let passing = Passing::new(Vec::new(), rest, exchange.watch_upload());
            return Ok(Edited::untouched(passing.into()));
        }
        Content::Form(form) => return Ok(edit_form(exchange, choice, form)),
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

/// The record has the form as it came; the provider gets its own name of the model.
fn edit_form(exchange: &mut Exchange, choice: &Choice, form: Form) -> Edited {
    let mut watch = exchange.watch_upload();
    watch.piece(&form.beginning);
    let edited = choice.model.as_deref().and_then(|model| form.with_model(model));
    if edited.is_some() {
        exchange.facts.edits = vec!["model".to_owned()];
    }
    let passing = Passing::new(edited.unwrap_or_else(|| vec![form.beginning]), form.rest, watch);
    Edited { share: Some(form.share), ..Edited::untouched(passing.into()) }
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

//! The order of steps of a request, and nothing else: classify, identify, read, route, admit, edit, send, answer.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use magicapi_kernel::OnClientGone;
use magicapi_model::Error;

use crate::answer::AnswerBody;
use crate::ask::{self, Ask};
use crate::body::OfferedBody;
use crate::exchange::Exchange;
use crate::path::{self, Call, Served};
use crate::reply;
use crate::route;
use crate::shutdown::{Left, Waiting, unless_cut};
use crate::snapshot::Shared;
use crate::{admit, head, identify, models, pages};

/// Answers one request of the data plane. Its exchange begins here, not when the future is first polled: a client that
/// leaves in between has asked all the same.
pub(crate) fn handle(
    shared: &Arc<Shared>,
    request: Request<OfferedBody>,
) -> impl Future<Output = Response<AnswerBody>> + Send + use<> {
    let (parts, body) = request.into_parts();
    let begun = match path::classify(&parts.method, parts.uri.path()) {
        Ok(Served::Page(page)) => Err(pages::serve(shared, page, &parts)),
        Ok(Served::Call(call)) => Ok((Exchange::begin(shared, &parts), head::check(&parts).map(|()| call))),
        Err(error) => Ok((Exchange::begin(shared, &parts), Err(error))),
    };
    async move {
        match begun {
            Ok((exchange, served)) => answer(exchange, served, parts, body).await,
            Err(page) => page,
        }
    }
}

async fn answer(
    mut exchange: Box<Exchange>,
    served: Result<Call, Error>,
    parts: Parts,
    body: OfferedBody,
) -> Response<AnswerBody> {
    let echo = reply::echoed_id(&parts.headers, &exchange);
    let shared = exchange.shared.clone();
    // Before the path: clients open a WebSocket with GET where the HTTP form of the same API is a POST.
    let response = match head::no_websocket(&parts.headers).and(served) {
        Ok(call) => match unless_cut(&shared, prepare(&mut exchange, parts, body, &call)).await {
            Ok(Prepared::Ask(ask)) if ask.on_client_gone() == OnClientGone::Drain => {
                ask_to_the_end(exchange, *ask).await
            }
            Ok(Prepared::Ask(ask)) => ask_provider(exchange, *ask).await,
            Ok(Prepared::Own(json)) => reply::own(exchange, json),
            Err(error) => reply::refuse(exchange, error),
        },
        Err(error) => reply::refuse(exchange, error),
    };
    reply::with_id(response, echo)
}

/// What a request comes to before any provider is asked.
enum Prepared {
    /// A provider is asked.
    Ask(Box<Ask>),
    /// The gateway knows the answer.
    Own(Bytes),
}

async fn prepare(
    exchange: &mut Exchange,
    mut parts: Parts,
    body: OfferedBody,
    call: &Call,
) -> Result<Prepared, Error> {
    exchange.set_operation(call.operation);
    head::no_realtime(call.operation)?;
    let presented = identify::presented(&parts.headers)?;
    exchange.caller_key = presented.keys.first().cloned();
    let snapshot = exchange.snapshot.clone();
    let identity = admit::identify(&snapshot, &presented.keys)?.map(|(identity, key)| {
        exchange.set_identity(&identity);
        // Of several the one that opened the door is the one to be kept out of the record.
        if exchange.caller_key.as_ref() != Some(key) {
            exchange.caller_key = Some(key.clone());
        }
        identity
    });
    admit::room_for_record(&exchange.shared)?;
    if let Some(json) = models::answer(&snapshot, call, &parts, &presented.keys, identity.as_deref())? {
        return Ok(Prepared::Own(json));
    }
    let content = ask::read_body(exchange, &parts.headers, body, call, identity.as_deref()).await?;
    let choice = route::choose(&snapshot, call, &parts.headers, exchange.facts.requested_model.as_deref())?;
    exchange.facts.model.clone_from(&choice.model);
    exchange.facts.provider = Some(choice.slot.name.clone());
    let shared = exchange.shared.clone();
    let applicant = admit::Applicant {
        shared: &shared,
        snapshot: &snapshot,
        method: &parts.method,
        path: parts.uri.path(),
        call,
        presented: &presented,
        continues: content.continues(),
        more_models: content.more_models(),
        unsure: content.is_unsure(),
    };
    let (admitted, credential) = applicant.admit(&choice, identity)?;
    exchange.admitted();
    let ask = ask::build(exchange, &mut parts, call, &choice, content, (admitted, credential))?;
    Ok(Prepared::Ask(Box::new(ask)))
}

async fn ask_provider(mut exchange: Box<Exchange>, ask: Ask) -> Response<AnswerBody> {
    let shared = exchange.shared.clone();
    match unless_cut(&shared, ask.send(&mut exchange)).await {
        Ok(answered) => reply::answer(exchange, answered).await,
        Err(error) => reply::refuse(exchange, error),
    }
}

/// As [`ask_provider`], on a task of its own: a provider that bills the whole answer anyway is waited for although the
/// client may leave before the head.
async fn ask_to_the_end(mut exchange: Box<Exchange>, ask: Ask) -> Response<AnswerBody> {
    exchange.left = Left::shared();
    let mut waiting =
        Waiting { left: exchange.left.clone(), shared: exchange.shared.clone(), answered: false };
    let response = tokio::spawn(ask_provider(exchange, ask)).await.unwrap_or_else(|_| reply::failed());
    waiting.answered = true;
    response
}

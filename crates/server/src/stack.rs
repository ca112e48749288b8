//! The order of steps of a request, and nothing else: classify, identify, read, route, admit, edit, send, answer.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use magicapi_kernel::OnClientGone;
use magicapi_model::Error;

use crate::answer::AnswerBody;
use crate::ask::{self, Ask};
use crate::exchange::Exchange;
use crate::path::{self, Call, Served};
use crate::reply;
use crate::route;
use crate::shutdown::{Left, Waiting};
use crate::snapshot::Shared;
use crate::{admit, identify, models, pages};

/// Answers one request of the data plane. Its exchange begins here, not when the future is first polled: a client that
/// leaves in between has asked all the same.
pub(crate) fn handle(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
) -> impl Future<Output = Response<AnswerBody>> + Send + use<> {
    let (parts, body) = request.into_parts();
    let begun = match path::classify(&parts.method, parts.uri.path()) {
        Ok(Served::Page(page)) => Err(pages::serve(shared, page, &parts.headers)),
        Ok(Served::Call(call)) => Ok((Exchange::begin(shared, &parts), Ok(call))),
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
    body: Incoming,
) -> Response<AnswerBody> {
    let echo = reply::echoed_id(&parts.headers, &exchange);
    // Before the path: clients open a WebSocket with GET where the HTTP form of the same API is a POST.
    let response = match ask::no_websocket(&parts.headers).and(served) {
        Ok(call) => match prepare(&mut exchange, parts, body, &call).await {
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
    body: Incoming,
    call: &Call,
) -> Result<Prepared, Error> {
    exchange.set_operation(call.operation);
    ask::no_realtime(call.operation)?;
    let presented = identify::presented(&parts.headers)?;
    let snapshot = exchange.snapshot.clone();
    let identity = admit::identify(&snapshot, &presented)?;
    if let Some(identity) = &identity {
        exchange.set_identity(identity);
    }
    if let Some(json) = models::answer(&snapshot, call, &parts, &presented, identity.as_deref())? {
        return Ok(Prepared::Own(json));
    }
    let content = ask::read_body(exchange, &parts.headers, body, call).await?;
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
    };
    let (admitted, credential) = applicant.admit(&choice, identity)?;
    let ask = ask::build(exchange, &mut parts, call, &choice, content, (admitted, credential))?;
    Ok(Prepared::Ask(Box::new(ask)))
}

async fn ask_provider(mut exchange: Box<Exchange>, ask: Ask) -> Response<AnswerBody> {
    match ask.send(&mut exchange).await {
        Ok(answered) => reply::answer(exchange, answered),
        Err(error) => reply::refuse(exchange, error),
    }
}

/// As [`ask_provider`], on a task of its own: a provider that bills the whole answer anyway is waited for although the
/// client may leave before the head.
async fn ask_to_the_end(mut exchange: Box<Exchange>, ask: Ask) -> Response<AnswerBody> {
    let shared = exchange.shared.clone();
    exchange.left = Left::shared();
    let mut waiting = Waiting { left: exchange.left.clone(), shared: shared.clone(), answered: false };
    let asking = async move {
        tokio::select! {
            response = ask_provider(exchange, ask) => response,
            () = shared.cutting() => reply::failed(),
        }
    };
    let response = tokio::spawn(asking).await.unwrap_or_else(|_| reply::failed());
    waiting.answered = true;
    response
}

//! One request from head to answer: reads it, picks its script, waits as scripted, has an answer
//! module make the answer and hands it to `respond`.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::answer::{Answer, Call, EVENT_STREAM, JSON, Payload};
use crate::ask::Ask;
use crate::body::MockBody;
use crate::failure::Failure;
use crate::ledger::{Connection, Ledger, Watch};
use crate::plan::{Item, Plan};
use crate::respond::respond;
use crate::route::Endpoint;
use crate::rules::Playbook;
use crate::script::{Script, verbatim};
use crate::sse::Framing;
use crate::{admin, chat, completions, endpoints, media, responses};

/// Header that carries a request's own script.
const SCRIPT_HEADER: &str = "x-mock";

/// What every request shares.
pub(crate) struct Shared {
    pub(crate) playbook: Playbook,
    pub(crate) ledger: Arc<Ledger>,
}

/// Answers one request. An error means that the client went away in the middle of its request.
pub(crate) async fn handle(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> io::Result<Response<MockBody>> {
    let started = Instant::now();
    let (parts, incoming) = request.into_parts();
    if let Some(response) = admin::answer(&shared.ledger, &parts.method, parts.uri.path()) {
        return Ok(response);
    }
    let watch = Watch::begin(connection, &parts);
    let body = read(incoming, &watch).await?;
    let script = match script_of(&shared, &parts, &body) {
        Ok(script) => script,
        Err(failure) => return Ok(respond(failed(&failure), &Script::default(), &parts, watch, started)),
    };
    if script.cut_after == Some(0) {
        watch.connection().kill();
        pending::<()>().await;
    }
    pause(script.delay_headers_ms).await;
    let call = Call {
        script: &script,
        number: watch.number(),
        method: &parts.method,
        headers: &parts.headers,
        body: &body,
    };
    let answer = compose(&call, parts.uri.path());
    if !matches!(answer.payload, Payload::Events(_)) {
        pause(script.ttft_ms).await;
    }
    Ok(respond(answer, &script, &parts, watch, started))
}

async fn pause(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

async fn read(mut incoming: Incoming, watch: &Watch) -> io::Result<Bytes> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        watch.note_body(&data);
        if first.is_empty() {
            // Most requests come in one piece, which is then not copied.
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// The request's own script, or the one the rules give it.
fn script_of(shared: &Shared, parts: &Parts, body: &Bytes) -> Result<Arc<Script>, Failure> {
    if let Some(own) = parts.headers.get(SCRIPT_HEADER) {
        let script = Script::from_json(own.as_bytes());
        return script.map(Arc::new).map_err(|err| Failure::bad_script(err.to_string()));
    }
    Ok(shared.playbook.pick(parts.uri.path(), &parts.headers, || {
        Ask::parse(body).ok().and_then(|ask| ask.model.map(std::borrow::Cow::into_owned))
    }))
}

/// The answer: what the script dictates, else what the endpoint says.
fn compose(call: &Call<'_>, path: &str) -> Answer {
    if let Some(answer) = dictated(call.script) {
        return answer;
    }
    match endpoint(call, path) {
        Ok(mut answer) => {
            answer.status = call.script.status.unwrap_or(answer.status);
            answer
        }
        Err(failure) => failed(&failure),
    }
}

fn endpoint(call: &Call<'_>, path: &str) -> Result<Answer, Failure> {
    let method = call.method;
    let endpoint = Endpoint::of(path).ok_or_else(|| Failure::no_such_path(method.as_str(), path))?;
    if !endpoint.takes(method) {
        return Err(Failure::wrong_method(method.as_str(), path));
    }
    match endpoint {
        Endpoint::Chat => chat::answer(call),
        Endpoint::Completions => completions::answer(call),
        Endpoint::Embeddings => endpoints::embeddings(call),
        Endpoint::Models => Ok(endpoints::models(call)),
        Endpoint::Model(id) => endpoints::model(call, &id),
        Endpoint::Responses => responses::answer(call),
        Endpoint::Images => media::images(call),
        Endpoint::Speech => media::speech(call),
        Endpoint::Transcriptions => media::transcriptions(call),
        Endpoint::Moderations => endpoints::moderations(call),
        Endpoint::Rerank => endpoints::rerank(call),
        Endpoint::Files => media::files(call),
    }
}

/// The answer of a script that does not care what was asked.
fn dictated(script: &Script) -> Option<Answer> {
    if let Some(error) = &script.error {
        let failure = Failure::of_status(error.status.or(script.status).unwrap_or(500));
        let mut answer = failed(&failure);
        if let Some(body) = &error.body {
            answer.payload = Payload::Whole(Bytes::from(verbatim(body)));
        }
        if let Some(content_type) = &error.content_type {
            answer.content_type = content_type.clone().into();
        }
        return Some(answer);
    }
    let status = script.status.unwrap_or(200);
    if let Some(body) = &script.body {
        let payload = Payload::Whole(Bytes::from(verbatim(body)));
        return Some(Answer { status, content_type: JSON.into(), payload });
    }
    let plan = if let Some(raw) = &script.raw_sse {
        vec![Item::now(Bytes::from(raw.clone()))]
    } else if let Some(chunks) = &script.raw_chunks {
        let framing = Framing::of(script);
        let mut plan: Plan =
            chunks.iter().map(|chunk| Item::paced(framing.event(None, &verbatim(chunk)))).collect();
        framing.close(&mut plan, script);
        plan
    } else {
        return (status >= 400).then(|| failed(&Failure::of_status(status)));
    };
    Some(Answer { status, content_type: EVENT_STREAM.into(), payload: Payload::Events(plan) })
}

fn failed(failure: &Failure) -> Answer {
    Answer { status: failure.status, content_type: JSON.into(), payload: Payload::Whole(failure.body()) }
}

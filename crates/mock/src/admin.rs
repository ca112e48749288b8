//! The admin surface on the mock's own port, for tests that run it as a process:
//! `GET|DELETE /mock/received` and `GET /mock/stats`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::answer::JSON;
use crate::body::MockBody;
use crate::failure::Failure;
use crate::ledger::{Ledger, Received};

/// Answers an admin request; `None` when the path is not one.
pub(crate) fn answer(ledger: &Ledger, method: &Method, path: &str) -> Option<Response<MockBody>> {
    let what = path.strip_prefix("/mock/")?;
    Some(match (method, what) {
        (&Method::GET, "received") => {
            let all: Vec<Value> = ledger.received().iter().map(received_json).collect();
            reply(200, Bytes::from(Value::Array(all).to_string()))
        }
        (&Method::DELETE, "received") => {
            ledger.forget();
            reply(200, Bytes::from_static(b"{}"))
        }
        (&Method::GET, "stats") => {
            reply(200, Bytes::from(serde_json::to_string(&ledger.stats()).unwrap_or_default()))
        }
        _ => {
            let failure = Failure::no_such_path(method.as_str(), path);
            reply(failure.status, failure.body())
        }
    })
}

fn reply(status: u16, body: Bytes) -> Response<MockBody> {
    let mut response = Response::new(MockBody::unwatched(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

/// A kept request; the body as `body` when it is text, else as `body_base64`.
fn received_json(received: &Received) -> Value {
    let mut out = json!({
        "method": received.method, "path": received.path, "http_version": received.http_version,
        "headers": received.headers, "closed_by_peer": received.closed_by_peer,
    });
    match std::str::from_utf8(&received.body) {
        Ok(text) => out["body"] = text.into(),
        Err(_) => out["body_base64"] = STANDARD.encode(&received.body).into(),
    }
    out
}

//! Pages about the process itself on the data plane. They leave no record.

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use magicapi_config::AuthMode;
use magicapi_model::{Error, ErrorKind};

use crate::answer::AnswerBody;
use crate::path::Page;
use crate::phase::Phase;
use crate::snapshot::{Shared, Snapshot};
use crate::{head, reply, rescue};

/// Serves a page.
pub(crate) fn serve(shared: &Shared, page: Page, parts: &Parts) -> Response<AnswerBody> {
    if let Err(error) = head::check(parts) {
        return refused(&error);
    }
    match page {
        Page::Health => json(
            StatusCode::OK,
            &serde_json::json!({ "status": "healthy", "version": env!("CARGO_PKG_VERSION") }),
        ),
        Page::Ready => ready(shared),
        Page::Metrics => metrics(shared, &parts.headers).unwrap_or_else(|| refused(&not_here())),
    }
}

/// The operator did not open the page here, or no exporter makes it.
fn not_here() -> Error {
    Error::client(ErrorKind::UnknownPath, "`/metrics` is not open here; the admin listener serves it")
}

fn refused(error: &Error) -> Response<AnswerBody> {
    let rescued = rescue::rescue(error);
    reply::made(rescued.status, rescued.headers, rescued.body)
}

fn ready(shared: &Shared) -> Response<AnswerBody> {
    match not_ready(shared.phase(), &shared.snapshot()) {
        None => json(StatusCode::OK, &serde_json::json!({ "status": "ready" })),
        Some(reason) => json(
            StatusCode::SERVICE_UNAVAILABLE,
            &serde_json::json!({ "status": "not ready", "reason": reason }),
        ),
    }
}

/// Not because of a store or an exporter: only when no request could be served.
fn not_ready(phase: Phase, snapshot: &Snapshot) -> Option<&'static str> {
    if phase != Phase::Serving {
        return Some("the gateway is draining");
    }
    let callers_bring_keys = snapshot.config.auth.mode == AuthMode::Passthrough;
    let any = snapshot.slots().iter().any(|slot| slot.configured && slot.provider.is_ok());
    (!callers_bring_keys && !any).then_some("no provider is configured")
}

fn metrics(shared: &Shared, headers: &HeaderMap) -> Option<Response<AnswerBody>> {
    if !shared.snapshot().config.telemetry.metrics_on_data_plane {
        return None;
    }
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let page = shared.telemetry.scrape(accept)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    Some(reply::made(StatusCode::OK, headers, page.body))
}

fn json(status: StatusCode, document: &serde_json::Value) -> Response<AnswerBody> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply::made(status, headers, document.to_string())
}

//! Every route, and the order of what stands before them.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use http::header::ALLOW;
use http::{HeaderValue, Method, StatusCode};
use magicapi_config::MetricsAccess;

use crate::error::ApiError;
use crate::exporters::exporters;
use crate::guard::{check_host, check_token, seal};
use crate::health::health_details;
use crate::logs::{follow, list, one};
use crate::metrics::metrics;
use crate::openapi::openapi_json;
use crate::plane::Plane;
use crate::spool::{spool_list, spool_purge, spool_records, spool_replay};
use crate::trial::exporter_test;

/// The one route that can be opened to everybody who reaches the listener.
const METRICS: &str = "/metrics";
/// No route takes a body; those to come take little.
const BODY: usize = 64 * 1024;

/// A path, its one method, and what answers.
type Route = (&'static str, Method, MethodRouter<Arc<Plane>>);

/// Every route. GET changes nothing.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        read(METRICS, metrics),
        read("/health/details", health_details),
        read("/api/v1/openapi.json", openapi_json),
        read("/api/v1/exporters", exporters),
        change("/api/v1/exporters/{exporter}/test", exporter_test),
        read("/api/v1/spool", spool_list),
        read("/api/v1/spool/{exporter}", spool_records),
        change("/api/v1/spool/{exporter}/replay", spool_replay),
        change("/api/v1/spool/{exporter}/purge", spool_purge),
        read("/api/v1/logs", list),
        read("/api/v1/logs/follow", follow),
        read("/api/v1/logs/{id}", one),
    ]
}

/// The whole plane. Layers stand from the inside out: what is added last sees a request first.
pub(crate) fn router(plane: Arc<Plane>) -> Router {
    let open = |path: &str| path == METRICS && plane.metrics == MetricsAccess::Open;
    let (opened, closed): (Vec<Route>, Vec<Route>) = routes().into_iter().partition(|(path, ..)| open(path));
    // The token guards the fallback too; only what is added after it is open.
    let router = add(Router::new(), closed)
        .fallback(unknown_path)
        .layer(from_fn_with_state(plane.clone(), check_token));
    add(router, opened)
        .layer(DefaultBodyLimit::max(BODY))
        .layer(from_fn_with_state(plane.clone(), check_host))
        .layer(map_response(seal))
        .with_state(plane)
}

fn add(router: Router<Arc<Plane>>, routes: Vec<Route>) -> Router<Arc<Plane>> {
    routes.into_iter().fold(router, |router, (path, _, route)| router.route(path, route))
}

/// A route for GET alone; `HEAD` would run the handler for nothing.
fn read<H, T>(path: &'static str, handler: H) -> Route
where
    H: Handler<T, Arc<Plane>>,
    T: 'static,
{
    (path, Method::GET, get(handler).head(only_read).fallback(only_read))
}

/// A route for POST alone.
fn change<H, T>(path: &'static str, handler: H) -> Route
where
    H: Handler<T, Arc<Plane>>,
    T: 'static,
{
    (path, Method::POST, post(handler).fallback(only_change))
}

async fn only_read() -> Response {
    wrong_method("this can only be read: use GET", "GET")
}

async fn only_change() -> Response {
    wrong_method("this changes something: use POST", "POST")
}

fn wrong_method(message: &str, allowed: &'static str) -> Response {
    let mut refusal = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message).into_response();
    refusal.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    refusal
}

async fn unknown_path() -> ApiError {
    ApiError::not_found("unknown_path", "there is nothing here; /api/v1/openapi.json lists what there is")
}

//! Every route, and the order of what stands before them.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use http::header::ALLOW;
use http::{HeaderValue, StatusCode};
use magicapi_config::MetricsAccess;

use crate::error::ApiError;
use crate::exporters::exporters;
use crate::guard::{check_host, check_token, seal};
use crate::health::health_details;
use crate::logs::{follow, list, one};
use crate::metrics::metrics;
use crate::openapi::openapi_json;
use crate::plane::Plane;

/// The one route that can be opened to everybody who reaches the listener.
const METRICS: &str = "/metrics";
/// No route takes a body yet; those to come take little.
const BODY: usize = 64 * 1024;

type Route = (&'static str, MethodRouter<Arc<Plane>>);

/// Every route. None changes anything: a change will need another method than GET.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        (METRICS, read(metrics)),
        ("/health/details", read(health_details)),
        ("/api/v1/openapi.json", read(openapi_json)),
        ("/api/v1/exporters", read(exporters)),
        ("/api/v1/logs", read(list)),
        ("/api/v1/logs/follow", read(follow)),
        ("/api/v1/logs/{id}", read(one)),
    ]
}

/// The whole plane. Layers stand from the inside out: what is added last sees a request first.
pub(crate) fn router(plane: Arc<Plane>) -> Router {
    let open = |path: &str| path == METRICS && plane.metrics == MetricsAccess::Open;
    let (opened, closed): (Vec<Route>, Vec<Route>) = routes().into_iter().partition(|(path, _)| open(path));
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
    routes.into_iter().fold(router, |router, (path, route)| router.route(path, route))
}

/// A route for GET alone; `HEAD` would run the handler for nothing.
fn read<H, T>(handler: H) -> MethodRouter<Arc<Plane>>
where
    H: Handler<T, Arc<Plane>>,
    T: 'static,
{
    get(handler).head(wrong_method).fallback(wrong_method)
}

async fn wrong_method() -> Response {
    let mut refusal =
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "this can only be read: use GET")
            .into_response();
    refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    refusal
}

async fn unknown_path() -> ApiError {
    ApiError::not_found("unknown_path", "there is nothing here; /api/v1/openapi.json lists what there is")
}

//! `/metrics`: the page that the `prometheus` exporter makes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use crate::error::{ApiError, ErrorBody};
use crate::plane::Plane;

/// All metrics, for a monitoring system
///
/// In the OpenMetrics or the Prometheus text format, as `Accept` asks.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/plain"),
        (status = 401, description = "No token; not with `admin.metrics: open`", body = ErrorBody),
        (status = 404, description = "The exporter `prometheus` is not enabled", body = ErrorBody),
    )
)]
pub(crate) async fn metrics(
    State(plane): State<Arc<Plane>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let accept: Vec<&str> =
        headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok()).collect();
    let accept = accept.join(", ");
    let telemetry = plane.telemetry.clone();
    // A plug-in makes the page; it must not hold up this thread.
    let page = plane.blocking(move || telemetry.scrape(&accept)).await?.ok_or_else(|| {
        ApiError::not_found(
            "no_metrics_page",
            "no exporter makes this page: add `prometheus` to ENABLED_EXPORTERS, or `- type: prometheus` to \
             `telemetry.exporters`",
        )
    })?;
    Ok(([(CONTENT_TYPE, page.content_type)], page.body).into_response())
}

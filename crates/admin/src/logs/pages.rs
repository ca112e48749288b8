//! `GET /api/v1/logs`: a page of the request log, newest first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{LogEntry, Params, Purpose};
use crate::error::{ApiError, ErrorBody};
use crate::plane::Plane;

/// A page.
#[derive(Serialize, ToSchema)]
pub(crate) struct LogPage {
    /// Newest first.
    data: Vec<LogEntry>,
    /// Pass it as `cursor`; `null` at the end of the log.
    next_cursor: Option<String>,
    /// The time was up before the page was full: `next_cursor` goes on from there.
    truncated: bool,
}

/// Requests, newest first
#[utoipa::path(
    get,
    path = "/api/v1/logs",
    tag = "logs",
    responses(
        (status = 200, description = "A page", body = LogPage),
        (status = 400, description = "A parameter cannot be used", body = ErrorBody),
        (status = 401, description = "No token", body = ErrorBody),
        (status = 404, description = "No request log is kept", body = ErrorBody),
        (status = 503, description = "The log cannot be read now", body = ErrorBody),
    )
)]
pub(crate) async fn list(State(plane): State<Arc<Plane>>, params: Params) -> Result<Json<LogPage>, ApiError> {
    plane.logs()?;
    let query = Purpose::List.read(params)?;
    let page = plane.read(move |logs| logs.list(&query)).await?;
    Ok(Json(LogPage {
        data: page.rows.into_iter().map(LogEntry::from).collect(),
        next_cursor: page.next,
        truncated: page.timed_out,
    }))
}

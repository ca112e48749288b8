//! `GET /api/v1/logs/{id}`: one record's document, byte for byte.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};

use crate::error::{ApiError, ErrorBody};
use crate::plane::Plane;

/// One record: request, response, every stream event
///
/// The document as it was exported, unchanged. The id with or without `msg_`.
#[utoipa::path(
    get,
    path = "/api/v1/logs/{id}",
    tag = "logs",
    params(("id" = String, Path, description = "The record's id")),
    responses(
        (status = 200, description = "The record", body = Object),
        (status = 401, description = "No token", body = ErrorBody),
        (status = 404, description = "No such record, or no request log is kept", body = ErrorBody),
        (status = 503, description = "The log cannot be read now", body = ErrorBody),
    )
)]
pub(crate) async fn one(
    State(plane): State<Arc<Plane>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    plane.logs()?;
    let Path(id) = id.map_err(|error| ApiError::bad_request("invalid_id", error.body_text()))?;
    let turn = plane.document_turn().await?;
    let found = plane.read(move |logs| logs.get(&id)).await?;
    let document = found.ok_or_else(|| {
        ApiError::not_found(
            "unknown_record",
            "no record has this id: it is too old for `store.retention`, not yet written, or never was; \
             /api/v1/logs lists those there are",
        )
    })?;
    let headers =
        [(CONTENT_TYPE, "application/json".to_owned()), (CONTENT_LENGTH, document.len().to_string())];
    // The turn goes with the bytes: hyper asks again only when they are sent, and lets go when the caller has left.
    let body = stream::unfold((Some(document), turn), |(document, turn)| async {
        Some((Ok::<_, Infallible>(document?), (None, turn)))
    });
    Ok((headers, Body::from_stream(body)).into_response())
}

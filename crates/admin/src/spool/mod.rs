//! `/api/v1/spool…`: what waits on disk and what is dead, put back or removed. Looking is GET, changing is POST.
//!
//! All of it reads and writes files, so it runs on blocking threads, a few at a time.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use http::StatusCode;
use magicapi_telemetry::{Purge, Spools, SpoolsError};
use serde::Deserialize;
use utoipa::IntoParams;

pub(crate) use self::view::rfc3339;
pub use self::view::{
    KeptView, PurgedView, ReasonView, ReplayedView, SpoolFileView, SpoolListView, SpoolRecordView,
    SpoolRecordsView, SpoolTotalsView, SpoolView,
};
use crate::error::{ApiError, ErrorBody};
use crate::plane::Plane;

mod view;

/// Records in one answer, at most and when nothing is said.
const MAX_RECORDS: usize = 10_000;
const RECORDS: usize = 100;

/// Which records.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RecordsQuery {
    /// Dead letters alone.
    dead: bool,
    /// How many at most; 100, not over 10,000.
    limit: Option<usize>,
    /// With the whole record, bodies included.
    content: bool,
}

/// What comes back.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReplayQuery {
    /// One dead letter's record id, or the name of one file that was set aside; without it, all.
    id: Option<String>,
}

/// What goes.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PurgeQuery {
    /// Dead letters alone; else also what waits and what was set aside.
    dead: bool,
    /// Only files whose oldest record is older: `90s`, `2h`, `7d`.
    older_than: Option<String>,
    /// Only says what would be removed.
    dry_run: bool,
}

/// Every exporter's records on disk, and directories without exporter
#[utoipa::path(
    get,
    path = "/api/v1/spool",
    tag = "telemetry",
    responses(
        (status = 200, description = "By name; what holds nothing is left out", body = SpoolListView),
        (status = 401, description = "No token", body = ErrorBody),
        (status = 404, description = "There is no data directory", body = ErrorBody),
        (status = 503, description = "The files cannot be read now", body = ErrorBody),
    )
)]
pub(crate) async fn spool_list(State(plane): State<Arc<Plane>>) -> Result<Json<SpoolListView>, ApiError> {
    let listed = on_files(&plane, Spools::list).await?;
    Ok(Json(SpoolListView::from(listed)))
}

/// One exporter's records on disk, the oldest file first
#[utoipa::path(
    get,
    path = "/api/v1/spool/{exporter}",
    tag = "telemetry",
    params(("exporter" = String, Path, description = "The exporter, or a directory without one"), RecordsQuery),
    responses(
        (status = 200, description = "Ids, times and models; the records themselves with `content`", body = SpoolRecordsView),
        (status = 400, description = "A parameter that cannot be used", body = ErrorBody),
        (status = 401, description = "No token", body = ErrorBody),
        (status = 404, description = "No such exporter or directory", body = ErrorBody),
        (status = 503, description = "The files cannot be read now", body = ErrorBody),
    )
)]
pub(crate) async fn spool_records(
    State(plane): State<Arc<Plane>>,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<RecordsQuery>, QueryRejection>,
) -> Result<Json<SpoolRecordsView>, ApiError> {
    let (name, query) = (path(name)?, parameters(query)?);
    let limit = query.limit.unwrap_or(RECORDS).min(MAX_RECORDS);
    let read = move |spools: &Spools| {
        let contents = spools.records(&name, query.dead, limit)?;
        Ok(SpoolRecordsView::of(contents, query.content))
    };
    Ok(Json(on_files(&plane, read).await?))
}

/// Puts dead letters, and files that were set aside and can be read, back to be delivered
#[utoipa::path(
    post,
    path = "/api/v1/spool/{exporter}/replay",
    tag = "telemetry",
    params(("exporter" = String, Path, description = "The exporter"), ReplayQuery),
    responses(
        (status = 200, description = "What is delivered again, and what is not and why", body = ReplayedView),
        (status = 400, description = "A parameter that cannot be used", body = ErrorBody),
        (status = 401, description = "No token", body = ErrorBody),
        (status = 404, description = "No such exporter, directory or id", body = ErrorBody),
        (status = 409, description = "No exporter would deliver it, or it is being ended", body = ErrorBody),
        (status = 503, description = "The files cannot be written now", body = ErrorBody),
    )
)]
pub(crate) async fn spool_replay(
    State(plane): State<Arc<Plane>>,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<ReplayQuery>, QueryRejection>,
) -> Result<Json<ReplayedView>, ApiError> {
    let (name, query) = (path(name)?, parameters(query)?);
    let replayed = on_files(&plane, move |spools| spools.replay(&name, query.id.as_deref())).await?;
    Ok(Json(replayed.into()))
}

/// Removes records from disk
#[utoipa::path(
    post,
    path = "/api/v1/spool/{exporter}/purge",
    tag = "telemetry",
    params(("exporter" = String, Path, description = "The exporter, or a directory without one"), PurgeQuery),
    responses(
        (status = 200, description = "What was removed; with `dry_run` what would be", body = PurgedView),
        (status = 400, description = "A parameter that cannot be used", body = ErrorBody),
        (status = 401, description = "No token", body = ErrorBody),
        (status = 404, description = "No such exporter or directory", body = ErrorBody),
        (status = 409, description = "The exporter is being ended", body = ErrorBody),
        (status = 503, description = "The files cannot be removed now", body = ErrorBody),
    )
)]
pub(crate) async fn spool_purge(
    State(plane): State<Arc<Plane>>,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<PurgeQuery>, QueryRejection>,
) -> Result<Json<PurgedView>, ApiError> {
    let (name, query) = (path(name)?, parameters(query)?);
    let older_than = query.older_than.as_deref().map(age).transpose()?;
    let purge = Purge { dead_only: query.dead, older_than, dry: query.dry_run };
    let purged = on_files(&plane, move |spools| spools.purge(&name, &purge)).await?;
    Ok(Json(PurgedView::of(purged, query.dry_run)))
}

fn age(text: &str) -> Result<Duration, ApiError> {
    magicapi_config::parse_duration(text).ok_or_else(|| {
        ApiError::bad_request(
            "invalid_parameter",
            format!("older_than: `{text}` is no duration; write `90s`, `2h` or `7d`"),
        )
    })
}

async fn on_files<T: Send + 'static>(
    plane: &Plane,
    work: impl FnOnce(&Spools) -> Result<T, SpoolsError> + Send + 'static,
) -> Result<T, ApiError> {
    let telemetry = plane.telemetry.clone();
    let done = plane.blocking(move || telemetry.spools().map(|spools| work(&spools))).await?;
    let done = done.ok_or_else(|| {
        ApiError::not_found(
            "no_spool",
            "this gateway keeps nothing on disk: its data directory cannot be written, /health/details says why",
        )
    })?;
    Ok(done?)
}

/// What stands in the path.
pub(crate) fn path(name: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    name.map(|Path(name)| name).map_err(|error| ApiError::bad_request("invalid_name", error.body_text()))
}

fn parameters<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    let query = query.map_err(|error| ApiError::bad_request("invalid_parameter", error.body_text()))?;
    Ok(query.0)
}

impl From<SpoolsError> for ApiError {
    fn from(error: SpoolsError) -> Self {
        let (status, code) = match &error {
            SpoolsError::Unknown { .. } => (StatusCode::NOT_FOUND, "unknown_exporter"),
            SpoolsError::NoSuchId { .. } => (StatusCode::NOT_FOUND, "unknown_id"),
            SpoolsError::Orphaned(_) => (StatusCode::CONFLICT, "not_configured"),
            SpoolsError::Leaving(_) => (StatusCode::CONFLICT, "leaving"),
            SpoolsError::Io(_) => (StatusCode::SERVICE_UNAVAILABLE, "spool_unavailable"),
        };
        Self::new(status, code, error.to_string())
    }
}

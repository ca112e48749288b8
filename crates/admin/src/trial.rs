//! `POST /api/v1/exporters/{exporter}/test`: one marked record through one exporter, and what its back end answered.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use magicapi_telemetry::{Trial, TrialStep};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorBody};
use crate::plane::Plane;
use crate::spool::path;

/// What came of testing one exporter. The commands read the same type.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TrialView {
    /// The exporter's name.
    pub exporter: String,
    /// Its plug-in.
    #[serde(rename = "type")]
    pub kind: String,
    /// Everything that was to arrive has arrived.
    pub passed: bool,
    /// The id of the record that was sent; `null` when none was.
    pub record: Option<String>,
    /// What was tried, in order.
    pub steps: Vec<TrialStepView>,
}

/// One call of the exporter.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TrialStepView {
    /// `init`, `record`, `health`, `metrics`, `page` or `shutdown`.
    pub stage: String,
    /// `ok`, `rejected`, `refused`, `put_off`, `too_large`, `unknown`, `timed_out`, `panicked`, `failed`, `unwell` or
    /// `blocked`.
    pub end: String,
    /// What exporter or back end said.
    pub says: Option<String>,
    /// What can be done about it.
    pub remedy: Option<String>,
    /// How long it took.
    pub ms: u64,
}

impl From<Trial> for TrialView {
    fn from(trial: Trial) -> Self {
        Self {
            passed: trial.passed(),
            exporter: trial.exporter,
            kind: trial.kind.into(),
            record: trial.record.map(|id| id.to_string()),
            steps: trial.steps.into_iter().map(TrialStepView::from).collect(),
        }
    }
}

impl From<TrialStep> for TrialStepView {
    fn from(step: TrialStep) -> Self {
        Self {
            stage: step.stage.as_str().into(),
            end: step.end.as_str().into(),
            says: step.says,
            remedy: step.end.remedy().map(str::to_owned),
            ms: u64::try_from(step.took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Sends one marked record through an exporter and tells what its back end answered
///
/// The record is `provider: test`, `model: exporters-test`, `operation: test`. It passes no filter and no queue and is
/// not counted. 200 whatever came of it: `passed` says.
#[utoipa::path(
    post,
    path = "/api/v1/exporters/{exporter}/test",
    tag = "telemetry",
    params(("exporter" = String, Path, description = "The exporter's name")),
    responses(
        (status = 200, description = "What came of it", body = TrialView),
        (status = 401, description = "No token", body = ErrorBody),
        (status = 404, description = "No such exporter", body = ErrorBody),
    )
)]
pub(crate) async fn exporter_test(
    State(plane): State<Arc<Plane>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<TrialView>, ApiError> {
    let name = path(name)?;
    let trial = plane.telemetry.try_exporter(&name).await.ok_or_else(|| {
        let status = plane.telemetry.status();
        let known: Vec<&str> = status.iter().map(|status| status.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        ApiError::not_found("unknown_exporter", format!("no exporter is named `{name}`; there are: {known}"))
    })?;
    Ok(Json(trial.into()))
}

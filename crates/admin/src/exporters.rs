//! `/api/v1/exporters`: how each exporter is doing.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use magicapi_telemetry::{ExporterState, ExporterStatus};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ErrorBody;
use crate::plane::Plane;
use crate::spool::rfc3339;

/// One exporter now. Every record that it was given is in exactly one of `queue_records`, `spool_records`, `sent`,
/// `rejected` and `dropped`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ExporterInfo {
    /// Its name.
    name: String,
    /// Its plug-in.
    #[serde(rename = "type")]
    kind: &'static str,
    /// `starting`, `running`, `retrying`, `refused`, `draining` or `stopped`.
    state: &'static str,
    /// Records that it was given; those that an earlier process left in the spool among them.
    received: u64,
    /// Records that wait or are on their way.
    queue_records: usize,
    /// The memory that they hold.
    queue_bytes: usize,
    /// How long the oldest record of queue and spool has waited; `null` when none waits.
    oldest_age_ms: Option<u64>,
    /// Records that wait on disk, or are on their way there or from there.
    spool_records: u64,
    /// Bytes of their files.
    spool_bytes: u64,
    /// Why files cannot be written just now; `null` when they can.
    spool_error: Option<String>,
    /// Records that were written to the spool since the start.
    spooled: u64,
    /// It is full, and new requests are refused for its sake (`when_full: refuse`).
    refusing: bool,
    /// `closed`, `open` or `half_open`.
    breaker: &'static str,
    /// Records that the back end has.
    sent: u64,
    /// Tries that were repeated, in records.
    retried: u64,
    /// Records given up before delivery.
    dropped: u64,
    /// Those by reason: `queue_full`, `expired`, `disk_full`, `disk_error`, `corrupt`, `shutdown`, `panic`, `purged`.
    dropped_by_reason: BTreeMap<&'static str, u64>,
    /// Records that the back end will never take.
    rejected: u64,
    /// Such records that are kept on disk with the reason.
    dead_letters: u64,
    /// Bytes of their files.
    dead_letter_bytes: u64,
    /// Records that `only` does not name; it was not given them.
    filtered: u64,
    /// Records that `sample` left out; it was not given them.
    sampled_out: u64,
    /// Records sent without an answer; they were sent again and may be there twice.
    ambiguous: u64,
    /// What went wrong last.
    last_error: Option<String>,
    /// When that was, RFC 3339.
    last_error_at: Option<String>,
    /// How its back end is, looked at every few seconds: `ok`, `degraded` or `down`; `unknown` until it has started.
    health: &'static str,
    /// What is wrong there, or why it has not started; `null` when nothing is.
    health_reason: Option<String>,
}

/// Every exporter, in the configuration's order.
#[derive(Serialize, ToSchema)]
pub(crate) struct ExporterList {
    data: Vec<ExporterInfo>,
}

/// Every exporter and how it is doing
#[utoipa::path(
    get,
    path = "/api/v1/exporters",
    tag = "telemetry",
    responses(
        (status = 200, description = "In the configuration's order", body = ExporterList),
        (status = 401, description = "No token", body = ErrorBody),
    )
)]
pub(crate) async fn exporters(State(plane): State<Arc<Plane>>) -> Json<ExporterList> {
    Json(ExporterList { data: infos(&plane) })
}

pub(crate) fn infos(plane: &Plane) -> Vec<ExporterInfo> {
    plane.telemetry.status().into_iter().map(ExporterInfo::from).collect()
}

impl ExporterInfo {
    /// Why this exporter makes the gateway degraded, when it does. Its disk is a reason beside whatever its back end is:
    /// together they lose records.
    pub(crate) fn complaints(&self) -> impl Iterator<Item = String> {
        let spool = self.spool_error.as_ref().map(|error| format!("exporter {}: spool: {error}", self.name));
        self.complaint().into_iter().chain(spool)
    }

    fn complaint(&self) -> Option<String> {
        if self.refusing {
            let why = self.last_error.as_deref().unwrap_or("no reason given");
            return Some(format!(
                "exporter {}: full, new requests are refused (`when_full: refuse`): {why}",
                self.name
            ));
        }
        let waits = [ExporterState::Retrying, ExporterState::Refused].map(ExporterState::as_str);
        let fails_to_start = self.state == ExporterState::Starting.as_str() && self.last_error.is_some();
        if waits.contains(&self.state) || fails_to_start {
            let why = self.last_error.as_deref().unwrap_or("no reason given");
            return Some(format!("exporter {}: {}: {why}", self.name, self.state));
        }
        let why = self.health_reason.as_deref()?;
        Some(format!("exporter {}: {}: {why}", self.name, self.health))
    }
}

impl From<ExporterStatus> for ExporterInfo {
    fn from(status: ExporterStatus) -> Self {
        // Taken apart whole, so that a new field cannot be forgotten here.
        let ExporterStatus {
            name,
            kind,
            state,
            received,
            queue_records,
            queue_bytes,
            oldest_age,
            spool_records,
            spool_bytes,
            spool_error,
            spooled,
            refusing,
            breaker,
            sent,
            retried,
            dropped,
            dropped_by_reason,
            rejected,
            dead_letters,
            dead_letter_bytes,
            filtered,
            sampled_out,
            ambiguous,
            last_error,
            last_error_at,
            health,
        } = status;
        let (health, health_reason) =
            words(health.as_ref().map(|health| (health.as_str(), health.reason())), last_error.as_deref());
        let oldest_age_ms = oldest_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        Self {
            name,
            kind,
            state: state.as_str(),
            received,
            queue_records,
            queue_bytes,
            oldest_age_ms,
            spool_records,
            spool_bytes,
            spool_error,
            spooled,
            refusing,
            breaker: breaker.as_str(),
            sent,
            retried,
            dropped,
            dropped_by_reason: dropped_by_reason.into_iter().collect(),
            rejected,
            dead_letters,
            dead_letter_bytes,
            filtered,
            sampled_out,
            ambiguous,
            last_error,
            last_error_at: last_error_at.and_then(rfc3339),
            health,
            health_reason,
        }
    }
}

/// How its back end is, and why. One that has not started is so for what went wrong last.
fn words(
    health: Option<(&'static str, Option<&str>)>,
    last_error: Option<&str>,
) -> (&'static str, Option<String>) {
    let (word, reason) = health.unwrap_or(("unknown", last_error));
    (word, reason.map(str::to_owned))
}

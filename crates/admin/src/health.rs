//! `/health/details`: everything that can be wrong, for people and alerts. Never for probes: it is 200 whatever it says
//! (pitfall 91), and liveness and readiness are the data plane's.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorBody};
use crate::exporters::{ExporterInfo, infos};
use crate::plane::Plane;

/// Where the facts come from: the gateway.
pub trait HealthSource: Send + Sync {
    /// The facts now. May look at files, so it is called on a thread where that is allowed.
    fn snapshot(&self) -> HealthFacts;
}

/// What the gateway knows of itself.
#[derive(Clone, Debug)]
pub struct HealthFacts {
    /// The version that runs.
    pub version: String,
    /// When it started.
    pub started_at: SystemTime,
    /// Names the configuration in force.
    pub config_hash: String,
    /// `starting`, `serving`, `draining`, …
    pub phase: String,
    /// What the data plane holds.
    pub data_plane: DataPlaneFacts,
    /// The embedded store; `None` when there is none.
    pub store: Option<StoreFacts>,
    /// The spend ledger; `None` when it is off.
    pub ledger: Option<LedgerFacts>,
    /// The journals: of durable records, of the ledger.
    pub journals: Vec<JournalFacts>,
    /// The providers configured, by name.
    pub providers: Vec<String>,
    /// What else is wrong. What stands in the other facts is added here: a failing store or exporter, missing ledger
    /// rows.
    pub degraded: Vec<String>,
}

/// What the data plane holds now.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct DataPlaneFacts {
    /// Requests not yet ended.
    pub in_flight: u64,
    /// Open connections.
    pub connections: u64,
    /// Connections refused since the start because there were too many.
    pub connections_refused: u64,
    /// Bytes of bodies held in memory.
    pub held_bytes: u64,
}

/// The embedded store.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct StoreFacts {
    /// The database and its write-ahead log on disk.
    pub file_bytes: u64,
    /// The disk is full or broken.
    pub storage_failed: bool,
    /// What the last write failed with; absent when it did not.
    pub last_error: Option<String>,
    /// Bytes of the request log that wait to be written.
    pub log_queued_bytes: u64,
    /// Records of the request log written since the start.
    pub log_written: u64,
    /// Records of the request log deleted by retention since the start.
    pub log_deleted: u64,
}

/// The spend ledger.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct LedgerFacts {
    /// Whether it takes the rows of new requests.
    pub ready: bool,
    /// Entries that wait to be written.
    pub queued: u64,
    /// What those take in memory.
    pub queued_bytes: u64,
    /// Entries written since the start.
    pub written: u64,
    /// Entries lost since the start.
    pub missing: u64,
    /// What happens to new requests when it takes no more: `refuse` or `count`.
    pub on_full: &'static str,
}

/// A journal: what must survive a kill before it has reached its place.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct JournalFacts {
    /// `telemetry` (with `telemetry.durable`) or `ledger`.
    pub name: &'static str,
    /// Bytes of its files.
    pub bytes: u64,
    /// What they may take.
    pub limit: u64,
    /// Entries that have not reached their place.
    pub entries: u64,
    /// How old the oldest of them is; `null` when there is none.
    pub oldest_age_ms: Option<u64>,
    /// Entries that went on without it since the start: a kill would lose those that are under way.
    pub unwritten: u64,
    /// Entries of an earlier process that were taken up again.
    pub recovered: u64,
    /// Requests of an earlier process that were under way when it was killed.
    pub killed: u64,
    /// Why it cannot be written just now; `null` when it can.
    pub error: Option<String>,
}

/// How the gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// All is well.
    Ok,
    /// Something is wrong: `reasons` says what.
    Degraded,
}

/// The answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthDetails {
    status: Status,
    /// What is wrong, a sentence each.
    reasons: Vec<String>,
    version: String,
    /// RFC 3339.
    started_at: String,
    uptime_seconds: u64,
    phase: String,
    config_hash: String,
    data_plane: DataPlaneFacts,
    providers: Vec<String>,
    /// `null` with `store.url: none`, or when the data directory cannot be written.
    store: Option<StoreFacts>,
    /// `null` when it is off.
    ledger: Option<LedgerFacts>,
    journals: Vec<JournalFacts>,
    exporters: Vec<ExporterInfo>,
}

/// Everything that can be wrong
///
/// Always 200: not for probes, which are `/health` and `/ready` of the data plane.
#[utoipa::path(
    get,
    path = "/health/details",
    tag = "operation",
    responses(
        (status = 200, description = "Whatever it says", body = HealthDetails),
        (status = 401, description = "No token", body = ErrorBody),
    )
)]
pub(crate) async fn health_details(State(plane): State<Arc<Plane>>) -> Result<Json<HealthDetails>, ApiError> {
    let source = plane.health.clone();
    let facts = plane.blocking(move || source.snapshot()).await?;
    Ok(Json(HealthDetails::new(facts, infos(&plane))))
}

impl HealthDetails {
    fn new(facts: HealthFacts, exporters: Vec<ExporterInfo>) -> Self {
        let mut reasons = facts.degraded;
        reasons.extend(facts.store.as_ref().and_then(StoreFacts::complaint));
        reasons.extend(facts.ledger.as_ref().and_then(LedgerFacts::complaint));
        reasons.extend(facts.journals.iter().filter_map(JournalFacts::complaint));
        reasons.extend(exporters.iter().flat_map(ExporterInfo::complaints));
        Self {
            status: if reasons.is_empty() { Status::Ok } else { Status::Degraded },
            reasons,
            version: facts.version,
            started_at: jiff::Timestamp::try_from(facts.started_at)
                .map_or_else(|_| String::new(), |at| format!("{at:.3}")),
            // A clock that was set back has no uptime to show.
            uptime_seconds: facts.started_at.elapsed().map_or(0, |up| up.as_secs()),
            phase: facts.phase,
            config_hash: facts.config_hash,
            data_plane: facts.data_plane,
            providers: facts.providers,
            store: facts.store,
            ledger: facts.ledger,
            journals: facts.journals,
            exporters,
        }
    }
}

impl StoreFacts {
    fn complaint(&self) -> Option<String> {
        let why = self.last_error.as_deref();
        (self.storage_failed || why.is_some())
            .then(|| format!("store: {}", why.unwrap_or("the disk is full or broken")))
    }
}

impl JournalFacts {
    fn complaint(&self) -> Option<String> {
        let why = self.error.as_deref()?;
        Some(format!("journal {}: {why}; what is under way would not survive a kill", self.name))
    }
}

impl LedgerFacts {
    fn complaint(&self) -> Option<String> {
        if !self.ready {
            let effect =
                if self.on_full == "refuse" { "new requests are refused" } else { "rows are missing" };
            return Some(format!(
                "ledger: it takes no more rows; {effect} (`ledger.on_full: {}`)",
                self.on_full
            ));
        }
        (self.missing > 0).then(|| format!("ledger: the rows of {} requests are missing", self.missing))
    }
}

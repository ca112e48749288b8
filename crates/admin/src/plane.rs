//! What the admin plane is given, and what its handlers share.

use std::sync::Arc;
use std::time::Duration;

use magicapi_config::MetricsAccess;
use magicapi_kernel::{LogError, RequestLogReader};
use magicapi_model::Secret;
use magicapi_telemetry::Telemetry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::error::ApiError;
use crate::health::HealthSource;
use crate::host::AllowedHosts;
use crate::token::TokenHash;

/// Calls that block at a time (lists, searches, metrics pages): a search may take half a minute of a core.
const BLOCKING: usize = 4;
/// Documents on their way out at a time: each is held whole, tens of MiB with default capture limits.
const DOCUMENTS: usize = 4;
/// Followers at a time.
pub(crate) const FOLLOWERS: usize = 64;
/// How long a request waits for its turn.
const TURN: Duration = Duration::from_secs(5);

/// What the gateway supplies.
pub struct AdminState {
    /// Opens the API. An empty one opens nothing.
    pub token: Secret,
    /// Who may read `/metrics`.
    pub metrics: MetricsAccess,
    /// What `Host` may be besides loopback literals: configured names and the addresses listened on, with or without
    /// port. An unspecified address (`0.0.0.0`, `[::]`) stands for every address, but for no name.
    pub hosts: Vec<String>,
    /// The request log; `None` with `store.url: none`.
    pub logs: Option<Arc<dyn RequestLogReader>>,
    /// The pipeline, for `/metrics` and the exporters' state.
    pub telemetry: Telemetry,
    /// Facts for `/health/details`.
    pub health: Arc<dyn HealthSource>,
}

/// What the handlers share.
pub(crate) struct Plane {
    pub(crate) token: TokenHash,
    pub(crate) metrics: MetricsAccess,
    pub(crate) hosts: AllowedHosts,
    pub(crate) telemetry: Telemetry,
    pub(crate) health: Arc<dyn HealthSource>,
    /// True once the plane ends: streams that would go on for ever end with it.
    pub(crate) ending: watch::Receiver<bool>,
    logs: Option<Arc<dyn RequestLogReader>>,
    blocking: Arc<Semaphore>,
    documents: Arc<Semaphore>,
    followers: Arc<Semaphore>,
}

impl Plane {
    pub(crate) fn new(state: AdminState, ending: watch::Receiver<bool>) -> Self {
        Self {
            token: TokenHash::of(&state.token),
            metrics: state.metrics,
            hosts: AllowedHosts::new(&state.hosts),
            telemetry: state.telemetry,
            health: state.health,
            ending,
            logs: state.logs,
            blocking: Arc::new(Semaphore::new(BLOCKING)),
            documents: Arc::new(Semaphore::new(DOCUMENTS)),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
        }
    }

    /// The request log, or why there is none.
    pub(crate) fn logs(&self) -> Result<Arc<dyn RequestLogReader>, ApiError> {
        self.logs.clone().ok_or_else(|| {
            ApiError::not_found(
                "no_request_log",
                "this gateway keeps no request log: set `store.url` to a file (`sqlite://magicapi.db`) and make \
                 the data directory writable; /health/details says which of the two it is",
            )
        })
    }

    /// Runs what blocks on a thread of its own, a few at a time.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = turn(&self.blocking).await?;
        let work = move || {
            // Held by the work, not by the request: a caller who has left does not make room for the next one.
            let _permit = permit;
            work()
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| {
            ApiError::unavailable("failed", "the call failed inside; the log on stderr says more")
        })
    }

    /// Asks the request log.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn RequestLogReader) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let logs = self.logs()?;
        Ok(self.blocking(move || ask(&*logs)).await??)
    }

    /// The right to hold one document.
    pub(crate) async fn document_turn(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        turn(&self.documents).await
    }

    /// The right to follow; `None` when there are enough followers.
    pub(crate) fn follower_turn(&self) -> Option<OwnedSemaphorePermit> {
        self.followers.clone().try_acquire_owned().ok()
    }
}

async fn turn(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    match tokio::time::timeout(TURN, semaphore.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => {
            Err(ApiError::unavailable("busy", "too many searches or downloads at a time; try again shortly"))
        }
    }
}

//! From tap to exporter: assemble, fan out, queue, batch, deliver (invariants 4, 6 and 9).
//!
//! ```text
//! request path          assembly thread                              one thread per exporter
//! Tap -> finish() -> Intake -> select -> bodies -> redact -> seal -> Queue -> batch -> export -> judge Delivery
//!        never waits            metrics observe it here    bounded | ^                            |
//!                                                                  v | oldest first               v
//!                                                spool thread:  DATA_DIR/spool/<exporter>  <- breaker open
//! ```
//!
//! Every record holds a part of one memory budget from its tap to its last exporter. The pipeline computes no number of
//! a request: tokens, cost, times and outcome come with [`Finished`].

mod assemble;
mod backoff;
mod body;
mod breaker;
mod conversation;
mod core;
mod deliver;
mod feed;
mod gate;
mod guard;
mod intake;
mod journal;
mod lane;
mod memory;
mod metrics;
mod named;
mod put_off;
mod queue;
mod rate;
pub mod redact;
#[cfg(test)]
mod scripted;
mod selection;
mod settings;
mod spool;
mod stop;
mod tally;
mod tap;
mod telemetry;
mod trial;
mod worker;

pub use self::breaker::BreakerState;
pub use self::journal::JournalStatus;
pub use self::lane::{ExporterState, ExporterStatus};
pub use self::metrics::GatewayMetrics;
pub use self::settings::{
    CaptureSettings, DurableSettings, ExporterSetup, Fsync, Keep, Only, PipelineSettings, RateLimit, Sample,
    TelemetrySettings, WhenFull,
};
pub use self::spool::{
    FileTotals, Purge, Purged, Replayed, SpoolContents, SpoolSummary, SpooledRecord, Spools, SpoolsError,
    UnreadableFile,
};
pub use self::tap::{BodyKind, Finished, Tap};
pub use self::telemetry::{Telemetry, Unhealthy};
pub use self::trial::{Trial, TrialEnd, TrialStage, TrialStep, try_alone};

//! The admin plane (L3): the JSON API with its OpenAPI document, `/metrics` and `/health/details`, on listeners of its
//! own.
//!
//! ```text
//! connection -> headers -> Host check -> token -> route -> telemetry | health | request log (on blocking threads)
//! ```
//! GET reads; what changes something is POST. Everything is closed by default: the token is asked for before a route is
//! looked at, so a path that does not exist needs it too. `routes` lists every route; nothing else adds one. What is
//! answered are types of this crate, never a row as it comes from elsewhere.

mod error;
mod exporters;
mod guard;
mod health;
mod host;
mod logs;
mod metrics;
mod openapi;
mod plane;
mod routes;
mod serve;
mod spool;
#[cfg(test)]
mod tests;
mod token;
mod trial;

pub use health::{DataPlaneFacts, HealthFacts, HealthSource, JournalFacts, LedgerFacts, StoreFacts};
pub use plane::AdminState;
pub use serve::serve;
pub use spool::{
    KeptView, PurgedView, ReasonView, ReplayedView, SpoolFileView, SpoolListView, SpoolRecordView,
    SpoolRecordsView, SpoolTotalsView, SpoolView,
};
pub use token::generate_token;
pub use trial::{TrialStepView, TrialView};

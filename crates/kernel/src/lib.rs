//! Internal contracts (L1): what the server asks of providers, keys and the ledger, what the admin plane asks of the
//! request log, and the proof of admission.
//!
//! Traits and plain data; nothing here runs.

mod access;
mod admitted;
mod ledger;
mod logs;
mod provider;

pub use access::{Access, Identity};
pub use admitted::Admitted;
pub use ledger::{AttemptRow, Ledger, LedgerEntry};
pub use logs::{Arrivals, Followed, LogError, LogFollower, LogQuery, LogRow, Page, RequestLogReader, Tokens};
pub use magicapi_plugin::{Http, Meter};
pub use provider::{BaseUrl, Credential, OnClientGone, Provider, Quirks, UsageInStreams};

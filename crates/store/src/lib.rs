//! The embedded store (L2): the request log and the spend ledger in one SQLite file.
//!
//! Two sources write: `server/finish.rs` through [`magicapi_kernel::Ledger`], never waiting, and the telemetry
//! pipeline through [`RequestLog`], which waits for its commit. Ledger entries pass through a journal on their way. Both
//! end in one queue with a lane each, and one thread, `store`, owns the only connection that writes. Readers ([`Reader`])
//! are connections of their own; with the write-ahead log neither side waits for the other.
//!
//! `request_log` holds what lists and filters need, `request_log_body` the compressed documents, so that a list never
//! reads a body. Retention bounds the log by age and bytes; ledger rows are never deleted by it.

mod error;
mod follow;
mod journal;
mod ledger;
mod limits;
mod lock;
mod query;
mod queue;
mod reader;
mod request_log;
mod retention;
mod row;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod value;
mod writer;

pub use error::StoreError;
pub use journal::JournalStatus;
pub use ledger::NoLedger;
pub use lock::{DataDirLock, LockError};
pub use magicapi_kernel::{Arrivals, LogQuery, LogRow, Page, Tokens};
pub use reader::Reader;
pub use request_log::{REQUEST_LOG, RequestLog};
pub use store::{LedgerStatus, LogStatus, Store, StoreOptions, StoreStatus};

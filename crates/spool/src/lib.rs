//! Files for what must outlive the process (L1): batches that wait for a back end, and an append-only journal.
//!
//! ```text
//! Batches   one file per batch: compressed, checksummed, written aside, renamed into place, directory synced
//! Journal   segments that entries are appended to; a segment goes when every entry up to its end is settled
//! ```
//!
//! Both hold opaque byte strings and know nothing of records or rows. Files are 0600 and begin with a format version;
//! every version that was ever released stays readable. A directory belongs to one process: its owner holds the lock.

mod batches;
mod error;
mod files;
mod format;
mod journal;

pub use self::batches::{
    BatchId, BatchInfo, Batches, check_batch, list_batches, list_set_aside, read_batch, set_aside_dir,
};
pub use self::error::SpoolError;
pub use self::journal::{Fsync, Journal, JournalSettings, OldSegment, Ticket};

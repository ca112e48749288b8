//! Plain data that every crate shares: ids, usage, money, prices, outcomes, errors and secrets.
//!
//! Lowest layer (L0). No I/O, no async, no wire format: what stands here is a noun.

mod error;
mod id;
mod money;
mod outcome;
pub mod price;
mod secret;
mod usage;

pub use error::{Error, ErrorKind, Origin, Retry};
pub use id::RequestId;
pub use money::Money;
pub use outcome::Outcome;
pub use secret::Secret;
pub use usage::Usage;

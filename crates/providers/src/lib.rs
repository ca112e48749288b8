//! The provider catalogue (L2): who can be asked, where, with which credential form and quirks, and at what price.
//!
//! An OpenAI-compatible provider is a row of `data/catalogue.json`, never code. `gateway` reads [`catalogue`] at start,
//! joins each row with the operator's settings and calls [`build`]; the server asks the resulting
//! [`Provider`](magicapi_kernel::Provider) for each request. [`prices`] is the table that `server/finish.rs` prices with.

mod auth;
mod catalogue;
mod openai_compatible;
mod prices;

pub use auth::Auth;
pub use catalogue::{ErrorShape, Row, UsageAt, catalogue, row};
pub use openai_compatible::{ProviderSetup, build};
pub use prices::{PRICES_VERSION, prices};

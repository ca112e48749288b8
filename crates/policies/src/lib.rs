//! Who may do what (L2): virtual keys and the models that each may use.
//!
//! Asked twice for each request: [`VirtualKeys`] turns a presented key into an identity before anything else, and says
//! after routing whether that identity may use the model that was found.

mod auth;
mod keys;
mod pattern;

pub use auth::{KeyEntry, VirtualKeys};
pub use keys::{NewKey, create, hash_of, parse_hash};

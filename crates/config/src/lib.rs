//! Configuration (L1): environment and file to one validated snapshot. The only crate that reads the environment.
//!
//! ```text
//! file -> yaml (tree with lines) -> expand (${VAR}) -> reader (against the schema) -> raw (what the user wrote)
//!      -> resolve (with flags and environment, defaults filled in) -> refuse (closed by default) -> Config
//! ```
//! Problems are gathered, not thrown: each of the three stages (shape of the file, meaning of the values, refusals to
//! start) reports all of its own; a later stage runs only when the earlier ones found nothing, so that nothing is
//! reported that only follows from something else. Per key: flag > environment > file > default.

mod address;
mod catalogue;
mod context;
mod diagnostics;
mod diff;
mod effective;
mod environment;
mod expand;
mod load;
mod raw;
mod reader;
mod refuse;
mod resolve;
mod schema;
mod secrets;
mod types;
mod units;
mod yaml;

pub use self::catalogue::{Catalogue, PluginSpec, ProviderSpec};
pub use self::diagnostics::{Diagnostic, Diagnostics, Notice, Place, nearest};
pub use self::effective::{Effective, Origin};
pub use self::environment::Environment;
pub use self::load::{Flags, Loaded, Sources, load};
pub use self::refuse::refusals_of;
pub use self::schema::{key_paths, schema};
pub use self::types::*;
pub use self::units::duration as parse_duration;

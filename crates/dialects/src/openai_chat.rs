//! The OpenAI dialect: chat completions and the paths beside it, as spoken by OpenAI and everyone compatible.
//!
//! Flow: `operation` names the path, `request` reads the caller's body and `edit` changes what must change, `stream` or
//! `response` read the answer (with `usage` and `error`), `join` makes a stream's record,
//! `conversation` reads what was said out of one.

pub mod conversation;
pub mod edit;
pub mod error;
pub mod join;
pub mod operation;
pub mod request;
pub mod response;
pub mod stream;
pub mod usage;

pub use edit::{Applied, Edits, ParameterRules};
pub use error::ProviderError;
pub use join::{Join, Joined, LeftOut, Limits};
pub use operation::Operation;
pub use request::{RequestError, RequestFacts};
pub use response::ResponseFacts;
pub use stream::{EventFacts, StreamFacts, StreamReader};

//! A scripted AI provider: the second opinion on dialects, and the upstream of the benchmarks.
//!
//! It shares no code with the gateway it is used against, so a misreading of a wire format on one
//! side is not repeated on the other. A request passes through `server` (sockets, TLS, HTTP) →
//! `service` (reads the request, picks the [`Script`], waits) → one of the answer modules
//! (`chat`, `chat_stream`, `completions`, `responses`, `endpoints`, …) which makes a plan of bytes →
//! `body` (pace, split, compress, cut). `ledger` counts what happened and keeps what was received.
//!
//! What an answer looks like can be scripted per request; `README.md` of this crate is the reference.

mod admin;
mod answer;
mod ask;
mod body;
mod chat;
mod chat_stream;
mod cli;
mod completions;
mod encode;
mod endpoints;
mod failure;
mod ledger;
mod media;
mod multipart;
mod plan;
mod respond;
mod responses;
mod responses_stream;
mod route;
mod rules;
mod script;
mod server;
mod service;
mod sse;
mod tls;

pub use cli::{MockArgs, run};
pub use ledger::{MockStats, Received};
pub use rules::{Rule, RuleMatch, ScriptFile};
pub use script::{
    ErrorAnswer, LineEnd, ReasoningField, Script, ScriptError, ToolCall, UsagePlacement, WireCoding,
};
pub use server::{MockOptions, MockServer};
pub use tls::MockTls;

#[cfg(test)]
mod client_for_tests;
#[cfg(test)]
mod tests;

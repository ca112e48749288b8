//! Wire formats: framing, reading, editing and error shapes.
//!
//! Layer L1, pure: bytes in, facts or bytes out. No I/O, no async, and no input makes it panic. The request path uses
//! [`json`], [`sse`] and [`openai_chat`]; the record (on a telemetry thread) uses [`openai_chat::join`], [`encoding`],
//! [`multipart`] and [`openai_chat::conversation`].

pub mod conversation;
pub mod encoding;
pub mod json;
pub mod multipart;
pub mod openai_chat;
pub mod sse;

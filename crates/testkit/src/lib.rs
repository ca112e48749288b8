//! For tests only: the real binary as a process before whatever plays the provider (`gateway`, `configuration`), what a
//! test asks it and the records that it wrote (`ask`, `records`), clients that show the wire (`http`, `wire`), and
//! back ends on strings (`asked`, `back_end`, `puppet`, `bulk`, `hook`) and real ones (`elasticsearch`, `postgres`).
//!
//! Layer: none; no crate may depend on it outside of tests. It knows the gateway only as a caller or an operator does:
//! environment, files, sockets, signals. Deadlines are generous: they end a hung test, they measure nothing.
//! The house rules on files and edges are in `tests/tidy.rs` and `tests/edges.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on panics")]

pub mod ask;
pub mod asked;
pub mod back_end;
pub mod bulk;
pub mod canary;
pub mod configuration;
pub mod declared;
pub mod elasticsearch;
pub mod gateway;
pub mod hook;
pub mod http;
pub mod postgres;
pub mod puppet;
pub mod records;
pub mod reserved;
mod traced;
pub mod wire;

pub use gateway::{Gateway, GatewayOptions};
pub use http::{Response, Streaming, request, stream};
pub use records::{read_records, wait_for_records};

use std::time::Duration;

/// What a test waits at most for something that takes milliseconds on an idle machine.
pub const DEADLINE: Duration = Duration::from_mins(1);

//! Streams through the real binary: that they stream, what of them is edited, and how they end.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

#[path = "../stage/mod.rs"]
mod stage;

mod ends;
mod events;
mod timers;
mod usage;

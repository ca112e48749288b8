//! Streams through the real binary: that they stream, what of them is edited, and how they end.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

#[path = "../scene/mod.rs"]
mod scene;

mod ends;
mod events;
mod timers;
mod usage;

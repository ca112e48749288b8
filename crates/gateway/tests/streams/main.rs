//! Streams through the real binary: that they stream, what of them is edited, and how they end.

#[path = "../stage/mod.rs"]
mod stage;

mod ends;
mod events;
mod timers;
mod usage;

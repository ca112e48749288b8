//! The embedded store through the binary: request log, ledger, data directory, admin API and the commands on them.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

#[path = "../scene/mod.rs"]
mod scene;

mod admin;
mod data_dir;
mod keys;
mod ledger;
mod logs;

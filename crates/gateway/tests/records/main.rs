//! Records as the real binary writes them: pinned documents, the guide's samples, headers, costs, bodies.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

#[path = "../scene/mod.rs"]
mod scene;

mod bodies;
mod capture;
mod cost;
mod golden;
mod guide;
mod headers;

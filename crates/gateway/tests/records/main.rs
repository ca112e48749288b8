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

use std::sync::Arc;

use magicapi_testkit::configuration::{OUR_KEY, configuration};
use magicapi_testkit::{Gateway, GatewayOptions};
use serde_json::{Map, json};
use tempfile::TempDir;

use scene::{Scene, mock, options};

/// A gateway with prices of the test's own, and before these providers too, all of them the mock.
async fn with_prices(
    prices: &str,
    providers: &[&str],
    change: impl FnOnce(GatewayOptions) -> GatewayOptions,
) -> Scene {
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let file = directory.path().join("prices.jsonl");
    std::fs::write(&file, prices).expect("the prices");
    let mock = mock().await;
    let provider = json!({ "api_key": OUR_KEY, "base_url": mock.base_url() });
    let providers: Map<_, _> = providers.iter().map(|name| ((*name).to_owned(), provider.clone())).collect();
    let changes = json!({ "prices": { "file": file }, "providers": providers });
    let options = options(&configuration(&mock.base_url(), changes), &[]).data_dir(&directory);
    Scene { gateway: Gateway::start(change(options)).await, mock }
}

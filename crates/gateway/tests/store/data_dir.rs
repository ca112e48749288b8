//! The data directory: private files, one owner, and what happens when it cannot be written.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::http::get;
use magicapi_testkit::wire::until;
use magicapi_testkit::{DEADLINE, Gateway, GatewayOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{BINARY, Scene};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

fn printed_token(gateway: &Gateway) -> Option<String> {
    let lines = gateway.log();
    let line = lines.iter().find(|line| line.starts_with("admin token"))?;
    line.rsplit(' ').next().map(str::to_owned)
}

/// Whether the log says where the token is kept.
async fn says_where_the_token_is(gateway: &Gateway) -> bool {
    // It is logged before requests are taken.
    get(&gateway.url("/health"), &[]).await;
    gateway.log().iter().any(|line| line.contains("admin token kept in") && line.contains("data/admin.token"))
}

#[tokio::test]
async fn its_files_are_private_and_the_note_goes_with_the_process() {
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let mut scene = Scene::start_in(&directory, json!({}), |options| options).await;
    scene.chat("any", &json!({}), &chat("gpt-4o-mini", &json!({}))).await;
    let data = scene.gateway.data_path();
    assert_eq!(mode(&data), 0o700);
    for name in ["gateway.json", "admin.token", "magicapi.db", "lock"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    let note = std::fs::read(data.join("gateway.json")).expect("the note");
    let note: Value = serde_json::from_slice(&note).expect("JSON");
    assert_eq!(note["admin"], scene.gateway.admin_address.as_str());
    assert_eq!(note["pid"], scene.gateway.pid);
    assert_eq!(note["token"], scene.gateway.admin_token());
    scene.gateway.signal("TERM");
    assert_eq!(scene.gateway.wait(DEADLINE).await.code(), Some(0));
    assert!(!data.join("gateway.json").exists());
    assert!(data.join("admin.token").exists());
}

#[tokio::test]
async fn the_token_does_not_enter_a_log_that_travels() {
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let first = Scene::start_in(&directory, json!({}), |options| options).await;
    let token = first.gateway.admin_token();
    until("where the token is", async || says_where_the_token_is(&first.gateway).await.then_some(())).await;
    assert!(!first.gateway.log().join("\n").contains(&token), "{:?}", first.gateway.log());
    drop(first);
    let second = Scene::start_in(&directory, json!({}), |options| options).await;
    second
        .gateway
        .wait_for_log(|line| line["message"].as_str().is_some_and(|text| text.contains("exporters:")))
        .await;
    assert!(!says_where_the_token_is(&second.gateway).await, "once");
    assert_eq!(second.gateway.admin_token(), token, "and kept");
    assert_eq!(second.admin("/health/details").await.status, 200);
}

#[tokio::test]
async fn a_second_process_is_refused_and_told_who_has_it() {
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let mut scene = Scene::start_in(&directory, json!({}), |options| options).await;
    let second = GatewayOptions::new(BINARY).data_dir(&directory).env("ENABLED_EXPORTERS", "");
    let (mut command, _kept) = second.command();
    let output =
        tokio::task::spawn_blocking(move || command.output()).await.expect("a thread").expect("the binary");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&scene.gateway.pid.to_string()) && said.contains("DATA_DIR"), "{said}");
    assert!(scene.gateway.data_path().join("gateway.json").exists(), "the first one's note stays");
    assert_eq!(scene.admin("/health/details").await.status, 200, "and it goes on");
    // After a crash nothing is in the way.
    scene.gateway.kill();
    let after = Scene::start_in(&directory, json!({}), |options| options).await;
    assert_eq!(after.admin("/health/details").await.status, 200);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_costs_store_and_log_alone() {
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let data = directory.path().join("data");
    std::fs::create_dir(&data).expect("a directory");
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o555)).expect("a mode");
    let mock =
        magicapi_mock::MockServer::start(magicapi_mock::MockOptions::default()).await.expect("the mock");
    let options = || {
        GatewayOptions::unprivileged(BINARY, &directory)
            .env("OPENAI_API_KEY", "sk-test")
            .env("OPENAI_BASE_URL", mock.base_url())
            .env("ENABLED_EXPORTERS", "prometheus")
    };
    let gateway = Gateway::start(options()).await;
    let body = chat("gpt-4o-mini", &json!({}));
    let answer = magicapi_testkit::http::post_json(&gateway.url(CHAT), &[], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(get(&gateway.url("/ready"), &[]).await.status, 200);
    let token = format!("Bearer {}", printed_token(&gateway).expect("a token for this run"));
    let details = get(&gateway.admin_url("/health/details"), &[("authorization", &token)]).await.json();
    assert_eq!((&details["status"], &details["store"]), (&json!("degraded"), &Value::Null));
    let reasons = details["reasons"].to_string();
    assert!(reasons.contains(&data.display().to_string()), "{reasons}");
    let said = gateway.log().iter().filter(|line| line.contains("cannot be written")).count();
    assert_eq!(said, 1, "said once: {:?}", gateway.log());
    let logs = get(&gateway.admin_url("/api/v1/logs"), &[("authorization", &token)]).await;
    assert_eq!(logs.status, 404, "{}", logs.text());
    assert_eq!(std::fs::read_dir(&data).expect("the directory").count(), 0);
    drop(gateway);

    for (wants, key) in [
        ("ledger: { on_full: refuse }\n", "ledger.on_full"),
        ("telemetry: { durable: true }\n", "telemetry.durable"),
    ] {
        let (mut command, _kept) = options().config(wants).command();
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.expect("a thread").expect("the binary");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(key), "{said}");
    }
}

#[tokio::test]
async fn without_a_store_nothing_is_kept() {
    let scene = Scene::start(json!({ "store": { "url": "none" } })).await;
    scene.chat("free", &json!({}), &chat("gpt-4o-mini", &json!({}))).await;
    scene.record("free").await;
    assert!(!scene.gateway.data_path().join("magicapi.db").exists());
    let details = scene.admin("/health/details").await.json();
    assert_eq!((&details["store"], &details["ledger"]), (&Value::Null, &Value::Null));
    assert_eq!(details["status"], "ok", "asked for, so nothing is wrong");
    let names = details["exporters"].to_string();
    assert!(!names.contains("request_log"), "{names}");
}

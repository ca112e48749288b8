//! `keys create`: what it prints works, as a hash in the file and as a variable.

use std::sync::Arc;

use magicapi_testkit::GatewayOptions;
use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::http::post_json;
use serde_json::json;
use tempfile::TempDir;

use crate::scene::{Scene, run, stderr, stdout};

#[tokio::test]
async fn a_printed_key_works_and_no_other() {
    let directory = TempDir::new().expect("a directory");
    let made = run(&directory, &["keys", "create", "--print", "--name", "team-1"]).await;
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let text = stdout(&made);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim();
    let (key, hash) = (field("key:"), field("hash:"));
    // The very lines that it prints are the configuration.
    let lines = &text[text.find("auth:").expect("the lines for the file")..];
    let auth: serde_json::Value = json!({ "mode": "keys", "keys": [{ "name": "team-1", "hash": hash }] });
    assert!(lines.contains(&format!("- {{ name: team-1, hash: \"{hash}\" }}")), "{lines}");
    let scene = Scene::start(json!({ "auth": auth })).await;
    let bearer = format!("Bearer {key}");
    let body = chat("gpt-4o-mini", &json!({}));
    let url = scene.gateway.url(CHAT);
    let headers = [("authorization", bearer.as_str()), ("x-thread-id", "mine")];
    assert_eq!(post_json(&url, &headers, &body).await.status, 200);
    assert_eq!(scene.metadata("mine").await["key_name"], "team-1");
    for wrong in ["Bearer wrong", &bearer[..bearer.len() - 1], &format!("Bearer {hash}")] {
        assert_eq!(post_json(&url, &[("authorization", wrong)], &body).await.status, 401);
    }
    assert_eq!(post_json(&url, &[], &body).await.status, 401);
    assert!(!scene.line("mine").await.contains(key), "no record holds a key");

    let variable = |options: GatewayOptions| options.env("GATEWAY_API_KEYS", format!("team-2:{key}"));
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let scene = Scene::start_in(&directory, json!({}), variable).await;
    let headers = [("authorization", bearer.as_str()), ("x-thread-id", "theirs")];
    assert_eq!(post_json(&scene.gateway.url(CHAT), &headers, &body).await.status, 200);
    assert_eq!(scene.metadata("theirs").await["key_name"], "team-2");
}

#[tokio::test]
async fn every_key_is_another_and_bad_use_is_exit_2() {
    let directory = TempDir::new().expect("a directory");
    let first = stdout(&run(&directory, &["keys", "create", "--print"]).await);
    let second = stdout(&run(&directory, &["keys", "create", "--print"]).await);
    assert_ne!(first.lines().next(), second.lines().next());
    for arguments in [&["keys", "create", "--name", "a,b"][..], &["nonsense"]] {
        let refused = run(&directory, arguments).await;
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {}", stderr(&refused));
        assert_eq!(stdout(&refused), "");
    }
    assert!(!directory.path().join("data").exists(), "nothing is stored");
}

//! The variables of design section 1: each one set alone, and the difference seen from outside.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::fs;

use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::configuration::{OUR_KEY, RECORDS, configuration};
use magicapi_testkit::http::{get, post_json};
use magicapi_testkit::wire::until;
use magicapi_testkit::{Gateway, GatewayOptions, read_records};
use serde_json::{Value, json};

use crate::scene::{BINARY, Scene, mock, options};

#[tokio::test]
async fn host_and_port_are_where_requests_are_taken() {
    let scene = Scene::by_variables(&[("HOST", "127.0.0.6")]).await;
    assert!(scene.gateway.address.starts_with("http://127.0.0.6:"), "{}", scene.gateway.address);
    // A port that was free a moment ago, on an address that no other test uses.
    let free = std::net::TcpListener::bind("127.0.0.5:0").expect("a port").local_addr().expect("an address");
    let port = free.port().to_string();
    let ported = Scene::by_variables(&[("HOST", "127.0.0.5"), ("PORT", &port)]).await;
    assert_eq!(ported.gateway.address, format!("http://127.0.0.5:{port}"));
    assert_eq!(ported.ask(&json!({}), &[]).await.status, 200);
}

#[tokio::test]
async fn both_loopbacks_are_listened_on_unless_host_is_set() {
    let scene = Scene::by_variables(&[]).await;
    let port = scene.gateway.address.rsplit(':').next().expect("a port").to_owned();
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    assert_eq!(get(&format!("http://127.0.0.1:{port}/health"), &[]).await.status, 200);
    if has_ipv6 {
        assert_eq!(get(&format!("http://[::1]:{port}/health"), &[]).await.status, 200);
    }
}

#[tokio::test]
async fn admin_listen_and_admin_token() {
    let variables = [("ADMIN_LISTEN", "127.0.0.4:0"), ("ADMIN_TOKEN", "by-variable")];
    let scene = Scene::by_variables(&variables).await;
    assert!(scene.gateway.admin_address.starts_with("http://127.0.0.4:"));
    let url = scene.gateway.admin_url("/health/details");
    assert_eq!(get(&url, &[("authorization", "Bearer by-variable")]).await.status, 200);
    assert_eq!(get(&url, &[]).await.status, 401);
}

#[tokio::test]
async fn admin_beyond_loopback_without_a_token_does_not_start() {
    let (mut command, _directory) = GatewayOptions::new(BINARY).env("ADMIN_LISTEN", "0.0.0.0:0").command();
    let refused = command.output().expect("the binary");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2));
    assert!(said.contains("ADMIN_TOKEN=") && said.contains("token: \"${ADMIN_TOKEN}\""), "{said}");
}

#[tokio::test]
async fn a_provider_key_beyond_loopback_without_keys_does_not_start() {
    let variables = [("HOST", "0.0.0.0"), ("OPENAI_API_KEY", "sk-held")];
    let options =
        variables.iter().fold(GatewayOptions::new(BINARY), |all, (name, value)| all.env(name, *value));
    let refused = options.output();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2));
    assert!(said.contains("GATEWAY_API_KEYS=") && !said.contains("sk-held"), "{said}");
    let legal = options.env("GATEWAY_API_KEYS", "app-1:long-random-text");
    let gateway = Gateway::start(legal).await;
    assert_eq!(post_json(&local(&gateway, CHAT), &[], &question()).await.status, 401);
}

/// A URL of a gateway that listens on every address.
fn local(gateway: &Gateway, path: &str) -> String {
    format!("{}{path}", gateway.address.replace("0.0.0.0", "127.0.0.1"))
}

#[tokio::test]
async fn gateway_api_keys_are_demanded() {
    let scene = Scene::by_variables(&[("GATEWAY_API_KEYS", "one:key-1, two:key-2")]).await;
    assert_eq!(scene.ask(&json!({}), &[]).await.status, 401);
    for key in ["Bearer key-1", "Bearer key-2"] {
        assert_eq!(scene.ask(&json!({}), &[("authorization", key)]).await.status, 200);
        assert_eq!(scene.received().header("authorization"), Some(format!("Bearer {OUR_KEY}").as_str()));
    }
    assert_eq!(scene.ask(&json!({}), &[("authorization", "Bearer key-3")]).await.status, 401);
}

#[tokio::test]
async fn magicapi_config_names_the_file() {
    let mock = mock().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("any-name.yaml");
    let config = configuration(&mock.base_url(), json!({ "telemetry": { "service_name": "from-the-file" } }));
    fs::write(&file, config.to_string()).expect("a file");
    let options = GatewayOptions::new(BINARY).env("MAGICAPI_CONFIG", file.to_str().expect("a path"));
    let gateway = Gateway::start(options).await;
    assert_eq!(post_json(&gateway.url(CHAT), &[], &question()).await.status, 200);
    let records =
        magicapi_testkit::wait_for_records(&gateway.path(RECORDS), 1, magicapi_testkit::DEADLINE).await;
    assert_eq!(records[0]["resource"]["service.name"], "from-the-file");
}

#[tokio::test]
async fn data_dir_beats_the_file_and_state_directory_is_the_default() {
    let mock = mock().await;
    let config = configuration(&mock.base_url(), json!({ "data_dir": "by-file" }));
    let both = Gateway::start(options(&config, &[("DATA_DIR", "by-variable")])).await;
    assert!(both.path("by-variable/gateway.json").exists() && !both.path("by-file").exists());
    let plain = configuration(&mock.base_url(), json!({}));
    let state =
        Gateway::start(options(&plain, &[("DATA_DIR", ""), ("STATE_DIRECTORY", "first:second")])).await;
    assert!(state.path("first/gateway.json").exists());
    let none = Gateway::start(options(&plain, &[("DATA_DIR", "")])).await;
    assert!(none.path("magicapi-data/gateway.json").exists());
    let flag = options(&config, &[("DATA_DIR", "by-variable")]).arg("--data-dir").arg("by-flag");
    let flag = Gateway::start(flag).await;
    assert!(flag.path("by-flag/gateway.json").exists() && !flag.path("by-variable").exists());
}

#[tokio::test]
async fn rust_log_and_log_format_shape_the_log() {
    let quiet = Scene::by_variables(&[("RUST_LOG", "info,access=off")]).await;
    let loud = Scene::by_variables(&[("RUST_LOG", "info")]).await;
    for scene in [&quiet, &loud] {
        assert_eq!(scene.ask(&json!({}), &[("x-request-id", "mine")]).await.status, 200);
    }
    let line = loud.logged("request", 1).await.remove(0);
    assert_eq!(line["client_request_id"], "mine");
    assert_eq!(
        (&line["status"], &line["provider"], &line["outcome"]),
        (&json!(200), &json!("openai"), &json!("completed"))
    );
    assert!(!quiet.gateway.log().iter().any(|line| line.contains("\"outcome\"")));
    let refused = GatewayOptions::new(BINARY).env("LOG_FORMAT", "jsn").output();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("`json`"), "{said}");
    let text = GatewayOptions::new(BINARY)
        .env("LOG_FORMAT", "text")
        .env("PORT", "1")
        .env("HOST", "192.0.2.1")
        .output();
    assert!(!String::from_utf8_lossy(&text.stderr).starts_with('{'));
}

#[tokio::test]
async fn enabled_exporters_is_the_list() {
    let unset = Scene::by_variables(&[("ADMIN_TOKEN", "t")]).await;
    let empty = Scene::by_variables(&[("ADMIN_TOKEN", "t"), ("ENABLED_EXPORTERS", "")]).await;
    let named =
        Scene::by_variables(&[("ADMIN_TOKEN", "t"), ("ENABLED_EXPORTERS", "prometheus,console")]).await;
    for (scene, expected, scraped) in [
        (&unset, vec!["prometheus", "request_log"], 404),
        (&empty, vec!["request_log"], 404),
        (&named, vec!["console", "prometheus", "request_log"], 200),
    ] {
        let details =
            get(&scene.gateway.admin_url("/health/details"), &[("authorization", "Bearer t")]).await.json();
        let names = details["exporters"].as_array().expect("exporters").iter();
        let mut names: Vec<&str> = names.filter_map(|one| one["name"].as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, expected);
        // Who names `prometheus` scrapes it on the data plane too.
        assert_eq!(get(&scene.gateway.url("/metrics"), &[]).await.status, scraped, "{expected:?}");
    }
}

#[tokio::test]
async fn the_log_says_which_keys_and_exporters_there_are() {
    let keys =
        [("OPENAI_API_KEY", "sk-a"), ("GROQ_API_KEY", "sk-b"), ("ENABLED_EXPORTERS", "console,prometheus")];
    let short = [("OPENAI_API_KEY", "sk-a"), ("GATEWAY_API_KEYS", "weak:abc"), ("ENABLED_EXPORTERS", "")];
    let cases = [
        (&keys[..], "providers with a key: groq, openai; exporters: console, prometheus, request_log"),
        (&[], "no provider key: callers must bring their own; exporters: prometheus, request_log"),
        (&short, "providers with a key: openai; exporters: request_log"),
        (&short[1..], "no provider key; exporters: request_log"),
    ];
    for (variables, expected) in cases {
        let gateway = Gateway::start(GatewayOptions::new(BINARY).envs(variables)).await;
        gateway.wait_for_log(|line| line["message"] == expected).await;
        let weak = gateway.log().iter().any(|line| line.contains("`weak` has fewer than 16 characters"));
        assert_eq!(weak, variables.iter().any(|(name, _)| *name == "GATEWAY_API_KEYS"), "{expected}");
    }
}

#[tokio::test]
async fn enable_elasticsearch_is_an_alias() {
    let variables =
        [("ADMIN_TOKEN", "t"), ("ENABLE_ELASTICSEARCH", "true"), ("ELASTICSEARCH_URL", "http://127.0.0.1:1")];
    let scene = Scene::by_variables(&variables).await;
    let details = get(&scene.gateway.admin_url("/health/details"), &[("authorization", "Bearer t")]).await;
    assert!(details.text().contains("\"elasticsearch\""), "{}", details.text());
}

#[tokio::test]
async fn a_variable_that_cannot_be_used_stops_the_start() {
    for (name, value, word) in [
        ("ENABLED_EXPORTERS", "prometeus", "`prometheus`"),
        ("ELASTICSEARCH_URL", "not a url", "ELASTICSEARCH_URL"),
        ("PORT", "70000", "PORT"),
        ("HOST", "example.org", "HOST"),
        ("OPENAI_BASE_URL", "ftp://x", "OPENAI_BASE_URL"),
        ("HTTPS_PROXY", "://", "HTTPS_PROXY"),
        ("GATEWAY_API_KEYS", "no-colon", "GATEWAY_API_KEYS"),
        ("OTEL_RESOURCE_ATTRIBUTES", "x", "OTEL_RESOURCE_ATTRIBUTES"),
    ] {
        let mut options = GatewayOptions::new(BINARY).env(name, value);
        if name.starts_with("ELASTICSEARCH") {
            options = options.env("ENABLED_EXPORTERS", "elasticsearch");
        }
        let refused = options.output();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains(word), "{name}: {said}");
    }
}

#[tokio::test]
async fn variables_of_other_programs_never_stop_the_start() {
    let foreign =
        [("DATABASE_URL", "postgres://u:p@h/d"), ("REDIS_URL", "redis://h"), ("DD_API_KEY", "dd-secret-key")];
    let scene = Scene::by_variables(&foreign).await;
    assert_eq!(scene.ask(&json!({}), &[]).await.status, 200);
    let said = scene.gateway.log().join("\n");
    for (name, value) in foreign {
        assert!(said.contains(name) && !said.contains(value), "{name} is named, its value is not: {said}");
    }
}

#[tokio::test]
async fn names_of_the_gateway_stand_in_each_record() {
    let variables = [
        ("OTEL_SERVICE_NAME", "svc"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=i-1,team=a%20b"),
        ("DEPLOYMENT_ENVIRONMENT", "staging"),
    ];
    let scene = Scene::with(json!({ "telemetry": { "service_name": "by-file" } }), &variables).await;
    scene.ask(&json!({}), &[]).await;
    let resource: Value = scene.records(1).await[0]["resource"].clone();
    for (name, value) in [
        ("service.name", "svc"),
        ("service.instance.id", "i-1"),
        ("deployment.environment", "staging"),
        ("team", "a b"),
    ] {
        assert_eq!(resource[name], value, "{resource}");
    }
}

#[tokio::test]
async fn provider_variables_beat_the_file() {
    let other = mock().await;
    let url = other.base_url();
    let variables = [("OPENAI_API_KEY", "sk-by-variable"), ("OPENAI_BASE_URL", url.as_str())];
    let scene = Scene::with(json!({}), &variables).await;
    assert_eq!(scene.ask(&json!({}), &[]).await.status, 200);
    assert_eq!(scene.mock.received().len(), 0);
    let received = other.received().pop().expect("a request");
    assert_eq!(received.header("authorization"), Some("Bearer sk-by-variable"));
}

#[tokio::test]
async fn http_proxy_and_no_proxy() {
    let proxy = mock().await;
    let url = format!("http://{}", proxy.addr());
    let named = json!({ "providers": { "openai": { "base_url": "http://provider.invalid/v1" } } });
    for (variables, status) in [
        (vec![("HTTP_PROXY", url.as_str())], 200),
        (vec![("http_proxy", url.as_str())], 200),
        (vec![("HTTP_PROXY", url.as_str()), ("NO_PROXY", "other.invalid,.provider.invalid")], 502),
        (vec![("HTTPS_PROXY", url.as_str())], 502),
    ] {
        let scene = Scene::with(named.clone(), &variables).await;
        assert_eq!(scene.ask(&json!({}), &[]).await.status, status, "{variables:?}");
    }
    assert_eq!(proxy.received().len(), 2);
}

#[tokio::test]
async fn the_console_writes_records_to_standard_output() {
    let mock = mock().await;
    let variables = [
        ("ENABLED_EXPORTERS", "console"),
        ("OPENAI_API_KEY", OUR_KEY),
        ("OPENAI_BASE_URL", &mock.base_url()),
    ];
    let options =
        variables.iter().fold(GatewayOptions::new(BINARY), |all, (name, value)| all.env(name, *value));
    let (mut command, directory) = options.command();
    let out = directory.path().join("out");
    let log = directory.path().join("log");
    let mut child = command
        .stdout(fs::File::create(&out).expect("a file"))
        .stderr(fs::File::create(&log).expect("a file"))
        .spawn()
        .expect("the binary");
    let address = until("listening", async || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let line = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        line.into_iter().find(|line| line["message"] == "listening")?["address"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(post_json(&format!("{address}{CHAT}"), &[], &question()).await.status, 200);
    let records =
        until("a record", async || Some(read_records(&out)).filter(|records| !records.is_empty())).await;
    assert_eq!(records[0]["name"], "ai_gateway_request_log");
    child.kill().expect("killed");
    child.wait().expect("ended");
}

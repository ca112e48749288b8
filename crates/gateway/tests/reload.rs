//! Reload through the real binary: SIGHUP and changed files, whole or not at all, requests in flight undisturbed.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::configuration::{RECORDS, configuration, records_file};
use magicapi_testkit::hook::Hook;
use magicapi_testkit::http::post_json;
use magicapi_testkit::wire::{until, until_within};
use magicapi_testkit::{DEADLINE, Gateway, read_records, stream};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};

use crate::scene::{Scene, hash_of, mock, options};

/// An exporter whose back end is away asks for it once a minute in the end.
const RECOVERY: Duration = Duration::from_mins(10);

const RELOADED: &str = "configuration reloaded";
const REFUSED: &str = "configuration not reloaded; the old one stays in force";

#[tokio::test]
async fn a_signal_and_a_changed_file_reload() {
    let scene = Scene::start(json!({})).await;
    scene.gateway.signal("HUP");
    scene.logged(RELOADED, 1).await;
    scene.rewrite(json!({ "providers": { "openai": { "api_key": "sk-second" } } }));
    scene.logged(RELOADED, 2).await;
    assert_eq!(scene.ask(&json!({}), &[]).await.status, 200);
    assert_eq!(scene.received().header("authorization"), Some("Bearer sk-second"));
    // Written in place, as some editors do.
    let text = configuration(
        &scene.mock.base_url(),
        json!({ "providers": { "openai": { "api_key": "sk-third" } } }),
    );
    fs::write(scene.gateway.config_path(), text.to_string()).expect("a file");
    until("the third key", async || {
        scene.ask(&json!({}), &[]).await;
        (scene.received().header("authorization") == Some("Bearer sk-third")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_bad_file_keeps_the_old_configuration_and_says_why() {
    let scene = Scene::start(json!({})).await;
    for (number, broken) in [
        "providers: { openai: { api_kye: x } }\n".to_owned(),
        "a: [\n".to_owned(),
        configuration("", json!({ "prices": { "file": "absent.jsonl" } })).to_string(),
        configuration("", json!({ "telemetry": { "exporters": [{ "type": "file", "path": "" }] } }))
            .to_string(),
    ]
    .iter()
    .enumerate()
    {
        fs::write(scene.gateway.config_path(), broken).expect("a file");
        scene.gateway.signal("HUP");
        let said = scene.logged(REFUSED, number + 1).await;
        assert!(
            said.iter().all(|line| line["problem"].as_str().is_some_and(|text| !text.is_empty())),
            "{said:?}"
        );
        assert_eq!(scene.ask(&json!({}), &[]).await.status, 200);
    }
    let said = scene.logged(REFUSED, 1).await;
    let first = said[0]["problem"].as_str().expect("a problem");
    assert!(first.contains("gateway.yaml:1:24") && first.contains("`api_key`"), "{first}");
    scene.records(4).await;
    scene.rewrite(json!({}));
    scene.logged(RELOADED, 1).await;
}

#[tokio::test]
async fn a_request_in_flight_keeps_its_configuration() {
    let scene = Scene::start(json!({ "timeouts": { "idle": "30s" } })).await;
    let headers = [("content-type", "application/json"), ("x-mock", r#"{"chunks":8,"gap_ms":400}"#)];
    let mut body = question();
    body["stream"] = json!(true);
    let mut answer = stream("POST", &scene.gateway.url(CHAT), &headers, body.to_string()).await;
    answer.next().await.expect("a piece").expect("of the stream");
    // The stream's pauses are longer than what the new configuration allows, and its provider is gone from it.
    scene.rewrite(json!({ "timeouts": { "idle": "50ms" }, "providers": { "openai": { "base_url": "http://127.0.0.1:1/v1" } } }));
    scene.logged(RELOADED, 1).await;
    assert_eq!(scene.ask(&json!({}), &[]).await.status, 502, "new requests use the new configuration");
    let (pieces, end) = answer.rest().await;
    let text: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
    assert!(end.is_ok() && String::from_utf8_lossy(&text).ends_with("data: [DONE]\n\n"));
    let records = scene.records(2).await;
    assert!(
        records.iter().any(|record| record["attributes"]["metadata"]["outcome"] == "completed"),
        "{records:?}"
    );
}

#[tokio::test]
async fn exporters_come_change_and_go_without_losing_a_record() {
    let renamed = |path: &str| records_file(&json!({ "path": path }));
    let extra = records_file(&json!({ "name": "extra", "path": "extra.jsonl" }));
    let exporters = |list: Value| json!({ "telemetry": { "exporters": list } });
    let scene = Scene::start(exporters(json!([renamed("a.jsonl")]))).await;
    let plan =
        [json!([renamed("a.jsonl"), extra]), json!([renamed("b.jsonl"), extra]), json!([renamed("b.jsonl")])];
    let mut sent = 0;
    for (number, list) in plan.into_iter().enumerate() {
        for _ in 0..20 {
            assert_eq!(scene.ask(&json!({}), &[]).await.status, 200);
        }
        scene.rewrite(exporters(list));
        // Requests go on while the exporters are exchanged.
        while scene.logged(RELOADED, 0).await.len() <= number {
            assert_eq!(scene.ask(&json!({}), &[]).await.status, 200);
        }
        sent = scene.mock.received().len();
    }
    let ids = |path: &str| -> Vec<String> {
        let records = read_records(&scene.gateway.path(path));
        records.iter().filter_map(|record| record["attributes"]["id"].as_str().map(str::to_owned)).collect()
    };
    until("all records", async || (ids("a.jsonl").len() + ids("b.jsonl").len() >= sent).then_some(())).await;
    let mut all = [ids("a.jsonl"), ids("b.jsonl")].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), sent, "each request once");
    assert!(ids("extra.jsonl").len() >= 20 && ids("extra.jsonl").len() < sent);
}

/// These begin beside the ones that they replace. One changes its batches, then its back end; one comes and goes; one has a
/// back end that refuses for as long as it takes, and then another.
#[tokio::test]
async fn replacements_that_begin_beside_the_old_lose_and_double_no_record() {
    let (first, second, guest) = (Hook::start(202).await, Hook::start(202).await, Hook::start(202).await);
    let (away, back) = (Hook::start(503).await, Hook::start(202).await);
    let hook = |name: &str, hook: &Hook, records: u32| {
        json!({ "type": "webhook", "name": name, "url": hook.url(), "batch": { "records": records, "bytes": "16KiB", "age": "20ms" },
            "buffer": { "memory": "64KiB" } })
    };
    let exporters = |list: &[Value]| json!({ "telemetry": { "exporters": list } });
    let scene = Scene::start(exporters(&[hook("moves", &first, 5), hook("waits", &away, 5)])).await;
    let plan = [
        vec![hook("moves", &first, 5), hook("waits", &away, 5), hook("guest", &guest, 5)],
        vec![hook("moves", &first, 9), hook("waits", &away, 9), hook("guest", &guest, 9)],
        vec![hook("moves", &second, 9), hook("waits", &away, 5), hook("guest", &guest, 9)],
        vec![hook("moves", &second, 9), hook("waits", &back, 5)],
        vec![hook("moves", &second, 9), hook("waits", &back, 5), hook("guest", &guest, 5)],
    ];
    let mut asked = BTreeSet::new();
    let mut ask = async || {
        let answer = scene.ask(&json!({}), &[]).await;
        assert_eq!(answer.status, 200);
        assert!(asked.insert(answer.header("x-request-id").to_owned()));
    };
    for (number, list) in plan.iter().enumerate() {
        for _ in 0..20 {
            ask().await;
        }
        scene.rewrite(exporters(list));
        // Requests go on while the exporters are exchanged.
        while scene.logged(RELOADED, 0).await.len() <= number {
            ask().await;
        }
    }
    for _ in 0..20 {
        ask().await;
    }
    let moved = || [first.ids(), second.ids()].concat();
    until_within(RECOVERY, "every record at both", async || {
        (moved().len() >= asked.len() && back.ids().len() >= asked.len()).then_some(())
    })
    .await;
    assert!(first.ids().len() >= 60 && second.ids().len() >= 60);
    assert!(away.ids().is_empty());
    for there in [moved(), back.ids(), guest.ids()] {
        let once: BTreeSet<_> = there.iter().cloned().collect();
        assert_eq!(once.len(), there.len(), "each once");
        assert!(once.is_subset(&asked));
    }
    assert_eq!((moved().len(), back.ids().len()), (asked.len(), asked.len()));
    assert!((60..asked.len()).contains(&guest.ids().len()), "{}", guest.ids().len());
}

#[tokio::test]
async fn keys_that_need_a_restart_are_refused_and_the_rest_is_taken() {
    let scene = Scene::start(json!({})).await;
    let url = scene.gateway.address.clone();
    scene.rewrite(json!({
        "server": { "listen": "127.0.0.3:0" },
        "admin": { "token": "another", "metrics": "open" },
        "data_dir": "elsewhere",
        "store": { "url": "none" },
        "telemetry": { "service_name": "another", "threads": 3, "metrics": { "interval": "1s" } },
        "providers": { "openai": { "api_key": "sk-second" } },
    }));
    scene.logged(RELOADED, 1).await;
    let refused = scene.logged("changed, but takes a restart; the old value stays in force", 6).await;
    let mut keys: Vec<&str> = refused.iter().filter_map(|line| line["key"].as_str()).collect();
    keys.sort_unstable();
    // `DATA_DIR`, which the test sets, wins over `data_dir`.
    assert_eq!(
        keys,
        [
            "admin.metrics",
            "admin.token",
            "server.listen",
            "store.url",
            "telemetry.metrics.interval",
            "telemetry.service_name",
            "telemetry.threads",
        ]
    );
    assert_eq!(scene.admin("/api/v1/logs").await.status, 200, "the old token, the old store");
    assert_eq!(post_json(&format!("{url}{CHAT}"), &[], &question()).await.status, 200);
    assert_eq!(scene.received().header("authorization"), Some("Bearer sk-second"));
    assert_eq!(scene.records(1).await[0]["resource"]["service.name"], "noveum_ai_gateway");
}

/// A file that names loopbacks is fit to run without keys; the listeners that are open are not.
#[tokio::test]
async fn a_reload_cannot_lend_the_providers_key_to_the_network() {
    let beyond = json!({
        "server": { "listen": "0.0.0.0:0" },
        "auth": { "mode": "keys", "keys": [{ "name": "one", "hash": hash_of("mgk-one") }] },
    });
    let scene = Scene::start(beyond).await;
    let url = format!("{}{CHAT}", scene.gateway.address);
    for (number, mode) in ["open", "passthrough"].into_iter().enumerate() {
        scene.rewrite(json!({ "server": { "listen": "127.0.0.1:0" }, "auth": { "mode": mode } }));
        let refused = scene.logged(REFUSED, number + 1).await;
        let problem = refused[number]["problem"].as_str().expect("a problem");
        assert!(problem.contains("can be reached from other machines"), "{problem}");
        assert_eq!(post_json(&url, &[], &question()).await.status, 401, "{mode}");
    }
    let own = [("authorization", "Bearer mgk-one")];
    assert_eq!(post_json(&url, &own, &question()).await.status, 200, "the old one stays in force");
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_any_more() {
    let keys = |names: &[&str]| {
        let keys: Vec<Value> =
            names.iter().map(|name| json!({ "name": name, "hash": hash_of(name) })).collect();
        json!({ "auth": { "mode": "keys", "keys": keys } })
    };
    let scene = Scene::start(keys(&["first", "second"])).await;
    let status = async |key: &str| {
        let authorization = format!("Bearer {key}");
        scene.ask(&json!({}), &[("authorization", &authorization)]).await.status
    };
    assert_eq!((status("first").await, status("second").await, status("third").await), (200, 200, 401));
    scene.rewrite(keys(&["second", "third"]));
    scene.logged(RELOADED, 1).await;
    assert_eq!((status("first").await, status("second").await, status("third").await), (401, 200, 200));
}

#[tokio::test]
async fn a_price_file_is_read_again_also_one_that_a_reload_brought() {
    let usage = json!({ "usage": { "prompt_tokens": 1000, "completion_tokens": 0, "total_tokens": 1000 } });
    let price = |path: &Path, dollars: f64| {
        let row = json!({ "provider": "openai", "model": "gpt-4o-mini", "mode": "chat",
            "price": { "standard": { "base": { "input": dollars, "output": 1.0 } } } });
        fs::write(path, format!("{row}\n")).expect("a file");
    };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("prices.jsonl");
    price(&file, 1000.0);
    let scene = Scene::start(json!({})).await;
    scene.rewrite(json!({ "prices": { "file": file } }));
    scene.logged(RELOADED, 1).await;
    scene.ask(&usage, &[]).await;
    assert_eq!(scene.last_of(1).await["metadata"]["cost"], json!(1.0));
    // It lies in a directory that was not watched at the start.
    price(&file, 5000.0);
    scene.logged(RELOADED, 2).await;
    scene.ask(&usage, &[]).await;
    assert_eq!(scene.last_of(2).await["metadata"]["cost"], json!(5.0));
}

/// A certificate of its own for 127.0.0.1, as files.
fn certify(directory: &Path) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    fs::write(directory.join("cert.pem"), made.cert.pem()).expect("a file");
    made.cert.der().to_vec()
}

/// The certificate that a listener shows.
async fn shown(address: SocketAddr, trusted: Vec<u8>) -> Option<Vec<u8>> {
    let look = move || {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(trusted)).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut socket = std::net::TcpStream::connect(address).expect("a connection");
        rustls::Stream::new(&mut client, &mut socket)
            .write_all(b"GET /health HTTP/1.1\r\nhost: g\r\n\r\n")
            .ok()?;
        client.peer_certificates().map(|chain| chain[0].to_vec())
    };
    tokio::task::spawn_blocking(look).await.expect("looked")
}

#[tokio::test]
async fn server_tls_shows_the_certificate_and_rereads_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = certify(directory.path());
    let from_file = CertificateDer::from_pem_file(directory.path().join("cert.pem")).expect("PEM");
    assert_eq!(from_file.to_vec(), first);
    let tls = json!({ "cert": directory.path().join("cert.pem"), "key": directory.path().join("key.pem") });
    let mock = mock().await;
    let config = configuration(&mock.base_url(), json!({ "server": { "tls": tls } }));
    let gateway = Gateway::start(options(&config, &[])).await;
    let address: SocketAddr =
        gateway.address.strip_prefix("https://").expect("TLS").parse().expect("an address");
    assert_eq!(shown(address, first.clone()).await.as_ref(), Some(&first));
    let second = certify(directory.path());
    until("the second certificate", async || {
        (shown(address, second.clone()).await == Some(second.clone())).then_some(())
    })
    .await;
    // Half of a pair: the old one stays.
    fs::write(directory.path().join("key.pem"), "no key").expect("a file");
    gateway
        .wait_for_log(|line| line["message"] == "certificate not reread; the old one stays in force")
        .await;
    assert_eq!(shown(address, second.clone()).await, Some(second));
}

#[tokio::test]
async fn signals_are_heeded_from_the_first_line_on() {
    let mut scene = Scene::start(json!({})).await;
    scene.gateway.signal("HUP");
    scene.gateway.signal("HUP");
    scene.logged(RELOADED, 1).await;
    assert_eq!(scene.ask(&json!({}), &[]).await.status, 200);
    scene.gateway.signal("TERM");
    assert_eq!(scene.gateway.wait(DEADLINE).await.code(), Some(0));
    assert_eq!(read_records(&scene.gateway.path(RECORDS)).len(), 1);
}

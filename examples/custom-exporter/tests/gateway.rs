//! The gateway that this example builds, as a process: its commands know the exporter's settings, records reach it, its
//! counter is on the metrics page.

use std::process::Output;
use std::sync::Arc;

use magicapi_mock::{MockOptions, MockServer};
use magicapi_testkit::asked::Asked;
use magicapi_testkit::wire::until;
use magicapi_testkit::{Gateway, GatewayOptions};
use serde_json::{Value, json};
use std::sync::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// The configuration file that the guide shows.
const FILE: &str = include_str!("../gateway.yaml");
const TOKEN: &str = "canary-token";

fn my_gateway() -> GatewayOptions {
    GatewayOptions::new(env!("CARGO_BIN_EXE_my-gateway"))
}

fn with_file(file: &str) -> GatewayOptions {
    let variables =
        [("OPENAI_API_KEY", "sk-ours"), ("ACME_URL", "http://acme.example/in"), ("ACME_TOKEN", TOKEN)];
    my_gateway().config(file).envs(&variables)
}

/// What a command said, with the file's name alone.
fn said(output: &Output, file: &GatewayOptions) -> String {
    let (_, directory) = file.command();
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    text.replace(&format!("{}/", directory.path().display()), "")
}

/// The text of a command that a file keeps from succeeding.
fn refused(file: &str) -> String {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let options = with_file(file).arg("check").data_dir(&directory);
    let output = options.output();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    said(&output, &options)
}

#[test]
fn check_takes_the_file_of_the_guide() {
    let output = with_file(FILE).arg("check").output();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn an_unknown_setting_is_refused_with_its_place_and_the_nearest_name() {
    let text = refused(&FILE.replace("      url: ", "      ulr: "));
    assert_eq!(text, include_str!("golden/unknown_key.txt"));
}

#[test]
fn a_value_that_the_plug_in_refuses_has_its_place_too() {
    let text = refused(&FILE.replace("\"${ACME_URL}\"", "not an address"));
    assert_eq!(text, include_str!("golden/refused_value.txt"));
}

#[test]
fn the_schema_has_its_settings() {
    let output = my_gateway().arg("schema").output();
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    let variants = schema.pointer("/properties/telemetry/properties/exporters/items/oneOf").unwrap();
    let acme = variants.as_array().unwrap().iter().find(|variant| variant["title"] == "acme").unwrap();
    assert_eq!(acme["properties"]["url"]["description"], "Where documents are posted; required.");
    assert_eq!(acme["properties"]["token"]["format"], "secret");
}

#[test]
fn the_list_of_exporters_names_it() {
    let output = my_gateway().arg("exporters").arg("list").output();
    assert!(String::from_utf8_lossy(&output.stdout).contains("acme"), "{output:?}");
}

#[test]
fn config_masks_its_secret() {
    let output = with_file(FILE).arg("config").output();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("http://acme.example/in") && !text.contains(TOKEN), "{text}");
}

#[test]
fn enabled_exporters_knows_its_name_and_its_variables() {
    let by_variables = |list: &str| {
        let variables =
            [("ENABLED_EXPORTERS", list), ("ACME_URL", "http://acme.example/in"), ("ACME_TOKEN", TOKEN)];
        my_gateway().envs(&variables).arg("check").output()
    };
    assert!(by_variables("prometheus,acme").status.success());
    let output = by_variables("prometheus,acne");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("unknown exporter `acne`") && text.contains("acme"), "{text}");
}

/// Acme itself: keeps what was posted, with its token. Over the first document of the user `slow` it falls silent.
async fn acme() -> (String, Arc<Mutex<Vec<(String, Value)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let kept = taken.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let kept = kept.clone();
            tokio::spawn(async move {
                let mut received = Vec::new();
                while let Some(asked) = Asked::read(&mut socket, &mut received).await {
                    let document = asked.json();
                    let is_slow = document["attributes"]["user_id"] == "slow";
                    let is_new = !kept.lock().unwrap().iter().any(|(_, known)| *known == document);
                    kept.lock().unwrap().push((asked.header("authorization").to_owned(), document));
                    if is_slow && is_new {
                        std::future::pending::<()>().await;
                    }
                    let _ = socket.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    (url, taken)
}

/// The gateway of the guide before an Acme.
async fn started(file: &str) -> (Gateway, MockServer, Arc<Mutex<Vec<(String, Value)>>>) {
    let mock = MockServer::start(MockOptions::default()).await.unwrap();
    let (url, taken) = acme().await;
    let variables = [
        ("OPENAI_API_KEY", "sk-ours"),
        ("OPENAI_BASE_URL", &mock.base_url()),
        ("ACME_URL", &url),
        ("ACME_TOKEN", TOKEN),
    ];
    (Gateway::start(my_gateway().config(file).envs(&variables)).await, mock, taken)
}

#[tokio::test]
async fn records_reach_it_and_its_counter_is_on_the_page() {
    let (gateway, _mock, taken) = started(FILE).await;
    for _ in 0..3 {
        assert_eq!(gateway.ask(&json!({}), &[]).await.status, 200);
    }
    let page = until("three documents on the page", async || {
        let page = gateway.admin("/metrics").await.text();
        page.contains("acme_documents_total{streamed=\"no\"} 3").then_some(page)
    })
    .await;
    assert!(page.contains("# TYPE acme_documents_total counter"), "{page}");
    let taken = taken.lock().unwrap();
    for (authorization, document) in &*taken {
        assert_eq!(authorization, &format!("Bearer {TOKEN}"));
        assert_eq!(document["name"], "ai_gateway_request_log");
        assert_eq!(document["attributes"]["request"]["messages"][0]["role"], "user");
    }
    assert_eq!(taken.len(), 3);
}

/// One batch, of which the third record hangs until the export is cut off: those before it are there once, and those
/// behind it do not wait for it.
#[tokio::test]
async fn an_export_that_is_cut_off_sends_nothing_again_but_what_hung() {
    let (gateway, _mock, taken) = started(
        &FILE
            .replace("age: 100ms", "records: 5, age: 10m")
            .replace("content: no_chunks", "timeout: 500ms\n      content: no_chunks"),
    )
    .await;
    for user in ["a", "b", "slow", "d", "e"] {
        assert_eq!(gateway.ask(&json!({}), &[("x-user-id", user)]).await.status, 200);
    }
    until("five documents on the page", async || {
        let page = gateway.admin("/metrics").await.text();
        page.contains("acme_documents_total{streamed=\"no\"} 5").then_some(())
    })
    .await;
    let taken = taken.lock().unwrap();
    let users: Vec<_> =
        taken.iter().map(|(_, document)| document["attributes"]["user_id"].as_str().unwrap()).collect();
    assert_eq!(users, ["a", "b", "slow", "d", "e", "slow"]);
}

//! Starts that must fail: exit status 2 and a text that says what to change.

use serde_json::json;

use crate::assert_golden;
use crate::scene::{BINARY, refusal};
use magicapi_testkit::GatewayOptions;

/// Without the directory of this run, which differs.
fn assert_start(name: &str, options: &GatewayOptions) {
    let (mut command, directory) = options.command();
    let output = command.output().expect("the binary");
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.replace(&directory.path().display().to_string(), "<dir>");
    assert_eq!(output.status.code(), Some(2), "{name}: {said}");
    assert_golden(name, &format!("exit status 2\n\n{said}"));
}

#[test]
fn a_wrong_configuration() {
    let yaml =
        "server:\n  listn: \"127.0.0.1:3000\"\n  heartbeat: fast\nproviders:\n  grok: { api_key: k }\n";
    assert_start("config_wrong", &GatewayOptions::new(BINARY).config(yaml));
    let broken = "server:\n  listen: [ \"127.0.0.1:3000\"\nauth: {}\n";
    assert_start("config_broken_yaml", &GatewayOptions::new(BINARY).config(broken));
    assert_start("config_missing_file", &GatewayOptions::new(BINARY).arg("--config").arg("nowhere.yaml"));
    assert_start("config_bad_port", &GatewayOptions::new(BINARY).env("PORT", "http"));
    let exporters = GatewayOptions::new(BINARY).env("ENABLED_EXPORTERS", "prometheus,elasticsaerch");
    assert_start("config_unknown_exporter", &exporters);
    let file = GatewayOptions::new(BINARY).env("ENABLED_EXPORTERS", "file");
    assert_start("config_exporter_without_variable", &file);
}

#[test]
fn beyond_loopback_without_keys() {
    let open = GatewayOptions::new(BINARY).env("HOST", "0.0.0.0").env("OPENAI_API_KEY", "sk-very-secret");
    assert_start("beyond_loopback_without_keys", &open);
    let said = refusal(&json!({}), &[("HOST", "0.0.0.0"), ("OPENAI_API_KEY", "sk-very-secret")]);
    assert!(!said.contains("sk-very-secret"), "{said}");
    let admin = GatewayOptions::new(BINARY).env("ADMIN_LISTEN", "0.0.0.0:0");
    assert_start("admin_beyond_loopback_without_token", &admin);
    assert_start("keys_without_keys", &GatewayOptions::new(BINARY).config("auth: { mode: keys }\n"));
}

#[test]
fn an_address_that_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let options =
        GatewayOptions::new(BINARY).env("HOST", "127.0.0.1").env("PORT", port).env("RUST_LOG", "off");
    let said = String::from_utf8_lossy(&options.output().stderr).into_owned();
    assert_start("address_taken", &options);
    assert!(said.contains("PORT or `server.listen`"), "{said}");
}

#[test]
fn an_admin_address_that_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let options = GatewayOptions::new(BINARY).env("ADMIN_LISTEN", address).env("RUST_LOG", "off");
    assert_start("admin_address_taken", &options);
}

#[test]
fn one_address_for_both_planes() {
    let options = || GatewayOptions::new(BINARY).env("PORT", "3011").env("ADMIN_LISTEN", "127.0.0.1:3011");
    assert_start("one_address_for_both_planes", &options());
    assert_eq!(options().arg("check").output().stderr, options().output().stderr);
}

#[test]
fn certificates_that_cannot_be_used() {
    let yaml = "upstream:\n  tls:\n    ca_file: absent.pem\n";
    assert_start("ca_file_absent", &GatewayOptions::new(BINARY).arg("check").config(yaml));
    let yaml = "upstream: { tls: { ca_file: gateway.yaml } }\n";
    assert_start("ca_file_empty", &GatewayOptions::new(BINARY).arg("check").config(yaml));
    let variable = GatewayOptions::new(BINARY).arg("check").env("SSL_CERT_FILE", "absent.pem");
    assert_start("ca_file_of_a_variable", &variable);
}

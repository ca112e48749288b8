//! The suite that every exporter should pass, and a look at what was sent.

use http::Response;
use magicapi_compliance::{Backend, records};
use magicapi_plugin::{Delivery, TelemetryPlugin};
use my_exporter::AcmePlugin;
use serde_json::{Value, json};

#[test]
fn acme_complies() {
    magicapi_compliance::check(&AcmePlugin, json!({"url": "http://{address}/in", "token": "canary-token"}));
}

#[tokio::test]
async fn acme_gets_each_record_with_the_token() {
    let backend = Backend::answering(|_| Response::new("taken".into()));
    let settings = json!({"url": "http://acme/in", "token": "canary-token"});
    let exporter = AcmePlugin.create_exporter(settings.into(), backend.host()).unwrap();
    assert!(matches!(exporter.export(&records::batch(2)).await, Delivery::Items(items) if items.len() == 2));
    let [first, _] = backend.requests().try_into().unwrap();
    assert_eq!(first.headers()["authorization"], "Bearer canary-token");
    let document: Value = serde_json::from_slice(first.body()).unwrap();
    assert_eq!(document["attributes"]["provider"], "openai");
}

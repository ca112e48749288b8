//! The data plane's face asks for admission.

use std::sync::Arc;

use http::HeaderMap;
use magicapi_kernel::{Admitted, BaseUrl, Credential, OnClientGone, Provider, Quirks};
use magicapi_model::Secret;

use super::{OK, Server, answer_all, client, post, text};
use crate::ClientOptions;

struct Stub(BaseUrl, Quirks);

impl Provider for Stub {
    fn name(&self) -> &'static str {
        "stub"
    }
    fn catalogue_name(&self) -> &'static str {
        "stub"
    }
    fn base_url(&self) -> &BaseUrl {
        &self.0
    }
    fn gateway_key(&self) -> Option<&Secret> {
        None
    }
    fn needs_key(&self) -> bool {
        false
    }
    fn authorize(&self, _: &Credential, _: &mut HeaderMap) {}
    fn quirks(&self) -> &Quirks {
        &self.1
    }
    fn on_client_gone(&self) -> OnClientGone {
        OnClientGone::Cancel
    }
    fn trace(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn an_admitted_request_is_sent() {
    let server = Server::start(|io, _| answer_all(io, OK)).await;
    let base = BaseUrl::parse(&server.url("")).expect("base URL");
    #[expect(clippy::disallowed_methods, reason = "a test admits itself")]
    let admitted = Admitted::new(Arc::new(Stub(base, Quirks::default())), None);
    let response = client(ClientOptions::default()).send(&admitted, post(&server.url("/x"), "{}")).await;
    assert_eq!(text(response.expect("answer")).await.expect("body"), "ok");
}

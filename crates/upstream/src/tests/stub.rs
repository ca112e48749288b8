//! A provider that is only an address, and the admission of requests to it.

use std::sync::Arc;

use http::HeaderMap;
use magicapi_kernel::{Admitted, BaseUrl, Credential, OnClientGone, Provider, Quirks};
use magicapi_model::Secret;

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

#[expect(clippy::disallowed_methods, reason = "tests and measurements admit themselves")]
pub(super) fn admitted(url: &str) -> Result<Admitted, String> {
    Ok(Admitted::new(Arc::new(Stub(BaseUrl::parse(url)?, Quirks::default())), None))
}

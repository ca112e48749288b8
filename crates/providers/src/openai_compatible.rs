//! The provider that speaks OpenAI's dialect: a catalogue row joined with the operator's settings.
//!
//! Built when a configuration snapshot is; the server then asks it for address, credential form and quirks.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use magicapi_kernel::{BaseUrl, Credential, OnClientGone, Provider, Quirks};
use magicapi_model::Secret;

use crate::Row;
use crate::auth::{CredentialHeader, check_key};
use crate::prices::price_names;

/// What [`build`] joins.
pub struct ProviderSetup {
    /// The catalogue's name, or the operator's for an entry of the file.
    pub name: String,
    /// The row it is of.
    pub row: &'static Row,
    /// The operator's address instead of the row's.
    pub base_url: Option<String>,
    /// The gateway's key.
    pub api_key: Option<Secret>,
    /// What happens to the upstream when the client leaves.
    pub on_client_gone: OnClientGone,
    /// Whether `traceparent` and `tracestate` are sent on.
    pub trace: bool,
}

/// An OpenAI-compatible provider, ready for requests.
struct OpenAiCompatible {
    name: String,
    row: &'static Row,
    base_url: BaseUrl,
    api_key: Option<Secret>,
    needs_key: bool,
    credential_header: CredentialHeader,
    quirks: Quirks,
    on_client_gone: OnClientGone,
    trace: bool,
}

/// Joins a row and settings. The error names field and remedy, and never shows a key.
pub fn build(entry: ProviderSetup) -> Result<Arc<dyn Provider>, String> {
    let ProviderSetup { name, row, base_url, api_key, on_client_gone, trace } = entry;
    // `OPENAI_API_KEY=` and `OPENAI_BASE_URL=` in a container's settings mean that there is none.
    let api_key = api_key.filter(|key| !key.is_empty());
    let base_url = base_url.filter(|text| !text.is_empty());
    let text = base_url.as_deref().or(row.base_url.as_deref()).ok_or_else(|| {
        format!("base_url is not set; {} has no common one: set it or {}", row.title, row.base_url_env)
    })?;
    // The address is not repeated: what is wrong with it may be a password.
    let base_url = BaseUrl::parse(text).map_err(|e| format!("base_url: {e}"))?;
    if let Some(key) = &api_key {
        let variable = row.key_env.as_ref().filter(|_| name == row.name);
        let or_variable = variable.map(|variable| format!(" (or {variable})")).unwrap_or_default();
        check_key(key).map_err(|e| format!("api_key{or_variable}: {e}"))?;
    }
    Ok(Arc::new(OpenAiCompatible {
        needs_key: row.needs_key && is_rows_own(row, &base_url),
        credential_header: CredentialHeader::new(&row.auth)?,
        quirks: row.quirks()?,
        name,
        row,
        base_url,
        api_key,
        on_client_gone,
        trace,
    }))
}

/// Whether a key can be demanded at this address: at the row's own, and wherever the row has none of its own. Elsewhere
/// (`type: openai` with a local server's `base_url`, a company's proxy) it is for that server to ask for one.
fn is_rows_own(row: &Row, base_url: &BaseUrl) -> bool {
    row.base_url.as_deref().is_none_or(|own| BaseUrl::parse(own).as_ref() == Ok(base_url))
}

impl Provider for OpenAiCompatible {
    fn name(&self) -> &str {
        &self.name
    }

    fn catalogue_name(&self) -> &str {
        &self.row.name
    }

    fn price_names(&self, model: &str) -> Vec<String> {
        price_names(&self.row.name, model).map(Cow::into_owned).collect()
    }

    fn base_url(&self) -> &BaseUrl {
        &self.base_url
    }

    fn gateway_key(&self) -> Option<&Secret> {
        self.api_key.as_ref()
    }

    fn needs_key(&self) -> bool {
        self.needs_key
    }

    /// Sets the chosen credential and removes every other. A key that no header can hold is left out.
    fn authorize(&self, credential: &Credential, headers: &mut HeaderMap) {
        self.credential_header.put(credential, headers);
    }

    fn quirks(&self) -> &Quirks {
        &self.quirks
    }

    fn on_client_gone(&self) -> OnClientGone {
        self.on_client_gone
    }

    fn trace(&self) -> bool {
        self.trace
    }

    /// The row's variable belongs to the entry of the row's own name.
    fn key_setting(&self) -> String {
        match &self.row.key_env {
            Some(variable) if self.name == self.row.name => variable.clone(),
            _ => format!("providers.{}.api_key", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderMap;
    use magicapi_kernel::{Credential, OnClientGone, Provider, UsageInStreams};
    use magicapi_model::Secret;

    use super::{ProviderSetup, build};
    use crate::{catalogue, row};

    fn setup(row_name: &str, base_url: Option<&str>, api_key: Option<&str>) -> ProviderSetup {
        ProviderSetup {
            name: row_name.to_owned(),
            row: row(row_name).expect("a row"),
            base_url: base_url.map(str::to_owned),
            api_key: api_key.map(Secret::new),
            on_client_gone: OnClientGone::Cancel,
            trace: false,
        }
    }

    fn error(setup: ProviderSetup) -> String {
        build(setup).err().expect("an error")
    }

    #[test]
    fn every_row_builds() {
        for row in catalogue().expect("the catalogue") {
            let base_url = row.base_url.is_none().then_some("https://r.openai.azure.com/openai/v1");
            let provider = build(setup(&row.name, base_url, Some("key"))).expect("a provider");
            assert_eq!(provider.catalogue_name(), row.name);
            assert_eq!(provider.needs_key(), row.needs_key);
            assert_eq!(provider.gateway_key().map(Secret::expose), Some("key"));
            let uri = provider.base_url().join("/chat/completions", None).expect("an address");
            assert!(uri.path().ends_with("/chat/completions"), "{uri}");
            assert_eq!(provider.base_url().is_tls(), row.needs_key, "{}", row.name);
        }
    }

    #[test]
    fn an_empty_setting_is_none() {
        let provider = build(setup("openai", Some(""), Some(""))).expect("a provider");
        assert!(provider.gateway_key().is_none() && provider.needs_key());
    }

    #[test]
    fn quirks_come_from_the_row() {
        let mistral = build(setup("mistral", None, None)).expect("a provider");
        let quirks = mistral.quirks();
        let renames = [("max_completion_tokens", "max_tokens"), ("seed", "random_seed")];
        assert_eq!(quirks.rename, renames.map(|(from, to)| (from.to_owned(), to.to_owned())));
        assert_eq!(quirks.usage_in_streams, UsageInStreams::Always);
        assert!(quirks.drop.iter().any(|name| name == "stream_options"));
        assert!(!mistral.trace() && mistral.on_client_gone() == OnClientGone::Cancel);
    }

    #[test]
    fn a_file_entry_has_its_own_name_and_a_foreign_address_demands_no_key() {
        let mut local = setup("openai", Some("http://127.0.0.1:8000/v1"), None);
        "local".clone_into(&mut local.name);
        let local = build(local).expect("a provider");
        assert_eq!((local.name(), local.catalogue_name()), ("local", "openai"));
        assert!(!local.needs_key());
        let same = build(setup("openai", Some("https://api.openai.com/v1/"), None)).expect("a provider");
        assert!(same.needs_key(), "the row's own address, written with a slash");
    }

    #[test]
    fn authorize_uses_the_rows_header() {
        let header = |provider: &Arc<dyn Provider>| {
            let mut headers = HeaderMap::new();
            provider.authorize(&Credential::Caller(Secret::new("k")), &mut headers);
            assert_eq!(headers.len(), 1);
            headers.keys().next().expect("one").to_string()
        };
        let azure = setup("azure", Some("https://r.openai.azure.com/openai/v1"), None);
        assert_eq!(header(&build(azure).expect("azure")), "api-key");
        assert_eq!(header(&build(setup("groq", None, None)).expect("groq")), "authorization");
    }

    #[test]
    fn errors_name_field_and_remedy_and_no_key() {
        assert_eq!(
            error(setup("azure", None, Some("k"))),
            "base_url is not set; Azure OpenAI has no common one: set it or AZURE_BASE_URL"
        );
        let text = error(setup("ollama", Some("localhost:11434"), None));
        assert!(text.starts_with("base_url: "), "{text}");
        assert!(text.contains("expected http:// or https://"), "{text}");
        let text = error(setup("vllm", Some("http://me:secret@host/v1"), None));
        assert!(text.contains("set the provider's key") && !text.contains("secret"), "{text}");
        let text = error(setup("groq", None, Some("gsk secret")));
        assert!(text.starts_with("api_key (or GROQ_API_KEY): ") && !text.contains("secret"), "{text}");
    }
}

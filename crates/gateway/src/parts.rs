//! From a configuration to the parts of a snapshot: providers, keys, prices, the HTTP client.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use magicapi_config::{Config, Loaded, OnClientGone, ProviderEntry};
use magicapi_kernel::{Access, Provider};
use magicapi_model::price::PriceTable;
use magicapi_policies::{KeyEntry, VirtualKeys, parse_hash};
use magicapi_providers::{ProviderSetup, Row};
use magicapi_server::{ProviderSlot, Snapshot};
use magicapi_upstream::{Client, ClientOptions, ProxySettings};

/// What keeps a configuration from being used, in a sentence for the operator.
pub(crate) type Problem = String;

/// Builds the snapshot. Reads the files that the configuration names; opens no connection.
pub(crate) fn snapshot(loaded: &Loaded) -> Result<Snapshot, Problem> {
    let client = Client::new(client_options(loaded)?).map_err(|error| error.message)?;
    let prices = Arc::new(prices(loaded)?);
    let access = access(&loaded.config)?;
    let slots = slots(&loaded.config)?;
    Ok(Snapshot::new(Arc::new(loaded.config.clone()), access, prices, client, slots))
}

/// How this process reaches others: the data plane and each exporter make a client of their own from it.
pub(crate) fn client_options(loaded: &Loaded) -> Result<ClientOptions, Problem> {
    let upstream = &loaded.config.upstream;
    let proxy = |name: &str, text: &Option<String>| {
        let parsed = text.as_deref().map(str::parse::<http::Uri>).transpose();
        parsed.map_err(|error| format!("{name}: not the address of a proxy: {error}"))
    };
    let extra_ca_pem = match &upstream.ca_file {
        None => Vec::new(),
        Some(path) => vec![ca(path).map_err(|problem| {
            let problem = loaded.problem("upstream.tls.ca_file", format!("{}: {problem}", path.display()));
            problem.remedy("name a PEM file of this machine, or leave it out").to_string()
        })?],
    };
    Ok(ClientOptions {
        connect_timeout: loaded.config.timeouts.connect,
        proxy: ProxySettings {
            http: proxy("HTTP_PROXY", &upstream.http_proxy)?,
            https: proxy("HTTPS_PROXY", &upstream.https_proxy)?,
            no_proxy: upstream.no_proxy.clone(),
        },
        extra_ca_pem,
        ..ClientOptions::default()
    })
}

/// A file of trusted certificates.
fn ca(path: &Path) -> Result<Vec<u8>, String> {
    let pem = fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    magicapi_upstream::check_ca(&pem)?;
    Ok(pem)
}

/// The models table, with the operator's rows laid over it.
fn prices(loaded: &Loaded) -> Result<PriceTable, Problem> {
    let table = built_in_prices()?;
    let Some(path) = &loaded.config.prices.file else { return Ok(table) };
    let problem = |text: String| loaded.problem("prices.file", format!("{}: {text}", path.display()));
    let lines = fs::read_to_string(path).map_err(|error| {
        let problem = problem(format!("cannot be read: {error}"));
        problem.remedy("name a file of this machine, or leave the key out").to_string()
    })?;
    let version = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    table.overlay(&lines, &version).map_err(|error| problem(error.to_string()).to_string())
}

/// The models table as it is compiled in.
pub(crate) fn built_in_prices() -> Result<PriceTable, Problem> {
    PriceTable::parse(magicapi_providers::prices(), magicapi_providers::PRICES_VERSION)
        .map_err(|error| format!("built-in models table: {error}"))
}

fn access(config: &Config) -> Result<Arc<dyn Access>, Problem> {
    let entries = config.auth.keys.iter().map(|key| {
        let hash = parse_hash(&key.hash).map_err(|error| format!("auth.keys: `{}`: {error}", key.name))?;
        Ok(KeyEntry {
            name: key.name.clone(),
            hash,
            project: key.project.clone(),
            models: key.models.clone(),
        })
    });
    let keys = VirtualKeys::new(entries.collect::<Result<_, Problem>>()?);
    Ok(Arc::new(keys.map_err(|error| format!("auth.keys: {error}"))?))
}

/// Every name that a request may carry: the configured entries, and the rest of the catalogue for callers who bring
/// their own key.
fn slots(config: &Config) -> Result<Vec<ProviderSlot>, Problem> {
    let mut slots = Vec::new();
    let mut named = HashSet::new();
    for entry in &config.providers {
        let row = magicapi_providers::row(&entry.catalogue).ok_or_else(|| {
            format!("providers.{}: the type `{}` is not in the catalogue", entry.name, entry.catalogue)
        })?;
        let provider = build(entry, row).map_err(|error| format!("providers.{}: {error}", entry.name))?;
        named.insert(entry.name.clone());
        slots.push(ProviderSlot::new(entry.name.clone(), Ok(provider), true));
    }
    let rows = magicapi_providers::catalogue().map_err(str::to_owned)?;
    for row in rows.iter().filter(|row| !named.contains(&row.name)) {
        slots.push(ProviderSlot::new(row.name.clone(), unconfigured(row), false));
    }
    Ok(slots)
}

fn build(entry: &ProviderEntry, row: &'static Row) -> Result<Arc<dyn Provider>, String> {
    magicapi_providers::build(ProviderSetup {
        name: entry.name.clone(),
        row,
        base_url: entry.base_url.clone(),
        api_key: entry.api_key.clone(),
        on_client_gone: match entry.on_client_gone {
            OnClientGone::Cancel => magicapi_kernel::OnClientGone::Cancel,
            OnClientGone::Drain => magicapi_kernel::OnClientGone::Drain,
        },
        trace: entry.trace,
    })
}

/// A provider that nobody set up. Hosted ones serve callers with their own key; a local server or one without a fixed
/// address does not exist until somebody says where it is.
fn unconfigured(row: &'static Row) -> Result<Arc<dyn Provider>, String> {
    if row.base_url.is_none() || !row.needs_key {
        return Err(format!("set `{}` to its address", row.base_url_env));
    }
    magicapi_providers::build(ProviderSetup {
        name: row.name.clone(),
        row,
        base_url: None,
        api_key: None,
        on_client_gone: magicapi_kernel::OnClientGone::Cancel,
        trace: false,
    })
}

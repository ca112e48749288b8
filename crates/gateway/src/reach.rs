//! From the configuration's words on how an exporter reaches its back end to the client that does.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Uri};
use magicapi_config::{ExporterEntry, Reach, ReachAuth, ReachProxy};
use magicapi_plugin::ConfigError;
use magicapi_upstream::{ClientOptions, ExporterOptions, Identity, ProxySettings, check_ca, check_identity};

/// How the exporter's requests are sent; `shared` is how providers are reached. Reads the files that are named.
pub(crate) fn options(entry: &ExporterEntry, shared: &ClientOptions) -> Result<ExporterOptions, ConfigError> {
    let Reach { ca_file, identity, server_name, proxy, auth } = &entry.reach;
    let mut client = shared.clone();
    if let Some(path) = ca_file {
        let pem = read("tls.ca_file", path)?;
        check_ca(&pem).map_err(|problem| of_file("tls.ca_file", path, &problem))?;
        client.extra_ca_pem.push(pem);
    }
    if let Some((cert, key)) = identity {
        let read = Identity { cert_pem: read("tls.cert", cert)?, key_pem: read("tls.key", key)? };
        check_identity(&read).map_err(|problem| of_file("tls.cert", cert, &problem))?;
        client.identity = Some(read);
    }
    client.server_name.clone_from(server_name);
    match proxy {
        ReachProxy::Inherited => {}
        ReachProxy::Direct => client.proxy = ProxySettings::default(),
        ReachProxy::Url(url) => {
            // Not shown: it may hold a password.
            let url: Uri = url.expose().parse().map_err(|_| ConfigError::new("proxy", "not a URL"))?;
            client.proxy = ProxySettings { http: Some(url.clone()), https: Some(url), no_proxy: Vec::new() };
        }
    }
    let header = auth.as_ref().map(header).transpose()?;
    // `init` has a longer time of its own, and asks over the same client.
    let timeout = entry.pipeline.timeout.max(entry.pipeline.init_timeout);
    Ok(ExporterOptions { client, header, timeout })
}

/// The header that carries a credential.
fn header(auth: &ReachAuth) -> Result<(HeaderName, HeaderValue), ConfigError> {
    let (key, name, value) = match auth {
        ReachAuth::Basic { username, password } => {
            let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
            ("auth.basic", AUTHORIZATION, format!("Basic {pair}"))
        }
        ReachAuth::Bearer(token) => ("auth.bearer", AUTHORIZATION, format!("Bearer {}", token.expose())),
        ReachAuth::Header { name, value } => {
            let name = name.parse().map_err(|_| {
                ConfigError::new("auth.header.name", format!("`{name}` is no name of a header"))
            })?;
            ("auth.header.value", name, value.expose().to_owned())
        }
    };
    let mut value = HeaderValue::try_from(value).map_err(|_| {
        ConfigError::new(key, "holds what no header can: expected printable ASCII on one line")
    })?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    fs::read(path).map_err(|error| {
        of_file(key, path, &format!("cannot be read: {error}; name a PEM file of this machine"))
    })
}

fn of_file(key: &str, path: &Path, problem: &str) -> ConfigError {
    ConfigError::new(key, format!("{}: {problem}", path.display()))
}

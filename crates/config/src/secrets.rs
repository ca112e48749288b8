//! Every secret that a configuration holds, for those who must keep them out of what they write.

use magicapi_model::Secret;
use magicapi_plugin::Sight;
use serde_json::Value;

use crate::address;
use crate::catalogue::Catalogue;
use crate::resolve::pairs;
use crate::types::{Config, ExporterEntry, Reach, ReachAuth, ReachProxy};

impl Config {
    /// Keys, tokens and passwords: of providers, exporters, proxies, the admin plane, redaction. Of an exporter's settings
    /// those that its plug-in calls secrets, and the values of mappings without keys of their own, which are headers; of
    /// both also what may stand alone elsewhere: a password in an address, the values in a list of headers.
    pub fn secrets(&self, catalogue: &Catalogue) -> Vec<Secret> {
        let mut secrets = Vec::new();
        secrets.extend(self.admin.token.clone());
        secrets.extend(self.telemetry.redaction.hash_key.clone());
        for provider in &self.providers {
            secrets.extend(provider.api_key.clone());
            secrets.extend(provider.base_url.as_deref().into_iter().flat_map(of_address));
        }
        let upstream = &self.upstream;
        let proxies = [&upstream.proxy, &upstream.http_proxy, &upstream.https_proxy];
        secrets.extend(proxies.into_iter().filter_map(Option::as_deref).flat_map(of_address));
        self.telemetry.exporters.iter().for_each(|entry| of_exporter(entry, catalogue, &mut secrets));
        secrets
    }
}

fn of_exporter(entry: &ExporterEntry, catalogue: &Catalogue, secrets: &mut Vec<Secret>) {
    on_the_way(&entry.reach, secrets);
    for (name, value) in entry.settings.values() {
        let mut collect = |value: &Value, sight| {
            if let Some(text) = value.as_str() {
                secrets.extend(if sight == Sight::Open { of_address(text) } else { of_secret(text) });
            }
            Value::Null
        };
        catalogue.map_values(&entry.kind, (name, value), &mut collect);
    }
}

fn on_the_way(reach: &Reach, secrets: &mut Vec<Secret>) {
    match &reach.auth {
        Some(ReachAuth::Basic { password, .. }) => secrets.push(password.clone()),
        Some(ReachAuth::Bearer(secret)) => secrets.push(secret.clone()),
        Some(ReachAuth::Header { value, .. }) => secrets.extend(of_secret(value.expose())),
        None => {}
    }
    if let ReachProxy::Url(url) = &reach.proxy {
        secrets.extend(of_address(url.expose()));
    }
}

/// A text that is a secret as a whole, and what of it is one by itself.
fn of_secret(text: &str) -> Vec<Secret> {
    let mut secrets = vec![Secret::new(text)];
    secrets.extend(behind_scheme(text).map(Secret::new));
    secrets.extend(of_address(text));
    // `name=value,name=value`, as OpenTelemetry has headers; what has no such names is none.
    let is_name =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let list = pairs(text).ok().filter(|list| list.iter().all(|(name, _)| is_name(name)));
    for (_, value) in list.unwrap_or_default() {
        secrets.push(Secret::new(behind_scheme(&value).unwrap_or(&value)));
    }
    secrets
}

/// What stands behind `Bearer`, `Basic` or whichever scheme.
fn behind_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.trim().split_once(' ')?;
    let rest = rest.trim_start();
    let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (is_scheme && !rest.contains(' ')).then_some(rest)
}

fn of_address(text: &str) -> Vec<Secret> {
    address::secrets(text).into_iter().map(Secret::new).collect()
}

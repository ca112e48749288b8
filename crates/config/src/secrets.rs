//! Every secret that a configuration holds, for those who must keep them out of what they write.

use magicapi_model::Secret;
use magicapi_plugin::Sight;
use serde_json::Value;

use crate::catalogue::Catalogue;
use crate::types::{Config, ExporterEntry, Reach, ReachAuth, ReachProxy};

impl Config {
    /// Keys, tokens and passwords: of providers, exporters, proxies, the admin plane, redaction. Of an exporter's settings
    /// those that its plug-in calls secrets, and the values of mappings without keys of their own, which are headers.
    pub fn secrets(&self, catalogue: &Catalogue) -> Vec<Secret> {
        let mut secrets = Vec::new();
        secrets.extend(self.admin.token.clone());
        secrets.extend(self.telemetry.redaction.hash_key.clone());
        for provider in &self.providers {
            secrets.extend(provider.api_key.clone());
            secrets.extend(provider.base_url.as_deref().and_then(password));
        }
        let upstream = &self.upstream;
        let proxies = [&upstream.proxy, &upstream.http_proxy, &upstream.https_proxy];
        secrets.extend(proxies.into_iter().filter_map(|proxy| proxy.as_deref().and_then(password)));
        self.telemetry.exporters.iter().for_each(|entry| of_exporter(entry, catalogue, &mut secrets));
        secrets
    }
}

fn of_exporter(entry: &ExporterEntry, catalogue: &Catalogue, secrets: &mut Vec<Secret>) {
    on_the_way(&entry.reach, secrets);
    for (name, value) in entry.settings.values() {
        let mut collect = |value: &Value, sight| {
            if let Some(text) = value.as_str() {
                secrets.extend(if sight == Sight::Open { password(text) } else { Some(Secret::new(text)) });
            }
            Value::Null
        };
        catalogue.map_values(&entry.kind, (name, value), &mut collect);
    }
}

fn on_the_way(reach: &Reach, secrets: &mut Vec<Secret>) {
    secrets.extend(match &reach.auth {
        Some(ReachAuth::Basic { password, .. }) => Some(password.clone()),
        Some(ReachAuth::Bearer(secret) | ReachAuth::Header { value: secret, .. }) => Some(secret.clone()),
        None => None,
    });
    if let ReachProxy::Url(url) = &reach.proxy {
        secrets.extend(password(url.expose()));
    }
}

/// The password in `http://user:password@host`.
fn password(url: &str) -> Option<Secret> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    Some(Secret::new(password))
}

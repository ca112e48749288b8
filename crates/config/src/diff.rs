//! What a reload cannot change.

use crate::catalogue::Catalogue;
use crate::effective::values;
use crate::schema::restart_keys;
use crate::types::Config;

/// The admin plane's token: a secret, so that its value does not stand among the effective ones.
const TOKEN: &str = "admin.token";

/// The keys that differ but take effect at the next start only. A reload keeps their old values and says so.
pub fn restart_only(old: &Config, new: &Config) -> Vec<String> {
    let other_token = old.admin.token != new.admin.token;
    let catalogue = Catalogue::default();
    let (old, new) = (values(old, &catalogue), values(new, &catalogue));
    let value = |list: &[(String, serde_json::Value)], key: &str| {
        list.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    };
    let differs = |key: &String| match key.as_str() {
        TOKEN => other_token,
        key => value(&old, key) != value(&new, key),
    };
    restart_keys().into_iter().filter(differs).collect()
}

/// Puts the old values of those keys into the new configuration, so that the rest of it can be used at once.
pub fn keep_restart_only(old: &Config, new: &mut Config) {
    new.server.listen = old.server.listen.clone();
    new.server.tls.clone_from(&old.server.tls);
    new.admin = old.admin.clone();
    new.data_dir.clone_from(&old.data_dir);
    new.store.url = old.store.url.clone();
    new.telemetry.threads = old.telemetry.threads;
    new.telemetry.metrics_interval = old.telemetry.metrics_interval;
    new.telemetry.config.service_name.clone_from(&old.telemetry.config.service_name);
}

//! What a reload cannot change.

use crate::catalogue::Catalogue;
use crate::effective::{self, Effective, Origin, values};
use crate::load::Loaded;
use crate::schema::restart_keys;
use crate::types::Config;

/// The admin plane's token: a secret, so that its value does not stand among the effective ones.
const TOKEN: &str = "admin.token";

impl Loaded {
    /// Puts back what only a restart changes, so that the rest can be used at once: `config`, `origins` and `hash` then
    /// say what will be in force. Returns the keys that were changed in vain.
    pub fn keep_restart_only(&mut self, in_force: &Self, catalogue: &Catalogue) -> Vec<String> {
        let refused = restart_only(&in_force.config, &self.config);
        put_back(&in_force.config, &mut self.config);
        let origin = |key: &str| {
            let source = if refused.iter().any(|refused| refused == key) { in_force } else { &*self };
            let found = source.origins.iter().find(|value: &&Effective| value.key == key);
            found.map_or(Origin::Default, |value| value.origin.clone())
        };
        self.origins = effective::with_origins(&self.config, catalogue, origin);
        self.hash = effective::hash(&self.origins);
        refused
    }
}

/// The keys that differ but take effect at the next start only.
fn restart_only(old: &Config, new: &Config) -> Vec<String> {
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

/// Puts the old values of those keys into the new configuration.
fn put_back(old: &Config, new: &mut Config) {
    new.server.listen = old.server.listen.clone();
    new.server.tls.clone_from(&old.server.tls);
    new.admin = old.admin.clone();
    new.data_dir.clone_from(&old.data_dir);
    new.store.url = old.store.url.clone();
    new.telemetry.durable = old.telemetry.durable;
    new.telemetry.threads = old.telemetry.threads;
    new.telemetry.metrics_interval = old.telemetry.metrics_interval;
    new.telemetry.config.service_name.clone_from(&old.telemetry.config.service_name);
}

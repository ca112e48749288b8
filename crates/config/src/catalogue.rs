//! What this build can do, handed in by the binary: configuration knows no provider and no plug-in by itself.

use magicapi_plugin::{SettingsSpec, Sight};
use serde_json::Value;

/// Providers and plug-ins of this build.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// The providers that may be configured.
    pub providers: Vec<ProviderSpec>,
    /// The exporters that are compiled in. `request_log` is never configured and may be left out.
    pub plugins: Vec<PluginSpec>,
    /// Why a rule of `auth.passthrough`, as method and path, can have no effect.
    pub useless_passthrough: Option<fn(&str, &str) -> Option<&'static str>>,
}

/// What configuration needs to know of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderSpec {
    /// Its name in the catalogue.
    pub name: &'static str,
    /// The variable that holds its key (`OPENAI_API_KEY`).
    pub key_env: Option<&'static str>,
    /// The variable that holds its address (`OPENAI_BASE_URL`).
    pub base_url_env: String,
    /// Its address; `None` = everybody has their own (`azure`), and it must be configured.
    pub default_base_url: Option<&'static str>,
    /// Whether it can be called with a key only.
    pub needs_key: bool,
}

/// What configuration needs to know of an exporter.
#[derive(Clone, Debug)]
pub struct PluginSpec {
    /// The word in `ENABLED_EXPORTERS` and in `type:`.
    pub name: &'static str,
    /// Its settings.
    pub settings: SettingsSpec,
}

impl PluginSpec {
    /// The variables that set something.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &str> {
        let tls = self.settings.tls().into_iter().flat_map(|tls| std::iter::once(tls).chain(tls.parts));
        let tls = tls.flat_map(|tls| tls.keys().map(|(_, variable)| variable));
        self.settings.keys().iter().filter_map(|key| key.env.as_deref()).chain(tls)
    }
}

impl Catalogue {
    /// The provider of this name.
    pub(crate) fn provider(&self, name: &str) -> Option<&ProviderSpec> {
        self.providers.iter().find(|spec| spec.name == name)
    }

    /// The exporter of this name, unless it is the built-in log, which nobody configures.
    pub(crate) fn plugin(&self, name: &str) -> Option<&PluginSpec> {
        self.plugins().find(|spec| spec.name == name)
    }

    /// A setting of the exporter `kind` with each single value replaced; nothing is known of one that is not here.
    pub(crate) fn map_values(
        &self,
        kind: &str,
        (name, value): (&str, &Value),
        of: &mut dyn FnMut(&Value, Sight) -> Value,
    ) -> Value {
        match self.plugin(kind) {
            Some(plugin) => plugin.settings.map_values(name, value, of),
            None => of(value, Sight::Secret),
        }
    }

    /// The exporters that a user may name.
    pub(crate) fn plugins(&self) -> impl Iterator<Item = &PluginSpec> {
        self.plugins.iter().filter(|spec| spec.name != REQUEST_LOG)
    }

    /// The variables of providers and plug-ins.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &str> {
        let keys = self.providers.iter().filter_map(|spec| spec.key_env);
        let urls = self.providers.iter().map(|spec| spec.base_url_env.as_str());
        keys.chain(urls).chain(self.plugins().flat_map(PluginSpec::variables))
    }
}

/// The embedded log: on by itself, off with `store.url: none`.
pub(crate) const REQUEST_LOG: &str = "request_log";

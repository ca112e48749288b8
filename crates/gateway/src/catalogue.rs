//! What this build can do: providers and plug-ins, as the configuration wants to know them.

use magicapi_config::{Catalogue, PluginSpec, ProviderSpec};

/// Why the build itself is not sound.
#[derive(Debug)]
pub(crate) struct Unsound(String);

impl std::fmt::Display for Unsound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the provider catalogue and the registered plug-ins, and compares these with the committed list.
pub(crate) fn catalogue() -> Result<Catalogue, Unsound> {
    let rows =
        magicapi_providers::catalogue().map_err(|error| Unsound(format!("provider catalogue: {error}")))?;
    let providers = rows
        .iter()
        .map(|row| ProviderSpec {
            name: &row.name,
            key_env: row.key_env.as_deref(),
            base_url_env: row.base_url_env.clone(),
            default_base_url: row.base_url.as_deref(),
            needs_key: row.needs_key,
        })
        .collect();
    let plugins = magicapi_plugin::plugins();
    let names: Vec<&str> = plugins.iter().map(|plugin| plugin.name()).collect();
    check_names(&names, magicapi_exporters::NAMES)?;
    let plugins = plugins
        .iter()
        .map(|plugin| PluginSpec { name: plugin.name(), settings: plugin.settings() })
        .collect();
    Ok(Catalogue { providers, plugins, useless_passthrough: Some(magicapi_server::useless_passthrough) })
}

/// A missing or doubled name means that the program was linked wrongly; names beyond the list are third parties'.
fn check_names(registered: &[&str], committed: &[&str]) -> Result<(), Unsound> {
    if let Some(missing) = committed.iter().find(|name| !registered.contains(name)) {
        return Err(Unsound(format!("the exporter `{missing}` is not linked in")));
    }
    if let Some(doubled) =
        registered.iter().find(|name| registered.iter().filter(|one| one == name).count() > 1)
    {
        return Err(Unsound(format!("two exporters are named `{doubled}`")));
    }
    for name in registered.iter().filter(|name| !committed.contains(name)) {
        tracing::info!(exporter = name, "third-party exporter");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{catalogue, check_names};

    #[test]
    fn this_build_is_sound() {
        let catalogue = catalogue().expect("sound");
        assert!(catalogue.plugins.len() >= magicapi_exporters::NAMES.len());
        assert!(catalogue.providers.iter().any(|provider| provider.name == "openai"));
    }

    #[test]
    fn missing_and_doubled_names_are_refused() {
        assert!(check_names(&["a"], &["a", "b"]).expect_err("missing").0.contains("`b`"));
        assert!(check_names(&["a", "a"], &["a"]).expect_err("doubled").0.contains("two exporters"));
        assert!(check_names(&["a", "mine"], &["a"]).is_ok());
    }
}

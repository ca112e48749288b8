//! Settings of the exporter `exec`, and what they mean once they have been checked.

use std::collections::BTreeMap;

use magicapi_plugin::{ConfigError, Secret};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::process::CommandLine;

/// Settings of the exporter `exec`. None has a variable: what is run stands in a file.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExecSettings {
    /// Program and arguments, run without a shell; required. A program without a slash is looked for in the `PATH` of
    /// `env`, else in /bin and /usr/bin.
    #[schemars(extend("x-as-written" = true))]
    pub command: Vec<String>,
    /// The child's environment, all of it; values are secrets.
    pub env: BTreeMap<String, Secret>,
}

impl ExecSettings {
    /// Checks everything that can be checked without running it.
    pub(super) fn validate(self) -> Result<CommandLine, ConfigError> {
        let mut words = self.command.into_iter();
        let program = words.next().filter(|program| !program.is_empty()).ok_or_else(|| {
            ConfigError::new(
                "command",
                "missing; expected program and arguments, as in [ python3, plugin.py ]",
            )
        })?;
        let arguments: Vec<String> = words.collect();
        if let Some(name) = self.env.keys().find(|name| name.is_empty() || name.contains('=')) {
            return Err(ConfigError::new(format!("env.{name}"), "is no name of a variable"));
        }
        Ok(CommandLine { program, arguments, env: self.env })
    }
}

//! The whole way from the sources to a `Config`.

use std::fs;
use std::path::{Path, PathBuf};

use magicapi_plugin::{ConfigError, SettingsSpec};

use crate::catalogue::Catalogue;
use crate::context::{Context, FileTree};
use crate::diagnostics::{Diagnostic, Diagnostics, Notice, Place};
use crate::effective::{self, Effective, Origin};
use crate::environment::Environment;
use crate::types::{Config, ExporterEntry, Listen, Source};
use crate::{expand, raw, reader, refuse, resolve, schema, yaml};

/// Where a configuration comes from.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file (`--config`); `None` = the one that `MAGICAPI_CONFIG` names, else no file.
    pub file: Option<PathBuf>,
    /// The command line.
    pub flags: Flags,
    /// The environment.
    pub env: Environment,
}

/// Settings from the command line; each wins over everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// The data plane's addresses; `demo` puts free ports here.
    pub listen: Option<Listen>,
    /// The admin plane's addresses; `demo` puts free ports here.
    pub admin_listen: Option<Listen>,
}

/// A configuration, and how it came about. No `Debug`: it holds secrets.
#[derive(Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Each effective value with its origin, secrets masked.
    pub origins: Vec<Effective>,
    /// What does not stop the start but should be known, such as variables that are set and not read.
    pub notices: Vec<Notice>,
    /// The first 16 hexadecimal digits of the SHA-256 of `origins`' keys and values: equal where replicas run the
    /// same configuration. Secrets do not enter it, so that it may be shown; a changed secret does not change it.
    pub hash: String,
}

impl Loaded {
    /// A problem with a key that shows only when the value is used, at the place that the value comes from.
    pub fn problem(&self, key: &str, problem: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.place(key).unwrap_or(Place::Nowhere), key, problem)
    }

    fn place(&self, key: &str) -> Option<Place> {
        match &self.origins.iter().find(|one| one.key == key)?.origin {
            Origin::Env(name) => Some(Place::Env(name.clone())),
            Origin::File { line, column } => {
                let path = self.file.clone().unwrap_or_default();
                Some(Place::File { path, line: *line, column: *column })
            }
            Origin::Flag | Origin::Default => Some(Place::Nowhere),
        }
    }

    /// What a plug-in found wrong with its settings, with the place that the setting comes from.
    pub fn exporter_problem(
        &self,
        entry: &ExporterEntry,
        settings: &SettingsSpec,
        error: &ConfigError,
    ) -> Diagnostic {
        let position = self.config.telemetry.exporters.iter().position(|other| other.name == entry.name);
        let parent = format!("telemetry.exporters[{}]", position.unwrap_or_default());
        let key = if error.key.is_empty() { parent.clone() } else { format!("{parent}.{}", error.key) };
        let place = self.place(&key).or_else(|| self.place(&format!("{parent}.type")));
        let problem = match entry.source {
            Source::File { .. } => error.message.clone(),
            // No line of a file shows which setting is meant.
            Source::Environment | Source::Default if error.key.is_empty() => {
                format!("exporter `{}`: {}", entry.name, error.message)
            }
            Source::Environment | Source::Default => {
                format!("exporter `{}`: `{}`: {}", entry.name, error.key, error.message)
            }
        };
        let problem = Diagnostic::new(place.unwrap_or(Place::Nowhere), key, problem);
        let setting = settings.keys().iter().find(|setting| setting.name == error.key);
        if entry.source == Source::Environment && setting.is_some_and(|setting| setting.env.is_none()) {
            return problem.remedy(resolve::without_variable(&entry.kind, &error.key));
        }
        problem
    }
}

/// Reads, expands, validates and resolves. Pure but for reading the file: nothing is opened, resolved or connected.
pub fn load(sources: &Sources, catalogue: &Catalogue) -> Result<Loaded, Diagnostics> {
    let path = sources.file.clone().or_else(|| sources.env.get("MAGICAPI_CONFIG").map(PathBuf::from));
    let shown = path.as_deref().unwrap_or_else(|| Path::new(""));
    let mut tree = FileTree::empty(shown);
    let file = match &path {
        Some(path) => read_file(path, &sources.env, catalogue, &mut tree)?,
        None => raw::File::default(),
    };
    let mut cx = Context::new(sources, catalogue, tree);
    let config = resolve::config(&mut cx, file);
    if !cx.problems.is_empty() {
        return Err(cx.problems.into());
    }
    let refusals = refuse::refusals(&cx, &config);
    if !refusals.is_empty() {
        return Err(refusals.into());
    }
    let origins = effective::with_origins(&config, catalogue, |key| cx.origin(key));
    let hash = effective::hash(&origins);
    let notices = cx.notices;
    Ok(Loaded { config, file: path, origins, notices, hash })
}

/// What the file says; its tree is kept in `tree`.
fn read_file(
    path: &Path,
    env: &Environment,
    catalogue: &Catalogue,
    tree: &mut FileTree<'_>,
) -> Result<raw::File, Diagnostics> {
    let whole = |problem: String| Diagnostic::new(Place::Nowhere, path.display().to_string(), problem);
    let text = fs::read(path).map_err(|e| whole(format!("cannot be read: {e}")))?;
    let text = String::from_utf8(text).map_err(|_| whole("is not UTF-8 text".into()))?;
    let Some(mut root) = yaml::parse(&text, path)? else {
        return Ok(raw::File::default());
    };
    let mut problems = Vec::new();
    tree.variables = expand::expand(&mut root, env, path, &mut problems);
    let value = reader::read(&root, &schema::shape(catalogue), path);
    let value = match value {
        Ok(value) if problems.is_empty() => value,
        Ok(_) => return Err(problems.into()),
        Err(more) => {
            problems.extend(more);
            return Err(problems.into());
        }
    };
    if value.is_null() {
        return Ok(raw::File::default());
    }
    let file = serde_path_to_error::deserialize(value).map_err(|error| {
        // The reader has checked the value against the same structs' schema; what it lets through still has a place.
        let key = error.path().to_string();
        let at = root.find(&key).unwrap_or(root.at);
        Diagnostic::new(at.place(path), key, error.into_inner().to_string())
    })?;
    tree.root = Some(root);
    Ok(file)
}

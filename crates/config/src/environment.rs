//! The process environment, read once. Nothing else in the workspace reads it.

use std::collections::{BTreeMap, BTreeSet};

/// A snapshot of environment variables. No `Debug`: it holds secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    values: BTreeMap<String, String>,
    /// Set, but not UTF-8.
    unreadable: BTreeSet<String>,
}

impl Environment {
    /// The environment of this process.
    pub fn from_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => {
                    environment.values.insert(name, value);
                }
                Err(_) => {
                    environment.unreadable.insert(name);
                }
            }
        }
        environment
    }

    /// An environment of these variables, for tests.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let values = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { values, unreadable: BTreeSet::new() }
    }

    /// The same environment with one variable set.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.values.insert(name.into(), value.into());
        self
    }

    /// A variable that is set and not empty: compose files and charts pass empty ones for "not set".
    pub fn get(&self, name: &str) -> Option<&str> {
        self.exact(name).filter(|value| !value.trim().is_empty())
    }

    /// A variable as it is, empty or not.
    pub(crate) fn exact(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The variables that are set and not empty.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str).filter(|name| self.get(name).is_some())
    }

    /// Whether the variable is set, but not to UTF-8.
    pub(crate) fn is_unreadable(&self, name: &str) -> bool {
        self.unreadable.contains(name)
    }
}

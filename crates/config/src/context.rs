//! What the resolving steps share: the sources, and where problems, notices and origins are gathered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::catalogue::Catalogue;
use crate::diagnostics::{Diagnostic, Notice, Place};
use crate::effective::Origin;
use crate::environment::Environment;
use crate::load::{Flags, Sources};
use crate::units::{Size, Span};
use crate::yaml::Node;

/// The file as it was read: its path and its tree, for places, and the variables that it names.
pub(crate) struct FileTree<'a> {
    pub(crate) path: &'a Path,
    pub(crate) root: Option<Node>,
    pub(crate) variables: BTreeSet<String>,
}

impl<'a> FileTree<'a> {
    /// Of a file that says nothing.
    pub(crate) fn empty(path: &'a Path) -> Self {
        Self { path, root: None, variables: BTreeSet::new() }
    }
}

/// See the module.
pub(crate) struct Context<'a> {
    pub(crate) env: &'a Environment,
    pub(crate) flags: &'a Flags,
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) problems: Vec<Diagnostic>,
    pub(crate) notices: Vec<Notice>,
    file: FileTree<'a>,
    /// Where keys come from that do not come from the file or from a default.
    origins: BTreeMap<String, Origin>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(sources: &'a Sources, catalogue: &'a Catalogue, file: FileTree<'a>) -> Self {
        Self {
            env: &sources.env,
            flags: &sources.flags,
            catalogue,
            problems: Vec::new(),
            notices: Vec::new(),
            file,
            origins: BTreeMap::new(),
        }
    }

    /// Remembers that `key` has its value from a variable.
    pub(crate) fn set_by_env(&mut self, key: impl Into<String>, variable: &str) {
        self.origins.insert(key.into(), Origin::Env(variable.into()));
    }

    /// Remembers that `key` has its value from the command line.
    pub(crate) fn set_by_flag(&mut self, key: impl Into<String>) {
        self.origins.insert(key.into(), Origin::Flag);
    }

    /// The value of a variable that wins over the file; remembers it as the key's origin.
    pub(crate) fn variable(&mut self, key: &str, variable: &str) -> Option<&'a str> {
        let value = self.env.get(variable)?;
        self.set_by_env(key, variable);
        Some(value)
    }

    /// Where a key has its value from.
    pub(crate) fn origin(&self, key: &str) -> Origin {
        if let Some(origin) = self.origins.get(key) {
            return origin.clone();
        }
        let mark = self.file.root.as_ref().and_then(|root| root.find(key));
        mark.map_or(Origin::Default, |at| Origin::File { line: at.line, column: at.column })
    }

    /// The texts of a key as the file has them, before `${…}` was expanded.
    pub(crate) fn written(&self, key: &str) -> Option<Value> {
        self.file.root.as_ref()?.written(key)
    }

    /// A problem with a key, where its value comes from.
    pub(crate) fn at(&self, key: &str, problem: impl Into<String>) -> Diagnostic {
        let place = match self.origin(key) {
            Origin::Env(name) => Place::Env(name),
            Origin::Flag => Place::Flag(format!("--{}", key.replace(['.', '_'], "-"))),
            Origin::File { line, column } => Place::File { path: self.file.path.into(), line, column },
            Origin::Default => Place::Nowhere,
        };
        Diagnostic::new(place, key, problem)
    }

    /// A problem with a key of the file, or, when it is not there, with what it would stand in.
    pub(crate) fn near(&self, key: &str, problem: impl Into<String>) -> Diagnostic {
        let root = self.file.root.as_ref();
        let mut parent = key;
        let place = loop {
            if let Some(at) = root.and_then(|root| root.find(parent)) {
                break at.place(self.file.path);
            }
            match parent.rfind(['.', '[']) {
                Some(end) => parent = &parent[..end],
                None => break Place::Nowhere,
            }
        };
        Diagnostic::new(place, key, problem)
    }

    /// Records a problem.
    pub(crate) fn report(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }

    /// Records a problem with a key.
    pub(crate) fn problem(&mut self, key: &str, problem: impl Into<String>) {
        let problem = self.at(key, problem);
        self.report(problem);
    }

    /// Records a problem with a variable.
    pub(crate) fn variable_problem(&mut self, variable: &str, key: &str, problem: impl Into<String>) {
        self.report(Diagnostic::new(Place::Env(variable.into()), key, problem));
    }

    /// Records a notice.
    pub(crate) fn notice(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.notices.push(Notice { key: key.into(), text: text.into() });
    }

    /// Notes that a variable is set and not read, unless the file reads it: `${NAME}`.
    pub(crate) fn unread(&mut self, variable: &str, text: impl Into<String>) {
        if !self.file.variables.contains(variable) {
            self.notice(variable, text);
        }
    }

    /// A size that must not be zero: other programs mean "without limit" by that.
    pub(crate) fn positive_size(&mut self, key: &str, written: Option<Size>, default: u64) -> u64 {
        let bytes = written.map_or(default, |size| size.0);
        if bytes == 0 {
            self.problem(key, "must be more than 0, which does not mean \"no limit\" here");
        }
        bytes
    }

    /// A duration that must not be zero.
    pub(crate) fn positive(&mut self, key: &str, written: Option<Span>, default: Duration) -> Duration {
        let duration = written.map_or(default, |span| span.0);
        if duration.is_zero() {
            self.problem(key, "must be longer than `0s`");
        }
        duration
    }
}

//! What is wrong with a configuration, said so that the reader can mend it: where, what was found, what was expected,
//! the nearest valid name, the remedy. Values of secrets never stand in it.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Where it stands.
    pub place: Place,
    /// The key, as a dotted path (`telemetry.exporters[0].url`); empty for the file as a whole.
    pub key: String,
    /// What was found and what was expected.
    pub problem: String,
    /// The nearest valid name.
    pub suggestion: Option<String>,
    /// What to write instead; may have several lines.
    pub remedy: Option<String>,
}

/// Where a problem stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the file; line and column count from 1.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// In an environment variable.
    Env(String),
    /// On the command line.
    Flag(String),
    /// Nowhere in particular: a value that is missing, or a default.
    Nowhere,
}

impl Diagnostic {
    /// A problem with `key`.
    pub fn new(place: Place, key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place, key: key.into(), problem: problem.into(), suggestion: None, remedy: None }
    }

    /// With the nearest of `known`, when one is near.
    pub(crate) fn nearest<'a>(mut self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        self.suggestion = nearest(word, known).map(Into::into);
        self
    }

    /// With a remedy.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { path, line, column } => write!(f, "{}:{line}:{column}: ", path.display())?,
            Place::Env(name) | Place::Flag(name) => write!(f, "{name}: ")?,
            Place::Nowhere => {}
        }
        // A variable is its own name; its key would only say the same again.
        let named = matches!(self.place, Place::Env(_) | Place::Flag(_));
        if !self.key.is_empty() && !named {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; did you mean `{suggestion}`?")?;
        }
        match &self.remedy {
            Some(remedy) if remedy.contains('\n') => {
                remedy.lines().try_for_each(|line| write!(f, "\n  {line}"))
            }
            Some(remedy) if self.suggestion.is_some() => write!(f, " ({remedy})"),
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, at least one problem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// The problems.
    pub fn problems(&self) -> &[Diagnostic] {
        &self.0
    }
}

/// In the file's order, then the rest as it was found.
impl From<Vec<Diagnostic>> for Diagnostics {
    fn from(mut problems: Vec<Diagnostic>) -> Self {
        problems.sort_by_key(|problem| match problem.place {
            Place::File { line, column, .. } => (line, column),
            _ => (usize::MAX, 0),
        });
        Self(problems)
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(problem: Diagnostic) -> Self {
        Self(vec![problem])
    }
}

/// One problem per paragraph.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Something that does not stop the start but should be known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// The variable or key that it is about.
    pub key: String,
    /// What is to be known.
    pub text: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

/// The known word that a reader most likely meant: a slip or two away (`ulr`), or cut short (`elastic`).
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let length = word.chars().count();
    let score = |known: &str| {
        let known = known.to_lowercase();
        let slips = strsim::osa_distance(&word, &known);
        let is_slip = length >= 3 && slips <= (length / 3).max(1);
        let similar = strsim::jaro_winkler(&word, &known);
        (is_slip || similar >= 0.85).then_some((is_slip, similar))
    };
    let scored = known.into_iter().filter_map(|known| score(known).map(|score| (score, known)));
    scored.max_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))).map(|(_, known)| known)
}

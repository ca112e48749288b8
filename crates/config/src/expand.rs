//! `${VAR}` and `${VAR:-default}` in scalars, after parsing, so that a value can never change the file's structure.
//!
//! `$${` is a literal `${`. The default stands for an unset or empty variable, as in a shell, and ends at the first `}`.
//! An unquoted scalar is read anew once it is expanded (`${PORT}` can be a number, `${X:-}` is nothing); a quoted one
//! stays a text.

use std::collections::BTreeSet;
use std::path::Path;

use crate::diagnostics::Diagnostic;
use crate::environment::Environment;
use crate::yaml::{Content, Node, Scalar, join};

/// Expands every scalar below `node` in place; problems go to `problems`. Returns the variables that were named.
pub(crate) fn expand(
    node: &mut Node,
    env: &Environment,
    path: &Path,
    problems: &mut Vec<Diagnostic>,
) -> BTreeSet<String> {
    let mut expansion = Expansion { env, path, problems, named: BTreeSet::new() };
    expansion.node(node, "");
    expansion.named
}

struct Expansion<'a> {
    env: &'a Environment,
    path: &'a Path,
    problems: &'a mut Vec<Diagnostic>,
    named: BTreeSet<String>,
}

impl Expansion<'_> {
    fn node(&mut self, node: &mut Node, key: &str) {
        let at = node.at;
        match &mut node.content {
            Content::Scalar(scalar) => {
                if let Err(problem) = self.scalar(scalar) {
                    let (text, remedy) = problem;
                    self.problems.push(Diagnostic::new(at.place(self.path), key, text).remedy(remedy));
                }
            }
            Content::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.node(item, &format!("{key}[{index}]"));
                }
            }
            Content::Map(entries) => {
                for entry in entries {
                    self.node(&mut entry.node, &join(key, &entry.key));
                }
            }
        }
    }

    /// Problem and remedy on failure.
    fn scalar(&mut self, scalar: &mut Scalar) -> Result<(), (String, String)> {
        let mut out = String::new();
        let mut rest = scalar.text.as_str();
        let mut expanded = false;
        while let Some(start) = rest.find("${") {
            let (before, tail) = rest.split_at(start);
            let inner = &tail[2..];
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = inner;
                continue;
            }
            out.push_str(before);
            let literal = || "write `$${` for a literal `${`".to_owned();
            let Some(end) = inner.find('}') else {
                return Err(("`${` without its `}`".into(), literal()));
            };
            let (name, default) = match inner[..end].split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (&inner[..end], None),
            };
            if !is_name(name) {
                return Err((format!("`${{{name}}}` does not name a variable"), literal()));
            }
            self.named.insert(name.into());
            out.push_str(self.value(name, default)?);
            expanded = true;
            rest = &inner[end + 1..];
        }
        out.push_str(rest);
        let written = std::mem::replace(&mut scalar.text, out);
        scalar.written = expanded.then_some(written);
        Ok(())
    }

    fn value<'b>(&'b self, name: &str, default: Option<&'b str>) -> Result<&'b str, (String, String)> {
        match default {
            Some(default) => Ok(self.env.exact(name).filter(|value| !value.is_empty()).unwrap_or(default)),
            None => self.env.exact(name).ok_or_else(|| {
                let problem = format!("the variable {name} is not set");
                (problem, format!("set it, or give a default: `${{{name}:-}}` is empty when it is not set"))
            }),
        }
    }
}

fn is_name(name: &str) -> bool {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::expand;
    use crate::environment::Environment;
    use crate::yaml::{Content, Kind, Node, parse};

    fn expanded(yaml: &str) -> Result<Vec<(String, Kind)>, String> {
        let path = Path::new("gateway.yaml");
        let env = Environment::from_pairs([("PORT", "3000"), ("EMPTY", ""), ("ODD", "a: [b]\n${PORT}")]);
        let mut root = parse(yaml, path).expect("yaml").expect("not empty");
        let mut problems = Vec::new();
        expand(&mut root, &env, path, &mut problems);
        if let Some(problem) = problems.first() {
            return Err(problem.to_string());
        }
        let Node { content: Content::List(items), .. } = root else { panic!("a list") };
        let scalar = |node: Node| match node.content {
            Content::Scalar(scalar) => (scalar.text.clone(), scalar.kind()),
            _ => panic!("a scalar"),
        };
        Ok(items.into_iter().map(scalar).collect())
    }

    #[test]
    fn expands_and_reads_anew() {
        let all = expanded("[ '$${PORT}', \"${PORT}\" ]\n").expect("expands");
        assert_eq!(all, [("${PORT}".into(), Kind::Text), ("3000".into(), Kind::Text)]);
        let cases = [
            ("- ${PORT}", "3000", Kind::Unsigned(3000)),
            ("- ${EMPTY:-x}", "x", Kind::Text),
            ("- ${NOT_SET:-}", "", Kind::Null),
            ("- '${EMPTY}'", "", Kind::Text),
            ("- a${PORT}b${PORT}c", "a3000b3000c", Kind::Text),
            ("- $PORT $ {}", "$PORT $ {}", Kind::Text),
            ("- ${ODD}", "a: [b]\n${PORT}", Kind::Text),
        ];
        for (yaml, text, kind) in cases {
            assert_eq!(expanded(yaml), Ok(vec![(text.into(), kind)]), "{yaml}");
        }
    }

    #[test]
    fn says_what_is_missing() {
        let cases = [
            (
                "- ${NOT_SET}",
                "gateway.yaml:1:3: [0]: the variable NOT_SET is not set; set it, or give a default: `${NOT_SET:-}` is empty when it is not set",
            ),
            ("- ${PORT", "gateway.yaml:1:3: [0]: `${` without its `}`; write `$${` for a literal `${`"),
            (
                "- ${1}",
                "gateway.yaml:1:3: [0]: `${1}` does not name a variable; write `$${` for a literal `${`",
            ),
        ];
        for (yaml, text) in cases {
            assert_eq!(expanded(yaml), Err(text.into()), "{yaml}");
        }
    }
}

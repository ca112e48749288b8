//! Keeps the values of a child's environment, which are secrets, out of all that it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use magicapi_plugin::Secret;

use crate::lines::Line;

/// A shorter value of the child's environment, or a shorter line of one, may be a word.
const SHORTEST: usize = 12;

/// What is kept, the longest first: one may hold another.
#[derive(Clone)]
pub(crate) struct Discretion(Arc<[Secret]>);

impl Discretion {
    pub(crate) fn about(env: &BTreeMap<String, Secret>) -> Self {
        let mut texts = BTreeSet::new();
        for value in env.values().map(|value| value.expose().trim()) {
            // Of a value of several lines a child says one at a time.
            for text in std::iter::once(value).chain(value.lines().map(str::trim)) {
                texts.insert(text.to_owned());
                texts.insert(in_json(text));
            }
        }
        let mut texts: Vec<String> = texts.into_iter().filter(|text| text.len() >= SHORTEST).collect();
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        Self(texts.into_iter().map(Secret::new).collect())
    }

    /// The line without them.
    pub(crate) fn keep(&self, line: Vec<u8>) -> Vec<u8> {
        let text = String::from_utf8_lossy(&line);
        if !self.0.iter().any(|secret| text.contains(secret.expose())) {
            return line;
        }
        let without = |text: String, secret: &Secret| text.replace(secret.expose(), "***");
        self.0.iter().fold(text.into_owned(), without).into_bytes()
    }

    /// Where at the end of this text one may begin that goes on behind it.
    fn border(&self, text: &[u8]) -> usize {
        let secrets = || self.0.iter().map(|secret| secret.expose().as_bytes());
        let begun = |secret: &[u8]| {
            (1..secret.len())
                .rev()
                .find(|length| secret.get(..*length).is_some_and(|part| text.ends_with(part)))
        };
        let mut at = text.len() - secrets().filter_map(begun).max().unwrap_or(0);
        // A whole one that reaches beyond it would be torn.
        let around = |at: usize, secret: &[u8]| {
            let mut starts = at.saturating_sub(secret.len() - 1)..at;
            starts.find(|start| text.get(*start..start + secret.len()) == Some(secret))
        };
        // At most so often: of a line without end not all can wait.
        for _ in secrets() {
            at = secrets().find_map(|secret| around(at, secret)).unwrap_or(at);
        }
        at
    }
}

fn in_json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(&quoted).to_owned()
}

/// Lines that come in pieces when they are long. What one may begin with at a border waits for the next piece.
pub(crate) struct Pieces {
    discretion: Discretion,
    held: Vec<u8>,
}

impl Pieces {
    pub(crate) fn new(discretion: Discretion) -> Self {
        Self { discretion, held: Vec::new() }
    }

    /// What may be said now; `None` when all of it waits.
    pub(crate) fn next(&mut self, line: Line) -> Option<Vec<u8>> {
        let (is_whole, text) = match line {
            Line::Whole(text) => (true, text),
            Line::Cut(text) => (false, text),
        };
        self.held.extend(text);
        let border = if is_whole { self.held.len() } else { self.discretion.border(&self.held) };
        let later = self.held.split_off(border);
        let now = self.discretion.keep(std::mem::replace(&mut self.held, later));
        (is_whole || border > 0).then_some(now)
    }

    /// What waited in vain.
    pub(crate) fn rest(self) -> Option<Vec<u8>> {
        (!self.held.is_empty()).then(|| self.discretion.keep(self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(values: &[&str]) -> Discretion {
        let env = values.iter().enumerate();
        let env: BTreeMap<_, _> =
            env.map(|(number, value)| (number.to_string(), Secret::new(*value))).collect();
        Discretion::about(&env)
    }

    #[test]
    fn what_a_child_says_is_kept_without_its_secrets() {
        let discretion = about(&["a-long-token", "a-long-token-and-more", "true"]);
        for (said, kept) in [
            ("no: a-long-token, a-long-token-and-more!", "no: ***, ***!"),
            ("a-long-toke is true", "a-long-toke is true"),
        ] {
            assert_eq!(discretion.keep(said.into()), kept.as_bytes());
        }
        assert_eq!(discretion.keep(vec![0xff, b'a']), [0xff, b'a'], "as it came");
    }

    #[test]
    fn a_secret_is_kept_in_each_of_its_forms() {
        let discretion =
            about(&["a-long-token\n", "-----BEGIN-----\nfirst+line+first\nshort\n", "quo\"ted\\token"]);
        for (said, kept) in [
            ("no: a-long-token!", "no: ***!"),
            ("bad line first+line+first here", "bad line *** here"),
            (r#"{"key":"-----BEGIN-----\nfirst+line+first\nshort"}"#, r#"{"key":"***"}"#),
            (r#"{"key":"quo\"ted\\token"}"#, r#"{"key":"***"}"#),
            ("short", "short"),
        ] {
            let said = discretion.keep(said.into());
            assert_eq!(String::from_utf8_lossy(&said), kept);
        }
    }

    #[test]
    fn a_secret_at_the_border_of_two_pieces_is_kept_as_well() {
        let said = "it is a-long-token, a-long-token-and-so-on, in-a-long-token, a-long-tale";
        let (long, inner) = ("a-long-token-and-so-on", "token-and-more");
        for at in 0..said.len() {
            let mut pieces = Pieces::new(about(&["a-long-token", long, inner]));
            let (one, two) = said.as_bytes().split_at(at);
            let lines = [Line::Cut(one.to_vec()), Line::Cut(two.to_vec())];
            let mut all: Vec<Vec<u8>> = lines.into_iter().filter_map(|line| pieces.next(line)).collect();
            all.extend(pieces.rest());
            assert_eq!(String::from_utf8_lossy(&all.concat()), "it is ***, ***, in-***, a-long-tale", "{at}");
        }
        let mut pieces = Pieces::new(about(&["aaaaaaaaaaaa"]));
        for _ in 0..100 {
            assert!(pieces.next(Line::Cut(vec![b'a'; 1024])).is_some() && pieces.held.len() < 100);
        }
        let mut pieces = Pieces::new(about(&["a-long-token"]));
        assert_eq!(pieces.next(Line::Cut(b"a-long".to_vec())), None);
        assert_eq!(pieces.next(Line::Whole(Vec::new())), Some(b"a-long".to_vec()), "the line ended there");
    }
}

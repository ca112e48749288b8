//! YAML text to a tree in which every node knows its line and column. Kinds are not decided here: a scalar keeps its
//! text and whether it was quoted, and `reader` reads it as its key demands.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use crate::diagnostics::{Diagnostic, Place};

/// Aliases may repeat nodes; a file larger than this is an attack or an accident.
const MAX_NODES: usize = 200_000;
const MAX_DEPTH: usize = 64;

/// A place in the file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Mark {
    pub(crate) fn place(self, path: &Path) -> Place {
        Place::File { path: path.into(), line: self.line, column: self.column }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Mark,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Mark,
    pub(crate) node: Node,
}

/// A text, not yet read as anything.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Not quoted: may be read as a number, a truth value or nothing.
    pub(crate) plain: bool,
    /// As the file has it, where the text came out of `${…}`: that may be a secret, so it is not shown.
    pub(crate) written: Option<String>,
}

/// What YAML's core schema makes of a scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text,
}

impl Scalar {
    pub(crate) fn kind(&self) -> Kind {
        if !self.plain {
            return Kind::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
            "true" | "True" | "TRUE" => Kind::Bool(true),
            "false" | "False" | "FALSE" => Kind::Bool(false),
            text => number(text),
        }
    }
}

fn number(text: &str) -> Kind {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Kind::Text;
    }
    let hex = text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let octal = || text.strip_prefix("0o").and_then(|digits| u64::from_str_radix(digits, 8).ok());
    if let Some(number) = hex.or_else(octal).or_else(|| text.parse().ok()) {
        return Kind::Unsigned(number);
    }
    if let Ok(number) = text.parse() {
        return Kind::Negative(number);
    }
    text.parse().map_or(Kind::Text, Kind::Float)
}

impl Node {
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar(scalar) if scalar.kind() == Kind::Null)
    }

    /// Whether it says nothing, or is an empty text, which `${X:-}` gives for a variable that is not set.
    pub(crate) fn is_unset(&self) -> bool {
        self.is_null() || matches!(&self.content, Content::Scalar(scalar) if scalar.text.is_empty())
    }

    /// The node's kind, in words.
    pub(crate) fn found(&self) -> &'static str {
        match &self.content {
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
            Content::Scalar(scalar) => match scalar.kind() {
                Kind::Null => "nothing",
                Kind::Bool(_) => "a truth value",
                Kind::Unsigned(_) | Kind::Negative(_) => "a whole number",
                Kind::Float(_) => "a number",
                Kind::Text => "a text",
            },
        }
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// Where the dotted key stands: the key itself, or the item of a list.
    pub(crate) fn find(&self, key: &str) -> Option<Mark> {
        self.lookup(key).map(|(at, _)| at)
    }

    /// The texts below the dotted key, as the file has them.
    pub(crate) fn written(&self, key: &str) -> Option<Value> {
        self.lookup(key).map(|(_, node)| texts(node))
    }

    fn lookup(&self, key: &str) -> Option<(Mark, &Self)> {
        let mut node = self;
        let mut at = self.at;
        for part in key.split('.') {
            let (name, index) = match part.split_once('[') {
                Some((name, index)) => {
                    (name, index.strip_suffix(']').and_then(|index| index.parse::<usize>().ok()))
                }
                None => (part, None),
            };
            let entry = node.entry(name)?;
            (at, node) = (entry.at, &entry.node);
            if let Some(index) = index {
                let Content::List(items) = &node.content else { return None };
                node = items.get(index)?;
                at = node.at;
            }
        }
        (!node.is_unset()).then_some((at, node))
    }
}

fn texts(node: &Node) -> Value {
    match &node.content {
        Content::Scalar(scalar) => scalar.written.as_ref().unwrap_or(&scalar.text).as_str().into(),
        Content::List(items) => items.iter().map(texts).collect(),
        Content::Map(entries) => entries.iter().map(|one| (one.key.clone(), texts(&one.node))).collect(),
    }
}

/// The file's one document; `None` when it is empty.
pub(crate) fn parse(text: &str, path: &Path) -> Result<Option<Node>, Vec<Diagnostic>> {
    let mut builder = Builder { path, problems: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None };
    let mut open = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for event in Parser::new_from_str(text) {
        let step = event.map_err(|error| syntax(&error)).and_then(|event| builder.step(event, &mut open));
        if let Err((at, problem)) = step {
            let mut problem = Diagnostic::new(at.place(path), "", problem);
            let line = text.lines().nth(at.line.saturating_sub(1)).unwrap_or_default();
            if line.contains("${") && line.contains(['{', '[']) {
                problem = problem.remedy("inside of `{ }` and `[ ]` put `${…}` in quotes");
            }
            builder.problems.push(problem);
            break;
        }
    }
    if builder.problems.is_empty() { Ok(builder.root) } else { Err(builder.problems) }
}

/// A list or mapping whose end has not been read.
struct Open {
    at: Mark,
    anchor: usize,
    part: Part,
}

enum Part {
    List(Vec<Node>),
    /// The entries, and the key that waits for its value.
    Map(Vec<Entry>, Option<(String, Mark)>),
}

/// A problem ends the reading.
type Step = Result<(), (Mark, String)>;

struct Builder<'a> {
    path: &'a Path,
    problems: Vec<Diagnostic>,
    /// By anchor: the node and its size.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
}

impl Builder<'_> {
    fn step(&mut self, (event, span): (Event<'_>, Span), open: &mut Vec<Open>) -> Step {
        let at = Mark { line: span.start.line(), column: span.start.col() + 1 };
        if let Some(tag) = event.tag().filter(|tag| !tag.is_yaml_core_schema_tag("str")) {
            return Err((at, format!("the tag `{tag}` is not supported")));
        }
        if open.len() > MAX_DEPTH {
            return Err((at, "nested too deeply".into()));
        }
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                Err((at, "a second document begins here; keep one document per file".into()))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let scalar = Scalar { text: text.into_owned(), plain, written: None };
                self.close(Node { at, content: Content::Scalar(scalar) }, anchor, open)
            }
            Event::Alias(anchor) => self.alias(anchor, at, open),
            Event::SequenceStart(_, anchor, _) => {
                open.push(Open { at, anchor, part: Part::List(Vec::new()) });
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                open.push(Open { at, anchor, part: Part::Map(Vec::new(), None) });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open { at, anchor, part: Part::List(items) }) => {
                    self.close(Node { at, content: Content::List(items) }, anchor, open)
                }
                Some(Open { at, anchor, part: Part::Map(entries, _) }) => {
                    self.close(Node { at, content: Content::Map(entries) }, anchor, open)
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// An alias is a copy; its size is checked before it is made, so that aliases of aliases stay cheap.
    fn alias(&mut self, anchor: usize, at: Mark, open: &mut [Open]) -> Step {
        let Some(size) = self.anchors.get(&anchor).map(|(_, size)| *size) else {
            return Err((at, "an alias inside of its own anchor".into()));
        };
        self.grow(size, at)?;
        let node = self.anchors.get(&anchor).map(|(node, _)| node.clone());
        node.map_or(Ok(()), |node| self.close(node, 0, open))
    }

    fn grow(&mut self, nodes: usize, at: Mark) -> Step {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err((at, "more values than a configuration can have".into()));
        }
        Ok(())
    }

    /// Puts a complete node where it belongs.
    fn close(&mut self, node: Node, anchor: usize, open: &mut [Open]) -> Step {
        self.grow(1, node.at)?;
        if anchor != 0 {
            let size = size(&node);
            self.grow(size, node.at)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(top) = open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut top.part {
            Part::List(items) => items.push(node),
            Part::Map(entries, waiting) => match waiting.take() {
                Some((key, at)) => {
                    match entries.iter().find(|entry| entry.key == key).map(|first| first.at.line) {
                        Some(line) => {
                            let text = format!("the key stands here twice; first in line {line}");
                            let key = path_of(open, &key);
                            self.problems.push(Diagnostic::new(at.place(self.path), key, text));
                        }
                        None => entries.push(Entry { key, at, node }),
                    }
                }
                None => match node.content {
                    Content::Scalar(scalar) => *waiting = Some((scalar.text, node.at)),
                    _ => return Err((node.at, "a key must be a text".into())),
                },
            },
        }
        Ok(())
    }
}

fn syntax(error: &ScanError) -> (Mark, String) {
    let mark = error.marker();
    (Mark { line: mark.line(), column: mark.col() + 1 }, format!("not valid YAML: {}", error.info()))
}

/// The node and everything below it.
fn size(node: &Node) -> usize {
    1 + match &node.content {
        Content::Scalar(_) => 0,
        Content::List(items) => items.iter().map(size).sum(),
        Content::Map(entries) => entries.iter().map(|entry| size(&entry.node)).sum(),
    }
}

/// The dotted path of `key` in the innermost open mapping.
fn path_of(open: &[Open], key: &str) -> String {
    let mut path = String::new();
    for part in open.iter().map(|open| &open.part) {
        match part {
            Part::List(items) => path = format!("{path}[{}]", items.len()),
            Part::Map(_, Some((key, _))) => path = join(&path, key),
            Part::Map(_, None) => {}
        }
    }
    join(&path, key)
}

/// `parent.key`.
pub(crate) fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

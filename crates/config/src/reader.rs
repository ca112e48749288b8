//! The file's tree, read against its JSON Schema: every unknown key, wrong kind and unreadable value is found at once,
//! each with its place; what is left is a JSON value that the raw structs are deserialized from.
//!
//! A scalar is read as its key demands: where a text is expected, `123` is the text "123", so that a key or password
//! of digits needs no quotes; where a number is expected, a quoted one is refused. Nothing (`key:`) and the empty text
//! mean "not set", as an empty variable does.

use std::path::Path;

use serde_json::{Map, Value};

use crate::diagnostics::Diagnostic;
use crate::units;
use crate::yaml::{Content, Entry, Kind, Mark, Node, Scalar, join};

/// Reads `node` as `schema` says; `None` when nothing of it can be used.
pub(crate) fn read(node: &Node, schema: &Value, path: &Path) -> Result<Value, Vec<Diagnostic>> {
    let mut reader = Reader { path, problems: Vec::new() };
    let value = reader.node(node, schema, "");
    if reader.problems.is_empty() { Ok(value.unwrap_or(Value::Null)) } else { Err(reader.problems) }
}

struct Reader<'a> {
    path: &'a Path,
    problems: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn node(&mut self, node: &Node, schema: &Value, key: &str) -> Option<Value> {
        if node.is_null() {
            return None;
        }
        if let Some(words) = words(schema) {
            return self.word(node, &words, schema, key);
        }
        let variants = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array);
        if let Some(variants) = variants {
            return if variants.iter().all(|variant| tag(variant).is_some()) {
                self.tagged(node, variants, key)
            } else {
                self.any(node, variants, key)
            };
        }
        match schema.get("format").and_then(Value::as_str) {
            Some("duration" | "limit") => return self.duration(node, schema, key),
            Some("size") => return self.size(node, schema, key),
            _ => {}
        }
        match kind(schema) {
            Some("object") => self.object(node, schema, key),
            Some("array") => self.list(node, schema, key),
            Some("string") => self.text(node, schema, key),
            Some("boolean") => match scalar(node).map(Scalar::kind) {
                Some(Kind::Bool(value)) => Some(value.into()),
                _ => self.expected("`true` or `false`", node, schema, key),
            },
            Some("integer") => self.integer(node, schema, key),
            Some("number") => match scalar(node).map(Scalar::kind) {
                Some(Kind::Unsigned(value)) => Some(value.into()),
                Some(Kind::Negative(value)) => Some(value.into()),
                Some(Kind::Float(value)) => Some(value.into()),
                _ => self.expected("a number", node, schema, key),
            },
            _ => Some(untyped(node)),
        }
    }

    fn problem(&mut self, at: Mark, key: &str, problem: String) -> &mut Diagnostic {
        self.problems.push(Diagnostic::new(at.place(self.path), key, problem));
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    fn expected(&mut self, expected: &str, node: &Node, schema: &Value, key: &str) -> Option<Value> {
        let problem = format!("expected {expected}, found {}", shown(node, schema));
        self.problem(node.at, key, problem);
        None
    }

    fn word(&mut self, node: &Node, words: &[&str], schema: &Value, key: &str) -> Option<Value> {
        let text = scalar(node).map(|scalar| scalar.text.as_str());
        if let Some(text) = text.filter(|text| words.contains(text)) {
            return Some(text.into());
        }
        let expected = one_of(words);
        let problem = format!("expected {expected}, found {}", shown(node, schema));
        let diagnostic = Diagnostic::new(node.at.place(self.path), key, problem);
        let diagnostic = diagnostic.nearest(text.unwrap_or_default(), words.iter().copied());
        self.problems.push(diagnostic);
        None
    }

    fn text(&mut self, node: &Node, schema: &Value, key: &str) -> Option<Value> {
        match scalar(node) {
            Some(scalar) => Some(scalar.text.as_str().into()),
            None => self.expected("a text", node, schema, key),
        }
    }

    fn integer(&mut self, node: &Node, schema: &Value, key: &str) -> Option<Value> {
        let minimum = schema.get("minimum").and_then(Value::as_f64);
        let at_least = |number: f64| minimum.is_none_or(|minimum| number >= minimum);
        match scalar(node).map(Scalar::kind) {
            Some(Kind::Unsigned(value)) if at_least(value as f64) => Some(value.into()),
            Some(Kind::Negative(value)) if at_least(value as f64) => Some(value.into()),
            Some(Kind::Text) if scalar(node).is_some_and(|s| !s.plain && s.text.parse::<i64>().is_ok()) => {
                self.problem(node.at, key, "expected a whole number, found a text in quotes".into()).remedy =
                    Some("leave the quotes out".into());
                None
            }
            _ => {
                let expected = match minimum {
                    Some(minimum) => format!("a whole number, {minimum} or more"),
                    None => "a whole number".into(),
                };
                self.expected(&expected, node, schema, key)
            }
        }
    }

    fn duration(&mut self, node: &Node, schema: &Value, key: &str) -> Option<Value> {
        let may_be_none = schema.get("format").and_then(Value::as_str) == Some("limit");
        let text = scalar(node).map_or("", |scalar| scalar.text.as_str());
        if units::duration(text).is_some() || (may_be_none && text == "none") {
            return Some(text.into());
        }
        let suffix = if may_be_none { ", or `none`" } else { "" };
        let problem = format!("expected {}{suffix}, found {}", units::DURATION, shown(node, schema));
        let bare = text.parse::<u64>().is_ok() && scalar(node).is_some_and(|scalar| scalar.written.is_none());
        let remedy = bare.then(|| format!("name the unit: `{text}s` or `{text}ms`"));
        self.problem(node.at, key, problem).remedy = remedy;
        None
    }

    fn size(&mut self, node: &Node, schema: &Value, key: &str) -> Option<Value> {
        let text = scalar(node).map(|scalar| scalar.text.as_str());
        match text.and_then(units::size) {
            Some(bytes) => Some(bytes.into()),
            None => self.expected(units::SIZE, node, schema, key),
        }
    }

    fn list(&mut self, node: &Node, schema: &Value, key: &str) -> Option<Value> {
        let Content::List(items) = &node.content else {
            return self.expected("a list", node, schema, key);
        };
        let any = Value::Bool(true);
        let schema = schema.get("items").unwrap_or(&any);
        let read = items.iter().enumerate().filter_map(|(index, item)| {
            let key = format!("{key}[{index}]");
            if item.is_unset() {
                self.problem(item.at, &key, "an empty item".into());
                return None;
            }
            self.node(item, schema, &key)
        });
        Some(Value::Array(read.collect()))
    }

    fn object(&mut self, node: &Node, schema: &Value, key: &str) -> Option<Value> {
        let properties = schema.get("properties").and_then(Value::as_object);
        let known: Vec<&str> = properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let Content::Map(entries) = &node.content else {
            let problem = format!("expected a mapping, found {}", shown(node, schema));
            let remedy = (!known.is_empty()).then(|| known_here(&known));
            self.problem(node.at, key, problem).remedy = remedy;
            return None;
        };
        let rest = schema.get("additionalProperties");
        let mut object = Map::new();
        let before = self.problems.len();
        for entry in entries {
            let path = join(key, &entry.key);
            let listed = properties.and_then(|all| all.get(&entry.key));
            match listed.or_else(|| allowed(rest)) {
                None => self.unknown(entry, &path, &known),
                Some(_) if listed.is_some() && entry.node.is_unset() => {}
                Some(schema) if entry.node.is_unset() && is_section(rest, schema) => {
                    object.insert(entry.key.clone(), Value::Object(Map::new()));
                }
                Some(schema) => {
                    if let Some(value) = self.node(&entry.node, schema, &path) {
                        object.insert(entry.key.clone(), value);
                    }
                }
            }
        }
        // A misspelt key would be reported twice, the second time as a missing one.
        if self.problems.len() == before {
            self.required(node, schema, &object, key);
        }
        Some(Value::Object(object))
    }

    fn unknown(&mut self, entry: &Entry, path: &str, known: &[&str]) {
        let diagnostic = Diagnostic::new(entry.at.place(self.path), path, "unknown key");
        let mut diagnostic = diagnostic.nearest(&entry.key, known.iter().copied());
        if diagnostic.suggestion.is_none() {
            diagnostic.remedy = Some(known_here(known));
        }
        self.problems.push(diagnostic);
    }

    fn required(&mut self, node: &Node, schema: &Value, object: &Map<String, Value>, key: &str) {
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                self.problem(node.at, &join(key, name), "is missing".into());
            }
        }
    }

    /// A mapping whose `type` says what else may stand in it.
    fn tagged(&mut self, node: &Node, variants: &[Value], key: &str) -> Option<Value> {
        let names: Vec<&str> = variants.iter().filter_map(tag).collect();
        if !matches!(node.content, Content::Map(_)) {
            let problem = format!("expected a mapping with a `type`, found {}", node.found());
            // Any other text may be a secret in the wrong place.
            let name = names.into_iter().find(|name| scalar(node).is_some_and(|scalar| scalar.text == *name));
            self.problem(node.at, key, problem).remedy = name.map(|name| format!("write `type: {name}`"));
            return None;
        }
        let Some(entry) = node.entry("type").filter(|entry| !entry.node.is_unset()) else {
            let expected = one_of(&names);
            self.problem(node.at, &join(key, "type"), format!("is missing; expected {expected}"));
            return None;
        };
        let word = self.word(&entry.node, &names, &Value::Null, &join(key, "type"))?;
        let variant = variants.iter().find(|variant| tag(variant) == word.as_str())?;
        self.object(node, variant, key)
    }

    /// One of several shapes: the first that fits, else the problems of the one that came closest.
    fn any(&mut self, node: &Node, variants: &[Value], key: &str) -> Option<Value> {
        let mut closest: Option<Vec<Diagnostic>> = None;
        for variant in variants.iter().filter(|variant| kind(variant) != Some("null")) {
            let mut attempt = Reader { path: self.path, problems: Vec::new() };
            let value = attempt.node(node, variant, key);
            if attempt.problems.is_empty() {
                return value;
            }
            if closest.is_none() || fits(node, variant) {
                closest = Some(attempt.problems);
            }
        }
        let mut closest = closest.unwrap_or_default();
        let or_a_list = variants.iter().any(|variant| kind(variant) == Some("array"));
        if let [only] = closest.as_mut_slice()
            && or_a_list
            && scalar(node).is_some()
        {
            only.remedy.get_or_insert_with(|| "or give a list: [ … ]".into());
        }
        self.problems.extend(closest);
        None
    }
}

fn known_here(names: &[&str]) -> String {
    format!("known here: {}", names.join(", "))
}

fn scalar(node: &Node) -> Option<&Scalar> {
    match &node.content {
        Content::Scalar(scalar) => Some(scalar),
        _ => None,
    }
}

/// What was found: the text itself where it cannot be a secret, else its kind.
fn shown(node: &Node, schema: &Value) -> String {
    // A text in place of a mapping is often the key itself: `openai: sk-…`.
    let structure = matches!(kind(schema), Some("object" | "array"));
    let secret = schema.get("format").and_then(Value::as_str) == Some("secret");
    match scalar(node) {
        Some(scalar) if !secret && !structure && scalar.written.is_none() && scalar.text.len() <= 40 => {
            format!("`{}`", scalar.text)
        }
        _ => node.found().into(),
    }
}

/// The words that an enumeration allows.
fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return Some(words.iter().filter_map(Value::as_str).collect());
    }
    if let Some(word) = schema.get("const").and_then(Value::as_str) {
        return Some(vec![word]);
    }
    let variants = schema.get("oneOf").or_else(|| schema.get("anyOf"))?.as_array()?;
    let variants = variants.iter().filter(|variant| kind(variant) != Some("null"));
    let all: Option<Vec<_>> = variants.map(words).collect();
    all.map(|all| all.into_iter().flatten().collect())
}

/// The word that an entry of this shape has in `type`.
fn tag(schema: &Value) -> Option<&str> {
    schema.pointer("/properties/type/const").and_then(Value::as_str)
}

/// The schema's type, apart from `null`.
fn kind(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::String(kind) => Some(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        _ => None,
    }
}

fn fits(node: &Node, schema: &Value) -> bool {
    match node.content {
        Content::Map(_) => kind(schema) == Some("object"),
        Content::List(_) => kind(schema) == Some("array"),
        Content::Scalar(_) => !matches!(kind(schema), Some("object" | "array")),
    }
}

/// The schema of keys that are not listed, if there may be any. Absent means none: a key that nobody reads is a slip.
fn allowed(rest: Option<&Value>) -> Option<&Value> {
    rest.filter(|rest| **rest != Value::Bool(false))
}

/// Whether `name:` with nothing behind it is an entry of its own, as in `providers: { openai: }`.
fn is_section(rest: Option<&Value>, schema: &Value) -> bool {
    rest.is_some_and(Value::is_object) && kind(schema) == Some("object")
}

fn one_of(words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match words.as_slice() {
        [word] => word.clone(),
        [start @ .., last] => format!("{} or {last}", start.join(", ")),
        [] => "nothing".into(),
    }
}

/// The value as YAML itself reads it.
fn untyped(node: &Node) -> Value {
    match &node.content {
        Content::List(items) => items.iter().map(untyped).collect(),
        Content::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), untyped(&entry.node))).collect()
        }
        Content::Scalar(scalar) => match scalar.kind() {
            Kind::Null => Value::Null,
            Kind::Bool(value) => value.into(),
            Kind::Unsigned(value) => value.into(),
            Kind::Negative(value) => value.into(),
            Kind::Float(value) => value.into(),
            Kind::Text => scalar.text.as_str().into(),
        },
    }
}

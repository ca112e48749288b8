//! Values under construction: what deltas carry, joined member by member.
//!
//! Strings are joined as they stand in JSON, escapes and all: nothing is decoded, and a surrogate pair that two deltas
//! share becomes whole.

use crate::json::{Kind, Value, write_string};

/// More members or tool calls than this are left out: looking one up is a walk.
const MOST_ENTRIES: usize = 512;

/// What an entry costs besides its bytes.
const ENTRY: usize = 32;

/// Taken once: a provider that repeats them in every delta means the same one.
const ONCE: [&str; 5] = ["role", "id", "type", "name", "index"];

/// Objects whose members are joined. Every other object is one value.
const NESTED: [&str; 4] = ["function_call", "function", "custom", "audio"];

/// How many bytes may still be kept. What did not fit is counted, and nothing fits after that: no text with holes.
#[derive(Debug, Default)]
pub(super) struct Budget {
    left: usize,
    pub(super) left_out: u64,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { left: bytes, left_out: 0 }
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    pub(super) fn take(&mut self, bytes: usize) -> bool {
        if self.left_out == 0 && bytes <= self.left {
            self.left -= bytes;
            return true;
        }
        self.left_out = self.left_out.saturating_add(bytes as u64);
        false
    }
}

/// A value under construction.
#[derive(Debug)]
pub(super) enum Node {
    /// As it came.
    Raw(Vec<u8>),
    /// A string, without its quotes.
    Text(Vec<u8>),
    /// An array, without its brackets.
    List(Vec<u8>),
    /// An object whose members are joined.
    Object(Fields),
    /// Tool calls.
    Calls(Calls),
}

impl Node {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Raw(raw) => raw == b"null" || raw == b"\"\"",
            Self::Text(text) | Self::List(text) => text.is_empty(),
            Self::Object(_) | Self::Calls(_) => false,
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let (open, inside, close) = match self {
            Self::Raw(raw) => return out.extend_from_slice(raw),
            Self::Object(fields) => return fields.write_object(out),
            Self::Calls(calls) => return calls.write(out),
            Self::Text(text) => (b'"', text, b'"'),
            Self::List(list) => (b'[', list, b']'),
        };
        out.push(open);
        out.extend_from_slice(inside);
        out.push(close);
    }

    /// A string that met an array, as one of its elements: `{"type":"text","text":…}`.
    fn into_list(self) -> Vec<u8> {
        match self {
            Self::List(list) => list,
            Self::Text(text) if !text.is_empty() => {
                [b"{\"type\":\"text\",\"text\":\"", &text[..], b"\"}"].concat()
            }
            _ => Vec::new(),
        }
    }
}

/// The members of an object under construction, in order of appearance.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(Box<str>, Node)>);

impl Fields {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|(found, _)| &**found == key).map(|(_, node)| node)
    }

    fn slot(&mut self, key: &str, budget: &mut Budget) -> Option<&mut Node> {
        let at = self.0.iter().position(|(found, _)| &**found == key).unwrap_or(self.0.len());
        if at == self.0.len() {
            if at >= MOST_ENTRIES || !budget.take(key.len() + ENTRY) {
                return None;
            }
            self.0.push((key.into(), Node::Raw(b"null".to_vec())));
        }
        self.0.get_mut(at).map(|(_, node)| node)
    }

    /// Takes over every member of a delta.
    pub(super) fn join(&mut self, delta: Value<'_>, budget: &mut Budget) {
        delta.each_member(|key, value| self.join_member(key, value, budget));
    }

    /// Takes over one member.
    pub(super) fn join_member(&mut self, key: &str, value: Value<'_>, budget: &mut Budget) {
        let Some(node) = self.slot(key, budget) else { return };
        match value.kind() {
            _ if ONCE.contains(&key) => keep_first(node, value, budget),
            Kind::Null => {}
            Kind::String => append_text(node, value.inner().unwrap_or_default(), budget),
            Kind::Array if key == "tool_calls" => {
                if !matches!(node, Node::Calls(_)) {
                    *node = Node::Calls(Calls::default());
                }
                if let Node::Calls(calls) = node {
                    value.each_element(|call| calls.join(call, budget));
                }
            }
            Kind::Array => append_list(node, value, budget),
            Kind::Object if NESTED.contains(&key) => {
                if !matches!(node, Node::Object(_)) {
                    *node = Node::Object(Self::default());
                }
                if let Node::Object(fields) = node {
                    fields.join(value, budget);
                }
            }
            Kind::Object | Kind::Number | Kind::Bool => replace(node, value, budget),
        }
    }

    /// Keeps the first value that is not `null`.
    pub(super) fn keep_first(&mut self, key: &str, value: Value<'_>, budget: &mut Budget) {
        if self.get(key).is_none_or(Node::is_empty)
            && let Some(node) = self.slot(key, budget)
        {
            keep_first(node, value, budget);
        }
    }

    /// Keeps the last value that is not `null`.
    pub(super) fn keep_last(&mut self, key: &str, value: Value<'_>, budget: &mut Budget) {
        if let Some(node) =
            self.slot(key, budget).filter(|node| value.kind() != Kind::Null || node.is_empty())
        {
            replace(node, value, budget);
        }
    }

    /// `"key":value` for each, with commas between.
    pub(super) fn write_members(&self, out: &mut Vec<u8>) {
        for (index, (key, node)) in self.0.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_string(out, key);
            out.push(b':');
            node.write(out);
        }
    }

    pub(super) fn write_object(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_members(out);
        out.push(b'}');
    }
}

fn keep_first(node: &mut Node, value: Value<'_>, budget: &mut Budget) {
    if node.is_empty() {
        replace(node, value, budget);
    }
}

fn replace(node: &mut Node, value: Value<'_>, budget: &mut Budget) {
    // Only growth costs: a value that every chunk repeats is held once.
    let held = if let Node::Raw(raw) = node { raw.len() } else { 0 };
    if value.raw().len() <= held || budget.take(value.raw().len() - held) {
        *node = Node::Raw(value.raw().to_vec());
    }
}

fn append_text(node: &mut Node, text: &[u8], budget: &mut Budget) {
    if !budget.take(text.len()) {
        return;
    }
    match node {
        Node::Text(joined) => joined.extend_from_slice(text),
        Node::List(list) => {
            if !text.is_empty() {
                extend_list(list, &Node::Text(text.to_vec()).into_list());
            }
        }
        _ => *node = Node::Text(text.to_vec()),
    }
}

fn append_list(node: &mut Node, value: Value<'_>, budget: &mut Budget) {
    let raw = value.raw();
    let inside = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default().trim_ascii();
    if !budget.take(inside.len()) {
        return;
    }
    let mut list = std::mem::replace(node, Node::List(Vec::new())).into_list();
    extend_list(&mut list, inside);
    *node = Node::List(list);
}

fn extend_list(list: &mut Vec<u8>, elements: &[u8]) {
    if !list.is_empty() && !elements.is_empty() {
        list.push(b',');
    }
    list.extend_from_slice(elements);
}

/// The tool calls of one choice.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Call>);

#[derive(Debug)]
struct Call {
    index: Option<u64>,
    /// As it stands in JSON; empty when none came yet.
    id: Vec<u8>,
    fields: Fields,
}

impl Calls {
    fn join(&mut self, delta: Value<'_>, budget: &mut Budget) {
        let index = delta.get("index").and_then(Value::count);
        let id = delta.get("id").and_then(Value::inner).unwrap_or_default();
        let at = self.find(index, id).or_else(|| self.begin(index, budget));
        let Some(call) = at.and_then(|at| self.0.get_mut(at)) else { return };
        if call.id.is_empty() {
            call.id = id.to_vec();
        }
        call.fields.join(delta, budget);
    }

    /// The call that a delta continues: the one with its id, else the last one at its index. A new id at a known index
    /// is a new call (some providers send every call with index 0).
    fn find(&self, index: Option<u64>, id: &[u8]) -> Option<usize> {
        let same_index = |call: &Call| index.is_none() || call.index == index;
        if !id.is_empty()
            && let Some(at) = self.0.iter().rposition(|call| call.id == id && same_index(call))
        {
            return Some(at);
        }
        let at = self.0.iter().rposition(same_index)?;
        self.0.get(at).filter(|call| id.is_empty() || call.id.is_empty()).map(|_| at)
    }

    fn begin(&mut self, index: Option<u64>, budget: &mut Budget) -> Option<usize> {
        let at = self.0.len();
        if at >= MOST_ENTRIES || !budget.take(ENTRY) {
            return None;
        }
        let mut fields = Fields::default();
        if index.is_some() && self.0.iter().any(|call| call.index == index) {
            // Repaired: its place stands for the index that another call has.
            fields.0.push(("index".into(), Node::Raw(at.to_string().into_bytes())));
        }
        self.0.push(Call { index, id: Vec::new(), fields });
        Some(at)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (index, call) in self.0.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            call.fields.write_object(out);
        }
        out.push(b']');
    }
}

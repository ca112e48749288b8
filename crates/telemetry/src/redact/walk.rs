//! A walk over a JSON document by spans: shows each string, number and masked value to a visitor, builds nothing.
//!
//! The documents of a record are valid JSON; what is not is [`Malformed`], and its record loses its content.

use std::ops::Range;

use memchr::memchr2;

use super::answer::Answer;
use super::credential::is_secret_name;
use super::paths::{Child, Paths, States};
use super::place::{element_name, mix};
use super::text::unescape;

/// Deeper than any document that assembly lets through.
const MOST_LEVELS: usize = 256;
/// With fewer levels left elements are known by their position: an `index` is looked for across the element, and whatever
/// nests arrays deeper than any dialect would be crossed again and again.
const INDEXED: usize = MOST_LEVELS - 10;

/// Members that tell who, what or which in every dialect.
const LABELS: [&[u8]; 13] = [
    b"id",
    b"name",
    b"type",
    b"role",
    b"object",
    b"model",
    b"status",
    b"item_id",
    b"call_id",
    b"tool_call_id",
    b"tool_use_id",
    b"finish_reason",
    b"stop_reason",
];

/// The document could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A place in the document.
#[derive(Clone, Debug, Default)]
pub(super) struct Here {
    /// Stands for the path; array elements by their `index`, else by their position.
    pub(super) place: u64,
    /// How far the configured paths have come.
    pub(super) states: States,
    /// The name of the member whose value this is, when it is a secret's.
    pub(super) secret_name: Option<Range<usize>>,
    /// It is a name, a number or a word of the dialect, and says nothing.
    pub(super) is_label: bool,
}

/// Text between quotes.
#[derive(Clone, Debug)]
pub(super) struct Inner {
    pub(super) span: Range<usize>,
    pub(super) escaped: bool,
}

/// Looks at what the walk shows, in the order of the document.
pub(super) trait Visitor {
    /// A string value.
    fn string(&mut self, bytes: &[u8], inner: &Inner, here: &Here);
    /// A member's name.
    fn key(&mut self, bytes: &[u8], inner: &Inner);
    /// A number.
    fn number(&mut self, bytes: &[u8], span: Range<usize>);
    /// A value of any kind at a configured path; it is not walked.
    fn masked(&mut self, bytes: &[u8], span: Range<usize>, here: &Here);
    /// Token by token probabilities, which spell the text once more: whether they are taken whole, by [`Self::logprobs`].
    fn takes_logprobs(&self) -> bool {
        false
    }
    /// They stand there, and are not walked.
    fn logprobs(&mut self, _: &[u8], _: Range<usize>) {}
}

/// Shows each string value of a document and nothing else; no path is followed.
pub(super) fn strings(
    document: &[u8],
    place: u64,
    each: impl FnMut(&[u8], &Inner, &Here),
) -> Result<(), Malformed> {
    let root = Here { place, ..Here::default() };
    Walk::new(document, &Paths::default(), true).document(&root, &mut Strings(each))
}

struct Strings<F>(F);

impl<F: FnMut(&[u8], &Inner, &Here)> Visitor for Strings<F> {
    fn string(&mut self, bytes: &[u8], inner: &Inner, here: &Here) {
        (self.0)(bytes, inner, here);
    }

    fn key(&mut self, _: &[u8], _: &Inner) {}

    fn number(&mut self, _: &[u8], _: Range<usize>) {}

    fn masked(&mut self, _: &[u8], _: Range<usize>, _: &Here) {}
}

/// A walk under way.
pub(super) struct Walk<'a, 'p> {
    bytes: &'a [u8],
    at: usize,
    paths: &'p Paths,
    /// Whether places are told apart; else `place` is 0. In events, where array elements are known by their `index`.
    places: bool,
    /// What the outermost object says of its members' places in the answer.
    answer: Option<&'p Answer>,
}

impl<'a, 'p> Walk<'a, 'p> {
    pub(super) fn new(bytes: &'a [u8], paths: &'p Paths, places: bool) -> Self {
        Self { bytes, at: 0, paths, places, answer: None }
    }

    /// Of an event, whose members stand somewhere in the answer.
    pub(super) fn of_event(self, answer: Option<&'p Answer>) -> Self {
        Self { answer, ..self }
    }

    /// Walks the whole document.
    pub(super) fn document(mut self, root: &Here, visitor: &mut impl Visitor) -> Result<(), Malformed> {
        self.value(root, MOST_LEVELS, visitor)?;
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(Malformed) }
    }

    /// Calls `each` with the span of every element of the array that the document is.
    pub(super) fn elements(
        mut self,
        mut each: impl FnMut(Range<usize>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.open(b'[')?;
        if !self.closed(b']') {
            loop {
                let span = self.skip()?;
                each(span)?;
                if self.separator(b']')? {
                    break;
                }
            }
        }
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(Malformed) }
    }

    /// Calls `each` with name and value of every member of the object here, until it says stop.
    pub(super) fn members(
        mut self,
        mut each: impl FnMut(&'a [u8], &'a [u8]) -> bool,
    ) -> Result<(), Malformed> {
        self.open(b'{')?;
        if self.closed(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            let key = self.string()?;
            self.open(b':')?;
            let value = self.skip()?;
            let bytes = self.bytes;
            let goes_on = each(bytes.get(key.span).unwrap_or_default(), bytes.get(value).unwrap_or_default());
            if !goes_on || self.separator(b'}')? {
                return Ok(());
            }
        }
    }

    fn value(&mut self, here: &Here, levels: usize, visitor: &mut impl Visitor) -> Result<(), Malformed> {
        self.space();
        if !here.states.is_empty() && self.paths.end(&here.states) {
            let span = self.skip()?;
            visitor.masked(self.bytes, span, here);
            return Ok(());
        }
        match self.peek() {
            Some(b'"') => {
                let inner = self.string()?;
                visitor.string(self.bytes, &inner, here);
                Ok(())
            }
            Some(b'{') if levels > 0 => self.object(here, levels - 1, visitor),
            Some(b'[') if levels > 0 => self.array(here, levels - 1, visitor),
            Some(b'-' | b'0'..=b'9') => {
                let span = self.scalar();
                visitor.number(self.bytes, span);
                Ok(())
            }
            Some(b't' | b'f' | b'n') => {
                self.scalar();
                Ok(())
            }
            _ => Err(Malformed),
        }
    }

    fn object(&mut self, here: &Here, levels: usize, visitor: &mut impl Visitor) -> Result<(), Malformed> {
        self.open(b'{')?;
        if self.closed(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            let key = self.string()?;
            visitor.key(self.bytes, &key);
            self.open(b':')?;
            self.member(here, &key, levels, visitor)?;
            if self.separator(b'}')? {
                return Ok(());
            }
        }
    }

    fn member(
        &mut self,
        here: &Here,
        key: &Inner,
        levels: usize,
        visitor: &mut impl Visitor,
    ) -> Result<(), Malformed> {
        let raw = self.bytes.get(key.span.clone()).unwrap_or_default();
        let decoded;
        let name = if key.escaped {
            let mut text = Vec::new();
            unescape(raw, &mut text);
            decoded = text;
            decoded.as_slice()
        } else {
            raw
        };
        self.space();
        let spells =
            matches!(name, b"logprobs" | b"logprobsResult") && matches!(self.peek(), Some(b'{' | b'['));
        if spells && visitor.takes_logprobs() {
            let span = self.skip()?;
            visitor.logprobs(self.bytes, span);
            return Ok(());
        }
        let mut states = self.paths.step(&here.states, Child::Name(name));
        if let Some(answer) = self.answer.filter(|_| levels == MOST_LEVELS - 1) {
            states.extend(answer.at(name, self.paths));
        }
        let child = Here {
            place: if self.places { mix(here.place, name) } else { 0 },
            states,
            secret_name: is_secret_name(name).then(|| key.span.clone()),
            is_label: LABELS.contains(&name),
        };
        self.value(&child, levels, visitor)
    }

    fn array(&mut self, here: &Here, levels: usize, visitor: &mut impl Visitor) -> Result<(), Malformed> {
        self.open(b'[')?;
        if self.closed(b']') {
            return Ok(());
        }
        let mut position = 0;
        loop {
            self.space();
            let is_known = self.places || !here.states.is_empty();
            let index = if is_known && levels >= INDEXED { self.element_index(position) } else { position };
            let place = if self.places { mix(here.place, &element_name(index)) } else { 0 };
            let mut states = self.paths.step(&here.states, Child::Index(index));
            if index != position && !self.places {
                states.extend(self.paths.step(&here.states, Child::Index(position)));
            }
            // What stands in the array of a secret's name is one as well.
            let child = Here { place, states, secret_name: here.secret_name.clone(), is_label: false };
            self.value(&child, levels, visitor)?;
            position += 1;
            if self.separator(b']')? {
                return Ok(());
            }
        }
    }

    /// The `index` of the object here, else its position.
    fn element_index(&self, position: usize) -> usize {
        let mut index = position;
        if self.peek() == Some(b'{') {
            let walk = Walk { at: self.at, ..Walk::new(self.bytes, self.paths, false) };
            // What is malformed shows itself when the value is walked.
            let _ = walk.members(|key, value| {
                if key != b"index" {
                    return true;
                }
                let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
                index = digits.fold(0usize, |number, digit| {
                    number.wrapping_mul(10).wrapping_add(usize::from(digit - b'0'))
                });
                false
            });
        }
        index
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    fn open(&mut self, byte: u8) -> Result<(), Malformed> {
        self.space();
        if self.peek() != Some(byte) {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(())
    }

    /// Whether the container that was just opened ends here.
    fn closed(&mut self, close: u8) -> bool {
        self.space();
        let closed = self.peek() == Some(close);
        self.at += usize::from(closed);
        closed
    }

    /// A comma, or the container's end: whether it was the end.
    fn separator(&mut self, close: u8) -> Result<bool, Malformed> {
        self.space();
        let closed = match self.peek() {
            Some(b',') => false,
            Some(byte) if byte == close => true,
            _ => return Err(Malformed),
        };
        self.at += 1;
        Ok(closed)
    }

    fn string(&mut self) -> Result<Inner, Malformed> {
        if self.peek() != Some(b'"') {
            return Err(Malformed);
        }
        let start = self.at + 1;
        let (mut at, mut escaped) = (start, false);
        loop {
            let rest = self.bytes.get(at..).ok_or(Malformed)?;
            let stop = memchr2(b'"', b'\\', rest).ok_or(Malformed)?;
            at += stop;
            if rest.get(stop) == Some(&b'"') {
                self.at = at + 1;
                return Ok(Inner { span: start..at, escaped });
            }
            escaped = true;
            at += 2;
        }
    }

    fn scalar(&mut self) -> Range<usize> {
        let start = self.at;
        while matches!(self.peek(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.')) {
            self.at += 1;
        }
        start..self.at
    }

    /// Crosses a value of any kind.
    fn skip(&mut self) -> Result<Range<usize>, Malformed> {
        self.space();
        let start = self.at;
        let mut level = 0usize;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{' | b'[') => {
                    level += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') if level > 0 => {
                    level -= 1;
                    self.at += 1;
                }
                Some(b',' | b':' | b' ' | b'\n' | b'\t' | b'\r') if level > 0 => self.at += 1,
                Some(b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                    self.scalar();
                }
                _ => return Err(Malformed),
            }
            if level == 0 {
                return Ok(start..self.at);
            }
        }
    }
}

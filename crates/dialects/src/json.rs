//! JSON by spans: finds members and values in a body without building or re-serialising it.
//!
//! The request path reads bodies with this (invariant 1: what is not edited is forwarded byte for byte), and so do the
//! readers of answers. Stated behaviour: duplicate members are all listed; nesting beyond [`MAX_DEPTH`] is an error;
//! numbers stay text; a lone surrogate is valid JSON and decodes to U+FFFD.

mod scan;
#[cfg(test)]
pub(crate) mod tests;
mod text;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use memchr::memchr2;

pub use scan::MAX_DEPTH;
pub(crate) use scan::Scan;
use scan::{Fault, Rigour, Scanner, has_controls};
pub(crate) use text::write_string;

/// A body that is no JSON: where, and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (line {line}, column {column})")]
pub struct JsonError {
    /// Offset in bytes, from 0.
    pub offset: usize,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, in plain words.
    pub reason: &'static str,
}

impl JsonError {
    fn locate(bytes: &[u8], fault: Fault) -> Self {
        let before = bytes.get(..fault.at).unwrap_or(bytes);
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
        let column = before.iter().skip(line_start).filter(|byte| (**byte & 0xc0) != 0x80).count() + 1;
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        Self { offset: fault.at, line, column, reason: fault.reason }
    }
}

/// One member of an object. Spans count from the start of the bytes that were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// The name, escapes decoded.
    pub key: Cow<'a, str>,
    /// Where the name stands, quotes included.
    pub key_span: Range<usize>,
    /// Where the value stands, without the white space around it.
    pub value: Range<usize>,
}

/// What sort of value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number, of any size
    Number,
    /// A string
    String,
    /// An array
    Array,
    /// An object
    Object,
}

impl Kind {
    /// The kind of the value at `span`, by its first byte.
    pub fn of(bytes: &[u8], span: &Range<usize>) -> Self {
        match bytes.get(span.start) {
            Some(b'"') => Self::String,
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b't' | b'f') => Self::Bool,
            Some(b'-' | b'0'..=b'9') => Self::Number,
            _ => Self::Null,
        }
    }
}

/// With its article, for messages.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

/// Checks the encoding, and finds out whether strings must be looked at for control characters.
fn prepare(bytes: &[u8]) -> Scan<Rigour> {
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(Fault { at: error.valid_up_to(), reason: "this byte is no UTF-8" });
    }
    Ok(if has_controls(bytes) { Rigour::Exact } else { Rigour::NoControls })
}

/// The members of the object that `body` is, in order, duplicates included. The whole body is validated.
pub fn members(body: &[u8]) -> Result<Vec<Member<'_>>, JsonError> {
    let read = || {
        let mut scanner = Scanner::new(body, 0, prepare(body)?);
        let mut found = Vec::with_capacity(16);
        scanner.space();
        scanner.object(|scanner, key, escaped| {
            found.push(member(body, scanner, key, escaped)?);
            Ok(())
        })?;
        scanner.space();
        if scanner.peek().is_some() { scanner.fault("expected the end of the body") } else { Ok(found) }
    };
    read().map_err(|fault| JsonError::locate(body, fault))
}

/// The members of the object at `span` of a body that [`members`] accepted.
pub fn members_of<'a>(body: &'a [u8], span: &Range<usize>) -> Result<Vec<Member<'a>>, JsonError> {
    let mut found = Vec::new();
    let whole = Scanner::new(body, span.start, Rigour::NoControls).object(|scanner, key, escaped| {
        found.push(member(body, scanner, key, escaped)?);
        Ok(())
    });
    whole.map(|()| found).map_err(|fault| JsonError::locate(body, fault))
}

/// The spans of the elements of the array at `span` of a body that [`members`] accepted.
pub fn elements_of(body: &[u8], span: &Range<usize>) -> Result<Vec<Range<usize>>, JsonError> {
    let mut found = Vec::new();
    let whole = Scanner::new(body, span.start, Rigour::NoControls).array(|scanner| {
        found.push(scanner.span()?);
        Ok(())
    });
    whole.map(|()| found).map_err(|fault| JsonError::locate(body, fault))
}

/// Crosses a value and makes it a member.
fn member<'a>(
    body: &'a [u8],
    scanner: &mut Scanner<'_>,
    key_span: Range<usize>,
    escaped: bool,
) -> Scan<Member<'a>> {
    Ok(Member { key: key_text(body, &key_span, escaped), key_span, value: scanner.span()? })
}

fn key_text<'a>(bytes: &'a [u8], span: &Range<usize>, escaped: bool) -> Cow<'a, str> {
    let inner = inner(bytes, span).unwrap_or_default();
    if escaped {
        return text::unescape(inner).into();
    }
    std::str::from_utf8(inner).map_or_else(|_| String::from_utf8_lossy(inner), Cow::Borrowed)
}

/// What stands between the quotes of the string at `span`; `None` when no string stands there.
fn inner<'a>(bytes: &'a [u8], span: &Range<usize>) -> Option<&'a [u8]> {
    bytes.get(span.clone())?.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// The text of the string at `span`; `None` for another kind of value. A lone surrogate becomes U+FFFD.
pub fn read_string(bytes: &[u8], span: &Range<usize>) -> Option<String> {
    inner(bytes, span).map(text::unescape)
}

/// The boolean at `span`; `None` for another kind of value.
pub fn read_bool(bytes: &[u8], span: &Range<usize>) -> Option<bool> {
    match bytes.get(span.clone())? {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// Whether `bytes` are one JSON value of any kind (RFC 8259, UTF-8, at most [`MAX_DEPTH`] deep).
pub fn valid(bytes: &[u8]) -> bool {
    let Ok(rigour) = prepare(bytes) else { return false };
    let mut scanner = Scanner::new(bytes, 0, rigour);
    scanner.space();
    if scanner.value(0).is_err() {
        return false;
    }
    scanner.space();
    scanner.peek().is_none()
}

/// Valid JSON on one line: raw line breaks, which stand between tokens only, become spaces.
pub fn one_line(bytes: &[u8]) -> Cow<'_, [u8]> {
    if memchr2(b'\n', b'\r', bytes).is_none() {
        return Cow::Borrowed(bytes);
    }
    Cow::Owned(bytes.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect())
}

/// A value somewhere in the bytes of an answer. Reading it is tolerant: what is not there, or of another kind, is
/// nothing. Numbers in arrays are not validated.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    /// The value that `bytes` begin with.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.trim_ascii())
    }

    /// Its bytes.
    pub(crate) fn raw(self) -> &'a [u8] {
        self.0
    }

    /// Its kind.
    pub(crate) fn kind(self) -> Kind {
        Kind::of(self.0, &(0..self.0.len()))
    }

    /// Calls `each` for every member; `false` when this is no object or breaks off.
    pub(crate) fn each_member(self, mut each: impl FnMut(&str, Value<'a>)) -> bool {
        self.read(|cursor| cursor.members(|key, cursor| cursor.value().map(|value| each(key, value))))
    }

    /// Calls `each` for every element; `false` when this is no array or breaks off.
    pub(crate) fn each_element(self, mut each: impl FnMut(Value<'a>)) -> bool {
        self.read(|cursor| cursor.elements(|cursor| cursor.value().map(&mut each)))
    }

    /// Reads it in one go, without crossing anything twice; `false` when it breaks off or something follows it.
    pub(crate) fn read(self, read: impl FnOnce(&mut Cursor<'a>) -> Scan<()>) -> bool {
        let mut cursor = Cursor { bytes: self.0, scanner: Scanner::new(self.0, 0, Rigour::Loose) };
        read(&mut cursor).is_ok() && cursor.scanner.pos() == self.0.len()
    }

    /// The last member of that name.
    pub(crate) fn get(self, name: &str) -> Option<Value<'a>> {
        let mut found = None;
        self.each_member(|key, value| {
            if key == name {
                found = Some(value);
            }
        });
        found
    }

    /// Its text, when it is a string.
    pub(crate) fn text(self) -> Option<String> {
        read_string(self.0, &(0..self.0.len()))
    }

    /// Its text when it is a string that is not empty.
    pub(crate) fn some_text(self) -> Option<String> {
        self.text().filter(|text| !text.is_empty())
    }

    /// What stands between the quotes, not decoded.
    pub(crate) fn inner(self) -> Option<&'a [u8]> {
        inner(self.0, &(0..self.0.len()))
    }

    /// The count that it is: 0 or more. A fraction is rounded; what is negative or too large for an integer is nothing.
    pub(crate) fn count(self) -> Option<u64> {
        let text = std::str::from_utf8(self.0).ok()?;
        if let Ok(whole) = text.parse::<u64>() {
            return Some(whole);
        }
        let number = self.number()?;
        #[allow(clippy::cast_sign_loss, reason = "it is in the range of the type")]
        (0.0..u64::MAX as f64).contains(&number).then_some(number.round() as u64)
    }

    /// The number that it is, when it is a finite one.
    pub(crate) fn number(self) -> Option<f64> {
        if self.kind() != Kind::Number {
            return None;
        }
        std::str::from_utf8(self.0).ok()?.parse::<f64>().ok().filter(|number| number.is_finite())
    }

    /// Whether it says anything: not `null`, `false`, 0, `""`, `[]` or `{}`.
    pub(crate) fn says_something(self) -> bool {
        match self.kind() {
            Kind::Null => false,
            Kind::Bool => self.0 == b"true",
            Kind::Number => self.number() != Some(0.0),
            Kind::String => self.0.len() > 2,
            Kind::Array | Kind::Object => self
                .0
                .get(1..self.0.len().saturating_sub(1))
                .is_some_and(|inside| !inside.trim_ascii().is_empty()),
        }
    }
}

/// Reads a value from front to back.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    scanner: Scanner<'a>,
}

impl<'a> Cursor<'a> {
    /// Crosses the value here and gives it.
    pub(crate) fn value(&mut self) -> Scan<Value<'a>> {
        let span = self.scanner.span()?;
        Ok(Value(self.bytes.get(span).unwrap_or_default()))
    }

    /// Reads the object here; `each` must cross the value of every name.
    pub(crate) fn members(&mut self, mut each: impl FnMut(&str, &mut Self) -> Scan<()>) -> Scan<()> {
        let bytes = self.bytes;
        self.scanner.object(|scanner, key, escaped| {
            let key = key_text(bytes, &key, escaped);
            // The scanner is lent to a cursor for the time of the call.
            let mut inner = Self { bytes, scanner: scanner.clone() };
            each(&key, &mut inner)?;
            *scanner = inner.scanner;
            Ok(())
        })
    }

    /// Reads the array here; `each` must cross every element.
    pub(crate) fn elements(&mut self, mut each: impl FnMut(&mut Self) -> Scan<()>) -> Scan<()> {
        let bytes = self.bytes;
        self.scanner.array(|scanner| {
            let mut inner = Self { bytes, scanner: scanner.clone() };
            each(&mut inner)?;
            *scanner = inner.scanner;
            Ok(())
        })
    }

    /// Whether an object stands here.
    pub(crate) fn at_object(&self) -> bool {
        self.scanner.peek() == Some(b'{')
    }

    /// Whether an array stands here.
    pub(crate) fn at_array(&self) -> bool {
        self.scanner.peek() == Some(b'[')
    }
}

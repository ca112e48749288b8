//! The scanner below the JSON reader: one pass over bytes, no allocation, no recursion.
//!
//! Strings are crossed with vector search, so a body that is mostly text costs little more than reading it once.

use std::ops::Range;

use memchr::{memchr2, memchr3};

/// How deep values may nest: the same 127 levels that `serde_json` reads, so that what passes here is readable there.
pub const MAX_DEPTH: usize = 127;

/// Where the scan stopped, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Offset of the byte at fault.
    pub(crate) at: usize,
    /// What was expected, in plain words.
    pub(crate) reason: &'static str,
}

/// What the scan of something gives.
pub(crate) type Scan<T> = Result<T, Fault>;

/// How much the scanner refuses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rigour {
    /// Everything that is no JSON, raw control characters in strings among it.
    Exact,
    /// As `Exact`, for bytes that are known to hold no control character at all.
    NoControls,
    /// Answers of providers: arrays that start with a number are crossed without reading their numbers.
    Loose,
}

/// A cursor over JSON text.
#[derive(Clone)]
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    pos: usize,
    rigour: Rigour,
}

/// Whether any byte is below 0x20. No early exit inside a block, so that the compiler can use vectors.
pub(crate) fn has_controls(bytes: &[u8]) -> bool {
    bytes.chunks(256).any(|block| block.iter().fold(u8::MAX, |least, byte| least.min(*byte)) < 0x20)
}

/// The first quote or backslash. Names and short texts are over within two words, which costs less than the call of a
/// vector search.
fn quote_or_backslash(text: &[u8]) -> Option<usize> {
    const LOW: u64 = u64::MAX / 255;
    const HIGH: u64 = LOW << 7;
    let zero_bytes = |word: u64| word.wrapping_sub(LOW) & !word & HIGH;
    let (words, _) = text.as_chunks::<8>();
    for (index, word) in words.iter().take(2).enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest mark is exact; higher ones may be borrowed.
        let marks = zero_bytes(word ^ (LOW * 0x22)) | zero_bytes(word ^ (LOW * 0x5c));
        if marks != 0 {
            return Some(index * 8 + marks.trailing_zeros() as usize / 8);
        }
    }
    let rest = text.get(16..).map_or((0, text), |rest| (16, rest));
    memchr2(b'"', b'\\', rest.1).map(|at| rest.0 + at)
}

impl<'a> Scanner<'a> {
    /// A cursor at `pos`.
    pub(crate) fn new(bytes: &'a [u8], pos: usize, rigour: Rigour) -> Self {
        Self { bytes, pos, rigour }
    }

    /// Where the cursor stands.
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    /// A fault here.
    pub(crate) fn fault<T>(&self, reason: &'static str) -> Scan<T> {
        Err(Fault { at: self.pos, reason })
    }

    /// The next byte, not consumed.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    /// Consumes `byte` if it is next.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.pos += usize::from(found);
        found
    }

    /// Crosses white space.
    pub(crate) fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.pos += 1;
        }
    }

    /// Crosses a string; tells whether it holds an escape.
    pub(crate) fn string(&mut self) -> Scan<bool> {
        let open = self.pos;
        if !self.take(b'"') {
            return self.fault("expected a string");
        }
        let mut escaped = false;
        loop {
            let rest = self.bytes.get(self.pos..).unwrap_or_default();
            let Some(found) = quote_or_backslash(rest) else {
                return Err(Fault { at: open, reason: "this string has no end" });
            };
            self.pos += found;
            if self.take(b'"') {
                break;
            }
            escaped = true;
            self.escape()?;
        }
        if self.rigour == Rigour::Exact {
            let text = self.bytes.get(open..self.pos).unwrap_or_default();
            if let Some(at) = has_controls(text).then(|| text.iter().position(|byte| *byte < 0x20)).flatten()
            {
                return Err(Fault {
                    at: open + at,
                    reason: "control characters in a string must be escaped",
                });
            }
        }
        Ok(escaped)
    }

    fn escape(&mut self) -> Scan<()> {
        let rest = self.bytes.get(self.pos + 1..).unwrap_or_default();
        match rest.first() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.pos += 2,
            Some(b'u') if rest.get(1..5).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) => {
                self.pos += 6;
            }
            Some(b'u') => return self.fault("expected four hexadecimal digits after `\\u`"),
            _ => return self.fault("no such escape"),
        }
        Ok(())
    }

    fn digits(&mut self) -> Scan<()> {
        let from = self.pos;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.pos += 1;
        }
        if self.pos == from { self.fault("expected a digit") } else { Ok(()) }
    }

    fn number(&mut self) -> Scan<()> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn literal(&mut self, word: &'static [u8], reason: &'static str) -> Scan<()> {
        if !self.bytes.get(self.pos..).unwrap_or_default().starts_with(word) {
            return self.fault(reason);
        }
        self.pos += word.len();
        Ok(())
    }

    /// Crosses a key, its colon and the white space around; tells whether the key holds an escape.
    pub(crate) fn key(&mut self) -> Scan<(Range<usize>, bool)> {
        if self.peek() != Some(b'"') {
            return self.fault("expected a member name in double quotes");
        }
        let from = self.pos;
        let escaped = self.string()?;
        let span = from..self.pos;
        self.space();
        if !self.take(b':') {
            return self.fault("expected `:`");
        }
        self.space();
        Ok((span, escaped))
    }

    /// Crosses the object at the cursor: `each` is given every name (its span, and whether it holds an escape) and must
    /// cross the value. Nesting is counted from here.
    pub(crate) fn object(
        &mut self,
        mut each: impl FnMut(&mut Self, Range<usize>, bool) -> Scan<()>,
    ) -> Scan<()> {
        if !self.take(b'{') {
            return self.fault("expected an object");
        }
        self.space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let (key, escaped) = self.key()?;
            each(self, key, escaped)?;
            self.space();
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return self.fault("expected `,` or `}`");
            }
            self.space();
        }
    }

    /// Crosses the array at the cursor: `each` must cross every element.
    pub(crate) fn array(&mut self, mut each: impl FnMut(&mut Self) -> Scan<()>) -> Scan<()> {
        if !self.take(b'[') {
            return self.fault("expected an array");
        }
        self.space();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            each(self)?;
            self.space();
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return self.fault("expected `,` or `]`");
            }
            self.space();
        }
    }

    /// Crosses a value inside an object or an array; gives its span.
    pub(crate) fn span(&mut self) -> Scan<Range<usize>> {
        let from = self.pos;
        self.value(1)?;
        Ok(from..self.pos)
    }

    /// Crosses the value at the cursor, whatever it is; `outer` is the nesting that stands around it.
    pub(crate) fn value(&mut self, outer: usize) -> Scan<()> {
        let mut nest = Nest { kinds: 0, level: 0, most: MAX_DEPTH.saturating_sub(outer) };
        loop {
            match self.peek() {
                Some(b'"') => drop(self.string()?),
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b'{') => {
                    if self.open_object(&mut nest)? {
                        continue;
                    }
                }
                Some(b'[') => {
                    if self.open_array(&mut nest)? {
                        continue;
                    }
                }
                Some(b't') => self.literal(b"true", "expected `true`")?,
                Some(b'f') => self.literal(b"false", "expected `false`")?,
                Some(b'n') => self.literal(b"null", "expected `null`")?,
                Some(_) => return self.fault("expected a value"),
                None => return self.fault("expected a value, found the end"),
            }
            if !self.after_value(&mut nest)? {
                return Ok(());
            }
        }
    }

    /// Enters an object up to its first value; `false` when it is empty and already crossed.
    fn open_object(&mut self, nest: &mut Nest) -> Scan<bool> {
        nest.check(self)?;
        self.pos += 1;
        self.space();
        if self.take(b'}') {
            return Ok(false);
        }
        nest.push(true);
        self.key()?;
        Ok(true)
    }

    /// Enters an array up to its first value; `false` when it is already crossed.
    fn open_array(&mut self, nest: &mut Nest) -> Scan<bool> {
        nest.check(self)?;
        self.pos += 1;
        self.space();
        if self.take(b']') || (self.rigour == Rigour::Loose && self.cross_numbers()) {
            return Ok(false);
        }
        nest.push(false);
        Ok(true)
    }

    /// An embedding is megabytes of numbers: with a number first and neither quote nor bracket before the next `]`,
    /// that is where the array ends.
    fn cross_numbers(&mut self) -> bool {
        if !matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
            return false;
        }
        let rest = self.bytes.get(self.pos..).unwrap_or_default();
        match memchr3(b']', b'"', b'[', rest) {
            Some(end) if rest.get(end) == Some(&b']') => {
                self.pos += end + 1;
                true
            }
            _ => false,
        }
    }

    /// Crosses what may follow a value; `false` when the outermost one is done.
    fn after_value(&mut self, nest: &mut Nest) -> Scan<bool> {
        while nest.level > 0 {
            self.space();
            let object = nest.in_object();
            match (self.peek(), object) {
                (Some(b','), true) => {
                    self.pos += 1;
                    self.space();
                    self.key()?;
                    return Ok(true);
                }
                (Some(b','), false) => {
                    self.pos += 1;
                    self.space();
                    return Ok(true);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.pos += 1;
                    nest.pop();
                }
                (_, true) => return self.fault("expected `,` or `}`"),
                (_, false) => return self.fault("expected `,` or `]`"),
            }
        }
        Ok(false)
    }
}

/// The open objects (1) and arrays (0), the innermost in the lowest bit: the depth limit fits one integer.
struct Nest {
    kinds: u128,
    level: usize,
    most: usize,
}

impl Nest {
    fn check(&self, at: &Scanner<'_>) -> Scan<()> {
        if self.level >= self.most { at.fault("nested deeper than 127 levels") } else { Ok(()) }
    }

    fn push(&mut self, object: bool) {
        self.kinds = (self.kinds << 1) | u128::from(object);
        self.level += 1;
    }

    fn pop(&mut self) {
        self.kinds >>= 1;
        self.level -= 1;
    }

    fn in_object(&self) -> bool {
        self.kinds & 1 == 1
    }
}

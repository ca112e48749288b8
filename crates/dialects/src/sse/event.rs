//! One event: its fields, read from its bytes.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// What may stand before the first event.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// One event as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// All its bytes, the blank line included. (The LF of a CRLF that a chunk's end cut off may be missing; it follows
    /// its event.) Empty when the event is oversize.
    pub raw: &'a [u8],
    /// The last `event:` field.
    pub name: Option<&'a [u8]>,
    /// The last `id:` field.
    pub id: Option<&'a [u8]>,
    /// The `data:` fields, joined with LF.
    pub data: Cow<'a, [u8]>,
    /// Whether any `data:` field is there.
    pub has_data: bool,
    /// Whether it holds comments and nothing else.
    pub is_comment_only: bool,
    /// Whether it was larger than the framer holds: it has been relayed as read, so the verdict has no effect.
    pub oversize: bool,
    /// Whether it was also too large to be set aside: nothing but the name is known.
    pub unread: bool,
    /// `false` for the last event of a stream that ended without the blank line: it may be whole, or cut anywhere.
    pub terminated: bool,
}

/// What is known of an event over both limits.
pub(super) fn unread_event(name: Option<&[u8]>, terminated: bool) -> Event<'_> {
    Event {
        raw: b"",
        name,
        id: None,
        data: Cow::Borrowed(b""),
        has_data: true,
        is_comment_only: false,
        oversize: true,
        unread: true,
        terminated,
    }
}

/// Reads the fields of one event.
pub(super) fn parse(raw: &[u8], at_start: bool) -> Event<'_> {
    let mut event = Event {
        raw,
        name: None,
        id: None,
        data: Cow::Borrowed(b""),
        has_data: false,
        is_comment_only: false,
        oversize: false,
        unread: false,
        terminated: true,
    };
    let (mut comments, mut fields) = (false, false);
    let mut rest = if at_start { raw.strip_prefix(BOM).unwrap_or(raw) } else { raw };
    while !rest.is_empty() {
        let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let (line, behind) = rest.split_at(end);
        rest = behind.strip_prefix(b"\r\n").or_else(|| behind.get(1..)).unwrap_or_default();
        match line.first() {
            None => {}
            Some(b':') => comments = true,
            Some(_) => {
                fields = true;
                field(&mut event, line);
            }
        }
    }
    event.is_comment_only = comments && !fields;
    event
}

fn field<'a>(event: &mut Event<'a>, line: &'a [u8]) {
    let (name, value) = match memchr(b':', line) {
        Some(colon) => (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default()),
        None => (line, &[][..]),
    };
    let value = value.strip_prefix(b" ").unwrap_or(value);
    match name {
        b"data" if event.has_data => {
            let data = event.data.to_mut();
            data.push(b'\n');
            data.extend_from_slice(value);
        }
        b"data" => {
            event.has_data = true;
            event.data = Cow::Borrowed(value);
        }
        b"event" => event.name = Some(value),
        b"id" => event.id = Some(value),
        _ => {}
    }
}

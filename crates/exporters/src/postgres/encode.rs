//! Records as rows of a binary `COPY`: bodies go into it as they are, nothing is escaped.
//!
//! PostgreSQL's `jsonb` refuses two things that JSON allows: the character 0 and half of a surrogate pair. Each becomes
//! U+FFFD, which is as long when escaped, and the row says how many there were (`metadata.characters_replaced`).

use magicapi_plugin::RequestMetrics;
use memchr::memmem;

use crate::document::milliseconds;

/// Signature, flags, and no extension.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Says that no row follows.
pub(super) const TRAILER: &[u8] = &(-1_i16).to_be_bytes();
/// What the server can hold in one `jsonb`, in bytes: its offsets have 28 bits.
pub(super) const LARGEST: usize = 0x0FFF_FFFF;
/// From 1970 to 2000, where the server's time begins, in microseconds.
const EPOCH: i64 = 946_684_800_000_000;

/// Adds one row: `record_id`, `timestamp`, `log_data`, `ttfb`, `latency`.
pub(super) fn row(out: &mut Vec<u8>, record: &RequestMetrics) {
    out.extend(5_i16.to_be_bytes());
    field(out, record.id().to_string().as_bytes());
    let micros = i64::try_from(milliseconds(record)).unwrap_or(i64::MAX).saturating_mul(1000);
    field(out, &micros.saturating_sub(EPOCH).to_be_bytes());
    document(out, record);
    match record.facts().ttfb_ms {
        Some(ttfb) => field(out, &integer(ttfb)),
        None => out.extend((-1_i32).to_be_bytes()),
    }
    field(out, &integer(record.facts().latency_ms));
}

/// Whether the server can hold the record's document.
pub(super) fn fits(record: &RequestMetrics) -> bool {
    record.otel_log_len() < LARGEST
}

fn field(out: &mut Vec<u8>, value: &[u8]) {
    out.extend(length(value.len()));
    out.extend_from_slice(value);
}

fn length(bytes: usize) -> [u8; 4] {
    i32::try_from(bytes).unwrap_or(i32::MAX).to_be_bytes()
}

/// A column `INTEGER` ends at 24 days; the document has the true number.
fn integer(milliseconds: u64) -> [u8; 4] {
    i32::try_from(milliseconds).unwrap_or(i32::MAX).to_be_bytes()
}

/// The document, with the version byte of `jsonb` before it.
fn document(out: &mut Vec<u8>, record: &RequestMetrics) {
    let at = out.len();
    out.extend([0, 0, 0, 0, 1]);
    let mut replaced = 0;
    for piece in record.otel_log_pieces() {
        let begin = out.len();
        out.extend_from_slice(piece);
        replaced += out.get_mut(begin..).map_or(0, replace);
    }
    // `metadata` is the last object of the document, within `attributes`.
    if replaced > 0 && out.ends_with(b"}}}") {
        out.truncate(out.len() - 3);
        out.extend_from_slice(format!(",\"characters_replaced\":{replaced}}}}}}}").as_bytes());
    }
    let written = length(out.len() - at - 4);
    if let Some(field) = out.get_mut(at..at + 4) {
        field.copy_from_slice(&written);
    }
}

/// Replaces what `jsonb` refuses; how often.
fn replace(json: &mut [u8]) -> u64 {
    let wrong: Vec<usize> = {
        let json = &*json;
        let escapes = memmem::find_iter(json, b"\\u").filter(|at| is_escape(json, *at));
        let mut after_pair = None;
        escapes
            .filter(|at| match code(json, *at) {
                _ if after_pair == Some(*at) => false,
                Some(0xD800..=0xDBFF) if matches!(code(json, at + 6), Some(0xDC00..=0xDFFF)) => {
                    after_pair = Some(at + 6);
                    false
                }
                Some(0 | 0xD800..=0xDFFF) => true,
                _ => false,
            })
            .collect()
    };
    for at in &wrong {
        if let Some(escape) = json.get_mut(*at..at + 6) {
            escape.copy_from_slice(b"\\ufffd");
        }
    }
    wrong.len() as u64
}

/// Whether the backslash there begins an escape, and is not the second half of an escaped backslash.
fn is_escape(json: &[u8], at: usize) -> bool {
    let before = json.get(..at).unwrap_or_default();
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0
}

/// The number of the escape `\uXXXX` that begins there.
fn code(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

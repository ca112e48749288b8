//! JSON strings decoded, and written back with some of their text replaced.
//!
//! A replacement changes exactly the text that was found: what stands beside it keeps its bytes, escapes included.

use memchr::memchr;

/// Text `start..end` (decoded, in bytes) and what stands in its place, which needs no escaping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) with: String,
}

/// One escape: its length as written, and the UTF-8 that it stands for. A lone surrogate is U+FFFD.
struct Escape {
    raw: usize,
    utf8: [u8; 4],
    length: usize,
}

impl Escape {
    /// `raw` begins with a backslash.
    fn read(raw: &[u8]) -> Self {
        let one = |byte: u8| Self { raw: 2.min(raw.len()), utf8: [byte, 0, 0, 0], length: 1 };
        match raw.get(1) {
            Some(b'n') => one(b'\n'),
            Some(b't') => one(b'\t'),
            Some(b'r') => one(b'\r'),
            Some(b'b') => one(0x08),
            Some(b'f') => one(0x0c),
            Some(b'u') => Self::unicode(raw),
            Some(byte) => one(*byte),
            None => one(b'\\'),
        }
    }

    fn unicode(raw: &[u8]) -> Self {
        let (mut length, mut code) = (6.min(raw.len()), unit(raw).unwrap_or(0xfffd));
        if (0xd800..0xdc00).contains(&code) {
            let low = raw.get(6..).filter(|rest| rest.starts_with(b"\\u")).and_then(unit);
            if let Some(low) = low.filter(|low| (0xdc00..0xe000).contains(low)) {
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                length = 12;
            }
        }
        let mut utf8 = [0; 4];
        let written = char::from_u32(code).unwrap_or('\u{fffd}').encode_utf8(&mut utf8).len();
        Self { raw: length, utf8, length: written }
    }

    fn text(&self) -> &[u8] {
        self.utf8.get(..self.length).unwrap_or_default()
    }
}

/// The code unit of `\uXXXX`.
fn unit(raw: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(raw.get(2..6)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

/// Appends the text of a string to `out`; `raw` is what stands between its quotes.
pub(super) fn unescape(mut raw: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr(b'\\', raw) {
        let (plain, rest) = raw.split_at(at);
        out.extend_from_slice(plain);
        let escape = Escape::read(rest);
        out.extend_from_slice(escape.text());
        raw = rest.get(escape.raw..).unwrap_or_default();
    }
    out.extend_from_slice(raw);
}

/// Appends `raw` to `out` with `spans` replaced. `base` is where its text begins in the text that spans count in; what a
/// span covers before or after this piece is not looked at. A replacement stands where its span begins.
pub(super) fn replace(mut raw: &[u8], base: usize, spans: &[Span], out: &mut Vec<u8>) {
    let mut at = base;
    let first = spans.partition_point(|span| span.end <= base);
    let mut spans = spans.get(first..).unwrap_or_default().iter().peekable();
    while !raw.is_empty() {
        let plain = memchr(b'\\', raw).unwrap_or(raw.len());
        let (segment, rest) = raw.split_at(plain);
        let mut done = 0;
        while let Some(span) = spans.peek().filter(|span| span.start < at + plain) {
            let from = span.start.saturating_sub(at).max(done);
            out.extend_from_slice(segment.get(done..from).unwrap_or_default());
            if span.start >= at + done {
                out.extend_from_slice(span.with.as_bytes());
            }
            done = (span.end - at).min(plain);
            if span.end > at + plain {
                break;
            }
            spans.next();
        }
        out.extend_from_slice(segment.get(done..).unwrap_or_default());
        at += plain;
        raw = rest;
        if raw.is_empty() {
            break;
        }
        let escape = Escape::read(raw);
        let end = at + escape.length;
        let mut covered = false;
        while let Some(span) = spans.peek().filter(|span| span.start < end) {
            covered = true;
            if span.start >= at {
                out.extend_from_slice(span.with.as_bytes());
            }
            if span.end > end {
                break;
            }
            spans.next();
        }
        if !covered {
            out.extend_from_slice(raw.get(..escape.raw).unwrap_or_default());
        }
        at = end;
        raw = raw.get(escape.raw..).unwrap_or_default();
    }
}

/// Replaces the spans of a text that is no JSON.
pub(super) fn replace_plain(text: &mut String, spans: &[Span]) {
    for span in spans.iter().rev() {
        // Findings end at borders of characters, so this replaces just them.
        if text.is_char_boundary(span.start) && text.is_char_boundary(span.end) {
            text.replace_range(span.start..span.end, &span.with);
        } else {
            text.clear();
            return;
        }
    }
}

/// Whether this is a long run of base64, such as audio or an image: no text, and no place for a secret.
pub(super) fn is_base64(text: &[u8]) -> bool {
    const SHORTEST: usize = 1024;
    if text.len() < SHORTEST {
        return false;
    }
    let data = match text.strip_prefix(b"data:") {
        Some(_) => match memchr::memmem::find(text.get(..256).unwrap_or_default(), b";base64,") {
            Some(at) => text.get(at + 8..).unwrap_or_default(),
            None => return false,
        },
        None => text,
    };
    let data = data.strip_suffix(b"=").unwrap_or(data);
    let data = data.strip_suffix(b"=").unwrap_or(data);
    // In pieces, so that prose is told at its first space, and without a branch per byte.
    data.chunks(64).all(|piece| piece.iter().fold(true, |all, byte| all & is_base64_byte(*byte)))
}

fn is_base64_byte(byte: u8) -> bool {
    (byte | 0x20).wrapping_sub(b'a') < 26 || byte.wrapping_sub(b'/') <= b'9' - b'/' || byte == b'+'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Span, is_base64, replace, unescape};

    fn text(raw: &str) -> String {
        let mut out = Vec::new();
        unescape(raw.as_bytes(), &mut out);
        String::from_utf8(out).expect("utf-8")
    }

    #[test]
    fn escapes_are_decoded() {
        assert_eq!(text(r#"a\n\t\"\\\/\u0041\u00e9\ud83d\ude00 \ud83d."#), "a\n\t\"\\/Aé😀 \u{fffd}.");
    }

    #[test]
    fn what_is_not_replaced_keeps_its_bytes() {
        let raw = br"\u0041b\n\ud83d\ude00xyz";
        let spans =
            [Span { start: 1, end: 3, with: "#".into() }, Span { start: 8, end: 9, with: "!".into() }];
        let mut out = Vec::new();
        replace(raw, 0, &spans, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), r"\u0041#\ud83d\ude00x!z");
    }

    #[test]
    fn data_is_no_text() {
        let data = "QUJDREVG".repeat(200);
        assert!(is_base64(data.as_bytes()));
        assert!(is_base64(format!("data:image/png;base64,{data}==").as_bytes()));
        assert!(!is_base64(format!("{data} sk-x").as_bytes()));
        assert!(!is_base64(b"QUJDREVG"));
    }

    proptest! {
        /// Pieces of a text give together what the text gives in one piece.
        #[test]
        fn pieces_agree_with_the_whole(
            text in "[a-cé\n\"]{1,40}",
            cuts in prop::collection::vec(0usize..60, 0..4),
            ends in prop::collection::btree_set(0usize..50, 0..6),
        ) {
            let ends: Vec<usize> =
                ends.into_iter().filter(|at| *at <= text.len() && text.is_char_boundary(*at)).collect();
            let spans: Vec<Span> = ends
                .chunks_exact(2)
                .map(|pair| Span { start: pair[0], end: pair[1], with: "#".into() })
                .collect();
            let mut expected = String::new();
            let mut done = 0;
            for span in &spans {
                expected.push_str(&text[done..span.start]);
                expected.push('#');
                done = span.end;
            }
            expected.push_str(&text[done..]);
            let mut cuts: Vec<usize> =
                cuts.into_iter().filter(|at| *at <= text.len() && text.is_char_boundary(*at)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut got = Vec::new();
            for pair in cuts.windows(2) {
                let piece = serde_json::to_string(&text[pair[0]..pair[1]]).expect("json");
                let mut out = Vec::new();
                replace(&piece.as_bytes()[1..piece.len() - 1], pair[0], &spans, &mut out);
                unescape(&out, &mut got);
            }
            prop_assert_eq!(String::from_utf8(got).expect("utf-8"), expected);
        }
    }
}

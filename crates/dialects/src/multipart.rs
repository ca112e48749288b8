//! Finds the parts of a multipart body (RFC 2046, RFC 7578) for the record and for the model name. The body itself
//! is forwarded as it came.

use std::ops::Range;

use memchr::memmem;

/// More parts than this are not listed: a record is no place for a million empty parts.
const MOST_PARTS: usize = 1024;

/// One part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The field's name; empty when the part has none.
    pub name: String,
    /// The file's name, when it is a file.
    pub filename: Option<String>,
    /// The part's own media type.
    pub content_type: Option<String>,
    /// Where its headers stand in the body, with the empty line.
    pub head: Range<usize>,
    /// Where its value stands in the body.
    pub value: Range<usize>,
}

/// The boundary in a `Content-Type` value; `None` when it is not multipart.
pub fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/")) {
        return None;
    }
    parameter(parameters, "boundary").filter(|boundary| !boundary.is_empty())
}

/// The parts of `body`, in order. Tolerant: bare LF line ends, a missing last boundary (the last part then goes to the
/// end) and parts without headers are read. `None` when the media type is not multipart or no boundary is found.
pub fn parts(content_type: &str, body: &[u8]) -> Option<Vec<Part>> {
    let delimiter = [b"--", boundary(content_type)?.as_bytes()].concat();
    let finder = memmem::Finder::new(&delimiter);
    let mut lines = finder.find_iter(body).filter(|at| {
        let line_start = *at == 0 || body.get(at - 1) == Some(&b'\n');
        line_start && ends_delimiter(body.get(at + delimiter.len()..).unwrap_or_default())
    });
    let mut start = lines.next()? + delimiter.len();
    let mut found = Vec::new();
    while !body.get(start..).unwrap_or_default().starts_with(b"--") && found.len() < MOST_PARTS {
        let next = lines.next();
        let from = body
            .get(start..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
            .map_or(body.len(), |at| start + at + 1);
        let end = next.map_or(body.len(), |next| before_line_end(body, from, next));
        found.push(part(body, from.min(end)..end));
        match next {
            Some(next) => start = next + delimiter.len(),
            None => break,
        }
    }
    Some(found)
}

/// Where a field's value stands, as far as the beginning of a body tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// Here.
    Value(Range<usize>),
    /// Nowhere, or behind files that nobody looks past.
    Missing,
    /// More of the body is needed.
    Unknown,
}

/// How much of a body is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Nothing follows.
    pub whole: bool,
    /// Files are looked past.
    pub past_files: bool,
}

/// Looks for the field `name`. A file of that name is none; nor is a field behind more parts than are listed, which
/// stays unknown.
pub fn field(content_type: &str, beginning: &[u8], name: &str, extent: Extent) -> Field {
    if boundary(content_type).is_none() {
        return Field::Missing;
    }
    let Extent { whole, past_files } = extent;
    // A line that is cut off may still become another one.
    let lines =
        if whole { beginning.len() } else { memchr::memrchr(b'\n', beginning).map_or(0, |at| at + 1) };
    let found = parts(content_type, beginning.get(..lines).unwrap_or_default()).unwrap_or_default();
    let ended = if whole { found.len() } else { found.len().saturating_sub(1) };
    let is_file = |part: &Part| part.filename.is_some();
    let mut seen = found.iter().take(ended).take_while(|part| past_files || !is_file(part));
    match seen.find(|part| part.name == name && !is_file(part)) {
        Some(part) => Field::Value(part.value.clone()),
        None if !past_files && found.iter().any(is_file) => Field::Missing,
        None if whole && found.len() < MOST_PARTS => Field::Missing,
        None => Field::Unknown,
    }
}

/// Whether every reader of this whole body finds `name` once and in the same place. Readers differ in what they take
/// for a delimiter, for a head's end and for a name; so a body has only what all of them read alike.
pub fn has_one(content_type: &str, body: &[u8], name: &str) -> bool {
    const DISPOSITION: &[u8] = b"content-disposition";
    let Some(delimiter) = boundary(content_type).map(|boundary| format!("--{boundary}")) else {
        return false;
    };
    let found = parts(content_type, body).unwrap_or_default();
    let plain = |part: &Part| body.get(part.head.clone()).is_some_and(is_plain);
    let dispositions = memchr::memchr2_iter(b'C', b'c', body)
        .filter_map(|at| body.get(at..at + DISPOSITION.len()))
        .filter(|text| text.eq_ignore_ascii_case(DISPOSITION));
    found.iter().filter(|part| part.name.trim().eq_ignore_ascii_case(name)).count() == 1
        && found.iter().all(plain)
        && memmem::find_iter(body, delimiter.as_bytes()).count() == found.len() + 1
        && dispositions.count() == found.len()
}

/// A head as clients write it: whole lines, and a name and a file's name in quotes without escapes.
fn is_plain(head: &[u8]) -> bool {
    let head = std::str::from_utf8(head).ok().and_then(|head| head.strip_suffix("\r\n\r\n"));
    let Some(head) = head else { return false };
    let quoted = |text: &str, start: &str| {
        let (value, rest) = text.strip_prefix(start)?.split_once('"')?;
        (!value.contains('\\')).then(|| rest.to_owned())
    };
    head.split("\r\n").all(|line| {
        let Some((name, value)) = line.split_once(':') else { return false };
        let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !name.bytes().all(token) || value.contains(char::is_control) {
            return false;
        }
        if !name.eq_ignore_ascii_case("content-disposition") {
            return true;
        }
        let rest = quoted(value.trim(), "form-data; name=\"");
        rest.is_some_and(|rest| {
            rest.is_empty() || quoted(&rest, "; filename=\"").is_some_and(|rest| rest.is_empty())
        })
    })
}

/// Whether what follows makes it a delimiter: `--`, or white space up to a line's end. A longer boundary is another one.
fn ends_delimiter(rest: &[u8]) -> bool {
    if rest.starts_with(b"--") {
        return true;
    }
    let rest =
        rest.get(rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()..).unwrap_or_default();
    rest.is_empty() || rest.starts_with(b"\n") || rest.starts_with(b"\r\n")
}

/// The line end before a delimiter belongs to the delimiter.
fn before_line_end(body: &[u8], from: usize, delimiter: usize) -> usize {
    let text = body.get(from..delimiter).unwrap_or_default();
    let text = text.strip_suffix(b"\r\n").or_else(|| text.strip_suffix(b"\n")).unwrap_or(text);
    from + text.len()
}

fn part(body: &[u8], span: Range<usize>) -> Part {
    let mut part = Part {
        name: String::new(),
        filename: None,
        content_type: None,
        head: span.clone(),
        value: span.clone(),
    };
    let mut at = span.start;
    while let Some(rest) = body.get(at..span.end) {
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = rest.get(..end).unwrap_or_default().trim_ascii();
        at = (at + end + 1).min(span.end);
        if !line.is_empty() {
            header(&mut part, &String::from_utf8_lossy(line));
        }
        if line.is_empty() || at >= span.end {
            break;
        }
    }
    part.head.end = at;
    part.value.start = at;
    part
}

fn header(part: &mut Part, line: &str) {
    let Some((name, value)) = line.split_once(':') else { return };
    if name.trim().eq_ignore_ascii_case("content-type") {
        part.content_type = Some(value.trim().to_owned());
    } else if name.trim().eq_ignore_ascii_case("content-disposition") {
        let parameters = value.split_once(';').map_or("", |(_, parameters)| parameters);
        part.name = parameter(parameters, "name").unwrap_or_default();
        part.filename = parameter(parameters, "filename*")
            .map(|name| extended(&name))
            .or_else(|| parameter(parameters, "filename"));
    }
}

/// The value of a parameter in `; a=b; c="d"`. In quotes, a backslash takes the next quote or backslash as it is.
fn parameter(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (name, behind) = rest.trim_start_matches([';', ' ', '\t']).split_once('=')?;
        let behind = behind.trim_start();
        let (value, next) = if let Some(quoted) = behind.strip_prefix('"') {
            quoted_value(quoted)
        } else {
            let (value, next) = behind.split_at(behind.find(';').unwrap_or(behind.len()));
            (value.trim().to_owned(), next)
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = next;
    }
}

fn quoted_value(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => match characters.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            plain => value.push(plain),
        }
    }
    (value, "")
}

/// `UTF-8''na%20me` (RFC 8187), its bytes taken as UTF-8.
fn extended(value: &str) -> String {
    let encoded = value.splitn(3, '\'').nth(2).unwrap_or(value).as_bytes();
    let mut out = Vec::with_capacity(encoded.len());
    let mut at = 0;
    while let Some(byte) = encoded.get(at) {
        let hex = encoded
            .get(at + 1..at + 3)
            .filter(|_| *byte == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok());
        if let Some(decoded) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            out.push(decoded);
            at += 3;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Extent, Field, MOST_PARTS, boundary, field, has_one, parts};

    const KIND: &str = "multipart/form-data; boundary=\"x y\"";

    fn in_front(beginning: &[u8], whole: bool) -> Field {
        field(KIND, beginning, "model", Extent { whole, past_files: false })
    }

    fn anywhere(beginning: &[u8], whole: bool) -> Field {
        field(KIND, beginning, "model", Extent { whole, past_files: true })
    }

    fn listed(body: &str) -> Vec<(String, Option<String>, Option<String>, String)> {
        let found = parts(KIND, body.as_bytes()).expect("parts");
        let text = |part: &super::Part| body[part.value.clone()].to_owned();
        found
            .into_iter()
            .map(|part| (part.name.clone(), part.filename.clone(), part.content_type.clone(), text(&part)))
            .collect()
    }

    #[test]
    fn parts_are_found() {
        let body = "preamble\r\n--x y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--x y\r\ncontent-disposition: form-data; name=file; filename=\"a \\\"b\\\".wav\"\r\nContent-Type: audio/wav\r\n\r\n\r\n--x yz\r\nRIFF\r\n\r\n--x y--\r\nepilogue";
        let got = listed(body);
        assert_eq!(got[0], ("model".into(), None, None, "whisper-1".into()));
        assert_eq!(got[1].1.as_deref(), Some("a \"b\".wav"));
        assert_eq!(got[1].2.as_deref(), Some("audio/wav"));
        assert_eq!(got[1].3, "\r\n--x yz\r\nRIFF\r\n");
        assert_eq!(got.len(), 2);
    }

    #[test]
    fn what_is_not_quite_right_is_read() {
        let bare = listed(
            "--x y\nContent-Disposition: form-data; name=a; filename*=UTF-8''b%20%C3%A9\n\n1\n--x y\n\nno headers",
        );
        assert_eq!(bare[0], ("a".into(), Some("b é".into()), None, "1".into()));
        assert_eq!(bare[1].3, "no headers");
        assert_eq!(parts("application/json", b"{}"), None);
        assert_eq!(parts("multipart/form-data", b"--x"), None);
        assert_eq!(parts(KIND, b"nothing"), None);
        assert_eq!(parts(KIND, b"--x y--").map(|parts| parts.len()), Some(0));
        assert_eq!(boundary("Multipart/Form-Data; charset=utf-8; BOUNDARY=abc").as_deref(), Some("abc"));
        assert_eq!(boundary("multipart/form-data; boundary="), None);
    }

    #[test]
    fn a_field_in_front_of_the_files_is_found_as_soon_as_it_has_ended() {
        let body = "--x y\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nhello\r\n--x y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngroq/whisper\r\n--x y\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nRIFF\r\n--x y--\r\n";
        let at = body.find("groq/whisper").expect("the value");
        let value = Field::Value(at..at + "groq/whisper".len());
        let ended = at + "groq/whisper\r\n--x y\r\n".len();
        for end in 0..=body.len() {
            let expected = if end < ended { Field::Unknown } else { value.clone() };
            assert_eq!(in_front(&body.as_bytes()[..end], false), expected, "{end}");
        }
        assert_eq!(in_front(body.as_bytes(), true), value);
    }

    #[test]
    fn a_field_behind_a_file_is_found_by_those_who_look_past_files() {
        let file = "--x y\r\nContent-Disposition: form-data; name=\"model\"; filename=\"model\"\r\n";
        assert_eq!(in_front(file.as_bytes(), false), Field::Missing);
        assert_eq!(anywhere(file.as_bytes(), false), Field::Unknown);
        let behind = format!(
            "{file}\r\nRIFF\r\n--x y\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x y\r\n"
        );
        let at = behind.find("m\r\n--x y\r\n").expect("the value");
        for end in file.len()..=behind.len() {
            assert_eq!(in_front(&behind.as_bytes()[..end], false), Field::Missing, "{end}");
            let expected = if end < behind.len() { Field::Unknown } else { Field::Value(at..at + 1) };
            assert_eq!(anywhere(&behind.as_bytes()[..end], false), expected, "{end}");
        }
        let only = "--x y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x y--";
        assert_eq!(in_front(only.as_bytes(), false), Field::Unknown);
        assert!(matches!(in_front(only.as_bytes(), true), Field::Value(_)));
        let whole = Extent { whole: true, past_files: true };
        assert_eq!(field(KIND, only.as_bytes(), "other", whole), Field::Missing);
        assert_eq!(
            field("application/json", b"{", "model", Extent { whole: false, ..whole }),
            Field::Missing
        );
    }

    #[test]
    fn a_field_behind_more_parts_than_are_listed_is_unknown() {
        let model = "--x y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x y--";
        let after = |parts: usize| format!("{}{model}", "--x y\r\n\r\n\r\n".repeat(parts));
        assert!(matches!(anywhere(after(MOST_PARTS - 1).as_bytes(), true), Field::Value(_)));
        assert_eq!(anywhere(after(MOST_PARTS).as_bytes(), true), Field::Unknown);
    }

    #[test]
    fn one_model_is_one_for_every_reader() {
        let model = "--x y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n";
        let file = "--x y\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\n\r\n";
        let one =
            |between: &str| has_one(KIND, format!("{model}{between}{file}--x y--\r\n").as_bytes(), "model");
        assert!(one(""));
        let other = |disposition: &str| format!("--x y\r\n{disposition}\r\n\r\nother\r\n");
        assert!(one(&other("Content-Disposition: form-data; name=\"prompt\"")));
        for hidden in [
            model.to_owned(),
            other("Content-Disposition: form-data; name=\"model\"; filename=\"\""),
            other("Content-Disposition: form-data; name*=utf-8''model"),
            other("Content-Disposition: form-data; name=\"mo\\del\""),
            other("Content-Disposition: form-data; name=\"a\"; name=\"model\""),
            other("Content-Disposition: form-data; name=\"a\";\r\n name=\"model\""),
            other(
                "Content-Disposition: form-data; name=\"model\"\r\nContent-Disposition: form-data; name=\"a\"",
            ),
            other(
                "Content-Disposition: form-data; name=\"a\"\r\n \r\nContent-Disposition: form-data; name=\"model\"",
            ),
            format!("--x y--x\r\n{model}"),
            format!("--x y--\r\n{model}"),
            "--x yz\r\n\r\n".to_owned(),
        ] {
            assert!(!one(&hidden), "{hidden}");
        }
        assert!(!has_one(KIND, format!("{file}--x y--").as_bytes(), "model"), "none");
        assert!(!has_one("application/json", model.as_bytes(), "model"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(body in proptest::collection::vec(proptest::sample::select(b"--x y\r\n:;=\"a".to_vec()), 0..200), kind in ".*") {
            for part in parts(KIND, &body).unwrap_or_default() {
                assert!(body.get(part.value).is_some());
            }
            let _ = (has_one(KIND, &body, "a"), anywhere(&body, true), anywhere(&body, false));
            let _ = parts(&kind, &body);
            let _ = parts(&format!("multipart/x;{kind}"), &body);
        }
    }
}

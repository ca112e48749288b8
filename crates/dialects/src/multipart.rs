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
    /// Behind a file, or nowhere.
    BehindFiles,
    /// More of the body is needed.
    Unknown,
}

/// Looks for the field `name` in front of the body's files. `whole`: nothing follows `beginning`.
pub fn leading_field(content_type: &str, beginning: &[u8], name: &str, whole: bool) -> Field {
    if boundary(content_type).is_none() {
        return Field::BehindFiles;
    }
    // A line that is cut off may still become another one.
    let lines =
        if whole { beginning.len() } else { memchr::memrchr(b'\n', beginning).map_or(0, |at| at + 1) };
    let found = parts(content_type, beginning.get(..lines).unwrap_or_default()).unwrap_or_default();
    let ended = if whole { found.len() } else { found.len().saturating_sub(1) };
    let mut fields = found.iter().take(ended).take_while(|part| part.filename.is_none());
    match fields.find(|part| part.name == name) {
        Some(part) => Field::Value(part.value.clone()),
        None if whole || found.iter().any(|part| part.filename.is_some()) => Field::BehindFiles,
        None => Field::Unknown,
    }
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
    let mut part = Part { name: String::new(), filename: None, content_type: None, value: span.clone() };
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
    use super::{Field, boundary, leading_field, parts};

    const KIND: &str = "multipart/form-data; boundary=\"x y\"";

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
            assert_eq!(leading_field(KIND, &body.as_bytes()[..end], "model", false), expected, "{end}");
        }
        assert_eq!(leading_field(KIND, body.as_bytes(), "model", true), value);
    }

    #[test]
    fn a_field_behind_a_file_is_not_waited_for() {
        let file = "--x y\r\nContent-Disposition: form-data; name=\"model\"; filename=\"model\"\r\n";
        assert_eq!(leading_field(KIND, file.as_bytes(), "model", false), Field::BehindFiles);
        let behind = format!(
            "{file}\r\nRIFF\r\n--x y\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x y--"
        );
        assert_eq!(leading_field(KIND, behind.as_bytes(), "model", true), Field::BehindFiles);
        let only = "--x y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x y--";
        assert_eq!(leading_field(KIND, only.as_bytes(), "model", false), Field::Unknown);
        assert!(matches!(leading_field(KIND, only.as_bytes(), "model", true), Field::Value(_)));
        assert_eq!(leading_field(KIND, only.as_bytes(), "other", true), Field::BehindFiles);
        assert_eq!(leading_field("application/json", b"{", "model", false), Field::BehindFiles);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(body in proptest::collection::vec(proptest::sample::select(b"--x y\r\n:;=\"a".to_vec()), 0..200), kind in ".*") {
            for part in parts(KIND, &body).unwrap_or_default() {
                assert!(body.get(part.value).is_some());
            }
            let _ = parts(&kind, &body);
            let _ = parts(&format!("multipart/x;{kind}"), &body);
        }
    }
}

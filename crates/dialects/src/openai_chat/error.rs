//! Errors of the OpenAI dialect: ours written, every provider's shape read.
//!
//! The server's `rescue.rs` writes with this; `stream` and `response` read with it. The shapes stand in wire-formats
//! sections 1.2, 2.6 and 9.8.

use bytes::Bytes;

use crate::json::{Kind, Value, write_string};

/// What ends a stream.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// A message longer than this many bytes is cut: it goes to logs and records.
const LONGEST_MESSAGE: usize = 4096;

/// What a provider said went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderError {
    /// Its words; the error's raw JSON when it has none.
    pub message: String,
    /// Its `type`.
    pub kind: Option<String>,
    /// Its `code`; a number as its digits.
    pub code: Option<String>,
}

/// `{"error":{"message","type","param","code"}}`: what OpenAI's SDKs read (all four members always there).
pub fn body(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + 96);
    write_body(&mut out, message, kind, param, code);
    out.into()
}

/// The same as an event in a stream: `data: {"error":…}` and its blank line.
pub fn stream_event(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Bytes {
    let mut out = b"data: ".to_vec();
    write_body(&mut out, message, kind, param, code);
    out.extend_from_slice(b"\n\n");
    out.into()
}

fn write_body(out: &mut Vec<u8>, message: &str, kind: &str, param: Option<&str>, code: Option<&str>) {
    out.extend_from_slice(b"{\"error\":{");
    let members = [("message", Some(message)), ("type", Some(kind)), ("param", param), ("code", code)];
    for (index, (name, text)) in members.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, name);
        out.push(b':');
        match text {
            Some(text) => write_string(out, text),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(b"}}");
}

/// The error in the body of a failed answer, whatever its shape; `None` when the body is no JSON or names no error.
pub fn read(body: &[u8]) -> Option<ProviderError> {
    if !crate::json::valid(body) {
        return None;
    }
    Members::of(first(Value::new(body))).any_error()
}

/// Gemini wraps its error in an array of one.
fn first(value: Value<'_>) -> Value<'_> {
    let mut element = None;
    if value.kind() == Kind::Array {
        value.each_element(|found| element = element.or(Some(found)));
    }
    element.unwrap_or(value)
}

/// The members of an object that may speak of an error. A reader that walks the object anyway fills it on the way.
#[derive(Clone, Copy, Default)]
pub(super) struct Members<'a> {
    error: Option<Value<'a>>,
    message: Option<Value<'a>>,
    kind: Option<Value<'a>>,
    code: Option<Value<'a>>,
    detail: Option<Value<'a>>,
    fault: Option<Value<'a>>,
    errors: Option<Value<'a>>,
    base_resp: Option<Value<'a>>,
}

impl<'a> Members<'a> {
    fn of(object: Value<'a>) -> Self {
        let mut members = Self::default();
        object.each_member(|key, value| members.see(key, value));
        members
    }

    /// Takes note of a member.
    pub(super) fn see(&mut self, key: &str, value: Value<'a>) {
        let slot = match key {
            "error" => &mut self.error,
            "message" => &mut self.message,
            "type" => &mut self.kind,
            "code" | "error_code" => &mut self.code,
            "detail" => &mut self.detail,
            "fault" => &mut self.fault,
            "errors" => &mut self.errors,
            "base_resp" => &mut self.base_resp,
            _ => return,
        };
        *slot = Some(value);
    }

    /// The error that an answer with status 2xx, or an event, carries: a member that names one. `"error": null` is none.
    pub(super) fn named_error(&self) -> Option<ProviderError> {
        if let Some(error) = self.error.filter(|error| error.says_something()) {
            return Some(self.under_error(first(error)));
        }
        // MiniMax: status 0 is success.
        let status = self.base_resp.and_then(|base| base.get("status_code"))?;
        let message = || self.base_resp.and_then(|base| base.get("status_msg")?.some_text());
        status.says_something().then(|| ProviderError {
            message: cut(message().unwrap_or_default()),
            kind: None,
            code: word(status),
        })
    }

    /// Whether a `code` and a `message` stand here, which no part of an answer has.
    pub(super) fn has_code(&self) -> bool {
        self.message.is_some() && self.code.is_some()
    }

    /// The flat form: `{message, type, param, code}`.
    pub(super) fn flat_error(&self) -> Option<ProviderError> {
        let message = self.message?.some_text()?;
        Some(ProviderError {
            message: cut(message),
            kind: self.kind.and_then(word),
            code: self.code.and_then(word),
        })
    }

    /// The error that the body of a failed answer carries, in whatever shape.
    pub(super) fn any_error(&self) -> Option<ProviderError> {
        if let Some(error) = self.named_error().or_else(|| self.flat_error()) {
            return Some(error);
        }
        let plain =
            |message| ProviderError { message: cut(message), kind: None, code: self.code.and_then(word) };
        if let Some(fault) = self.fault.and_then(|fault| fault.get("faultstring")) {
            return fault.some_text().map(plain);
        }
        if let Some(detail) = self.detail.filter(|detail| detail.says_something()) {
            return Some(plain(detail_text(detail)));
        }
        let nested = self.errors.map(first).filter(|error| error.says_something())?;
        Some(self.under_error(nested))
    }

    /// What stands under `error`: an object, or the message itself with its code beside it.
    fn under_error(&self, error: Value<'a>) -> ProviderError {
        if error.kind() != Kind::Object {
            let message = error.text().unwrap_or_else(|| raw_text(error));
            return ProviderError {
                message: cut(message),
                kind: self.kind.and_then(word),
                code: self.code.and_then(word),
            };
        }
        let inner = Self::of(error);
        let message = inner.message.and_then(Value::some_text);
        ProviderError {
            message: cut(message.unwrap_or_else(|| raw_text(error))),
            kind: inner.kind.and_then(word).or_else(|| error.get("status").and_then(word)),
            code: inner.code.and_then(word),
        }
    }
}

/// FastAPI's `detail`: a text, an object with a message, or a list of `{loc, msg, type}`.
fn detail_text(detail: Value<'_>) -> String {
    match detail.kind() {
        Kind::String => detail.text().unwrap_or_default(),
        Kind::Array => {
            let mut texts = Vec::new();
            detail.each_element(|entry| {
                texts.push(entry.get("msg").and_then(Value::some_text).unwrap_or_else(|| raw_text(entry)));
            });
            texts.join("; ")
        }
        _ => detail.get("message").and_then(Value::some_text).unwrap_or_else(|| raw_text(detail)),
    }
}

fn raw_text(value: Value<'_>) -> String {
    String::from_utf8_lossy(value.raw()).into_owned()
}

/// A word or a number; nothing for anything else or for the empty text.
fn word(value: Value<'_>) -> Option<String> {
    match value.kind() {
        Kind::String => value.some_text(),
        Kind::Number => Some(raw_text(value)),
        _ => None,
    }
}

fn cut(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        let end = (0..=LONGEST_MESSAGE).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::{DONE, ProviderError, body, read, stream_event};

    fn error(message: &str, kind: Option<&str>, code: Option<&str>) -> ProviderError {
        ProviderError { message: message.into(), kind: kind.map(Into::into), code: code.map(Into::into) }
    }

    #[test]
    fn every_shape_is_read() {
        let some = |json: &str| read(json.as_bytes()).unwrap_or_else(|| panic!("no error in {json}"));
        let full = r#"{"error":{"message":"m","type":"t","param":null,"code":"c"}}"#;
        assert_eq!(some(full), error("m", Some("t"), Some("c")));
        assert_eq!(some(r#"{"error":{"code":502,"message":"up"}}"#), error("up", None, Some("502")));
        assert_eq!(some(r#"{"error":"plain"}"#), error("plain", None, None));
        assert_eq!(some(r#"{"code":"bad","error":"text"}"#), error("text", None, Some("bad")));
        let flat = r#"{"message":"m","type":"too_many","param":"","code":"c"}"#;
        assert_eq!(some(flat), error("m", Some("too_many"), Some("c")));
        let gemini = r#"[{"error":{"code":400,"message":"m","status":"INVALID"}}]"#;
        assert_eq!(some(gemini), error("m", Some("INVALID"), Some("400")));
        assert_eq!(some(r#"{"detail":"nope"}"#), error("nope", None, None));
        let list = r#"{"detail":[{"loc":["body"],"msg":"a","type":"x"},{"msg":"b"}]}"#;
        assert_eq!(some(list), error("a; b", None, None));
        assert_eq!(some(r#"{"fault":{"faultstring":"f","detail":{}}}"#), error("f", None, None));
        assert_eq!(
            some(r#"{"success":false,"errors":[{"code":7,"message":"m"}]}"#),
            error("m", None, Some("7"))
        );
        assert_eq!(some(r#"{"error_code":"E","message":"m"}"#), error("m", None, Some("E")));
        assert_eq!(some(r#"{"error":["x"]}"#), error("x", None, None));
        assert_eq!(some(r#"{"error":{"code":5}}"#), error(r#"{"code":5}"#, None, Some("5")));
        let minimax = r#"{"base_resp":{"status_code":1004,"status_msg":"auth"}}"#;
        assert_eq!(some(minimax), error("auth", None, Some("1004")));
    }

    #[test]
    fn what_names_no_error_is_none() {
        for json in
            [r#"{"error":null}"#, "{}", "[]", "<html>", "", "null", r#"{"error":{}}"#, r#"{"error":false}"#]
        {
            assert_eq!(read(json.as_bytes()), None, "{json}");
        }
    }

    #[test]
    fn ours_has_all_four_members_and_escapes() {
        let expected = r#"{"error":{"message":"a \"b\"\n","type":"t","param":null,"code":"c"}}"#;
        assert_eq!(body("a \"b\"\n", "t", None, Some("c")), expected);
        let event = stream_event("m", "t", Some("p"), None);
        assert!(event.starts_with(b"data: {") && event.ends_with(b"}\n\n"));
        assert_eq!(DONE, b"data: [DONE]\n\n");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let json = format!(r#"{{"error":"{}"}}"#, "é".repeat(5000));
        assert_eq!(read(json.as_bytes()).expect("error").message.len(), 4096);
    }
}

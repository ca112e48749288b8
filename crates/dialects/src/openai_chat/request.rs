//! Reads a caller's JSON body: what routing and accounting need, and where the members stand, so that `edit` can cut
//! and replace without reading again. The body itself is kept as it came (invariant 1).

use std::ops::Range;

use crate::json::{self, JsonError, Kind, Member};

/// Why a body cannot be used. The text says what is wrong, where, and what was expected; it quotes no content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no body.
    #[error("the body is empty; send a JSON object, with its `content-length` or in chunks")]
    Empty,
    /// The body is no JSON object.
    #[error("the body is not a JSON object: {0}")]
    Syntax(#[from] JsonError),
    /// A member that the gateway reads has the wrong kind.
    #[error("`{field}`: expected {expected}, found {found}")]
    Kind {
        /// The member, `stream_options.include_usage` for a nested one.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: Kind,
    },
    /// A member that the gateway reads stands there twice.
    #[error(
        "`{field}` is given twice: the gateway and the provider could read different values; send it once"
    )]
    Duplicate {
        /// The member.
        field: &'static str,
    },
    /// The provider does not take this member and dropping it would change what the request means.
    #[error("`{field}` is not supported by this provider: {reason}")]
    Refused {
        /// The member, as the caller wrote it.
        field: String,
        /// Why, from the provider's row in the catalogue.
        reason: String,
    },
    /// The facts were read from another body: a fault of the gateway's own.
    #[error("the facts do not belong to this body")]
    Stale,
}

impl RequestError {
    /// The member at fault, for the error body's `param`.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Kind { field, .. } | Self::Duplicate { field } => Some(field),
            Self::Refused { field, .. } => Some(field),
            Self::Empty | Self::Syntax(_) | Self::Stale => None,
        }
    }
}

/// Where a member stands in the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The name, quotes included.
    pub(super) key: Range<usize>,
    /// The value.
    pub(super) value: Range<usize>,
}

impl From<&Member<'_>> for Place {
    fn from(member: &Member<'_>) -> Self {
        Self { key: member.key_span.clone(), value: member.value.clone() }
    }
}

/// What a body says, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// `model`; `None` when it is not there (whether that is an error is the caller's business).
    pub model: Option<String>,
    /// `stream`; `null` and absent are `false`.
    pub stream: bool,
    /// The caller's own `stream_options.include_usage`.
    pub include_usage: bool,
    /// The member that continues something stored in the provider's account: `previous_response_id`, `conversation`
    /// (of `/responses`), given and not `null`.
    pub continues: Option<&'static str>,
    /// Every top-level member in order, names decoded.
    pub(super) members: Vec<(Box<str>, Place)>,
    /// Length of the body that was read.
    pub(super) length: usize,
    /// Offset behind the opening brace.
    pub(super) inside: usize,
}

impl RequestFacts {
    /// Whether the body has a top-level member of that name.
    pub fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(found, _)| &**found == name)
    }
}

/// Reads a body, all of which must be one JSON object. Members that the gateway does not read may be of any kind and
/// may stand there twice.
pub fn read(body: &[u8]) -> Result<RequestFacts, RequestError> {
    if body.trim_ascii().is_empty() {
        return Err(RequestError::Empty);
    }
    let members = json::members(body)?;
    for field in ["model", "stream", "stream_options"] {
        single(&members, field)?;
    }
    let mut facts = RequestFacts {
        length: body.len(),
        inside: body.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1),
        ..RequestFacts::default()
    };
    for member in &members {
        match &*member.key {
            "model" => facts.model = Some(string(body, member)?),
            "stream" => facts.stream = boolean(body, member, "stream")?,
            "stream_options" => facts.include_usage = include_usage(body, member)?,
            // Given twice it counts if either does: which one the provider reads is its own affair.
            "previous_response_id" if is_given(body, member) => {
                facts.continues = Some("previous_response_id");
            }
            "conversation" if is_given(body, member) => facts.continues = Some("conversation"),
            _ => {}
        }
    }
    facts.members =
        members.into_iter().map(|member| (Box::from(&*member.key), Place::from(&member))).collect();
    Ok(facts)
}

fn single(members: &[Member<'_>], field: &'static str) -> Result<(), RequestError> {
    let last = field.rsplit('.').next().unwrap_or(field);
    if members.iter().filter(|member| member.key == last).count() > 1 {
        return Err(RequestError::Duplicate { field });
    }
    Ok(())
}

fn string(body: &[u8], member: &Member<'_>) -> Result<String, RequestError> {
    json::read_string(body, &member.value).ok_or_else(|| RequestError::Kind {
        field: "model",
        expected: "a string",
        found: Kind::of(body, &member.value),
    })
}

fn is_given(body: &[u8], member: &Member<'_>) -> bool {
    Kind::of(body, &member.value) != Kind::Null
}

fn boolean(body: &[u8], member: &Member<'_>, field: &'static str) -> Result<bool, RequestError> {
    match Kind::of(body, &member.value) {
        Kind::Null => Ok(false),
        Kind::Bool => Ok(json::read_bool(body, &member.value).unwrap_or(false)),
        found => Err(RequestError::Kind { field, expected: "a boolean", found }),
    }
}

fn include_usage(body: &[u8], member: &Member<'_>) -> Result<bool, RequestError> {
    const FIELD: &str = "stream_options.include_usage";
    match Kind::of(body, &member.value) {
        Kind::Null => Ok(false),
        Kind::Object => {
            let options = json::members_of(body, &member.value)?;
            single(&options, FIELD)?;
            let option = options.iter().find(|option| option.key == "include_usage");
            option.map_or(Ok(false), |option| boolean(body, option, FIELD))
        }
        found => Err(RequestError::Kind { field: "stream_options", expected: "an object", found }),
    }
}

#[cfg(test)]
mod tests {
    use super::{RequestFacts, read};

    fn facts(body: &str) -> RequestFacts {
        read(body.as_bytes()).expect("a readable body")
    }

    fn error(body: &str) -> String {
        read(body.as_bytes()).expect_err("an error").to_string()
    }

    #[test]
    fn facts_are_read() {
        let got = facts(
            r#" {"model":"gpt-\u0034","stream":true,"stream_options":{"include_usage":true},"x":1,"x":2}"#,
        );
        assert_eq!((got.model.as_deref(), got.stream, got.include_usage), (Some("gpt-4"), true, true));
        let names: Vec<&str> = got.members.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["model", "stream", "stream_options", "x", "x"]);
        assert!(got.has("x") && !got.has("y") && got.continues.is_none());
        let none = facts("{}");
        assert_eq!((none.model, none.stream, none.include_usage), (None, false, false));
        assert_eq!(facts(r#"{"previous_response_id":"r"}"#).continues, Some("previous_response_id"));
        assert_eq!(facts(r#"{"conversation":{"id":"c"}}"#).continues, Some("conversation"));
        let nulls =
            r#"{"previous_response_id":null,"conversation":null,"stream":null,"stream_options":null}"#;
        assert_eq!(facts(nulls).continues, None);
        assert!(!facts(r#"{"stream_options":{"include_usage":null}}"#).include_usage);
    }

    #[test]
    fn errors_name_field_kind_and_place() {
        assert_eq!(error(r#"{"model":4}"#), "`model`: expected a string, found a number");
        assert_eq!(error(r#"{"stream":"yes"}"#), "`stream`: expected a boolean, found a string");
        assert_eq!(error(r#"{"stream_options":[]}"#), "`stream_options`: expected an object, found an array");
        let nested = read(br#"{"stream_options":{"include_usage":1}}"#).expect_err("an error");
        assert_eq!(nested.field(), Some("stream_options.include_usage"));
        assert!(error(r#"{"model":"a","\u006dodel":"b"}"#).starts_with("`model` is given twice"));
        assert!(
            error(r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#).contains("twice")
        );
        let syntax = error("{\n  \"model\": \"m\"\n  \"stream\": true }");
        assert_eq!(syntax, "the body is not a JSON object: expected `,` or `}` (line 3, column 3)");
        assert_eq!(error("[1]"), "the body is not a JSON object: expected an object (line 1, column 1)");
    }
}

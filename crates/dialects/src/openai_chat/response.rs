//! Reads a buffered answer for routing, pricing and the record's facts: one pass, unread members are only crossed.

use magicapi_model::Usage;

use super::Operation;
use super::error::{Members, ProviderError};
use super::usage::Counts;
use crate::json::Value;

/// What an answer says about itself. Anything that is not there, or is of another kind than expected, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseFacts {
    /// The provider's id of the answer.
    pub id: Option<String>,
    /// The model that answered.
    pub model: Option<String>,
    /// What it used.
    pub usage: Option<Usage>,
    /// The tier that was really used.
    pub service_tier: Option<String>,
    /// One per choice that gives a reason, in order; for `/responses` the reason why it is incomplete, else its status.
    pub finish_reasons: Vec<String>,
    /// The error that a 2xx answer carries, or the one in the body of any other.
    pub error: Option<ProviderError>,
}

/// Reads the body of an answer. What is no JSON object has no facts.
pub fn read(body: &[u8], operation: Operation) -> ResponseFacts {
    let mut facts = ResponseFacts::default();
    let mut errors = Members::default();
    let mut usage = None;
    let mut answered = false;
    let (mut status, mut incomplete) = (None, None);
    let whole = Value::new(body).each_member(|key, value| match key {
        "id" => facts.id = value.some_text(),
        "model" => facts.model = value.some_text(),
        "service_tier" => facts.service_tier = value.some_text(),
        "usage" => usage = Counts::read(value).or(usage),
        "x_groq" => usage = usage.or_else(|| Counts::read(value.get("usage")?)),
        "choices" => {
            answered = true;
            value.each_element(|choice| facts.finish_reasons.extend(reason(choice)));
        }
        "status" if operation_is_response(operation) => status = value.some_text(),
        "incomplete_details" => incomplete = value.get("reason").and_then(Value::some_text),
        "data" | "output" | "results" | "text" | "object" if value.raw() != b"\"error\"" => answered = true,
        _ => errors.see(key, value),
    });
    if !whole {
        // An array around an error, or no JSON at all.
        return ResponseFacts { error: super::error::read(body), ..ResponseFacts::default() };
    }
    facts.finish_reasons.extend(incomplete.or(status));
    facts.usage = usage.map(|counts| buckets(counts, operation));
    facts.error = errors.named_error();
    if facts.error.is_none() && !answered {
        facts.error = errors.any_error();
    }
    facts
}

const fn operation_is_response(operation: Operation) -> bool {
    matches!(operation, Operation::Responses | Operation::ResponseById)
}

fn buckets(counts: Counts, operation: Operation) -> Usage {
    match operation {
        Operation::Embeddings | Operation::Rerank => counts.total_is_input().usage(),
        Operation::Images => counts.output_is_images().usage(),
        _ => counts.usage(),
    }
}

fn reason(choice: Value<'_>) -> Option<String> {
    choice.get("finish_reason")?.some_text()
}

#[cfg(test)]
mod tests {
    use super::{Operation, ResponseFacts, read};

    #[test]
    fn chat_answer() {
        let body = br#" {"id":"c1","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"content":"{\"id\":\"no\"}"},"finish_reason":"stop"},{"finish_reason":"length"}],
            "usage":{"prompt_tokens":3,"completion_tokens":2},"service_tier":"default","error":null}
"#;
        let facts = read(body, Operation::Chat);
        assert_eq!((facts.id.as_deref(), facts.model.as_deref()), (Some("c1"), Some("m")));
        assert_eq!(facts.finish_reasons, ["stop", "length"]);
        assert_eq!(facts.usage.and_then(|usage| usage.total()), Some(5));
        assert_eq!((facts.service_tier.as_deref(), facts.error), (Some("default"), None));
    }

    #[test]
    fn embeddings_rerank_and_images() {
        let body = br#"{"object":"list","data":[{"embedding":[0.1,-2e-3, 3],"index":0},{"embedding":"AAAA"}],"model":"e","usage":{"total_tokens":8}}"#;
        let facts = read(body, Operation::Embeddings);
        assert_eq!(facts.usage.map(|usage| (usage.input, usage.output)), Some((Some(8), None)));
        let rerank =
            br#"{"results":[{"index":0,"relevance_score":0.9}],"meta":{"billed_units":{"search_units":1}}}"#;
        assert_eq!(read(rerank, Operation::Rerank), ResponseFacts::default());
        let images = br#"{"created":1,"data":[{"b64_json":"AA"}],"usage":{"input_tokens":5,"output_tokens":7,"total_tokens":12}}"#;
        let usage = read(images, Operation::Images).usage.expect("usage");
        assert_eq!((usage.input, usage.output, usage.output_image), (Some(5), Some(0), Some(7)));
        let duration = br#"{"text":"hi","usage":{"type":"duration","seconds":3}}"#;
        assert_eq!(read(duration, Operation::Transcription).usage, None);
    }

    #[test]
    fn responses_answer() {
        let body = br#"{"id":"resp_1","object":"response","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"error":null,"output":[],"model":"m","usage":{"input_tokens":1,"output_tokens":2}}"#;
        let facts = read(body, Operation::Responses);
        assert_eq!(facts.finish_reasons, ["max_output_tokens"]);
        assert!(facts.error.is_none() && facts.usage.is_some());
        let reversed = br#"{"object":"response","incomplete_details":{"reason":"content_filter"},"status":"incomplete"}"#;
        assert_eq!(read(reversed, Operation::Responses).finish_reasons, ["content_filter"]);
        let whole = br#"{"object":"response","incomplete_details":null,"status":"completed"}"#;
        assert_eq!(read(whole, Operation::Responses).finish_reasons, ["completed"]);
    }

    #[test]
    fn errors_and_no_json() {
        let message = |body: &str| read(body.as_bytes(), Operation::Chat).error.map(|error| error.message);
        assert_eq!(message(r#"{"error":{"message":"m"}}"#).as_deref(), Some("m"));
        assert_eq!(message(r#"{"object":"error","message":"flat","code":4}"#).as_deref(), Some("flat"));
        assert_eq!(message(r#"{"choices":[],"message":"hello"}"#), None);
        assert_eq!(message(r#"[{"error":{"message":"g"}}]"#).as_deref(), Some("g"));
        assert_eq!(message(r#"{"detail":"d"}"#).as_deref(), Some("d"));
        for body in ["", "<html>", "{\"id\":", "null", "{\"id\":\"x\"} trailing"] {
            assert_eq!(read(body.as_bytes(), Operation::Chat), ResponseFacts::default(), "{body}");
        }
    }
}

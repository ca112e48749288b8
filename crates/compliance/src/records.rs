//! Records for tests of exporters: a plain one, and those that break encoders.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use magicapi_plugin::{ContentDropped, Facts, Money, Outcome, RequestId, RequestMetrics, TelemetryConfig};

use crate::words::CONTENT;

/// How large a large body is.
const LARGE: usize = 1 << 20;
/// Deeper than most parsers go.
const DEPTH: usize = 300;

/// A record of this moment: a chat request that was answered, with figures, and `n` in its request.
pub fn record(n: usize) -> Arc<RequestMetrics> {
    let request = format!(
        "{{\"model\":\"gpt-4o\",\"n\":{n},\"messages\":[{{\"role\":\"user\",\"content\":\"{CONTENT}\"}}]}}"
    );
    let response = format!(
        "{{\"id\":\"chatcmpl-{n}\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{CONTENT}\"}}}}]}}"
    );
    sealed(plain(), Some(request.into()), Some(response.into()), Some("[{\"nonce\":\"0955\"}]".into()))
}

/// That many of them.
pub fn batch(count: usize) -> Vec<Arc<RequestMetrics>> {
    (0..count).map(record).collect()
}

/// Records that break encoders, each with what is odd about it. All but one could come from a gateway.
pub fn odd() -> Vec<(&'static str, Arc<RequestMetrics>)> {
    let text = |text: &str| Some(Bytes::from(text.to_owned()));
    let large = Some(Bytes::from(format!("\"{}{CONTENT}\"", "large ".repeat(LARGE / 6))));
    let deep = Some(Bytes::from(format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH))));
    let nothing = Facts::new(RequestId::mint(), SystemTime::now());
    let mut dropped = plain();
    dropped.content_dropped = Some(ContentDropped::Config);
    let at = |moment: SystemTime| {
        let mut facts = plain();
        facts.timestamp = moment;
        facts
    };
    let century = Duration::from_hours(24 * 365 * 100);
    let odd_json =
        r#"{"a":"\u0000\ud800","n":1e400,"n":123456789012345678901234567890,"":{"$":[]},"e":"ü🦀"}"#;
    vec![
        ("without bodies", sealed(dropped, None, None, None)),
        ("with nothing known of it", sealed(nothing, None, None, None)),
        ("with bodies that are null", sealed(plain(), text("null"), text("null"), None)),
        ("with bodies of 1 MB", sealed(plain(), large.clone(), large, None)),
        ("with odd JSON", sealed(plain(), text(odd_json), text(odd_json), text("[1e400,\"\\ud800\"]"))),
        ("with deep JSON", sealed(plain(), deep.clone(), text("{}"), deep)),
        (
            "with a body that is no text",
            sealed(plain(), Some(Bytes::from_static(b"\"\xff\xfe\"")), None, None),
        ),
        ("of 1970", sealed(at(SystemTime::UNIX_EPOCH), text("{}"), text("{}"), None)),
        ("of the next century", sealed(at(SystemTime::now() + century), text("{}"), text("{}"), None)),
        ("with the largest figures", sealed(largest(), text("{}"), text("{}"), None)),
        ("with names that nobody expects", sealed(named(), text("{}"), text("{}"), None)),
    ]
}

fn plain() -> Facts {
    let mut facts = Facts::new(RequestId::mint(), SystemTime::now());
    facts.outcome = Outcome::Completed;
    (facts.method, facts.path) = ("POST".into(), "/v1/chat/completions".into());
    (facts.provider, facts.model) = (Some("openai".into()), Some("gpt-4o".into()));
    (facts.project_id, facts.org_id) = (Some("project".into()), Some("org".into()));
    (facts.latency_ms, facts.ttfb_ms, facts.provider_latency_ms) = (6250, Some(120), Some(255));
    (facts.status_code, facts.provider_status_code) = (200, 200);
    (facts.usage.input, facts.usage.output) = (Some(48), Some(865));
    facts.cost = Money::from_usd(0.0456);
    facts.finish_reasons = vec!["stop".into()];
    facts
}

fn largest() -> Facts {
    let mut facts = plain();
    (facts.latency_ms, facts.ttfb_ms, facts.provider_latency_ms) = (u64::MAX, Some(u64::MAX), Some(u64::MAX));
    (facts.request_size, facts.response_size) = (u64::MAX, u64::MAX);
    (facts.usage.input, facts.usage.output) = (Some(u64::MAX), Some(u64::MAX));
    facts.cost = Some(Money::from_pico_usd(i128::MAX));
    (facts.status_code, facts.attempts, facts.sample_rate) = (u16::MAX, u32::MAX, f64::MIN_POSITIVE);
    facts
}

fn named() -> Facts {
    let mut facts = plain();
    let name = Some("a b,c:\"d\"\\\n\t\u{0}ü🦀".repeat(200));
    (facts.model, facts.provider, facts.requested_model) = (name.clone(), name.clone(), name.clone());
    (facts.project_id, facts.user_id, facts.thread_id) = (name.clone(), name.clone(), Some(String::new()));
    (facts.error_message, facts.experiment_id) = (name.clone(), name);
    facts.path = "/proxy/ü\u{0}?\n".into();
    facts
}

fn sealed(
    facts: Facts,
    request: Option<Bytes>,
    response: Option<Bytes>,
    events: Option<Bytes>,
) -> Arc<RequestMetrics> {
    Arc::new(RequestMetrics::seal(facts, Arc::new(TelemetryConfig::default()), request, response, events))
}

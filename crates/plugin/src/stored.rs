//! A record as it waits on disk: all of it, in a form that later releases read.
//!
//! One line of JSON (`facts`, `resource` and the bodies' lengths; an absent body has none), a line break, the bodies one
//! after the other. A field that a later release adds is absent here and takes its default; one that it drops is ignored.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Facts, RequestMetrics, TelemetryConfig};

/// Words that are remembered for as long as the process runs. The lists they come from are closed and far shorter.
const MOST_WORDS: usize = 256;

/// Why stored bytes are no record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoredError {
    /// The line is not what a record begins with.
    #[error("not a stored record: {0}")]
    Line(String),
    /// The bodies are shorter than the line says.
    #[error("a stored record is cut short")]
    CutShort,
}

#[derive(Serialize, Deserialize)]
struct Line<F, R> {
    facts: F,
    resource: R,
    /// Lengths in bytes of `request`, `response` and `streamed_data`.
    bodies: [Option<usize>; 3],
}

pub(crate) fn write(record: &RequestMetrics) -> Vec<u8> {
    let bodies = [record.request(), record.response(), record.streamed_data()];
    let line = Line {
        facts: record.facts(),
        resource: record.resource(),
        bodies: bodies.map(|body| body.map(Bytes::len)),
    };
    let length: usize = bodies.into_iter().flatten().map(Bytes::len).sum();
    let mut out = Vec::with_capacity(2048 + length);
    // Plain structs into memory: it cannot fail. Were it ever to, the line would not be read back, and that is said.
    if serde_json::to_writer(&mut out, &line).is_err() {
        out.clear();
    }
    out.push(b'\n');
    for body in bodies.into_iter().flatten() {
        out.extend_from_slice(body);
    }
    out
}

pub(crate) fn read(bytes: &Bytes) -> Result<RequestMetrics, StoredError> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(StoredError::CutShort)?;
    let line: Line<Facts, TelemetryConfig> =
        serde_json::from_slice(&bytes[..end]).map_err(|error| StoredError::Line(error.to_string()))?;
    let mut rest = bytes.slice(end + 1..);
    let mut body = |length: Option<usize>| match length {
        Some(length) if length > rest.len() => Err(StoredError::CutShort),
        Some(length) => Ok(Some(rest.split_to(length))),
        None => Ok(None),
    };
    let [request, response, streamed_data] = line.bodies;
    let (request, response, streamed_data) = (body(request)?, body(response)?, body(streamed_data)?);
    Ok(RequestMetrics::seal(line.facts, Arc::new(line.resource), request, response, streamed_data))
}

/// Reads a word of a closed list. One that this release does not know, a later release's, is kept for as long as the
/// process runs, so that it reads the same; past a bound it is `other`.
pub(crate) fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
    Ok(remembered(String::deserialize(deserializer)?))
}

/// The same where there may be none.
pub(crate) fn maybe_word<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'static str>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(remembered))
}

fn remembered(word: String) -> &'static str {
    static WORDS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = words.get(word.as_str()) {
        return known;
    }
    if words.len() >= MOST_WORDS {
        return "other";
    }
    let word: &'static str = word.leak();
    words.insert(word);
    word
}

/// Money as text: units of 10⁻¹² dollars do not fit a JSON number.
pub(crate) mod pico_usd {
    use magicapi_model::Money;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(crate) fn serialize<S: Serializer>(money: &Option<Money>, serializer: S) -> Result<S::Ok, S::Error> {
        money.map(|money| money.pico_usd().to_string()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Money>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let units = text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()?;
        Ok(units.map(Money::from_pico_usd))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use bytes::Bytes;
    use magicapi_model::{Money, Outcome, RequestId};

    use crate::{ContentDropped, CostSource, Facts, RequestMetrics, StoredError, TelemetryConfig, Truncated};

    fn full() -> RequestMetrics {
        let id = RequestId::parse("msg_0192f3a0-0000-7000-8000-000000000001").expect("an id");
        let mut facts = Facts::new(id, SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123));
        facts.thread_id = Some("thread".into());
        facts.provider = Some("groq".into());
        facts.ttfb_ms = Some(12);
        facts.usage.input = Some(48);
        facts.cost = Some(Money::from_pico_usd(170_141_183_460_469_231_731_687_303_715));
        facts.cost_source = Some(CostSource::Table);
        facts.outcome = Outcome::ProviderError;
        facts.error_type = Some("provider_status");
        facts.operation = "chat";
        facts.credential = Some("gateway");
        facts.finish_reasons = vec!["stop".into()];
        facts.truncated = Truncated { request: 0, response: 7, streamed_data: 0 };
        facts.content_dropped = Some(ContentDropped::TooLarge);
        facts.sample_rate = 0.25;
        let attributes = [("k8s.pod.name".to_owned(), "pod-1".to_owned())];
        let resource = TelemetryConfig {
            service_version: "1.0.0".into(),
            resource_attributes: attributes.into(),
            ..TelemetryConfig::default()
        };
        let body = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        RequestMetrics::seal(facts, Arc::new(resource), body("{\"n\":1e400}"), body("{}"), body("[\"\\n\"]"))
    }

    fn assert_same(one: &RequestMetrics, other: &RequestMetrics) {
        assert_eq!(one.facts(), other.facts());
        assert_eq!(one.resource(), other.resource());
        assert_eq!(one.otel_log_json(), other.otel_log_json());
    }

    #[test]
    fn all_of_a_record_comes_back() {
        let record = full();
        assert_same(&RequestMetrics::from_stored(&record.to_stored().into()).expect("a record"), &record);
        let bare = record.without_content(ContentDropped::Memory);
        let back = RequestMetrics::from_stored(&bare.to_stored().into()).expect("a record");
        assert_same(&back, &bare);
        assert!(back.request().is_none(), "absent is not empty");
    }

    /// Written by the release that introduced the form; never written again.
    #[test]
    fn the_first_form_stays_readable() {
        let stored = Bytes::from_static(include_bytes!("stored/v1.record"));
        assert_same(&RequestMetrics::from_stored(&stored).expect("a record"), &full());
    }

    /// Fields that came after the first form: written, read, and absent from what was stored before.
    #[test]
    fn what_came_later_comes_back() {
        let mut facts = full().facts().clone();
        facts.trace_state = Some("a=1".into());
        facts.redacted = [("email".to_owned(), 2)].into();
        let record = RequestMetrics::seal(facts, Arc::default(), None, None, None);
        assert_same(&RequestMetrics::from_stored(&record.to_stored().into()).expect("a record"), &record);
        let log = record.to_otel_log();
        assert_eq!(log["attributes"]["metadata"]["redacted"], serde_json::json!({ "email": 2 }));
        assert!(full().to_otel_log()["attributes"]["metadata"]["redacted"].is_null());
    }

    #[test]
    fn what_is_cut_short_is_no_record() {
        let stored = Bytes::from(full().to_stored());
        for length in 0..stored.len() {
            assert!(RequestMetrics::from_stored(&stored.slice(..length)).is_err(), "{length}");
        }
        let text = Bytes::from_static(b"{\"facts\":{}}\n");
        assert!(matches!(RequestMetrics::from_stored(&text), Err(StoredError::Line(_))));
    }
}

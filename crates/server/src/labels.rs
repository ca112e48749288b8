//! What a caller says of its request for the record: project, organisation, user, thread, experiment, trace, its own id.

use http::{HeaderMap, HeaderValue};
use magicapi_plugin::Facts;

/// Longest value of one of our headers that is kept: records must stay bounded.
const LONGEST_VALUE: usize = 512;

/// A caller's id of a request is echoed whole up to this length, and kept as far as [`LONGEST_KEPT_ID`].
const LONGEST_ID: usize = 256;
const LONGEST_KEPT_ID: usize = 128;

/// The name of the id, in and out.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// The caller's own id of the request, when it is short and visible.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(REQUEST_ID).filter(|id| !id.is_empty() && id.len() <= LONGEST_ID && id.to_str().is_ok())
}

/// Reads them into the facts.
pub(crate) fn read(facts: &mut Facts, headers: &HeaderMap) {
    let own = |name: &str| {
        let value = headers.get(name)?;
        let value = String::from_utf8_lossy(value.as_bytes());
        let value: String = value.trim().chars().take(LONGEST_VALUE).collect();
        (!value.is_empty()).then_some(value)
    };
    facts.thread_id = own("x-thread-id");
    facts.org_id = own("x-organisation-id").or_else(|| own("x-organization-id"));
    facts.user_id = own("x-user-id");
    facts.project_id = own("x-project-id");
    facts.project_name = own("x-project-name");
    facts.experiment_id = own("x-experiment-id");
    facts.client_request_id = request_id(headers)
        .and_then(|id| id.to_str().ok())
        .map(|id| id.chars().take(LONGEST_KEPT_ID).collect());
    if let Some((trace_id, span_id)) = own("traceparent").as_deref().and_then(read_traceparent) {
        facts.trace_id = Some(trace_id);
        facts.parent_span_id = Some(span_id);
    }
}

/// W3C Trace Context: `version-traceid-parentid-flags`; all-zero ids are invalid.
fn read_traceparent(text: &str) -> Option<(String, String)> {
    let mut parts = text.split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            && part.bytes().any(|b| b != b'0')
    };
    let known_version = version.len() == 2 && version != "ff";
    (known_version && hex(trace, 32) && hex(span, 16)).then(|| (trace.to_owned(), span.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::read_traceparent;

    #[test]
    fn traceparent_is_read_strictly() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(read_traceparent(good).expect("ids").0, "0af7651916cd43dd8448eb211c80319c");
        for bad in [
            "",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-xyz-1-1",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(read_traceparent(bad), None, "{bad}");
        }
    }
}

//! What a caller says of its request for the record: project, organisation, user, thread, experiment, trace.

use http::HeaderMap;
use magicapi_plugin::Facts;

/// Longest value of one of our headers that is kept: records must stay bounded.
const LONGEST_VALUE: usize = 512;

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

//! What a caller says of its request for the record: project, organisation, user, thread, experiment, trace, its own id.

use http::{HeaderMap, HeaderValue};
use magicapi_plugin::Facts;

/// Longest value of one of our headers that is kept: records must stay bounded.
const LONGEST_VALUE: usize = 512;

/// A caller's id of a request is echoed whole up to this length, and kept as far as [`LONGEST_KEPT_ID`].
const LONGEST_ID: usize = 256;
const LONGEST_KEPT_ID: usize = 128;

/// What W3C Trace Context asks everybody to carry of a `tracestate`: its length, and how many members it has.
const LONGEST_STATE: usize = 512;
const MOST_MEMBERS: usize = 32;

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
        facts.trace_state = read_tracestate(headers);
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

/// W3C Trace Context: `key=value,key=value`, in one line or several. It is kept whole or not at all: half of what a
/// tracer wrote is not what it wrote.
fn read_tracestate(headers: &HeaderMap) -> Option<String> {
    let lines: Option<Vec<&str>> =
        headers.get_all("tracestate").iter().map(|line| line.to_str().ok().map(str::trim)).collect();
    let state = lines?.join(",");
    let members: Vec<&str> = state.split(',').map(str::trim).filter(|member| !member.is_empty()).collect();
    let is_named = |member: &&str| {
        member.split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.is_empty())
    };
    let is_list = (1..=MOST_MEMBERS).contains(&members.len()) && members.iter().all(is_named);
    (is_list && state.len() <= LONGEST_STATE).then_some(state)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};
    use magicapi_plugin::{Facts, RequestId};

    use super::{read, read_traceparent};

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

    #[test]
    fn a_tracestate_is_kept_whole_or_not_at_all() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let kept = |parent: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for (name, text) in
                lines.iter().map(|line| ("tracestate", *line)).chain([("traceparent", parent)])
            {
                headers.append(
                    HeaderName::from_static(name),
                    HeaderValue::from_bytes(text.as_bytes()).expect("a value"),
                );
            }
            let mut facts = Facts::new(RequestId::mint(), std::time::SystemTime::UNIX_EPOCH);
            read(&mut facts, &headers);
            facts.trace_state
        };
        let (longest, too_long) = (format!("a={}", "x".repeat(510)), format!("a={}", "x".repeat(511)));
        let (most, too_many) = (vec!["a=1"; 32].join(","), vec!["a=1"; 33].join(","));
        for whole in ["a=1", "rojo=00f0,t@v=lZW;x=y", "a=1, ,b=2", &longest, &most] {
            assert_eq!(kept(parent, &[whole]).as_deref(), Some(whole));
        }
        assert_eq!(kept(parent, &["a=1", " b=2 "]).as_deref(), Some("a=1,b=2"), "lines are one list");
        for none in ["", ",", "a", "a=1,b", "=1", "a=", "a=ü", &too_long, &too_many] {
            assert_eq!(kept(parent, &[none]), None, "{none}");
        }
        assert_eq!(kept(parent, &[&longest, "b=2"]), None, "together too long");
        assert_eq!(kept("00-bad", &["a=1"]), None, "it belongs to a trace");
        assert_eq!(kept(parent, &[]), None);
    }
}

//! What a child says on its standard output, a JSON object a line.

use std::time::Duration;

use magicapi_plugin::{RequestId, Span};
use serde::Deserialize;
use tokio::time::timeout;

use crate::discretion::Discretion;
use crate::process::Output;

/// How long a child may take until it is ready.
const READY: Duration = Duration::from_secs(10);
/// How many characters of a reason are kept.
const LONGEST_REASON: usize = 500;

/// What a child says of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    Retry(Option<Duration>),
    Reject(String),
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It reads records from now on.
    Ready,
    /// It takes none until somebody has put something right.
    Refuse(String),
    Record(RequestId, Verdict),
}

#[derive(Deserialize)]
struct Written {
    ready: Option<bool>,
    refuse: Option<String>,
    id: Option<RequestId>,
    ok: Option<bool>,
    retry: Option<bool>,
    after: Option<Span>,
    reject: Option<String>,
}

/// Reads a line; what is wrong with it, when it is no answer. A text in it may be spelled otherwise than the child's secrets
/// are known: reasons are looked at as they read, and the error quotes nothing.
pub(super) fn parse(line: &[u8], discretion: &Discretion) -> Result<Answer, String> {
    let Written { ready, refuse, id, ok, retry, after, reject } = serde_json::from_slice(line)
        .map_err(|error| format!("not an answer: no JSON of its form, at column {}", error.column()))?;
    let cut = |reason: String| {
        let reason = discretion.keep(reason.into_bytes());
        String::from_utf8_lossy(&reason).chars().take(LONGEST_REASON).collect::<String>()
    };
    let retry = retry.filter(|yes| *yes).map(|_| Verdict::Retry(after.map(|span| span.0)));
    let reject = reject.map(|reason| Verdict::Reject(cut(reason)));
    let verdicts: Vec<Verdict> =
        ok.filter(|yes| *yes).map(|_| Verdict::Ok).into_iter().chain(retry).chain(reject).collect();
    match (id, <[Verdict; 1]>::try_from(verdicts), ready, refuse) {
        (Some(id), Ok([verdict]), None, None) => Ok(Answer::Record(id, verdict)),
        (None, Err(none), Some(true), None) if none.is_empty() => Ok(Answer::Ready),
        (None, Err(none), None, Some(reason)) if none.is_empty() => Ok(Answer::Refuse(cut(reason))),
        _ => {
            Err("not an answer: expected `id` and one of `ok`, `retry`, `reject`; or `ready`; or `refuse`"
                .into())
        }
    }
}

/// Waits until the child says that it is ready.
pub(super) async fn ready(output: &mut Output) -> Result<(), String> {
    let heard = async {
        loop {
            match parse(&output.next().await?, &output.discretion) {
                Ok(Answer::Ready) => return Ok(()),
                Ok(Answer::Refuse(reason)) => return Err(reason),
                Ok(Answer::Record(..)) => output.remarks.make("an answer before it was asked"),
                Err(problem) => output.remarks.make(&problem),
            }
        }
    };
    let heard = timeout(READY, heard).await.unwrap_or_else(|_| Err(format!("it was silent for {READY:?}")));
    heard.map_err(|reason| format!("not ready ({{\"ready\": true}}): {reason}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use magicapi_plugin::Secret;

    use super::{Answer, Duration, RequestId, Verdict};
    use crate::discretion::Discretion;

    fn parse(line: &[u8]) -> Result<Answer, String> {
        let env = BTreeMap::from([("TOKEN".to_owned(), Secret::new("abc/def+ghi=="))]);
        super::parse(line, &Discretion::about(&env))
    }

    #[test]
    fn a_reason_is_kept_without_the_child_s_secrets_however_it_spells_them() {
        for spelled in ["abc/def+ghi==", r"abc\/def+ghi==", r"abc\u002fdef\u002Bghi\u003d\u003d"] {
            let said = format!(r#"{{"refuse": "bad token {spelled}"}}"#);
            assert_eq!(parse(said.as_bytes()), Ok(Answer::Refuse("bad token ***".into())), "{said}");
            let wrong = format!(r#"{{"ok": "{spelled}"}}"#);
            assert!(!parse(wrong.as_bytes()).expect_err("no truth").contains("def"), "{wrong}");
        }
    }

    #[test]
    fn answers() {
        let id = "msg_01956700-0000-7000-8000-000000000001";
        let record = |verdict| Ok(Answer::Record(RequestId::parse(id).expect("an id"), verdict));
        let five = Some(Duration::from_secs(5));
        for (line, expected) in [
            (r#"{"ready": true, "plugin": "mine"}"#, Ok(Answer::Ready)),
            (r#"{"refuse": "no token"}"#, Ok(Answer::Refuse("no token".into()))),
            (r#"{"id": "ID", "ok": true}"#, record(Verdict::Ok)),
            (r#"{"id": "ID", "retry": true}"#, record(Verdict::Retry(None))),
            (r#"{"id": "ID", "ok": false, "retry": true, "after": "5s"}"#, record(Verdict::Retry(five))),
            (r#"{"id": "ID", "reject": "too old"}"#, record(Verdict::Reject("too old".into()))),
        ] {
            assert_eq!(parse(line.replace("ID", id).as_bytes()), expected, "{line}");
        }
        for line in [
            "",
            "done",
            "[]",
            "{}",
            r#"{"ok": true}"#,
            r#"{"id": "ID"}"#,
            r#"{"id": "msg_1", "ok": true}"#,
            r#"{"id": "ID", "ok": false}"#,
            r#"{"id": "ID", "ok": true, "retry": true}"#,
            r#"{"id": "ID", "retry": true, "after": 5}"#,
            r#"{"id": "ID", "ok": true, "ready": true}"#,
            r#"{"ready": false}"#,
            "\u{1}",
        ] {
            assert!(parse(line.replace("ID", id).as_bytes()).is_err(), "{line}");
        }
        let long = format!(r#"{{"id": "{id}", "reject": "{}"}}"#, "ü".repeat(1000));
        assert_eq!(parse(long.as_bytes()), record(Verdict::Reject("ü".repeat(500))));
    }
}

//! Keys of an exporter's entry that would do nothing: who writes them expects something, so they are refused.

use magicapi_plugin::{SettingsSpec, Signals};
use serde_json::{Map, Value};

use crate::context::Context;
use crate::raw;
use crate::types::WhenFull;

/// Keys that choose records.
const CHOICE: [&str; 2] = ["only", "sample"];
/// Keys about records on their way.
const RECORDS: [&str; 8] =
    ["content", "timeout", "concurrency", "rate_limit", "batch", "buffer", "breaker", "dead_letters"];
/// Keys about a back end that is begun with.
const START: [&str; 3] = ["require_healthy", "init_timeout", "retry"];

/// Refuses the keys of the entry at the path `at`, `written` as in the file, that its plug-in has no use for.
pub(super) fn refuse(
    cx: &mut Context<'_>,
    at: &str,
    (kind, spec): (&str, Option<&SettingsSpec>),
    written: &Map<String, Value>,
) {
    let takes = |signals| spec.is_none_or(|spec| spec.takes(signals));
    let records = takes(Signals::RECORDS);
    let starts = records || takes(Signals::METRICS);
    for key in written.keys().map(String::as_str) {
        let why = match key {
            key if CHOICE.contains(&key) && !records => {
                "counts every request; aggregates come before selection"
            }
            key if RECORDS.contains(&key) && !records => "gets no records, so this would mean nothing",
            key if START.contains(&key) && !starts => "connects to nothing, so this would mean nothing",
            _ => continue,
        };
        let problem = cx.near(&format!("{at}.{key}"), format!("`{kind}` {why}"));
        cx.report(problem.remedy("leave it out"));
    }
}

/// Refuses what the buffer of the entry at the path `at` says of a disk that it makes no use of.
pub(super) fn refuse_disk(cx: &mut Context<'_>, at: &str, file: &raw::Buffer) {
    let drops = file.when_full == Some(WhenFull::DropOldest);
    let disk = file.disk.as_ref().map(|size| size.0);
    if !drops && disk != Some(0) {
        return;
    }
    let (setting, remedy) = if drops {
        ("when_full: drop_oldest", "leave it out, or write `when_full: spool`")
    } else {
        ("disk: 0", "leave it out")
    };
    let given = [("disk", disk.is_some_and(|bytes| bytes > 0)), ("max_age", file.max_age.is_some())];
    for (key, _) in given.into_iter().filter(|(_, given)| *given) {
        let why = format!("nothing waits on disk with `{setting}`, so this would mean nothing");
        let problem = cx.near(&format!("{at}.buffer.{key}"), why);
        cx.report(problem.remedy(remedy));
    }
}

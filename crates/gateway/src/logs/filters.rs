//! Which requests: the filters of `logs tail` and `logs search`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use magicapi_kernel::LogQuery;

use super::source::Failure;

/// Only these requests; without any, all.
#[derive(Args, Default)]
#[command(next_help_heading = "Only these requests")]
pub(crate) struct Filters {
    /// The provider asked last.
    #[arg(long)]
    provider: Option<String>,
    /// The model, as sent upstream or as the caller named it.
    #[arg(long)]
    model: Option<String>,
    /// How it ended: completed, blocked, gateway_error, provider_error, truncated, timed_out, client_closed.
    #[arg(long)]
    outcome: Option<String>,
    /// `success` or `error`.
    #[arg(long)]
    status: Option<String>,
    /// What the caller got, `429`.
    #[arg(long, value_name = "CODE")]
    status_code: Option<u16>,
    /// The error's type.
    #[arg(long, value_name = "TYPE")]
    error_type: Option<String>,
    /// The virtual key's name.
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// The project.
    #[arg(long)]
    project: Option<String>,
    /// The caller's organisation.
    #[arg(long)]
    org: Option<String>,
    /// The caller's user.
    #[arg(long)]
    user: Option<String>,
    /// The caller's thread.
    #[arg(long)]
    thread: Option<String>,
    /// `chat`, `embeddings`, …
    #[arg(long)]
    operation: Option<String>,
    /// Streams only (`true`), or none (`false`).
    #[arg(long, value_name = "BOOL")]
    streamed: Option<bool>,
    /// At least this slow, in milliseconds.
    #[arg(long, value_name = "MS")]
    min_latency: Option<u64>,
    /// Not before: so long ago (`15m`, `2h`, `7d`), RFC 3339 (`2026-03-05T16:00:00Z`), or Unix milliseconds.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before: so long ago, RFC 3339, or Unix milliseconds. Not for following.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Filters {
    /// The query; times are counted from now.
    pub(crate) fn query(self) -> Result<LogQuery, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = |flag: &str, text: Option<String>| {
            let Some(text) = text else { return Ok(None) };
            time(&text, now).map(Some).ok_or_else(|| {
                Failure::Usage(format!(
                    "{flag}: `{text}` is no time; write how long ago (`90s`, `15m`, `2h`, `7d`), RFC 3339 with its offset \
                     (`2026-03-05T16:00:00Z`), or Unix milliseconds"
                ))
            })
        };
        Ok(LogQuery {
            provider: self.provider,
            model: self.model,
            outcome: self.outcome,
            status: self.status,
            status_code: self.status_code,
            error_type: self.error_type,
            key_name: self.key,
            project_id: self.project,
            org_id: self.org,
            user_id: self.user,
            thread_id: self.thread,
            operation: self.operation,
            streamed: self.streamed,
            since: time("--since", self.since)?,
            until: time("--until", self.until)?,
            min_latency_ms: self.min_latency,
            text: None,
            cursor: None,
            limit: None,
            budget_ms: None,
        })
    }
}

/// `15m` = so long before now; else as the API has it.
fn time(text: &str, now: Duration) -> Option<i64> {
    LogQuery::time(text).or_else(|| ago(text, now))
}

fn ago(text: &str, now: Duration) -> Option<i64> {
    let unit = text.chars().last()?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let ago = Duration::from_secs(count.checked_mul(seconds)?);
    i64::try_from(now.saturating_sub(ago).as_millis()).ok()
}

/// The query as the API reads it; empty, or from the `?` on.
pub(crate) fn query_string(query: &LogQuery) -> String {
    let numbers = [
        ("status_code", query.status_code.map(|code| code.to_string())),
        ("streamed", query.streamed.map(|streamed| streamed.to_string())),
        ("since", query.since.map(|since| since.to_string())),
        ("until", query.until.map(|until| until.to_string())),
        ("min_latency_ms", query.min_latency_ms.map(|least| least.to_string())),
        ("limit", query.limit.map(|limit| limit.to_string())),
        ("budget_ms", query.budget_ms.map(|budget| budget.to_string())),
    ];
    let texts = [("model", &query.model), ("text", &query.text), ("cursor", &query.cursor)];
    let given = query
        .texts()
        .into_iter()
        .map(|(name, value)| (name, value.map(str::to_owned)))
        .chain(texts.map(|(name, value)| (name, value.clone())))
        .chain(numbers)
        .filter_map(|(name, value)| Some((name, value?)));
    let mut text = String::new();
    for (name, value) in given {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        text.push_str(&escaped(&value));
    }
    text
}

/// A text as part of a path or a query.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use magicapi_kernel::LogQuery;

    use super::{query_string, time};

    #[test]
    fn times_are_so_long_ago_or_exact() {
        let now = Duration::from_secs(1_000_000);
        for (text, expected) in [
            ("90s", Some(999_910_000)),
            ("15m", Some(999_100_000)),
            ("2h", Some(992_800_000)),
            ("7d", Some(395_200_000)),
            ("99999d", Some(0)),
            ("1234567", Some(1_234_567)),
            ("1970-01-12T14:46:40+01:00", Some(1_000_000_000)),
            ("1970-01-12", None),
            ("", None),
            ("h", None),
            ("-2h", None),
            ("2 h", None),
            ("2w", None),
            ("2µ", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(time(text, now), expected, "{text:?}");
        }
    }

    #[test]
    fn a_query_is_written_as_the_api_reads_it() {
        assert_eq!(query_string(&LogQuery::default()), "");
        let query = LogQuery {
            provider: Some("a&b=c d".into()),
            model: Some("x/ü".into()),
            streamed: Some(true),
            since: Some(-1),
            limit: Some(5),
            cursor: Some("9-1".into()),
            ..LogQuery::default()
        };
        assert_eq!(
            query_string(&query),
            "?provider=a%26b%3Dc%20d&model=x%2F%C3%BC&cursor=9-1&streamed=true&since=-1&limit=5"
        );
    }
}

//! A request as one line for people.

use std::fmt;

use magicapi_kernel::LogRow;
use magicapi_model::Money;
use serde::Deserialize;

/// The names above the lines.
pub(crate) fn header() -> String {
    columns(["TIME (UTC)", "ID", "CODE", "OUTCOME", "MS", "IN/OUT", "COST", "MODEL"])
}

/// One line in columns; the last one is as wide as it likes.
fn columns([time, id, code, outcome, ms, tokens, cost, model]: [&str; 8]) -> String {
    format!("{time:<23}  {id:<40}  {code:>4}  {outcome:<14}  {ms:>7}  {tokens:>12}  {cost:>10}  {model}")
}

/// A row: as the API writes it, and as a line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// One line of JSON.
    pub(crate) json: String,
    /// For people.
    pub(crate) line: Line,
}

/// What a line shows. Unknown fields are left alone: the gateway may be newer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Line {
    /// Counts arrivals.
    pub(crate) seq: i64,
    id: String,
    timestamp_ms: i64,
    provider: Option<String>,
    model: Option<String>,
    requested_model: Option<String>,
    outcome: String,
    status_code: u16,
    latency: u64,
    tokens: LineTokens,
    cost: Option<f64>,
    error_type: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
struct LineTokens {
    input: Option<u64>,
    output: Option<u64>,
}

impl Line {
    /// The line of a row.
    pub(crate) fn of(row: &LogRow) -> Self {
        Self {
            seq: row.seq,
            id: row.id.clone(),
            timestamp_ms: row.timestamp_ms,
            provider: row.provider.clone(),
            model: row.model.clone(),
            requested_model: row.requested_model.clone(),
            outcome: row.outcome.clone(),
            status_code: row.status_code,
            latency: row.latency,
            tokens: LineTokens { input: row.tokens.input, output: row.tokens.output },
            cost: row.cost.map(Money::usd),
            error_type: row.error_type.clone(),
        }
    }

    fn model(&self) -> String {
        let model = self.model.as_deref().or(self.requested_model.as_deref()).unwrap_or("-");
        let provider = self.provider.as_deref().map_or(String::new(), |provider| format!("{provider}/"));
        let error = self.error_type.as_deref().map_or(String::new(), |error| format!("  {error}"));
        format!("{provider}{model}{error}")
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let tokens = format!("{}/{}", count(self.tokens.input), count(self.tokens.output));
        let cost = self.cost.map_or_else(|| "-".to_owned(), |cost| format!("${cost:.6}"));
        let (code, ms) = (self.status_code.to_string(), self.latency.to_string());
        let (id, outcome, model) = (printable(&self.id), printable(&self.outcome), printable(&self.model()));
        f.write_str(&columns([&utc(self.timestamp_ms), &id, &code, &outcome, &ms, &tokens, &cost, &model]))
    }
}

/// Names come from callers: what would steer a terminal must not reach it.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// `2026-03-05 16:03:20.123`.
fn utc(unix_ms: i64) -> String {
    // What is no date on any calendar is shown as it stands.
    jiff::Timestamp::from_millisecond(unix_ms)
        .map_or_else(|_| unix_ms.to_string(), |at| at.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string())
}

#[cfg(test)]
mod tests {
    use magicapi_kernel::{LogRow, Tokens};
    use magicapi_model::Money;

    use super::{Line, header, utc};

    #[test]
    fn times_are_dates() {
        for (unix_ms, expected) in [
            (0, "1970-01-01 00:00:00.000"),
            (-1, "1969-12-31 23:59:59.999"),
            (951_782_399_999, "2000-02-28 23:59:59.999"),
            (951_782_400_000, "2000-02-29 00:00:00.000"),
            (951_868_800_000, "2000-03-01 00:00:00.000"),
            (1_741_190_600_123, "2025-03-05 16:03:20.123"),
            (4_107_542_400_000, "2100-03-01 00:00:00.000"),
            (i64::MAX, "9223372036854775807"),
        ] {
            assert_eq!(utc(unix_ms), expected);
        }
    }

    fn row() -> LogRow {
        LogRow {
            seq: 1,
            id: "msg_0195686f-0b5a-7000-8000-00000000abcd".into(),
            timestamp_ms: 1_741_190_600_123,
            provider: Some("groq".into()),
            model: Some("llama".into()),
            outcome: "completed".into(),
            status_code: 200,
            latency: 6250,
            tokens: Tokens { input: Some(48), output: None, total: None },
            cost: Money::from_usd(0.0456),
            ..LogRow::default()
        }
    }

    #[test]
    fn a_line_stands_under_its_header() {
        let (header, line) = (header(), Line::of(&row()).to_string());
        for (word, value) in
            [("TIME", "2025"), ("ID", "msg_"), ("OUTCOME", "completed"), ("MODEL", "groq/llama")]
        {
            assert_eq!(header.find(word), line.find(value), "{word}\n{header}\n{line}");
        }
        assert!(line.contains(" 48/-  ") && line.contains(" $0.045600 "), "{line}");
    }

    #[test]
    fn both_ways_show_the_same_line() {
        let json = serde_json::to_string(&row()).expect("JSON");
        let read: Line = serde_json::from_str(&json).expect("a line");
        assert_eq!(read, Line::of(&row()));
    }

    #[test]
    fn nothing_steers_the_terminal() {
        let row = LogRow { model: Some("\u{1b}[2J\r\n\u{9b}x".into()), ..row() };
        assert!(!Line::of(&row).to_string().chars().any(char::is_control));
    }
}

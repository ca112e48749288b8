//! Records as the `file` exporter wrote them: one JSON document a line.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::wire::until;

/// The whole lines of the file, none when there is no file yet.
///
/// # Panics
/// When a whole line is no JSON.
pub fn read_records(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().filter(|line| !line.is_empty());
    lines.map(parse).collect()
}

/// Waits until the file has this many records, and gives all that it has then.
///
/// # Panics
/// When they are not there before the deadline: with those that are.
pub async fn wait_for_records(path: &Path, count: usize, deadline: Duration) -> Vec<Value> {
    let end = Instant::now() + deadline;
    loop {
        let records = read_records(path);
        if records.len() >= count {
            return records;
        }
        assert!(
            Instant::now() < end,
            "{} of {count} records in {} after {deadline:?}: {records:#?}",
            records.len(),
            path.display()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A line as JSON.
///
/// # Panics
/// When it is none.
pub fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// The line that belongs to a case, which is its record's `thread_id`.
pub async fn line_of(path: &Path, case: &str) -> String {
    lines_with(path, &format!("\"thread_id\":\"{case}\""), 1).await.swap_remove(0)
}

/// The whole lines with this text, once there are so many.
pub async fn lines_with(path: &Path, wanted: &str, count: usize) -> Vec<String> {
    until(&format!("{count} lines with {wanted} in {}", path.display()), async || {
        let text = fs::read_to_string(path).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let found: Vec<_> = whole.filter(|line| line.contains(wanted)).map(str::to_owned).collect();
        (found.len() >= count).then_some(found)
    })
    .await
}

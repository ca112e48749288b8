//! Records as the `file` exporter wrote them: one JSON document a line.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The whole lines of the file, none when there is no file yet.
///
/// # Panics
/// When a whole line is no JSON.
pub fn read_records(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
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

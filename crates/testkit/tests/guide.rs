//! The pages for authors of exporters hold what they say: code stands in files that are compiled, changes have tests.

#![allow(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect(path)
}

/// Blocks of a page that are no shell: the file that the comment before one names, and its text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = page.lines().collect();
    let mut blocks = Vec::new();
    let mut open = None;
    for (at, line) in lines.iter().enumerate() {
        match (open, line.strip_prefix("```")) {
            (None, Some(_)) => open = Some(at),
            (Some(start), Some(_)) => {
                let before = start.checked_sub(1).and_then(|at| lines.get(at)).unwrap_or(&"");
                let named = before.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
                if lines[start] != "```sh" {
                    let text = lines[start + 1..at].join("\n");
                    blocks.push((named.unwrap_or_default().to_owned(), text + "\n"));
                }
                open = None;
            }
            _ => {}
        }
    }
    blocks
}

#[test]
fn every_block_of_the_guide_stands_in_a_file_that_is_compiled() {
    let blocks = blocks(&read("docs/telemetry-plugins.md"));
    assert!(blocks.len() >= 9, "{} blocks: the page is read wrongly", blocks.len());
    for (path, text) in blocks {
        let compiled = ["examples/custom-exporter/", "examples/loki-exporter/", "crates/compliance/"]
            .iter()
            .any(|folder| path.starts_with(folder));
        assert!(compiled, "a block names no file that ./test compiles: {path:?}\n{text}");
        let file = read(&path);
        let whole_lines = file.starts_with(&text) || file.contains(&format!("\n{text}"));
        assert!(whole_lines, "{path} does not hold this block of the guide:\n{text}");
    }
}

#[test]
fn an_exporter_of_ones_own_takes_less_than_60_lines() {
    for example in ["custom-exporter", "loki-exporter"] {
        assert!(read(&format!("examples/{example}/src/lib.rs")).lines().count() < 60, "{example}");
        assert!(read(&format!("examples/{example}/src/main.rs")).lines().count() <= 20, "{example}");
    }
}

#[test]
fn every_change_to_the_guide_has_a_test() {
    let tests: String = [
        "crates/compliance/tests/guide/main.rs",
        "examples/custom-exporter/tests/compliance.rs",
        "examples/custom-exporter/tests/gateway.rs",
    ]
    .map(read)
    .concat();
    let page = read("docs/from-the-guide.md");
    let rows = page.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let rows: Vec<&str> = rows.filter(|row| !row.starts_with("| the guide |")).collect();
    assert!(rows.len() > 15, "{} rows: the page is read wrongly", rows.len());
    for row in rows {
        let keeper = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap_or_default();
        let named: Vec<&str> = keeper.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test is named: {row}");
        for name in named {
            assert!(tests.contains(&format!("fn {name}(")), "no test is called {name}: {row}");
        }
    }
}

//! House rules that a script can check: lengths, headers, names, words, promises.

#![allow(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use magicapi_testkit::declared::tests_in;

/// Lines of a file before its tests: the hard limit.
const LIMIT: usize = 600;
/// From here on a file is listed, so that it is split before it has to be.
const LONG: usize = 400;
/// A test file as short as this needs no header.
const SHORT_TEST: usize = 30;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "manager", "common", "misc"];

struct Source {
    /// From the repository's root.
    path: String,
    text: String,
}

// === impl Source ===

impl Source {
    /// Lines before the test module.
    fn production_lines(&self) -> usize {
        let is_test_module = |pair: &[&str]| {
            pair[0].trim() == "#[cfg(test)]"
                && pair[1].trim_start().starts_with("mod ")
                && pair[1].ends_with('{')
        };
        let lines: Vec<&str> = self.text.lines().collect();
        lines.windows(2).position(is_test_module).unwrap_or(lines.len())
    }

    /// Unit tests in a file of their own: the file that they stand beside says what it is for.
    fn is_sibling_test(&self) -> bool {
        self.path.contains("/src/") && (self.path.contains("/tests/") || self.path.ends_with("/tests.rs"))
    }

    fn is_short_test(&self) -> bool {
        self.path.contains("/tests/") && self.text.lines().count() <= SHORT_TEST
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the root")
}

/// Every Rust file of the workspace.
fn sources() -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut found = Vec::new();
    walk(&root.join("crates"), &mut found);
    assert!(found.len() > 100, "the walk went wrong: {} files", found.len());
    let source = |path: PathBuf| Source {
        path: path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned(),
        text: fs::read_to_string(&path).expect("UTF-8"),
    };
    found.into_iter().map(source).collect()
}

fn refuse(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn files_are_short() {
    let mut sizes: Vec<(usize, String)> =
        sources().into_iter().map(|source| (source.production_lines(), source.path)).collect();
    sizes.sort();
    for (lines, path) in sizes.iter().filter(|(lines, _)| *lines > LONG) {
        println!("{lines} lines: {path}");
    }
    let over = sizes.iter().filter(|(lines, _)| *lines > LIMIT);
    refuse(
        &over
            .map(|(lines, path)| format!("{path}: {lines} lines before its tests, over {LIMIT}"))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = sources().into_iter().filter(|source| {
        let exempt = source.is_sibling_test() || source.is_short_test();
        !exempt && !source.text.starts_with("//!")
    });
    refuse(
        &silent
            .map(|source| format!("{}: does not begin with a //! header", source.path))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn nothing_is_left_undone() {
    // Written in two halves, so that this file passes.
    let words: Vec<String> = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!(")).into();
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    refuse(&found);
}

#[test]
fn names_say_what_is_inside() {
    let empty = sources().into_iter().filter(|source| {
        let path = Path::new(&source.path);
        path.iter().any(|part| {
            let name = part.to_string_lossy();
            EMPTY_NAMES.contains(&name.trim_end_matches(".rs"))
        })
    });
    refuse(&empty.map(|source| format!("{}: a name that says nothing", source.path)).collect::<Vec<_>>());
}

/// Every promise of `docs/promises.md` names the test that keeps it, or the reason why there is none; reasons are for
/// at most one line in ten. A line is a row of a table: the promise, then tests as `name` between backquotes.
#[test]
fn promises_have_tests() {
    let Ok(text) = fs::read_to_string(root().join("docs/promises.md")) else { return };
    let tests: BTreeSet<_> = sources().iter().flat_map(|source| tests_in(&source.text)).collect();
    let is_row = |line: &&str| line.starts_with('|') && !line.contains("---");
    let mut tables =
        text.lines().filter(is_row).map(|line| line.trim_matches('|').split('|').collect::<Vec<_>>());
    let header = tables.next();
    assert!(header.is_some(), "docs/promises.md has no table");
    let (mut rows, mut reasons, mut broken) = (0, 0, Vec::new());
    for row in tables.filter(|row| Some(row) != header.as_ref()) {
        rows += 1;
        let keeper = row.last().map_or("", |cell| cell.trim());
        // A test may stand with its path: `crates/x/tests/y.rs::name`.
        let named: Vec<&str> = keeper.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            reasons += 1;
            if keeper.len() < 10 {
                broken.push(format!("neither test nor reason: {}", row.join("|")));
            }
        }
        for name in named {
            let function = name.rsplit("::").next().unwrap_or(name);
            if !tests.contains(function) {
                broken.push(format!("no test is called {function}: {}", row.join("|")));
            }
        }
    }
    refuse(&broken);
    assert!(reasons * 10 <= rows, "{reasons} of {rows} promises have a reason instead of a test");
}

/// `docs/record.md` has every key that `encode.rs` writes and every word of the closed lists.
#[test]
fn the_page_of_the_record_is_complete() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect(path);
    let page = read("docs/record.md");
    let mut words = BTreeSet::new();
    let kinds = read("crates/model/src/error.rs");
    words.extend(
        kinds.lines().filter_map(|line| Some(line.split_once(" = \"")?.1.strip_suffix("\",")?.to_owned())),
    );
    for path in ["crates/model/src/outcome.rs", "crates/dialects/src/openai_chat/operation.rs"] {
        let arms = read(path);
        words.extend(
            arms.lines()
                .filter_map(|line| Some(line.split_once(" => \"")?.1.strip_suffix("\",")?.to_owned())),
        );
    }
    let encoder = read("crates/plugin/src/encode.rs");
    for (name, prefix) in [("struct Ids", ""), ("struct Tokens", "tokens."), ("struct Metadata", "")] {
        let fields = encoder.split(name).nth(1).and_then(|rest| rest.split("\n}").next()).expect(name);
        let names = fields.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
        words.extend(
            names.filter(|(field, _)| *field != "tokens").map(|(field, _)| format!("{prefix}{field}")),
        );
    }
    assert!(words.len() > 80, "the files are read wrongly: {words:?}");
    let missing = words.into_iter().filter(|word| !page.contains(&format!("`{word}`")));
    refuse(&missing.map(|word| format!("docs/record.md lacks `{word}`")).collect::<Vec<_>>());
}

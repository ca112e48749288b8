//! What may grow in the SDK within a version: every type that authors take apart says so, or the guide says that it never
//! will.

// clippy's leave for tests does not reach what tests call.
#![allow(clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// They stay as they are.
const CLOSED: [&str; 5] = ["Health", "Registration", "Size", "Span", "Trailers"];

/// The SDK's own files, and those of the nouns that it passes on.
fn sources() -> Vec<String> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let entries = fs::read_dir(crates.join("plugin/src")).expect("the SDK");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.extend(
        ["id", "money", "outcome", "secret", "usage"].map(|name| crates.join(format!("model/src/{name}.rs"))),
    );
    let is_source = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    paths.iter().filter(is_source).map(|path| fs::read_to_string(path).expect("a file")).collect()
}

/// The name of a public type that this line begins, and whether it is an enumeration.
fn begun(line: &str) -> Option<(&str, bool)> {
    let (rest, is_enum) = match line.strip_prefix("pub enum ") {
        Some(rest) => (rest, true),
        None => (line.strip_prefix("pub struct ")?, false),
    };
    Some((rest.split(|c: char| !c.is_alphanumeric()).next()?, is_enum))
}

/// Public types whose shape authors see, and whether each may grow.
fn shapes() -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some((name, is_enum)) = begun(line) else { continue };
            let body = lines[at..].iter().take_while(|line| **line != "}" && !line.is_empty());
            let is_open =
                is_enum || line.contains("(pub ") || body.skip(1).any(|line| line.starts_with("    pub "));
            let mut attributes =
                lines[..at].iter().rev().take_while(|line| !line.is_empty() && **line != "}");
            if is_open {
                found.push((name.to_owned(), attributes.any(|line| *line == "#[non_exhaustive]")));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_authors_take_apart_may_grow() {
    let shapes = shapes();
    let grows = |name: &str| shapes.iter().any(|(known, grows)| known == name && *grows);
    assert!(grows("Facts") && grows("Usage") && grows("PointValue"), "the list is read: {shapes:?}");
    let closed: Vec<&str> =
        shapes.iter().filter(|(_, grows)| !grows).map(|(name, _)| name.as_str()).collect();
    assert_eq!(closed, CLOSED, "these could not grow without a new major version");
}

/// A list's length is not part of its type.
#[test]
fn closed_lists_may_get_longer() {
    let sources = sources();
    let lists = sources.iter().flat_map(|source| source.lines()).filter(|line| line.contains("const ALL:"));
    let lists: Vec<&str> = lists.map(str::trim).collect();
    assert_eq!(lists.len(), 2, "{lists:?}");
    assert!(lists.iter().all(|line| line.starts_with("pub const ALL: &'static [Self]")), "{lists:?}");
}

#[test]
fn the_guide_says_what_stays() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/telemetry-plugins.md");
    let guide = fs::read_to_string(guide).expect("the guide");
    let (_, stable) = guide.split_once("## What stays stable").expect("the section");
    let named = |name: &str| stable.contains(&format!("`{name}`"));
    assert!(CLOSED.iter().all(|name| named(name)));
    for name in ["Facts", "Usage", "TelemetryConfig", "Outcome", "ContentDropped", "HttpError", "Delivery"] {
        assert!(named(name), "{name}");
    }
}

//! The edges between the workspace's crates: what ARCHITECTURE.md draws, and nothing else.
//!
//! A crate may also name what its neighbours may name; dependencies of tests are not looked at. Edges that nobody drew
//! fail here, whoever compiled them.

#![allow(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Each crate with those that it may depend on; what lies below them follows.
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("mock", &[]), // depends on no crate of ours: it is the second opinion
    ("testkit", &[]),
    ("chat", &["model"]),
    ("plugin", &["model"]),
    ("spool", &["model"]),
    ("dialects", &["model", "chat"]),
    ("kernel", &["plugin", "chat"]),
    ("compliance", &["plugin"]), // for tests of third parties too: it sees the SDK and nothing else
    ("config", &["plugin"]),
    ("exporters", &["plugin"]),
    ("upstream", &["kernel"]),
    ("policies", &["kernel"]),
    ("providers", &["kernel", "dialects"]),
    ("store", &["kernel", "spool"]),
    ("telemetry", &["kernel", "dialects", "spool"]),
    ("server", &["kernel", "dialects", "config", "telemetry", "upstream"]),
    ("admin", &["kernel", "config", "telemetry"]),
    (
        "gateway",
        &[
            "admin",
            "config",
            "exporters",
            "mock",
            "policies",
            "providers",
            "server",
            "store",
            "telemetry",
            "upstream",
        ],
    ),
];

/// What each crate may name: its allowed edges and everything below them.
fn reachable() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut reachable = BTreeMap::<&str, BTreeSet<&str>>::new();
    for (name, below) in ALLOWED {
        let mut names = BTreeSet::new();
        for neighbour in *below {
            names.insert(*neighbour);
            let further = reachable.get(neighbour).expect("the table goes from the bottom up");
            names.extend(further.iter().copied());
        }
        reachable.insert(name, names);
    }
    reachable
}

/// Folder name → folder names of its normal and build dependencies within the workspace.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root)
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata");
    let folder = |path: &Value| {
        let path = Path::new(path.as_str().expect("a path"));
        path.file_name().expect("a folder").to_string_lossy().into_owned()
    };
    let packages = metadata["packages"].as_array().expect("packages").iter();
    let edges = packages.map(|package| {
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        let name = folder(&Value::from(manifest.parent().expect("a folder").to_string_lossy()));
        let dependencies = package["dependencies"].as_array().expect("dependencies").iter();
        let ours = dependencies.filter(|edge| edge["path"].is_string() && edge["kind"] != "dev");
        (name, ours.map(|edge| folder(&edge["path"])).collect())
    });
    edges.collect()
}

#[test]
fn only_the_edges_of_the_architecture_exist() {
    let reachable = reachable();
    let mut refused = Vec::new();
    for (from, targets) in edges() {
        let Some(allowed) = reachable.get(from.as_str()) else {
            refused.push(format!("crates/{from} is not in the table; draw it in ARCHITECTURE.md and here"));
            continue;
        };
        let wrong = targets.iter().filter(|to| !allowed.contains(to.as_str()));
        refused
            .extend(wrong.map(|to| format!("{from} -> {to} is an edge that the architecture does not have")));
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn nothing_that_is_shipped_depends_on_the_testkit() {
    for (from, targets) in edges() {
        for tests in ["testkit", "compliance"] {
            assert!(!targets.contains(tests), "{from} needs {tests} outside of its tests");
        }
    }
}

//! Names the commit in `--version`; a source tree without git says `unknown`.

use std::process::Command;

fn main() {
    let commit = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    println!("cargo::rustc-env=MAGICAPI_COMMIT={commit}");
    // The log of HEAD changes with every commit; HEAD itself only when another branch is checked out.
    println!("cargo::rerun-if-changed=../../.git/logs/HEAD");
}

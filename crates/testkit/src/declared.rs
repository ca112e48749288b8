//! The names of the tests in a source file, for lists that name tests: `docs/promises.md`, `tests/keys.toml`.

/// The functions of a Rust text that follow a `#[test]` or `#[tokio::test]`; of one with a `main` of its own, which has no
/// harness, all.
pub fn tests_in(text: &str) -> Vec<String> {
    let has_no_harness = text.lines().any(|line| line.starts_with("fn main()"));
    let (mut names, mut marked) = (Vec::new(), has_no_harness);
    for line in text.lines().map(str::trim) {
        match line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ") {
            Some(name) if marked => {
                names.extend(name.split(['(', '<']).next().map(str::to_owned));
                marked = has_no_harness;
            }
            _ => marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test"),
        }
    }
    names
}

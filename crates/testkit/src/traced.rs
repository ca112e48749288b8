//! The whole suite at TRACE: with `MAGICAPI_TEST_TRACE` set, every gateway that a test starts without a `RUST_LOG` of its
//! own logs all that it can, and when it has ended its log is searched for secrets.

use std::collections::BTreeMap;

use serde_json::Value;

/// What keys of providers and of callers begin with in all tests.
const KEY: &str = "sk-";
/// Keys of the configuration file that hold secrets.
const KEYS: [&str; 8] =
    ["api_key", "bearer", "hash_key", "headers", "license_key", "password", "secret", "token"];
/// How variables that hold secrets end.
const VARIABLES: [&str; 5] = ["_HEADERS", "_KEY", "_PASSWORD", "_SECRET", "_TOKEN"];
/// What is shorter may be a word.
const SHORTEST: usize = 8;

/// Whether the suite runs so.
#[expect(clippy::disallowed_methods, reason = "how tests run is no setting of the product")]
pub(crate) fn is_asked_for() -> bool {
    std::env::var_os("MAGICAPI_TEST_TRACE").is_some_and(|value| !value.is_empty())
}

/// What must not be logged: the secrets that a gateway was given, and every key.
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// Those of its variables and of its file, if that is JSON, as it is wherever a test makes it from values.
    pub(crate) fn of(variables: &BTreeMap<String, String>, file: Option<&str>) -> Self {
        let mut secrets = Self(Vec::new());
        for (name, value) in variables {
            if VARIABLES.iter().any(|end| name.ends_with(end)) {
                secrets.add(value);
            }
        }
        let file = file.and_then(|text| serde_json::from_str(text).ok());
        secrets.gather(&file.unwrap_or_default(), false);
        secrets
    }

    fn gather(&mut self, value: &Value, is_secret: bool) {
        match value {
            Value::String(text) if is_secret => self.add(text),
            Value::Array(values) => values.iter().for_each(|value| self.gather(value, is_secret)),
            Value::Object(members) => {
                for (key, value) in members {
                    self.gather(value, is_secret || KEYS.contains(&key.as_str()));
                }
            }
            _ => {}
        }
    }

    /// Adds one; a text that may be a word is left out.
    pub(crate) fn add(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.len() >= SHORTEST {
            self.0.push(secret.to_owned());
        }
    }

    fn stand_in(&self, line: &str) -> bool {
        // `task-1` and `disk-full` are none.
        let is_key = |(at, _): (usize, &str)| {
            let next = line[at + KEY.len()..].chars().next();
            !line[..at].ends_with(char::is_alphanumeric) && next.is_some_and(char::is_alphanumeric)
        };
        line.match_indices(KEY).any(is_key) || self.0.iter().any(|secret| line.contains(secret))
    }

    /// Ends the test when one was logged.
    ///
    /// # Panics
    /// With the line.
    pub(crate) fn refuse(&self, lines: &[String]) {
        let leaks: Vec<&str> =
            lines.iter().map(String::as_str).filter(|line| self.stand_in(line)).take(10).collect();
        assert!(leaks.is_empty(), "a secret stands in the log, at TRACE:\n{}", leaks.join("\n"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Secrets;

    #[test]
    fn what_was_given_and_keys_of_any_kind_are_seen() {
        let variables = [("ADMIN_TOKEN", "of-a-variable"), ("PORT", "not-a-secret"), ("DD_API_KEY", "short")];
        let variables: BTreeMap<_, _> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let file = r#"{ "a": [{ "auth": { "bearer": "of-the-file" }, "headers": { "x": "of-a-header" }, "url": "http://back-end" }] }"#;
        let mut secrets = Secrets::of(&variables, Some(file));
        secrets.add("made-by-itself\n");
        for seen in
            ["of-a-variable", "of-the-file", "of-a-header", "made-by-itself", "sk-a", "Bearer sk-ours."]
        {
            assert!(secrets.stand_in(&format!("{{\"message\":\"{seen}\"}}")), "{seen}");
        }
        for other in ["not-a-secret", "short", "http://back-end", "disk-full", "sk-", "sk- a"] {
            assert!(!secrets.stand_in(other), "{other}");
        }
    }
}

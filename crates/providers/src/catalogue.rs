//! The catalogue's rows, read once from `data/catalogue.json` and checked as a whole.
//!
//! First step of the flow: a row says everything that is fixed about a provider; the operator's settings come on top of
//! it in `openai_compatible`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use http::HeaderName;
use magicapi_kernel::{BaseUrl, Quirks, UsageInStreams};
use serde::Deserialize;

use crate::auth::{Auth, CredentialHeader};

/// The catalogue as shipped.
const DATA: &str = include_str!("../data/catalogue.json");

/// Where the last chunk of a stream carries usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum UsageAt {
    /// `usage`, as OpenAI.
    #[serde(rename = "usage")]
    Usage,
    /// `x_groq.usage`, always there; `usage` too when asked for (groq-python 1.7.0).
    #[serde(rename = "x_groq.usage")]
    XGroq,
}

/// One provider of the catalogue. The lists of parameters speak of chat completions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its name in `x-provider`, in `provider/model` and in the price table.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// Its address; `None` when every customer has another.
    pub base_url: Option<String>,
    /// The variable that overrides the address: `<PROVIDER>_BASE_URL`.
    pub base_url_env: String,
    /// The variable that holds the gateway's key; `None` for a provider that needs none.
    pub key_env: Option<String>,
    /// How a credential is sent.
    pub auth: Auth,
    /// Whether it answers without a key.
    pub needs_key: bool,
    /// Parameters that it has under another name: ours → its own.
    #[serde(default)]
    pub rename: BTreeMap<String, String>,
    /// Parameters left out, with a signal: a name, or `messages[].name`.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Parameters refused: name → reason.
    #[serde(default)]
    pub refuse: BTreeMap<String, String>,
    /// How usage comes to stand in a stream.
    #[serde(with = "UsageInStreamsText")]
    pub usage_in_streams: UsageInStreams,
    /// Where it stands there.
    pub usage_at: UsageAt,
    /// The header with its own request id, when it sends one.
    pub request_id_header: Option<String>,
    /// Its rate-limit headers → their standard names, where they differ.
    #[serde(default)]
    pub rate_limit_headers: BTreeMap<String, String>,
    /// The shape of its error bodies: a fact that tests hold the readers against, which accept every shape.
    pub error_shape: ErrorShape,
    /// What else its users should know.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Where the row's facts come from.
    pub source: Vec<String>,
}

/// The words of `usage_in_streams`; the kernel's contracts know no file format.
#[derive(Deserialize)]
#[serde(remote = "UsageInStreams", rename_all = "snake_case")]
enum UsageInStreamsText {
    Ask,
    Always,
}

/// The shape of a provider's error bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorShape {
    /// `{"error":{"message","type","param","code"}}`.
    OpenAi,
    /// `{"message","type","param","code"}`.
    Flat,
    /// `{"error":{"code":<int>,"message","metadata"?}}`.
    NumericCode,
    /// `{"code":"…","error":"text"}` or `{"error":"text"}`.
    Text,
}

impl Row {
    /// Its differences in the form that the server reads.
    pub fn quirks(&self) -> Result<Quirks, String> {
        let pairs = |map: &BTreeMap<String, String>| map.clone().into_iter().collect();
        let request_id_header = self.request_id_header.as_deref().map(header).transpose()?;
        let rate_limit_headers = self
            .rate_limit_headers
            .iter()
            .map(|(theirs, standard)| Ok((header(theirs)?, header(standard)?)))
            .collect::<Result<_, String>>()?;
        Ok(Quirks {
            rename: pairs(&self.rename),
            drop: self.drop.clone(),
            refuse: pairs(&self.refuse),
            usage_in_streams: self.usage_in_streams,
            request_id_header,
            rate_limit_headers,
        })
    }

    /// What serde cannot see: addresses, header names, and edits that contradict each other.
    fn check(&self) -> Result<(), String> {
        if let Some(base_url) = &self.base_url {
            BaseUrl::parse(base_url).map_err(|e| format!("base_url: {e}"))?;
        }
        CredentialHeader::new(&self.auth)?;
        self.quirks()?;
        // One parameter is edited once: the editor walks the body a single time and must not depend on an order.
        let edited: Vec<&String> = self
            .rename
            .keys()
            .chain(self.rename.values())
            .chain(&self.drop)
            .chain(self.refuse.keys())
            .collect();
        for (index, name) in edited.iter().enumerate() {
            if edited[..index].contains(name) {
                return Err(format!("{name}: stands in more than one of rename, drop and refuse"));
            }
        }
        Ok(())
    }
}

fn header(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|e| format!("header {name:?}: {e}"))
}

fn parse(text: &str) -> Result<Vec<Row>, String> {
    let rows: Vec<Row> = serde_json::from_str(text).map_err(|e| format!("provider catalogue: {e}"))?;
    for (index, row) in rows.iter().enumerate() {
        row.check().map_err(|e| format!("provider catalogue: {}: {e}", row.name))?;
        if rows[..index].iter().any(|other| other.name == row.name) {
            return Err(format!("provider catalogue: {} stands there twice", row.name));
        }
    }
    Ok(rows)
}

fn loaded() -> &'static Result<Vec<Row>, String> {
    static ROWS: OnceLock<Result<Vec<Row>, String>> = OnceLock::new();
    ROWS.get_or_init(|| parse(DATA))
}

/// All rows, in the order of the file. The data is compiled in and tested, so the error is one of the build.
pub fn catalogue() -> Result<&'static [Row], &'static str> {
    loaded().as_deref().map_err(String::as_str)
}

/// The row of that name.
pub fn row(name: &str) -> Option<&'static Row> {
    catalogue().ok()?.iter().find(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use super::{DATA, catalogue, parse, row};

    #[test]
    fn every_row_reads_and_names_are_plain() {
        let rows = catalogue().expect("the catalogue");
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "openai",
                "azure",
                "groq",
                "fireworks",
                "together",
                "mistral",
                "deepseek",
                "xai",
                "openrouter",
                "cerebras",
                "ollama",
                "vllm"
            ]
        );
        for row in rows {
            assert!(row.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{}", row.name);
            assert_eq!(row.base_url_env, format!("{}_BASE_URL", row.name.to_uppercase()));
            assert_eq!(row.needs_key, row.key_env.is_some(), "{}", row.name);
            assert!(!row.source.is_empty() && !row.title.is_empty(), "{}", row.name);
            assert!(row.drop.is_sorted(), "{}: the list of drops is sorted", row.name);
        }
    }

    #[test]
    fn rate_limits_get_standard_names() {
        for row in catalogue().expect("the catalogue") {
            for standard in row.rate_limit_headers.values() {
                let rest = standard.strip_prefix("x-ratelimit-").expect("a standard prefix");
                let (what, of) = rest.split_once('-').expect("two words");
                assert!(["limit", "remaining", "reset"].contains(&what), "{standard}");
                assert!(["requests", "tokens"].contains(&of), "{standard}");
            }
        }
    }

    #[test]
    fn a_name_is_matched_whole() {
        assert!(row("openai").is_some_and(|row| row.title == "OpenAI"));
        assert!(row("OpenAI").is_none() && row("").is_none());
    }

    #[test]
    fn a_row_that_contradicts_itself_is_refused_by_name() {
        let vllm = |from: &str, to: &str| {
            let changed = DATA.replace(from, to);
            assert_ne!(changed, DATA, "{from} stands in the data");
            parse(&changed).expect_err("a contradiction")
        };
        let error = vllm(r#""drop": ["user"]"#, r#""drop": ["user", "user"]"#);
        assert_eq!(
            error,
            "provider catalogue: vllm: user: stands in more than one of rename, drop and refuse"
        );
        let error = vllm(r#""drop": ["user"]"#, r#""dorp": ["user"]"#);
        assert!(error.contains("unknown field `dorp`"), "{error}");
        let error =
            vllm(r#""rename": { "max_completion_tokens": "max_tokens", "seed""#, r#""rename": { "user""#);
        assert!(error.starts_with("provider catalogue: mistral: user"), "{error}");
        let error = vllm("x-generation-id", "x generation id");
        assert!(error.starts_with("provider catalogue: openrouter: header"), "{error}");
        let error = vllm("http://localhost:8000/v1", "localhost:8000");
        assert!(error.starts_with("provider catalogue: vllm: base_url"), "{error}");
        let error = vllm(r#""name": "vllm""#, r#""name": "ollama""#);
        assert_eq!(error, "provider catalogue: ollama stands there twice");
        let error = vllm(r#""name": "api-key""#, r#""name": "api key""#);
        assert!(error.starts_with("provider catalogue: azure: auth"), "{error}");
    }
}

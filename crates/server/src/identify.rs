//! What a caller presents: the credential in any of the headers that SDKs use.

use http::{HeaderMap, HeaderName, header};
use magicapi_model::{Error, ErrorKind, Secret};

/// Headers that carry a credential; they never go upstream as they came.
pub(crate) const CREDENTIAL_HEADERS: [HeaderName; 4] = [
    header::AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// The word that stands for "no key of my own": SDKs insist on some key.
const PLACEHOLDER: &str = "gateway";

/// What came.
#[derive(Default)]
pub(crate) struct Presented {
    /// Every credential, in the order in which they count; placeholders and empty ones are none.
    pub(crate) keys: Vec<Secret>,
    /// Whether the placeholder came.
    pub(crate) placeholder: bool,
}

/// Reads what a caller presents.
pub(crate) fn presented(headers: &HeaderMap) -> Result<Presented, Error> {
    let mut found = Presented::default();
    for name in &CREDENTIAL_HEADERS {
        let Some(value) = headers.get(name) else { continue };
        let text = value.to_str().map_err(|_| unusable(name, "holds more than visible ASCII text"))?.trim();
        let text = if *name == header::AUTHORIZATION { bearer(text)? } else { text };
        match text {
            "" => {}
            PLACEHOLDER => found.placeholder = true,
            key => found.keys.push(Secret::new(key)),
        }
    }
    Ok(found)
}

fn bearer(text: &str) -> Result<&str, Error> {
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if text.is_empty() || scheme.eq_ignore_ascii_case("bearer") {
        return Ok(token.trim());
    }
    Err(unusable(&header::AUTHORIZATION, "is not of the form `Bearer <key>`"))
}

fn unusable(name: &HeaderName, what: &str) -> Error {
    Error::client(
        ErrorKind::Unauthenticated,
        format!("the header `{name}` {what}; send `Authorization: Bearer <key>`"),
    )
    .param(name.as_str())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::presented;

    fn keys(pairs: &[(&'static str, &'static str)]) -> Result<Vec<String>, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        presented(&headers)
            .map(|found| found.keys.iter().map(|key| key.expose().to_owned()).collect())
            .map_err(|error| error.message)
    }

    #[test]
    fn any_header_form_counts_and_placeholders_do_not() {
        assert_eq!(keys(&[("authorization", "Bearer sk-1")]), Ok(vec!["sk-1".into()]));
        assert_eq!(
            keys(&[("authorization", "bearer  sk-1 "), ("api-key", "b")]),
            Ok(vec!["sk-1".into(), "b".into()])
        );
        assert_eq!(keys(&[("authorization", "Bearer gateway"), ("x-api-key", "")]), Ok(vec![]));
        assert_eq!(keys(&[("authorization", "Bearer")]), Ok(vec![]));
        assert!(keys(&[("authorization", "Basic dTpw")]).expect_err("refused").contains("Bearer <key>"));
    }
}

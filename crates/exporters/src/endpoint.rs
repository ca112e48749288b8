//! What exporters that speak HTTP have in common: an address, a credential, packed bodies.

use std::io::Write;

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use magicapi_plugin::{ConfigError, Http, HttpError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How bodies are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// With gzip.
    #[default]
    Gzip,
    /// Not at all.
    None,
}

/// A server's API.
pub(crate) struct Endpoint {
    pub(crate) http: Http,
    /// Its address, from [`check_url`].
    pub(crate) base: String,
    /// The value of `Authorization`, marked as sensitive.
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) compression: Compression,
}

impl Endpoint {
    /// Asks for `path`, which begins with a slash.
    pub(crate) async fn get(&self, path: &str) -> Result<Response<Bytes>, HttpError> {
        self.send(Method::GET, path, HeaderMap::new(), Bytes::new()).await
    }

    /// Puts a JSON document there.
    pub(crate) async fn put(&self, path: &str, json: String) -> Result<Response<Bytes>, HttpError> {
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        self.send(Method::PUT, path, headers.into_iter().collect(), json.into()).await
    }

    /// Sends a batch there, packed as the settings say.
    pub(crate) async fn post(
        &self,
        path: &str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<Response<Bytes>, HttpError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let packed = if self.compression == Compression::Gzip { gzip(&body) } else { None };
        if packed.is_some() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        self.send(Method::POST, path, headers, packed.unwrap_or_else(|| body.into())).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>, HttpError> {
        headers.extend(self.authorization.clone().map(|value| (AUTHORIZATION, value)));
        // A known length: several servers parse chunked bodies worse, or not at all.
        headers.insert(CONTENT_LENGTH, body.len().into());
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base)).body(body);
        let mut request = request.map_err(|e| HttpError::Connect(e.to_string()))?;
        *request.headers_mut() = headers;
        self.http.send(request).await
    }
}

/// Packs a body; `None` if that failed, which in memory it does not.
fn gzip(body: &[u8]) -> Option<Bytes> {
    // JSON shrinks about as well at the fastest level, in a third of the time.
    let mut gzip = GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    gzip.write_all(body).ok()?;
    gzip.finish().ok().map(Bytes::from)
}

/// The address in the setting `url`, without a slash at its end. The error texts quote nothing of it: with user
/// information in it, it is a secret.
pub(crate) fn check_url(url: &str) -> Result<String, ConfigError> {
    check_parts(
        url,
        "scheme, host and port, as in http://localhost:9200",
        "they have settings of their own",
    )?;
    if url.contains(['?', '#']) {
        return wrong("expected scheme, host, port and perhaps a path, nothing else");
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// Checks an address that is used as it stands, with its path, a slash at its end and a query. The error is one of
/// `url` and quotes nothing of it.
pub(crate) fn check_whole_url(url: &str) -> Result<(), ConfigError> {
    check_parts(url, "one as in https://example.com/hook", "send them in `headers`")
}

/// What every address must have, and must not; `user` says where user and password belong.
fn check_parts(url: &str, expected: &str, user: &str) -> Result<(), ConfigError> {
    let Ok(uri) = url.parse::<Uri>() else {
        return wrong(&format!("not an address; expected {expected}"));
    };
    match uri.authority().filter(|_| matches!(uri.scheme_str(), Some("http" | "https"))) {
        None => wrong("begins with neither http:// nor https://"),
        Some(authority) if authority.as_str().contains('@') => {
            wrong(&format!("holds a user or password; {user}"))
        }
        Some(authority) if authority.host().is_empty() => {
            wrong(&format!("lacks a host; expected {expected}"))
        }
        Some(_) => Ok(()),
    }
}

fn wrong<T>(what: &str) -> Result<T, ConfigError> {
    Err(ConfigError::new("url", what))
}

/// A credential as the value of `Authorization`; `None` when it holds what no header can.
pub(crate) fn authorization(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A name as one segment of a path.
pub(crate) fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{check_url, check_whole_url};

    #[test]
    fn an_address_is_taken_whole_or_as_a_base() {
        for (url, base) in [
            ("http://x:4318/custom/", Some("http://x:4318/custom")),
            ("https://x/v1/traces", Some("https://x/v1/traces")),
            ("https://x/in/?token=canary/", None),
        ] {
            assert_eq!(check_whole_url(url), Ok(()), "{url}");
            assert_eq!(check_url(url).ok().as_deref(), base, "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_said_without_quoting_it() {
        for (url, part) in [
            ("canary", "begins with neither http:// nor https://"),
            ("ftp://canary", "begins with neither"),
            ("http://canary y", "not an address"),
            ("http://", "not an address"),
            ("http://:80/canary", ""),
            ("https://u:canary@x", "holds a user or password"),
        ] {
            for error in [check_url(url).map(|_| ()), check_whole_url(url)].map(Result::unwrap_err) {
                let error = error.to_string();
                assert!(error.contains(part) && !error.contains("canary"), "{url}: {error}");
            }
        }
    }
}

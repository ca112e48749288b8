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
    let wrong = |what: &str| Err(ConfigError::new("url", what));
    let Ok(uri) = url.parse::<Uri>() else {
        return wrong("not an address; expected scheme, host and port, as in http://localhost:9200");
    };
    let Some(authority) = uri.authority().filter(|_| matches!(uri.scheme_str(), Some("http" | "https")))
    else {
        return wrong("begins with neither http:// nor https://");
    };
    if authority.as_str().contains('@') {
        return wrong("holds a user or password; they have settings of their own");
    }
    if authority.host().is_empty() || url.contains(['?', '#']) {
        return wrong("expected scheme, host, port and perhaps a path, nothing else");
    }
    Ok(url.trim_end_matches('/').to_owned())
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

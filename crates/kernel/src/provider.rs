//! What the server needs to know of a provider: address, credential form, quirks as data.

use http::HeaderMap;
use magicapi_model::Secret;

/// An address that request paths are appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    scheme: http::uri::Scheme,
    authority: http::uri::Authority,
    path: String,
}

impl BaseUrl {
    /// Reads `http(s)://host[:port][/path]`; a trailing slash of the path is cut. The error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected http:// or https://, a host and at most a path";
        let uri: http::Uri = text.parse().map_err(|e| format!("{e}; {EXPECTED}"))?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.filter(|s| matches!(s.as_str(), "http" | "https")).ok_or(EXPECTED)?;
        let authority = parts.authority.ok_or(EXPECTED)?;
        if authority.as_str().contains('@') {
            return Err(
                "a user name or password does not belong in the address; set the provider's key".into()
            );
        }
        let path = parts.path_and_query.as_ref().map_or("", |path| path.path());
        if parts.path_and_query.as_ref().is_some_and(|path| path.query().is_some()) || text.contains('#') {
            return Err(format!("a query or fragment is not part of a base URL; {EXPECTED}"));
        }
        Ok(Self { scheme, authority, path: path.trim_end_matches('/').to_owned() })
    }

    /// The address of `path` (with its leading slash) and query below this base.
    pub fn join(&self, path: &str, query: Option<&str>) -> Result<http::Uri, http::Error> {
        let mut target =
            String::with_capacity(self.path.len() + path.len() + query.map_or(0, |q| q.len() + 1));
        target.push_str(&self.path);
        target.push_str(path);
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        http::Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(target)
            .build()
    }

    /// What is left of a path that repeats the last segment of this address: `/models` of `/v1/models` below `…/v1`.
    pub fn without_repeated_end<'p>(&self, path: &'p str) -> Option<&'p str> {
        let end = self.path.rfind('/').and_then(|slash| self.path.get(slash..))?;
        path.strip_prefix(end).filter(|rest| rest.len() > 1 && rest.starts_with('/'))
    }

    /// Whether TLS is used.
    pub fn is_tls(&self) -> bool {
        self.scheme == http::uri::Scheme::HTTPS
    }

    /// Host and port as written.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

/// Whose key opens the provider for this request.
#[derive(Clone)]
pub enum Credential {
    /// The caller's own.
    Caller(Secret),
    /// The gateway's.
    Gateway(Secret),
    /// The provider needs none.
    None,
}

impl Credential {
    /// The record's word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Caller(_) => "caller",
            Self::Gateway(_) => "gateway",
            Self::None => "none",
        }
    }
}

/// What happens to the upstream when the client leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnClientGone {
    /// The connection is closed at once.
    #[default]
    Cancel,
    /// The answer is read to its end, within limits, because the provider bills it anyway.
    Drain,
}

/// How usage comes to stand in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageInStreams {
    /// `stream_options.include_usage` asks for it.
    #[default]
    Ask,
    /// It is always there; asking is not needed or refused.
    Always,
}

/// Where a provider differs, as data from its catalogue row. Everything that is not named goes through.
#[derive(Clone, Debug, Default)]
pub struct Quirks {
    /// Parameters under another name: ours → theirs.
    pub rename: Vec<(String, String)>,
    /// Parameters that the provider does not know: left out, with a signal. A name or `messages[].name`.
    pub drop: Vec<String>,
    /// Parameters that change the meaning and cannot be served: name → reason.
    pub refuse: Vec<(String, String)>,
    /// How usage comes to stand in a stream.
    pub usage_in_streams: UsageInStreams,
    /// The header with the provider's own request id.
    pub request_id_header: Option<http::HeaderName>,
    /// Its rate-limit headers → the standard name under which the caller gets them.
    pub rate_limit_headers: Vec<(http::HeaderName, http::HeaderName)>,
}

/// One configured provider.
pub trait Provider: Send + Sync {
    /// Its name: the catalogue's, or the operator's for an entry of the file.
    fn name(&self) -> &str;

    /// The catalogue row's name, by which prices are found.
    fn catalogue_name(&self) -> &str;

    /// The names under which the price table may list a model, best first.
    fn price_names(&self, model: &str) -> Vec<String> {
        vec![model.to_owned()]
    }

    /// Where it is.
    fn base_url(&self) -> &BaseUrl;

    /// The gateway's key for it.
    fn gateway_key(&self) -> Option<&Secret>;

    /// Whether it wants a key at all.
    fn needs_key(&self) -> bool;

    /// Puts the credential into the provider's own header form.
    fn authorize(&self, credential: &Credential, headers: &mut HeaderMap);

    /// Where it differs.
    fn quirks(&self) -> &Quirks;

    /// What happens to the upstream when the client leaves.
    fn on_client_gone(&self) -> OnClientGone;

    /// Whether `traceparent` and `tracestate` are sent on.
    fn trace(&self) -> bool;

    /// Where the operator sets its key: a variable or a key of the file.
    fn key_setting(&self) -> String {
        format!("providers.{}.api_key", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::BaseUrl;

    #[test]
    fn base_urls() {
        let url = BaseUrl::parse("http://localhost:11434/v1/").expect("a base URL");
        assert_eq!(
            url.join("/chat/completions", Some("a=b")).expect("uri").to_string(),
            "http://localhost:11434/v1/chat/completions?a=b"
        );
        assert_eq!(url.to_string(), "http://localhost:11434/v1");
        for (path, left) in [("/v1/models", Some("/models")), ("/v1", None), ("/v1/", None), ("/v10/x", None)]
        {
            assert_eq!(url.without_repeated_end(path), left, "{path}");
        }
        let bare = BaseUrl::parse("http://localhost").expect("a base URL");
        assert_eq!(bare.without_repeated_end("/v1/models"), None);
        for bad in ["localhost:11434", "ftp://x", "http://user:pw@x", "http://x?y=1", "http://x/#f", ""] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
    }
}

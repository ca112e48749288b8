//! The header that carries a credential to a provider.
//!
//! Last thing that is done to a request's headers before they are sent: whatever credential is still among them goes,
//! and the chosen one is set (pitfall 52: two credentials side by side, and the wrong one wins).

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use magicapi_kernel::Credential;
use magicapi_model::Secret;
use serde::Deserialize;

/// Every header in which the dialects carry a credential (design.md, "Credentials").
const CREDENTIAL_HEADERS: [&str; 8] = [
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-aws-access-key-id",
    "x-aws-secret-access-key",
    "x-aws-region",
    "x-aws-session-token",
];

/// How a provider takes its key, as the catalogue says it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Auth {
    /// `Authorization: Bearer <key>`.
    Bearer,
    /// The key alone in a header of its own.
    Header {
        /// The header's name.
        name: String,
        /// Whether a JSON Web Token goes as `Authorization: Bearer` instead. Azure takes a resource key as `api-key` and
        /// a Microsoft Entra token as bearer; a caller's credential no longer says in which header it came.
        jwt_as_bearer: bool,
    },
}

/// [`Auth`] made ready for requests.
#[derive(Debug)]
pub(crate) struct CredentialHeader {
    /// The header of its own, and whether a token goes as bearer; `None` = always bearer.
    own: Option<(HeaderName, bool)>,
}

impl CredentialHeader {
    /// Reads the header's name.
    pub(crate) fn new(auth: &Auth) -> Result<Self, String> {
        let own = match auth {
            Auth::Bearer => None,
            Auth::Header { name, jwt_as_bearer } => {
                let name = name.parse().map_err(|e| format!("auth header {name:?}: {e}"))?;
                Some((name, *jwt_as_bearer))
            }
        };
        Ok(Self { own })
    }

    /// Leaves exactly the chosen credential among `headers`, or none.
    pub(crate) fn put(&self, credential: &Credential, headers: &mut HeaderMap) {
        for name in CREDENTIAL_HEADERS {
            headers.remove(name);
        }
        let key = match credential {
            Credential::Caller(key) | Credential::Gateway(key) => key.expose(),
            Credential::None => return,
        };
        let (name, value) = match &self.own {
            Some((name, jwt_as_bearer)) if !(*jwt_as_bearer && is_jwt(key)) => {
                (name.clone(), HeaderValue::from_bytes(key.as_bytes()))
            }
            _ => (AUTHORIZATION, HeaderValue::from_bytes(format!("Bearer {key}").as_bytes())),
        };
        // A key of ours was checked when the provider was built. A caller's came out of a header, so it fits into one;
        // should it not, the request goes without and the provider's own 401 says so.
        if let Ok(mut value) = value {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
}

/// Three parts, the first of which is base64 of `{"`: RFC 7519, section 3. Azure's resource keys have no dots.
fn is_jwt(key: &str) -> bool {
    key.starts_with("eyJ") && key.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// Whether a key from the environment or the file can be sent; the error says what is wrong, never the key.
pub(crate) fn check_key(key: &Secret) -> Result<(), &'static str> {
    let key = key.expose();
    let bearer = |word: &str| word.eq_ignore_ascii_case("bearer ");
    if key.get(..7).is_some_and(bearer) {
        Err("it begins with `Bearer`; give the key alone")
    } else if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err("it has a space, a line break or another character that no key has; copy it again")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use magicapi_kernel::Credential;
    use magicapi_model::Secret;

    use super::{Auth, CREDENTIAL_HEADERS, CredentialHeader, check_key};

    const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln";

    fn put(auth: &Auth, credential: &Credential) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for name in CREDENTIAL_HEADERS {
            headers.insert(name, HeaderValue::from_static("left-over"));
        }
        headers.append("authorization", HeaderValue::from_static("second"));
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        CredentialHeader::new(auth).expect("auth").put(credential, &mut headers);
        assert!(headers.remove("content-type").is_some(), "other headers stay");
        assert!(headers.values().all(HeaderValue::is_sensitive));
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    fn caller(key: &str) -> Credential {
        Credential::Caller(Secret::new(key))
    }

    fn one(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    fn azure() -> Auth {
        Auth::Header { name: "api-key".into(), jwt_as_bearer: true }
    }

    #[test]
    fn exactly_the_chosen_credential_is_sent() {
        assert_eq!(put(&Auth::Bearer, &caller("sk-1")), one("authorization", "Bearer sk-1"));
        let ours = Credential::Gateway(Secret::new("sk-2"));
        assert_eq!(put(&Auth::Bearer, &ours), one("authorization", "Bearer sk-2"));
        assert_eq!(put(&azure(), &caller("0123456789abcdef")), one("api-key", "0123456789abcdef"));
        assert_eq!(put(&Auth::Bearer, &Credential::None), []);
        assert_eq!(put(&azure(), &Credential::None), []);
    }

    #[test]
    fn an_entra_token_goes_as_bearer_where_the_row_says_so() {
        assert_eq!(put(&azure(), &caller(JWT)), one("authorization", &format!("Bearer {JWT}")));
        let plain = Auth::Header { name: "api-key".into(), jwt_as_bearer: false };
        assert_eq!(put(&plain, &caller(JWT)), one("api-key", JWT));
        assert_eq!(put(&azure(), &caller("eyJ.no")), one("api-key", "eyJ.no"));
    }

    #[test]
    fn a_key_that_no_header_can_hold_is_not_sent_and_does_no_harm() {
        assert_eq!(put(&Auth::Bearer, &caller("sk\r\nx-evil: 1")), []);
        assert_eq!(put(&azure(), &caller("sk\u{7f}")), []);
    }

    #[test]
    fn bad_keys_are_told_apart() {
        assert_eq!(check_key(&Secret::new("sk-proj-abc_123")), Ok(()));
        for (key, word) in [
            ("Bearer sk-1", "alone"),
            ("bearer sk-1", "alone"),
            ("sk-1\n", "line break"),
            ("sk 1", "space"),
            ("schlüssel", "character"),
        ] {
            let error = check_key(&Secret::new(key)).expect_err(key);
            assert!(error.contains(word), "{error}");
        }
    }
}

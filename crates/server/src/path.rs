//! What a path asks for, and what the gateway's own key may be used for there (design, "Two listeners").

use http::Method;
use magicapi_dialects::openai_chat::Operation;
use magicapi_model::{Error, ErrorKind};

/// What the data plane serves at a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// A page about the process itself.
    Page(Page),
    /// A call to a provider.
    Call(Call),
}

/// A page about the process itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// Liveness.
    Health,
    /// Readiness.
    Ready,
    /// The scrape page, when the operator opened it here.
    Metrics,
}

/// A call as its path describes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// What is asked for.
    pub(crate) operation: Operation,
    /// What is appended to the provider's base URL, with its leading slash; escapes as received.
    pub(crate) below_base: String,
    /// The provider that the path names (`/proxy/{provider}/…`).
    pub(crate) provider: Option<String>,
    /// What the gateway's own key may do here.
    pub(crate) key_use: KeyUse,
}

impl Call {
    /// Whether it lists stored chats where most callers mean to begin one.
    pub(crate) fn lists_chats(&self) -> bool {
        self.operation == Operation::Other && Operation::of(&self.below_base) == Operation::Chat
    }
}

/// What the gateway's own key may do at a path. A caller's own key may do anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyUse {
    /// Free to use.
    Open,
    /// Names things by ids that have no owner yet.
    OwnedIds,
    /// Not in the list: only if `auth.passthrough` names it.
    Unlisted,
    /// Organisation, key and billing matters: never.
    Never,
}

/// First path segments that are about the account, not about models.
const ACCOUNT: [&str; 8] =
    ["organization", "organizations", "billing", "dashboard", "api_keys", "projects", "usage", "admin"];

/// Paths of dialects that are not served yet; saying so beats the provider's 404.
const OTHER_DIALECTS: [&str; 2] = ["messages", "complete"];

/// Finds what a path asks for. `path` is the raw path, without query.
pub(crate) fn classify(method: &Method, path: &str) -> Result<Served, Error> {
    match path {
        "/health" => return own_page(method, path, Page::Health),
        "/ready" => return own_page(method, path, Page::Ready),
        "/metrics" => return own_page(method, path, Page::Metrics),
        _ => {}
    }
    if let Some(rest) = path.strip_prefix("/proxy/") {
        return proxy(method, path, rest).map(Served::Call);
    }
    let below =
        path.strip_prefix("/openai").unwrap_or(path).strip_prefix("/v1/").ok_or_else(|| unknown(path))?;
    if OTHER_DIALECTS.contains(&below.split('/').next().unwrap_or_default()) {
        return Err(unknown(path));
    }
    call(method, path, below, None).map(Served::Call)
}

/// Why a rule of `auth.passthrough` can have no effect, if so: what it names is never opened to the gateway's own key.
pub fn useless_passthrough(method: &str, path: &str) -> Option<&'static str> {
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    match classify(&method, path) {
        Ok(Served::Call(Call { key_use: KeyUse::Never, .. })) => {
            Some("is about the provider account itself, for which the gateway's key is never used")
        }
        Ok(Served::Call(Call { key_use: KeyUse::OwnedIds, .. })) => {
            Some("names things in the provider account by ids, which have no owner yet")
        }
        Ok(Served::Call(_)) => None,
        Ok(Served::Page(_)) | Err(_) => Some("is no path that goes to a provider"),
    }
}

fn own_page(method: &Method, path: &str, page: Page) -> Result<Served, Error> {
    if matches!(*method, Method::GET | Method::HEAD) {
        Ok(Served::Page(page))
    } else {
        Err(not_allowed(method, path, "GET"))
    }
}

fn proxy(method: &Method, path: &str, rest: &str) -> Result<Call, Error> {
    let (provider, below) = rest.split_once('/').unwrap_or((rest, ""));
    if provider.is_empty() {
        return Err(unknown(path));
    }
    call(method, path, below, Some(provider.to_owned()))
}

fn call(method: &Method, path: &str, below: &str, provider: Option<String>) -> Result<Call, Error> {
    let operation = Operation::of(below);
    safe(below, operation)?;
    let operation = match (operation, method) {
        // `GET /chat/completions` lists stored completions: passed through, not a chat.
        (Operation::Chat, &Method::GET) => Operation::Other,
        (operation, method) if posts_only(operation) && *method != Method::POST => {
            return Err(not_allowed(method, path, "POST"));
        }
        (operation, _) => operation,
    };
    Ok(Call {
        operation,
        below_base: format!("/{below}"),
        provider,
        key_use: key_use(operation, method, below),
    })
}

const fn posts_only(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Chat
            | Operation::Completions
            | Operation::Embeddings
            | Operation::Responses
            | Operation::Images
            | Operation::Speech
            | Operation::Transcription
            | Operation::Moderations
            | Operation::Rerank
    )
}

fn key_use(operation: Operation, method: &Method, below: &str) -> KeyUse {
    match operation {
        operation if posts_only(operation) => KeyUse::Open,
        Operation::Models | Operation::Model if *method == Method::GET => KeyUse::Open,
        Operation::Files | Operation::Batches | Operation::ResponseById => KeyUse::OwnedIds,
        _ if is_account(below) => KeyUse::Never,
        _ => KeyUse::Unlisted,
    }
}

/// Some providers' addresses lack the version, which then stands in the path.
fn is_account(below: &str) -> bool {
    let below = below.strip_prefix("v1/").unwrap_or(below);
    ACCOUNT.contains(&below.split('/').next().unwrap_or_default())
}

/// A path must mean the same to us and to the provider: no dot segments, no escaped separators. A model's id may hold
/// an escaped slash.
fn safe(below: &str, operation: Operation) -> Result<(), Error> {
    let lower = below.to_ascii_lowercase();
    let dots = lower.replace("%2e", ".");
    let dotted = dots.split('/').any(|segment| matches!(segment, "." | ".."));
    let escaped_slash = lower.contains("%2f") && operation != Operation::Model;
    // An escaped slash in a model's id must not smuggle dot segments either.
    let smuggled = dots.replace("%2f", "/").split('/').any(|segment| segment == "..");
    if dotted || escaped_slash || smuggled || lower.contains("%5c") || lower.contains('\\') {
        return Err(Error::client(
            ErrorKind::InvalidRequest,
            "the path holds `..`, an encoded slash or a backslash; send the path without them",
        ));
    }
    Ok(())
}

fn unknown(path: &str) -> Error {
    let mut message = format!(
        "the gateway does not serve `{}`; it serves OpenAI's paths below `/v1` (for example `/v1/chat/completions`) \
         and `/proxy/{{provider}}/…`",
        shown(path)
    );
    let (mount, below) = path.strip_prefix("/openai").map_or(("", path), |below| ("/openai", below));
    if below.starts_with('/') && Operation::of(below) != Operation::Other {
        let meant = format!("; the base URL ends in `/v1`, which makes it `{mount}/v1{}`", shown(below));
        message.push_str(&meant);
    }
    Error::client(ErrorKind::UnknownPath, message)
}

pub(crate) fn not_allowed(method: &Method, path: &str, allowed: &'static str) -> Error {
    let method = method.as_str();
    let message = format!("`{}` is not served with {method}; use {allowed}", shown(path));
    Error::client(ErrorKind::MethodNotAllowed, message).context("allow", allowed)
}

/// A path as an error may quote it.
fn shown(path: &str) -> String {
    const LONGEST: usize = 120;
    if path.chars().count() <= LONGEST {
        return path.to_owned();
    }
    path.chars().take(LONGEST).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use http::Method;
    use magicapi_dialects::openai_chat::Operation;
    use magicapi_model::ErrorKind;

    use super::{KeyUse, Served, classify, useless_passthrough};

    fn call(method: &Method, path: &str) -> (Operation, String, Option<String>, KeyUse) {
        match classify(method, path).expect(path) {
            Served::Call(call) => (call.operation, call.below_base, call.provider, call.key_use),
            Served::Page(page) => panic!("{path}: {page:?}"),
        }
    }

    #[test]
    fn paths_and_what_our_key_may_do_there() {
        let post = Method::POST;
        let get = Method::GET;
        for (method, path, operation, key_use) in [
            (&post, "/v1/chat/completions", Operation::Chat, KeyUse::Open),
            (&post, "/openai/v1/embeddings", Operation::Embeddings, KeyUse::Open),
            (&get, "/v1/models", Operation::Models, KeyUse::Open),
            (&get, "/v1/models/org%2Fname", Operation::Model, KeyUse::Open),
            (&Method::DELETE, "/v1/models/ft:x", Operation::Model, KeyUse::Unlisted),
            (&get, "/v1/files", Operation::Files, KeyUse::OwnedIds),
            (&post, "/v1/batches", Operation::Batches, KeyUse::OwnedIds),
            (&get, "/v1/responses/resp_1", Operation::ResponseById, KeyUse::OwnedIds),
            (&get, "/v1/chat/completions", Operation::Other, KeyUse::Unlisted),
            (&get, "/v1/organization/admin_api_keys", Operation::Other, KeyUse::Never),
            (&post, "/v1/vector_stores", Operation::Other, KeyUse::Unlisted),
        ] {
            let (found, _, _, use_) = call(method, path);
            assert_eq!((found, use_), (operation, key_use), "{method} {path}");
        }
        let (operation, below, provider, _) = call(&post, "/proxy/groq/chat/completions");
        assert_eq!(
            (operation, below.as_str(), provider.as_deref()),
            (Operation::Chat, "/chat/completions", Some("groq"))
        );
    }

    #[test]
    fn rules_that_could_open_nothing() {
        for (method, path, useless) in [
            ("POST", "/v1/vector_stores", false),
            ("POST", "/v1/chat/completions", false),
            ("GET", "/v1/organization/users", true),
            ("GET", "/proxy/groq/v1/organization/users", true),
            ("GET", "/v1/files", true),
            ("GET", "/health", true),
            ("POST", "/v2/anything", true),
        ] {
            assert_eq!(useless_passthrough(method, path).is_some(), useless, "{method} {path}");
        }
    }

    #[test]
    fn what_is_not_served() {
        let kind = |method: &Method, path: &str| classify(method, path).expect_err(path).kind;
        assert_eq!(kind(&Method::GET, "/"), ErrorKind::UnknownPath);
        assert_eq!(kind(&Method::POST, "/v1/messages"), ErrorKind::UnknownPath);
        assert_eq!(kind(&Method::PUT, "/v1/embeddings"), ErrorKind::MethodNotAllowed);
        assert_eq!(kind(&Method::POST, "/health"), ErrorKind::MethodNotAllowed);
        for path in [
            "/proxy/openai/../x",
            "/proxy/openai/%2e%2E/x",
            "/proxy/openai/a%2fb",
            "/proxy/openai/a%5Cb",
            "/v1/models/a%2F..%2Fb",
            "/v1/files/..",
        ] {
            assert_eq!(kind(&Method::POST, path), ErrorKind::InvalidRequest, "{path}");
        }
    }
}

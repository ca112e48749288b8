//! Which endpoint a path means. Only the end of the path counts, so that every provider's base path
//! (`/v1`, `/openai/v1`, `/inference/v1`, none) works.

/// An endpoint of the mock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Embeddings,
    Models,
    /// One model, by its decoded id.
    Model(String),
    Responses,
    Images,
    Speech,
    Transcriptions,
    Moderations,
    Rerank,
    Files,
}

/// Path ends, longest first where one is the end of another.
const ENDS: &[(&str, Endpoint)] = &[
    ("/chat/completions", Endpoint::Chat),
    ("/completions", Endpoint::Completions),
    ("/embeddings", Endpoint::Embeddings),
    ("/models", Endpoint::Models),
    ("/responses", Endpoint::Responses),
    ("/images/generations", Endpoint::Images),
    ("/audio/speech", Endpoint::Speech),
    ("/audio/transcriptions", Endpoint::Transcriptions),
    ("/moderations", Endpoint::Moderations),
    ("/rerank", Endpoint::Rerank),
    ("/files", Endpoint::Files),
];

impl Endpoint {
    /// The endpoint of a path without its query.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        if let Some((_, endpoint)) = ENDS.iter().find(|(end, _)| path.ends_with(end)) {
            return Some(endpoint.clone());
        }
        let (_, id) = path.split_once("/models/")?;
        Some(Self::Model(percent_decoded(id)))
    }

    /// Whether the endpoint answers to a method.
    pub(crate) fn takes(&self, method: &http::Method) -> bool {
        match self {
            Self::Models | Self::Model(_) => method == http::Method::GET || method == http::Method::HEAD,
            Self::Files => method == http::Method::GET || method == http::Method::POST,
            _ => method == http::Method::POST,
        }
    }
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        let code = rest.get(..2).filter(|_| *first == b'%');
        let code =
            code.and_then(|c| std::str::from_utf8(c).ok()).and_then(|c| u8::from_str_radix(c, 16).ok());
        out.push(code.unwrap_or(*first));
        bytes = if code.is_some() { rest.get(2..).unwrap_or_default() } else { rest };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_base_path_works() {
        for base in ["", "/v1", "/openai/v1", "/inference/v1"] {
            assert_eq!(Endpoint::of(&format!("{base}/chat/completions")), Some(Endpoint::Chat));
            assert_eq!(Endpoint::of(&format!("{base}/completions")), Some(Endpoint::Completions));
        }
        assert_eq!(Endpoint::of("/v1/models/org%2Fmodel%20a"), Some(Endpoint::Model("org/model a".into())));
        assert_eq!(Endpoint::of("/v1/models"), Some(Endpoint::Models));
        assert_eq!(Endpoint::of("/v1/nothing"), None);
    }
}

//! A page where JSON belongs, a proxy's or a load balancer's: it becomes an error that the caller's SDK can read.

use std::pin::Pin;
use std::time::Duration;

use http::header::{self, HeaderName};
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use magicapi_dialects::encoding::{Coding, Decoder};
use magicapi_dialects::openai_chat::Operation;
use magicapi_model::{Error, ErrorKind, Retry};
use magicapi_upstream::ResponseBody;

/// Bytes of a page that are read for the error's excerpt, and how long that may take: less than a request that is cut
/// may take to end.
const EXCERPT: (usize, Duration) = (16 << 10, Duration::from_secs(3));

/// Headers beside `content-*` that speak of the page, not of the provider or the request.
const OF_THE_PAGE: [HeaderName; 7] = [
    header::ACCEPT_RANGES,
    header::AGE,
    header::CACHE_CONTROL,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::LOCATION,
];

/// The answer's body, or the error that stands in for an answer that cannot be handed on.
pub(crate) async fn understood(
    head: &Parts,
    body: ResponseBody,
    operation: Operation,
) -> Result<ResponseBody, Error> {
    let status = head.status;
    if status.is_informational() {
        // 101: nobody asked for another protocol, and the caller's connection would change to it.
        let message = format!("the provider answered {} where an answer belongs", status.as_u16());
        return Err(Error::provider(ErrorKind::ProtocolError, Retry::Later, message));
    }
    let Some(kind) = page_type(&head.headers, status).filter(|_| speaks_json(operation)) else {
        return Ok(body);
    };
    let coding = head.headers.get(header::CONTENT_ENCODING).and_then(|v| Coding::parse(v.to_str().ok()?));
    let message = format!(
        "the provider answered {} with {kind} instead of JSON; is its address right? It says: {}",
        status.as_u16(),
        words(&plain(beginning(body).await, coding))
    );
    Err(Error::provider(ErrorKind::ProviderStatus, Retry::Later, message)
        .context("provider_status", status.as_str().to_owned()))
}

/// Leaves of the headers that came with a page those that hold for what takes its place: rate limits, ids.
pub(crate) fn keep_what_is_not_the_pages(headers: &mut HeaderMap) {
    let of_the_page = |name: &HeaderName| name.as_str().starts_with("content-") || OF_THE_PAGE.contains(name);
    let names: Vec<_> = headers.keys().filter(|name| of_the_page(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn page_type(headers: &HeaderMap, status: StatusCode) -> Option<&'static str> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("text/html") {
        return Some("text/html");
    }
    (kind.eq_ignore_ascii_case("text/plain") && !status.is_success()).then_some("text/plain")
}

const fn speaks_json(operation: Operation) -> bool {
    !matches!(operation, Operation::Other | Operation::Files | Operation::Speech | Operation::Transcription)
}

async fn beginning(mut body: ResponseBody) -> Vec<u8> {
    let mut page = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            page.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if page.len() >= EXCERPT.0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(EXCERPT.1, read).await;
    page
}

/// What can be read of the beginning of a page.
fn plain(page: Vec<u8>, coding: Option<Coding>) -> Vec<u8> {
    let Some(coding) = coding else { return page };
    let mut plain = Vec::new();
    // It may end early or go on for long: what came out until then is enough.
    let _ = Decoder::new(coding, EXCERPT.0).push(&page, &mut plain);
    plain
}

/// The readable words of a page: tags, scripts and white space left out, cut to a line.
fn words(page: &[u8]) -> String {
    const LONGEST: usize = 200;
    let page = String::from_utf8_lossy(page);
    let mut text = String::new();
    let mut rest = page.as_ref();
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        text.push(' ');
        let hidden = ["script", "style"].into_iter().find(|name| tag.to_ascii_lowercase().starts_with(name));
        let end = match hidden {
            Some(name) => tag.to_ascii_lowercase().find(&format!("</{name}")).map(|at| at + 1),
            None => Some(0),
        };
        rest = end.and_then(|at| tag[at..].split_once('>')).map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() { "(no text)".to_owned() } else { text.chars().take(LONGEST).collect() }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_page_is_reduced_to_its_words() {
        let page = b"<html><head><style>b{}</style><title>502 Bad Gateway</title></head>\n<body><h1>Sorry</h1></body></html>";
        assert_eq!(words(page), "502 Bad Gateway Sorry");
        assert_eq!(words(b"<script>alert(1)"), "(no text)");
        assert_eq!(words(b"plain  words"), "plain words");
        words(b"<\xff<script<\xf0\x9f");
    }
}

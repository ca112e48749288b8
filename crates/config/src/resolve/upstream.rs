//! How providers are reached: proxies, trust, time limits.

use std::path::PathBuf;
use std::time::Duration;

use crate::context::Context;
use crate::raw;
use crate::types::{Timeouts, Upstream};

pub(super) fn upstream(cx: &mut Context<'_>, file: raw::Upstream) -> Upstream {
    let proxy = file.proxy.and_then(|url| proxy_url(cx, "upstream.proxy", &url));
    let https_proxy = proxy_variable(cx, "HTTPS_PROXY").or_else(|| proxy.clone());
    let http_proxy = proxy_variable(cx, "HTTP_PROXY").or_else(|| proxy.clone());
    let no_proxy = either_case(cx, "NO_PROXY").unwrap_or_default();
    let no_proxy = no_proxy.split(',').map(str::trim).filter(|host| !host.is_empty()).map(Into::into);
    // Not the usual order: SSL_CERT_FILE is set for all programs of a machine, the key for this one.
    let ca_file =
        file.tls.ca_file.or_else(|| cx.variable("upstream.tls.ca_file", "SSL_CERT_FILE").map(PathBuf::from));
    Upstream { proxy, https_proxy, http_proxy, no_proxy: no_proxy.collect(), ca_file }
}

pub(super) fn timeouts(cx: &mut Context<'_>, file: &raw::Timeouts) -> Timeouts {
    let seconds = Duration::from_secs;
    let timeouts = Timeouts {
        connect: cx.positive("timeouts.connect", file.connect, seconds(5)),
        first_token: cx.positive("timeouts.first_token", file.first_token, seconds(600)),
        idle: cx.positive("timeouts.idle", file.idle, seconds(120)),
        attempt: file.attempt.and_then(|limit| limit.0),
        total: file.total.and_then(|limit| limit.0),
    };
    for (key, limit) in [("timeouts.attempt", timeouts.attempt), ("timeouts.total", timeouts.total)] {
        if limit.is_some_and(|limit| limit.is_zero()) {
            cx.problem(key, "must be longer than `0s`; for no limit write `none`");
        }
    }
    timeouts
}

/// The variable in capitals, else in small letters, as most programs take them.
fn either_case<'a>(cx: &mut Context<'a>, name: &str) -> Option<&'a str> {
    let lower = name.to_ascii_lowercase();
    cx.variable(name, name).or_else(|| cx.variable(name, &lower))
}

fn proxy_variable(cx: &mut Context<'_>, name: &str) -> Option<String> {
    let url = either_case(cx, name)?;
    proxy_url(cx, name, url)
}

/// `proxy:3128` is taken for `http://proxy:3128`, as curl does.
pub(super) fn proxy_url(cx: &mut Context<'_>, key: &str, url: &str) -> Option<String> {
    let url = url.trim();
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    match url_problem(&url) {
        None => Some(url.trim_end_matches('/').into()),
        Some(problem) => {
            cx.problem(key, problem);
            None
        }
    }
}

/// What is wrong with an `http` or `https` URL. It is not shown: it may hold a password.
pub(super) fn url_problem(url: &str) -> Option<String> {
    let expected = "expected a URL such as `https://host` or `http://127.0.0.1:8000/v1`";
    let Some((scheme, _)) = url.split_once("://") else {
        return Some(format!("{expected}; the scheme is missing"));
    };
    if scheme != "http" && scheme != "https" {
        return Some(format!("{expected}, found the scheme `{scheme}`"));
    }
    match url.parse::<http::Uri>() {
        Ok(uri) if uri.host().is_some_and(|host| !host.is_empty()) => None,
        _ => Some(expected.into()),
    }
}

//! How one exporter reaches its back end: `tls`, `proxy` and `auth` of its entry.

use magicapi_model::Secret;
use magicapi_plugin::{Settings, SettingsSpec};

use super::upstream::proxy_url;
use crate::context::Context;
use crate::raw;
use crate::types::{Reach, ReachAuth, ReachProxy};

/// Settings by which exporters take a credential of their own.
const CREDENTIALS: [&str; 5] = ["api_key", "license_key", "password", "token", "username"];

/// Resolves the three keys of the entry at the path `at`, whose plug-in is `kind`.
pub(super) fn reach(
    cx: &mut Context<'_>,
    at: &str,
    file: raw::Pipeline,
    (kind, spec): (&str, Option<&SettingsSpec>),
    own: &Settings,
) -> Reach {
    let raw::Pipeline { tls, proxy, auth, .. } = file;
    let has_tls = [tls.ca_file.is_some(), tls.cert.is_some(), tls.key.is_some(), tls.server_name.is_some()];
    if spec.is_some_and(|spec| !spec.speaks_http()) {
        let given = [("tls", has_tls.contains(&true)), ("proxy", proxy.is_some()), ("auth", auth.is_some())];
        for (key, _) in given.into_iter().filter(|(_, given)| *given) {
            let problem = format!("`{kind}` does not send over HTTP, so this would mean nothing");
            let problem = cx.near(&format!("{at}.{key}"), problem).remedy("leave it out");
            cx.report(problem);
        }
        return Reach::default();
    }
    let identity = match (tls.cert, tls.key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (cert, _) => {
            let (there, missing) = if cert.is_some() { ("cert", "key") } else { ("key", "cert") };
            cx.problem(&format!("{at}.tls.{there}"), format!("goes with `{missing}`, which is missing"));
            None
        }
    };
    let proxy = match proxy.as_deref().map(str::trim) {
        None => ReachProxy::Inherited,
        Some("none") => ReachProxy::Direct,
        Some(url) => {
            let url = proxy_url(cx, &format!("{at}.proxy"), url);
            url.map_or(ReachProxy::Inherited, |url| ReachProxy::Url(Secret::new(url)))
        }
    };
    let auth = auth.and_then(|auth| credential(cx, &format!("{at}.auth"), auth, own));
    Reach { ca_file: tls.ca_file, identity, server_name: tls.server_name, proxy, auth }
}

fn credential(cx: &mut Context<'_>, at: &str, auth: raw::ReachAuth, own: &Settings) -> Option<ReachAuth> {
    if let Some(name) = CREDENTIALS.into_iter().find(|name| own.values().contains_key(*name)) {
        let problem = cx.near(at, format!("`auth` and `{name}` are two credentials for one back end"));
        cx.report(problem.remedy("keep one of them"));
        return None;
    }
    match (auth.basic, auth.bearer, auth.header) {
        (Some(basic), None, None) => {
            Some(ReachAuth::Basic { username: basic.username, password: basic.password })
        }
        (None, Some(token), None) => Some(ReachAuth::Bearer(token)),
        (None, None, Some(header)) => Some(ReachAuth::Header { name: header.name, value: header.value }),
        _ => {
            let problem = cx.near(at, "expected exactly one of `basic`, `bearer` and `header`");
            cx.report(problem);
            None
        }
    }
}

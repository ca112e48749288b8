//! What stands before every route: the `Host` check, the token, and the headers of every answer.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use crate::error::ApiError;
use crate::plane::Plane;

const UNAUTHORIZED: &str = "this needs the admin token: send `Authorization: Bearer <token>`. The token is what \
     ADMIN_TOKEN (`admin.token` in the file) says; with neither set the gateway made one at its first start. While it \
     runs, gateway.json in its data directory has the token in force";

const WRONG_HOST: &str = "the `Host` of this request is neither a loopback address nor a configured one: use \
     `localhost`, 127.0.0.1 or [::1], or an address of `admin.listen` (ADMIN_LISTEN)";

/// Refuses requests under a name that nobody configured. Comes before the token, so that a page elsewhere learns
/// nothing.
pub(crate) async fn check_host(State(plane): State<Arc<Plane>>, request: Request, next: Next) -> Response {
    if host_is_allowed(&plane, request.headers(), request.uri()) {
        return next.run(request).await;
    }
    ApiError::new(StatusCode::FORBIDDEN, "wrong_host", WRONG_HOST).into_response()
}

/// Refuses requests without the token. It stands around routes and fallback alike.
pub(crate) async fn check_token(State(plane): State<Arc<Plane>>, request: Request, next: Next) -> Response {
    if bearer(request.headers()).is_some_and(|presented| plane.token.admits(presented)) {
        return next.run(request).await;
    }
    let mut refusal = ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", UNAUTHORIZED).into_response();
    refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refusal
}

/// No browser is to guess a type, keep an answer, frame it or say where it came from.
pub(crate) async fn seal(mut response: Response) -> Response {
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Exactly one header, and the target's own authority when it has one (`GET http://…`).
fn host_is_allowed(plane: &Plane, headers: &HeaderMap, target: &Uri) -> bool {
    let mut named = headers.get_all(HOST).iter();
    let (Some(host), None) = (named.next(), named.next()) else {
        return false;
    };
    host.to_str().is_ok_and(|host| plane.hosts.admit(host))
        && target.authority().is_none_or(|authority| plane.hosts.admit(authority.as_str()))
}

/// The token of exactly one `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim_start_matches(' '))
}

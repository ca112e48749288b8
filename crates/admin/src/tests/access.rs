//! Who gets in: token, `Host`, methods, and the headers of every answer.

use magicapi_config::MetricsAccess;

use super::place::{Place, Set, TOKEN, authorization};
use crate::routes::routes;

/// Every route, with an id where one belongs.
fn paths() -> impl Iterator<Item = String> {
    routes().into_iter().map(|(path, ..)| path.replace("{id}", "msg_1").replace("{exporter}", "x"))
}

#[tokio::test]
async fn nothing_is_answered_without_the_token_not_even_what_is_not_there() {
    let place = Place::new(Set::default()).await;
    let wrong = [
        String::new(),
        "Authorization: Bearer wrong".into(),
        "Authorization: Bearer ".into(),
        "Authorization: Bearer".into(),
        format!("Authorization: Basic {TOKEN}"),
        format!("Authorization: {TOKEN}"),
        format!("Authorization: Bearer {}", &TOKEN[1..]),
        format!("Authorization: Bearer {TOKEN}x"),
        format!("Authorization: Bearer {}", TOKEN.to_uppercase()),
        format!("Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}"),
        format!("Cookie: token={TOKEN}"),
        format!("X-Api-Key: {TOKEN}"),
    ];
    for path in paths().chain(["/".into(), "/api/v1/nothing".into(), format!("/api/v1/logs?token={TOKEN}")]) {
        for headers in &wrong {
            let headers: Vec<&str> = [headers.as_str()].into_iter().filter(|line| !line.is_empty()).collect();
            let refused = place.send("GET", &path, &headers).await;
            assert_eq!(refused.status, 401, "{path} {headers:?}");
            assert_eq!(refused.header("www-authenticate"), Some("bearer"));
            let (code, message) = refused.refusal();
            assert_eq!(code, "unauthorized");
            assert!(message.contains("ADMIN_TOKEN") && message.contains("gateway.json"), "{message}");
        }
        assert_eq!(place.send("POST", &path, &[]).await.status, 401, "{path}: a method is not told either");
    }
    for right in [authorization(), format!("authorization: bearer  {TOKEN}")] {
        assert_eq!(place.send("GET", "/health/details", &[&right]).await.status, 200, "{right}");
    }
}

#[tokio::test]
async fn a_foreign_host_is_refused_before_the_token_is_looked_at() {
    let place = Place::new(Set { hosts: vec!["admin.example.com".into()], ..Set::default() }).await;
    let ask = async |host: &str, path: &str, headers: &str| {
        place.raw(&format!("GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n")).await
    };
    let token = format!("{}\r\n", authorization());
    for host in [
        "evil.example",
        "localhost:4000/#@x",
        "localhost/health",
        "localhost@evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "0.0.0.0:3001",
        "10.0.0.1",
        "",
        "localhost\r\nHost: localhost",
        "localhost\r\nHost: evil.example",
    ] {
        for headers in ["", &token] {
            let refused = ask(&format!("Host: {host}\r\n"), "/health/details", headers).await;
            // What is no host at all hyper may refuse by itself.
            assert!([400, 403].contains(&refused.status), "{host:?}: {refused:?}");
            if refused.status == 403 {
                let (code, message) = refused.refusal();
                assert_eq!(code, "wrong_host");
                assert!(message.contains("admin.listen"), "{message}");
            }
        }
    }
    assert_eq!(ask("", "/health/details", &token).await.status, 403, "none at all");
    let target = "http://evil.example/health/details";
    assert_eq!(ask("Host: localhost\r\n", target, &token).await.status, 403, "the target's own");
    for host in
        ["localhost", "LOCALHOST:3001", "127.0.0.1:3001", "127.1.2.3", "[::1]:3001", "admin.example.com:80"]
    {
        let answer = ask(&format!("Host: {host}\r\n"), "/health/details", &token).await;
        assert_eq!(answer.status, 200, "{host}");
        assert_eq!(ask(&format!("Host: {host}\r\n"), "/health/details", "").await.status, 401, "{host}");
    }
    assert_eq!(ask("Host: localhost\r\n", "http://localhost/health/details", &token).await.status, 200);
}

#[tokio::test]
async fn each_path_has_one_method_and_no_other() {
    let place = Place::new(Set::default()).await;
    for (path, allowed, _) in routes() {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            if method == allowed.as_str() {
                continue;
            }
            let path = path.replace(['{', '}'], "");
            let refused = place.send(method, &path, &[&authorization(), "Content-Length: 0"]).await;
            let told = refused.header("allow").map(str::to_ascii_uppercase);
            assert_eq!((refused.status, told.as_deref()), (405, Some(allowed.as_str())), "{method} {path}");
            if method != "HEAD" {
                assert_eq!(refused.refusal().0, "wrong_method", "{method} {path}");
            }
        }
    }
    let unknown = place.get("/api/v1/nothing").await;
    assert_eq!((unknown.status, unknown.refusal().0.as_str()), (404, "unknown_path"));
}

#[tokio::test]
async fn every_answer_is_sealed_and_open_to_no_other_origin() {
    let place = Place::new(Set::default()).await;
    let answers = [
        place.send("GET", "/health/details", &[&authorization(), "Origin: https://evil.example"]).await,
        place.send("GET", "/health/details", &["Origin: https://evil.example"]).await,
        place.get("/api/v1/logs/unknown").await,
        place.raw("GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").await,
    ];
    for answer in answers {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    }
}

#[tokio::test]
async fn open_metrics_open_metrics_alone() {
    let place = Place::new(Set { metrics: MetricsAccess::Open, ..Set::default() }).await;
    let page = place.send("GET", "/metrics", &[]).await;
    assert_eq!((page.status, page.refusal().0.as_str()), (404, "no_metrics_page"), "found, but not enabled");
    for path in paths().filter(|path| path != "/metrics").chain(["/metrics/".into(), "//metrics".into()]) {
        assert_eq!(place.send("GET", &path, &[]).await.status, 401, "{path}");
    }
    let foreign = "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(place.raw(foreign).await.status, 403, "the `Host` check stays");
}

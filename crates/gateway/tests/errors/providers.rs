//! Providers that cannot be reached, or that answer what is no answer.

use magicapi_testkit::Response;
use magicapi_testkit::ask::{CHAT, question};
use serde_json::{Value, json};

use crate::assert_answer;
use crate::scene::Scene;

const PAGE: &str = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title><style>b{color:red}</style></head>\
                    <body><h1>Sorry,</h1><p>the <b>load balancer</b> is tired.</p><script>var a=1;</script></body></html>";

async fn ask(scene: &Scene, script: &Value, stream: bool) -> Response {
    let mut body = question();
    body["stream"] = json!(stream);
    scene.post(CHAT, script, &[], &body).await
}

/// Asks both ways: an error before the first event is the same for a stream.
async fn assert_both(scene: &Scene, name: &str, script: &Value) {
    for stream in [false, true] {
        assert_answer(name, &ask(scene, script, stream).await);
    }
}

#[tokio::test]
async fn a_page_instead_of_an_answer() {
    let scene = Scene::start(json!({})).await;
    for (name, status) in [("html_200", 200), ("html_429", 429), ("html_502", 502), ("html_404", 404)] {
        let script = json!({ "status": status, "body": PAGE, "content_type": "text/html; charset=utf-8",
                             "headers": { "retry-after": "9", "x-request-id": "req_of_balancer" } });
        assert_both(&scene, name, &script).await;
    }
    // Of what came with the page stays what speaks of the provider and the request.
    let script = json!({ "status": 429, "body": PAGE, "content_type": "text/html",
                         "headers": { "retry-after": "9", "x-request-id": "req_of_balancer",
                                      "x-ratelimit-remaining-requests": "0", "etag": "\"page\"" } });
    let answer = ask(&scene, &script, true).await;
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), "0");
    assert_eq!(answer.header("x-gateway-provider-request-id"), "req_of_balancer");
    assert_eq!((answer.header("etag"), answer.header("content-type")), ("", "application/json"));
    assert_eq!(answer.header("content-length"), answer.text().len().to_string());
    let text = json!({ "status": 503, "body": "upstream connect error", "content_type": "text/plain" });
    assert_both(&scene, "text_503", &text).await;
    for record in scene.records(11).await {
        let metadata = &record["attributes"]["metadata"];
        assert_eq!(metadata["outcome"], "provider_error", "{record}");
        assert_eq!(metadata["attempts"], 1);
        assert!(metadata["provider_status_code"].as_u64().is_some_and(|status| status >= 200));
    }
}

#[tokio::test]
async fn a_provider_that_is_not_there() {
    let closed =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let at = |address: &str| json!({ "providers": { "openai": { "base_url": address } } });
    let refused = Scene::start(at(&format!("http://{closed}/v1"))).await;
    assert_both(&refused, "unreachable", &json!({})).await;
    let unknown = Scene::start(at("http://nowhere.invalid/v1")).await;
    let answer = ask(&unknown, &json!({}), false).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (502, Some("dns_failed")));
    let text = answer.text();
    assert!(text.contains("nowhere.invalid") && text.contains("check the address"), "{text}");
    let record = refused.last_of(1).await;
    assert_eq!(record["metadata"]["outcome"], "provider_error");
    assert_eq!(record["metadata"]["provider_status_code"], 0);
}

/// TLS where plain text is spoken, and the other way round: what an address with the wrong scheme comes to.
#[tokio::test]
async fn a_provider_that_speaks_something_else() {
    let plain = Scene::start(json!({})).await;
    let tls =
        json!({ "providers": { "openai": { "base_url": format!("https://{}/v1", plain.mock.addr()) } } });
    let scene = Scene::start(tls).await;
    let answer = ask(&scene, &json!({}), false).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (502, Some("tls_failed")));
    assert_eq!(answer.header("x-gateway-error-origin"), "provider");
    assert_answer("tls_to_a_plain_server", &answer);

    let cut = ask(&plain, &json!({ "cut_after": 0 }), false).await;
    assert_answer("closed_before_the_head", &cut);
}

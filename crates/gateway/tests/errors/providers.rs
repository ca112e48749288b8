//! Providers that cannot be reached, or that answer what is no answer.

use magicapi_testkit::Response;
use serde_json::{Value, json};

use crate::assert_answer;
use crate::setting::{CHAT, Setting, question};

const PAGE: &str = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title><style>b{color:red}</style></head>\
                    <body><h1>Sorry,</h1><p>the <b>load balancer</b> is tired.</p><script>var a=1;</script></body></html>";

async fn ask(setting: &Setting, script: &Value, stream: bool) -> Response {
    let mut body = question();
    body["stream"] = json!(stream);
    setting.post(CHAT, script, &[], &body).await
}

/// Asks both ways: an error before the first event is the same for a stream.
async fn assert_both(setting: &Setting, name: &str, script: &Value) {
    for stream in [false, true] {
        assert_answer(name, &ask(setting, script, stream).await);
    }
}

#[tokio::test]
async fn a_page_instead_of_an_answer() {
    let setting = Setting::start(json!({})).await;
    for (name, status) in [("html_200", 200), ("html_429", 429), ("html_502", 502), ("html_404", 404)] {
        let script = json!({ "status": status, "body": PAGE, "content_type": "text/html; charset=utf-8",
                             "headers": { "retry-after": "9", "x-request-id": "req_of_balancer" } });
        assert_both(&setting, name, &script).await;
    }
    let text = json!({ "status": 503, "body": "upstream connect error", "content_type": "text/plain" });
    assert_both(&setting, "text_503", &text).await;
    for record in setting.records(10).await {
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
    let refused = Setting::start(at(&format!("http://{closed}/v1"))).await;
    assert_both(&refused, "unreachable", &json!({})).await;
    let unknown = Setting::start(at("http://nowhere.invalid/v1")).await;
    let answer = ask(&unknown, &json!({}), false).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (502, Some("dns_failed")));
    let text = answer.text();
    assert!(text.contains("nowhere.invalid") && text.contains("check the address"), "{text}");
    let record = refused.record(1).await;
    assert_eq!(record["metadata"]["outcome"], "provider_error");
    assert_eq!(record["metadata"]["provider_status_code"], 0);
}

/// TLS where plain text is spoken, and the other way round: what an address with the wrong scheme comes to.
#[tokio::test]
async fn a_provider_that_speaks_something_else() {
    let plain = Setting::start(json!({})).await;
    let tls =
        json!({ "providers": { "openai": { "base_url": format!("https://{}/v1", plain.mock.addr()) } } });
    let setting = Setting::start(tls).await;
    let answer = ask(&setting, &json!({}), false).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (502, Some("tls_failed")));
    assert_eq!(answer.header("x-gateway-error-origin"), "provider");
    assert_answer("tls_to_a_plain_server", &answer);

    let cut = ask(&plain, &json!({ "cut_after": 0 }), false).await;
    assert_answer("closed_before_the_head", &cut);
}

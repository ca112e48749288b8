//! Whose credential goes upstream in each mode, and that a caller's goes only where the caller pointed it.

use std::fs;

use magicapi_testkit::configuration::{OUR_KEY, RECORDS};
use magicapi_testkit::{Gateway, GatewayOptions};
use serde_json::{Value, json};

use crate::scene::{BINARY, Scene, mock};
use crate::{GROQS, ask, assert_error, bearer, credentials_of, start};

/// A caller's key in every form in which SDKs send one.
fn forms(key: &str) -> [(&'static str, String); 5] {
    [
        ("authorization", format!("Bearer {key}")),
        ("authorization", format!("bearer   {key} ")),
        ("x-api-key", key.to_owned()),
        ("api-key", key.to_owned()),
        ("x-goog-api-key", key.to_owned()),
    ]
}

/// All of them at once, with those of AWS.
const EVERYWHERE: [(&str, &str); 8] = [
    ("authorization", "Bearer sk-secret"),
    ("x-api-key", "sk-secret-2"),
    ("api-key", "sk-secret-3"),
    ("x-goog-api-key", "sk-secret-4"),
    ("x-aws-access-key-id", "sk-secret-5"),
    ("x-aws-secret-access-key", "sk-secret-6"),
    ("x-aws-session-token", "sk-secret-7"),
    ("proxy-authorization", "Basic sk-secret-8"),
];

/// No request upstream, no record and no line of the log holds the secret.
async fn assert_kept(scene: &Scene, requests: usize) {
    scene.records(requests).await;
    for received in scene.mock.received() {
        let text = format!("{received:?}");
        assert!(!text.contains("sk-secret"), "upstream: {text}");
    }
    let records = fs::read_to_string(scene.gateway.path(RECORDS)).expect("records");
    assert!(!records.contains("sk-secret"), "{records}");
    let log = scene.gateway.log().join("\n");
    assert!(!log.contains("sk-secret"), "{log}");
}

#[tokio::test]
async fn passthrough_uses_the_callers_key_in_the_providers_form() {
    let scene = start(json!({})).await;
    for (name, value) in forms("sk-mine") {
        let answer = ask(&scene, &[(name, &value)], "groq/x").await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        assert_eq!(credentials_of(&scene.received()), bearer("sk-mine"), "{name}");
    }
    let record = scene.last_of(5).await;
    assert_eq!(record["metadata"]["credential"], "caller");
}

#[tokio::test]
async fn passthrough_uses_ours_when_none_or_a_placeholder_came() {
    let scene = start(json!({})).await;
    let placeholders: [&[(&str, &str)]; 5] = [
        &[],
        &[("authorization", "Bearer gateway")],
        &[("authorization", "")],
        &[("authorization", "Bearer")],
        &[("x-api-key", "gateway"), ("api-key", "")],
    ];
    for headers in placeholders {
        let answer = ask(&scene, headers, "gpt-4o").await;
        assert_eq!(answer.status, 200, "{headers:?}: {}", answer.text());
        assert_eq!(credentials_of(&scene.received()), bearer(OUR_KEY), "{headers:?}");
    }
    assert_eq!(scene.last_of(5).await["metadata"]["credential"], "gateway");
    let answer = ask(&scene, &[("authorization", "Basic dTpw")], "gpt-4o").await;
    assert!(assert_error(&answer, 401, "unauthenticated").contains("Bearer <key>"));
}

/// A provider that the model's bare name led to gets our key; the caller did not point its own there.
#[tokio::test]
async fn a_callers_key_never_goes_to_a_provider_found_by_a_bare_name() {
    let scene = start(json!({})).await;
    let answer = ask(&scene, &EVERYWHERE, GROQS).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(credentials_of(&scene.received()), bearer("sk-ours-groq"));
    assert_kept(&scene, 1).await;
    // The dialect's own provider is what the path says.
    ask(&scene, &[("authorization", "Bearer sk-mine")], "gpt-4o").await;
    assert_eq!(credentials_of(&scene.received()), bearer("sk-mine"));
}

/// Where we have no key for it either, the answer says how to point the caller's own there.
#[tokio::test]
async fn a_bare_name_without_a_key_of_ours_says_how_to_name_the_provider() {
    let scene = start(json!({ "providers": { "groq": {} } })).await;
    let answer = ask(&scene, &[("authorization", "Bearer sk-secret")], GROQS).await;
    let text = assert_error(&answer, 401, "unauthenticated");
    assert!(text.contains("x-provider: groq") && text.contains(&format!("groq/{GROQS}")), "{text}");
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    assert_kept(&scene, 1).await;
}

/// Where other machines reach the gateway, passthrough lends nobody a key, and says so of the word for it too.
#[tokio::test]
async fn passthrough_beyond_loopback_says_what_the_word_gateway_is_worth() {
    let mock = mock().await;
    let variables = [("HOST", "0.0.0.0"), ("OPENAI_BASE_URL", &*mock.base_url())];
    let scene = Scene { gateway: Gateway::start(GatewayOptions::new(BINARY).envs(&variables)).await, mock };
    let cases: [(&[(&str, &str)], &str); 2] = [
        (&[], "no credential came; send your `openai` key"),
        (
            &[("authorization", "Bearer gateway")],
            "the word `gateway` stands for the gateway's own key, which",
        ),
    ];
    for (headers, says) in cases {
        let text = assert_error(&ask(&scene, headers, "gpt-4o").await, 401, "unauthenticated");
        assert!(text.contains(says), "{text}");
    }
    assert_eq!(scene.mock.stats().requests, 0);
}

#[tokio::test]
async fn no_credential_of_the_caller_crosses_in_keys_and_open_mode() {
    let keys = json!({ "mode": "keys", "keys": [{ "name": "app", "hash": hash_of("sk-secret") }] });
    for auth in [keys, json!({ "mode": "open" })] {
        let scene = start(json!({ "auth": auth })).await;
        for model in ["gpt-4o", "groq/x", "local/x", GROQS] {
            let answer = ask(&scene, &EVERYWHERE, model).await;
            assert_eq!(answer.status, 200, "{auth} {model}: {}", answer.text());
        }
        let sent: Vec<_> = scene.mock.received().iter().map(credentials_of).collect();
        let wanted = [bearer(OUR_KEY), bearer("sk-ours-groq"), vec![], bearer("sk-ours-groq")];
        assert_eq!(sent, wanted, "{auth}");
        assert_kept(&scene, 4).await;
    }
}

fn hash_of(key: &str) -> String {
    let bytes = magicapi_policies::hash_of(key);
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", digits.concat())
}

fn keys() -> Value {
    json!({ "auth": { "mode": "keys", "keys": [
        { "name": "all", "hash": hash_of("vk-all"), "project": "p-all" },
        { "name": "some", "hash": hash_of("vk-some"), "models": ["groq/*", "openai/gpt-4o"] },
    ] } })
}

#[tokio::test]
async fn keys_mode_wants_one_of_its_keys_in_any_form() {
    let scene = start(keys()).await;
    for (name, value) in forms("vk-all") {
        let answer = ask(&scene, &[(name, &value)], "gpt-4o").await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        assert_eq!(credentials_of(&scene.received()), bearer(OUR_KEY), "{name}");
    }
    let both = [("authorization", "Bearer sk-other"), ("x-api-key", "vk-all"), ("x-project-id", "p-header")];
    assert_eq!(ask(&scene, &both, "gpt-4o").await.status, 200, "SDKs send two");
    let record = scene.last_of(6).await;
    assert_eq!(record["metadata"]["key_name"], "all");
    assert_eq!(record["project_id"], "p-all", "the key's project beats the header");

    let before = scene.mock.stats().requests;
    for wrong in ["", "gateway", "vk-al", "vk-all2", "VK-ALL", OUR_KEY] {
        let authorization = format!("Bearer {wrong}");
        let answer = ask(&scene, &[("authorization", &authorization)], "gpt-4o").await;
        assert_error(&answer, 401, "unauthenticated");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    assert_eq!(ask(&scene, &[], "gpt-4o").await.status, 401);
    let models = magicapi_testkit::http::get(&scene.gateway.url("/v1/models"), &[]).await;
    assert_error(&models, 401, "unauthenticated");
    assert_eq!(scene.mock.stats().requests, before);
}

/// What a key may use is judged by where the request would go, however it was named.
#[tokio::test]
async fn a_keys_models_are_judged_after_routing() {
    let scene = start(keys()).await;
    let key = ("x-api-key", "vk-some");
    for (headers, model) in [
        (&[key][..], "groq/anything"),
        (&[key], GROQS),
        (&[key], "gpt-4o"),
        (&[key, ("x-provider", "openai")], "gpt-4o"),
        (&[key, ("x-provider", "groq")], "openai/gpt-4.1"),
    ] {
        let answer = ask(&scene, headers, model).await;
        assert_eq!(answer.status, 200, "{headers:?} {model}: {}", answer.text());
    }
    let before = scene.mock.stats().requests;
    for (headers, model) in [
        (&[key][..], "gpt-4o-mini"),
        (&[key], "together/x"),
        (&[key, ("x-provider", "together")], "groq/x"),
        (&[key, ("x-provider", "openai")], "groq/x"),
        (&[key], "local/gpt-4o"),
    ] {
        let text = assert_error(&ask(&scene, headers, model).await, 403, "forbidden");
        assert!(text.contains("`some`") && text.contains("groq/*"), "{text}");
    }
    assert_eq!(scene.mock.stats().requests, before);
    let list = magicapi_testkit::http::get(&scene.gateway.url("/v1/models"), &[key]).await.json();
    let ids: Vec<&str> =
        list["data"].as_array().expect("a list").iter().filter_map(|row| row["id"].as_str()).collect();
    assert!(ids.contains(&GROQS) && ids.contains(&"gpt-4o"), "{ids:?}");
    assert!(
        !ids.contains(&"gpt-4o-mini") && !ids.contains(&"local/gpt-4o"),
        "what it cannot use is not listed"
    );
}

//! `x-provider`, the path, the prefix of the model's name, the one provider that has it, the dialect's own.

use magicapi_testkit::ask::CHAT;
use serde_json::{Value, json};

use crate::{GROQS, ask, assert_error, question_to, start, went_to};

#[tokio::test]
async fn the_provider_is_chosen_in_the_stated_order() {
    let scene = start(json!({})).await;
    let groq: &[(&str, &str)] = &[("x-provider", "groq")];
    let capital: &[(&str, &str)] = &[("x-provider", " Groq ")];
    let none: &[(&str, &str)] = &[("x-provider", "")];
    for (path, headers, model, provider, upstream) in [
        (CHAT, groq, "gpt-4o", "groq", "gpt-4o"),
        (CHAT, capital, "gpt-4o", "groq", "gpt-4o"),
        (CHAT, groq, "together/x", "groq", "together/x"),
        (CHAT, groq, "groq/x", "groq", "groq/x"),
        ("/proxy/together/chat/completions", groq, "x", "groq", "x"),
        ("/proxy/together/chat/completions", none, "groq/x", "together", "groq/x"),
        ("/proxy/together/chat/completions", none, "together/x", "together", "x"),
        ("/openai/v1/chat/completions", none, "groq/x", "groq", "x"),
        (CHAT, none, "groq/openai/gpt-oss-120b", "groq", "openai/gpt-oss-120b"),
        (CHAT, none, "openai/gpt-4o", "openai", "gpt-4o"),
        (CHAT, none, "local/anything/at:all", "local", "anything/at:all"),
        (CHAT, none, GROQS, "groq", GROQS),
        // `openai` and `local` both have it.
        (CHAT, none, "gpt-4o", "openai", "gpt-4o"),
        (CHAT, none, "made-up", "openai", "made-up"),
        (CHAT, none, "nobody/made-up", "openai", "nobody/made-up"),
        (CHAT, none, "groq/", "openai", "groq/"),
        (CHAT, none, "/groq/x", "openai", "/groq/x"),
    ] {
        let answer = scene.post(path, &json!({}), headers, &question_to(model)).await;
        assert_eq!(answer.status, 200, "{path} {headers:?} {model}: {}", answer.text());
        let wanted = (provider.to_owned(), upstream.to_owned());
        assert_eq!(went_to(&scene), wanted, "{path} {headers:?} {model}");
        assert_eq!(
            (answer.header("x-gateway-provider"), answer.header("x-gateway-model")),
            (provider, upstream)
        );
    }
}

/// What follows `/proxy/{provider}` is appended to the address, query and all, and a known path is read as what it is.
#[tokio::test]
async fn a_proxy_path_is_appended_to_the_address() {
    let scene = start(json!({})).await;
    let path = "/proxy/groq/embeddings?version=1&a=%20b";
    let answer = scene.post(path, &json!({}), &[], &json!({ "model": "e", "input": "x" })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(scene.received().path, "/groq/v1/embeddings?version=1&a=%20b");
    let record = scene.last_of(1).await;
    assert_eq!(record["metadata"]["operation"], "embeddings");
    assert_eq!(record["metadata"]["path"], "/proxy/groq/embeddings");
    assert_eq!(record["provider"], "groq");
}

#[tokio::test]
async fn a_provider_that_cannot_serve_is_named_with_the_remedy() {
    let scene = start(json!({})).await;
    let unknown = ask(&scene, &[("x-provider", "opnai")], "gpt-4o").await;
    let text = assert_error(&unknown, 400, "unknown_provider");
    assert!(
        text.contains("opnai") && text.contains("did you mean `openai`?") && text.contains("local"),
        "{text}"
    );
    for (sent, meant) in [("grok", Some("did you mean `groq`?")), ("zzz", None)] {
        let answer = ask(&scene, &[("x-provider", sent)], "gpt-4o").await;
        let text = assert_error(&answer, 400, "unknown_provider");
        assert_eq!(meant.is_some(), text.contains("did you mean"), "{text}");
        assert!(meant.is_none_or(|meant| text.contains(meant)), "{text}");
    }
    assert_eq!(unknown.json()["error"]["param"], "x-provider");
    let in_path = scene.post("/proxy/opnai/chat/completions", &json!({}), &[], &question_to("m")).await;
    assert_error(&in_path, 400, "unknown_provider");

    let no_address = ask(&scene, &[("authorization", "Bearer sk-mine")], "azure/deployment").await;
    assert!(assert_error(&no_address, 400, "provider_not_configured").contains("AZURE_BASE_URL"));
    let no_key = ask(&scene, &[], "fireworks/some-model").await;
    assert!(assert_error(&no_key, 401, "unauthenticated").contains("FIREWORKS_API_KEY"));
    let word = ask(&scene, &[("authorization", "Bearer gateway")], "fireworks/some-model").await;
    let text = assert_error(&word, 401, "unauthenticated");
    assert!(text.contains("the word `gateway` stands for the gateway's own key"), "{text}");
    assert!(text.contains("none for `fireworks`") && text.contains("FIREWORKS_API_KEY"), "{text}");
    assert_eq!(scene.mock.stats().requests, 0);
}

/// Every id of the list, used as the model of a request, leads to the provider that the list names.
#[tokio::test]
async fn listed_models_are_usable_as_written() {
    let scene = start(json!({})).await;
    let list = magicapi_testkit::http::get(&scene.gateway.url("/v1/models"), &[]).await;
    assert_eq!((list.status, &list.json()["object"]), (200, &json!("list")));
    let models: Vec<Value> = list.json()["data"].as_array().expect("a list").clone();
    let mut owners: Vec<&str> = models.iter().filter_map(|model| model["owned_by"].as_str()).collect();
    owners.dedup();
    assert_eq!(owners, ["groq", "local", "openai", "together"]);
    for model in &models {
        let id = model["id"].as_str().expect("an id");
        let owner = model["owned_by"].as_str().expect("an owner");
        let answer = ask(&scene, &[], id).await;
        assert_eq!(answer.status, 200, "{id}: {}", answer.text());
        let (provider, upstream) = went_to(&scene);
        assert_eq!(provider, owner, "{id}");
        assert!(id == upstream || id == format!("{owner}/{upstream}"), "{id} went as {upstream}");
    }
}

#[tokio::test]
async fn one_model_is_found_with_its_slash_escaped_or_not() {
    let scene = start(json!({})).await;
    for (path, id) in [
        ("/v1/models/groq%2Fopenai%2Fgpt-oss-120b", "groq/openai/gpt-oss-120b"),
        ("/v1/models/groq/openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"),
        ("/openai/v1/models/llama-guard-3-8b", GROQS),
    ] {
        let answer = magicapi_testkit::http::get(&scene.gateway.url(path), &[]).await;
        assert_eq!((answer.status, &answer.json()["id"]), (200, &json!(id)), "{path}");
        assert_eq!(answer.json()["owned_by"], "groq");
    }
    let answer = magicapi_testkit::http::get(&scene.gateway.url("/v1/models/nothing"), &[]).await;
    assert_error(&answer, 404, "unknown_model");
    assert_eq!(scene.mock.stats().requests, 0, "the gateway knows the answers");

    let own = [("authorization", "Bearer sk-mine")];
    let answer = magicapi_testkit::http::get(&scene.gateway.url("/v1/models"), &own).await;
    assert_eq!((answer.status, scene.received().path.as_str()), (200, "/openai/v1/models"));
}

/// The variable or key of the file that a text names is the one that is read.
#[tokio::test]
async fn a_missing_key_is_named_as_it_is_set() {
    let base = "http://127.0.0.1:9/openai/v1";
    let providers = json!({ "azure": { "base_url": base }, "mine": { "type": "azure", "base_url": base } });
    let scene = start(json!({ "auth": { "mode": "passthrough" }, "providers": providers })).await;
    for (provider, key) in [("azure", "AZURE_OPENAI_API_KEY"), ("mine", "providers.mine.api_key")] {
        let text = assert_error(&ask(&scene, &[], &format!("{provider}/m")).await, 401, "unauthenticated");
        assert!(text.contains(&format!("`{key}`")), "{text}");
    }
}

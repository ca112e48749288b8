//! What an answer cost, through the binary: the table's rules, the provider's own figure, and unknown.

use magicapi_testkit::ask::{CHAT, chat};
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::with_prices;

/// US dollars per million tokens, so that a token of each kind shows in another digit.
const PRICES: &str = r#"{"provider":"openai","model":"priced","price":{"standard":{"base":{"input":1,"cache_read":0.1,"cache_write":2,"output":10},"above_200k":{"input":3,"output":30}},"flex":{"base":{"input":0.5,"output":5}},"priority":{"base":{"input":2,"output":20}}}}
{"provider":"openai","model":"thinker","price":{"standard":{"base":{"input":1,"output":10,"reasoning":7}}}}
"#;

async fn scene() -> Scene {
    with_prices(PRICES, &["openrouter"], |options| options).await
}

fn usage(input: u64, output: u64, more: &Value) -> Value {
    let mut usage =
        json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output });
    for (key, value) in more.as_object().expect("an object") {
        usage[key] = value.clone();
    }
    usage
}

/// The metadata of a buffered and of a streamed answer, which say the same about cost.
async fn priced(scene: &Scene, case: &str, model: &str, script: &Value) -> Value {
    let streamed = format!("{case}-streamed");
    let stream = chat(model, &json!({ "stream": true }));
    // OpenRouter is not asked for usage: it always sends it.
    let mut script = script.clone();
    script["usage_placement"] = json!("always_final");
    let script = &script;
    assert_eq!(scene.chat(case, script, &chat(model, &json!({}))).await.status, 200);
    assert_eq!(scene.chat(&streamed, script, &stream).await.status, 200);
    let (whole, streamed) = (scene.metadata(case).await, scene.metadata(&streamed).await);
    for key in ["cost", "cost_source", "price_version", "tokens", "service_tier", "usage_final"] {
        assert_eq!(whole[key], streamed[key], "{case}: {key}");
    }
    whole
}

#[tokio::test]
async fn the_table_prices_every_kind_of_token_once() {
    let scene = scene().await;
    let cached = json!({ "prompt_tokens_details": { "cached_tokens": 400, "cache_write_tokens": 100 } });
    let metadata = priced(&scene, "cached", "priced", &json!({ "usage": usage(1000, 10, &cached) })).await;
    assert_eq!(metadata["cost"], 0.000_84, "500 × 1 + 400 × 0.1 + 100 × 2 + 10 × 10");
    assert_eq!(metadata["tokens"]["cached"], 400);
    assert_eq!(metadata["tokens"]["cache_write"], 100);
    assert_eq!(metadata["tokens"]["input"], 1000, "the total includes what was cached");
    assert_eq!(metadata["cost_source"], "table");
    let version = metadata["price_version"].as_str().expect("a version");
    assert!(version.ends_with("+prices.jsonl"), "{version}");

    let thought = json!({ "completion_tokens_details": { "reasoning_tokens": 60 } });
    let metadata = priced(&scene, "thought", "priced", &json!({ "usage": usage(10, 100, &thought) })).await;
    assert_eq!(metadata["cost"], 0.001_01, "without a rate of its own reasoning is output");
    assert_eq!(metadata["tokens"]["reasoning"], 60);
    assert_eq!(metadata["tokens"]["output"], 100);
    let metadata = priced(&scene, "thinker", "thinker", &json!({ "usage": usage(10, 100, &thought) })).await;
    assert_eq!(metadata["cost"], 0.000_83, "10 × 1 + 40 × 10 + 60 × 7");
}

#[tokio::test]
async fn tier_and_prompt_size_choose_the_rate() {
    let scene = scene().await;
    for (tier, cost) in [("default", 0.002), ("flex", 0.001), ("priority", 0.004)] {
        let script = json!({ "usage": usage(1000, 100, &json!({})), "service_tier": tier });
        let metadata = priced(&scene, tier, "priced", &script).await;
        assert_eq!(metadata["cost"], cost, "{tier}");
        assert_eq!(metadata["service_tier"], tier);
    }
    // What was asked for does not count: the answer says what it was.
    let script = json!({ "usage": usage(1000, 100, &json!({})), "service_tier": "default" }).to_string();
    let body = chat("priced", &json!({ "service_tier": "flex" })).to_string();
    scene.send(CHAT, "asked-flex", &[("x-mock", &script)], body).await;
    assert_eq!(scene.metadata("asked-flex").await["cost"], 0.002);

    let script = json!({ "usage": usage(1000, 100, &json!({})), "service_tier": "scale" });
    assert_eq!(
        priced(&scene, "scale", "priced", &script).await["cost"],
        Value::Null,
        "a tier without a price"
    );
    for (input, cost) in [(200_000, 0.201), (200_001, 0.603_003)] {
        let script = json!({ "usage": usage(input, 100, &json!({})) });
        let metadata = priced(&scene, &format!("size-{input}"), "priced", &script).await;
        assert_eq!(metadata["cost"], cost, "{input}: the whole prompt at the rate of its size");
    }
}

#[tokio::test]
async fn without_a_price_the_providers_figure_counts_else_none() {
    let scene = scene().await;
    let script = json!({ "usage": usage(10, 5, &json!({ "cost": 0.001_234 })) });
    let reported = priced(&scene, "reported", "openrouter/any/model", &script).await;
    assert_eq!(reported["cost"], 0.001_234);
    assert_eq!((&reported["cost_source"], &reported["price_version"]), (&json!("provider"), &Value::Null));
    let both = priced(&scene, "both", "priced", &script).await;
    assert_eq!(
        (&both["cost"], &both["cost_source"]),
        (&json!(0.000_06), &json!("table")),
        "the table counts"
    );
    let unknown = json!({ "usage": usage(10, 5, &json!({})) });
    let unknown = priced(&scene, "unknown", "openrouter/any/model", &unknown).await;
    assert_eq!((&unknown["cost"], &unknown["cost_source"]), (&Value::Null, &Value::Null));
    assert_eq!(unknown["tokens"]["total"], 15);
    let free = json!({ "usage": usage(0, 0, &json!({})) });
    let free = priced(&scene, "free", "priced", &free).await;
    assert_eq!(free["cost"], 0.0, "nothing used costs nothing, which is not unknown");
}

#[tokio::test]
async fn figures_that_cannot_be_true_have_no_cost() {
    let scene = scene().await;
    let cached = |tokens: u64| json!({ "prompt_tokens_details": { "cached_tokens": tokens } });
    let believed = usage(1000, 10, &cached(1000));
    let believed = priced(&scene, "all-cached", "priced", &json!({ "usage": believed })).await;
    assert_eq!(believed["cost"], 0.000_2, "1000 × 0.1 + 10 × 10");
    for (case, usage) in [
        ("more-cached-than-sent", usage(1000, 10, &cached(1001))),
        ("endless-prompt", usage(1 << 63, 10, &json!({}))),
        (
            "endless-cache",
            json!({ "completion_tokens": 10, "prompt_tokens_details": { "cached_tokens": 1e300 } }),
        ),
    ] {
        let metadata = priced(&scene, case, "priced", &json!({ "usage": usage })).await;
        assert_eq!((&metadata["cost"], &metadata["cost_source"]), (&Value::Null, &Value::Null), "{case}");
        assert_eq!(metadata["tokens"]["output"], 10, "{case}: what was reported is kept");
    }
}

//! Each row of the provider catalogue is run: its path, credential form, renames, drops, headers, usage and error shape,
//! through the real binary against the mock provider.
//!
//! A row's tests are made by the list at the end; `every_row_is_tested` compares the list with the catalogue.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

use magicapi_kernel::UsageInStreams;
use magicapi_mock::{MockOptions, MockServer, Received};
use magicapi_providers::{Auth, ErrorShape, Row, UsageAt};
use magicapi_testkit::configuration::records_file;
use magicapi_testkit::http::post_json;
use magicapi_testkit::wire::events;
use magicapi_testkit::{Gateway, GatewayOptions, Response, request};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_magicapi-ai-gateway");
const OUR_KEY: &str = "sk-the-gateways-own-key";
const CALLERS_KEY: &str = "sk-the-callers-own-key";

/// A gateway that knows one row, by its variables alone, and the mock in the provider's place.
struct Setting {
    row: &'static Row,
    mock: MockServer,
    gateway: Gateway,
}

impl Setting {
    async fn of(name: &str, mode: &str) -> Self {
        let row = magicapi_providers::row(name).expect("a row of the catalogue");
        let mock =
            MockServer::start(MockOptions { record: true, ..MockOptions::default() }).await.expect("a mock");
        let address = format!("http://{}{}", mock.addr(), base_path(row));
        let mut variables = vec![(row.base_url_env.as_str(), address.as_str())];
        variables.extend(row.key_env.as_deref().map(|name| (name, OUR_KEY)));
        let config = json!({
            "auth": { "mode": mode },
            "store": { "url": "none" },
            "telemetry": { "exporters": [records_file(&json!({}))] },
        });
        let options = GatewayOptions::new(BINARY).config(config.to_string()).envs(&variables);
        let gateway = Gateway::start(options).await;
        Self { row, mock, gateway }
    }

    async fn ask(&self, script: &Value, headers: &[(&str, &str)], body: &str) -> Response {
        let script = script.to_string();
        let fixed = [("content-type", "application/json"), ("x-mock", script.as_str())];
        let headers: Vec<_> = fixed.into_iter().chain(headers.iter().copied()).collect();
        request("POST", &self.gateway.url("/v1/chat/completions"), &headers, body.to_owned()).await
    }

    /// The one request that reached the provider.
    fn received(&self) -> Received {
        let mut all = self.mock.received();
        assert_eq!(all.len(), 1, "{}: requests upstream", self.row.name);
        all.remove(0)
    }

    fn price(&self) -> Option<Priced> {
        priced_model(&self.row.name)
    }

    fn model(&self) -> String {
        self.price().map_or_else(|| "some/model".to_owned(), |priced| priced.model)
    }
}

/// The path of the row's own address, so that what is appended to it shows.
fn base_path(row: &Row) -> &str {
    let address = row.base_url.as_deref().unwrap_or("https://resource.example/openai/v1");
    let host = address.split_once("://").expect("an absolute address").1;
    host.find('/').map_or("", |at| &host[at..])
}

/// A chat model of the table with prices per million tokens, read without the gateway's own reader.
struct Priced {
    model: String,
    input: f64,
    output: f64,
}

fn priced_model(provider: &str) -> Option<Priced> {
    let table = include_str!("../../providers/data/models.jsonl");
    table.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row of JSON")).find_map(|row| {
        let base = &row["price"]["standard"]["base"];
        (row["provider"] == provider && row["mode"] == "chat").then_some(())?;
        Some(Priced {
            model: row["model"].as_str()?.to_owned(),
            input: base["input"].as_f64()?,
            output: base["output"].as_f64()?,
        })
    })
}

/// A value for each parameter that a row names; a new name in the catalogue needs one here.
fn sample(parameter: &str) -> &'static str {
    match parameter {
        "frequency_penalty" | "presence_penalty" => "0.10",
        "logit_bias" => r#"{"50256":-100}"#,
        "max_completion_tokens" => "64",
        "metadata" => r#"{"k":"v"}"#,
        "n" => "1",
        "seed" => "12345678901234567890123",
        "store" => "false",
        "stream_options" => r#"{"include_usage":true}"#,
        "tool_choice" => r#""auto""#,
        "top_k" => "4",
        "user" => r#""u-1""#,
        other => panic!("give `sample` a value for {other}"),
    }
}

fn object(members: &[(String, String)]) -> String {
    let members: Vec<_> = members.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// A chat with every parameter that the row names, and what the provider must get, byte for byte.
fn bodies(row: &Row, model: &str) -> (String, String) {
    let mut sent = vec![("model".to_owned(), format!("\"{}/{model}\"", row.name))];
    let mut wanted = vec![("model".to_owned(), format!("\"{model}\""))];
    let named = |name: &str| row.drop.iter().any(|dropped| dropped == name);
    let name = if named("messages[].name") { "" } else { r#","name":"ann""# };
    sent.push(("messages".into(), r#"[{"role":"user","content":"hi \u00e9","name":"ann"}]"#.into()));
    wanted.push(("messages".into(), format!(r#"[{{"role":"user","content":"hi \u00e9"{name}}}]"#)));
    for (ours, theirs) in &row.rename {
        sent.push((ours.clone(), sample(ours).into()));
        wanted.push((theirs.clone(), sample(ours).into()));
    }
    for dropped in row.drop.iter().filter(|name| !name.contains('[')) {
        sent.push((dropped.clone(), sample(dropped).into()));
    }
    for both in [&mut sent, &mut wanted] {
        both.push(("temperature".into(), "0.50".into()));
        both.push(("unknown_to_us".into(), r#"{"b":1E5,"a":[]}"#.into()));
    }
    (object(&sent), object(&wanted))
}

/// Headers that would leak if any credential of the caller's went on.
const SECRETS: [(&str, &str); 4] = [
    ("authorization", "Bearer sk-secret-1"),
    ("x-api-key", "sk-secret-2"),
    ("api-key", "sk-secret-3"),
    ("x-goog-api-key", "sk-secret-4"),
];

fn assert_credential(row: &Row, received: &Received, key: Option<&str>) {
    let credentials: Vec<_> =
        received.headers.iter().filter(|(name, _)| SECRETS.iter().any(|(known, _)| known == name)).collect();
    let wanted = key.map(|key| match &row.auth {
        Auth::Bearer => ("authorization".to_owned(), format!("Bearer {key}")),
        Auth::Header { name, .. } => (name.clone(), key.to_owned()),
    });
    assert_eq!(credentials, wanted.iter().collect::<Vec<_>>(), "{}: credentials upstream", row.name);
    let everything = format!("{received:?}");
    assert!(!everything.contains("sk-secret"), "{}: a caller's key went on: {everything}", row.name);
}

/// One chat: path, credential, edits byte for byte, the signal of what was dropped, headers both ways, usage and cost.
async fn chat(name: &str) {
    let setting = Setting::of(name, "open").await;
    let (row, model) = (setting.row, setting.model());
    let (sent, wanted) = bodies(row, &model);
    let mut headers = json!({ "x-ratelimit-remaining-tokens": "77" });
    let id_header = row.request_id_header.as_deref().expect("every row has one today");
    headers[id_header] = json!("req_of_provider");
    for (index, (theirs, standard)) in row.rate_limit_headers.iter().enumerate() {
        headers[theirs] = json!(format!("{index}1"));
        // The mock sends OpenAI's own; this provider has none of that name.
        headers[standard] = json!([]);
    }
    let usage = json!({ "prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500 });
    let script = json!({ "text": "hello", "usage": usage, "headers": headers });
    let answer = setting.ask(&script, &SECRETS, &sent).await;
    assert_eq!(answer.status, 200, "{name}: {}", answer.text());

    let received = setting.received();
    assert_eq!(received.path, format!("{}/chat/completions", base_path(row)), "{name}");
    assert_eq!(String::from_utf8_lossy(&received.body), wanted, "{name}: the body upstream");
    assert_eq!(received.header("host"), Some(setting.mock.addr().to_string().as_str()), "{name}");
    assert_credential(row, &received, row.key_env.is_some().then_some(OUR_KEY));

    let dropped: Vec<_> = answer.header("x-gateway-params-dropped").split(", ").collect();
    let mut listed: Vec<_> = dropped.into_iter().filter(|name| !name.is_empty()).collect();
    listed.sort_unstable();
    assert_eq!(listed, row.drop, "{name}: x-gateway-params-dropped");
    assert_eq!(answer.header("x-gateway-provider-request-id"), "req_of_provider", "{name}");
    assert_eq!(answer.header("x-gateway-provider"), name);
    assert_eq!(answer.header("x-gateway-model"), model);
    assert_eq!(answer.header("x-ratelimit-remaining-tokens"), "77", "{name}");
    for (index, (theirs, standard)) in row.rate_limit_headers.iter().enumerate() {
        assert_eq!(answer.header(standard), format!("{index}1"), "{name}: {theirs} under its standard name");
    }

    let record = setting.gateway.record_of(&answer).await;
    let attributes = &record["attributes"];
    assert_eq!(attributes["provider"], name);
    assert_eq!(attributes["model"], model.as_str(), "{name}");
    let metadata = &attributes["metadata"];
    assert_eq!(metadata["provider_request_id"], "req_of_provider", "{name}");
    assert_eq!(metadata["outcome"], "completed", "{name}");
    assert_eq!(metadata["requested_model"], format!("{name}/{model}"));
    let mut recorded: Vec<_> = metadata["params_dropped"].as_array().expect("a list").clone();
    recorded.sort_by_key(ToString::to_string);
    assert_eq!(json!(recorded), json!(row.drop), "{name}: params_dropped");
    assert_tokens_and_cost(&setting, metadata, (1000, 500));
}

fn assert_tokens_and_cost(setting: &Setting, metadata: &Value, (input, output): (u32, u32)) {
    let name = &setting.row.name;
    assert_eq!(metadata["tokens"]["input"], input, "{name}");
    assert_eq!(metadata["tokens"]["output"], output, "{name}");
    assert_eq!(metadata["usage_final"], true, "{name}");
    match setting.price() {
        Some(price) => {
            let wanted = f64::from(input) * price.input / 1e6 + f64::from(output) * price.output / 1e6;
            let cost = metadata["cost"].as_f64().expect("a cost");
            assert!((cost - wanted).abs() < 1e-11, "{name}: cost {cost}, by the table {wanted}");
            assert_eq!(metadata["cost_source"], "table", "{name}");
        }
        None => assert_eq!(metadata["cost"], Value::Null, "{name}: an unknown price is not 0"),
    }
}

/// One stream with the caller's own key: asked for usage or not, usage read where the row says it stands, and what was
/// asked for by us alone hidden from the caller.
async fn stream(name: &str) {
    let setting = Setting::of(name, "passthrough").await;
    let (row, model) = (setting.row, setting.model());
    let placement = match (row.usage_at, row.usage_in_streams) {
        (UsageAt::XGroq, _) => "x_groq",
        (UsageAt::Usage, UsageInStreams::Ask) => "openai",
        (UsageAt::Usage, UsageInStreams::Always) => "always_final",
    };
    let usage = json!({ "prompt_tokens": 200, "completion_tokens": 30, "total_tokens": 230 });
    let script = json!({ "text": "one two three", "usage": usage, "usage_placement": placement });
    let body = json!({ "model": format!("{name}/{model}"), "stream": true,
                       "messages": [{ "role": "user", "content": "hi" }] });
    let bearer = format!("Bearer {CALLERS_KEY}");
    let answer = setting.ask(&script, &[("authorization", &bearer)], &body.to_string()).await;
    assert_eq!(answer.status, 200, "{name}: {}", answer.text());

    let received = setting.received();
    let asked: Value = serde_json::from_slice(&received.body).expect("JSON upstream");
    let wanted = match row.usage_in_streams {
        UsageInStreams::Ask => json!({ "include_usage": true }),
        UsageInStreams::Always => Value::Null,
    };
    assert_eq!(asked["stream_options"], wanted, "{name}: stream_options upstream");
    assert_eq!(received.header("accept-encoding"), Some("identity"), "{name}");
    assert_credential(row, &received, Some(CALLERS_KEY));
    assert!(!format!("{received:?}").contains(OUR_KEY), "{name}: two credentials");

    let events = events(&answer.text());
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "{name}");
    let parsed = |event: &String| serde_json::from_str::<Value>(event).ok();
    let hidden = |event: &Value| event["choices"].as_array().is_some_and(Vec::is_empty);
    assert!(!events.iter().filter_map(parsed).any(|event| hidden(&event)), "{name}: our usage event shows");

    let record = setting.gateway.record_of(&answer).await;
    let metadata = &record["attributes"]["metadata"];
    assert_eq!(metadata["streamed"], true, "{name}");
    assert_eq!(metadata["credential"], "caller", "{name}");
    let response = &record["attributes"]["response"];
    assert_eq!(response["choices"][0]["delta"]["content"], "one two three", "{name}");
    assert_tokens_and_cost(&setting, metadata, (200, 30));
}

fn error_body(shape: ErrorShape) -> Value {
    match shape {
        ErrorShape::OpenAi => {
            json!({ "error": { "message": "slow down, ann", "type": "requests", "param": null, "code": "rate" } })
        }
        ErrorShape::Flat => {
            json!({ "message": "slow down, ann", "type": "too_many", "param": "quota", "code": "rate" })
        }
        ErrorShape::NumericCode => json!({ "error": { "message": "slow down, ann", "code": 429 } }),
        ErrorShape::Text => json!({ "code": "Some resource", "error": "slow down, ann" }),
    }
}

/// One error, asked for as a stream: handed on as it is, and read for the record.
async fn error(name: &str) {
    let setting = Setting::of(name, "open").await;
    let said = error_body(setting.row.error_shape);
    let script = json!({ "error": { "status": 429, "body": said }, "headers": { "retry-after": "7" } });
    let body = json!({ "model": format!("{name}/{}", setting.model()), "messages": [], "stream": true });
    let answer = setting.ask(&script, &[], &body.to_string()).await;
    assert_eq!(answer.status, 429, "{name}");
    assert_eq!(answer.json(), said, "{name}: the provider's own words");
    assert_eq!(answer.header("x-gateway-error-origin"), "provider", "{name}");
    assert_eq!(answer.header("retry-after"), "7", "{name}");

    let record = setting.gateway.record_of(&answer).await;
    assert_eq!(record["attributes"]["response"], said, "{name}");
    let metadata = &record["attributes"]["metadata"];
    assert_eq!(metadata["provider_error_type"], "rate_limited", "{name}");
    assert_eq!(metadata["error_type"], "provider_status", "{name}");
    assert_eq!(metadata["outcome"], "provider_error", "{name}");
    assert_eq!(metadata["status_code"], 429, "{name}");
    assert_eq!(metadata["provider_status_code"], 429, "{name}");
    assert_eq!(metadata["provider_error_count"], 1, "{name}");
    assert_eq!(metadata["cost"], Value::Null, "{name}");
    let message = metadata["error_message"].as_str().expect("a message");
    assert!(message.ends_with(": slow down, ann"), "{name}: {message}");
}

/// Refusals: none of the rows needs one today; a row that gets one is tested here without a further line.
async fn refusals(name: &str) {
    let row = magicapi_providers::row(name).expect("a row");
    if row.refuse.is_empty() {
        return;
    }
    let setting = Setting::of(name, "open").await;
    for (parameter, reason) in &row.refuse {
        let body = format!(r#"{{"model":"{name}/m","messages":[],"{parameter}":{}}}"#, sample(parameter));
        let answer = setting.ask(&json!({}), &[], &body).await;
        assert_eq!(answer.status, 400, "{name}: {parameter}");
        assert_eq!(answer.json()["error"]["param"], parameter.as_str(), "{name}");
        assert!(answer.text().contains(reason.as_str()), "{name}: {}", answer.text());
    }
    assert_eq!(setting.mock.stats().requests, 0, "{name}");
}

macro_rules! rows {
    ($($row:ident)+) => {
        const TESTED: &[&str] = &[$(stringify!($row)),+];
        $(mod $row {
            #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn chat() {
                super::chat(stringify!($row)).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn stream() {
                super::stream(stringify!($row)).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn error_and_refusals() {
                super::error(stringify!($row)).await;
                super::refusals(stringify!($row)).await;
            }
        })+
    };
}

rows! { openai azure groq fireworks together mistral deepseek xai openrouter cerebras ollama vllm }

#[test]
fn every_row_is_tested() {
    let rows = magicapi_providers::catalogue().expect("the catalogue");
    let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(TESTED, names, "add the row to `rows!`");
}

/// A Microsoft Entra token goes as bearer where the row says so, although the row's own form is another.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_token_goes_as_bearer_to_azure() {
    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln";
    let setting = Setting::of("azure", "passthrough").await;
    let body =
        json!({ "model": "azure/deployment", "messages": [{ "role": "user", "content": "hi" }] }).to_string();
    let answer = setting.ask(&json!({}), &[("api-key", TOKEN)], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let received = setting.received();
    assert_eq!(received.header("authorization"), Some(format!("Bearer {TOKEN}").as_str()));
    assert_eq!(received.header("api-key"), None);
}

/// OpenRouter says what an answer cost.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_price_that_the_provider_reports_is_used_when_the_table_has_none() {
    let setting = Setting::of("openrouter", "open").await;
    let usage = json!({ "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost": 0.000_123 });
    let script = json!({ "usage": usage }).to_string();
    let url = setting.gateway.url("/v1/chat/completions");
    let body = json!({ "model": "openrouter/z/free", "messages": [{ "role": "user", "content": "hi" }] });
    let answer = post_json(&url, &[("x-mock", &script)], &body).await;
    let record = setting.gateway.record_of(&answer).await;
    assert_eq!(record["attributes"]["metadata"]["cost"], 0.000_123);
    assert_eq!(record["attributes"]["metadata"]["cost_source"], "provider");
}

//! Small JSON endpoints: models, embeddings, moderations, rerank. The media endpoints are in `media`.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::answer::{Answer, CREATED, Call, quote};
use crate::ask::{count, texts};
use crate::failure::Failure;

/// Ids that `GET /models` lists.
const MODELS: [&str; 4] = ["mock-model", "mock-small", "mock-reasoning", "mock-embedding"];
/// Numbers in an embedding, unless `dimensions` says otherwise.
const DIMENSIONS: usize = 8;
/// Largest accepted `dimensions`.
const MAX_DIMENSIONS: usize = 65_536;

/// Lists the models.
pub(crate) fn models(call: &Call<'_>) -> Answer {
    let data: Vec<Value> = MODELS.iter().map(|id| model_json(id)).collect();
    Answer::json(call.script, &json!({"object": "list", "data": data}).to_string())
}

/// Any model exists, but those whose id starts with `missing`.
pub(crate) fn model(call: &Call<'_>, id: &str) -> Result<Answer, Failure> {
    if id.starts_with("missing") {
        return Err(Failure::no_such_model(id));
    }
    Ok(Answer::json(call.script, &model_json(id).to_string()))
}

fn model_json(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": CREATED, "owned_by": "mock"})
}

#[derive(Deserialize)]
struct EmbeddingAsk<'a> {
    #[serde(default)]
    model: Option<String>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(default)]
    encoding_format: Option<String>,
    #[serde(default)]
    dimensions: Option<usize>,
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|err| {
        Failure::bad_request(format!("We could not parse the JSON body of your request: {err}"), None)
    })
}

fn missing(name: &str) -> Failure {
    Failure::bad_request(format!("Missing required parameter: '{name}'."), Some(name))
}

/// Embeds: numbers that depend on the input only, exact in `f32`, so that both formats agree.
pub(crate) fn embeddings(call: &Call<'_>) -> Result<Answer, Failure> {
    let ask: EmbeddingAsk<'_> = parse(call.body)?;
    let model = ask.model.ok_or_else(|| missing("model"))?;
    let inputs = embedding_inputs(ask.input.ok_or_else(|| missing("input"))?);
    let dimensions = ask.dimensions.unwrap_or(DIMENSIONS);
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        let message = format!("'dimensions' must be between 1 and {MAX_DIMENSIONS}.");
        return Err(Failure::bad_request(message, Some("dimensions")));
    }
    let base64 = ask.encoding_format.as_deref() == Some("base64");
    let mut out = String::from(r#"{"object":"list","data":["#);
    for (index, (seed, _)) in inputs.iter().enumerate() {
        let numbers = vector(seed, dimensions);
        let vector = if base64 {
            let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
            quote(&STANDARD.encode(bytes))
        } else {
            let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            format!("[{}]", numbers.join(","))
        };
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(out, r#"{comma}{{"object":"embedding","index":{index},"embedding":{vector}}}"#);
    }
    let tokens: u64 = inputs.iter().map(|(_, tokens)| tokens).sum();
    let counted = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    let usage = call.script.usage.clone().unwrap_or(counted);
    let _ = write!(out, r#"],"model":{},"usage":{usage}}}"#, quote(&model));
    Ok(Answer::json(call.script, &out))
}

/// Every input as seed text with its token count: strings, or lists of token numbers.
fn embedding_inputs(raw: &RawValue) -> Vec<(String, u64)> {
    let strings = texts(raw);
    if !strings.is_empty() {
        return strings.into_iter().map(|t| (t.to_string(), count(&t))).collect();
    }
    let seed = |tokens: &Vec<u32>| (format!("{tokens:?}"), tokens.len() as u64);
    if let Ok(many) = serde_json::from_str::<Vec<Vec<u32>>>(raw.get()) {
        return many.iter().map(seed).collect();
    }
    serde_json::from_str::<Vec<u32>>(raw.get()).map(|one| vec![seed(&one)]).unwrap_or_default()
}

fn vector(seed: &str, dimensions: usize) -> Vec<f32> {
    let mut state =
        seed.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (0..dimensions)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [high, ..] = state.to_be_bytes();
            f32::from(i16::from(high) - 128) / 128.0
        })
        .collect()
}

#[derive(Deserialize)]
struct ModerationAsk<'a> {
    #[serde(default)]
    model: Option<String>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

/// Flags every input that has the word `flagme` in it.
pub(crate) fn moderations(call: &Call<'_>) -> Result<Answer, Failure> {
    let ask: ModerationAsk<'_> = parse(call.body)?;
    let inputs = texts(ask.input.ok_or_else(|| missing("input"))?);
    let results: Vec<Value> = inputs
        .iter()
        .map(|input| {
            let flagged = input.contains("flagme");
            let score = if flagged { 0.98 } else { 0.01 };
            json!({
                "flagged": flagged,
                "categories": {"harassment": flagged, "violence": false},
                "category_scores": {"harassment": score, "violence": 0.01},
                "category_applied_input_types": {"harassment": ["text"], "violence": ["text"]},
            })
        })
        .collect();
    let model = ask.model.unwrap_or_else(|| "mock-moderation".to_owned());
    let body = json!({"id": format!("modr-mock-{}", call.number), "model": model, "results": results});
    Ok(Answer::json(call.script, &body.to_string()))
}

#[derive(Deserialize)]
struct RerankAsk {
    #[serde(default)]
    model: Option<String>,
    query: String,
    documents: Vec<Value>,
    #[serde(default)]
    top_n: Option<usize>,
    #[serde(default)]
    return_documents: Option<bool>,
}

/// Ranks by the share of the query's words that a document has.
pub(crate) fn rerank(call: &Call<'_>) -> Result<Answer, Failure> {
    let ask: RerankAsk = parse(call.body)?;
    let wanted: Vec<&str> = ask.query.split_whitespace().collect();
    let mut scored: Vec<(f64, usize, &Value)> = ask
        .documents
        .iter()
        .enumerate()
        .map(|(index, document)| {
            let text = document.as_str().or_else(|| document["text"].as_str()).unwrap_or_default();
            let found = wanted.iter().filter(|w| text.contains(**w)).count();
            (found as f64 / wanted.len().max(1) as f64, index, document)
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scored.truncate(ask.top_n.unwrap_or(usize::MAX));
    let results: Vec<Value> = scored
        .into_iter()
        .map(|(score, index, document)| {
            let mut result = json!({"index": index, "relevance_score": score});
            if ask.return_documents == Some(true) {
                let text = document.as_str().or_else(|| document["text"].as_str());
                result["document"] = json!({"text": text});
            }
            result
        })
        .collect();
    let words = count(&ask.query);
    let body = json!({
        "id": format!("rerank-mock-{}", call.number), "object": "rerank", "model": ask.model,
        "results": results,
        "usage": {"prompt_tokens": words, "completion_tokens": 0, "total_tokens": words},
        "meta": {"billed_units": {"search_units": 1}},
    });
    Ok(Answer::json(call.script, &body.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedding_inputs_of_every_form() {
        let inputs = |json: &str| embedding_inputs(serde_json::from_str(json).unwrap());
        assert_eq!(inputs(r#""a b""#), [("a b".to_owned(), 2)]);
        assert_eq!(inputs(r#"["a","b c"]"#).len(), 2);
        assert_eq!(inputs("[1,2,3]")[0].1, 3);
        assert_eq!(inputs("[[1,2],[3]]").len(), 2);
        assert_eq!(vector("a", 3), vector("a", 3));
        assert_ne!(vector("a", 3), vector("b", 3));
    }
}

//! The index template: mappings for the record, so that nothing of a body is indexed and no caller can add fields.

use magicapi_plugin::{ExportError, HttpError};
use serde_json::{Value, json};

use super::client;
use super::config::{Stream, Target};
use crate::endpoint::segment;

/// Everything but the index pattern, which is a setting.
const TEMPLATE: &str = include_str!("template.json");

/// The template as the settings want it. `_meta` says what the settings changed, so that another setting is put in place.
fn wanted(target: &Target) -> Result<Value, ExportError> {
    let mut template: Value = serde_json::from_str(TEMPLATE).map_err(|e| e.to_string())?;
    template["index_patterns"] = json!([target.index]);
    if let Some(Stream { retention, policy }) = &target.stream {
        template["data_stream"] = json!({});
        template["template"]["mappings"]["properties"]["@timestamp"] = json!({ "type": "date" });
        template["_meta"]["data_stream"] = json!({ "retention": retention, "policy": policy });
        if let Some(retention) = retention {
            template["template"]["lifecycle"] = json!({ "data_retention": retention });
        }
        if let Some(policy) = policy {
            template["template"]["settings"] = json!({ "index.lifecycle.name": policy });
        }
    }
    Ok(template)
}

/// Puts the template unless the one that is there is newer or somebody else's. `Some` says why it could not, when
/// records can be delivered all the same.
pub(super) async fn ensure(target: &Target) -> Result<Option<String>, ExportError> {
    if !target.template {
        return Ok(None);
    }
    let index = &target.index;
    let path = format!("/_index_template/{}", segment(index));
    let template = wanted(target)?;
    let unanswered = |e: HttpError| format!("{path}: {e}");
    let answer = target.endpoint.get(&path).await.map_err(unanswered)?;
    match answer.status().as_u16() {
        404 => {}
        200..=299 => {
            let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
            let there = body.pointer("/index_templates/0/index_template").unwrap_or(&Value::Null);
            if there["_meta"]["managed_by"] != template["_meta"]["managed_by"] {
                return Ok(Some(format!(
                    "the index template {index} is not ours and is left alone; `template: false` accepts that"
                )));
            }
            let age = there["version"].as_i64().cmp(&template["version"].as_i64());
            if age.is_gt() || age.is_eq() && there["_meta"] == template["_meta"] {
                return Ok(None);
            }
        }
        status => return shortfall(index, status, answer.body()),
    }
    let answer = target.endpoint.put(&path, template.to_string()).await.map_err(unanswered)?;
    match answer.status().as_u16() {
        200..=299 => keep_for(target).await,
        status => shortfall(index, status, answer.body()),
    }
}

/// A template rules streams to come; one that is there already is told itself.
async fn keep_for(target: &Target) -> Result<Option<String>, ExportError> {
    let Some(retention) = target.stream.as_ref().and_then(|stream| stream.retention.as_deref()) else {
        return Ok(None);
    };
    let path = format!("/_data_stream/{}/_lifecycle", segment(&target.index));
    let lifecycle = json!({ "data_retention": retention }).to_string();
    let answer = target.endpoint.put(&path, lifecycle).await.map_err(|e| format!("{path}: {e}"))?;
    match answer.status().as_u16() {
        200..=299 | 404 => Ok(None),
        status => Ok(Some(format!(
            "the data stream {} could not be told to keep records for {retention} (HTTP {status} {})",
            target.index,
            client::fault(answer.body()).kind(),
        ))),
    }
}

/// Without the template records go where they always went; only a cluster that is not ready is asked again.
fn shortfall(index: &str, status: u16, body: &[u8]) -> Result<Option<String>, ExportError> {
    if matches!(status, 408 | 429 | 500..=599) {
        let refusal = client::refusal(status, body);
        return Err(ExportError::new(format!("the index template {index}: {refusal}")));
    }
    Ok(Some(format!(
        "the index template {index} could not be installed (HTTP {status} {}): install it by hand and set \
         `template: false`, or bodies are indexed",
        client::fault(body).kind(),
    )))
}

//! The index template: mappings for the record, so that nothing of a body is indexed and no caller can add fields.

use magicapi_plugin::{ExportError, HttpError};
use serde_json::{Value, json};

use super::client;
use super::config::Target;
use crate::endpoint::segment;

/// Everything but the index pattern, which is a setting.
const TEMPLATE: &str = include_str!("template.json");

/// Puts the template unless the one that is there is newer or somebody else's. `Some` says why it could not, when
/// records can be delivered all the same.
pub(super) async fn ensure(target: &Target) -> Result<Option<String>, ExportError> {
    if !target.template {
        return Ok(None);
    }
    let index = &target.index;
    let path = format!("/_index_template/{}", segment(index));
    let mut template: Value = serde_json::from_str(TEMPLATE).map_err(|e| e.to_string())?;
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
            if there["version"].as_i64() >= template["version"].as_i64() {
                return Ok(None);
            }
        }
        status => return shortfall(index, status, answer.body()),
    }
    template["index_patterns"] = json!([index]);
    let answer = target.endpoint.put(&path, template.to_string()).await.map_err(unanswered)?;
    match answer.status().as_u16() {
        200..=299 => Ok(None),
        status => shortfall(index, status, answer.body()),
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

//! The index template: mappings for the record, so that nothing of a body is indexed and no caller can add fields.

use magicapi_plugin::{ExportError, HttpError};
use serde_json::{Value, json};
use tracing::warn;

use super::config::{Stream, Target};
use super::{client, lifecycle};
use crate::endpoint::segment;

/// Everything but the index pattern, which is a setting.
const TEMPLATE: &str = include_str!("template.json");

/// What to do where the cluster itself divides no data stream.
const ATTACH: &str =
    "attach a policy to it: with lifecycle_policy (Elasticsearch before 8.11), or by ISM (OpenSearch)";

/// The template as the settings want it. `_meta` says what the settings changed, so that another setting is put in place.
fn wanted(target: &Target) -> Result<Value, ExportError> {
    let mut template: Value = serde_json::from_str(TEMPLATE).map_err(|e| e.to_string())?;
    template["index_patterns"] = json!([target.index]);
    if let Some(Stream { retention, policy }) = &target.stream {
        template["data_stream"] = json!({});
        template["template"]["mappings"]["properties"]["@timestamp"] = json!({ "type": "date" });
        template["_meta"]["data_stream"] =
            json!({ "retention": retention, "policy": policy, "lifecycle": policy.is_none() });
        // Without a life a stream is one index that grows for ever.
        match (retention, policy) {
            (_, Some(policy)) => template["template"]["settings"] = json!({ "index.lifecycle.name": policy }),
            (Some(retention), None) => {
                template["template"]["lifecycle"] = json!({ "data_retention": retention });
            }
            (None, None) => template["template"]["lifecycle"] = json!({}),
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
    let mut template = wanted(target)?;
    let answer = target.endpoint.get(&path).await.map_err(|e| unanswered(&path, &e))?;
    let mut there = Value::Null;
    match answer.status().as_u16() {
        404 => {}
        200..=299 => {
            let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
            there = body.pointer("/index_templates/0/index_template").cloned().unwrap_or_default();
            if there["_meta"]["managed_by"] != template["_meta"]["managed_by"] {
                return Ok(Some(format!(
                    "the index template {index} is not ours and is left alone; `template: false` accepts that"
                )));
            }
        }
        status => return shortfall(index, status, answer.body()),
    }
    let age = there["version"].as_i64().cmp(&template["version"].as_i64());
    if age.is_gt() {
        return Ok(None);
    }
    let is_current = age.is_eq() && there["_meta"] == template["_meta"];
    let mut untold = None;
    if let Some(stream) = &target.stream {
        let given = &there["_meta"]["data_stream"]["retention"];
        untold = lifecycle::tell(target, stream, given).await?;
        if untold.is_some() {
            // What the stream was told last: the next start tries again.
            template["_meta"]["data_stream"]["retention"] = given.clone();
        }
    }
    if is_current {
        return Ok(untold);
    }
    Ok(put(target, &path, template).await?.or(untold))
}

async fn put(target: &Target, path: &str, mut template: Value) -> Result<Option<String>, ExportError> {
    let answer = target.endpoint.put(path, template.to_string()).await.map_err(|e| unanswered(path, &e))?;
    let (index, status) = (&target.index, answer.status().as_u16());
    let life = match status {
        200..=299 => return Ok(None),
        400 => template["template"].as_object_mut().and_then(|template| template.remove("lifecycle")),
        _ => None,
    };
    let Some(life) = life else { return shortfall(index, status, answer.body()) };
    // The cluster may know no lifecycle, but all the rest. `_meta` says so, and the next start tries again.
    template["_meta"]["data_stream"]["lifecycle"] = json!(false);
    let again = target.endpoint.put(path, template.to_string()).await.map_err(|e| unanswered(path, &e))?;
    match again.status().as_u16() {
        200..=299 => {}
        status => return shortfall(index, status, again.body()),
    }
    if let Some(retention) = life["data_retention"].as_str() {
        return Ok(Some(format!(
            "the cluster takes no retention (HTTP {status} {}): the data stream {index} is kept for ever, not for \
             {retention}; {ATTACH}",
            client::fault(answer.body()).kind(),
        )));
    }
    warn!(index, "elasticsearch: this cluster does not divide the data stream by itself; {ATTACH}");
    Ok(None)
}

fn unanswered(path: &str, error: &HttpError) -> String {
    format!("{path}: {error}")
}

/// Without the template records go where they always went; only a cluster that is not ready is asked again.
fn shortfall(index: &str, status: u16, body: &[u8]) -> Result<Option<String>, ExportError> {
    client::ready(&format!("the index template {index}"), status, body)?;
    Ok(Some(format!(
        "the index template {index} could not be installed (HTTP {status} {}): install it by hand and set \
         `template: false`, or bodies are indexed",
        client::fault(body).kind(),
    )))
}

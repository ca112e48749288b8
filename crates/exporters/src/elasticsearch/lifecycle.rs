//! How long a data stream keeps records. A template rules streams to come; one that is there already is told itself.

use magicapi_plugin::ExportError;
use serde_json::{Value, json};

use super::client;
use super::config::{Stream, Target};
use crate::endpoint::segment;

/// Tells the stream, if it is there and its life is another. `given` is the retention that the gateway gave it last: it
/// is taken back once it is not configured any more; one that somebody else gave stays. `Some` says why the stream could
/// not be told.
pub(super) async fn tell(
    target: &Target,
    stream: &Stream,
    given: &Value,
) -> Result<Option<String>, ExportError> {
    let path = format!("/_data_stream/{}/_lifecycle", segment(&target.index));
    let answer = target.endpoint.get(&path).await.map_err(|e| format!("{path}: {e}"))?;
    let life = match answer.status().as_u16() {
        404 => return Ok(None),
        200..=299 => {
            let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
            Some(body.pointer("/data_streams/0/lifecycle").cloned().unwrap_or_default())
        }
        status => {
            client::ready(&path, status, answer.body())?;
            None
        }
    };
    let Some(wanted) = wanted(stream, life.as_ref(), given) else { return Ok(None) };
    let answer = target.endpoint.put(&path, wanted.to_string()).await.map_err(|e| format!("{path}: {e}"))?;
    let status = answer.status().as_u16();
    if let 200..=299 | 404 = status {
        return Ok(None);
    }
    client::ready(&path, status, answer.body())?;
    Ok(Some(format!(
        "the data stream {} could not be told to keep records {} (HTTP {status} {}): grant \
         manage_data_stream_lifecycle on it",
        target.index,
        stream.retention.as_ref().map_or("for ever".into(), |retention| format!("for {retention}")),
        client::fault(answer.body()).kind(),
    )))
}

/// What to tell a stream with this life, `None` where that could not be read.
fn wanted(stream: &Stream, life: Option<&Value>, given: &Value) -> Option<Value> {
    let retention = life.map(|life| &life["data_retention"]);
    if let Some(wanted) = &stream.retention {
        let as_wanted = retention.is_some_and(|there| there == wanted.as_str());
        let is_off = life.is_some_and(|life| life["enabled"] == false);
        return (!as_wanted || is_off).then(|| json!({ "data_retention": wanted }));
    }
    // Without a life nothing divides it; a policy does so itself.
    let has_none = life.is_some_and(Value::is_null) && stream.policy.is_none();
    let is_ours = !given.is_null() && retention.is_none_or(|there| there == given);
    (has_none || is_ours).then(|| json!({}))
}

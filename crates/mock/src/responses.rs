//! Buffered answers of `/responses`. The streamed ones are in `responses_stream`.

use serde_json::{Value, json};

use crate::answer::{Answer, CREATED, Call, Reply};
use crate::ask::Ask;
use crate::failure::Failure;
use crate::responses_stream;

/// Answers a responses request.
pub(crate) fn answer(call: &Call<'_>) -> Result<Answer, Failure> {
    let ask = Ask::parse(call.body)?;
    let model = ask.need_model()?;
    let reply = Reply::new(call, &ask, model, &ask.loose_prompt());
    let said = Said::new(&reply, model);
    if ask.streams() {
        return Ok(Answer::events(responses_stream::plan(&reply, &said)));
    }
    Ok(Answer::json(call.script, &said.object(&said.items, said.status).to_string()))
}

/// What a response says, as its output items.
pub(crate) struct Said {
    id: String,
    model: String,
    usage: Value,
    pub(crate) status: &'static str,
    pub(crate) items: Vec<Value>,
}

impl Said {
    fn new(reply: &Reply<'_>, model: &str) -> Self {
        let status = if reply.script.finish() == "length" { "incomplete" } else { "completed" };
        Self {
            id: format!("resp_mock_{}", reply.number),
            model: model.to_owned(),
            usage: usage(reply),
            status,
            items: items(reply, status),
        }
    }

    /// The response object with these items, in this state.
    pub(crate) fn object(&self, items: &[Value], status: &str) -> Value {
        let open = status == "in_progress";
        let reason = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
        json!({
            "id": self.id, "object": "response", "created_at": CREATED, "status": status,
            "error": null, "incomplete_details": reason, "instructions": null,
            "max_output_tokens": null, "model": self.model, "output": items,
            "parallel_tool_calls": true, "previous_response_id": null,
            "reasoning": {"effort": null, "summary": null}, "store": true, "temperature": 1.0,
            "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1.0,
            "truncation": "disabled", "usage": if open { &Value::Null } else { &self.usage },
            "user": null, "metadata": {},
        })
    }
}

fn usage(reply: &Reply<'_>) -> Value {
    if let Some(given) = &reply.script.usage {
        return given.clone();
    }
    let counts = reply.usage;
    json!({
        "input_tokens": counts.prompt, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": counts.completion,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.prompt + counts.completion,
    })
}

fn items(reply: &Reply<'_>, status: &str) -> Vec<Value> {
    let script = reply.script;
    let mut items = Vec::new();
    if let Some(reasoning) = &script.reasoning {
        items.push(json!({"id": format!("rs_mock_{}", reply.number), "type": "reasoning",
            "summary": [{"type": "summary_text", "text": reasoning}]}));
    }
    let mut content = Vec::new();
    if let Some(text) = &reply.text {
        let filler = usize::try_from(reply.filler_bytes()).unwrap_or(0);
        let text = format!("{text}{}", "x".repeat(filler));
        content.push(json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}));
    }
    if let Some(refusal) = &script.refusal {
        content.push(json!({"type": "refusal", "refusal": refusal}));
    }
    if !content.is_empty() {
        items.push(json!({"id": format!("msg_mock_{}", reply.number), "type": "message",
            "status": status, "role": "assistant", "content": content}));
    }
    for (index, call) in script.tool_calls.iter().enumerate() {
        let (kind, prefix, member) = if call.custom {
            ("custom_tool_call", "ctc", "input")
        } else {
            ("function_call", "fc", "arguments")
        };
        let id = format!("{prefix}_mock_{}_{index}", reply.number);
        items.push(json!({"id": id, "type": kind, "status": "completed", "call_id": call.call_id(index),
            "name": call.name, member: call.argument_text()}));
    }
    items
}

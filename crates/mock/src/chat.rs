//! Buffered answers of `/chat/completions`. The streamed ones are in `chat_stream`.

use std::fmt::Write;

use crate::answer::{Answer, CREATED, Call, JSON, Paper, Reply, quote};
use crate::ask::Ask;
use crate::chat_stream;
use crate::failure::Failure;
use crate::script::{Script, UsagePlacement};

/// Answers a chat request.
pub(crate) fn answer(call: &Call<'_>) -> Result<Answer, Failure> {
    let ask = Ask::parse(call.body)?;
    let model = ask.need_model()?;
    let prompt = ask.chat_prompt()?;
    let reply = Reply::new(call, &ask, model, &prompt);
    if ask.streams() {
        return Ok(Answer::events(chat_stream::plan(&reply, ask.wants_usage())));
    }
    Ok(whole(&reply))
}

fn whole(reply: &Reply<'_>) -> Answer {
    let script = reply.script;
    let mut paper = Paper::default();
    paper.text(&format!(
        r#"{{"id":"chatcmpl-mock-{}","object":"chat.completion","created":{CREATED},"model":{},"choices":["#,
        reply.number, reply.model,
    ));
    let after = after_content(script);
    for index in 0..reply.choices {
        let comma = if index == 0 { "" } else { "," };
        paper.text(&format!(r#"{comma}{{"index":{index},"message":{{"role":"assistant","content":"#));
        content(&mut paper, reply);
        paper.text(&after);
    }
    paper.text("]");
    if let Some(usage) = reply.usage_json() {
        paper.text(r#","usage":"#);
        paper.text(&usage);
    }
    if script.usage_placement == UsagePlacement::XGroq {
        paper.text(&format!(r#","x_groq":{{"id":"req_mock_{}"}}"#, reply.number));
    }
    paper.text(&format!(r#","service_tier":{},"system_fingerprint":"fp_mock"}}"#, quote(script.tier())));
    Answer::buffered(JSON, paper.finish(script.bytes))
}

/// The content string with its filler and the place for padding.
fn content(paper: &mut Paper, reply: &Reply<'_>) {
    let Some(text) = &reply.text else {
        paper.text("null");
        return;
    };
    let quoted = quote(text);
    paper.text(quoted.strip_suffix('"').unwrap_or(&quoted));
    paper.fill(reply.filler_bytes());
    if reply.script.bytes.is_some() {
        paper.mark();
    }
    paper.text("\"");
}

/// The rest of a choice, the same for all of them.
fn after_content(script: &Script) -> String {
    let refusal = script.refusal.as_deref().map_or_else(|| "null".to_owned(), quote);
    let mut out = format!(r#","refusal":{refusal},"annotations":[]"#);
    if let Some(reasoning) = &script.reasoning {
        let _ = write!(out, r#","{}":{}"#, script.reasoning_field.name(), quote(reasoning));
    }
    if !script.tool_calls.is_empty() {
        let calls: Vec<String> = (0..script.tool_calls.len()).map(|i| tool_call(script, i)).collect();
        let _ = write!(out, r#","tool_calls":[{}]"#, calls.join(","));
    }
    let _ = write!(out, r#"}},"logprobs":null,"finish_reason":{}}}"#, quote(script.finish()));
    out
}

fn tool_call(script: &Script, index: usize) -> String {
    let Some(call) = script.tool_calls.get(index) else { return String::new() };
    let (kind, member) = if call.custom { ("custom", "input") } else { ("function", "arguments") };
    format!(
        r#"{{"id":{},"type":"{kind}","{kind}":{{"name":{},"{member}":{}}}}}"#,
        quote(&call.call_id(index)),
        quote(&call.name),
        quote(&call.argument_text()),
    )
}

//! Answers of the legacy `/completions` endpoint, buffered and streamed.

use crate::answer::{Answer, CREATED, Call, JSON, Paper, Reply, quote};
use crate::ask::Ask;
use crate::failure::Failure;
use crate::plan::{Item, Plan};
use crate::script::UsagePlacement;
use crate::sse::{Framing, pieces_of, words};

/// Answers a completion request.
pub(crate) fn answer(call: &Call<'_>) -> Result<Answer, Failure> {
    let ask = Ask::parse(call.body)?;
    let model = ask.need_model()?;
    if ask.prompt.is_none() {
        let message = "Missing required parameter: 'prompt'.".to_owned();
        return Err(Failure::bad_request(message, Some("prompt")));
    }
    let reply = Reply::new(call, &ask, model, &ask.loose_prompt());
    if ask.streams() {
        return Ok(Answer::events(stream(&reply, ask.wants_usage())));
    }
    Ok(whole(&reply))
}

fn head(reply: &Reply<'_>) -> String {
    format!(
        r#"{{"id":"cmpl-mock-{}","object":"text_completion","created":{CREATED},"model":{},"choices":["#,
        reply.number, reply.model,
    )
}

fn whole(reply: &Reply<'_>) -> Answer {
    let mut paper = Paper::default();
    paper.text(&head(reply));
    let quoted = quote(reply.text.as_deref().unwrap_or_default());
    for index in 0..reply.choices {
        paper.text(if index == 0 { r#"{"text":"# } else { r#",{"text":"# });
        paper.text(quoted.strip_suffix('"').unwrap_or(&quoted));
        paper.fill(reply.filler_bytes());
        if reply.script.bytes.is_some() {
            paper.mark();
        }
        let reason = quote(reply.script.finish());
        paper.text(&format!(r#"","index":{index},"logprobs":null,"finish_reason":{reason}}}"#));
    }
    paper.text("]");
    if let Some(usage) = reply.usage_json() {
        paper.text(&format!(r#","usage":{usage}"#));
    }
    paper.text("}");
    Answer::buffered(JSON, paper.finish(reply.script.bytes))
}

fn stream(reply: &Reply<'_>, asked: bool) -> Plan {
    let script = reply.script;
    let framing = Framing::of(script);
    let head = head(reply);
    let usage = reply.usage_json();
    let extra =
        if script.usage_placement == UsagePlacement::Openai && asked { usage.as_deref() } else { None };
    let tail = if extra.is_some() { r#"],"usage":null}"# } else { "]}" };
    let chunk = |text: &str, index: u32, reason: &str, tail: &str| {
        let body = format!(r#"{{"text":{text},"index":{index},"logprobs":null,"finish_reason":{reason}}}"#);
        framing.pieces(None, &[&head, &body, tail])
    };
    let mut plan = Plan::new();
    if let Some(size) = script.huge_event_bytes {
        plan.push(Item::paced(chunk(&quote(&"x".repeat(size)), 0, "null", tail)));
    }
    let text = reply.text.as_deref().unwrap_or_default();
    let pieces = match script.chunk_bytes {
        Some(size) if script.chunks.is_none() => pieces_of(text, size),
        _ => words(text),
    };
    for piece in pieces {
        for index in 0..reply.choices {
            plan.push(Item::paced(chunk(&quote(piece), index, "null", tail)));
        }
    }
    if let Some(repeat) = script.chunks.filter(|&c| c > 0) {
        let filler = quote(&"x".repeat(script.filler_chunk()));
        for index in 0..reply.choices {
            plan.push(Item { data: chunk(&filler, index, "null", tail), repeat, paced: true });
        }
    }
    let last_tail = match (&usage, script.usage_placement) {
        (Some(usage), UsagePlacement::AlwaysFinal | UsagePlacement::EveryChunk) => {
            format!(r#"],"usage":{usage}}}"#)
        }
        _ => tail.to_owned(),
    };
    for index in 0..reply.choices {
        plan.push(Item::now(chunk("\"\"", index, &quote(script.finish()), &last_tail)));
    }
    if let Some(usage) = extra {
        plan.push(Item::now(framing.pieces(None, &[&head, r#"],"usage":"#, usage, "}"])));
    }
    framing.close(&mut plan, script);
    plan
}

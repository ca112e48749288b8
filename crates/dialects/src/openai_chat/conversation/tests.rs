use proptest::prelude::*;

use super::{Operation, read};
use crate::conversation::{Conversation, Media, Part, Source};

fn said(operation: Operation, request: &str, response: &str) -> Conversation {
    read(operation, Some(request.as_bytes()), Some(response.as_bytes())).expect("a conversation")
}

fn text(text: &str) -> Part {
    Part::Text(text.into())
}

const CHAT: &str = r#"{"model":"m","temperature":0.5,"max_tokens":9,"n":2,"seed":-4,"stop":["a","b"],
 "response_format":{"type":"json_schema","json_schema":{}},"reasoning_effort":"low",
 "tools":[{"type":"function","function":{"name":"weather","description":"d","parameters":{"type":"object"}}}],
 "messages":[{"role":"system","content":"Be brief."},
 {"role":"user","name":"ann","content":[{"type":"text","text":"Look: \u00e4"},
   {"type":"image_url","image_url":{"url":"https://x/i.png"}},
   {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}},
   {"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}},
   {"type":"file","file":{"file_id":"file-1"}},{"type":"hologram","x":1}]},
 {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"weather","arguments":"{\"in\":\"Paris\"}"}}]},
 {"role":"tool","tool_call_id":"c1","content":[{"type":"text","text":"rain"},{"type":"text","text":"57F"}]}]}"#;

#[test]
fn a_chat_with_tools_and_media() {
    let answer = r#"{"id":"chatcmpl-1","model":"m-2","choices":[{"index":0,"message":{"role":"assistant","content":"Wet.","reasoning_content":"hm"},"finish_reason":"stop"},
        {"index":1,"message":{"role":"assistant","refusal":"No."},"finish_reason":"content_filter"}]}"#;
    let said = said(Operation::Chat, CHAT, answer);
    let roles: Vec<&str> = said.input.iter().map(|message| message.role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool"]);
    assert_eq!((said.input[1].name.as_deref(), &said.input[1].parts[0]), (Some("ann"), &text("Look: ä")));
    let sources = said.input[1].parts.iter().filter_map(|part| match part {
        Part::Media(Media { modality, mime_type, source, .. }) => {
            Some((*modality, mime_type.as_deref(), source.clone()))
        }
        _ => None,
    });
    let sources: Vec<_> = sources.collect();
    assert_eq!(
        sources,
        [
            ("image", None, Source::Uri("https://x/i.png".into())),
            ("image", Some("image/png"), Source::Inline(26)),
            ("audio", Some("audio/wav"), Source::Inline(4)),
            ("document", None, Source::File("file-1".into())),
        ]
    );
    assert_eq!(said.input[1].parts[5], Part::Other("hologram".into(), r#"{"type":"hologram","x":1}"#.into()));
    let call = Part::ToolCall(Some("c1".into()), "weather".into(), r#"{"in":"Paris"}"#.into());
    assert_eq!(said.input[2].parts, [call]);
    assert_eq!(said.input[3].parts, [Part::ToolResult(Some("c1".into()), "rain\n57F".into())]);
    assert_eq!(said.output[0].parts, [Part::Reasoning("hm".into()), text("Wet.")]);
    assert_eq!(said.output[1].parts, [Part::Refusal("No.".into())]);
    let reasons: Vec<_> = said.output.iter().filter_map(|choice| choice.finish_reason.as_deref()).collect();
    assert_eq!(reasons, ["stop", "content_filter"]);
    assert_eq!(
        (said.tools[0].name.as_str(), said.tools[0].parameters.as_deref()),
        ("weather", Some(r#"{"type":"object"}"#))
    );
    let asked = &said.parameters;
    assert_eq!(
        (asked.temperature, asked.max_tokens, asked.choices, asked.seed),
        (Some(0.5), Some(9), Some(2), Some(-4))
    );
    assert_eq!(
        (asked.stop.len(), asked.output_type, asked.reasoning_level.as_deref()),
        (2, Some("json"), Some("low"))
    );
    assert_eq!(
        (said.response_id.as_deref(), said.response_model.as_deref()),
        (Some("chatcmpl-1"), Some("m-2"))
    );
    assert!(!said.is_cut);
}

/// What `join` makes of a stream's events.
#[test]
fn a_joined_stream() {
    let mut join = crate::openai_chat::Join::new(crate::openai_chat::Limits::default());
    for event in [
        r#"{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"}}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"content":"lo","tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":"{"}}]}}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]},"finish_reason":"tool_calls"}]}"#,
    ] {
        join.push(event.as_bytes());
    }
    let joined = join.finish("m");
    let said = read(Operation::Chat, None, Some(&joined.response)).expect("a conversation");
    let call = Part::ToolCall(Some("t".into()), "f".into(), "{}".into());
    assert_eq!(said.output[0].parts, [text("Hello"), call]);
    assert_eq!(
        (said.output[0].role.as_str(), said.output[0].finish_reason.as_deref()),
        ("assistant", Some("tool_calls"))
    );
}

#[test]
fn completions_and_responses() {
    let said_there = said(
        Operation::Completions,
        r#"{"prompt":["a","b"]}"#,
        r#"{"choices":[{"text":"c","finish_reason":"length"}]}"#,
    );
    assert_eq!((said_there.input.len(), &said_there.output[0].parts), (2, &vec![text("c")]));
    let request = r#"{"instructions":"Be brief.","max_output_tokens":5,"reasoning":{"effort":"high"},"text":{"format":{"type":"json_object"}},
        "tools":[{"type":"function","name":"f","parameters":{}},{"type":"web_search"}],
        "input":[{"role":"user","content":[{"type":"input_text","text":"hi"},{"type":"input_image","file_id":"f1"}]},
          {"type":"function_call","call_id":"k","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"k","output":"ok"}]}"#;
    let response = r#"{"id":"resp_1","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},
        "output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"hm"}]},{"type":"message","role":"assistant","content":[{"type":"output_text","text":"yes"}]},
        {"type":"web_search_call","id":"w"}]}"#;
    let said = said(Operation::Responses, request, response);
    assert_eq!(said.instructions, [text("Be brief.")]);
    let roles: Vec<&str> = said.input.iter().map(|message| message.role.as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "tool"]);
    assert_eq!(said.output.len(), 1, "its items are one answer");
    let parts = &said.output[0].parts;
    assert_eq!(parts[..2], [Part::Reasoning("hm".into()), text("yes")]);
    assert!(matches!(&parts[2], Part::Other(kind, _) if kind == "web_search_call"));
    assert_eq!(said.output[0].finish_reason.as_deref(), Some("max_output_tokens"));
    assert_eq!((said.tools.len(), said.tools[1].kind.as_str()), (2, "web_search"));
    assert_eq!((said.parameters.max_tokens, said.parameters.output_type), (Some(5), Some("json")));
}

#[test]
fn what_holds_no_messages_is_no_conversation() {
    for body in [
        "",
        "null",
        "[]",
        "{",
        "{\"messages\":7}",
        "{\"messages\":[]}",
        "{\"content_type\":\"x\",\"bytes\":3}",
    ] {
        for operation in
            [Operation::Chat, Operation::Completions, Operation::Responses, Operation::Embeddings]
        {
            assert_eq!(read(operation, Some(body.as_bytes()), Some(body.as_bytes())), None, "{body}");
        }
    }
}

#[test]
fn size_and_number_are_bounded() {
    let long = format!(
        r#"{{"messages":[{{"role":"user","content":"{}"}},{{"role":"user","content":"ä"}}]}}"#,
        "x".repeat(9 << 20)
    );
    let said = read(Operation::Chat, Some(long.as_bytes()), None).expect("a conversation");
    assert!(said.is_cut);
    assert_eq!(said.input[0].parts, [Part::Text("x".repeat(8 << 20))]);
    assert_eq!(said.input[1].parts, [text("")]);
    let many = format!(r#"{{"messages":[{}{{}}]}}"#, "{},".repeat(30_000));
    let said = read(Operation::Chat, Some(many.as_bytes()), None).expect("a conversation");
    assert!(said.is_cut && said.input.len() == 20_000);
}

proptest! {
    /// Whatever stands there, and wherever it was cut.
    #[test]
    fn no_body_makes_it_panic(cut in 0usize..1200, noise in "[\\[\\]{}\",:a-z0-9\\\\]{0,60}") {
        let body = CHAT.as_bytes();
        let body = &body[..cut.min(body.len())];
        for operation in [Operation::Chat, Operation::Completions, Operation::Responses] {
            read(operation, Some(body), Some(noise.as_bytes()));
            read(operation, Some(noise.as_bytes()), Some(body));
        }
    }
}

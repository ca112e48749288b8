//! Endpoints that take or give something other than JSON: images, speech, transcriptions, files.

use bytes::Bytes;
use http::Method;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Answer, CREATED, Call, Paper};
use crate::ask::count;
use crate::failure::Failure;
use crate::multipart::Form;
use crate::plan::{Item, Plan};
use crate::sse::Framing;

/// A grey image of one pixel, as base64 of a PNG file.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";
/// Size of a speech answer, in bytes, unless the script says otherwise.
const SPEECH_BYTES: u64 = 4096;

#[derive(Deserialize)]
struct ImageAsk {
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    n: Option<usize>,
    #[serde(default)]
    response_format: Option<String>,
}

#[derive(Deserialize)]
struct SpeechAsk {
    #[serde(default)]
    input: String,
    #[serde(default)]
    response_format: Option<String>,
    #[serde(default)]
    stream_format: Option<String>,
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|err| {
        Failure::bad_request(format!("We could not parse the JSON body of your request: {err}"), None)
    })
}

/// Draws: the same pixel every time, inline or as a link.
pub(crate) fn images(call: &Call<'_>) -> Result<Answer, Failure> {
    let ask: ImageAsk = parse(call.body)?;
    let image = if ask.response_format.as_deref() == Some("url") {
        json!({"url": "https://mock.invalid/pixel.png", "revised_prompt": ask.prompt})
    } else {
        json!({"b64_json": PIXEL, "revised_prompt": ask.prompt})
    };
    let data = vec![image; ask.n.unwrap_or(1).clamp(1, 10)];
    let words = count(&ask.prompt);
    let usage = json!({"input_tokens": words, "output_tokens": 1, "total_tokens": words + 1,
        "input_tokens_details": {"text_tokens": words, "image_tokens": 0}});
    let usage = call.script.usage.clone().unwrap_or(usage);
    let body = json!({"created": CREATED, "data": data, "output_format": "png", "usage": usage});
    Ok(Answer::json(call.script, &body.to_string()))
}

/// Speaks: every byte value in turn, so NUL bytes and invalid UTF-8 among them.
pub(crate) fn speech(call: &Call<'_>) -> Result<Answer, Failure> {
    let ask: SpeechAsk = parse(call.body)?;
    if ask.stream_format.as_deref() == Some("sse") {
        return Ok(Answer::events(speech_events(call, count(&ask.input))));
    }
    let content_type = match ask.response_format.as_deref() {
        Some("opus") => "audio/opus",
        Some("aac") => "audio/aac",
        Some("flac") => "audio/flac",
        Some("wav") => "audio/wav",
        Some("pcm") => "audio/pcm",
        _ => "audio/mpeg",
    };
    let size = call.script.bytes.unwrap_or(SPEECH_BYTES);
    let page = Bytes::from((0..=u8::MAX).cycle().take(64 * 1024).collect::<Vec<u8>>());
    let whole = page.len() as u64;
    let rest = page.slice(..(size % whole) as usize);
    let mut plan = Plan::new();
    if size >= whole {
        plan.push(Item { data: page, repeat: size / whole, paced: false });
    }
    if !rest.is_empty() {
        plan.push(Item::now(rest));
    }
    Ok(Answer::buffered(content_type, plan))
}

fn speech_events(call: &Call<'_>, words: u64) -> Plan {
    let framing = Framing::of(call.script);
    let mut plan: Plan = ["AAECAw==", "BAUGBw=="]
        .iter()
        .map(|audio| {
            let data = json!({"type": "speech.audio.delta", "audio": audio});
            Item::paced(framing.event(None, &data.to_string()))
        })
        .collect();
    let done = json!({"type": "speech.audio.done",
        "usage": {"input_tokens": words, "output_tokens": 2, "total_tokens": words + 2}});
    plan.push(Item::now(framing.event(None, &done.to_string())));
    plan
}

fn form(call: &Call<'_>) -> Result<Form, Failure> {
    let content_type = call.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !content_type.starts_with("multipart/form-data") {
        let message = format!("Expected multipart/form-data, got '{content_type}'");
        return Err(Failure::bad_request(message, None));
    }
    Ok(Form::read(content_type, call.body))
}

/// Transcribes: says how many bytes came in.
pub(crate) fn transcriptions(call: &Call<'_>) -> Result<Answer, Failure> {
    let form = form(call)?;
    let (name, size) = form.file.clone().unwrap_or_default();
    let spoken = format!("Mock transcription of {size} bytes.");
    let text = call.script.text.clone().unwrap_or(spoken);
    if matches!(form.field("response_format"), Some("text" | "srt" | "vtt")) {
        let mut paper = Paper::default();
        paper.text(&text);
        paper.text("\n");
        return Ok(Answer::buffered("text/plain; charset=utf-8", paper.finish(call.script.bytes)));
    }
    let body = json!({
        "text": text, "bytes_received": call.body.len(), "file_bytes": size, "filename": name,
        "model": form.field("model"),
        "usage": call.script.usage.clone().unwrap_or(json!({"type": "duration", "seconds": 1})),
    });
    Ok(Answer::json(call.script, &body.to_string()))
}

/// Stores nothing, but describes the file; a GET lists one such file.
pub(crate) fn files(call: &Call<'_>) -> Result<Answer, Failure> {
    if call.method == Method::GET {
        let list = json!({"object": "list", "data": [file_json("file-mock-1", 0, "empty.jsonl", "batch")],
            "has_more": false});
        return Ok(Answer::json(call.script, &list.to_string()));
    }
    let form = form(call)?;
    let (name, size) = form.file.clone().unwrap_or_default();
    let purpose = form.field("purpose").unwrap_or("user_data");
    let file = file_json(&format!("file-mock-{}", call.number), size, &name, purpose);
    Ok(Answer::json(call.script, &file.to_string()))
}

fn file_json(id: &str, bytes: u64, name: &str, purpose: &str) -> Value {
    json!({"id": id, "object": "file", "bytes": bytes, "created_at": CREATED, "filename": name,
        "purpose": purpose, "status": "processed"})
}

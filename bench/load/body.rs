//! What is asked: chat requests whose bodies have a given length.

use std::borrow::Cow;

const SENTENCE: &str = "The quick brown fox jumps over the lazy dog. ";
/// Of random letters, from which every request takes another part.
const POOL: usize = 32 << 20;
/// A prime, so that the parts of neighbouring requests are far from each other.
const STRIDE: u64 = 12_345_701;

pub struct Requests {
    /// Whole, with the sentence as its text.
    plain: Vec<u8>,
    /// Where the text begins in it, and how long it is.
    text: (usize, usize),
    pool: Option<Vec<u8>>,
}

impl Requests {
    /// With bodies of this many bytes.
    pub fn new(bytes: usize, stream: bool, noise: bool) -> Self {
        // The usage is asked for, so that every arm hands on the same bytes; the header is what the mock's script looks at.
        let extra = if stream { r#""stream":true,"stream_options":{"include_usage":true},"# } else { "" };
        let kind = if stream { "stream" } else { "buffered" };
        let start = format!(r#"{{"model":"gpt-4o-mini",{extra}"messages":[{{"role":"user","content":""#);
        let end = r#""}]}"#;
        let length = bytes.saturating_sub(start.len() + end.len());
        let text: String = SENTENCE.chars().cycle().take(length).collect();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer sk-bench\r\n\
             content-type: application/json\r\nuser-agent: bench\r\naccept: */*\r\nx-bench: {kind}\r\ncontent-length: {}\r\n\r\n",
            start.len() + length + end.len()
        );
        let text_at = head.len() + start.len();
        let plain = [head, start, text, end.to_owned()].concat().into_bytes();
        Self { plain, text: (text_at, length), pool: noise.then(|| letters(POOL + length)) }
    }

    /// The request of that number.
    pub fn get(&self, number: u64) -> Cow<'_, [u8]> {
        let Some(pool) = &self.pool else { return Cow::Borrowed(&self.plain) };
        let (at, length) = self.text;
        let from = (number.wrapping_mul(STRIDE) % POOL as u64) as usize;
        let mut request = self.plain.clone();
        request[at..at + length].copy_from_slice(&pool[from..from + length]);
        Cow::Owned(request)
    }
}

/// As many letters and digits, the same in every run (xorshift64).
fn letters(count: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ALPHABET[(state >> 58) as usize]
    };
    (0..count).map(|_| letter()).collect()
}

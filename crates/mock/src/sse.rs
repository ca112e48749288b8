//! Framing of server-sent events, with the oddities a script can ask for. Used by every answer
//! module that streams; it decides bytes, not times.

use bytes::Bytes;

use crate::plan::{Item, Plan};
use crate::script::{LineEnd, Script, verbatim};

/// How events are written.
#[derive(Clone, Copy)]
pub(crate) struct Framing {
    eol: &'static str,
    data: &'static str,
    comments: bool,
    empty_events: bool,
}

impl Framing {
    pub(crate) fn of(script: &Script) -> Self {
        let eol = match script.crlf {
            LineEnd::Lf => "\n",
            LineEnd::Crlf => "\r\n",
            LineEnd::Cr => "\r",
        };
        let data = if script.no_space { "data:" } else { "data: " };
        Self { eol, data, comments: script.comments, empty_events: script.empty_events }
    }

    /// A comment that keeps a silent connection alive.
    pub(crate) fn heartbeat(self) -> Bytes {
        Bytes::from(format!(": keep-alive{0}{0}", self.eol))
    }

    /// One event; `name` writes an `event:` line before the data.
    pub(crate) fn event(self, name: Option<&str>, data: &str) -> Bytes {
        self.pieces(name, &[data])
    }

    /// One event whose data is the concatenation of `pieces`.
    pub(crate) fn pieces(self, name: Option<&str>, pieces: &[&str]) -> Bytes {
        let size: usize = pieces.iter().map(|p| p.len()).sum();
        let mut out = String::with_capacity(size + 64);
        if self.comments {
            out.push_str(": keep-alive");
            self.blank_line(&mut out);
        }
        if self.empty_events {
            out.push_str(self.data);
            self.blank_line(&mut out);
        }
        if let Some(name) = name {
            out.push_str(if self.data.ends_with(' ') { "event: " } else { "event:" });
            out.push_str(name);
            out.push_str(self.eol);
        }
        out.push_str(self.data);
        for piece in pieces {
            self.push_data(&mut out, piece);
        }
        self.blank_line(&mut out);
        Bytes::from(out)
    }

    /// Data with a line break in it becomes several `data:` lines, which a reader joins again.
    fn push_data(self, out: &mut String, piece: &str) {
        let mut lines = piece.split('\n');
        out.push_str(lines.next().unwrap_or_default());
        for line in lines {
            out.push_str(self.eol);
            out.push_str(self.data);
            out.push_str(line);
        }
    }

    fn blank_line(self, out: &mut String) {
        out.push_str(self.eol);
        out.push_str(self.eol);
    }

    /// Ends a stream of unnamed events: `[DONE]` and what the script wants after it.
    pub(crate) fn close(self, plan: &mut Plan, script: &Script) {
        if !script.no_done {
            plan.push(Item::now(self.event(None, "[DONE]")));
        }
        if let Some(late) = &script.event_after_done {
            plan.push(Item::now(self.event(None, &verbatim(late))));
        }
    }
}

/// Cuts a text into words, each with the white space after it.
pub(crate) fn words(text: &str) -> Vec<&str> {
    text.split_inclusive(char::is_whitespace).collect()
}

/// Cuts a text into pieces of about `size` bytes, never inside a character.
pub(crate) fn pieces_of(text: &str, size: usize) -> Vec<&str> {
    let mut rest = text;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let at = (size.max(1)..rest.len()).find(|&i| rest.is_char_boundary(i)).unwrap_or(rest.len());
        let (piece, tail) = rest.split_at(at);
        out.push(piece);
        rest = tail;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_oddities() {
        let script = Script {
            crlf: LineEnd::Crlf,
            no_space: true,
            comments: true,
            empty_events: true,
            ..Script::default()
        };
        let got = Framing::of(&script).event(Some("x"), "{}");
        assert_eq!(&got[..], b": keep-alive\r\n\r\ndata:\r\n\r\nevent:x\r\ndata:{}\r\n\r\n");
        assert_eq!(&Framing::of(&Script::default()).event(None, "a\nb")[..], b"data: a\ndata: b\n\n");
    }

    #[test]
    fn pieces_keep_characters_whole() {
        assert_eq!(pieces_of("aéb", 2), ["aé", "b"]);
        assert_eq!(pieces_of("abcd", 1), ["a", "b", "c", "d"]);
        assert_eq!(words("a b  c"), ["a ", "b ", " ", "c"]);
    }
}

//! Server-sent events on bytes: the WHATWG grammar, with whole events relayed as they came.
//!
//! Every streamed answer passes here on its way from provider to caller. [`Framer`] finds where events end, shows each to
//! a judge and gives back the bytes to write now. A chunk that holds whole events only is given back as it is.

use std::ops::Range;

use bytes::Bytes;
use memchr::memchr2;

mod event;
#[cfg(test)]
mod tests;

pub use event::Event;
use event::{BOM, parse, unread_event};

/// What keeps a quiet connection open: a comment, which every client ignores. Only between events
/// ([`Framer::between_events`]).
pub const HEARTBEAT: &[u8] = b": keep-alive\n\n";

/// Of an oversize event this much of the name is kept.
const LONGEST_NAME: usize = 256;

/// What shall become of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it came.
    Forward,
    /// It is left out.
    Drop,
    /// These bytes (whole events) go in its place.
    Replace(Bytes),
}

/// What to write to the client now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Whole events (and the parts of oversize ones), in one piece.
    pub bytes: Bytes,
    /// Whether some of it belongs to an event over the limit.
    pub oversize: bool,
    /// From [`Framer::finish`] only: the line ends that the last event lacks. To be written behind `bytes`, before
    /// anything of ours; empty when nothing is missing.
    pub missing_end: &'static [u8],
}

/// What of a buffer goes out: one run as long as nothing interrupts it, a copy after that.
#[derive(Default)]
struct Outgoing {
    run: Range<usize>,
    copied: Vec<u8>,
    interrupted: bool,
}

impl Outgoing {
    fn keep(&mut self, buffer: &[u8], span: Range<usize>) {
        if self.run.is_empty() {
            self.run = span;
        } else if self.run.end == span.start {
            self.run.end = span.end;
        } else {
            self.flush(buffer);
            self.run = span;
        }
    }

    fn insert(&mut self, buffer: &[u8], bytes: &[u8]) {
        self.flush(buffer);
        self.copied.extend_from_slice(bytes);
    }

    fn flush(&mut self, buffer: &[u8]) {
        self.interrupted = true;
        self.copied.extend_from_slice(buffer.get(self.run.clone()).unwrap_or_default());
        self.run = 0..0;
    }

    /// The bytes that go out: `buffer` itself when all of it does.
    fn take(mut self, buffer: Bytes) -> Bytes {
        if self.interrupted {
            self.flush(&buffer);
            return self.copied.into();
        }
        match self.run {
            run if run.is_empty() => Bytes::new(),
            run if run == (0..buffer.len()) => buffer,
            run => buffer.slice(run),
        }
    }
}

/// Finds events in a stream of chunks. Holds at most one unfinished event, up to its limits.
#[derive(Debug)]
pub struct Framer {
    /// The event that is not whole yet.
    held: Vec<u8>,
    /// How far `held` was searched for line ends.
    searched: usize,
    /// Where in `held` the current line begins.
    line: usize,
    most: usize,
    /// The largest event that is set aside to be read although it has been relayed.
    most_read: usize,
    /// Before the first event, where a byte order mark may stand.
    at_start: bool,
    /// The last event ended with CR: a LF that comes now belongs to it, and goes where it went.
    after_cr: Option<bool>,
    /// The event under way is over the limit.
    passing: Option<Passing>,
}

/// An event that is relayed as it is read.
#[derive(Debug)]
struct Passing {
    name: Option<Vec<u8>>,
    /// A copy of what has passed, as long as it may still be read.
    aside: Option<Vec<u8>>,
    /// Whether it is the first event.
    at_start: bool,
    line_is_empty: bool,
    after_cr: bool,
}

impl Passing {
    fn set_aside(&mut self, bytes: &[u8], most: usize) {
        match &mut self.aside {
            Some(aside) if aside.len() + bytes.len() <= most => aside.extend_from_slice(bytes),
            _ => self.aside = None,
        }
    }

    /// The event at its end, or what is known of it.
    fn event(&self, terminated: bool) -> Event<'_> {
        match &self.aside {
            Some(aside) => Event { raw: b"", oversize: true, terminated, ..parse(aside, self.at_start) },
            None => unread_event(self.name.as_deref(), terminated),
        }
    }
}

impl Framer {
    /// A framer that holds events up to `max_event_bytes`; a larger one is relayed as it is read.
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            held: Vec::new(),
            searched: 0,
            line: 0,
            most: max_event_bytes.max(1),
            most_read: 0,
            at_start: true,
            after_cr: None,
            passing: None,
        }
    }

    /// Sets events that are relayed as they are read aside, up to this size, so that they are read at their end.
    pub fn reading(mut self, max_event_bytes: usize) -> Self {
        self.most_read = max_event_bytes;
        self
    }

    /// Memory that the event under way takes because it was set aside.
    pub fn aside(&self) -> usize {
        self.passing.as_ref().and_then(|passing| passing.aside.as_ref()).map_or(0, Vec::capacity)
    }

    /// Gives up reading the event that was set aside.
    pub fn forget(&mut self) {
        if let Some(passing) = &mut self.passing {
            passing.aside = None;
        }
    }

    /// Bytes held back because their event is not whole.
    pub fn buffered(&self) -> usize {
        self.held.len()
    }

    /// Whether what was relayed so far ends at an event's end, so that something of ours may be written.
    pub fn between_events(&self) -> bool {
        self.passing.is_none()
    }

    /// Takes a chunk, shows every event that it completes to `judge`, and gives the bytes to write now. Whole events
    /// only; with nothing dropped, everything that was relayed and finished is everything that came.
    pub fn relay(&mut self, chunk: Bytes, mut judge: impl FnMut(&Event<'_>) -> Verdict) -> Relayed {
        if chunk.is_empty() {
            return Relayed::default();
        }
        let mut held = std::mem::take(&mut self.held);
        let mut out = Outgoing::default();
        if held.is_empty() {
            let (end, oversize) = self.go_through(&chunk, &mut out, &mut judge);
            // Copied, not sliced: a slice would pin the whole read buffer.
            self.held = chunk.get(end..).unwrap_or_default().to_vec();
            return Relayed { bytes: out.take(chunk), oversize, missing_end: b"" };
        }
        held.extend_from_slice(&chunk);
        let (end, oversize) = self.go_through(&held, &mut out, &mut judge);
        if end == 0 {
            self.held = held;
            return Relayed::default();
        }
        let buffer = Bytes::from(held);
        self.held = buffer.get(end..).unwrap_or_default().to_vec();
        Relayed { bytes: out.take(buffer), oversize, missing_end: b"" }
    }

    /// Goes through what there is; gives where the unfinished event begins, and whether an oversize one was met.
    fn go_through(
        &mut self,
        buffer: &[u8],
        out: &mut Outgoing,
        judge: &mut impl FnMut(&Event<'_>) -> Verdict,
    ) -> (usize, bool) {
        let mut start = self.leading_lf(buffer, out);
        let mut oversize = self.passing.is_some();
        if oversize {
            start = self.pass(buffer, start, out, judge);
        }
        if self.passing.is_none() {
            start = self.events(buffer, start, out, judge);
            if buffer.len() - start > self.most {
                oversize = true;
                start = self.begin_passing(buffer, start, out, judge);
            }
        }
        (start, oversize)
    }

    /// Ends the stream: what is still held is shown to `judge` if it carries data, and forwarded if it says so.
    pub fn finish(&mut self, mut judge: impl FnMut(&Event<'_>) -> Verdict) -> Relayed {
        let rest = Bytes::from(std::mem::take(&mut self.held));
        (self.searched, self.line) = (0, 0);
        if let Some(passing) = self.passing.take() {
            judge(&passing.event(false));
            let missing_end: &[u8] = if passing.line_is_empty { b"\n" } else { b"\n\n" };
            return Relayed { bytes: rest, oversize: true, missing_end };
        }
        let mut event = parse(&rest, self.at_start);
        event.terminated = false;
        let verdict = if rest.is_empty() { Verdict::Forward } else { judge(&event) };
        let missing_end: &[u8] = match rest.last() {
            None => b"",
            Some(b'\n' | b'\r') => b"\n",
            Some(_) => b"\n\n",
        };
        match verdict {
            Verdict::Forward => Relayed { bytes: rest, oversize: false, missing_end },
            Verdict::Drop => Relayed::default(),
            Verdict::Replace(bytes) => Relayed { bytes, ..Relayed::default() },
        }
    }

    /// The LF of a CRLF whose CR ended the last event.
    fn leading_lf(&mut self, buffer: &[u8], out: &mut Outgoing) -> usize {
        match self.after_cr.take() {
            Some(forwarded) if buffer.first() == Some(&b'\n') => {
                if forwarded {
                    out.keep(buffer, 0..1);
                }
                1
            }
            _ => 0,
        }
    }

    /// Goes through the whole events of `buffer` from `start`; gives where the first unfinished one begins.
    fn events(
        &mut self,
        buffer: &[u8],
        mut start: usize,
        out: &mut Outgoing,
        judge: &mut impl FnMut(&Event<'_>) -> Verdict,
    ) -> usize {
        let (mut at, mut line) = (start + self.searched, start + self.line);
        while let Some(found) = buffer.get(at..).and_then(|rest| memchr2(b'\n', b'\r', rest)) {
            let end = at + found;
            let cr = buffer.get(end) == Some(&b'\r');
            let blank = end == line || (self.at_start && buffer.get(start..end) == Some(BOM));
            let crlf = cr && buffer.get(end + 1) == Some(&b'\n');
            let cr_is_last = cr && end + 1 == buffer.len();
            if cr_is_last && !blank {
                // Whether a LF follows is not known yet, and nothing can be dispatched before it is.
                at = end;
                break;
            }
            at = end + 1 + usize::from(crlf);
            line = at;
            if blank {
                let forwarded = self.judge(buffer, start..at, out, judge);
                self.after_cr = cr_is_last.then_some(forwarded);
                start = at;
            }
        }
        self.searched = if buffer.get(at) == Some(&b'\r') { at - start } else { buffer.len() - start };
        self.line = line - start;
        start
    }

    fn judge(
        &mut self,
        buffer: &[u8],
        span: Range<usize>,
        out: &mut Outgoing,
        judge: &mut impl FnMut(&Event<'_>) -> Verdict,
    ) -> bool {
        let event = parse(buffer.get(span.clone()).unwrap_or_default(), self.at_start);
        self.at_start = false;
        match judge(&event) {
            Verdict::Forward => {
                out.keep(buffer, span);
                true
            }
            Verdict::Drop => false,
            Verdict::Replace(bytes) => {
                out.insert(buffer, &bytes);
                false
            }
        }
    }

    /// The event at `start` outgrew the limit: from here it goes out as it is read.
    fn begin_passing(
        &mut self,
        buffer: &[u8],
        start: usize,
        out: &mut Outgoing,
        judge: &mut impl FnMut(&Event<'_>) -> Verdict,
    ) -> usize {
        let rest = start + self.line;
        let head = buffer.get(start..rest).unwrap_or_default();
        let name =
            parse(head, self.at_start).name.map(|name| name.iter().copied().take(LONGEST_NAME).collect());
        out.keep(buffer, start..rest);
        let at_start = self.at_start;
        let mut passing =
            Passing { name, aside: Some(Vec::new()), at_start, line_is_empty: true, after_cr: false };
        passing.set_aside(head, self.most_read);
        self.passing = Some(passing);
        self.at_start = false;
        (self.searched, self.line) = (0, 0);
        self.pass(buffer, rest, out, judge)
    }

    /// Relays what belongs to the oversize event; gives where it ends.
    fn pass(
        &mut self,
        buffer: &[u8],
        start: usize,
        out: &mut Outgoing,
        judge: &mut impl FnMut(&Event<'_>) -> Verdict,
    ) -> usize {
        let Some(mut passing) = self.passing.take() else { return start };
        let mut at = start;
        if passing.after_cr && buffer.get(at) == Some(&b'\n') {
            at += 1;
        }
        passing.after_cr = false;
        while let Some(found) = buffer.get(at..).and_then(|rest| memchr2(b'\n', b'\r', rest)) {
            let blank = found == 0 && passing.line_is_empty;
            let cr = buffer.get(at + found) == Some(&b'\r');
            at += found + 1;
            if cr && buffer.get(at) == Some(&b'\n') {
                at += 1;
            }
            passing.line_is_empty = true;
            passing.after_cr = cr && at == buffer.len();
            if blank {
                passing.set_aside(buffer.get(start..at).unwrap_or_default(), self.most_read);
                judge(&passing.event(true));
                self.after_cr = passing.after_cr.then_some(true);
                out.keep(buffer, start..at);
                return at;
            }
        }
        passing.line_is_empty &= at == buffer.len();
        passing.set_aside(buffer.get(start..).unwrap_or_default(), self.most_read);
        out.keep(buffer, start..buffer.len());
        self.passing = Some(passing);
        buffer.len()
    }
}

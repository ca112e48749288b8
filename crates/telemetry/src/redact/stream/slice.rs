//! Events written anew, each with its slice of what its places have become.

use std::ops::Range;

use bytes::Bytes;

use super::{Places, root, string_at};
use crate::redact::answer::Answer;
use crate::redact::document::{PATH, taken_out};
use crate::redact::paths::{Paths, States};
use crate::redact::place::mix;
use crate::redact::search::{Search, value_text};
use crate::redact::transcript::Transcript;
use crate::redact::walk::{Here, Inner, Malformed, Visitor, Walk};

/// Writes events anew.
struct Slice<'s, 'r> {
    places: &'s mut Places,
    search: &'s mut Search<'r>,
    transcript: Transcript,
    drop_logprobs: bool,
    /// What tells the event's places from those of others.
    tells: u64,
}

impl Visitor for Slice<'_, '_> {
    fn string(&mut self, bytes: &[u8], inner: &Inner, here: &Here) {
        let key = here.place ^ self.tells;
        let Some(place) = self.places.known.get_mut(&key) else { return };
        if place.spans.is_empty() {
            return;
        }
        self.search.decode(bytes, inner);
        let length = self.search.text(bytes, inner).len();
        let base = if place.constant { 0 } else { place.given };
        place.given += length;
        let spans = std::mem::take(&mut place.spans);
        let first = spans.partition_point(|span| span.end <= base);
        if spans.get(first).is_some_and(|span| span.start < base + length) {
            self.transcript.string(bytes, inner, base, &spans);
        }
        if let Some(place) = self.places.known.get_mut(&key) {
            place.spans = spans;
        }
    }

    fn key(&mut self, bytes: &[u8], inner: &Inner) {
        let hash = mix(0, bytes.get(inner.span.clone()).unwrap_or_default());
        if self.places.clean.contains(&hash) {
            return;
        }
        self.search.key(bytes, inner);
        let spans = self.search.spans(bytes, inner);
        if spans.is_empty() {
            self.places.clean.insert(hash);
        } else {
            self.transcript.string(bytes, inner, 0, &spans);
        }
    }

    fn number(&mut self, bytes: &[u8], span: Range<usize>) {
        let token = bytes.get(span.clone()).unwrap_or_default();
        if let Some(name) = self.search.number(token) {
            let with = self.search.replacement(name, token);
            self.transcript.value(bytes, &span, &format!("\"{with}\""));
        }
    }

    fn masked(&mut self, bytes: &[u8], span: Range<usize>, here: &Here) {
        if let Some(inner) = string_at(bytes, &span) {
            self.string(bytes, &inner, here);
            return;
        }
        let with = self.search.replacement(PATH, &value_text(bytes, &span));
        self.transcript.value(bytes, &span, &format!("\"{with}\""));
    }

    fn takes_logprobs(&self) -> bool {
        self.drop_logprobs
    }

    fn logprobs(&mut self, bytes: &[u8], span: Range<usize>) {
        self.transcript.value(bytes, &span, &taken_out(span.len()));
    }
}

/// Gives every event its slices. With `drop_logprobs` probabilities become `{"redacted": n}`: they spell the text once more.
pub(in crate::redact) fn slice(
    events: &Bytes,
    response: &States,
    places: &mut Places,
    drop_logprobs: bool,
    search: &mut Search<'_>,
) -> Result<Bytes, Malformed> {
    let paths = search.paths();
    let (mut position, mut copied) = (0, 0);
    let transcript = Transcript::with_room(events.len());
    let mut slice = Slice { places, search, transcript, drop_logprobs, tells: 0 };
    Walk::new(events, paths, false).elements(|span| {
        slice.transcript.between(events, copied..span.start);
        copied = span.end;
        let event = events.get(span).unwrap_or_default();
        let answer = Answer::of_event(event, paths, response);
        let here;
        (here, slice.tells) = root(event, position, paths, response);
        position += 1;
        slice.transcript.begin();
        Walk::new(event, paths, true).of_event(answer.as_ref()).document(&here, &mut slice)?;
        slice.transcript.up_to(event, event.len());
        Ok(())
    })?;
    slice.transcript.between(events, copied..events.len());
    Ok(slice.transcript.into_bytes())
}

/// Every event as `{"redacted": n}`: something was found in the answer that stands in no one place of its events, or may
/// stand there where no path leads.
pub(in crate::redact) fn take_out(events: &[u8], paths: &Paths) -> Result<Bytes, Malformed> {
    let mut out = vec![b'['];
    Walk::new(events, paths, false).elements(|span| {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(taken_out(span.len()).as_bytes());
        Ok(())
    })?;
    out.push(b']');
    Ok(out.into_boxed_slice().into())
}

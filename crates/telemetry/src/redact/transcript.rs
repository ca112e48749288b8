//! A document on its way into its new form: what is replaced, and all between as it was.

use std::ops::Range;

use bytes::Bytes;

use super::text::{Span, replace};
use super::walk::Inner;

/// The document itself is handed to each step; what stands before the last is written.
#[derive(Default)]
pub(super) struct Transcript {
    out: Vec<u8>,
    /// Everything before it is written.
    done: usize,
}

impl Transcript {
    /// One that will be about so long.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes), done: 0 }
    }

    /// The next bytes are those of another document, which is written behind what is there.
    pub(super) fn begin(&mut self) {
        self.done = 0;
    }

    /// Writes these bytes of a document around the others as they are.
    pub(super) fn between(&mut self, bytes: &[u8], span: Range<usize>) {
        self.out.extend_from_slice(bytes.get(span).unwrap_or_default());
    }

    /// Writes all up to here as it was.
    pub(super) fn up_to(&mut self, bytes: &[u8], at: usize) {
        self.out.extend_from_slice(bytes.get(self.done..at).unwrap_or_default());
        self.done = at;
    }

    /// Writes a string with these parts of it replaced; it begins at `base` of the text that they are of.
    pub(super) fn string(&mut self, bytes: &[u8], inner: &Inner, base: usize, spans: &[Span]) {
        self.up_to(bytes, inner.span.start);
        replace(bytes.get(inner.span.clone()).unwrap_or_default(), base, spans, &mut self.out);
        self.done = inner.span.end;
    }

    /// Writes this in place of a whole value.
    pub(super) fn value(&mut self, bytes: &[u8], span: &Range<usize>, with: &str) {
        self.up_to(bytes, span.start);
        self.out.extend_from_slice(with.as_bytes());
        self.done = span.end;
    }

    /// All of it; the same allocation when nothing was replaced.
    pub(super) fn finish(mut self, document: &Bytes) -> Bytes {
        if self.done == 0 {
            return document.clone();
        }
        self.up_to(document, document.len());
        self.into_bytes()
    }

    /// What was written.
    pub(super) fn into_bytes(self) -> Bytes {
        self.out.into_boxed_slice().into()
    }
}

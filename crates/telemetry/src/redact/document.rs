//! A request or a response: first looked through, and written anew only when there is something to write.

use std::ops::Range;

use bytes::Bytes;

use super::patterns::{Class, Name};
use super::search::{Search, Values, value_text};
use super::text::replace;
use super::walk::{Here, Inner, Malformed, Visitor, Walk};

/// The name of what stands at a configured path.
pub(super) const PATH: Name = Name::builtin("path", Class::Path);

/// Looks through a document; notes what it finds.
struct Probe<'s, 'r> {
    search: &'s mut Search<'r>,
    values: &'s mut Values,
}

impl Visitor for Probe<'_, '_> {
    fn string(&mut self, bytes: &[u8], inner: &Inner, here: &Here) {
        self.search.string(bytes, inner, here);
        self.values.note(self.search.text(bytes, inner), self.search.found());
    }

    fn key(&mut self, bytes: &[u8], inner: &Inner) {
        self.search.key(bytes, inner);
        self.values.note(self.search.text(bytes, inner), self.search.found());
    }

    fn number(&mut self, bytes: &[u8], span: Range<usize>) {
        let token = bytes.get(span).unwrap_or_default();
        if let Some(name) = self.search.number(token) {
            self.values.add(token, name);
        }
    }

    fn masked(&mut self, _: &[u8], _: Range<usize>, _: &Here) {
        self.values.masked();
    }

    fn logprobs(&mut self, _: &[u8], _: Range<usize>) -> bool {
        false
    }
}

/// Notes what a document holds.
pub(super) fn probe(
    document: &[u8],
    root: &Here,
    search: &mut Search<'_>,
    values: &mut Values,
) -> Result<(), Malformed> {
    let walk = Walk::new(document, search.paths(), false);
    walk.document(root, &mut Probe { search, values })
}

/// Writes a document anew.
struct Rewrite<'s, 'r> {
    search: &'s mut Search<'r>,
    values: &'s mut Values,
    out: Vec<u8>,
    /// Everything before it is written.
    done: usize,
    drop_logprobs: bool,
}

impl Rewrite<'_, '_> {
    fn copy_to(&mut self, bytes: &[u8], at: usize) {
        self.out.extend_from_slice(bytes.get(self.done..at).unwrap_or_default());
        self.done = at;
    }

    fn text(&mut self, bytes: &[u8], inner: &Inner) {
        self.values.note(self.search.text(bytes, inner), self.search.found());
        let spans = self.search.spans(bytes, inner);
        if !spans.is_empty() {
            self.copy_to(bytes, inner.span.start);
            replace(bytes.get(inner.span.clone()).unwrap_or_default(), 0, &spans, &mut self.out);
            self.done = inner.span.end;
        }
    }

    fn whole(&mut self, bytes: &[u8], span: &Range<usize>, text: &[u8], name: Name) {
        let with = self.search.replacement(name, text);
        self.copy_to(bytes, span.start);
        self.out.push(b'"');
        self.out.extend_from_slice(with.as_bytes());
        self.out.push(b'"');
        self.done = span.end;
    }
}

impl Visitor for Rewrite<'_, '_> {
    fn string(&mut self, bytes: &[u8], inner: &Inner, here: &Here) {
        self.search.string(bytes, inner, here);
        self.text(bytes, inner);
    }

    fn key(&mut self, bytes: &[u8], inner: &Inner) {
        self.search.key(bytes, inner);
        self.text(bytes, inner);
    }

    fn number(&mut self, bytes: &[u8], span: Range<usize>) {
        let token = bytes.get(span.clone()).unwrap_or_default();
        if let Some(name) = self.search.number(token) {
            self.values.add(token, name);
            self.whole(bytes, &span, token, name);
        }
    }

    fn masked(&mut self, bytes: &[u8], span: Range<usize>, _: &Here) {
        let text = value_text(bytes, &span);
        self.values.masked();
        self.values.hide(bytes.get(span.clone()).unwrap_or_default());
        self.whole(bytes, &span, &text, PATH);
    }

    fn logprobs(&mut self, bytes: &[u8], span: Range<usize>) -> bool {
        if self.drop_logprobs {
            self.copy_to(bytes, span.start);
            self.out.extend_from_slice(taken_out(span.len()).as_bytes());
            self.done = span.end;
        }
        self.drop_logprobs
    }
}

/// The document with everything replaced that was found; the same allocation when nothing was. With `drop_logprobs`
/// probabilities become `{"redacted": n}`.
pub(super) fn rewrite(
    document: &Bytes,
    root: &Here,
    drop_logprobs: bool,
    search: &mut Search<'_>,
    values: &mut Values,
) -> Result<Bytes, Malformed> {
    let walk = Walk::new(document, search.paths(), false);
    let mut rewrite = Rewrite { search, values, out: Vec::new(), done: 0, drop_logprobs };
    walk.document(root, &mut rewrite)?;
    Ok(finish(document, rewrite.out, rewrite.done))
}

/// What was written, and the rest as it was.
pub(super) fn finish(document: &Bytes, mut out: Vec<u8>, done: usize) -> Bytes {
    if done == 0 {
        return document.clone();
    }
    out.extend_from_slice(document.get(done..).unwrap_or_default());
    out.into_boxed_slice().into()
}

/// What stands in the place of something that was taken out whole.
pub(super) fn taken_out(bytes: usize) -> String {
    format!("{{\"redacted\":{bytes}}}")
}

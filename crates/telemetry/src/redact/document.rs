//! A request or a response: first looked through, and written anew only when there is something to write.

use std::ops::Range;

use bytes::Bytes;

use super::patterns::{Class, Name};
use super::search::{Search, Values, value_text};
use super::transcript::Transcript;
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
    transcript: Transcript,
    drop_logprobs: bool,
}

impl Rewrite<'_, '_> {
    fn text(&mut self, bytes: &[u8], inner: &Inner) {
        self.values.note(self.search.text(bytes, inner), self.search.found());
        let spans = self.search.spans(bytes, inner);
        if !spans.is_empty() {
            self.transcript.string(bytes, inner, 0, &spans);
        }
    }

    fn whole(&mut self, bytes: &[u8], span: &Range<usize>, text: &[u8], name: Name) {
        let with = self.search.replacement(name, text);
        self.transcript.value(bytes, span, &format!("\"{with}\""));
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

    fn takes_logprobs(&self) -> bool {
        self.drop_logprobs
    }

    fn logprobs(&mut self, bytes: &[u8], span: Range<usize>) {
        self.transcript.value(bytes, &span, &taken_out(span.len()));
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
    let mut rewrite = Rewrite { search, values, transcript: Transcript::default(), drop_logprobs };
    walk.document(root, &mut rewrite)?;
    Ok(rewrite.transcript.finish(document))
}

/// What stands in the place of something that was taken out whole.
pub(super) fn taken_out(bytes: usize) -> String {
    format!("{{\"redacted\":{bytes}}}")
}

//! A stream's events: a secret stands in them in pieces, so the text of each place is put together, looked at once, and
//! every event gets its slice of the result.
//!
//! A place is a path in the event; array elements count by their `index`, events by `type` and what else tells parallel
//! texts apart. That holds for chat chunks, tool arguments, completions, response events and events nobody has seen yet.

mod slice;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use memchr::memmem;

pub(super) use self::slice::{slice, take_out};
use super::answer::{Answer, is_understood};
use super::document::PATH;
use super::matcher::Finding;
use super::paths::{Child, Paths, States};
use super::search::{Search, Values};
use super::text::Span;
use super::walk::{Here, Inner, Malformed, Visitor, Walk, mix, strings};

/// Members of an event that tell its text from that of other events.
const TELLS: [&[u8]; 7] =
    [b"type", b"item_id", b"output_index", b"content_index", b"summary_index", b"annotation_index", b"index"];
/// Pieces as long as this are looked at by themselves, too: they may be whole values, beside which others stand.
const LONG_PIECE: usize = 12;
/// A place that always says the same, such as an `id`, is that text once, if the text is at least so long.
const CONSTANT: usize = 8;

/// All text of one place.
#[derive(Default)]
struct Place {
    text: Vec<u8>,
    pieces: usize,
    /// All pieces so far are the same, and `text` is one of them.
    constant: bool,
    /// The member's name, when it is a secret's.
    secret_name: Option<Vec<u8>>,
    /// A configured path leads here.
    masked: bool,
    /// What was found in pieces by themselves.
    own: Vec<Finding>,
    spans: Vec<Span>,
    /// How much of the text the events so far had, while slices are handed out.
    given: usize,
}

impl Place {
    fn unfold(&mut self) {
        let (length, pieces) = (self.text.len(), self.pieces);
        let own = self.own.clone();
        for piece in 1..pieces {
            self.text.extend_from_within(..length);
            let at = piece * length;
            self.own.extend(own.iter().map(|one| Finding {
                start: one.start + at,
                end: one.end + at,
                ..*one
            }));
        }
        self.constant = false;
    }

    /// Appends a piece; whether it is to be looked at by itself.
    fn push(&mut self, piece: &[u8]) -> bool {
        self.pieces += 1;
        if self.pieces == 1 {
            self.text.extend_from_slice(piece);
            self.constant = true;
            return piece.len() >= LONG_PIECE;
        }
        if self.constant && self.text == piece {
            return false;
        }
        if self.constant {
            self.pieces -= 1;
            self.unfold();
            self.pieces += 1;
        }
        self.text.extend_from_slice(piece);
        piece.len() >= LONG_PIECE
    }
}

/// The places of a stream.
#[derive(Default)]
pub(super) struct Places {
    known: HashMap<u64, Place>,
    /// Names of members in which nothing was found.
    clean: HashSet<u64>,
    /// What was found in names and numbers, which stand in no place, and at configured paths.
    other: Values,
    /// Paths lead into the answer, and of some event nobody knows where in the answer its text belongs.
    pub(super) is_strange: bool,
}

/// Reads all events.
struct Gather<'s, 'r> {
    places: &'s mut Places,
    search: &'s mut Search<'r>,
}

impl Gather<'_, '_> {
    fn push(&mut self, bytes: &[u8], inner: &Inner, here: &Here, masked: bool) {
        self.search.decode(bytes, inner);
        let piece = self.search.text(bytes, inner);
        let place = self.places.known.entry(here.place).or_default();
        place.masked |= masked;
        if place.pieces == 0 {
            place.secret_name = here.secret_name.clone().and_then(|name| bytes.get(name)).map(<[u8]>::to_vec);
        }
        if !place.push(piece) || masked {
            return;
        }
        let base = place.text.len() - piece.len();
        self.search.string(bytes, inner, here);
        let found = self.search.found().iter();
        place.own.extend(found.map(|one| Finding { start: one.start + base, end: one.end + base, ..*one }));
    }
}

impl Visitor for Gather<'_, '_> {
    fn string(&mut self, bytes: &[u8], inner: &Inner, here: &Here) {
        self.push(bytes, inner, here, false);
    }

    fn key(&mut self, bytes: &[u8], inner: &Inner) {
        let hash = mix(0, bytes.get(inner.span.clone()).unwrap_or_default());
        if self.places.clean.contains(&hash) {
            return;
        }
        self.search.key(bytes, inner);
        if self.search.found().is_empty() {
            self.places.clean.insert(hash);
        }
        self.places.other.note(self.search.text(bytes, inner), self.search.found());
    }

    fn number(&mut self, bytes: &[u8], span: Range<usize>) {
        let token = bytes.get(span).unwrap_or_default();
        if let Some(name) = self.search.number(token) {
            self.places.other.add(token, name);
        }
    }

    fn masked(&mut self, bytes: &[u8], span: Range<usize>, here: &Here) {
        self.places.other.masked();
        if let Some(inner) = string_at(bytes, &span) {
            self.push(bytes, &inner, here, true);
            return;
        }
        let value = bytes.get(span).unwrap_or_default();
        // What is malformed showed itself when it was crossed.
        let _ = strings(value, here.place, |bytes, inner, here| self.push(bytes, inner, here, true));
    }

    fn logprobs(&mut self, _: &[u8], _: Range<usize>) -> bool {
        false
    }
}

/// What stands between the quotes of a string.
fn string_at(bytes: &[u8], span: &Range<usize>) -> Option<Inner> {
    let raw = bytes.get(span.clone())?;
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    Some(Inner { span: span.start + 1..span.end - 1, escaped: inner.contains(&b'\\') })
}

/// Where an event begins: what tells it apart, and which paths lead into it.
fn root(event: &[u8], position: usize, paths: &Paths, response: &States) -> Here {
    let mut place = 0u64;
    // An event that is no object is all of one place.
    let _ = Walk::new(event, paths, false).members(|key, value| {
        if TELLS.contains(&key) {
            // In any order.
            place = place.wrapping_add(mix(mix(0, key), value));
        }
        true
    });
    let mut states = response.clone();
    if !states.is_empty() {
        let events = paths.step(response, Child::Name(b"streamed_data"));
        states.extend(paths.step(&events, Child::Index(position)));
        if event.starts_with(b"\"") {
            paths.add_unread(&mut states);
        }
    }
    Here { place, states, secret_name: None }
}

/// Puts the text of every place together and looks at it; notes what it finds. `response` is where paths stand at the
/// response: they lead into its events as well.
pub(super) fn gather(
    events: &[u8],
    response: &States,
    search: &mut Search<'_>,
    values: &mut Values,
) -> Result<Places, Malformed> {
    let mut places = Places::default();
    let paths = search.paths();
    let mut position = 0;
    Walk::new(events, paths, false).elements(|span| {
        let event = events.get(span).unwrap_or_default();
        let (here, answer) =
            (root(event, position, paths, response), Answer::of_event(event, paths, response));
        position += 1;
        places.is_strange |= !response.is_empty() && !is_understood(event, paths, response);
        let mut gather = Gather { places: &mut places, search };
        Walk::new(event, paths, true).of_event(answer.as_ref()).document(&here, &mut gather)
    })?;
    for place in places.known.values_mut() {
        if place.constant && place.text.len() < CONSTANT {
            place.unfold();
        }
        look(place, search, values);
    }
    if places.is_strange {
        places.other.masked();
    }
    values.join(&places.other);
    Ok(places)
}

/// Looks at a place's text; its replacements come from this.
fn look(place: &mut Place, search: &mut Search<'_>, values: &mut Values) {
    place.given = 0;
    if place.masked {
        let with = search.replacement(PATH, &place.text);
        place.spans = vec![Span { start: 0, end: place.text.len(), with }];
        return;
    }
    search.plain(&place.text, place.secret_name.as_deref());
    if search.found().is_empty() && place.own.is_empty() {
        return;
    }
    let mut found = search.found().to_vec();
    found.extend_from_slice(&place.own);
    super::matcher::tidy(&place.text, &mut found);
    values.note(&place.text, &found);
    place.spans = search.spans_of(&place.text, &found);
}

impl Places {
    /// Looks again, now that `search` knows what stands elsewhere in the record.
    pub(super) fn look_again(&mut self, search: &mut Search<'_>, values: &mut Values) {
        self.known.values_mut().for_each(|place| look(place, search, values));
        values.join(&self.other);
        self.clean.clear();
    }

    /// Whether what paths masked in the answer is masked in the events as well, and stands nowhere else in them.
    pub(super) fn hide(&self, masked: &[Vec<u8>]) -> bool {
        /// So many bytes are searched; past that, content goes rather than time.
        const MOST: usize = 256 << 20;
        let all: usize = self.known.values().map(|place| place.text.len()).sum();
        let texts: HashSet<&[u8]> =
            masked.iter().map(Vec::as_slice).filter(|text| !text.is_empty()).collect();
        if all.saturating_mul(texts.len()) > MOST {
            return false;
        }
        texts.into_iter().all(|text| {
            let finder = memmem::Finder::new(text);
            let in_places = |masked: bool| {
                self.known.values().any(|place| place.masked == masked && finder.find(&place.text).is_some())
            };
            in_places(true) && !(is_prose(text) && in_places(false))
        })
    }
}

/// Tells what somebody said from names, ids and words of the dialect, which stand in many places.
fn is_prose(text: &[u8]) -> bool {
    const SHORTEST: usize = 8;
    let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(byte);
    text.len() >= SHORTEST && !text.iter().all(in_name)
}

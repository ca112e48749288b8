//! A stream's events: a secret stands in them in pieces, so the text of each place is put together, looked at once, and
//! every event gets its slice of the result.
//!
//! A place is a path in the event; array elements count by their `index`, events by `type` and what else tells parallel
//! texts apart. That holds for chat chunks, tool arguments, completions, response events and events nobody has seen yet. Where
//! what should tell parallel texts apart is another in every event, [`scattered`] looks at what they say one after the other.

mod scattered;
mod slice;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use memchr::memmem;

use self::scattered::Scattered;
pub(super) use self::slice::{slice, take_out};
use super::answer::{Answer, is_understood};
use super::document::PATH;
use super::matcher::Finding;
use super::paths::{Child, Paths, States};
use super::place::mix;
use super::search::{Search, Values};
use super::text::Span;
use super::walk::{Here, Inner, Malformed, Visitor, Walk, strings};

/// Members of an event that tell its text from that of events of the same `type`.
const TELLS: [&[u8]; 5] =
    [b"output_index", b"content_index", b"summary_index", b"annotation_index", b"index"];
/// This one too, where there is no index of the output: some servers write another in every event.
const ITEM: &[u8] = b"item_id";
/// More places than any stream has; past that, content goes rather than memory.
const MOST_PLACES: usize = 1 << 18;
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
    /// Stands for its path, whatever else tells it apart; and how many places there were before it.
    path: u64,
    position: usize,
    is_label: bool,
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
    /// What stands in places of hardly more than a piece each.
    scattered: Scattered,
    /// Something was found there: in no one place.
    pub(super) is_scattered: bool,
}

/// Reads all events.
struct Gather<'s, 'r> {
    places: &'s mut Places,
    search: &'s mut Search<'r>,
    /// What tells the event's places from those of others.
    tells: u64,
}

impl Gather<'_, '_> {
    fn push(&mut self, bytes: &[u8], inner: &Inner, here: &Here, masked: bool) {
        self.search.decode(bytes, inner);
        let piece = self.search.text(bytes, inner);
        if piece.is_empty() || self.places.known.len() > MOST_PLACES {
            return;
        }
        let position = self.places.known.len();
        let place = self.places.known.entry(here.place ^ self.tells).or_default();
        place.masked |= masked;
        if place.pieces == 0 {
            (place.path, place.position, place.is_label) = (here.place, position, here.is_label);
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
}

/// What stands between the quotes of a string.
fn string_at(bytes: &[u8], span: &Range<usize>) -> Option<Inner> {
    let raw = bytes.get(span.clone())?;
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    Some(Inner { span: span.start + 1..span.end - 1, escaped: inner.contains(&b'\\') })
}

/// Where an event begins, and which paths lead into it; what tells it from others of its type.
fn root(event: &[u8], position: usize, paths: &Paths, response: &States) -> (Here, u64) {
    let (mut place, mut tells, mut item, mut has_output) = (0u64, 0u64, 0u64, false);
    // An event that is no object is all of one place.
    let _ = Walk::new(event, paths, false).members(|key, value| {
        let here = || mix(mix(0, key), value);
        match key {
            b"type" => place = here(),
            ITEM => item = here(),
            // In any order.
            _ if TELLS.contains(&key) => tells = tells.wrapping_add(here()),
            _ => {}
        }
        has_output |= key == b"output_index";
        true
    });
    if !has_output {
        tells = tells.wrapping_add(item);
    }
    let mut states = response.clone();
    if !states.is_empty() {
        let events = paths.step(response, Child::Name(b"streamed_data"));
        states.extend(paths.step(&events, Child::Index(position)));
        if event.starts_with(b"\"") {
            paths.add_unread(&mut states);
        }
    }
    (Here { place, states, ..Here::default() }, tells)
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
        let answer = Answer::of_event(event, paths, response);
        let (here, tells) = root(event, position, paths, response);
        position += 1;
        places.is_strange |= !response.is_empty() && !is_understood(event, paths, response);
        let mut gather = Gather { places: &mut places, search, tells };
        Walk::new(event, paths, true).of_event(answer.as_ref()).document(&here, &mut gather)
    })?;
    if places.known.len() > MOST_PLACES {
        return Err(Malformed);
    }
    places.scattered = Scattered::of(places.known.values());
    places.is_scattered = places.scattered.look(search, values);
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
        self.is_scattered |= self.scattered.look(search, values);
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

//! What a stream says in places of a piece each. Some servers count tokens in `index`, or write another `item_id` in every
//! event: then each piece has a place of its own, and what they say together stands in none.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Place;
use crate::redact::matcher::Finding;
use crate::redact::search::{Search, Values};

/// By path: the text of its places, one after the other, and where each ends.
#[derive(Default)]
pub(super) struct Scattered(Vec<(Vec<u8>, Vec<usize>)>);

impl Scattered {
    pub(super) fn of<'p>(places: impl Iterator<Item = &'p Place>) -> Self {
        let mut paths: BTreeMap<u64, Vec<&Place>> = BTreeMap::new();
        // Ids and names stand side by side in many streams, and would make words that nobody said.
        for place in places.filter(|place| !place.masked && !place.is_label) {
            paths.entry(place.path).or_default().push(place);
        }
        // Parallel texts have many pieces each.
        let is_scattered = |places: &Vec<&Place>| {
            let single = places.iter().filter(|place| place.pieces == 1).count();
            places.len() > 1 && 2 * single >= places.len()
        };
        let joined = |mut places: Vec<&Place>| {
            places.sort_unstable_by_key(|place| place.position);
            let (mut text, mut ends) = (Vec::new(), Vec::new());
            for place in places {
                text.extend_from_slice(&place.text);
                ends.push(text.len());
            }
            (text, ends)
        };
        Self(paths.into_values().filter(is_scattered).map(joined).collect())
    }

    /// Whether something is found that no place has by itself; notes it.
    pub(super) fn look(&self, search: &mut Search<'_>, values: &mut Values) -> bool {
        let mut is_one = false;
        for (text, ends) in &self.0 {
            search.plain(text, None);
            let found = search.found().to_vec();
            // Findings come in order, so each place is looked at once.
            let mut alone = Alone::default();
            for one in found {
                let place = place_of(ends, one.start);
                if one.end > place.end || !alone.at(place, text, search).has(&one) {
                    is_one = true;
                    values.note(text, &[one]);
                }
            }
        }
        is_one
    }
}

/// The place that holds this byte.
fn place_of(ends: &[usize], at: usize) -> Range<usize> {
    let number = ends.partition_point(|end| *end <= at);
    let start = number.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or_default();
    start..ends.get(number).copied().unwrap_or(start)
}

/// What is found in one place by itself: what says that it is a secret may stand in another.
#[derive(Default)]
struct Alone {
    place: Range<usize>,
    found: Vec<Finding>,
}

impl Alone {
    fn at(&mut self, place: Range<usize>, text: &[u8], search: &mut Search<'_>) -> &Self {
        if self.place != place {
            search.plain(text.get(place.clone()).unwrap_or_default(), None);
            self.found = search.found().to_vec();
            self.place = place;
        }
        self
    }

    fn has(&self, one: &Finding) -> bool {
        let (start, end) = (one.start - self.place.start, one.end - self.place.start);
        let from = self.found.partition_point(|alone| alone.end < end);
        self.found.get(from).is_some_and(|alone| alone.start <= start)
    }
}

//! What a stream says in places of one piece each. Some servers count tokens in `index`, or write another `item_id` in every
//! event: then each piece has a place of its own, and what they say together stands in none.

use std::collections::BTreeMap;

use super::Place;
use crate::redact::matcher::Finding;
use crate::redact::search::{Search, Values};

/// Fewer pieces than this of one path are nothing that was taken apart.
const FEWEST: usize = 3;

/// By path: the pieces' text, one after the other, and where each ends.
#[derive(Default)]
pub(super) struct Scattered(Vec<(Vec<u8>, Vec<usize>)>);

impl Scattered {
    pub(super) fn of<'p>(places: impl Iterator<Item = &'p Place>) -> Self {
        let mut paths: BTreeMap<u64, Vec<&Place>> = BTreeMap::new();
        for place in places.filter(|place| place.pieces == 1 && !place.masked) {
            paths.entry(place.path).or_default().push(place);
        }
        let joined = |mut places: Vec<&Place>| {
            places.sort_unstable_by_key(|place| place.position);
            let (mut text, mut ends) = (Vec::new(), Vec::new());
            for place in places {
                text.extend_from_slice(&place.text);
                ends.push(text.len());
            }
            (text, ends)
        };
        Self(paths.into_values().filter(|places| places.len() >= FEWEST).map(joined).collect())
    }

    /// Whether something stands across pieces; notes it.
    pub(super) fn look(&self, search: &mut Search<'_>, values: &mut Values) -> bool {
        let mut found = false;
        for (text, ends) in &self.0 {
            search.plain(text, None);
            let crosses = |one: &&Finding| {
                // The first piece that ends behind its beginning does not hold its end.
                ends.get(ends.partition_point(|end| *end <= one.start)).is_some_and(|end| *end < one.end)
            };
            let across: Vec<Finding> = search.found().iter().filter(crosses).copied().collect();
            found |= !across.is_empty();
            values.note(text, &across);
        }
        found
    }
}

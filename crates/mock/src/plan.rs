//! The plan of a body: which bytes, how often, and which of them have to wait for the script's gap.
//! Made by the answer modules, carried out by `body`. A repeated item is held once, so that a
//! stream of hundreds of megabytes costs the memory of one event.

use bytes::Bytes;

/// Size of one piece of filler, in bytes.
const FILL_PIECE: usize = 64 * 1024;
/// What filler is made of.
static FILL: [u8; FILL_PIECE] = [b'x'; FILL_PIECE];
static SPACES: [u8; FILL_PIECE] = [b' '; FILL_PIECE];

/// The items of a body, in order.
pub(crate) type Plan = Vec<Item>;

/// Bytes that go out `repeat` times.
pub(crate) struct Item {
    pub(crate) data: Bytes,
    pub(crate) repeat: u64,
    /// Waits for the gap before it goes out.
    pub(crate) paced: bool,
}

impl Item {
    /// Goes out without waiting.
    pub(crate) fn now(data: Bytes) -> Self {
        Self { data, repeat: 1, paced: false }
    }

    /// Goes out after the gap.
    pub(crate) fn paced(data: Bytes) -> Self {
        Self { data, repeat: 1, paced: true }
    }
}

/// What padding is made of.
#[derive(Clone, Copy)]
pub(crate) enum Filler {
    /// The letter x: inside a text.
    Letters,
    /// White space: outside of any JSON text.
    Spaces,
}

/// `count` bytes of filler.
pub(crate) fn fill(count: u64, filler: Filler) -> impl Iterator<Item = Item> {
    let source = match filler {
        Filler::Letters => &FILL,
        Filler::Spaces => &SPACES,
    };
    let whole = count / FILL_PIECE as u64;
    let rest = (count % FILL_PIECE as u64) as usize;
    let pieces = Item { data: Bytes::from_static(source), repeat: whole, paced: false };
    let tail = Item::now(Bytes::from_static(&source[..rest]));
    [pieces, tail].into_iter().filter(|item| item.repeat > 0 && !item.data.is_empty())
}

/// Bytes of a whole plan.
pub(crate) fn size(plan: &Plan) -> u64 {
    plan.iter().map(|item| item.data.len() as u64 * item.repeat).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_has_the_exact_size() {
        for count in [0, 1, 65_535, 65_536, 65_537, 10_000_000] {
            assert_eq!(size(&fill(count, Filler::Letters).collect()), count);
        }
    }
}

//! A number that stands for a path in an event.

/// What tells an array's element from the others and from any member.
pub(super) fn element_name(index: usize) -> [u8; 9] {
    let mut name = [b'['; 9];
    if let Some(tail) = name.get_mut(1..) {
        tail.copy_from_slice(&(index as u64).to_le_bytes());
    }
    name
}

/// Mixes a name into a place. Equal paths give equal places; that two paths meet is as likely as chance.
pub(super) fn mix(mut place: u64, name: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    for piece in name.chunks(8) {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(piece) {
            *to = *from;
        }
        place = (place.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
    }
    (place ^ (place >> 32) ^ name.len() as u64).wrapping_mul(FACTOR)
}

//! Making a virtual key, and its hash as text.
//!
//! Used by `keys create` and by whoever reads `auth.keys`. A key has 256 random bits, so a plain SHA-256 is enough:
//! a slow hash protects what people choose, and would cost every request.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use magicapi_model::Secret;
use sha2::{Digest as _, Sha256};

/// Begins every key, so that secret scanners and people know one.
const KEY_PREFIX: &str = "mgk_";

/// Begins a hash in the configuration.
const HASH_PREFIX: &str = "sha256:";

/// A key just made: shown once, kept as its hash.
pub struct NewKey {
    /// The name it was made for.
    pub name: String,
    /// The key: `mgk_` and 43 characters of URL-safe base64.
    pub key: Secret,
    /// What goes into the configuration: `sha256:` and 64 hexadecimal digits.
    pub hash: String,
}

/// Makes a key from the system's random numbers.
pub fn create(name: &str) -> Result<NewKey, String> {
    // `GATEWAY_API_KEYS=name:key,…` is cut at these two.
    if name.is_empty()
        || name.contains([':', ','])
        || name.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        return Err(format!("key name {name:?}: expected a name without spaces, colons and commas"));
    }
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).map_err(|e| format!("the system gave no random numbers: {e}"))?;
    let key = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let mut hash = HASH_PREFIX.to_owned();
    for byte in hash_of(&key) {
        // Writing into a String cannot fail.
        let _ = write!(hash, "{byte:02x}");
    }
    Ok(NewKey { name: name.to_owned(), key: Secret::new(key), hash })
}

/// SHA-256 of the whole key, prefix included.
pub fn hash_of(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Reads `sha256:<64 hexadecimal digits>`. The error does not repeat the text, which may be a key put in the wrong place.
pub fn parse_hash(text: &str) -> Result<[u8; 32], String> {
    const EXPECTED: &str = "expected sha256: and 64 hexadecimal digits, as `keys create` prints them";
    let Some(digits) = text.strip_prefix(HASH_PREFIX) else {
        let hint = if text.starts_with(KEY_PREFIX) { "this is a key, not its hash; " } else { "" };
        return Err(format!("{hint}{EXPECTED}"));
    };
    if digits.len() != 64 {
        return Err(format!("{} digits; {EXPECTED}", digits.chars().count()));
    }
    let mut hash = [0_u8; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| pair.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(format!("a character is no hexadecimal digit; {EXPECTED}"));
        };
        *byte = (high * 16 + low) as u8;
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{create, hash_of, parse_hash};

    #[test]
    fn a_key_has_the_form_that_is_promised() {
        let new = create("app-1").expect("a key");
        let key = new.key.expose();
        assert_eq!((new.name.as_str(), key.len(), key.get(..4)), ("app-1", 47, Some("mgk_")));
        assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
        assert_eq!(parse_hash(&new.hash), Ok(hash_of(key)));
        assert!(!new.hash.contains(&key[4..]));
        assert_ne!(create("app-1").expect("another").key.expose(), key);
    }

    #[test]
    fn names_that_the_environment_cannot_carry() {
        for bad in ["", "a:b", "a,b", "a b", "a\n"] {
            assert!(create(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_known_hash() {
        // FIPS 180-4, the example "abc".
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(parse_hash(text), Ok(hash_of("abc")));
        assert_eq!(parse_hash(&text.to_uppercase().replace("SHA256", "sha256")), Ok(hash_of("abc")));
    }

    #[test]
    fn bad_hashes_are_told_apart_without_repeating_them() {
        let key = create("a").expect("a key");
        let error = parse_hash(key.key.expose()).expect_err("a key");
        assert!(error.starts_with("this is a key") && !error.contains(key.key.expose()), "{error}");
        assert!(parse_hash("sha256:abc").expect_err("short").starts_with("3 digits"));
        assert!(parse_hash(&format!("sha256:{}", "g".repeat(64))).expect_err("g").contains("no hexadecimal"));
        assert!(parse_hash(&format!("sha256:{}", "é".repeat(32))).expect_err("é").contains("no hexadecimal"));
        for bad in ["", "md5:00", "sha256", "SHA256:"] {
            assert!(parse_hash(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_hash_round_trips(hash in any::<[u8; 32]>()) {
            let text = hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"));
            prop_assert_eq!(parse_hash(&text), Ok(hash));
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            prop_assert!(parse_hash(&text).is_err());
            let prefixed = format!("sha256:{text}");
            prop_assert!(parse_hash(&prefixed).is_err() || text.len() == 64);
        }
    }
}

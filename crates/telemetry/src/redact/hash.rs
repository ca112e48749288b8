//! What stands in the place of what was found.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::settings::{RedactionError, RedactionSettings, Replace};

/// Shorter keys could be found by trying.
const SHORTEST_KEY: usize = 16;
/// Bytes of the digest that are shown: 48 bits tell the secrets of one installation apart and give none away.
const SHOWN: usize = 6;

/// Makes replacements.
pub(super) enum Replacer {
    Mask,
    Hash(Box<Hmac<Sha256>>),
}

impl Replacer {
    pub(super) fn new(settings: &RedactionSettings) -> Result<Self, RedactionError> {
        let key = settings.hash_key.expose().as_bytes();
        match settings.replace {
            Replace::Mask if key.is_empty() => Ok(Self::Mask),
            Replace::Mask => Err(RedactionError::new(
                "hash_key",
                "is of no use with `replace: mask`; set `replace: hash` or remove it",
            )),
            Replace::Hash if key.is_empty() => Err(RedactionError::new(
                "replace",
                "`hash` needs a key; set `hash_key` to a secret of 16 bytes or more",
            )),
            Replace::Hash if key.len() < SHORTEST_KEY => Err(RedactionError::new(
                "hash_key",
                format!("has {} bytes; give a secret of {SHORTEST_KEY} or more", key.len()),
            )),
            Replace::Hash => Hmac::new_from_slice(key)
                .map(|mac| Self::Hash(Box::new(mac)))
                .map_err(|_| RedactionError::new("hash_key", "cannot be used as a key")),
        }
    }

    /// The replacement of `text`, found by the rule `name`. Needs no escaping in JSON.
    pub(super) fn replacement(&self, name: &str, text: &[u8]) -> String {
        match self {
            Self::Mask => format!("[REDACTED:{name}]"),
            Self::Hash(mac) => {
                let mut mac = mac.clone();
                mac.update(text);
                let digest = mac.finalize().into_bytes();
                let mut out = format!("[REDACTED:{name}:");
                for byte in digest.iter().take(SHOWN) {
                    out.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
                    out.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
                }
                out.push(']');
                out
            }
        }
    }
}

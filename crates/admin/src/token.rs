//! The admin token: how one is made, and how one that was presented is compared.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use magicapi_model::Secret;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Makes a token: 32 random bytes, in URL-safe base64. Fails only when the system has no randomness to give.
pub fn generate_token() -> Result<Secret, getrandom::Error> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

/// The token as the plane keeps it: its hash alone.
pub(crate) struct TokenHash([u8; 32]);

impl TokenHash {
    pub(crate) fn of(token: &Secret) -> Self {
        Self(hash(token.expose()))
    }

    /// Whether this is the token. Whole hashes are compared, in constant time; nothing presented is never it, even
    /// when nothing was configured.
    pub(crate) fn admits(&self, presented: &str) -> bool {
        !presented.is_empty() && bool::from(self.0.as_slice().ct_eq(hash(presented).as_slice()))
    }
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use magicapi_model::Secret;

    use super::{TokenHash, generate_token};

    #[test]
    fn tokens_are_long_safe_in_urls_and_differ() {
        let tokens = [generate_token().expect("random"), generate_token().expect("random")];
        for token in &tokens {
            assert_eq!(token.expose().len(), 43);
            assert!(token.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        }
        assert!(tokens[0] != tokens[1]);
    }

    #[test]
    fn only_the_whole_token_is_admitted() {
        let hash = TokenHash::of(&Secret::new("correct"));
        assert!(hash.admits("correct"));
        for wrong in ["", "correc", "correctt", "Correct", "correct "] {
            assert!(!hash.admits(wrong), "{wrong:?}");
        }
        assert!(!TokenHash::of(&Secret::default()).admits(""), "no token opens nothing");
    }
}

//! Virtual keys: who presents one, and what it may use.
//!
//! Only hashes are kept. A presented key is hashed whole and compared with every stored hash in constant time (advisories:
//! a timing leak from `==` on secrets; a cache keyed by a credential's prefix).

use std::collections::HashSet;
use std::sync::Arc;

use magicapi_kernel::{Access, Identity};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::keys::hash_of;
use crate::pattern::ModelPattern;

/// One virtual key of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// Its name, for logs, records and the ledger.
    pub name: String,
    /// SHA-256 of the key, see [`crate::parse_hash`].
    pub hash: [u8; 32],
    /// The project that its requests count for.
    pub project: Option<String>,
    /// The models it may use, patterns; empty = all.
    pub models: Vec<String>,
}

/// The virtual keys of one configuration snapshot.
#[derive(Default)]
pub struct VirtualKeys {
    keys: Vec<([u8; 32], Arc<Identity>)>,
}

impl VirtualKeys {
    /// Takes the keys; the error names the key and what is wrong with it.
    pub fn new(entries: Vec<KeyEntry>) -> Result<Self, String> {
        let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
        let mut keys = Vec::with_capacity(entries.len());
        for entry in entries {
            check(&entry).map_err(|e| format!("virtual key {:?}: {e}", entry.name))?;
            let KeyEntry { name, hash, project, models } = entry;
            // Spend is booked by name, and a hash must lead to one identity.
            if !names.insert(name.clone()) {
                return Err(format!("virtual key {name:?}: the name stands there twice"));
            }
            if !hashes.insert(hash) {
                return Err(format!("virtual key {name:?}: another key has the same hash"));
            }
            keys.push((hash, Arc::new(Identity { name, project, models })));
        }
        Ok(Self { keys })
    }
}

/// What is wrong with one entry by itself.
fn check(entry: &KeyEntry) -> Result<(), String> {
    if entry.name.is_empty() {
        return Err("it needs a name".to_owned());
    }
    if entry.hash == hash_of("") {
        return Err("this is the hash of nothing; was the key missing when it was made?".to_owned());
    }
    // The word that SDK examples send where a key must stand; presented, it counts as none (design.md, "Credentials").
    if entry.hash == hash_of("gateway") {
        return Err("the word `gateway` counts as no key; make one with `keys create`".to_owned());
    }
    entry.models.iter().try_for_each(|pattern| ModelPattern::parse(pattern).map(|_| ()))
}

impl Access for VirtualKeys {
    fn identify(&self, presented: &str) -> Option<Arc<Identity>> {
        let presented = hash_of(presented);
        let (mut found, mut place) = (Choice::from(0), 0_u64);
        // All of them, whichever fits: neither the place nor the number of equal bytes shows in the time taken.
        for (index, (hash, _)) in (0_u64..).zip(&self.keys) {
            let same = hash.as_slice().ct_eq(presented.as_slice());
            place.conditional_assign(&index, same);
            found |= same;
        }
        let place = usize::try_from(place).ok().filter(|_| bool::from(found))?;
        self.keys.get(place).map(|(_, identity)| identity.clone())
    }

    /// A pattern that cannot be read admits nothing: closed by default (invariant 12).
    fn allows(&self, identity: &Identity, provider: &str, model: &str) -> bool {
        identity.models.is_empty()
            || identity.models.iter().any(|pattern| {
                ModelPattern::parse(pattern).is_ok_and(|pattern| pattern.admits(provider, model))
            })
    }
}

#[cfg(test)]
mod tests {
    use magicapi_kernel::{Access, Identity};
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{KeyEntry, VirtualKeys};
    use crate::hash_of;

    fn entry(name: &str, key: &str, models: &[&str]) -> KeyEntry {
        KeyEntry {
            name: name.to_owned(),
            hash: hash_of(key),
            project: Some(format!("p-{name}")),
            models: models.iter().map(|model| (*model).to_owned()).collect(),
        }
    }

    fn keys(entries: Vec<KeyEntry>) -> VirtualKeys {
        VirtualKeys::new(entries).expect("keys")
    }

    fn refused(entries: Vec<KeyEntry>) -> String {
        VirtualKeys::new(entries).err().expect("an error")
    }

    #[test]
    fn a_key_is_found_wherever_it_stands_and_only_whole() {
        let keys = keys(vec![
            entry("a", "mgk_a", &[]),
            entry("b", "mgk_b", &["openai/*"]),
            entry("c", "mgk_c", &[]),
        ]);
        assert_eq!(keys.keys.len(), 3);
        for (key, name) in [("mgk_a", "a"), ("mgk_b", "b"), ("mgk_c", "c")] {
            let identity = keys.identify(key).expect(key);
            assert_eq!((identity.name.as_str(), identity.project.clone()), (name, Some(format!("p-{name}"))));
        }
        for wrong in ["", "mgk_", "mgk_a ", " mgk_a", "mgk_A", "mgk_ab", "gateway"] {
            assert!(keys.identify(wrong).is_none(), "{wrong:?}");
        }
        assert!(VirtualKeys::default().identify("").is_none());
    }

    #[test]
    fn hashes_that_differ_in_any_one_byte_are_others() {
        for place in 0..32 {
            let mut near = entry("near", "mgk_a", &[]);
            near.hash[place] ^= 1;
            assert!(keys(vec![near]).identify("mgk_a").is_none(), "byte {place}");
        }
    }

    #[test]
    fn models() {
        let keys = keys(vec![entry("a", "k", &["openai/gpt-5*", "groq/openai/*"]), entry("all", "l", &[])]);
        let a = keys.identify("k").expect("a");
        assert!(keys.allows(&a, "openai", "gpt-5.6") && keys.allows(&a, "groq", "openai/gpt-oss-120b"));
        assert!(!keys.allows(&a, "openaiz", "gpt-5.6") && !keys.allows(&a, "azure", "gpt-5.6"));
        assert!(!keys.allows(&a, "openai", ""), "a request without a model fits no named one");
        let all = keys.identify("l").expect("all");
        assert!(keys.allows(&all, "any", "thing") && keys.allows(&all, "any", ""));
        let broken = Identity { models: vec!["openai".into(), "op*/x".into()], ..Identity::default() };
        assert!(!keys.allows(&broken, "openai", "x"), "what is no pattern admits nothing");
    }

    #[test]
    fn entries_that_cannot_be_meant_are_refused_by_name() {
        let twice = vec![entry("a", "1", &[]), entry("a", "2", &[])];
        assert_eq!(refused(twice), "virtual key \"a\": the name stands there twice");
        let same = vec![entry("a", "1", &[]), entry("b", "1", &[])];
        assert_eq!(refused(same), "virtual key \"b\": another key has the same hash");
        assert!(refused(vec![entry("a", "", &[])]).contains("hash of nothing"));
        assert!(refused(vec![entry("a", "gateway", &[])]).contains("counts as no key"));
        assert!(refused(vec![entry("", "1", &[])]).contains("needs a name"));
        let error = refused(vec![entry("a", "1", &["openai/*", "gpt-5"])]);
        assert!(
            error.starts_with("virtual key \"a\": model pattern \"gpt-5\": expected provider/model"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn only_the_very_text_identifies(stored in "[!-~]{1,60}", presented in "[!-~]{0,60}") {
            let keys = keys(vec![entry("other", "\u{0}", &[]), entry("a", &stored, &[])]);
            let found = keys.identify(&presented).map(|identity| identity.name.clone());
            prop_assert_eq!(found, (stored == presented).then(|| "a".to_owned()));
            prop_assert!(keys.identify(&stored).is_some());
        }

        #[test]
        fn every_place_is_found(count in 1_usize..40, pick in any::<proptest::sample::Index>()) {
            let keys = keys((0..count).map(|n| entry(&format!("n{n}"), &format!("mgk_{n}"), &[])).collect());
            let pick = pick.index(count);
            let identity = keys.identify(&format!("mgk_{pick}")).expect("stored");
            prop_assert_eq!(&identity.name, &format!("n{pick}"));
        }
    }
}

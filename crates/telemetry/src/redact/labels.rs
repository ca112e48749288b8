//! Single texts: those of a record's facts that come from outside, and those that go into logs and status pages.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

use magicapi_plugin::{Facts, RequestId, Secret};

use super::Redactor;
use super::known::Known;
use super::patterns::Class;
use super::text::replace_plain;

/// What stands for a text that could not be looked at.
pub(crate) const UNREAD: &str = "[REDACTED]";

/// A text of the facts that a caller or a provider wrote, and where it stands in the record.
pub(super) type Label<'f> = (&'static [&'static str], &'f mut String);

/// The texts of the facts that come from outside, whether this record has them or not. Ids and names of the gateway's own,
/// and closed words, are none.
fn slots(facts: &mut Facts) -> Vec<(&'static [&'static str], Option<&mut String>)> {
    let optional: [(&'static [&'static str], &mut Option<String>); 13] = [
        (&["thread_id"], &mut facts.thread_id),
        (&["org_id"], &mut facts.org_id),
        (&["user_id"], &mut facts.user_id),
        (&["project_id"], &mut facts.project_id),
        (&["experiment_id"], &mut facts.experiment_id),
        (&["model"], &mut facts.model),
        (&["metadata", "project_name"], &mut facts.project_name),
        (&["metadata", "requested_model"], &mut facts.requested_model),
        (&["metadata", "client_request_id"], &mut facts.client_request_id),
        (&["metadata", "provider_request_id"], &mut facts.provider_request_id),
        (&["metadata", "service_tier"], &mut facts.service_tier),
        (&["metadata", "error_message"], &mut facts.error_message),
        (&["metadata", "trace_state"], &mut facts.trace_state),
    ];
    let mut slots: Vec<_> = optional.into_iter().map(|(path, label)| (path, label.as_mut())).collect();
    slots.push((&["metadata", "path"], Some(&mut facts.path)));
    slots.push((&["metadata", "method"], Some(&mut facts.method)));
    let reasons = facts.finish_reasons.iter_mut();
    slots.extend(reasons.map(|reason| (&["metadata", "finish_reasons"][..], Some(reason))));
    slots
}

/// Those that this record has.
pub(super) fn labels(facts: &mut Facts) -> Vec<Label<'_>> {
    slots(facts).into_iter().filter_map(|(path, label)| Some((path, label?))).collect()
}

/// Where labels stand in a record that has all of them.
pub(super) fn places() -> Vec<&'static [&'static str]> {
    let mut facts = Facts::new(RequestId::mint(), SystemTime::UNIX_EPOCH);
    facts.finish_reasons.push(String::new());
    slots(&mut facts).into_iter().map(|(path, _)| path).collect()
}

/// Gives up all of them.
pub(super) fn forget(facts: &mut Facts) {
    for (_, label) in labels(facts) {
        UNREAD.clone_into(label);
    }
}

impl Redactor {
    /// A text for a log or a page, without what a record would not show either.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.hide(text, None, |_| true)
    }

    /// The same where a secret is known that it may repeat.
    pub fn text_knowing<'t>(&self, secret: Option<&Secret>, text: &'t str) -> Cow<'t, str> {
        self.hide(text, secret, |_| true)
    }

    /// A text that other things are counted by: without secrets; personal data and whatever the user's own patterns
    /// find stay. `secret` as in [`Redactor::text_knowing`].
    pub fn without_secrets<'t>(&self, secret: Option<&Secret>, text: &'t str) -> Cow<'t, str> {
        self.hide(text, secret, |class| class == Class::Secret)
    }

    fn hide<'t>(&self, text: &'t str, secret: Option<&Secret>, wanted: fn(Class) -> bool) -> Cow<'t, str> {
        // Only one that is there is worth the time.
        let known = secret.filter(|secret| text.contains(secret.expose().trim())).and_then(Known::key);
        if known.is_none() && self.matcher.holds_nothing(text.as_bytes()) {
            return Cow::Borrowed(text);
        }
        let look = || {
            self.searching(|search| {
                search.known.clone_from(&known);
                search.plain(text.as_bytes(), None);
                let found = search.found().iter().filter(|one| wanted(one.name.class()));
                let found: Vec<_> = found.copied().collect();
                search.spans_of(text.as_bytes(), &found)
            })
        };
        match catch_unwind(AssertUnwindSafe(look)) {
            Ok(spans) if spans.is_empty() => Cow::Borrowed(text),
            Ok(spans) => {
                let mut hidden = text.to_owned();
                replace_plain(&mut hidden, &spans);
                Cow::Owned(hidden)
            }
            Err(_) => Cow::Borrowed(UNREAD),
        }
    }
}

//! What must come out nowhere: the secrets of the settings, and what callers said. Looked for in every text that an
//! exporter gives away, and in what it logs.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, PoisonError};

use magicapi_plugin::{Delivery, ItemOutcome, SettingsSpec, Sight};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Stands in every body that is sent.
pub(crate) const CONTENT: &str = "canary-content-7Qx2";
/// A text that is shorter is too likely to stand somewhere by chance.
const SHORTEST: usize = 6;
/// A reason is for one line of a log.
const LONGEST_REASON: usize = 2000;

/// The words, and where each comes from.
#[derive(Clone, Default)]
pub(crate) struct Words(Arc<Vec<(String, String)>>);

impl Words {
    /// The secrets among these settings, and the content of records.
    pub(crate) fn of(spec: &SettingsSpec, settings: &Map<String, Value>) -> Self {
        let mut words = vec![(CONTENT.to_owned(), "the content of a record".to_owned())];
        for key in spec.keys() {
            let Some(value) = settings.get(&key.name) else { continue };
            let mut collect = |value: &Value, sight| {
                let text = value.as_str().filter(|text| text.len() >= SHORTEST && sight == Sight::Secret);
                words.extend(text.map(|text| (text.to_owned(), format!("the secret `{}`", key.name))));
                Value::Null
            };
            spec.map_values(&key.name, value, &mut collect);
        }
        Self(Arc::new(words))
    }

    /// All of them, as a back end quotes them.
    pub(crate) fn quotes(&self) -> String {
        let words: Vec<&str> = self.0.iter().map(|(word, _)| word.as_str()).collect();
        format!("cannot take {}", words.join(" and "))
    }

    /// What of them stands in a text.
    pub(crate) fn within(&self, text: &str) -> Option<&str> {
        self.0.iter().find(|(word, _)| text.contains(word.as_str())).map(|(_, what)| what.as_str())
    }
}

/// The texts that a delivery gives away.
pub(crate) fn reasons(delivery: &Delivery) -> Vec<String> {
    match delivery {
        Delivery::Refused { reason } => vec![reason.clone()],
        Delivery::Items(items) => items
            .iter()
            .filter_map(|item| match item {
                ItemOutcome::Rejected { reason } => Some(reason.clone()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// What is wrong with a text for the operator.
pub(crate) fn wrong_with(words: &Words, text: &str) -> Option<String> {
    if let Some(what) = words.within(text) {
        return Some(format!("shows {what}"));
    }
    if text.trim().is_empty() {
        return Some("says nothing".into());
    }
    (text.len() > LONGEST_REASON).then(|| format!("is {} bytes long: it quotes too much", text.len()))
}

/// Keeps every line that is logged while it is the thread's subscriber, of every level.
#[derive(Clone, Default)]
pub(crate) struct Listener(Arc<Mutex<Vec<String>>>);

impl Listener {
    /// Takes the lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Into memory: it cannot fail.
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(span.metadata().name().into());
        span.record(&mut line);
        self.keep(line.0);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        self.keep(line.0);
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().target().into());
        event.record(&mut line);
        self.keep(line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

//! The suite: which cases run against a plug-in, and what they found.

use std::fmt::{self, Display, Formatter};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use magicapi_plugin::{Signals, TelemetryPlugin};
use serde_json::{Map, Value};

use crate::backend::{Answer, Behaviour};
use crate::stage::{HANGS, Stage, play};
use crate::{encoding, faults, metrics, settings};

/// Runs every case against a plug-in with these settings, as they would stand in a file. In their texts `{address}`
/// stands for host and port of the suite's back end, `{directory}` for an empty directory. Give every setting that is
/// a secret a value, so that it can be looked for.
///
/// # Panics
/// When the plug-in does not comply: with everything that was found.
#[expect(clippy::needless_pass_by_value, reason = "so that a test is one line")]
pub fn check(plugin: &'static dyn TelemetryPlugin, settings: Value) {
    Suite::of(plugin, &settings).check();
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was tried.
    pub case: String,
    /// What was wrong.
    pub what: String,
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.case, self.what)
    }
}

/// The cases for one plug-in.
#[derive(Clone)]
pub struct Suite {
    pub(crate) plugin: &'static dyn TelemetryPlugin,
    settings: Value,
    answer: Option<Answer>,
    pub(crate) final_statuses: &'static [u16],
    pub(crate) patience: Duration,
}

/// Every way in which a back end fails.
const FAULTS: [Behaviour; 15] = [
    Behaviour::Dead,
    Behaviour::Silent,
    Behaviour::Closing,
    Behaviour::Garbage,
    Behaviour::Page,
    Behaviour::Status(400),
    Behaviour::Status(401),
    Behaviour::Status(403),
    Behaviour::Status(404),
    Behaviour::Status(408),
    Behaviour::Status(413),
    Behaviour::Status(429),
    Behaviour::Status(500),
    Behaviour::Status(502),
    Behaviour::Status(503),
];

type Case = Box<dyn FnOnce(&Stage) + Send>;

/// What a call may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Without an exporter there is nothing to check.
pub(crate) const REFUSED: &str = "the settings that it was given are refused";

impl Suite {
    /// A suite for a plug-in with these settings; see [`check`].
    pub fn of(plugin: &'static dyn TelemetryPlugin, settings: &Value) -> Self {
        Self { plugin, settings: settings.clone(), answer: None, final_statuses: &[], patience: PATIENCE }
    }

    /// Says how the back end answers when all is well; else every request gets 200 and `{}`. With it, a plain batch has
    /// to be delivered.
    pub fn answering(
        mut self,
        answer: impl Fn(&Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.answer = Some(Arc::new(answer));
        self
    }

    /// Says which statuses the back end's protocol forbids to ask again after; the others beyond 400, 404 and 413 must
    /// not cost a record. OTLP/HTTP, for example, knows 429, 502, 503 and 504 as passing, and nothing else.
    pub fn final_statuses(mut self, statuses: &'static [u16]) -> Self {
        self.final_statuses = statuses;
        self
    }

    /// Says how long a call may take, where the back end is not at fault; else 10 seconds.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs every case.
    ///
    /// # Panics
    /// When the plug-in does not comply: with everything that was found.
    pub fn check(&self) {
        let findings: Vec<String> = self.findings().iter().map(|finding| format!("  {finding}")).collect();
        assert!(
            findings.is_empty(),
            "the exporter `{}` does not comply:\n{}",
            self.plugin.name(),
            findings.join("\n")
        );
    }

    /// Runs every case, and gives what is wrong. The first case that hangs is the last.
    pub fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for (name, case) in self.cases() {
            let more = play(self, &name, case);
            let last = more.iter().any(|one| one.what.starts_with(REFUSED) || one.what.contains(HANGS));
            found.extend(more);
            if last {
                break;
            }
        }
        found
    }

    fn cases(&self) -> Vec<(String, Case)> {
        let mut cases: Vec<(String, Case)> = vec![
            ("settings".into(), Box::new(settings::described)),
            ("making an exporter".into(), Box::new(settings::pure)),
            ("defaults and unknown settings".into(), Box::new(settings::defaults)),
            ("wrong values of settings".into(), Box::new(settings::wrong_values)),
        ];
        if self.takes(Signals::RECORDS) {
            cases.push(("plain records".into(), Box::new(encoding::plain)));
            cases.push(("odd records".into(), Box::new(encoding::odd)));
            cases.push(("an export that is dropped".into(), Box::new(faults::dropped)));
            for behaviour in FAULTS {
                let case = Box::new(move |stage: &Stage| faults::fault(stage, behaviour));
                cases.push((format!("a back end that {behaviour}"), case));
            }
        }
        if self.takes(Signals::METRICS) {
            cases.push(("metrics".into(), Box::new(metrics::snapshots)));
        }
        if self.takes(Signals::SCRAPE) {
            cases.push(("the scrape page".into(), Box::new(metrics::page)));
        }
        cases
    }

    fn takes(&self, signal: Signals) -> bool {
        // Without its settings nothing else can be said.
        let asked = AssertUnwindSafe(|| self.plugin.settings().takes(signal));
        std::panic::catch_unwind(asked).unwrap_or(false)
    }

    /// Whether the author said how the back end answers.
    pub(crate) fn knows_the_answer(&self) -> bool {
        self.answer.is_some()
    }

    pub(crate) fn answer(&self) -> Answer {
        self.answer.clone().unwrap_or_else(|| Arc::new(|_| Response::new(Bytes::from_static(b"{}"))))
    }

    /// The settings with the places filled in.
    pub(crate) fn settings_for(&self, address: &str, directory: &str) -> Map<String, Value> {
        match filled(&self.settings, address, directory) {
            Value::Object(settings) => settings,
            _ => Map::new(),
        }
    }
}

fn filled(value: &Value, address: &str, directory: &str) -> Value {
    match value {
        Value::String(text) => text.replace("{address}", address).replace("{directory}", directory).into(),
        Value::Array(list) => list.iter().map(|item| filled(item, address, directory)).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), filled(value, address, directory))).collect()
        }
        other => other.clone(),
    }
}

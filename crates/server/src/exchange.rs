//! One request from its head to its end: the facts that gather on the way, and the guard that ends it exactly once.
//!
//! An exchange moves from the handler into the answer's body. Whoever drops it before its end has lost the client:
//! dropping is how a leaving client is noticed, and `finish` still writes its record and its ledger rows.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, header};
use magicapi_dialects::openai_chat::Operation;
use magicapi_kernel::{AttemptRow, Credential, Identity, Provider};
use magicapi_model::{Error, ErrorKind, Outcome, RequestId, Secret, Usage};
use magicapi_plugin::Facts;
use magicapi_telemetry::{BodyKind, Finished, Tap};

use crate::labels;
use crate::phase::Phase;
use crate::rescue;
use crate::shutdown::{self, Left};
use crate::snapshot::{Shared, Snapshot};

/// What the caller got when it left before the answer's head: nginx's word.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// An attempt that is under way.
struct Attempt {
    provider: Arc<dyn Provider>,
    started: Instant,
    answered: Option<Duration>,
}

/// The tap, shared with an upload's body while one goes by.
enum TapPlace {
    Own(Tap),
    Shared(Arc<Mutex<Upload>>),
}

/// A request body that passes through, as the exchange sees it afterwards.
struct Upload {
    tap: Tap,
    bytes: u64,
    moved: Instant,
}

/// Feeds the tap from an upload's body.
pub(crate) struct UploadWatch(Arc<Mutex<Upload>>);

impl UploadWatch {
    /// A piece, before it goes upstream.
    pub(crate) fn piece(&mut self, data: &Bytes) {
        let mut upload = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        upload.bytes += data.len() as u64;
        upload.moved = Instant::now();
        upload.tap.request_chunk(data);
    }
}

/// One request.
pub(crate) struct Exchange {
    /// The process.
    pub(crate) shared: Arc<Shared>,
    /// The configuration that it began with.
    pub(crate) snapshot: Arc<Snapshot>,
    /// What is known so far.
    pub(crate) facts: Facts,
    /// What the path asks for.
    pub(crate) operation: Operation,
    /// When the head had been read.
    pub(crate) started: Instant,
    /// How long the gateway waited for the request's body.
    pub(crate) waited: Duration,
    /// Whether the client left by itself.
    pub(crate) left: Left,
    /// Whether the listener asked for the answer's body, and so has taken the head.
    head_taken: bool,
    tap: TapPlace,
    attempt: Option<Attempt>,
    attempts: Vec<AttemptRow>,
    request_type: Option<String>,
    request_coding: Option<String>,
    response_type: Option<String>,
    response_coding: Option<String>,
    response_kind: BodyKind,
    /// What the caller presented: its key for the provider, or a virtual one.
    pub(crate) caller_key: Option<Secret>,
    finished: bool,
}

/// How an exchange ended.
pub(crate) enum Ending {
    /// As it should.
    Completed,
    /// With an error.
    Failed(Error),
    /// The client left.
    ClientClosed,
}

impl Exchange {
    /// Begins: the id is minted before anything else.
    pub(crate) fn begin(shared: &Arc<Shared>, parts: &http::request::Parts) -> Box<Self> {
        let mut facts = Facts::new(RequestId::mint(), SystemTime::now());
        facts.method = parts.method.to_string();
        parts.uri.path().clone_into(&mut facts.path);
        labels::read(&mut facts, &parts.headers);
        let in_flight = shared.counts.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        shared.telemetry.metrics().requests_in_flight(in_flight);
        Box::new(Self {
            shared: shared.clone(),
            snapshot: shared.snapshot(),
            facts,
            operation: Operation::Other,
            started: Instant::now(),
            waited: Duration::ZERO,
            left: Left::default(),
            head_taken: false,
            tap: TapPlace::Own(shared.telemetry.tap()),
            attempt: None,
            attempts: Vec::new(),
            request_type: text(&parts.headers, &header::CONTENT_TYPE),
            request_coding: text(&parts.headers, &header::CONTENT_ENCODING),
            response_type: None,
            response_coding: None,
            response_kind: BodyKind::Whole,
            caller_key: None,
            finished: false,
        })
    }

    /// Names the operation, in records and labels.
    pub(crate) fn set_operation(&mut self, operation: Operation) {
        self.operation = operation;
        self.facts.operation = operation.as_str();
    }

    /// Names the caller's key; its project beats the header.
    pub(crate) fn set_identity(&mut self, identity: &Identity) {
        self.facts.key_name = Some(identity.name.clone());
        if let Some(project) = &identity.project {
            self.facts.project_id = Some(project.clone());
        }
    }

    /// The request is admitted: where records are durable, it now has one whatever becomes of the process.
    pub(crate) fn admitted(&mut self) {
        let key = self.caller_key.as_ref();
        match &mut self.tap {
            TapPlace::Own(tap) => tap.open(&self.facts, key),
            TapPlace::Shared(upload) => {
                upload.lock().unwrap_or_else(PoisonError::into_inner).tap.open(&self.facts, key);
            }
        }
    }

    /// Keeps a held request body, whose allocation is its own.
    pub(crate) fn request_body(&mut self, raw: &Bytes) {
        self.facts.request_size = raw.len() as u64;
        self.tap(|tap| tap.request(raw.clone()));
    }

    /// Hands the tap to a request body that passes through.
    pub(crate) fn watch_upload(&mut self) -> UploadWatch {
        let mut tap = Tap::off();
        self.tap(|own| std::mem::swap(own, &mut tap));
        let upload = Arc::new(Mutex::new(Upload { tap, bytes: 0, moved: Instant::now() }));
        self.tap = TapPlace::Shared(upload.clone());
        UploadWatch(upload)
    }

    /// When an upload last went on.
    pub(crate) fn upload_moved(&self) -> Option<Instant> {
        match &self.tap {
            TapPlace::Own(_) => None,
            TapPlace::Shared(upload) => Some(upload.lock().unwrap_or_else(PoisonError::into_inner).moved),
        }
    }

    /// Gives the tap a piece of the answer, before any edit.
    pub(crate) fn response_chunk(&mut self, data: &[u8]) {
        self.tap(|tap| tap.response_chunk(data));
    }

    /// Gives the tap the whole answer, whose allocation is its own.
    pub(crate) fn response_whole(&mut self, body: Bytes) {
        self.tap(|tap| tap.response(body));
    }

    fn tap(&mut self, feed: impl FnOnce(&mut Tap)) {
        match &mut self.tap {
            TapPlace::Own(tap) => feed(tap),
            TapPlace::Shared(upload) => feed(&mut upload.lock().unwrap_or_else(PoisonError::into_inner).tap),
        }
    }

    /// An attempt at a provider begins.
    pub(crate) fn attempt_begins(&mut self, provider: &Arc<dyn Provider>, credential: &Credential) {
        self.facts.attempts += 1;
        self.facts.provider = Some(provider.name().to_owned());
        self.facts.credential = Some(credential.as_str());
        self.facts.provider_status_code = 0;
        self.attempt = Some(Attempt { provider: provider.clone(), started: Instant::now(), answered: None });
    }

    /// The provider's head came.
    pub(crate) fn attempt_answered(&mut self, status: http::StatusCode) {
        self.facts.provider_status_code = status.as_u16();
        self.facts.provider_error_type = rescue::provider_error_type(status);
        if let Some(attempt) = &mut self.attempt {
            let latency = attempt.started.elapsed();
            attempt.answered = Some(latency);
            self.facts.provider_latency_ms = Some(millis(latency));
        }
    }

    /// How long the provider took to its head, or was given without one (the caller's upload goes on meanwhile); zero
    /// when none was asked.
    pub(crate) fn provider_latency(&self) -> Duration {
        let latency = |attempt: &Attempt| attempt.answered.unwrap_or_else(|| attempt.started.elapsed());
        self.attempt.as_ref().map(latency).unwrap_or_default()
    }

    /// The head that the caller gets.
    pub(crate) fn head(&mut self, status: http::StatusCode, headers: &HeaderMap, kind: BodyKind) {
        self.facts.status_code = status.as_u16();
        self.facts.streamed = kind == BodyKind::EventStream;
        self.response_kind = kind;
        self.response_type = text(headers, &header::CONTENT_TYPE);
        self.response_coding = text(headers, &header::CONTENT_ENCODING);
    }

    /// The listener asks for the answer's body: it has taken the head.
    pub(crate) fn head_taken(&mut self) {
        self.head_taken = true;
    }

    /// The answer's body was dropped before its end.
    pub(crate) fn client_left(&mut self) {
        self.left.note(&self.shared);
    }

    /// Whether nobody is there any more to take the answer.
    pub(crate) fn is_alone(&self) -> bool {
        self.left.at().is_some()
    }

    /// Bytes were handed to the client. `speaks`: they hold some of the answer, so that the first of them is the answer's.
    pub(crate) fn handed_over(&mut self, bytes: usize, speaks: bool) {
        if speaks && self.facts.ttfb_ms.is_none() {
            self.facts.ttfb_ms = Some(millis(self.started.elapsed()));
        }
        self.facts.response_size += bytes as u64;
    }

    /// Ends the exchange: settles outcome and price, writes the ledger rows, closes the tap, logs the access line.
    /// Every step is synchronous and bounded. A second end is ignored.
    pub(crate) fn finish(&mut self, ending: Ending) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.settle(ending);
        self.price();
        self.attempt_ends();
        if let TapPlace::Shared(upload) = &self.tap {
            self.facts.request_size = upload.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        }
        let (telemetry, attempts) = (&self.shared.telemetry, std::mem::take(&mut self.attempts));
        let key = self.caller_key.as_ref();
        self.shared.ledger.record(crate::finish::ledger_entry(&self.facts, attempts, telemetry, key));
        crate::finish::access_line(&self.facts, telemetry, key);
        let mut tap = Tap::off();
        self.tap(|own| std::mem::swap(own, &mut tap));
        // The exchange ends here: its facts move on.
        let left = Facts::new(self.facts.id, self.facts.timestamp);
        let facts = std::mem::replace(&mut self.facts, left);
        tap.finish(Finished {
            facts,
            request_type: self.request_type.take(),
            request_coding: self.request_coding.take(),
            response_type: self.response_type.take(),
            response_coding: self.response_coding.take(),
            response_kind: self.response_kind,
            caller_key: self.caller_key.take(),
        });
    }

    fn settle(&mut self, ending: Ending) {
        // A client that left first has left, whatever came after.
        let ending = if self.is_alone() { Ending::ClientClosed } else { ending };
        let end = self.left.at().unwrap_or_else(Instant::now);
        self.facts.latency_ms = millis(end.saturating_duration_since(self.started));
        if matches!(ending, Ending::ClientClosed) && !self.head_taken {
            self.facts.status_code = 0;
        }
        let ending = match ending {
            // Whose connection the process cut did not leave.
            Ending::ClientClosed if !self.is_alone() && self.shared.phase() == Phase::Cutting => {
                Ending::Failed(shutdown::cut_off())
            }
            ending => ending,
        };
        let facts = &mut self.facts;
        match ending {
            Ending::Completed => facts.outcome = Outcome::Completed,
            Ending::ClientClosed => {
                facts.outcome = Outcome::ClientClosed;
                facts.error_type = Some(ErrorKind::ClientClosed.as_str());
                if facts.status_code == 0 {
                    facts.status_code = CLIENT_CLOSED_REQUEST;
                }
            }
            Ending::Failed(error) => {
                facts.outcome = rescue::outcome(&error, facts.attempts > 0);
                facts.error_type = Some(error.kind.as_str());
                facts.error_message = Some(rescue::with_cause(&error));
                if error.origin == magicapi_model::Origin::Provider && facts.provider_error_type.is_none() {
                    facts.provider_error_type = Some(error.kind.as_str());
                }
            }
        }
        let provider_failed = facts.attempts > 0
            && (facts.provider_error_type.is_some()
                || matches!(facts.outcome, Outcome::ProviderError | Outcome::Truncated | Outcome::TimedOut));
        facts.provider_error_count = u32::from(provider_failed);
    }

    fn price(&mut self) {
        let Some(attempt) = &self.attempt else { return };
        crate::finish::price(&mut self.facts, &self.snapshot.prices, attempt.provider.as_ref());
    }

    fn attempt_ends(&mut self) {
        let Some(attempt) = self.attempt.take() else { return };
        let facts = &self.facts;
        self.attempts.push(AttemptRow {
            attempt: facts.attempts,
            provider: attempt.provider.name().to_owned(),
            model: facts.model.clone(),
            status_code: facts.provider_status_code,
            error_type: facts.provider_error_type.or(facts.error_type).map(Into::into),
            latency_ms: millis(attempt.started.elapsed()),
            usage: facts.usage,
            cost: facts.cost,
        });
    }

    /// Takes over what an answer said of itself.
    pub(crate) fn learn(&mut self, learned: Learned) {
        let facts = &mut self.facts;
        if let Some(usage) = learned.usage {
            facts.usage = usage;
            facts.usage_final = learned.complete;
        }
        facts.service_tier = learned.service_tier.or_else(|| facts.service_tier.take());
        facts.finish_reasons = learned.finish_reasons;
    }
}

/// What an answer said of itself, buffered or streamed.
pub(crate) struct Learned {
    pub(crate) usage: Option<Usage>,
    /// Whether the answer was read to its proper end.
    pub(crate) complete: bool,
    pub(crate) service_tier: Option<String>,
    pub(crate) finish_reasons: Vec<String>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.finished {
            let ending = if std::thread::panicking() {
                Ending::Failed(Error::gateway(
                    ErrorKind::Internal,
                    "the gateway failed while it handled the request",
                ))
            } else {
                Ending::ClientClosed
            };
            self.finish(ending);
        }
        let in_flight = self.shared.counts.in_flight.fetch_sub(1, Ordering::Relaxed).saturating_sub(1);
        self.shared.telemetry.metrics().requests_in_flight(in_flight);
    }
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn text(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

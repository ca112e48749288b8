//! A batch as one or more requests to an intake that says yes or no to each request as a whole: entries are packed
//! within its limits, the answers are joined to one verdict on the batch.
//!
//! Used by exporters whose back end answers without a word per record; those folders bring the entries and the rule by
//! which a status is judged.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use magicapi_plugin::{Delivery, Health, Http, HttpError, ItemOutcome, RequestMetrics, async_trait};
use tokio::time::Instant;

use crate::health::LastHealth;
use crate::tally::{Tally, Untold};

/// After which it is said what was settled, so that an export that takes longer than `timeout` gets on. When nothing was,
/// the search for the record at fault goes on in halves of the batch.
const TURN: Duration = Duration::from_secs(5);

/// A record as the intake wants it, or why the intake would never keep it.
pub(crate) type Entry = Result<Vec<u8>, String>;

/// How bodies are packed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Coding {
    /// With gzip.
    Gzip,
    /// `deflate`, which is zlib's format.
    Deflate,
}

/// What one request may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Entries.
    pub(crate) entries: usize,
    /// Bytes before packing.
    pub(crate) plain: usize,
    /// Bytes after packing.
    pub(crate) packed: usize,
}

/// What an answer says of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The back end has all of it.
    Delivered,
    /// It will never take all of it.
    Rejected(String),
    /// It read all of it and keeps nothing; not to be sent again, in parts neither.
    TakenAndRejected(String),
    /// Again, not before that.
    Retry(Option<Duration>),
    /// Too large.
    TooLarge,
    /// Credential or set-up is wrong.
    Refused(String),
    /// Sent, but no answer came.
    Unknown,
}

/// A back end's address for one kind of entry.
pub(crate) struct Intake {
    pub(crate) http: Http,
    pub(crate) url: String,
    /// The credential, marked as sensitive.
    pub(crate) headers: HeaderMap,
    pub(crate) coding: Coding,
    pub(crate) limits: Limits,
    /// What stands before the entries and after them; commas go between.
    pub(crate) frame: (&'static str, &'static str),
    pub(crate) judge: fn(&Response<Bytes>) -> Verdict,
    pub(crate) health: LastHealth,
    pub(crate) untold: Untold,
}

/// Sends the records of a part together.
#[async_trait]
pub(crate) trait Courier: Sync {
    /// What the back end says of it.
    async fn send(&self, part: &[usize]) -> Verdict;
}

/// Sends parts in order, and halves what the back end will never take until the record at fault is alone: at most two
/// requests for each record. What could not be sent after something was settled, or had no turn, is to be sent again;
/// before that, the answer counts for the whole batch. A missing answer counts for the part that was sent alone. A search
/// that takes too long is the pipeline's, which halves what is too large and keeps the halves from try to try.
pub(crate) async fn carry(
    mut tally: Tally<'_>,
    mut parts: VecDeque<Vec<usize>>,
    courier: &dyn Courier,
) -> Delivery {
    let begun = Instant::now();
    let mut failure = None;
    while let Some(mut part) = parts.pop_front() {
        let gets_on = tally.is_settled_here();
        if begun.elapsed() >= TURN && (gets_on || tally.is_of_records()) {
            // Nothing is settled when a part was halved and no half had its answer.
            failure = (!gets_on).then_some(Delivery::TooLarge);
            break;
        }
        tally.begin(&part);
        failure = match courier.send(&part).await {
            Verdict::Delivered => {
                tally.settle(&part, &ItemOutcome::Delivered);
                None
            }
            Verdict::Rejected(_) | Verdict::TooLarge if part.len() > 1 => {
                tally.put_off(&part);
                let second = part.split_off(part.len() / 2);
                parts.push_front(second);
                parts.push_front(part);
                continue;
            }
            Verdict::Rejected(reason) | Verdict::TakenAndRejected(reason) => {
                tally.settle(&part, &ItemOutcome::Rejected { reason });
                None
            }
            Verdict::Unknown => break,
            Verdict::Retry(after) => Some(Delivery::Retry { after }),
            Verdict::TooLarge => Some(Delivery::TooLarge),
            Verdict::Refused(reason) => Some(Delivery::Refused { reason }),
        };
        if failure.is_some() {
            tally.put_off(&part);
            break;
        }
    }
    tally.end(failure)
}

/// What goes together, by positions: of each entry its length, `None` for what is not sent. `around` bytes stand around
/// the entries of one request.
pub(crate) fn parts(
    lengths: impl Iterator<Item = Option<usize>>,
    limits: Limits,
    around: usize,
) -> VecDeque<Vec<usize>> {
    let mut parts: VecDeque<Vec<usize>> = VecDeque::new();
    let mut bytes = 0;
    for (index, length) in lengths.enumerate() {
        let Some(length) = length else { continue };
        match parts.back_mut() {
            Some(part) if part.len() < limits.entries && bytes + length < limits.plain => {
                part.push(index);
                bytes += length + 1;
            }
            _ => {
                parts.push_back(vec![index]);
                bytes = around + length;
            }
        }
    }
    parts
}

/// What is decided before anything is sent.
fn outcomes(entries: &[Entry]) -> Vec<Option<ItemOutcome>> {
    let rejected = |reason: &String| ItemOutcome::Rejected { reason: reason.clone() };
    entries.iter().map(|entry| entry.as_ref().err().map(rejected)).collect()
}

/// Entries on their way to an intake.
struct Posted<'a>(&'a Intake, &'a [Entry]);

#[async_trait]
impl Courier for Posted<'_> {
    async fn send(&self, part: &[usize]) -> Verdict {
        self.0.send(self.1, part).await
    }
}

impl Intake {
    /// Sends entries in as many requests as the limits demand, in order; see [`carry`].
    pub(crate) async fn deliver(&self, entries: Vec<Entry>) -> Delivery {
        self.carry(outcomes(&entries).into(), &entries).await
    }

    /// The same for a batch's records, an entry for each: of an export that is cut off, [`Self::cut_off`] knows the rest.
    pub(crate) async fn export(&self, batch: &[Arc<RequestMetrics>], entries: Vec<Entry>) -> Delivery {
        self.carry(Tally::of(batch, &self.untold, outcomes(&entries)), &entries).await
    }

    /// What is known of a batch whose export was cut off.
    pub(crate) fn cut_off(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        Delivery::Items(self.untold.tell(batch))
    }

    async fn carry(&self, tally: Tally<'_>, entries: &[Entry]) -> Delivery {
        let lengths = entries.iter().map(|entry| entry.as_ref().ok().map(Vec::len));
        let parts = parts(lengths, self.limits, self.frame.0.len() + self.frame.1.len());
        carry(tally, parts, &Posted(self, entries)).await
    }

    async fn send(&self, entries: &[Entry], part: &[usize]) -> Verdict {
        let mut body = Vec::from(self.frame.0);
        for (position, entry) in
            part.iter().filter_map(|index| entries.get(*index)?.as_ref().ok()).enumerate()
        {
            if position > 0 {
                body.push(b',');
            }
            body.extend_from_slice(entry);
        }
        body.extend_from_slice(self.frame.1.as_bytes());
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = match pack(&body, self.coding) {
            Some((packed, coding)) => {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
                packed
            }
            None => body.into(),
        };
        if body.len() > self.limits.packed {
            return Verdict::TooLarge;
        }
        judged(&self.health, post(&self.http, &self.url, headers, body).await, self.judge)
    }
}

/// What an answer means, or that there is none; the back end's health is what that says of it.
pub(crate) fn judged<T>(
    health: &LastHealth,
    answer: Result<T, HttpError>,
    judge: impl FnOnce(&T) -> Verdict,
) -> Verdict {
    match answer {
        Ok(answer) => {
            let verdict = judge(&answer);
            remember(health, &verdict);
            verdict
        }
        Err(error) => {
            health.set(Health::Down(error.to_string()));
            unanswered(&error)
        }
    }
}

/// Keeps what an answer says of the back end.
fn remember(health: &LastHealth, verdict: &Verdict) {
    health.set(match verdict {
        Verdict::Delivered | Verdict::TooLarge => Health::Ok,
        Verdict::Rejected(reason) | Verdict::TakenAndRejected(reason) => {
            Health::Degraded(format!("rejects records: {reason}"))
        }
        Verdict::Refused(reason) => Health::Down(reason.clone()),
        Verdict::Retry(_) => Health::Degraded("puts records off".into()),
        Verdict::Unknown => Health::Degraded("does not say what became of records".into()),
    });
}

/// Sends a body whose headers are complete but for its length.
pub(crate) async fn post(
    http: &Http,
    url: &str,
    mut headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Bytes>, HttpError> {
    // A known length: several servers parse chunked bodies worse, or not at all.
    headers.insert(CONTENT_LENGTH, body.len().into());
    let request = Request::builder().method(Method::POST).uri(url).body(body);
    let mut request = request.map_err(|e| HttpError::Connect(e.to_string()))?;
    *request.headers_mut() = headers;
    http.send(request).await
}

/// What a status means after which a batch is sent again. With a 504 whoever stands between says that he has no
/// answer: what he passed on may have arrived.
pub(crate) fn server_error(status: u16, after: Option<Duration>) -> Verdict {
    if status == 504 { Verdict::Unknown } else { Verdict::Retry(after) }
}

/// What a missing answer means.
pub(crate) fn unanswered(error: &HttpError) -> Verdict {
    match error {
        HttpError::Connect(_) => Verdict::Retry(None),
        _ => Verdict::Unknown,
    }
}

/// The packed body and the name of its coding; `None` if that failed, which in memory it does not.
pub(crate) fn pack(body: &[u8], coding: Coding) -> Option<(Bytes, &'static str)> {
    let room = Vec::with_capacity(body.len() / 4);
    // JSON shrinks about as well at the fastest level, in a third of the time.
    let (packed, name) = match coding {
        Coding::Gzip => {
            let mut gzip = GzEncoder::new(room, Compression::fast());
            gzip.write_all(body).ok()?;
            (gzip.finish().ok()?, "gzip")
        }
        Coding::Deflate => {
            let mut zlib = ZlibEncoder::new(room, Compression::fast());
            zlib.write_all(body).ok()?;
            (zlib.finish().ok()?, "deflate")
        }
    };
    Some((packed.into(), name))
}

/// A credential as a header's value, marked as sensitive; `None` when it holds what no header can.
pub(crate) fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests;

//! A batch as one or more requests to an intake that says yes or no to each request as a whole: entries are packed
//! within its limits, the answers are joined to one verdict on the batch.
//!
//! Used by exporters whose back end answers without a word per record; those folders bring the entries and the rule by
//! which a status is judged.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use magicapi_plugin::{Delivery, Health, Http, HttpError, ItemOutcome, async_trait};

use crate::health::LastHealth;

/// Requests more than needed that one batch may cost, to find the records that the back end will never take.
const SEARCHES: usize = 32;

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
}

/// Sends the records of a part together.
#[async_trait]
pub(crate) trait Courier: Sync {
    /// What the back end says of it.
    async fn send(&self, part: &[usize]) -> Verdict;
}

/// Sends parts in order, and looks for what the back end will never take. What could not be sent after something was
/// taken is to be sent again; before that, the answer counts for the whole batch. A missing answer counts for the part
/// that was sent alone. `outcomes` has what is decided already.
pub(crate) async fn deliver(
    mut outcomes: Vec<Option<ItemOutcome>>,
    mut parts: VecDeque<Vec<usize>>,
    courier: &dyn Courier,
) -> Delivery {
    let (mut searches, mut progress, mut after) = (0, false, None);
    while let Some(mut part) = parts.pop_front() {
        let (failure, outcome) = match courier.send(&part).await {
            Verdict::Delivered => (None, Some(ItemOutcome::Delivered)),
            Verdict::TooLarge if part.len() > 1 => (None, None),
            Verdict::Rejected(_) if part.len() > 1 && searches < SEARCHES => {
                searches += 1;
                (None, None)
            }
            Verdict::Rejected(reason) | Verdict::TakenAndRejected(reason) => {
                (None, Some(ItemOutcome::Rejected { reason }))
            }
            Verdict::Retry(asked) => {
                after = asked;
                (Some(Delivery::Retry { after }), None)
            }
            Verdict::TooLarge => (Some(Delivery::TooLarge), None),
            Verdict::Refused(reason) => (Some(Delivery::Refused { reason }), None),
            Verdict::Unknown => {
                decide(&mut outcomes, &part, &ItemOutcome::Unknown);
                break;
            }
        };
        if let Some(failure) = failure {
            let rejected = |outcome: &ItemOutcome| matches!(outcome, ItemOutcome::Rejected { .. });
            if !progress && !outcomes.iter().flatten().any(rejected) {
                return failure;
            }
            break;
        }
        if let Some(outcome) = outcome {
            progress = true;
            decide(&mut outcomes, &part, &outcome);
        } else {
            let second = part.split_off(part.len() / 2);
            parts.push_front(second);
            parts.push_front(part);
        }
    }
    let outcomes: Vec<_> =
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| ItemOutcome::again(after))).collect();
    let all = |one: &ItemOutcome| outcomes.iter().all(|outcome| outcome == one);
    if all(&ItemOutcome::Delivered) {
        Delivery::Delivered
    } else if all(&ItemOutcome::Unknown) {
        Delivery::Unknown
    } else {
        Delivery::Items(outcomes)
    }
}

/// Notes what became of a part, whose positions are in order.
fn decide(outcomes: &mut [Option<ItemOutcome>], part: &[usize], outcome: &ItemOutcome) {
    let slots = outcomes.iter_mut().enumerate().filter(|(index, _)| part.binary_search(index).is_ok());
    slots.for_each(|(_, slot)| *slot = Some(outcome.clone()));
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

/// Entries on their way to an intake.
struct Posted<'a>(&'a Intake, &'a [Entry]);

#[async_trait]
impl Courier for Posted<'_> {
    async fn send(&self, part: &[usize]) -> Verdict {
        let verdict = self.0.send(self.1, part).await;
        self.0.remember(&verdict);
        verdict
    }
}

impl Intake {
    /// Sends entries in as many requests as the limits demand, in order; see [`deliver`].
    pub(crate) async fn deliver(&self, entries: Vec<Entry>) -> Delivery {
        let outcomes = entries
            .iter()
            .map(|entry| entry.as_ref().err().map(|reason| ItemOutcome::Rejected { reason: reason.clone() }))
            .collect();
        let lengths = entries.iter().map(|entry| entry.as_ref().ok().map(Vec::len));
        let parts = parts(lengths, self.limits, self.frame.0.len() + self.frame.1.len());
        deliver(outcomes, parts, &Posted(self, &entries)).await
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
        match post(&self.http, &self.url, headers, body).await {
            Ok(answer) => (self.judge)(&answer),
            Err(error) => {
                self.health.set(Health::Down(error.to_string()));
                unanswered(&error)
            }
        }
    }

    fn remember(&self, verdict: &Verdict) {
        remember(&self.health, verdict);
    }
}

/// Keeps what a verdict says of the back end.
pub(crate) fn remember(health: &LastHealth, verdict: &Verdict) {
    health.set(match verdict {
        Verdict::Delivered => Health::Ok,
        Verdict::TooLarge => return,
        Verdict::Rejected(reason) | Verdict::TakenAndRejected(reason) => {
            Health::Degraded(format!("rejects records: {reason}"))
        }
        Verdict::Refused(reason) => Health::Down(reason.clone()),
        // An error that kept the answer away says more.
        Verdict::Retry(_) | Verdict::Unknown if matches!(health.get(), Health::Down(_)) => return,
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
mod tests {
    use std::io::Read;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, Request, Response};
    use magicapi_plugin::{Delivery, Health, Http, HttpError, HttpTransport, ItemOutcome, async_trait};

    use super::{Coding, Entry, Intake, Limits, Verdict};
    use crate::health::LastHealth;

    /// Answers by what a request holds, and keeps what it held.
    struct Server(fn(&[u64]) -> u16, Mutex<Vec<Vec<u64>>>);

    #[async_trait]
    impl HttpTransport for Server {
        async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            assert_eq!(request.headers()["content-length"], request.body().len().to_string().as_str());
            assert_eq!(request.headers()["content-encoding"], "deflate");
            let mut text = String::new();
            flate2::read::ZlibDecoder::new(&request.body()[..]).read_to_string(&mut text).expect("zlib");
            let held: Vec<u64> = serde_json::from_str(&text).expect("an array");
            let status = self.0(&held);
            if status == 0 {
                return Err(HttpError::NoAnswer("closed".into()));
            }
            self.1.lock().expect("no panic").push(held);
            Ok(Response::builder()
                .status(status)
                .header("retry-after", "7")
                .body(Bytes::new())
                .expect("answer"))
        }
    }

    fn judge(answer: &Response<Bytes>) -> Verdict {
        match answer.status().as_u16() {
            200 => Verdict::Delivered,
            400 => Verdict::Rejected("bad".into()),
            403 => Verdict::Refused("key".into()),
            413 => Verdict::TooLarge,
            _ => Verdict::Retry(Some(Duration::from_secs(7))),
        }
    }

    /// What became of the numbers below `n`, the requests that it took, and the state after it.
    async fn deliver(
        n: u64,
        limits: Limits,
        answers: fn(&[u64]) -> u16,
    ) -> (Delivery, Vec<Vec<u64>>, Health) {
        let server = Arc::new(Server(answers, Mutex::default()));
        let intake = Intake {
            http: Http::new(server.clone()),
            url: "http://x/".into(),
            headers: HeaderMap::new(),
            coding: Coding::Deflate,
            limits,
            frame: ("[", "]"),
            judge,
            health: LastHealth::default(),
        };
        let entries: Vec<Entry> = (0..n).map(|n| Ok(n.to_string().into_bytes())).collect();
        let delivery = intake.deliver(entries).await;
        let seen = server.1.lock().expect("no panic").clone();
        (delivery, seen, intake.health.get())
    }

    const WIDE: Limits = Limits { entries: usize::MAX, plain: usize::MAX, packed: usize::MAX };

    #[tokio::test]
    async fn requests_keep_within_every_limit() {
        let entries = Limits { entries: 3, ..WIDE };
        let (delivery, seen, _) = deliver(7, entries, |_| 200).await;
        assert_eq!((delivery, seen), (Delivery::Delivered, vec![vec![0, 1, 2], vec![3, 4, 5], vec![6]]));
        // `[0,1,2]` is seven bytes.
        let (_, seen, _) = deliver(7, Limits { plain: 7, ..WIDE }, |_| 200).await;
        assert_eq!(seen, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
        let (_, seen, _) = deliver(7, Limits { plain: 6, ..WIDE }, |_| 200).await;
        assert_eq!(seen, [vec![0, 1], vec![2, 3], vec![4, 5], vec![6]]);
        let (delivery, seen, _) = deliver(500, Limits { packed: 300, ..WIDE }, |_| 200).await;
        assert_eq!(delivery, Delivery::Delivered);
        assert!(seen.len() > 1 && seen.concat() == (0..500).collect::<Vec<_>>(), "{seen:?}");
        let (delivery, seen, _) = deliver(1, Limits { packed: 3, ..WIDE }, |_| 200).await;
        assert_eq!((delivery, seen.len()), (Delivery::TooLarge, 0));
    }

    #[tokio::test]
    async fn one_bad_record_costs_its_neighbours_nothing() {
        let (delivery, seen, health) =
            deliver(1000, WIDE, |held| if held.contains(&617) { 400 } else { 200 }).await;
        let Delivery::Items(outcomes) = delivery else { panic!("items") };
        for (n, outcome) in outcomes.iter().enumerate() {
            let rejected = ItemOutcome::Rejected { reason: "bad".into() };
            assert_eq!(*outcome, if n == 617 { rejected } else { ItemOutcome::Delivered }, "{n}");
        }
        assert!(seen.len() < 25, "{}", seen.len());
        assert_eq!(health, Health::Ok);
        // When all are bad, the search ends.
        let (delivery, seen, health) = deliver(1000, WIDE, |_| 400).await;
        let Delivery::Items(outcomes) = delivery else { panic!("items") };
        assert!(outcomes.iter().all(|outcome| matches!(outcome, ItemOutcome::Rejected { .. })));
        assert_eq!(seen.len(), 1 + 2 * super::SEARCHES);
        assert!(matches!(health, Health::Degraded(_)));
    }

    #[tokio::test]
    async fn what_is_too_large_is_halved() {
        let (delivery, seen, _) = deliver(8, WIDE, |held| if held.len() > 2 { 413 } else { 200 }).await;
        assert_eq!((delivery, seen.len()), (Delivery::Delivered, 7));
        let (delivery, _, _) = deliver(4, WIDE, |held| if held.contains(&2) { 413 } else { 200 }).await;
        let sent = [ItemOutcome::Delivered, ItemOutcome::Delivered];
        let rest = [ItemOutcome::Retry, ItemOutcome::Retry];
        assert_eq!(delivery, Delivery::Items([sent, rest].concat()));
    }

    #[tokio::test]
    async fn a_failure_counts_for_all_until_something_was_taken() {
        let two = Limits { entries: 2, ..WIDE };
        let (delivery, seen, _) = deliver(6, two, |_| 429).await;
        assert_eq!(delivery, Delivery::Retry { after: Some(Duration::from_secs(7)) });
        assert_eq!(seen.len(), 1, "the rest is not tried");
        let (delivery, _, health) = deliver(6, two, |_| 403).await;
        assert_eq!(delivery, Delivery::Refused { reason: "key".into() });
        assert_eq!(health, Health::Down("key".into()));
        let (delivery, seen, _) = deliver(6, two, |held| if held.contains(&2) { 503 } else { 200 }).await;
        let later = ItemOutcome::RetryAfter(Duration::from_secs(7));
        let outcomes = [vec![ItemOutcome::Delivered; 2], vec![later; 4]].concat();
        assert_eq!((delivery, seen.len()), (Delivery::Items(outcomes), 2));
    }
    /// What was taken stays taken, what was not sent is not unclear: only the part without an answer is.
    #[tokio::test]
    async fn a_missing_answer_counts_for_what_was_sent_alone() {
        let two = Limits { entries: 2, ..WIDE };
        let (unknown, retry) = (ItemOutcome::Unknown, ItemOutcome::Retry);
        let (delivery, _, health) = deliver(6, two, |held| if held.contains(&2) { 0 } else { 200 }).await;
        let outcomes = [vec![ItemOutcome::Delivered; 2], vec![unknown.clone(); 2], vec![retry.clone(); 2]];
        assert_eq!(delivery, Delivery::Items(outcomes.concat()));
        assert!(matches!(health, Health::Down(_)));
        let (delivery, _, _) = deliver(4, two, |_| 0).await;
        assert_eq!(delivery, Delivery::Items([vec![unknown; 2], vec![retry; 2]].concat()));
        let (delivery, _, _) = deliver(4, WIDE, |_| 0).await;
        assert_eq!(delivery, Delivery::Unknown);
    }
}

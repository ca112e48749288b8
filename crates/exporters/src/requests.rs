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
mod tests {
    use std::collections::BTreeSet;
    use std::io::Read;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, Request, Response};
    use magicapi_plugin::{Delivery, Health, Http, HttpError, HttpTransport, ItemOutcome, async_trait};
    use tokio::time::timeout;

    use super::{Coding, Entry, Intake, Limits, TURN, Untold, Verdict};
    use crate::health::LastHealth;
    use crate::testing::{batch, record};

    /// An answer's status by what a request holds.
    type Answers = Box<dyn Fn(&[u64]) -> u16 + Send + Sync>;

    /// Answers after this long, and keeps what requests held.
    struct Server {
        answers: Answers,
        takes: Duration,
        seen: Mutex<Vec<Vec<u64>>>,
    }

    impl Server {
        fn new(takes: Duration, answers: impl Fn(&[u64]) -> u16 + Send + Sync + 'static) -> Arc<Self> {
            Arc::new(Self { answers: Box::new(answers), takes, seen: Mutex::default() })
        }

        /// What it took since it was asked last.
        fn seen(&self) -> Vec<Vec<u64>> {
            std::mem::take(&mut *self.seen.lock().expect("no panic"))
        }
    }

    #[async_trait]
    impl HttpTransport for Server {
        async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            assert_eq!(request.headers()["content-length"], request.body().len().to_string().as_str());
            assert_eq!(request.headers()["content-encoding"], "deflate");
            let mut text = String::new();
            flate2::read::ZlibDecoder::new(&request.body()[..]).read_to_string(&mut text).expect("zlib");
            let held: Vec<u64> = serde_json::from_str(&text).expect("an array");
            if !self.takes.is_zero() {
                tokio::time::sleep(self.takes).await;
            }
            let status = (self.answers)(&held);
            if status == 0 {
                return Err(HttpError::NoAnswer("closed".into()));
            }
            self.seen.lock().expect("no panic").push(held);
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

    fn intake(server: &Arc<Server>, limits: Limits) -> Intake {
        Intake {
            http: Http::new(server.clone()),
            url: "http://x/".into(),
            headers: HeaderMap::new(),
            coding: Coding::Deflate,
            limits,
            frame: ("[", "]"),
            judge,
            health: LastHealth::default(),
            untold: Untold::default(),
        }
    }

    fn entries(numbers: impl IntoIterator<Item = u64>) -> Vec<Entry> {
        numbers.into_iter().map(|n| Ok(n.to_string().into_bytes())).collect()
    }

    /// What became of the numbers below `n`, the requests that the server took, and the state after it.
    async fn deliver(
        n: u64,
        limits: Limits,
        answers: fn(&[u64]) -> u16,
    ) -> (Delivery, Vec<Vec<u64>>, Health) {
        let server = Server::new(Duration::ZERO, answers);
        let intake = intake(&server, limits);
        let delivery = intake.deliver(entries(0..n)).await;
        (delivery, server.seen(), intake.health.get())
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
    }

    /// Exports numbers as if each were a record's.
    async fn export(intake: &Intake, numbers: &[u64]) -> Delivery {
        let records: Vec<_> = numbers.iter().map(|n| record(n.to_le_bytes()[0])).collect();
        intake.export(&records, entries(numbers.iter().copied())).await
    }

    /// Exports what is left again and again, as the pipeline does, which halves what is too large: what was rejected, and
    /// how many requests that took.
    async fn settled(n: u64, bad: &BTreeSet<u64>, takes: Duration) -> (BTreeSet<u64>, usize) {
        /// What the pipeline gives an export.
        const TIMEOUT: Duration = Duration::from_secs(30);
        let (held_bad, mut rejected, mut requests) = (bad.clone(), BTreeSet::new(), 0);
        let server =
            Server::new(takes, move |held| if held.iter().any(|n| held_bad.contains(n)) { 400 } else { 200 });
        let intake = intake(&server, WIDE);
        let mut batches = vec![(0..n).collect::<Vec<u64>>()];
        while let Some(mut left) = batches.pop() {
            let outcomes = match timeout(TIMEOUT, export(&intake, &left)).await.expect("in time") {
                Delivery::Delivered => vec![ItemOutcome::Delivered; left.len()],
                Delivery::Items(outcomes) => outcomes,
                Delivery::TooLarge if left.len() > 1 => {
                    requests += server.seen().len();
                    let second = left.split_off(left.len() / 2);
                    batches.extend([second, left]);
                    continue;
                }
                other => panic!("{other:?}"),
            };
            requests += server.seen().len();
            let with: Vec<_> = std::mem::take(&mut left).into_iter().zip(outcomes).collect();
            assert!(with.iter().any(|(_, outcome)| outcome.is_settled()), "every export gets on");
            for (n, outcome) in with {
                match outcome {
                    ItemOutcome::Delivered => assert!(!bad.contains(&n)),
                    ItemOutcome::Rejected { .. } => assert!(rejected.insert(n)),
                    _ => left.push(n),
                }
            }
            batches.extend((!left.is_empty()).then_some(left));
        }
        (rejected, requests)
    }

    /// Wherever they stand: the search ends with each of them alone, and costs at most two requests for each record.
    #[tokio::test(start_paused = true)]
    async fn exactly_the_bad_records_are_rejected() {
        let scattered = |count: usize| (7..1000).step_by(1000 / count).collect::<BTreeSet<u64>>();
        let runs = [0..40, 500..800, 0..1000].map(Iterator::collect);
        for bad in [4, 10, 50].map(scattered).into_iter().chain(runs) {
            for takes in [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(8)] {
                let (rejected, requests) = settled(1000, &bad, takes).await;
                assert_eq!(rejected, bad);
                let most = if takes.is_zero() { 2 * 1000 } else { 4 * 1000 };
                assert!(requests < most, "{requests} requests for {} bad ones", bad.len());
            }
        }
    }

    /// `timeout` would cut it off before its end each time.
    #[tokio::test(start_paused = true)]
    async fn an_export_says_after_its_turn_what_was_settled() {
        let two = Limits { entries: 2, ..WIDE };
        let server = Server::new(Duration::from_secs(2), |_| 200);
        let begun = tokio::time::Instant::now();
        let delivery = intake(&server, two).deliver(entries(0..20)).await;
        let (sent, rest) = (vec![ItemOutcome::Delivered; 6], vec![ItemOutcome::Retry; 14]);
        assert_eq!(delivery, Delivery::Items([sent, rest].concat()));
        assert!(begun.elapsed() < TURN + Duration::from_secs(2), "{:?}", begun.elapsed());
        // Nothing is settled: to begin anew with the whole batch would lead nowhere.
        let server = Server::new(Duration::from_secs(2), |held| if held.contains(&0) { 400 } else { 200 });
        let begun = tokio::time::Instant::now();
        let all: Vec<u64> = (0..64).collect();
        assert_eq!(export(&intake(&server, WIDE), &all).await, Delivery::TooLarge);
        assert_eq!((server.seen().len(), begun.elapsed()), (3, Duration::from_secs(6)));
        // What is of no record nobody halves later.
        let Delivery::Items(outcomes) = intake(&server, WIDE).deliver(entries(0..64)).await else {
            panic!("items")
        };
        assert!(matches!(outcomes[0], ItemOutcome::Rejected { .. }), "{outcomes:?}");
        assert_eq!((server.seen().len(), &outcomes[1]), (7, &ItemOutcome::Retry));
        // One alone is no search.
        let server = Server::new(2 * TURN, |_| 400);
        let rejected = ItemOutcome::Rejected { reason: "bad".into() };
        assert_eq!(export(&intake(&server, WIDE), &[0]).await, Delivery::Items(vec![rejected]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_export_that_is_cut_off_leaves_what_it_knows() {
        let records = batch(8);
        let two = Limits { entries: 2, ..WIDE };
        let server = Server::new(Duration::from_secs(1), |held| if held.contains(&1) { 400 } else { 200 });
        let intake = intake(&server, two);
        let mut all = entries(0..8);
        all[7] = Err("too old".into());
        // [0, 1] is halved: after 3 s both are settled, after 4 s the next two.
        let export = intake.export(&records, all);
        assert!(timeout(Duration::from_millis(4500), export).await.is_err());
        let bad = |reason: &str| ItemOutcome::Rejected { reason: reason.into() };
        let (sent, again) = (ItemOutcome::Delivered, ItemOutcome::Retry);
        let known = [
            sent.clone(),
            bad("bad"),
            sent.clone(),
            sent,
            ItemOutcome::Unknown,
            ItemOutcome::Unknown,
            again.clone(),
            bad("too old"),
        ];
        assert_eq!(intake.cut_off(&records), Delivery::Items(known.to_vec()));
        assert_eq!(intake.cut_off(&records), Delivery::Items(vec![again.clone(); 8]), "it was told once");
        let export = intake.export(&records[..2], entries([0, 2]));
        assert_eq!(timeout(Duration::from_secs(10), export).await, Ok(Delivery::Delivered));
        assert_eq!(
            intake.cut_off(&records[..2]),
            Delivery::Items(vec![again; 2]),
            "what was told at once is not kept"
        );
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

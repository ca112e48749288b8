//! What a batch becomes over one or more requests.

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
        Ok(Response::builder().status(status).header("retry-after", "7").body(Bytes::new()).expect("answer"))
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
async fn deliver(n: u64, limits: Limits, answers: fn(&[u64]) -> u16) -> (Delivery, Vec<Vec<u64>>, Health) {
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

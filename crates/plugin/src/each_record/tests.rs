use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use super::*;
use crate::Facts;
use crate::ItemOutcome::{Delivered, Retry, Unknown};

/// What the back end does with a record.
#[derive(Clone, Copy)]
enum Does {
    Take,
    TakeSlowly,
    Fail,
    Hang,
    Panic,
}

/// Does with each record what was planned for it, and notes each that it was asked to deliver.
#[derive(Default)]
struct Planned {
    plan: Mutex<HashMap<RequestId, Does>>,
    asked: Mutex<Vec<RequestId>>,
}

impl Planned {
    fn will(&self, records: &[Arc<RequestMetrics>], does: Does) {
        self.plan.lock().unwrap().extend(records.iter().map(|record| (record.id(), does)));
    }
}

#[async_trait]
impl RecordExporter for Planned {
    fn name(&self) -> &'static str {
        "planned"
    }

    async fn export(&self, record: &RequestMetrics) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.asked.lock().unwrap().push(record.id());
        let does = self.plan.lock().unwrap().get(&record.id()).copied().unwrap_or(Does::Take);
        match does {
            Does::Take => {}
            Does::TakeSlowly => std::thread::sleep(TURN / 3),
            Does::Fail => return Err("no".into()),
            Does::Hang => std::future::pending().await,
            Does::Panic => panic!("over a record"),
        }
        Ok(())
    }
}

fn batch(records: usize) -> Vec<Arc<RequestMetrics>> {
    let facts = || Facts::new(RequestId::mint(), SystemTime::now());
    let record = |_| Arc::new(RequestMetrics::seal(facts(), Arc::default(), None, None, None));
    (0..records).map(record).collect()
}

/// One export, dropped where it waits for something.
fn export(exporter: &EachRecord<Planned>, batch: &[Arc<RequestMetrics>]) -> Option<Delivery> {
    let mut export = pin!(exporter.export(batch));
    match export.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(delivery) => Some(delivery),
        Poll::Pending => None,
    }
}

/// The numbers of the records that the back end was asked to take since the last time.
fn asked(exporter: &EachRecord<Planned>, batch: &[Arc<RequestMetrics>]) -> Vec<usize> {
    let asked = std::mem::take(&mut *exporter.exporter.asked.lock().unwrap());
    asked.into_iter().map(|id| batch.iter().position(|record| record.id() == id).expect("ours")).collect()
}

fn items(outcomes: &[ItemOutcome]) -> Delivery {
    Delivery::Items(outcomes.to_vec())
}

/// However slow a back end is, what it has is said before the pipeline loses its patience.
#[test]
fn a_batch_that_takes_too_long_gets_on_by_turns() {
    let (exporter, batch) = (EachRecord(Planned::default()), batch(100));
    exporter.exporter.will(&batch, Does::TakeSlowly);
    let Some(Delivery::Items(outcomes)) = export(&exporter, &batch) else { panic!("it waits for nothing") };
    let sent = asked(&exporter, &batch).len();
    assert!((1..100).contains(&sent), "{sent}");
    assert!(outcomes[..sent].iter().all(|one| *one == Delivered));
    assert!(outcomes.len() == 100 && outcomes[sent..].iter().all(|one| *one == Retry));
}

/// What the back end has is not sent again because the next record hangs; nor do the others wait for that one.
#[test]
fn an_export_that_is_cut_off_says_what_was_delivered() {
    let (exporter, batch) = (EachRecord(Planned::default()), batch(6));
    exporter.exporter.will(&batch[1..=1], Does::Fail);
    exporter.exporter.will(&batch[3..=3], Does::Hang);
    assert_eq!(export(&exporter, &batch), None);
    assert_eq!(asked(&exporter, &batch), [0, 1, 2, 3]);
    let known = [Delivered, Retry, Delivered, Unknown, Retry, Retry];
    assert_eq!(exporter.cut_off(&batch), items(&known));

    let rest = [1, 3, 4, 5].map(|at| batch[at].clone());
    assert_eq!(export(&exporter, &rest), None, "it hangs still");
    assert_eq!(asked(&exporter, &batch), [1, 4, 5, 3], "the one that hung goes last");
    assert_eq!(exporter.cut_off(&rest), items(&[Retry, Unknown, Delivered, Delivered]));

    let rest = [1, 3].map(|at| batch[at].clone());
    exporter.exporter.will(&batch, Does::Take);
    assert_eq!(export(&exporter, &rest), Some(items(&[Delivered, Delivered])));
    assert_eq!(asked(&exporter, &batch), [1, 3]);
    assert!(exporter.left.states().is_empty(), "nothing is kept of what is settled");
}

#[test]
fn one_that_hung_once_is_unknown_only_when_it_was_sent_again() {
    let (exporter, batch) = (EachRecord(Planned::default()), batch(3));
    exporter.exporter.will(&batch[0..=0], Does::Hang);
    assert_eq!(export(&exporter, &batch), None);
    assert_eq!(exporter.cut_off(&batch), items(&[Unknown, Retry, Retry]));
    exporter.exporter.will(&batch[1..=1], Does::Hang);
    assert_eq!(export(&exporter, &batch), None);
    assert_eq!(exporter.cut_off(&batch), items(&[Retry, Unknown, Retry]));
    exporter.exporter.will(&batch[0..=1], Does::Fail);
    assert_eq!(export(&exporter, &batch), Some(items(&[Retry, Retry, Delivered])));
    assert_eq!(asked(&exporter, &batch), [0, 1, 2, 0, 1]);
}

#[test]
fn health_says_why_records_are_left() {
    let (exporter, batch) = (EachRecord(Planned::default()), batch(2));
    let health = || match pin!(exporter.health()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(health) => health,
        Poll::Pending => panic!("it waits for nothing"),
    };
    assert_eq!(health(), Health::Ok);
    exporter.exporter.will(&batch[1..], Does::Fail);
    assert_eq!(export(&exporter, &batch), Some(items(&[Delivered, Retry])));
    assert_eq!(health(), Health::Degraded("no".into()));
    exporter.exporter.will(&batch[1..], Does::Take);
    assert_eq!(export(&exporter, &batch[1..]), Some(items(&[Delivered])));
    assert_eq!(health(), Health::Ok);
}

/// With `concurrency`, the end of one export says nothing of another.
#[test]
fn exports_that_run_at_once_are_told_apart() {
    let (exporter, one, other) = (EachRecord(Planned::default()), batch(3), batch(2));
    exporter.exporter.will(&one[1..=1], Does::Hang);
    exporter.exporter.will(&other[1..=1], Does::Hang);
    let mut context = Context::from_waker(Waker::noop());
    let (mut first, mut second) = (exporter.export(&one), exporter.export(&other));
    assert!(
        first.as_mut().poll(&mut context).is_pending() && second.as_mut().poll(&mut context).is_pending()
    );
    drop(first);
    assert_eq!(exporter.cut_off(&one), items(&[Delivered, Unknown, Retry]));
    drop(second);
    assert_eq!(exporter.cut_off(&other), items(&[Delivered, Unknown]));
}

/// After a panic the pipeline sends all of it again, and asks nothing before.
#[test]
fn what_was_delivered_before_a_panic_is_not_sent_again() {
    let (exporter, batch) = (EachRecord(Planned::default()), batch(3));
    exporter.exporter.will(&batch[1..=1], Does::Panic);
    let panicked = catch_unwind(AssertUnwindSafe(|| export(&exporter, &batch)));
    assert!(panicked.is_err());
    exporter.exporter.will(&batch[1..=1], Does::Take);
    assert_eq!(export(&exporter, &batch), Some(items(&[Delivered, Delivered, Delivered])));
    assert_eq!(asked(&exporter, &batch), [0, 1, 2, 1], "nothing twice but the one that panicked");
    assert!(exporter.left.states().is_empty());
}

/// Records that hang and never come again must not take the room of what was delivered.
#[test]
fn what_is_remembered_is_bounded() {
    let mut states = HashMap::new();
    for n in 0..REMEMBERED + 10 {
        let state = if n == 0 { State::Delivered } else { State::Last };
        remember(&mut states, RequestId::mint(), state);
    }
    assert!(states.len() <= REMEMBERED && states.values().any(|state| *state == State::Delivered));
}

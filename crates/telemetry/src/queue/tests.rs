use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use magicapi_plugin::{RequestMetrics, TelemetryConfig};
use proptest::prelude::*;

use super::{BatchLimits, Item, Queue};
use crate::memory::{Budget, Reservation};
use crate::scripted::facts;

/// An item that counts 2048 + 2 * (2 + body) bytes.
fn item(body: usize) -> Item {
    let body = Bytes::from(format!("\"{}\"", "x".repeat(body)));
    let record = RequestMetrics::seal(facts(), Arc::new(TelemetryConfig::default()), Some(body), None, None);
    Item::new(Arc::new(record), Arc::new(Reservation::empty(&Budget::new(0))))
}

const LIMITS: BatchLimits = BatchLimits { records: 4, bytes: 16 << 10, age: Duration::from_secs(1) };

#[test]
fn the_oldest_go_first_and_are_dropped_first() {
    let queue = Queue::new(LIMITS, 3 * 2100);
    let ids: Vec<_> = (0..5)
        .map(|_| {
            let item = item(1);
            let id = item.record.id();
            assert!(queue.push(item).expect("open").len() <= 1);
            id
        })
        .collect();
    let batch: Vec<_> = queue.take().iter().map(|item| item.record.id()).collect();
    assert_eq!(batch, ids[2..]);
    assert_eq!(queue.depth().records, 3, "on their way is not gone");
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_its_age_unless_it_is_full() {
    let queue = Queue::new(LIMITS, 1 << 20);
    let begun = tokio::time::Instant::now();
    queue.push(item(1)).expect("open");
    assert_eq!((queue.next().await.len(), begun.elapsed()), (1, LIMITS.age));
    for _ in 0..6 {
        queue.push(item(1)).expect("open");
    }
    assert_eq!((queue.next().await.len(), begun.elapsed()), (4, LIMITS.age), "full by records");
    queue.push(item(40 << 10)).expect("open");
    assert_eq!((queue.next().await.len(), begun.elapsed()), (2, LIMITS.age), "full by bytes");
    assert_eq!(queue.next().await.len(), 1, "one record is a batch whatever its size");
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Take,
    /// Settles the oldest batch on its way.
    Settle,
    /// Puts it back.
    PutBack,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..6000).prop_map(Step::Push),
        2 => Just(Step::Take),
        1 => Just(Step::Settle),
        1 => Just(Step::PutBack),
    ]
}

proptest! {
    #[test]
    fn every_record_is_somewhere(steps in prop::collection::vec(step(), 0..80)) {
        const CAPACITY: usize = 40_000;
        let queue = Queue::new(LIMITS, CAPACITY);
        let mut away: std::collections::VecDeque<Vec<Item>> = std::collections::VecDeque::new();
        let (mut pushed, mut dropped, mut settled) = (0, 0, 0);
        for step in steps {
            match step {
                Step::Push(size) => {
                    pushed += 1;
                    dropped += queue.push(item(size)).expect("open").len();
                }
                Step::Take => away.extend(Some(queue.take()).filter(|batch| !batch.is_empty())),
                Step::Settle => {
                    if let Some(batch) = away.pop_front() {
                        settled += batch.len();
                        prop_assert!(queue.settle(&batch));
                    }
                }
                // Newest first, as a worker has one batch at a time.
                Step::PutBack => if let Some(batch) = away.pop_back() { queue.put_back(batch) },
            }
            let depth = queue.depth();
            prop_assert_eq!(depth.records + dropped + settled, pushed);
            prop_assert_eq!(depth.oldest.is_some(), depth.records > 0);
            let on_their_way: usize = away.iter().flatten().map(Item::memory).sum();
            prop_assert!(depth.bytes >= on_their_way);
            prop_assert!(depth.bytes <= CAPACITY, "{depth:?}");
        }
        let (waiting, lost) = queue.close();
        prop_assert_eq!(waiting.len() + lost.len() + dropped + settled, pushed);
        prop_assert_eq!(lost.len(), away.iter().map(Vec::len).sum::<usize>());
        prop_assert_eq!(queue.depth().records, 0);
        prop_assert!(queue.push(item(1)).is_err());
    }
}

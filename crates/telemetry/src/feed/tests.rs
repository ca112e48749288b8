use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use magicapi_plugin::{RequestMetrics, TelemetryConfig};
use magicapi_spool::Batches;

use super::Feed;
use crate::core::Core;
use crate::deliver::Deliverer;
use crate::lane::Lane;
use crate::memory::Reservation;
use crate::queue::Item;
use crate::scripted::{Script, facts, redactor};
use crate::settings::{CaptureSettings, PipelineSettings};
use crate::spool::Spooler;
use crate::stop::StopSignal;

/// Records of a batch, and batches that an outage left on disk.
const RECORDS: usize = 4;
const LEFT: usize = 6;

fn batch(core: &Core) -> Vec<RequestMetrics> {
    let record = |_| RequestMetrics::seal(facts(), core.config.clone(), None, None, None);
    (0..RECORDS).map(record).collect()
}

/// As a slot of a worker delivers, but a fresh batch comes before each of its turns, so that the queue is never empty.
#[tokio::test(start_paused = true)]
async fn after_an_outage_what_waited_and_what_is_fresh_arrive_in_turn() {
    let root = tempfile::tempdir().expect("a directory");
    let spooler = Spooler::start(root.path().to_owned()).expect("a thread");
    let core =
        Core::new(TelemetryConfig::default(), CaptureSettings::default(), Arc::default(), Some(spooler));
    let mut on_disk = Batches::open(&root.path().join("x"), 1 << 20).expect("a directory");
    let mut old = HashSet::new();
    for _ in 0..LEFT {
        let records = batch(&core);
        old.extend(records.iter().map(RequestMetrics::id));
        let stored: Vec<_> = records.iter().map(RequestMetrics::to_stored).collect();
        on_disk.put(&stored, SystemTime::now()).expect("room");
    }
    let script = Script::new([]);
    let pipeline = PipelineSettings { batch_records: RECORDS, ..PipelineSettings::default() };
    let lane = Arc::new(Lane::new(script.setup("x", pipeline), Some(redactor()), &core));
    lane.spool.as_ref().expect("a spool").open();
    let (_stop, signal) = StopSignal::new();
    let mut deliverer = Deliverer::new(lane.clone(), signal.clone());
    let mut feed = Feed::new(lane.clone(), core.budget().clone(), signal);
    for _ in 0..3 * LEFT {
        for record in batch(&core) {
            let share = Arc::new(Reservation::forced(core.budget(), record.memory()));
            lane.push(Item::new(Arc::new(record), share));
        }
        assert!(deliverer.deliver(feed.next().await).await);
    }
    assert_eq!(*script.batches.lock().unwrap(), [RECORDS; 3 * LEFT]);
    let seen = script.seen.lock().unwrap();
    let sort = |batch: &[Arc<RequestMetrics>]| {
        if batch.iter().all(|record| old.contains(&record.id())) { "old " } else { "fresh " }
    };
    let order: String = seen.chunks(RECORDS).map(sort).collect();
    assert_eq!(order, "old fresh ".repeat(LEFT) + &"fresh ".repeat(LEFT));
    assert_eq!(lane.status().spool_records, 0);
}

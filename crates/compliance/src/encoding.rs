//! The cases on records while the back end is well: any batch is encoded, and there is one outcome per record.

use std::slice;

use magicapi_plugin::Delivery;

use crate::backend::Behaviour;
use crate::faults::one_request;
use crate::records;
use crate::stage::{HANGS, Stage};

/// None, one, many.
pub(crate) fn plain(stage: &Stage) {
    let Some((backend, exporter, _)) = stage.started(Behaviour::Well) else { return };
    let mut delivered = true;
    for count in [0, 1, 2, 300] {
        let batch = records::batch(count);
        backend.requests();
        match stage.export(&*exporter, &batch, stage.suite.patience) {
            None => stage.finding(format!("the export of {count} records {HANGS}")),
            Some(Delivery::Delivered) => {}
            Some(delivery) => delivered &= count == 0 || !stage.suite.knows_the_answer() || all(&delivery),
        }
        if count == 1 {
            one_request(stage, &backend);
        }
    }
    if !delivered {
        stage.finding("a plain batch is not delivered, though the back end answers as it was told");
    }
    stage.end(&*exporter);
}

/// Each record that breaks encoders alone, then all of them among plain ones.
pub(crate) fn odd(stage: &Stage) {
    let Some((backend, exporter, _)) = stage.started(Behaviour::Well) else { return };
    let odd = records::odd();
    for (what, record) in &odd {
        if stage.export(&*exporter, slice::from_ref(record), stage.suite.patience).is_none() {
            stage.finding(format!("the export of a record {what} {HANGS}"));
        }
        // They are large.
        backend.requests();
    }
    let mixed: Vec<_> = odd.into_iter().flat_map(|(_, record)| [record, records::record(1)]).collect();
    if stage.export(&*exporter, &mixed, stage.suite.patience).is_none() {
        stage.finding(format!("the export of odd records among plain ones {HANGS}"));
    }
    stage.end(&*exporter);
}

fn all(delivery: &Delivery) -> bool {
    match delivery {
        Delivery::Delivered => true,
        Delivery::Items(items) => items.iter().all(|item| *item == magicapi_plugin::ItemOutcome::Delivered),
        _ => false,
    }
}

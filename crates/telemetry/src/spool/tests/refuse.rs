//! `when_full: refuse`: nothing is dropped for want of room, and the gate says when there is none.

use super::*;

fn refusing() -> PipelineSettings {
    PipelineSettings {
        when_full: WhenFull::Refuse,
        buffer_disk: 8 << 10,
        buffer_memory: 1 << 20,
        batch_bytes: 64 << 10,
        ..small()
    }
}

/// Sends records of about 100 KiB that no disk of this size takes.
fn send_large(telemetry: &Telemetry, requests: usize) {
    for _ in 0..requests {
        let mut tap = telemetry.tap();
        let noise: Vec<u8> =
            (0..3000).flat_map(|_| magicapi_plugin::RequestId::mint().to_string().into_bytes()).collect();
        tap.request(Bytes::from(format!("\"{}\"", String::from_utf8(noise).expect("text"))));
        tap.finish(Finished::new(facts()));
    }
}

/// A record of a request that reached no provider.
fn send_refused(telemetry: &Telemetry) {
    let mut end = facts();
    end.attempts = 0;
    telemetry.tap().finish(Finished::new(end));
}

fn fill(telemetry: &Telemetry) -> u64 {
    let mut sent = 0;
    eventually("the gate shuts", || {
        if !telemetry.refuses() {
            send_large(telemetry, 4);
            sent += 4;
        }
        let assembled = only(telemetry).received == sent;
        assembled && telemetry.refuses()
    });
    sent
}

#[test]
fn a_full_exporter_shuts_the_gate_drops_nothing_and_opens_it_again() {
    for on_disk in [true, false] {
        let root = TempDir::new().expect("a directory");
        let down = Script::always(Answer::Retry(None));
        let settings = TelemetrySettings {
            spool_dir: on_disk.then(|| root.path().to_owned()),
            ..TelemetrySettings::default()
        };
        let setup = vec![down.setup("x", refusing())];
        let telemetry = Telemetry::start(settings, Arc::default(), setup).expect("threads");
        assert!(!telemetry.refuses());
        let sent = fill(&telemetry);
        let full = only(&telemetry);
        assert!(full.refusing && full.dropped == 0, "{full:?}");
        // What was taken before is kept beyond the bound; what was refused is not, and is counted.
        send_large(&telemetry, 6);
        send_refused(&telemetry);
        eventually("all are seen", || only(&telemetry).received == sent + 7);
        assert_eq!((only(&telemetry).dropped, dropped(&only(&telemetry), "queue_full")), (1, 1));
        *down.then.lock().unwrap() = None;
        eventually("it opens by itself", || !telemetry.refuses());
        eventually("everything that was taken arrives", || down.acknowledged() as u64 == sent + 6);
        send_refused(&telemetry);
        eventually("what is refused for other reasons is kept again", || {
            down.acknowledged() as u64 == sent + 7
        });
        telemetry.shutdown(SOON);
        balanced(&only(&telemetry));
    }
}

#[test]
fn an_exporter_that_is_taken_away_refuses_nothing() {
    let root = TempDir::new().expect("a directory");
    let down = Script::always(Answer::Retry(None));
    let telemetry = start(root.path(), vec![down.setup("x", refusing())]);
    fill(&telemetry);
    telemetry.reload(CaptureSettings::default(), None, Vec::new()).expect("threads");
    eventually("the gate opens", || !telemetry.refuses());
    telemetry.shutdown(SOON);
}

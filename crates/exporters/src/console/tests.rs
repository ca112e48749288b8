use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Mutex};

use magicapi_plugin::{Delivery, Health, TelemetryExporter};
use serde_json::{Value, json};

use super::{ConsoleExporter, ConsolePlugin};
use crate::testing::{Script, batch, create};

/// Takes `room` bytes, then fails with the error.
#[derive(Clone)]
struct Pipe(Arc<Mutex<(Vec<u8>, usize, ErrorKind)>>);

impl Pipe {
    fn new(room: usize, error: ErrorKind) -> Self {
        Self(Arc::new(Mutex::new((Vec::new(), room, error))))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").0.clone()).expect("utf-8")
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = self.0.lock().expect("no panic");
        let taken = bytes.len().min(pipe.1);
        if taken == 0 {
            return Err(pipe.2.into());
        }
        pipe.1 -= taken;
        pipe.0.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_line_per_record() {
    let pipe = Pipe::new(usize::MAX, ErrorKind::Other);
    let records = batch(3);
    assert_eq!(ConsoleExporter::new(pipe.clone()).export(&records).await, Delivery::Delivered);
    let lines: Vec<Value> =
        pipe.text().lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    assert_eq!(lines, records.iter().map(|record| record.to_otel_log()).collect::<Vec<_>>());
    assert!(pipe.text().ends_with("}\n"));
}

#[tokio::test]
async fn a_reader_that_is_gone_is_refused() {
    let exporter = ConsoleExporter::new(Pipe::new(0, ErrorKind::BrokenPipe));
    assert!(matches!(exporter.export(&batch(1)).await, Delivery::Refused { .. }));
    assert!(matches!(exporter.health().await, Health::Down(_)));
}

#[tokio::test]
async fn after_a_torn_line_records_begin_on_a_line_of_their_own() {
    let pipe = Pipe::new(10, ErrorKind::WouldBlock);
    let exporter = ConsoleExporter::new(pipe.clone());
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Unknown);
    pipe.0.lock().expect("no panic").1 = usize::MAX;
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
    assert_eq!(exporter.health().await, Health::Ok);
    let text = pipe.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "{\"timestam"));
    assert!(serde_json::from_str::<Value>(lines[1]).is_ok());
}

#[test]
fn it_has_no_settings() {
    let script = Arc::new(Script::default());
    assert!(create(&ConsolePlugin, json!({}), &script).is_ok());
    assert!(create(&ConsolePlugin, json!({"pretty": true}), &script).is_err());
}

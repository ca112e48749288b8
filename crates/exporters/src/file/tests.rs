use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use magicapi_plugin::{Delivery, Health, SettingsSpec, TelemetryConfig, TelemetryExporter, ValueKind};
use serde_json::{Value, json};

use super::appender::{Appender, Fault};
use super::{FilePlugin, FileSettings};
use crate::testing::{Script, batch, create, large_record};

fn exporter(path: &Path) -> Box<dyn TelemetryExporter> {
    create(&FilePlugin, json!({ "path": path }), &Arc::new(Script::default())).expect("an exporter")
}

async fn init(exporter: &dyn TelemetryExporter) -> Result<(), String> {
    exporter.init(&TelemetryConfig::default()).await.map_err(|e| e.to_string())
}

fn line(text: &str) -> impl Iterator<Item = &[u8]> {
    std::iter::once(text.as_bytes())
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).expect("a file").lines().map(Into::into).collect()
}

#[tokio::test]
async fn whole_lines_in_a_file_of_ones_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("records.jsonl");
    let exporter = exporter(&path);
    init(&*exporter).await.expect("init");
    let records = batch(3);
    assert_eq!(exporter.export(&records).await, Delivery::Delivered);
    assert_eq!(exporter.export(&records[..1]).await, Delivery::Delivered);
    let written: Vec<Value> = lines(&path).iter().map(|l| serde_json::from_str(l).expect("json")).collect();
    let sent: Vec<Value> = [0, 1, 2, 0].iter().map(|n: &usize| records[*n].to_otel_log()).collect();
    assert_eq!(written, sent);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
    }
    exporter.shutdown().await.expect("shutdown");
}

#[tokio::test]
async fn bodies_too_large_to_gather_keep_their_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("records.jsonl");
    let mut records = batch(2);
    records.insert(1, large_record());
    records.push(large_record());
    assert_eq!(exporter(&path).export(&records).await, Delivery::Delivered);
    let expected: Vec<u8> =
        records.iter().flat_map(|record| [&record.otel_log_json(), &b"\n"[..]].concat()).collect();
    assert!(fs::read(&path).expect("a file") == expected, "the documents, in order, a line each");
}

#[tokio::test]
async fn a_torn_line_is_ended_before_the_next_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("records.jsonl");
    fs::write(&path, "{\"whole\":1}\n{\"torn\":").expect("a file");
    let exporter = exporter(&path);
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
    let lines = lines(&path);
    assert_eq!((lines.len(), lines[1].as_str()), (3, "{\"torn\":"));
    assert!(serde_json::from_str::<Value>(&lines[2]).is_ok());
}

#[tokio::test]
async fn rotation_by_move_by_deletion_and_by_truncation() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, moved) = (dir.path().join("records.jsonl"), dir.path().join("records.jsonl.1"));
    let exporter = exporter(&path);
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
    fs::rename(&path, &moved).expect("moved");
    assert_eq!(exporter.export(&batch(2)).await, Delivery::Delivered);
    assert_eq!((lines(&moved).len(), lines(&path).len()), (1, 2));
    fs::remove_file(&path).expect("deleted");
    assert_eq!(exporter.export(&batch(3)).await, Delivery::Delivered);
    assert_eq!(lines(&path).len(), 3);
    OpenOptions::new().write(true).open(&path).expect("a file").set_len(0).expect("truncated");
    assert_eq!(exporter.export(&batch(4)).await, Delivery::Delivered);
    assert_eq!(lines(&path).len(), 4);
    assert!(!fs::read(&path).expect("a file").contains(&0), "no hole at the beginning");
}

#[tokio::test]
async fn one_writer_per_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("records.jsonl");
    let (first, second) = (exporter(&path), exporter(&path));
    init(&*first).await.expect("init");
    let error = init(&*second).await.expect_err("locked");
    assert!(error.contains("records.jsonl") && error.contains("another exporter or gateway"), "{error}");
    assert!(matches!(second.export(&batch(1)).await, Delivery::Refused { .. }));
    assert!(matches!(second.health().await, Health::Down(_)));
    first.shutdown().await.expect("shutdown");
    init(&*second).await.expect("the lock is free");
    assert_eq!(second.export(&batch(1)).await, Delivery::Delivered);
    assert_eq!(second.health().await, Health::Ok);
}

#[tokio::test]
async fn what_is_no_place_for_a_file_is_said_with_its_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("missing/records.jsonl");
    let missing_error = init(&*exporter(&missing)).await.expect_err("no directory");
    assert!(
        missing_error.contains("there is no directory") && missing_error.contains("create it"),
        "{missing_error}"
    );
    assert!(matches!(exporter(&missing).export(&batch(1)).await, Delivery::Refused { .. }));
    fs::create_dir(dir.path().join("directory")).expect("a directory");
    let error = init(&*exporter(&dir.path().join("directory"))).await.expect_err("a directory");
    assert!(error.contains("names a file"), "{error}");
    #[cfg(target_os = "linux")]
    {
        let error = init(&*exporter(Path::new("/dev/null"))).await.expect_err("a device");
        assert!(error.contains("no regular file"), "{error}");
    }
}

#[test]
fn settings_are_checked() {
    let script = Arc::new(Script::default());
    for (settings, part) in [
        (json!({}), "path: missing"),
        (json!({"path": ""}), "path: missing"),
        (json!({"path": "records/"}), "is a directory"),
        (json!({"path": ".."}), "is a directory"),
        (json!({"path": "x", "fsync": "always"}), "batch"),
        (json!({"path": "x", "rotate": {"sise": 1}}), "sise"),
        (json!({"path": "x", "rotate": {"size": 0}}), "rotate.size: must be more than 0"),
        (json!({"path": "x", "rotate": {"age": "0s"}}), "rotate.age: must be more than 0"),
        (json!({"path": "x", "rotate": {"age": "1d", "keep": 0}}), "rotate.keep: must be more than 0"),
        (json!({"path": "x", "rotate": {"keep": 3}}), "rotate.keep: is about rotated files"),
        (json!({"path": "x", "rotate": {"keep_for": "1d"}}), "rotate.keep_for: is about rotated files"),
        (json!({"path": "x", "compression": "gzip"}), "compression: is about rotated files"),
    ] {
        let error = create(&FilePlugin, settings, &script).err().expect("an error");
        assert!(error.contains(part), "{error}");
    }
    let spec = SettingsSpec::of::<FileSettings>();
    let fsync = spec.keys().iter().find(|key| key.name == "fsync").expect("fsync");
    assert_eq!(fsync.kind, ValueKind::OneOf(vec!["never".into(), "batch".into()]));
}

/// Every rotated file, unpacked, the oldest first; `None` while some are not packed yet.
fn rotated(dir: &Path) -> Option<Vec<Vec<u8>>> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries.filter(|path| !path.ends_with("records.jsonl")).collect();
    paths.sort();
    let unpack = |path: &std::path::PathBuf| {
        let packed =
            fs::read(path).ok().filter(|_| path.extension().is_some_and(|ending| ending == "zst"))?;
        Some(zstd::decode_all(&packed[..]).expect("a whole file"))
    };
    paths.iter().map(unpack).collect()
}

/// Batches of every size, over files that hold few of them: every record is in one file, once, in order.
#[tokio::test]
async fn every_record_is_once_in_the_rotated_files() {
    const SIZE: usize = 20_000;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("records.jsonl");
    let settings = json!({ "path": path, "rotate": { "size": SIZE }, "compression": "zstd" });
    let exporter = create(&FilePlugin, settings, &Arc::new(Script::default())).expect("an exporter");
    init(&*exporter).await.expect("init");
    let mut sent = Vec::new();
    for number in 0..200_usize {
        let n = u8::try_from(number).expect("few");
        let records = match number % 40 {
            39 => vec![large_record()],
            _ => vec![crate::testing::record(n); number % 7 + 1],
        };
        assert_eq!(exporter.export(&records).await, Delivery::Delivered);
        sent.extend(records.iter().flat_map(|record| [&record.otel_log_json(), &b"\n"[..]].concat()));
    }
    let files = eventually(|| rotated(dir.path())).await;
    assert!(files.len() > 20, "{}", files.len());
    let lines = |file: &Vec<u8>| file.split(|byte| *byte == b'\n').count() - 1;
    assert!(
        files.iter().all(|file| file.len() <= SIZE || lines(file) == 1),
        "a single batch alone is larger"
    );
    assert!([files.concat(), fs::read(&path).expect("a file")].concat() == sent, "all, once, in order");
    exporter.shutdown().await.expect("shutdown");
}

/// Polls until there is something.
async fn eventually<T>(look: impl Fn() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "not in time");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_file_gets_too_old_while_nothing_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("records.jsonl");
    let settings = json!({ "path": path, "rotate": { "age": "300ms" } });
    let exporter = create(&FilePlugin, settings, &Arc::new(Script::default())).expect("an exporter");
    init(&*exporter).await.expect("init");
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
    let entries = || fs::read_dir(dir.path()).expect("a directory").count();
    assert_eq!((exporter.health().await, entries()), (Health::Ok, 1), "young");
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    assert_eq!((exporter.health().await, entries()), (Health::Ok, 2));
    assert_eq!(fs::metadata(&path).expect("a new file").len(), 0);
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    assert_eq!((exporter.health().await, entries()), (Health::Ok, 2), "an empty file is not put away");
    assert!(exporter.health().await == Health::Ok && one_writer(&path).await, "the new one is locked");
}

/// Whether nobody else may write to the file.
async fn one_writer(path: &Path) -> bool {
    matches!(exporter(path).export(&batch(1)).await, Delivery::Refused { .. })
}

#[cfg(unix)]
#[tokio::test]
async fn what_cannot_be_rotated_goes_on_and_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, real) = (dir.path().join("records.jsonl"), dir.path().join("elsewhere"));
    fs::write(&real, "").expect("a file");
    std::os::unix::fs::symlink(&real, &path).expect("a link");
    let settings = json!({ "path": path, "rotate": { "size": 10 } });
    let exporter = create(&FilePlugin, settings, &Arc::new(Script::default())).expect("an exporter");
    for written in 1..4 {
        assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
        assert_eq!(lines(&real).len(), written);
    }
    let Health::Degraded(reason) = exporter.health().await else { panic!("degraded") };
    assert!(
        reason.contains("records.jsonl cannot be rotated") && reason.contains("symbolic link"),
        "{reason}"
    );
}

static SYNCED: AtomicUsize = AtomicUsize::new(0);

#[test]
fn every_batch_is_synced_when_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut appender = Appender::new(dir.path().join("a"), true, None);
    appender.sync = Some(|file| {
        SYNCED.fetch_add(1, Ordering::Relaxed);
        file.sync_data()
    });
    assert!(appender.append(line("1\n")).is_ok() && appender.append(line("2\n")).is_ok());
    assert_eq!(SYNCED.load(Ordering::Relaxed), 2);
    assert!(appender.close().is_ok());
    assert!(Appender::new(dir.path().join("b"), false, None).sync.is_none());
}

#[test]
fn a_failed_sync_is_not_a_delivery() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut appender = Appender::new(dir.path().join("a"), true, None);
    appender.sync = Some(|_| Err(io::Error::from(ErrorKind::Other)));
    assert!(matches!(appender.append(line("1\n")), Err(Fault::Unclear(_))));
}

/// A full disk, played by the limit on file sizes, which like a full disk takes the first part of a write. The limit
/// belongs to a process, so the test runs itself once more under one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_no_half_lines() {
    let this = std::env::current_exe().expect("a path");
    let limited = "trap '' XFSZ; ulimit -f 16; exec \"$0\" --exact --ignored file::tests::under_a_size_limit";
    // Its output goes through a pipe: the limit would hit a file too.
    let run =
        std::process::Command::new("bash").args(["-c", limited]).arg(this).env(UNDER_A_LIMIT, "1").output();
    let run = run.expect("a shell");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
}

/// Set by the parent of [`under_a_size_limit`].
const UNDER_A_LIMIT: &str = "MAGICAPI_TEST_UNDER_A_SIZE_LIMIT";

#[tokio::test]
#[ignore = "run by a_full_disk_leaves_no_half_lines"]
#[expect(clippy::disallowed_methods, reason = "a test's word to itself")]
async fn under_a_size_limit() {
    if std::env::var_os(UNDER_A_LIMIT).is_none() {
        // Run with all ignored tests: there is no limit here, and the parent test runs this one under one.
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("records.jsonl");
    let exporter = exporter(&path);
    let mut delivered = 0;
    let delivery = loop {
        match exporter.export(&batch(3)).await {
            Delivery::Delivered => delivered += 3,
            other => break other,
        }
        assert!(delivered < 1000, "there is no limit");
    };
    assert_eq!(delivery, Delivery::Retry { after: None });
    assert!(matches!(exporter.health().await, Health::Down(_)));
    let size = fs::metadata(&path).expect("metadata").len();
    let whole = |path: &Path| {
        let lines = lines(path);
        assert!(lines.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()));
        lines.len()
    };
    assert_eq!(whole(&path), delivered);
    assert_eq!(exporter.export(&batch(3)).await, Delivery::Retry { after: None });
    assert_eq!(fs::metadata(&path).expect("metadata").len(), size, "no duplicate, no half line");
    // The beginning of a large record fits; its body, which is written by itself, does not.
    OpenOptions::new().write(true).open(&path).expect("a file").set_len(0).expect("truncated");
    assert_eq!(exporter.export(&[large_record()]).await, Delivery::Retry { after: None });
    assert_eq!(fs::metadata(&path).expect("metadata").len(), 0, "nothing of it stays");
    fs::rename(&path, dir.path().join("moved")).expect("moved");
    assert_eq!(exporter.export(&batch(3)).await, Delivery::Delivered);
    assert_eq!(whole(&path), 3);
    io::stdout().flush().expect("stdout");
}

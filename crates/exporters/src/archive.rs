//! Files that were put away beside the one that is written: their names, their compression, their end.
//!
//! `records.jsonl` becomes `records-2026-11-24T02-19-03.123.jsonl`: the moment in UTC, so that names sort by time. A
//! thread of its own packs what was put away (`….jsonl.gz`) and deletes what need not be kept. A packed file has its
//! name only once it is whole and on the disk, and only then the file that it was made of goes; what a crash left
//! half done has another name and is done again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::private_file;

/// How files that were put away are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// With gzip.
    Gzip,
    /// With Zstandard.
    Zstd,
}

impl Compression {
    fn ending(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// How long the moment in a name is.
const MOMENT: usize = "2026-11-24T02-19-03.123".len();
/// Ends the name of a file that is not whole yet.
const UNFINISHED: &str = ".unfinished";
/// Old files are looked for at least this often.
const LOOK: Duration = Duration::from_hours(1);

/// What was put away of one file, and what becomes of it.
#[derive(Clone)]
pub(crate) struct Archive {
    path: PathBuf,
    compression: Compression,
    /// How many files are kept; `None` is all.
    keep: Option<usize>,
    /// How long they are kept; `None` is for ever.
    keep_for: Option<Duration>,
}

impl Archive {
    pub(crate) fn new(
        path: PathBuf,
        compression: Compression,
        keep: Option<usize>,
        keep_for: Option<Duration>,
    ) -> Self {
        Self { path, compression, keep, keep_for }
    }

    /// Moves the file to a name of its own.
    pub(crate) fn put_away(&self, now: SystemTime) -> io::Result<()> {
        self.move_away(now)
            .map_err(|error| io::Error::other(format!("{} cannot be rotated: {error}", self.path.display())))
    }

    fn move_away(&self, now: SystemTime) -> io::Result<()> {
        if fs::symlink_metadata(&self.path)?.is_symlink() {
            return Err(io::Error::other("it is a symbolic link; name the file itself in `path`"));
        }
        let now = Timestamp::try_from(now).map_err(io::Error::other)?;
        // Later than those before it, so that the order of names is the records', whatever the clock does.
        let last = self.files()?.into_keys().next_back().and_then(|last| parse(&last));
        let now = last.map_or(now, |last| now.max(last + Duration::from_millis(1)));
        let (stem, ending) = self.halves();
        fs::rename(&self.path, self.directory().join(format!("{stem}-{}{ending}", moment(now))))?;
        private_file::sync_directory(self.directory())
    }

    fn directory(&self) -> &Path {
        private_file::directory_of(&self.path)
    }

    /// What stands before and behind the moment in a name.
    fn halves(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let ending = self.path.extension().map(|ending| format!(".{}", ending.to_string_lossy()));
        (text(self.path.file_stem()), ending.unwrap_or_default())
    }

    /// What was put away, by its moments. Files with other names are none of ours.
    fn files(&self) -> io::Result<BTreeMap<String, Vec<Kept>>> {
        let (stem, ending) = self.halves();
        let mut found = BTreeMap::<String, Vec<Kept>>::new();
        for entry in fs::read_dir(self.directory())? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let hidden = name.strip_suffix(UNFINISHED).and_then(|name| name.strip_prefix('.'));
            let behind = hidden.unwrap_or(&name).strip_prefix(&stem).and_then(|rest| rest.strip_prefix('-'));
            let Some((moment, rest)) = behind.and_then(|rest| rest.split_at_checked(MOMENT)) else {
                continue;
            };
            let form = match rest.strip_prefix(&ending) {
                Some(".gz" | ".zst") if hidden.is_some() => Form::Unfinished,
                Some(".gz" | ".zst") => Form::Packed,
                Some("") if hidden.is_none() => Form::Plain,
                _ => continue,
            };
            if parse(moment).is_some() {
                found.entry(moment.to_owned()).or_default().push(Kept { form, name });
            }
        }
        for kept in found.values_mut() {
            kept.sort();
        }
        Ok(found)
    }

    /// Deletes what need not be kept, and packs what is not packed. Gives the first problem, and goes on.
    fn tidy(&self, now: SystemTime, stop: &AtomicBool) -> io::Result<()> {
        let files = self.files()?;
        let oldest =
            self.keep_for.and_then(|span| Timestamp::try_from(now.checked_sub(span)?).ok()).map(moment);
        let surplus = self.keep.map_or(0, |keep| files.len().saturating_sub(keep));
        let mut outcome = Ok(());
        for (number, (at, kept)) in files.iter().enumerate() {
            let goes = number < surplus || oldest.as_ref().is_some_and(|oldest| at < oldest);
            // The unfinished first: another of the same name is begun.
            for Kept { form, name } in kept {
                let path = self.directory().join(name);
                outcome = outcome.and(if goes || *form == Form::Unfinished {
                    fs::remove_file(path)
                } else if *form == Form::Plain && self.compression != Compression::None {
                    self.pack(name, &path, stop)
                } else {
                    Ok(())
                });
            }
        }
        outcome
    }

    fn pack(&self, name: &str, path: &Path, stop: &AtomicBool) -> io::Result<()> {
        let packed = format!("{name}{}", self.compression.ending());
        // Hidden, so that nobody who looks for `records-*` takes it for whole.
        let unfinished = self.directory().join(format!(".{packed}{UNFINISHED}"));
        let written = self.write_packed(path, &unfinished, stop);
        if let Err(error) = written.and_then(|()| fs::rename(&unfinished, self.directory().join(packed))) {
            // On a full disk its place is needed.
            let _gone = fs::remove_file(&unfinished);
            return Err(error);
        }
        private_file::sync_directory(self.directory())?;
        fs::remove_file(path)
    }

    fn write_packed(&self, from: &Path, to: &Path, stop: &AtomicBool) -> io::Result<()> {
        let (mut source, target) = (File::open(from)?, private_file::create(to)?);
        let target = if self.compression == Compression::Zstd {
            let mut encoder = zstd::Encoder::new(target, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            encoder.include_checksum(true)?;
            copy(&mut source, &mut encoder, stop)?;
            encoder.finish()?
        } else {
            let mut encoder = GzEncoder::new(target, flate2::Compression::default());
            copy(&mut source, &mut encoder, stop)?;
            encoder.finish()?
        };
        target.sync_all()
    }
}

/// One file that was put away.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    form: Form,
    name: String,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// A packed one that a crash kept from becoming whole.
    Unfinished,
    Plain,
    Packed,
}

/// The moment as it stands in names.
fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H-%M-%S%.3f").to_string()
}

/// A moment as it stands in names, and nothing else.
fn parse(text: &str) -> Option<Timestamp> {
    let at = DateTime::strptime("%Y-%m-%dT%H-%M-%S%.f", text).ok()?;
    let at = TimeZone::UTC.to_timestamp(at).ok()?;
    (moment(at) == text).then_some(at)
}

/// Copies until the end, or until told to stop, which is an error.
fn copy(from: &mut impl Read, to: &mut impl Write, stop: &AtomicBool) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("told to stop"));
        }
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            read => to.write_all(buffer.get(..read).unwrap_or_default())?,
        }
    }
}

/// The thread that tidies an archive. It ends, within a piece of a file, when this is dropped.
pub(crate) struct Archivist {
    wake: Option<SyncSender<()>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Archivist {
    /// Starts the thread, which looks at once at what an earlier process left.
    pub(crate) fn start(archive: Archive) -> io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let heard = stop.clone();
        let run = move || work(&archive, &woken, &heard);
        let thread = std::thread::Builder::new().name("file-archive".into()).spawn(run)?;
        Ok(Self { wake: Some(wake), stop, thread: Some(thread) })
    }

    /// Something was put away.
    pub(crate) fn wake(&self) {
        // It looks once for all that was put away meanwhile.
        let _heard = self.wake.as_ref().map(|wake| wake.try_send(()));
    }
}

impl Drop for Archivist {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake = None;
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

fn work(archive: &Archive, woken: &Receiver<()>, stop: &AtomicBool) {
    let mut said = None;
    loop {
        let problem = archive.tidy(SystemTime::now(), stop).err().map(|error| error.to_string());
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if let Some(problem) = problem.as_deref().filter(|_| problem != said) {
            warn!("file: what was rotated of {} stays as it is: {problem}", archive.path.display());
        }
        said = problem;
        if woken.recv_timeout(LOOK) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, SystemTime};

    use super::{Archive, Compression, moment, parse};

    const OLD: &str = "2026-11-24T02-19-03.123";
    const NEW: &str = "2026-11-25T02-19-03.123";

    fn archive(dir: &Path, compression: Compression) -> Archive {
        Archive::new(dir.join("records.jsonl"), compression, None, None)
    }

    fn tidy(archive: &Archive) -> std::io::Result<()> {
        archive.tidy(SystemTime::now(), &AtomicBool::new(false))
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    #[test]
    fn names_are_in_the_order_of_the_files_whatever_the_clock_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let archive = archive(dir.path(), Compression::None);
        let now = SystemTime::now();
        for (number, back) in [0, 0, 3600, 7200, 0].into_iter().enumerate() {
            fs::write(dir.path().join("records.jsonl"), number.to_string()).expect("a file");
            archive.put_away(now - Duration::from_secs(back)).expect("put away");
        }
        let read = |name: &String| fs::read_to_string(dir.path().join(name)).expect("a file");
        assert_eq!(names(dir.path()).iter().map(read).collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
        assert!(archive.put_away(now).is_err(), "there is no file");
    }

    #[test]
    fn moments_are_those_that_we_write() {
        assert_eq!(parse(OLD).map(moment).as_deref(), Some(OLD));
        for other in ["", "2026-11-24T02-19-03.12", "2026-11-24T02-19-03.1234", "2026-13-24T02-19-03.123"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn packed_files_are_whole_and_private() {
        let text = "a line\n".repeat(100_000);
        for (compression, ending) in [(Compression::Gzip, "gz"), (Compression::Zstd, "zst")] {
            let dir = tempfile::tempdir().expect("a directory");
            fs::write(dir.path().join(format!("records-{OLD}.jsonl")), &text).expect("a file");
            tidy(&archive(dir.path(), compression)).expect("tidied");
            let packed = format!("records-{OLD}.jsonl.{ending}");
            assert_eq!(names(dir.path()), [packed.as_str()]);
            let file = File::open(dir.path().join(packed)).expect("a file");
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                assert_eq!(file.metadata().expect("metadata").permissions().mode() & 0o777, 0o600);
            }
            let mut unpacked = String::new();
            let read = match compression {
                Compression::Zstd => zstd::Decoder::new(file).expect("zstd").read_to_string(&mut unpacked),
                _ => flate2::read::GzDecoder::new(file).read_to_string(&mut unpacked),
            };
            assert!(read.is_ok() && unpacked == text);
        }
    }

    /// A crash can leave a half packed file, or one that is packed while what it was made of is still there.
    #[test]
    fn what_a_crash_left_is_done_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("a file");
        write(&format!("records-{OLD}.jsonl"), "whole\n");
        write(&format!(".records-{OLD}.jsonl.gz.unfinished"), "half");
        write(&format!("records-{NEW}.jsonl"), "whole too\n");
        write(&format!("records-{NEW}.jsonl.gz"), "packed before, by whatever version");
        tidy(&archive(dir.path(), Compression::Gzip)).expect("tidied");
        assert_eq!(
            names(dir.path()),
            [format!("records-{OLD}.jsonl.gz"), format!("records-{NEW}.jsonl.gz")],
            "each once"
        );
        for (moment, text) in [(OLD, "whole\n"), (NEW, "whole too\n")] {
            let file = File::open(dir.path().join(format!("records-{moment}.jsonl.gz"))).expect("a file");
            let mut unpacked = String::new();
            flate2::read::GzDecoder::new(file).read_to_string(&mut unpacked).expect("gzip");
            assert_eq!(unpacked, text);
        }
    }

    #[test]
    fn what_cannot_be_packed_stays_as_it_is_and_holds_up_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        for moment in [OLD, NEW] {
            fs::write(dir.path().join(format!("records-{moment}.jsonl")), "whole\n").expect("a file");
        }
        let archive = archive(dir.path(), Compression::Gzip);
        let told = archive.tidy(SystemTime::now(), &AtomicBool::new(true));
        assert!(told.is_err());
        assert_eq!(names(dir.path()), [format!("records-{OLD}.jsonl"), format!("records-{NEW}.jsonl")]);
        // In the way of the first.
        fs::create_dir_all(dir.path().join(format!("records-{OLD}.jsonl.gz/x"))).expect("a directory");
        assert!(tidy(&archive).is_err());
        assert_eq!(
            names(dir.path()),
            [
                format!("records-{OLD}.jsonl"),
                format!("records-{OLD}.jsonl.gz"),
                format!("records-{NEW}.jsonl.gz")
            ]
        );
    }

    #[test]
    fn the_oldest_go_and_nothing_of_others() {
        let day = Duration::from_hours(24);
        for (keep, keep_for) in [(Some(1), None), (None, Some(day))] {
            let dir = tempfile::tempdir().expect("a directory");
            let others = [
                "records.jsonl".to_owned(),
                "records-old.jsonl".to_owned(),
                format!("records-{OLD}.jsonl.bak"),
                format!("records-{OLD}.json"),
                format!("records-{OLD}x.jsonl"),
                format!("records-b-{OLD}.jsonl"),
                format!(".records-{OLD}.jsonl"),
                "records-2026-13-24T02-19-03.123.jsonl".to_owned(),
            ];
            let ours = [
                format!("records-{OLD}.jsonl"),
                format!("records-{OLD}.jsonl.gz"),
                "records-2026-11-24T02-19-04.123.jsonl.zst".to_owned(),
                format!("records-{NEW}.jsonl.zst"),
            ];
            for name in others.iter().chain(&ours) {
                fs::write(dir.path().join(name), "x").expect("a file");
            }
            let archive = Archive::new(dir.path().join("records.jsonl"), Compression::None, keep, keep_for);
            let now = SystemTime::try_from(parse(NEW).expect("a moment")).expect("a time") + day / 2;
            archive.tidy(now, &AtomicBool::new(false)).expect("tidied");
            let mut left = others.to_vec();
            left.push(format!("records-{NEW}.jsonl.zst"));
            left.sort();
            assert_eq!(names(dir.path()), left, "{keep:?} {keep_for:?}");
        }
    }
}

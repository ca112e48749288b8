//! The file: opened, locked, followed through rotation, appended to in whole lines.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::private_file::{self, directory_of, is_same};
use crate::rotation::Rotation;

/// Why lines are not on the file, and what that means for them.
pub(super) enum Fault {
    /// The file cannot be used until somebody puts that right; nothing was written.
    SetUp(String),
    /// Nothing was written, or what was written has been cut away again.
    NotWritten(String),
    /// Part of it may be there.
    Unclear(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::SetUp(text) | Self::NotWritten(text) | Self::Unclear(text)) = self;
        f.write_str(text)
    }
}

/// Pieces below this are gathered; larger ones, which are bodies, go to the file from where they are.
const GATHERED: usize = 64 << 10;

/// Appends to one file; the only one that does.
pub(super) struct Appender {
    path: PathBuf,
    file: Option<File>,
    /// Forces what was written onto the disk; `None` leaves that to the operating system.
    pub(super) sync: Option<fn(&File) -> io::Result<()>>,
    rotation: Option<Rotation>,
}

impl Appender {
    pub(super) fn new(path: PathBuf, sync: bool, rotation: Option<Rotation>) -> Self {
        Self { path, file: None, sync: if sync { Some(File::sync_data) } else { None }, rotation }
    }

    /// Opens the file unless it is open already and still the one that the path names.
    pub(super) fn open(&mut self) -> Result<(), Fault> {
        self.current()?;
        let started = self.rotation.as_mut().map_or(Ok(()), Rotation::start);
        started.map_err(|e| Fault::NotWritten(format!("no thread: {e}")))
    }

    /// Puts the file away when that is due with `more` bytes.
    pub(super) fn rotate(&mut self, more: usize) -> Result<(), Fault> {
        if self.rotation.is_none() {
            return Ok(());
        }
        let metadata = self.current()?.metadata().map_err(|e| Fault::NotWritten(e.to_string()))?;
        self.rotation.iter_mut().for_each(|rotation| rotation.turn(&metadata, more as u64));
        self.current().map(|_| ())
    }

    /// What is wrong although records are written.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.rotation.as_ref()?.trouble()
    }

    /// Appends whole lines, given in pieces: all of them or none.
    pub(super) fn append<'a>(&mut self, lines: impl Iterator<Item = &'a [u8]>) -> Result<(), Fault> {
        let (sync, path) = (self.sync, self.path.clone());
        let file = self.current()?;
        let explain = |e: io::Error| format!("{}: {e}", path.display());
        let before = file.metadata().map_err(|e| Fault::NotWritten(explain(e)))?.len();
        let (given, written) = write(file, lines);
        if let Err(e) = written {
            return match cut(file, before, given) {
                Ok(()) => Err(Fault::NotWritten(explain(e))),
                Err(_) => Err(self.lost(explain(e))),
            };
        }
        match sync.map_or(Ok(()), |sync| sync(file)) {
            Ok(()) => Ok(()),
            Err(e) => Err(self.lost(explain(e))),
        }
    }

    /// Closes the file, which also lets go of its lock.
    pub(super) fn close(&mut self) -> Result<(), Fault> {
        self.rotation.iter_mut().for_each(Rotation::stop);
        let synced = match (&self.file, self.sync) {
            (Some(file), Some(sync)) => sync(file),
            _ => Ok(()),
        };
        self.file = None;
        synced.map_err(|e| Fault::Unclear(format!("{}: {e}", self.path.display())))
    }

    /// Gives the file up: opened again, it is looked at for a torn line.
    fn lost(&mut self, text: String) -> Fault {
        self.file = None;
        Fault::Unclear(text)
    }

    /// The open file; opened when it is not, or when the path leads elsewhere by now.
    fn current(&mut self) -> Result<&mut File, Fault> {
        let still = |file: &File| match (file.metadata(), fs::metadata(&self.path)) {
            (Ok(ours), Ok(there)) => is_same(&ours, &there),
            _ => false,
        };
        let file = if let Some(file) = self.file.take().filter(still) {
            file
        } else {
            self.rotation.iter_mut().for_each(Rotation::opened);
            open(&self.path, self.sync.is_some() || self.rotation.is_some())?
        };
        Ok(self.file.insert(file))
    }
}

fn open(path: &Path, durable: bool) -> Result<File, Fault> {
    let at = path.display();
    let new = !path.exists();
    let mut file = private_file::append_to(path).map_err(|e| refuse(path, &e))?;
    let ours = file.metadata().map_err(|e| Fault::NotWritten(format!("{at}: {e}")))?;
    if !ours.is_file() {
        return Err(Fault::SetUp(format!(
            "{at} is no regular file; for standard output use `type: console`"
        )));
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let remedy = "give each exporter and each gateway a path of its own";
            return Err(Fault::SetUp(format!("{at} is written by another exporter or gateway; {remedy}")));
        }
        // Some network file systems have no locks; that is no reason to write nothing.
        Err(TryLockError::Error(e)) => {
            warn!("file: {at} cannot be locked ({e}); nothing else may write to it");
        }
    }
    // Whoever held the lock may have put the file away in between.
    if !fs::metadata(path).is_ok_and(|there| is_same(&ours, &there)) {
        return Err(Fault::NotWritten(format!("{at} was moved away while it was opened")));
    }
    let durable = new && durable;
    let prepared = end_torn_line(&mut file)
        .and_then(|()| if durable { private_file::sync_directory(directory_of(path)) } else { Ok(()) });
    prepared.map_err(|e| Fault::NotWritten(format!("{at}: {e}")))?;
    Ok(file)
}

/// Writes the pieces, and says how many bytes of them the file may have got.
fn write<'a>(file: &File, mut pieces: impl Iterator<Item = &'a [u8]>) -> (u64, io::Result<()>) {
    let mut out = BufWriter::with_capacity(GATHERED, file);
    let mut given = 0;
    let taken = pieces.try_for_each(|piece| {
        given += piece.len() as u64;
        out.write_all(piece)
    });
    let written = taken.and_then(|()| out.flush());
    // Dropped whole, it would try once more to write what is left in it.
    drop(out.into_parts());
    (given, written)
}

fn refuse(path: &Path, error: &io::Error) -> Fault {
    let at = path.display();
    match error.kind() {
        ErrorKind::NotFound => Fault::SetUp(format!(
            "{at}: there is no directory {}; create it, or change `path`",
            directory_of(path).display()
        )),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Fault::SetUp(format!("{at}: {error}; let the gateway's user write there, or change `path`"))
        }
        ErrorKind::IsADirectory | ErrorKind::NotADirectory => {
            Fault::SetUp(format!("{at}: {error}; `path` names a file in a directory that exists"))
        }
        _ => Fault::NotWritten(format!("{at}: {error}")),
    }
}

/// A writer that died within a line must not have the next record on the same line.
fn end_torn_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

/// Takes back what a failed write left. A file that was truncated meanwhile must not be stretched.
fn cut(file: &File, before: u64, written_at_most: u64) -> io::Result<()> {
    match file.metadata()?.len().checked_sub(before) {
        None | Some(0) => Ok(()),
        Some(more) if more <= written_at_most => file.set_len(before),
        Some(_) => Err(io::Error::other("somebody else has written to it")),
    }
}

//! Private directories and files, and how they become durable.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Ends the name of a file that is still being written.
pub(crate) const UNFINISHED: &str = "tmp";

/// Where files go that cannot be read.
pub(crate) const CORRUPT: &str = "corrupt";

/// Makes a directory that nobody else can read; one that exists stays as it is.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Opens a new file that nobody else can read.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Writes a whole file so that it is either there, complete and on disk, or not at all.
pub(crate) fn write_whole(dir: &Path, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let unfinished = dir.join(format!("{name}.{UNFINISHED}"));
    let written = (|| {
        let mut file = create_private(&unfinished).or_else(|error| again(error, &unfinished))?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        std::fs::rename(&unfinished, dir.join(name))
    })();
    // What is half written, or not known to last, is of no use; that it cannot be removed either changes nothing.
    let path = match &written {
        Ok(()) => dir.join(name),
        Err(_) => unfinished,
    };
    written.and_then(|()| sync_dir(dir)).inspect_err(|_| {
        let _gone = std::fs::remove_file(path);
    })
}

/// One of that name is left where it could neither be finished nor removed.
fn again(error: io::Error, path: &Path) -> io::Result<File> {
    if error.kind() != io::ErrorKind::AlreadyExists {
        return Err(error);
    }
    std::fs::remove_file(path)?;
    create_private(path)
}

/// Makes names that were added to or removed from a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{UNFINISHED, write_whole};

    #[test]
    fn what_an_earlier_try_left_is_in_no_ones_way() {
        let dir = tempfile::tempdir().expect("a directory");
        let left = dir.path().join(format!("x.{UNFINISHED}"));
        std::fs::write(&left, b"half of it, and longer").expect("a file");
        write_whole(dir.path(), "x", &[b"all ", b"of it"]).expect("a place");
        assert_eq!(std::fs::read(dir.path().join("x")).expect("a file"), b"all of it");
        assert!(!left.exists());
    }
}

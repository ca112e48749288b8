//! The bytes of both kinds of file, version 1. All numbers are little-endian.
//!
//! ```text
//! head      "MAGISPL\0"  version u8  kind u8  0 x 6
//! batch     head  packed u32  records u32  raw u64  crc u32  zstd( { length u32  bytes }* )
//! journal   head  { length u32  crc u32  bytes }*
//! ```
//!
//! A batch's checksum (CRC-32) covers its three numbers and the packed bytes; an entry's covers its length and bytes.

use std::path::Path;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::SpoolError;

/// What every file begins with.
const MAGIC: &[u8; 8] = b"MAGISPL\0";
/// The version that is written; older ones are read.
const VERSION: u8 = 1;
/// The head's length.
pub(crate) const HEAD: usize = 16;
/// Length and checksum before each entry of a journal.
pub(crate) const ENTRY_HEAD: usize = 8;
/// Numbers of a batch after its head.
const BATCH_HEAD: usize = 20;
/// Fast enough to keep up with a queue that overflows.
const COMPRESSION: i32 = 1;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Batch = b'B',
    Journal = b'J',
}

pub(crate) fn head(kind: Kind) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8] = VERSION;
    head[9] = kind as u8;
    head
}

/// Checks a file's head and gives what follows it.
pub(crate) fn after_head(path: &Path, file: &Bytes, kind: Kind) -> Result<Bytes, SpoolError> {
    let corrupt = |what| SpoolError::Corrupt { path: path.to_owned(), what };
    let head = file.get(..HEAD).ok_or_else(|| corrupt("cut short in its head"))?;
    if head[..8] != *MAGIC {
        return Err(corrupt("not a spool file"));
    }
    if head[8] > VERSION {
        return Err(SpoolError::Newer { path: path.to_owned(), version: head[8] });
    }
    if head[9] != kind as u8 {
        return Err(corrupt("another kind of file"));
    }
    Ok(file.slice(HEAD..))
}

/// A batch's file after its head.
pub(crate) fn pack<B: AsRef<[u8]>>(records: &[B]) -> std::io::Result<Vec<u8>> {
    let raw_len: usize = records.iter().map(|record| 4 + record.as_ref().len()).sum();
    let mut raw = Vec::with_capacity(raw_len);
    for record in records {
        raw.put_u32_le(length(record.as_ref().len())?);
        raw.extend_from_slice(record.as_ref());
    }
    let packed = zstd::bulk::compress(&raw, COMPRESSION)?;
    let mut out = Vec::with_capacity(BATCH_HEAD + packed.len());
    out.put_u32_le(length(packed.len())?);
    out.put_u32_le(length(records.len())?);
    out.put_u64_le(raw.len() as u64);
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&out);
    checksum.update(&packed);
    out.put_u32_le(checksum.finalize());
    out.extend_from_slice(&packed);
    Ok(out)
}

/// The records of a batch's file.
pub(crate) fn unpack(path: &Path, file: &Bytes) -> Result<Vec<Bytes>, SpoolError> {
    let corrupt = |what| SpoolError::Corrupt { path: path.to_owned(), what };
    let body = after_head(path, file, Kind::Batch)?;
    let mut numbers = body.get(..BATCH_HEAD).ok_or_else(|| corrupt("cut short in its numbers"))?;
    let checked = &body[..BATCH_HEAD - 4];
    let (packed_len, count) = (numbers.get_u32_le() as usize, numbers.get_u32_le() as usize);
    let (raw_len, sum) = (numbers.get_u64_le(), numbers.get_u32_le());
    let packed = &body[BATCH_HEAD..];
    if packed.len() != packed_len {
        return Err(corrupt("cut short, or longer than it says"));
    }
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(checked);
    checksum.update(packed);
    if checksum.finalize() != sum {
        return Err(corrupt("its checksum does not match"));
    }
    let raw_len = usize::try_from(raw_len).map_err(|_| corrupt("larger than this machine can address"))?;
    let raw = zstd::bulk::decompress(packed, raw_len).map_err(|_| corrupt("cannot be unpacked"))?;
    let mut raw = Bytes::from(raw);
    let mut records = Vec::with_capacity(count.min(raw.len()));
    while raw.has_remaining() {
        if raw.len() < 4 {
            return Err(corrupt("a record's length is cut short"));
        }
        let length = raw.get_u32_le() as usize;
        if raw.len() < length {
            return Err(corrupt("a record is cut short"));
        }
        records.push(raw.split_to(length));
    }
    if records.len() == count { Ok(records) } else { Err(corrupt("its number of records does not match")) }
}

/// Checks a batch's file by its first bytes and its length.
pub(crate) fn check_length(path: &Path, begin: &Bytes, length: u64) -> Result<(), SpoolError> {
    let corrupt = |what| SpoolError::Corrupt { path: path.to_owned(), what };
    let body = after_head(path, begin, Kind::Batch)?;
    let mut numbers = body.get(..BATCH_HEAD).ok_or_else(|| corrupt("cut short in its numbers"))?;
    if (HEAD + BATCH_HEAD) as u64 + u64::from(numbers.get_u32_le()) == length {
        Ok(())
    } else {
        Err(corrupt("cut short, or longer than it says"))
    }
}

/// Appends one entry of a journal to a buffer.
pub(crate) fn put_entry(out: &mut BytesMut, entry: &[u8]) -> std::io::Result<()> {
    let length = length(entry.len())?;
    out.reserve(ENTRY_HEAD + entry.len());
    out.put_u32_le(length);
    out.put_u32_le(entry_sum(length, entry));
    out.extend_from_slice(entry);
    Ok(())
}

/// Takes the next entry off a journal's bytes; `None` at the end, an error at what is no entry. Nothing after such a
/// place can be trusted.
pub(crate) fn take_entry(path: &Path, rest: &mut Bytes) -> Result<Option<Bytes>, SpoolError> {
    let corrupt = |what| SpoolError::Corrupt { path: path.to_owned(), what };
    if rest.is_empty() {
        return Ok(None);
    }
    if rest.len() < ENTRY_HEAD {
        return Err(corrupt("cut short between two entries"));
    }
    let (length, sum) = (rest.get_u32_le(), rest.get_u32_le());
    if rest.len() < length as usize {
        return Err(corrupt("cut short in an entry"));
    }
    let entry = rest.split_to(length as usize);
    if entry_sum(length, &entry) == sum {
        Ok(Some(entry))
    } else {
        Err(corrupt("an entry's checksum does not match"))
    }
}

fn entry_sum(length: u32, entry: &[u8]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&length.to_le_bytes());
    checksum.update(entry);
    checksum.finalize()
}

fn length(bytes: usize) -> std::io::Result<u32> {
    u32::try_from(bytes).map_err(|_| std::io::Error::other("more than 4 GiB in one piece"))
}

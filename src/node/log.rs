//! A shard's append-only log: batches of operations with a CRC each, on disk before a write is acknowledged. IO.
//!
//! One record is one batch, and the next is begun only after the one before is on disk. So after a crash only the
//! last record can be torn: it is cut. A damaged record with a whole one behind it is damage to acknowledged data,
//! and the log refuses to open.
//!
//! The same encoding of batches goes over the wire between nodes, because it keeps every bit of a vector.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::cell::sync_parent;

const MAGIC: &[u8; 8] = b"vnlog\0\0\x01";
/// Length and CRC in front of each record.
const HEAD: usize = 8;

/// Which write of a shard a point's state comes from: the assignment's epoch, then the primary's count within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub epoch: u64,
    pub seq: u64,
}

/// What a write makes of a point.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// `payload` is JSON text.
    Upsert {
        vector: Vec<f32>,
        payload: Option<Vec<u8>>,
    },
    Delete,
}

/// One point's new state.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    pub id: u64,
    pub version: Version,
    pub change: Change,
}

impl Op {
    /// Bytes it takes in a batch.
    pub fn encoded_len(&self) -> usize {
        match &self.change {
            Change::Delete => 25,
            Change::Upsert { vector, payload } => encoded_len(vector.len(), payload.as_ref().map_or(0, Vec::len)),
        }
    }
}

/// Bytes an upsert takes in a batch.
pub fn encoded_len(size: usize, payload: usize) -> usize {
    25 + 8 + 4 * size + payload
}

pub fn encode(ops: &[Op]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ops.iter().map(Op::encoded_len).sum());
    for op in ops {
        out.push(matches!(op.change, Change::Upsert { .. }) as u8);
        for number in [op.id, op.version.epoch, op.version.seq] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        if let Change::Upsert { vector, payload } = &op.change {
            // A length of 0 is "no payload": JSON text has at least one byte.
            let payload = payload.as_deref().unwrap_or_default();
            out.extend_from_slice(&(vector.len() as u32).to_le_bytes());
            out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            vector.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
            out.extend_from_slice(payload);
        }
    }
    out
}

/// Reads a batch; `None` if it is not one, or holds numbers that are not finite.
pub fn decode(mut from: &[u8]) -> Option<Vec<Op>> {
    let mut ops = Vec::new();
    while let Some((&kind, rest)) = from.split_first() {
        from = rest;
        let id = u64::from_le_bytes(take(&mut from, 8)?.try_into().ok()?);
        let epoch = u64::from_le_bytes(take(&mut from, 8)?.try_into().ok()?);
        let seq = u64::from_le_bytes(take(&mut from, 8)?.try_into().ok()?);
        let change = match kind {
            0 => Change::Delete,
            1 => {
                let size = u32::from_le_bytes(take(&mut from, 4)?.try_into().ok()?) as usize;
                let payload = u32::from_le_bytes(take(&mut from, 4)?.try_into().ok()?) as usize;
                let numbers = take(&mut from, size.checked_mul(4)?)?.as_chunks::<4>().0;
                let vector: Vec<f32> = numbers.iter().map(|b| f32::from_le_bytes(*b)).collect();
                let payload = take(&mut from, payload)?;
                if !vector.iter().all(|x| x.is_finite()) {
                    return None;
                }
                Change::Upsert { vector, payload: (!payload.is_empty()).then(|| payload.to_vec()) }
            }
            _ => return None,
        };
        ops.push(Op { id, version: Version { epoch, seq }, change });
    }
    Some(ops)
}

fn take<'a>(from: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(n)?;
    *from = rest;
    Some(taken)
}

/// Why a log does not open or take more.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{}: damaged at byte {at}, with whole records behind it; restore the file, or let another replica refill this node", path.display())]
    Damaged { path: PathBuf, at: usize },
    #[error("{}: not a log of this version", .0.display())]
    NotALog(PathBuf),
    #[error("an earlier write to the log failed; restart the node")]
    Broken,
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// An open log, positioned at its end.
pub struct Log {
    path: PathBuf,
    file: File,
    len: u64,
    /// A write or sync failed half-way: nobody knows what is on disk until the file is read again.
    broken: bool,
}

impl Log {
    /// Opens or makes the log and hands every whole batch to `replay`, in order. A torn last record is cut off.
    ///
    /// # Errors
    /// When acknowledged data is damaged, or the file cannot be read.
    pub fn open(path: &Path, mut replay: impl FnMut(Vec<Op>)) -> Result<Log, LogError> {
        let io = |error| LogError::Io { path: path.into(), error };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(io)?;
        if content.len() < MAGIC.len() && MAGIC.starts_with(&content) {
            file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
            file.write_all(MAGIC).and_then(|()| file.sync_all()).and_then(|()| sync_parent(path)).map_err(io)?;
            return Ok(Log { path: path.into(), file, len: MAGIC.len() as u64, broken: false });
        }
        if !content.starts_with(MAGIC) {
            return Err(LogError::NotALog(path.into()));
        }
        let mut at = MAGIC.len();
        while at < content.len() {
            match record(&content[at..]) {
                Some((len, ops)) => {
                    replay(ops);
                    at += len;
                }
                None if (at + 1..content.len()).any(|later| record(&content[later..]).is_some()) => {
                    return Err(LogError::Damaged { path: path.into(), at });
                }
                None => break,
            }
        }
        if at < content.len() {
            tracing::warn!(log = %path.display(), at, cut = content.len() - at, "cut off a write that was never acknowledged");
            file.set_len(at as u64).and_then(|()| file.sync_all()).map_err(io)?;
        }
        file.seek(SeekFrom::Start(at as u64)).map_err(io)?;
        Ok(Log { path: path.into(), file, len: at as u64, broken: false })
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Appends a batch; it is on disk when this returns.
    ///
    /// # Errors
    /// When it may not be; then the log takes nothing more.
    pub fn append(&mut self, ops: &[Op]) -> Result<(), LogError> {
        if self.broken {
            return Err(LogError::Broken);
        }
        let record = sealed(&encode(ops));
        if let Err(error) = self.file.write_all(&record).and_then(|()| self.file.sync_data()) {
            self.broken = true;
            return Err(LogError::Io { path: self.path.clone(), error });
        }
        self.len += record.len() as u64;
        Ok(())
    }

    /// Replaces the content by these batches, whole or not at all.
    ///
    /// # Errors
    /// When the new file cannot be written; the old one stays in use.
    pub fn rewrite(&mut self, batches: impl Iterator<Item = Vec<Op>>) -> Result<(), LogError> {
        let io = |error| LogError::Io { path: self.path.clone(), error };
        let tmp = self.path.with_extension("tmp");
        let mut out = io::BufWriter::new(File::create(&tmp).map_err(io)?);
        out.write_all(MAGIC).map_err(io)?;
        let mut len = MAGIC.len() as u64;
        for batch in batches {
            let record = sealed(&encode(&batch));
            out.write_all(&record).map_err(io)?;
            len += record.len() as u64;
        }
        let file = out.into_inner().map_err(|e| io(e.into_error()))?;
        file.sync_all().and_then(|()| fs::rename(&tmp, &self.path)).map_err(io)?;
        // From here on the new file is the log, whatever becomes of the directory's sync.
        (self.file, self.len) = (file, len);
        sync_parent(&self.path).map_err(io)
    }
}

fn sealed(batch: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD + batch.len());
    record.extend_from_slice(&(batch.len() as u32).to_le_bytes());
    record.extend_from_slice(&crc32(batch).to_le_bytes());
    record.extend_from_slice(batch);
    record
}

/// The whole record at the start of `from`, with its length.
fn record(from: &[u8]) -> Option<(usize, Vec<Op>)> {
    let len = u32::from_le_bytes(from.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(from.get(4..HEAD)?.try_into().ok()?);
    let batch = from.get(HEAD..HEAD.checked_add(len)?)?;
    // An empty batch is never written; its zeros would pass for a record in a hole.
    (len > 0 && crc32(batch) == crc).then(|| decode(batch)).flatten().map(|ops| (HEAD + len, ops))
}

/// CRC-32 as in zlib.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut c = i as u32;
            let mut bit = 0;
            while bit < 8 {
                c = if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
                bit += 1;
            }
            table[i] = c;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, b| TABLE[((crc ^ u32::from(*b)) & 0xff) as usize] ^ (crc >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(id: u64) -> Op {
        let change = match id % 3 {
            0 => Change::Delete,
            n => {
                Change::Upsert { vector: vec![id as f32, 0.1, -7.5], payload: (n == 1).then(|| b"{\"a\":1}".to_vec()) }
            }
        };
        Op { id, version: Version { epoch: 4, seq: id }, change }
    }

    fn replayed(path: &Path) -> Result<Vec<Op>, LogError> {
        let mut ops = Vec::new();
        Log::open(path, |batch| ops.extend(batch))?;
        Ok(ops)
    }

    #[test]
    fn the_crc_is_zlibs() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn only_a_torn_tail_is_cut_wherever_it_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.log");
        let mut log = Log::open(&path, |_| {}).unwrap();
        log.append(&[op(1), op(2)]).unwrap();
        let whole = log.len() as usize;
        log.append(&[op(3), op(4)]).unwrap();
        let content = fs::read(&path).unwrap();
        for end in whole..content.len() {
            fs::write(&path, &content[..end]).unwrap();
            assert_eq!(replayed(&path).unwrap(), [op(1), op(2)], "torn at {end}");
            assert_eq!(fs::metadata(&path).unwrap().len(), whole as u64);
        }
        // What is appended after the cut is found again.
        let mut log = Log::open(&path, |_| {}).unwrap();
        log.append(&[op(5)]).unwrap();
        assert_eq!(replayed(&path).unwrap(), [op(1), op(2), op(5)]);
    }

    #[test]
    fn damage_in_the_middle_refuses_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.log");
        let mut log = Log::open(&path, |_| {}).unwrap();
        log.append(&[op(1), op(2)]).unwrap();
        let first_end = log.len() as usize;
        log.append(&[op(4)]).unwrap();
        let content = fs::read(&path).unwrap();
        for at in MAGIC.len()..first_end {
            let mut damaged = content.clone();
            damaged[at] ^= 0x40;
            fs::write(&path, &damaged).unwrap();
            assert!(matches!(replayed(&path), Err(LogError::Damaged { .. })), "byte {at}");
            assert_eq!(fs::read(&path).unwrap(), damaged, "a refused log was changed");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_upset_the_reader(bytes: Vec<u8>) {
            if let Some(ops) = decode(&bytes) {
                proptest::prop_assert_eq!(decode(&encode(&ops)), Some(ops));
            }
        }
    }
}

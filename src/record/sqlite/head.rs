//! How many writes the journal has acknowledged, in a small file beside it. SQLite takes a log whose end is damaged or cut
//! off for one that was never longer; held against this number, the loss shows. IO: one file, written in place.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A number and its check, each 8 bytes.
const SLOT: usize = 16;

/// The file. Two numbers stand in it and are written in turns: one that was torn leaves the one before.
pub struct Head {
    path: PathBuf,
    file: File,
}

impl Head {
    pub fn path(storage: &Path) -> PathBuf {
        storage.join("vecscale.db-head")
    }

    /// `file` is the open file at [`Head::path`].
    pub fn new(storage: &Path, file: File) -> Head {
        Head { path: Head::path(storage), file }
    }

    /// Notes a write that is on disk. One that cannot be noted is as good: only its loss would not show.
    pub fn note(&self, writes: i64) {
        let number = writes.to_le_bytes();
        let slot = [number, check(number)].concat();
        let at = SLOT as u64 * (writes as u64 % 2);
        if let Err(error) = self.file.write_all_at(&slot, at).and_then(|()| self.file.sync_data()) {
            tracing::warn!(path = %self.path.display(), %error, "the count of writes was not noted");
        }
    }
}

/// The highest number that was noted; 0 when there is none that can be read.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn noted(storage: &Path) -> io::Result<i64> {
    let bytes = match std::fs::read(Head::path(storage)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let number = |slot: &[u8]| {
        let (number, kept) = (slot[..8].try_into().ok()?, &slot[8..]);
        (check(number) == *kept).then(|| i64::from_le_bytes(number))
    };
    Ok(bytes.chunks_exact(SLOT).filter_map(number).max().unwrap_or(0))
}

/// Tells a number from one with a flipped bit; never all zeros, as a hole in a file is.
fn check(number: [u8; 8]) -> [u8; 8] {
    (!u64::from_le_bytes(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

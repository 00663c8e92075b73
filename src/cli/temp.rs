//! A folder for the time of one command.

use std::path::PathBuf;

use anyhow::Context;

/// Gone when dropped.
pub struct TempDir(pub PathBuf);

impl TempDir {
    /// # Errors
    /// When it cannot be made, or is there already.
    pub fn new(purpose: &str) -> anyhow::Result<TempDir> {
        let path = std::env::temp_dir().join(format!("vecscale-{purpose}-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(TempDir(path))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // a second try would fare no better
    }
}

//! Programs of Debian that a test needs.

use std::process::{Command, Stdio};

/// Whether a program is there. Without it the test fails in CI, and says elsewhere that it did not run.
pub fn has(program: &str, package: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(
        found || std::env::var_os("CI").is_none(),
        "{program} is missing: it comes with Debian's package {package}"
    );
    if !found {
        eprintln!("not run: {program} is not installed (Debian's package {package})");
    }
    found
}

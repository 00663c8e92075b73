//! What is wrong with a configuration, in words for the person who wrote it. Pure data.

use std::fmt;

/// One thing that is wrong. Values under keys that may hold secrets are never part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `pools[0].thresholds.cpu_threshold_low`.
    pub path: String,
    pub what: String,
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}: {}", self.path, self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n      hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Why a configuration was not taken. `Display` is the whole report, several lines long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{name}: cannot be read: {why}\n    hint: {hint}")]
    Unreadable { name: String, why: String, hint: &'static str },
    #[error("{name}: {what}\n    hint: a configuration has at most {limit} bytes")]
    TooLarge { name: String, what: String, limit: usize },
    /// Not YAML at all; line and column count from 1.
    #[error("{name}{}: not readable as YAML: {what}\n    hint: nothing else was checked; mend this first", place(*at))]
    Broken { name: String, at: Option<(u64, u64)>, what: String },
    #[error("{}", report(name, problems))]
    Problems { name: String, problems: Vec<Problem> },
}

fn place(at: Option<(u64, u64)>) -> String {
    at.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default()
}

fn report(name: &str, problems: &[Problem]) -> String {
    let plural = if problems.len() == 1 { "problem" } else { "problems" };
    let mut text = format!("{name}: {} {plural}", problems.len());
    for problem in problems {
        text.push('\n');
        text.push_str(&problem.to_string());
    }
    text
}

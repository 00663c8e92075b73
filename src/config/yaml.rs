//! YAML text -> a plain tree, with limits on size, depth and aliases. Pure.

use serde_json::Value;

use super::problem::ConfigError;

/// A configuration is written by people; more than this is a mistake or an attack.
pub const MAX_BYTES: usize = 1 << 20;

/// Reads one YAML (or JSON) document. Duplicate keys and numbers that are not finite are refused.
///
/// # Errors
/// [`ConfigError::TooLarge`] and [`ConfigError::Broken`], with line and column.
pub fn read(text: &str, name: &str) -> Result<Value, ConfigError> {
    if text.len() > MAX_BYTES {
        let what = format!("{} bytes are too many", text.len());
        return Err(ConfigError::TooLarge { name: name.into(), what, limit: MAX_BYTES });
    }
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: 32,
            max_nodes: 100_000,
            max_documents: 1,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 8,
        },
        // `off` is a word of ours (`checks: {cpu_high: off}`), not the YAML 1.1 spelling of false.
        strict_booleans: true,
        // The reader keeps only so many lines of comment in mind, and a reference is mostly comment.
        emit_comments: false,
        // A snippet would print neighbouring lines, which may hold what nobody should see in a log.
        with_snippet: false,
    };
    serde_yaml::from_str_with_options(text, options).map_err(|error| {
        let at = error.location().map(|at| (at.line(), at.column()));
        ConfigError::Broken { name: name.into(), at, what: words(&error) }
    })
}

/// The reader's message in our words where it speaks of its own options, without the place, which stands in front.
fn words(error: &serde_yaml::Error) -> String {
    match error {
        serde_yaml::Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key} stands there twice"),
        serde_yaml::Error::NonFiniteFloat { value, .. } => format!("{value} is not a finite number"),
        serde_yaml::Error::Budget { .. } => "it is too deep, too large, or more than one document".into(),
        serde_yaml::Error::AliasReplayLimitExceeded { .. }
        | serde_yaml::Error::AliasReplayStackDepthExceeded { .. } => "its aliases expand to too much".into(),
        other => {
            let said = other.to_string();
            let first = said.lines().next().unwrap_or_default();
            first.split(" at line ").next().unwrap_or(first).chars().take(200).collect()
        }
    }
}

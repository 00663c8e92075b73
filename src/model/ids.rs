//! Names of things, checked once where they enter. Pure.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A node's identity: `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`. Nothing else ever becomes an argument, a path or a label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Arc<str>);

/// Why a text is no node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a node id: letters, digits, '.', '_' and '-' only, starting with a letter or digit, at most 63")]
pub struct NotANodeId(String);

impl NodeId {
    /// # Errors
    /// When `text` does not match the pattern above. The error shows at most 80 characters of it.
    pub fn new(text: &str) -> Result<NodeId, NotANodeId> {
        if is_name(text) { Ok(NodeId(text.into())) } else { Err(NotANodeId(text.chars().take(80).collect())) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `text` may name a node, a pool, a collection, a custom signal.
pub fn is_name(text: &str) -> bool {
    text.len() <= 63
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

impl TryFrom<String> for NodeId {
    type Error = NotANodeId;
    fn try_from(text: String) -> Result<Self, NotANodeId> {
        NodeId::new(&text)
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> String {
        id.0.to_string()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a pool, matching [`is_name`].
pub type PoolName = Arc<str>;

/// An operation's id: UUIDv7 text, so that ids sort by time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(pub Arc<str>);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_texts_are_no_node_ids() {
        let long = "a".repeat(64);
        for text in ["", "-rf", ".hidden", "../up", "a/b", "a b", "a\nb", "a\0b", "$(id)", "n'1", "ä", long.as_str()] {
            assert!(NodeId::new(text).is_err(), "{text:?} was taken");
        }
        for text in ["n1", "qdrant-0.local", "A_9", &"a".repeat(63)] {
            assert!(NodeId::new(text).is_ok(), "{text:?} was refused");
        }
    }
}

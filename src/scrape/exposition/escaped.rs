//! A text as the page has it, its escapes undone only on demand. Pure.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

/// A name or label value, escapes and all. `\\`, `\"` and `\n` are escapes; any other backslash stands for itself.
#[derive(Clone, Copy)]
pub struct Escaped<'p> {
    raw: &'p str,
    /// Whether there is a backslash in it.
    escapes: bool,
}

impl<'p> Escaped<'p> {
    pub(super) fn new(raw: &'p str, escapes: bool) -> Self {
        Escaped { raw, escapes }
    }

    /// A text that has no escapes.
    pub(super) fn plain(raw: &'p str) -> Self {
        Escaped { raw, escapes: false }
    }

    /// Whether it says `text`. Does not allocate.
    pub fn is(&self, text: &str) -> bool {
        if self.escapes { self.bytes().eq(text.bytes()) } else { self.raw == text }
    }

    /// Whether it says `head` and then `tail`. Does not allocate.
    pub fn is_joined(&self, head: &str, tail: &str) -> bool {
        if self.escapes {
            self.bytes().eq(head.bytes().chain(tail.bytes()))
        } else {
            self.raw.len() == head.len() + tail.len() && self.raw.starts_with(head) && self.raw.ends_with(tail)
        }
    }

    /// What it says. Allocates only when there are escapes.
    pub fn text(&self) -> Cow<'p, str> {
        if !self.escapes {
            return Cow::Borrowed(self.raw);
        }
        let bytes = self.bytes().collect();
        Cow::Owned(String::from_utf8(bytes).expect("escapes are undone at ASCII characters only"))
    }

    fn bytes(&self) -> impl Iterator<Item = u8> + 'p {
        let mut left = self.raw.as_bytes().iter().copied().peekable();
        std::iter::from_fn(move || {
            let byte = left.next()?;
            if byte != b'\\' {
                return Some(byte);
            }
            let meant = match left.peek() {
                Some(b'\\') => b'\\',
                Some(b'"') => b'"',
                Some(b'n') => b'\n',
                _ => return Some(b'\\'),
            };
            left.next();
            Some(meant)
        })
    }
}

impl PartialEq for Escaped<'_> {
    fn eq(&self, other: &Self) -> bool {
        if self.escapes || other.escapes { self.bytes().eq(other.bytes()) } else { self.raw == other.raw }
    }
}

impl Eq for Escaped<'_> {}

impl Hash for Escaped<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if self.escapes {
            self.bytes().for_each(|byte| state.write_u8(byte));
        } else {
            state.write(self.raw.as_bytes());
        }
        state.write_u8(0xff); // no byte of UTF-8: keeps "ab","c" apart from "a","bc"
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

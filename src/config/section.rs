//! A cursor over one mapping of the file: reads keys with checks and collects every problem instead of stopping. Pure.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use super::problem::Problem;
use crate::spelling::did_you_mean;
use crate::units;

/// All problems found so far, in the order of finding.
#[derive(Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub fn add(&self, path: String, what: impl Into<String>, hint: impl Into<String>) {
        let hint = Some(hint.into()).filter(|h| !h.is_empty());
        self.0.borrow_mut().push(Problem { path, what: what.into(), hint });
    }

    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub fn into_list(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// One mapping. A key that is absent reads as `None`, so that the default stays; a key that is wrong does too, and the
/// problem is noted. [`Section::close`] or [`Section::note_unknown`] come last: they note the keys that were never asked
/// for.
pub(super) struct Section<'a> {
    path: String,
    fields: Option<&'a Map<String, Value>>,
    /// The keys that were asked for: what a mapping may hold is what the code reads from it.
    known: RefCell<Vec<&'static str>>,
    pub problems: &'a Problems,
}

/// One value with its place, for lists and free-form maps.
pub(super) struct Item<'a> {
    pub path: String,
    pub value: &'a Value,
    pub problems: &'a Problems,
}

impl<'a> Item<'a> {
    pub fn problem(&self, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.add(self.path.clone(), what, hint);
    }

    pub fn text(&self) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.problem(format!("{} where text is needed", kind(self.value)), "");
        }
        text
    }

    pub fn section(&self) -> Section<'a> {
        let fields = self.value.as_object();
        if fields.is_none() && !self.value.is_null() {
            self.problem(format!("{} where a mapping of keys is needed", kind(self.value)), "");
        }
        Section { path: self.path.clone(), fields, known: RefCell::default(), problems: self.problems }
    }

    /// Seconds as a number, or a text such as `5m`.
    pub fn duration(&self, allowed: RangeInclusive<Duration>) -> Option<Duration> {
        let read = match self.value {
            Value::Number(number) => number.as_f64().and_then(|s| Duration::try_from_secs_f64(s).ok()),
            Value::String(text) => units::duration(text),
            _ => None,
        };
        let hint = format!("seconds, or such as 5m, 1h30m, 500ms; {}", between(&allowed, |d| seconds(*d)));
        match read {
            Some(duration) if allowed.contains(&duration) => read,
            Some(duration) => {
                self.problem(format!("{} is not allowed", seconds(duration)), hint);
                None
            }
            None => {
                self.problem(format!("{} where a duration is needed", shown(self.value)), hint);
                None
            }
        }
    }

    /// A list of texts with at least one entry.
    pub fn texts(&self) -> Option<Vec<String>> {
        let entries = self.value.as_array().filter(|l| !l.is_empty());
        let texts = entries.and_then(|l| l.iter().map(|v| v.as_str().map(String::from)).collect());
        if texts.is_none() {
            self.problem("a list of texts is needed", "such as [\"/etc/vecscale/create-node\", \"--fast\"]");
        }
        texts
    }
}

impl<'a> Section<'a> {
    pub fn root(value: &'a Value, problems: &'a Problems) -> Section<'a> {
        let fields = value.as_object();
        if fields.is_none() && !value.is_null() {
            problems.add("(whole file)".into(), format!("{} where a mapping of keys is needed", kind(value)), "");
        }
        Section { path: String::new(), fields, known: RefCell::default(), problems }
    }

    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    pub fn problem(&self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.add(self.path(key), what, hint);
    }

    /// The section's own place.
    pub fn own_path(&self) -> String {
        self.path.clone()
    }

    /// A value without marking its key as known.
    pub fn peek_own(&self, key: &str) -> Option<&'a Value> {
        self.fields?.get(key)
    }

    /// A value one level deeper, without marking any key as known.
    pub fn peek(&self, section: &str, key: &str) -> Option<&'a Value> {
        self.peek_own(section)?.get(key)
    }

    /// The value, if the key is there; marks the key as known.
    pub fn item(&self, key: &'static str) -> Option<Item<'a>> {
        self.know(key);
        let value = self.fields?.get(key)?;
        Some(Item { path: self.path(key), value, problems: self.problems })
    }

    pub fn has(&self, key: &'static str) -> bool {
        self.know(key);
        self.fields.is_some_and(|f| f.contains_key(key))
    }

    /// Like [`Section::item`], with an empty value (`key:`) noted as a problem.
    fn filled(&self, key: &'static str) -> Option<Item<'a>> {
        let item = self.item(key)?;
        if item.value.is_null() {
            item.problem("has no value", "leave the key out for its default");
            return None;
        }
        Some(item)
    }

    fn wrong<T>(&self, item: &Item<'_>, needed: &str, hint: impl Into<String>) -> Option<T> {
        item.problem(format!("{} where {needed} is needed", shown(item.value)), hint);
        None
    }

    /// The mapping under `key`; an empty one when the key is absent, empty or wrong.
    pub fn section(&self, key: &'static str) -> Section<'a> {
        match self.item(key) {
            Some(item) => item.section(),
            None => Section { path: self.path(key), fields: None, known: RefCell::default(), problems: self.problems },
        }
    }

    /// The list under `key`; `None` when the key is absent or wrong.
    pub fn list(&self, key: &'static str) -> Option<Vec<Item<'a>>> {
        let item = self.filled(key)?;
        let Some(entries) = item.value.as_array() else {
            return self.wrong(&item, "a list", "each entry on a line of its own, starting with `- `");
        };
        let place = |(i, value)| Item { path: format!("{}[{i}]", item.path), value, problems: self.problems };
        Some(entries.iter().enumerate().map(place).collect())
    }

    /// All keys with their values, for mappings whose keys are names.
    pub fn entries(&self) -> Vec<(&'a str, Item<'a>)> {
        let place = |(key, value): (&'a String, &'a Value)| {
            (key.as_str(), Item { path: self.path(key), value, problems: self.problems })
        };
        self.fields.into_iter().flatten().map(place).collect()
    }

    pub fn text(&self, key: &'static str) -> Option<&'a str> {
        self.filled(key)?.text()
    }

    pub fn flag(&self, key: &'static str) -> Option<bool> {
        let item = self.filled(key)?;
        item.value.as_bool().or_else(|| self.wrong(&item, "true or false", ""))
    }

    pub fn number(&self, key: &'static str, allowed: RangeInclusive<f64>) -> Option<f64> {
        let item = self.filled(key)?;
        match item.value.as_f64() {
            Some(number) if allowed.contains(&number) => Some(number),
            Some(number) => {
                item.problem(format!("{number} is not allowed"), between(&allowed, f64::to_string));
                None
            }
            None => self.wrong(&item, "a number", between(&allowed, f64::to_string)),
        }
    }

    pub fn whole(&self, key: &'static str, allowed: RangeInclusive<u32>) -> Option<u32> {
        let item = self.filled(key)?;
        match item.value.as_u64() {
            Some(number) if u32::try_from(number).is_ok_and(|n| allowed.contains(&n)) => Some(number as u32),
            Some(number) => {
                item.problem(format!("{number} is not allowed"), between(&allowed, u32::to_string));
                None
            }
            None => self.wrong(&item, "a whole number", between(&allowed, u32::to_string)),
        }
    }

    pub fn duration(&self, key: &'static str, allowed: RangeInclusive<Duration>) -> Option<Duration> {
        self.filled(key)?.duration(allowed)
    }

    /// Bytes as a number, or a text such as `256MiB`.
    pub fn size(&self, key: &'static str, least: u64) -> Option<u64> {
        let item = self.filled(key)?;
        let read = match item.value {
            Value::String(text) => units::size(text),
            other => other.as_u64(),
        };
        let hint = format!("bytes, or such as 256MiB, 1GiB; at least {least} bytes");
        read.filter(|size| *size >= least).or_else(|| self.wrong(&item, "a size", hint))
    }

    /// One of the given words. `later` are words of the documentation that this version does not know yet.
    pub fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, T)], later: &[&str]) -> Option<T> {
        let item = self.filled(key)?;
        let all = words.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        let hint = format!("one of: {}", all.join(", "));
        let Some(text) = item.value.as_str() else { return self.wrong(&item, "a word", hint) };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        if later.contains(&text) {
            item.problem(format!("{text} is not available in this version"), hint);
        } else {
            item.problem(format!("{} is not known", shown(item.value)), did_you_mean(text, &all).unwrap_or(hint));
        }
        None
    }

    /// Notes that `key` is missing unless `value` is there or the key was given and found wrong.
    pub fn required<T>(&self, key: &'static str, value: Option<T>, hint: &str) -> Option<T> {
        if value.is_none() && !self.has(key) {
            self.problem(key, "is missing", hint);
        }
        value
    }

    /// Notes every key that nobody asked for. `later` are keys of the documentation that this version does not know
    /// yet; `elsewhere` are keys that have their place in another mapping, with the words that say so.
    pub fn note_unknown(&self, later: &[&str], elsewhere: &[(&str, &str)]) {
        let known = self.known.borrow();
        for key in self.fields.into_iter().flat_map(Map::keys).filter(|k| !known.contains(&k.as_str())) {
            let name: String = key.chars().take(60).flat_map(char::escape_debug).collect();
            if later.contains(&key.as_str()) {
                self.problem(&name, "is not available in this version", "leave it out");
            } else if let Some((_, hint)) = elsewhere.iter().find(|(k, _)| k == key) {
                self.problem(&name, "has no meaning here", *hint);
            } else {
                let hint = did_you_mean(key, &known).unwrap_or_else(|| {
                    if known.is_empty() { String::new() } else { format!("known: {}", known.join(", ")) }
                });
                self.problem(&name, "is not known", hint);
            }
        }
    }

    /// Notes every key that nobody asked for.
    pub fn close(&self) {
        self.note_unknown(&[], &[]);
    }

    fn know(&self, key: &'static str) {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
    }
}

/// Overwrites a default with what the file says, if it says something.
pub(super) fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping of keys",
    }
}

/// A short value as it stands, or the kind of a long one.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() <= 40 => format!("{text:?}"),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        other => kind(other).into(),
    }
}

fn between<T>(allowed: &RangeInclusive<T>, show: impl Fn(&T) -> String) -> String {
    format!("allowed: {} to {}", show(allowed.start()), show(allowed.end()))
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

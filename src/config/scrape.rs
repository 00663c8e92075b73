//! `scrape` -> the pages of every node and the signals on them. Looks whether credential files exist; otherwise pure.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::decide::policy::CustomLine;
use crate::model::Signal;
use crate::operate::drivers::DatastoreSettings;
use crate::scrape;
use crate::scrape::prometheus::Query;
use crate::scrape::settings::{Aggregate, Authorization, Format, Page, ScrapeSettings};

use super::prometheus;
use super::section::{Section, set};
use super::signals::{self, Custom, Given};

const USAGES: [Signal; 3] = [Signal::Cpu, Signal::Memory, Signal::Storage];

/// The preset of the node's own page: the one that the file names, else the datastore's. A JSON page has none.
pub(super) fn preset_name(pool: &Section<'_>, datastore: Option<&DatastoreSettings>) -> &'static str {
    // Only peeked at: the section is read, and its problems are noted, by `read`.
    let named = pool.peek("scrape", "preset").and_then(|v| v.as_str());
    if let Some(preset) = scrape::PRESETS.iter().find(|p| Some(**p) == named) {
        return preset;
    }
    let is_json = pool.peek("scrape", "format").and_then(|v| v.as_str()) == Some("json");
    match datastore {
        Some(DatastoreSettings::Vectornode) if !is_json => "vectornode",
        Some(DatastoreSettings::Qdrant(_)) if !is_json => "qdrant",
        _ => "none",
    }
}

/// A page as read, with what tells explicit signals from those of a preset.
struct Draft {
    page: Page,
    queries: BTreeMap<Signal, Query>,
    place: String,
    explicit: Vec<Signal>,
}

/// `preset` is that of the first page, which `datastore` serves; `custom` are the pool's own signals; `interval` the time between checks, which a
/// scrape must not outlast.
pub(super) fn read(
    section: &Section<'_>,
    preset: &'static str,
    datastore: Option<&DatastoreSettings>,
    custom: impl FnOnce(Format) -> Vec<Custom>,
    interval: Duration,
    base_dir: &Path,
) -> (ScrapeSettings, BTreeMap<Arc<str>, CustomLine>) {
    let timeout =
        timeout(section, ScrapeSettings::DEFAULT_TIMEOUT, interval, "a scrape must end before the next check begins");
    let aggregate = aggregate(section);

    let mut drafts = vec![page(section, preset, base_dir)];
    let mut ca_file = None;
    if let Some(DatastoreSettings::Qdrant(settings)) = datastore {
        // One door for data and pages.
        let key = settings.api_key_file.clone().map(|credentials_file| Authorization { credentials_file });
        drafts[0].page.authorization = drafts[0].page.authorization.take().or(key);
        ca_file = settings.ca_file.clone();
    }
    let also = section.list("also");
    for item in also.into_iter().flatten() {
        let entry = item.section();
        let port = entry.whole("port", 1..=65535).map(|p| p as u16);
        let named = entry.peek_own("preset").and_then(|v| v.as_str());
        let preset = scrape::PRESETS.iter().find(|p| Some(**p) == named).unwrap_or(&"none");
        let mut draft = page(&entry, preset, base_dir);
        draft.page.port = port;
        if port.is_none() && !entry.has("port") && !entry.has("path") {
            item.problem("names neither port nor path", "give at least what differs from the node's own page");
        }
        for signal in draft.queries.keys() {
            let hint = "put it under the `signals` of `scrape` itself";
            section.problems.add(format!("{}.{signal}.promql", draft.place), "a query is of no page", hint);
        }
        entry.close();
        drafts.push(draft);
    }
    for further in scrape::further(preset) {
        drafts.push(drafts[0].further(further));
    }
    one_source_each(section, &mut drafts);
    // One that was there for what others tell is not asked.
    let mut place = 0;
    let (own, wanted) = (drafts.len() - scrape::further(preset).len(), |draft: &Draft| !draft.page.signals.is_empty());
    drafts.retain(|draft| {
        place += 1;
        place <= own || wanted(draft)
    });
    let mut lines = BTreeMap::new();
    for Custom { name, source, line } in custom(drafts[0].page.format) {
        lines.extend(line.map(|line| (name.clone(), line)));
        drafts[0].take(Signal::Custom(name), source);
    }
    let queries = std::mem::take(&mut drafts[0].queries);
    let prometheus = prometheus::read(section, queries, interval, base_dir);
    section.note_unknown(&[], &[("port", "it belongs to `also`; the node's own port stands in its address")]);
    (
        ScrapeSettings { pages: drafts.into_iter().map(|d| d.page).collect(), timeout, aggregate, prometheus, ca_file },
        lines,
    )
}

/// For all that is asked at one check. `hint` says why it must not be longer than the time between checks, which also
/// shortens the default.
pub(super) fn timeout(section: &Section<'_>, default: Duration, interval: Duration, hint: &str) -> Duration {
    let mut timeout = default.min(interval);
    set(&mut timeout, section.duration("timeout", Duration::from_millis(10)..=Duration::from_secs(3600)));
    if timeout > interval {
        let what =
            format!("{} s is longer than health_check_interval ({} s)", timeout.as_secs_f64(), interval.as_secs_f64());
        section.problem("timeout", what, hint);
    }
    timeout
}

impl Draft {
    /// Takes a signal from where it is said to come from, and from nowhere else.
    fn take(&mut self, signal: Signal, given: Given) {
        match given {
            Given::Page(source) => drop(self.page.signals.insert(signal, source)),
            Given::Prometheus(query) => {
                self.page.signals.remove(&signal);
                self.queries.insert(signal, query);
            }
            Given::Nowhere => drop(self.page.signals.remove(&signal)),
        }
    }

    /// A page that a preset adds, reached as this one is.
    fn further(&self, further: scrape::Further) -> Draft {
        let scrape::Further { path, format, signals } = further;
        let authorization = self.page.authorization.clone();
        let page = Page { port: None, path: path.into(), format, signals, authorization };
        Draft { page, queries: BTreeMap::new(), place: self.place.clone(), explicit: Vec::new() }
    }
}

fn page(section: &Section<'_>, preset: &'static str, base_dir: &Path) -> Draft {
    let _ = section.choice("preset", &scrape::PRESETS.map(|p| (p, p)), &[]); // its problem; the value came as an argument
    let mut path = Page::DEFAULT_PATH.to_string();
    set(&mut path, section.text("path").map(String::from));
    if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
        section.problem("path", "is not the path of a page", "such as /metrics");
    }
    let mut format = Format::default();
    set(&mut format, section.choice("format", &[("text", Format::Text), ("json", Format::Json)], &[]));
    if format == Format::Json && preset != "none" {
        section.problem("preset", format!("{preset} is for text pages"), "leave the preset out, or the format");
    }
    let found = scrape::preset(preset).unwrap_or_default();
    let own = signals::built_in(&section.section("signals"), format);
    let authorization = authorization(section, base_dir);
    let mut draft = Draft {
        page: Page { port: None, path, format, signals: found, authorization },
        queries: BTreeMap::new(),
        place: section.path("signals"),
        explicit: own.keys().cloned().collect(),
    };
    own.into_iter().for_each(|(signal, given)| draft.take(signal, given));
    draft
}

/// A signal comes from one page: an explicit entry wins over presets, an earlier preset over a later one.
fn one_source_each(section: &Section<'_>, drafts: &mut [Draft]) {
    for signal in Signal::BUILT_IN {
        let explicit: Vec<usize> = (0..drafts.len()).filter(|i| drafts[*i].explicit.contains(&signal)).collect();
        if let [first, second, ..] = explicit[..] {
            let what = format!("is given at {} too", drafts[first].place);
            section.problems.add(format!("{}.{signal}", drafts[second].place), what, "a signal comes from one page");
        }
        let preset = (0..drafts.len()).find(|i| drafts[*i].page.signals.contains_key(&signal));
        let keep = explicit.first().copied().or(preset);
        for (i, draft) in drafts.iter_mut().enumerate() {
            if Some(i) != keep {
                draft.page.signals.remove(&signal);
            }
        }
    }
}

/// `aggregate: max` for the three usages, or a mapping for each.
fn aggregate(section: &Section<'_>) -> BTreeMap<Signal, Aggregate> {
    let words = [("mean", Aggregate::Mean), ("max", Aggregate::Max), ("p95", Aggregate::P95)];
    let mut all: BTreeMap<Signal, Aggregate> = USAGES.map(|s| (s, Aggregate::default())).into();
    if section.peek_own("aggregate").is_some_and(|v| v.is_object()) {
        let each = section.section("aggregate");
        for (signal, name) in USAGES.into_iter().zip(["cpu_usage", "memory_usage", "storage_usage"]) {
            if let Some(how) = each.choice(name, &words, &[]) {
                all.insert(signal, how);
            }
        }
        each.close();
    } else if let Some(how) = section.choice("aggregate", &words, &[]) {
        all.values_mut().for_each(|v| *v = how);
    }
    all
}

/// A bearer token from a file, for pages and for the API of a provider.
pub(super) fn authorization(section: &Section<'_>, base_dir: &Path) -> Option<Authorization> {
    if !section.has("authorization") {
        return None;
    }
    let authorization = section.section("authorization");
    let hint = "a file whose content is the bearer token";
    let given = authorization.text("credentials_file");
    let file = authorization.required("credentials_file", given, hint);
    authorization
        .note_unknown(&["type"], &[("credentials", "put the secret into a file and name it in `credentials_file`")]);
    let path = base_dir.join(file?);
    if let Err(error) = std::fs::File::open(&path) {
        authorization.problem("credentials_file", format!("{}: {error}", path.display()), hint);
    }
    Some(Authorization { credentials_file: path })
}

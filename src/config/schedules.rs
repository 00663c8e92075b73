//! `pools[].schedules`: each window's times, and what it sets. Pure, but for the rules of its zone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::{Date, DateTime};

use crate::model::{Asks, Freeze, ScalingThresholds, Timestamp};
use crate::schedule::{End, Pattern, SOME_DAY, Span, Window, Zone};
use crate::units;

use super::pool::{named, one_threshold};
use super::section::{Item, Section, set};

const LEAST: Duration = Duration::from_secs(60);
const MOST: Duration = Duration::from_secs(366 * 86_400);
/// Starts that are looked at to know the shortest time between two.
const STARTS: usize = 500;

const TIMES: &str = "either `start` with `end` or `duration`, or `from` with `to`";
const FIELDS: &str = "five fields: minute, hour, day of the month, month, day of the week, such as \"0 8 * * Mon-Fri\"";
const DATES: &str = "such as 2026-11-27, 2026-11-27T08:00 (on the clock of `timezone`) or 2026-11-27T08:00:00Z";

/// The windows of a pool. Each must fit over the thresholds of the file by itself.
pub(super) fn read(pool: &Section<'_>, below: &ScalingThresholds) -> Vec<Arc<Window>> {
    let items = pool.list("schedules").unwrap_or_default();
    let mut windows: Vec<Arc<Window>> = Vec::new();
    for item in &items {
        let Some(window) = window(item, below) else { continue };
        if windows.iter().any(|other| other.name == window.name) {
            let what = format!("{} is the name of another window", window.name);
            item.problems.add(format!("{}.name", item.path), what, "each window needs a name of its own");
        }
        windows.push(Arc::new(window));
    }
    windows
}

/// `None` only together with a problem.
fn window(item: &Item<'_>, below: &ScalingThresholds) -> Option<Window> {
    let section = item.section();
    let name = section.required("name", named(&section, "name"), "such as `name: office`");
    let zone = match section.text("timezone") {
        Some(text) => {
            Zone::named(text).map_err(|hint| section.problem("timezone", format!("{text:?} is not known"), hint)).ok()
        }
        None => Some(Zone::utc()),
    };
    let span = span(&section, zone);
    let sets = sets(&section);
    let desired_nodes = section.whole("desired_nodes", 1..=1000);
    let freeze = section.choice("freeze", &[("down", Freeze::Down), ("all", Freeze::All)], &[]);
    let mut ahead = true;
    set(&mut ahead, section.flag("ahead"));
    section.close();
    if !ScalingThresholds::names().chain(["desired_nodes", "freeze"]).any(|key| section.peek_own(key).is_some()) {
        item.problem("sets nothing", "thresholds such as min_nodes: 5, desired_nodes: 5, or freeze: down | all");
    }
    let asks = Asks { sets: sets?, desired_nodes, freeze };
    let window = Window { name: name?.as_str().into(), span: span?, asks, ahead };
    fits(&section, &window, below);
    Some(window)
}

/// What the whole would be while the window is open. What is wrong without it is told elsewhere.
fn fits(section: &Section<'_>, window: &Window, below: &ScalingThresholds) {
    if !below.problems().is_empty() {
        return;
    }
    for problem in window.problems(below) {
        let (place, what) = match section.peek_own(problem.name) {
            Some(_) => (section.path(problem.name), problem.what),
            None => (section.own_path(), format!("{} {}", problem.name, problem.what)),
        };
        section.problems.add(place, format!("while it is open: {what}"), problem.hint);
    }
}

fn sets(section: &Section<'_>) -> Option<BTreeMap<&'static str, f64>> {
    let mut sets = BTreeMap::new();
    let mut trial = ScalingThresholds::of(Default::default());
    let mut sound = true;
    for name in ScalingThresholds::names().filter(|name| section.has(name)) {
        match one_threshold(section, name, &mut trial) {
            Some(value) => {
                sets.insert(name, value);
            }
            None => sound = false,
        }
    }
    sound.then_some(sets)
}

fn span(section: &Section<'_>, zone: Option<Zone>) -> Option<Span> {
    let has = |key| section.has(key);
    match (has("start"), has("end"), has("duration"), has("from"), has("to")) {
        (true, true, false, false, false) | (true, false, true, false, false) => recurring(section, zone),
        (false, false, false, true, true) => dated(section, zone),
        (false, false, false, false, false) => {
            section.problems.add(section.own_path(), "says not when it is open", TIMES);
            None
        }
        (true, false, false, false, false) => {
            section.problem("start", "has no end", "give `end` (a pattern as `start`) or `duration` (such as 10h)");
            None
        }
        _ => {
            section.problems.add(
                section.own_path(),
                "says when it is open in more than one way, or in half of one",
                TIMES,
            );
            None
        }
    }
}

fn recurring(section: &Section<'_>, zone: Option<Zone>) -> Option<Span> {
    let start = pattern(section, "start");
    let end = if section.has("end") {
        pattern(section, "end").map(End::At)
    } else {
        section.duration("duration", LEAST..=MOST).map(End::After)
    };
    let (start, end) = (start?, end?);
    if let End::After(duration) = &end
        && let Some(period) = shortest_period(&start)
        && *duration > period
    {
        let (lasts, period) = (units::time(*duration), units::time(period));
        section.problem("duration", format!("{lasts} is longer than from one start to the next ({period})"), "");
        return None;
    }
    let span = Span::Recurring { start, end, zone: zone? };
    // As good an instant as any: after the first start after it, there must be an end.
    let opens = span.next_change(Timestamp::from_millis(SOME_DAY * 1000));
    if opens.and_then(|opens| span.next_change(opens)).is_none() {
        let place = if section.has("end") { "end" } else { "duration" };
        section.problem(place, "the window never closes", "what is to hold always stands under `thresholds`");
        return None;
    }
    Some(span)
}

fn pattern(section: &Section<'_>, key: &'static str) -> Option<Pattern> {
    let text = section.text(key)?;
    Pattern::parse(text).map_err(|why| section.problem(key, format!("{text:?}: {why}"), FIELDS)).ok()
}

fn shortest_period(start: &Pattern) -> Option<Duration> {
    let first = start.first_from(SOME_DAY)?;
    let starts: Vec<i64> = std::iter::successors(Some(first), |last| start.first_from(last + 1)).take(STARTS).collect();
    let shortest = starts.windows(2).map(|pair| pair[1] - pair[0]).min()?;
    u64::try_from(shortest).ok().map(Duration::from_secs)
}

fn dated(section: &Section<'_>, zone: Option<Zone>) -> Option<Span> {
    let (from, to) = (section.text("from"), section.text("to"));
    let zone = zone?;
    let read = |key, text: Option<&str>| {
        let text = text?;
        let at = instant(text, &zone);
        if at.is_none() {
            section.problem(key, format!("{text:?} is not a date"), DATES);
        }
        at
    };
    let (from, to) = (read("from", from), read("to", to));
    let (from, to) = (from?, to?);
    if to <= from {
        section.problem("to", format!("{to} is not after `from` ({from})"), "");
        return None;
    }
    Some(Span::Dated { from, to, zone })
}

/// With an offset, that instant; without, what the zone's clock shows first.
fn instant(text: &str, zone: &Zone) -> Option<Timestamp> {
    if let Some(at) = Timestamp::parse(text) {
        return Some(at);
    }
    if text.contains(['Z', 'z', '[', '+']) {
        return None;
    }
    let wall: DateTime = match text.parse::<Date>() {
        Ok(date) if text.len() <= 10 => date.into(),
        _ => text.parse().ok()?,
    };
    let wall = jiff::tz::TimeZone::UTC.to_timestamp(wall).ok()?.as_second();
    Some(Timestamp::from_millis(zone.first_shows(wall) * 1000))
}

//! The second calculation, which shares nothing with the first: another reader of patterns, another table of zones, and
//! instead of searching it walks from minute to minute and looks at the clock on the wall.

use chrono::{DateTime, Datelike, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

/// A window in words.
#[derive(Clone, Debug)]
pub struct Told {
    pub zone: Tz,
    pub start: String,
    pub end: ToldEnd,
}

#[derive(Clone, Debug)]
pub enum ToldEnd {
    At(String),
    Minutes(i64),
}

/// Walks over the minutes of a time; for each, whether the window is open. `None` before that can be known.
pub fn walk(window: &Told, from: DateTime<Utc>, minutes: i64) -> Vec<(DateTime<Utc>, Option<bool>)> {
    let start = fields(&window.start);
    let end = match &window.end {
        ToldEnd::At(end) => Some(fields(end)),
        ToldEnd::Minutes(_) => None,
    };
    let mut open = None;
    let mut closes = None;
    let mut before = wall(window.zone, from) - TimeDelta::minutes(1);
    let mut seen = Vec::new();
    for minute in 0..minutes {
        let now = from + TimeDelta::minutes(minute);
        let wall = wall(window.zone, now);
        // What the clock has skipped comes now, in its order; set back, it shows what it shows.
        let mut shown = if wall > before { before + TimeDelta::minutes(1) } else { wall };
        before = wall;
        if closes.is_some_and(|closes| closes <= now) {
            open = Some(false);
        }
        while shown <= wall {
            if end.as_ref().is_some_and(|end| matches(end, shown)) {
                open = Some(false);
            }
            if matches(&start, shown) {
                open = Some(true);
                if let ToldEnd::Minutes(minutes) = window.end {
                    closes = Some(now + TimeDelta::minutes(minutes));
                }
            }
            shown += TimeDelta::minutes(1);
        }
        if let (None, ToldEnd::Minutes(minutes)) = (open, &window.end)
            && minute >= *minutes
        {
            open = Some(false);
        }
        seen.push((now, open));
    }
    seen
}

pub fn wall(zone: Tz, at: DateTime<Utc>) -> NaiveDateTime {
    at.naive_utc() + TimeDelta::seconds(zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc().into())
}

type Fields = [Option<Vec<u32>>; 5];

/// `None` for a field that takes all.
fn fields(text: &str) -> Fields {
    let names =
        ["sun", "mon", "tue", "wed", "thu", "fri", "sat", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug"];
    let number = |word: &str| match names.iter().position(|name| *name == word.to_lowercase()) {
        Some(day @ 0..=6) => day as u32,
        Some(month) => month as u32 - 6,
        None => word.parse().unwrap_or_else(|_| panic!("{word} in {text}")),
    };
    let mut each =
        text.split_whitespace().zip([(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]).map(|(field, (least, most))| {
            let mut taken = Vec::new();
            for part in field.split(',') {
                let (range, step) = part.split_once('/').map_or((part, 1), |(range, step)| (range, number(step)));
                let (first, last) = match range.split_once('-') {
                    _ if range == "*" => (least, most),
                    Some((first, last)) => (number(first), number(last)),
                    None => (number(range), if step > 1 { most } else { number(range) }),
                };
                taken.extend((first..=last).step_by(step as usize));
            }
            (field != "*").then_some(taken)
        });
    std::array::from_fn(|_| each.next().unwrap_or_else(|| panic!("five fields in {text}")))
}

fn matches([minute, hour, day, month, weekday]: &Fields, wall: NaiveDateTime) -> bool {
    let in_field = |field: &Option<Vec<u32>>, value: u32| field.as_ref().is_none_or(|taken| taken.contains(&value));
    let sunday = wall.weekday().num_days_from_sunday();
    let in_week = in_field(weekday, sunday) || sunday == 0 && in_field(weekday, 7);
    let in_days = match (day, weekday) {
        (Some(_), Some(_)) => in_field(day, wall.day()) || in_week,
        _ => in_field(day, wall.day()) && in_week,
    };
    wall.second() == 0
        && in_field(minute, wall.minute())
        && in_field(hour, wall.hour())
        && in_field(month, wall.month())
        && in_days
}

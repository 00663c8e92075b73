//! Windows against a second calculation: over clock changes, leap days and midnights, and at random.

mod overlays;
mod walk;

use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;

use super::*;
use crate::model::Timestamp;
use walk::{Told, ToldEnd, walk, wall};

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap_or_else(|| panic!("{text} is a time"))
}

fn stamp(at: DateTime<Utc>) -> Timestamp {
    Timestamp::from_millis(at.timestamp_millis())
}

/// The same window for the code under test. `end`: a pattern, or a duration such as 90m.
fn span(told: &Told) -> Span {
    let pattern = |text: &str| Pattern::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let end = match &told.end {
        ToldEnd::At(end) => End::At(pattern(end)),
        ToldEnd::Minutes(minutes) => End::After(Duration::from_secs(*minutes as u64 * 60)),
    };
    let zone = Zone::named(told.zone.name()).unwrap_or_else(|e| panic!("{}: {e}", told.zone));
    Span::Recurring { start: pattern(&told.start), end, zone }
}

fn told(zone: &str, start: &str, end: &str) -> Told {
    let end = match crate::units::duration(end) {
        Some(duration) => ToldEnd::Minutes(duration.as_secs() as i64 / 60),
        None => ToldEnd::At(end.into()),
    };
    Told { zone: zone.parse().unwrap_or_else(|_| panic!("{zone} is a zone")), start: start.into(), end }
}

/// Holds the window against the walk, in each minute from `from` on, and each change that it foretells against the next
/// that the walk comes to.
fn hold(told: &Told, walked: &[(DateTime<Utc>, Option<bool>)]) {
    let span = span(told);
    let known: Vec<(Timestamp, bool)> = walked.iter().filter_map(|(now, open)| Some((stamp(*now), (*open)?))).collect();
    for (now, open) in &known {
        assert_eq!(span.open_since(*now).is_some(), *open, "{told:?} at {now}");
    }
    let (Some((first, _)), Some((last, _))) = (known.first(), known.last()) else { return };
    let changed = known.windows(2).filter(|pair| pair[0].1 != pair[1].1).map(|pair| pair[1].0);
    let foretold = std::iter::successors(span.next_change(*first), |at| span.next_change(*at));
    let foretold: Vec<Timestamp> = foretold.take_while(|at| at <= last).collect();
    assert_eq!(foretold, changed.collect::<Vec<_>>(), "{told:?}: the changes from {first} to {last}");
}

/// Zone, start, end or duration, a day on the wall, and how many minutes of it the window is open.
const DAYS: &[(&str, &str, &str, &str, usize)] = &[
    // plain days
    ("UTC", "0 8 * * *", "0 18 * * *", "2026-11-25", 600),
    ("UTC", "0 8 * * *", "10h", "2026-11-25", 600),
    ("Europe/Berlin", "0 8 * * Mon-Fri", "10h", "2026-11-25", 600),
    ("Europe/Berlin", "0 8 * * Mon-Fri", "10h", "2026-11-28", 0),
    ("Asia/Kolkata", "30 9 * * 1-5", "0 17 * * 1-5", "2026-11-26", 450),
    ("Asia/Kathmandu", "15 4 * * *", "45m", "2026-05-05", 45),
    ("Europe/Berlin", "*/15 * * * *", "5m", "2026-11-25", 480),
    ("Europe/Berlin", "0 8,12 * * *", "0 12,18 * * *", "2026-11-25", 600),
    ("Europe/Berlin", "0 9 13 * Fri", "1h", "2026-11-13", 60),
    ("Europe/Berlin", "0 9 13 * Fri", "1h", "2026-11-20", 60),
    ("Europe/Berlin", "0 9 13 * Fri", "1h", "2026-12-13", 60),
    ("Europe/Berlin", "0 9 13 * Fri", "1h", "2026-11-12", 0),
    // over midnight, over the month, over the year
    ("Europe/Berlin", "0 22 * * *", "0 6 * * *", "2026-11-25", 480),
    ("America/New_York", "0 22 * * Fri", "0 6 * * Mon", "2026-11-28", 1440),
    ("America/New_York", "0 22 * * Fri", "0 6 * * Mon", "2026-11-30", 360),
    ("Asia/Tokyo", "0 23 31 12 *", "2h", "2026-12-31", 60),
    ("Asia/Tokyo", "0 23 31 12 *", "2h", "2027-01-01", 60),
    ("UTC", "0 0 * * Mon-Fri", "24h", "2026-11-27", 1440),
    ("UTC", "0 0 * * Mon-Fri", "24h", "2026-11-28", 0),
    // leap days
    ("Europe/Berlin", "0 0 29 2 *", "24h", "2028-02-29", 1440),
    ("Europe/Berlin", "0 0 29 2 *", "0 0 1 3 *", "2028-02-29", 1440),
    ("Europe/Berlin", "0 0 29 2 *", "24h", "2027-03-01", 0),
    ("UTC", "0 12 28 2 *", "36h", "2028-02-29", 1440),
    ("UTC", "0 12 28 2 *", "36h", "2027-03-01", 1440),
    // forwards: the clock shows no 02:xx
    ("Europe/Zurich", "30 2 * * *", "30 3 * * *", "2026-03-28", 60),
    ("Europe/Zurich", "30 2 * * *", "30 3 * * *", "2026-03-29", 30), // start in the gap: from 03:00 on
    ("Europe/Zurich", "30 2 * * *", "1h", "2026-03-29", 60),
    ("Europe/Zurich", "0 1 * * *", "30 2 * * *", "2026-03-29", 60), // end in the gap: until 03:00
    ("Europe/Zurich", "15 2 * * *", "45 2 * * *", "2026-03-29", 0), // all of it is skipped
    ("Europe/Zurich", "0 22 * * *", "0 8 * * *", "2026-03-29", 540), // 7 h + 2 h, the night is short
    ("Europe/Zurich", "0 22 * * *", "10h", "2026-03-29", 600),      // 10 h are 10 h: until 09:00
    ("Europe/Zurich", "0 0 * * *", "0 12 * * *", "2026-03-29", 660),
    ("Europe/Zurich", "30 * * * *", "10m", "2026-03-29", 240), // 23 of the day, and the skipped one at 03:00
    ("America/New_York", "0 2 * * *", "0 4 * * *", "2026-03-08", 60),
    ("Australia/Sydney", "30 2 * * *", "5 3 * * *", "2026-10-04", 5),
    ("Australia/Lord_Howe", "15 2 * * *", "45 2 * * *", "2026-10-04", 15), // half an hour is skipped
    ("Antarctica/Troll", "30 1 * * *", "30 3 * * *", "2026-03-29", 30),    // two hours are skipped
    ("America/Santiago", "30 0 * * *", "0 2 * * *", "2026-09-06", 60),     // no midnight
    ("Asia/Beirut", "0 0 * * *", "0 1 * * *", "2025-03-30", 0),            // the first hour of the day is skipped
    ("Pacific/Apia", "0 8 * * *", "0 18 * * *", "2011-12-31", 600),        // after a day that never was
    ("Pacific/Apia", "0 8 * * Fri", "0 18 * * Sat", "2011-12-31", 1080),   // its start counts at midnight
    // backwards: the clock shows 02:xx twice
    ("Europe/Zurich", "30 2 * * *", "30 3 * * *", "2026-10-25", 120),
    ("Europe/Zurich", "30 1 * * *", "30 2 * * *", "2026-10-25", 60), // ends when 02:30 is first shown
    ("Europe/Zurich", "15 2 * * *", "45 2 * * *", "2026-10-25", 60), // twice half an hour
    ("Europe/Zurich", "30 2 * * *", "1h", "2026-10-25", 120),        // begun again as it ends
    ("Europe/Zurich", "0 22 * * *", "0 8 * * *", "2026-10-25", 660), // 9 h + 2 h, the night is long
    ("Europe/Zurich", "0 22 * * *", "10h", "2026-10-25", 600),       // until 07:00, and from 22:00
    ("Europe/Zurich", "0 0 * * *", "24h", "2026-10-25", 1440),       // and an hour without, before midnight
    ("Europe/Zurich", "30 * * * *", "10m", "2026-10-25", 250),
    ("America/New_York", "0 1 * * *", "0 2 * * *", "2026-11-01", 120),
    ("America/Havana", "30 0 * * *", "30 1 * * *", "2026-11-01", 120),
    ("Australia/Lord_Howe", "45 1 * * *", "15 2 * * *", "2026-04-05", 60),
    ("Europe/Dublin", "0 1 * * *", "0 2 * * *", "2026-10-25", 120), // a zone whose summer is its standard time
    ("America/Sao_Paulo", "30 23 * * *", "30 0 * * *", "2018-02-17", 120), // the hour before midnight, twice
    ("Africa/Casablanca", "0 2 * * *", "0 4 * * *", "2024-03-10", 180), // back for Ramadan
];

#[test]
fn each_minute_of_each_day_is_as_the_walk_has_it() {
    assert!(DAYS.len() >= 40);
    for (zone, start, end, day, expected) in DAYS {
        let told = told(zone, start, end);
        let date: NaiveDate = day.parse().expect("a date");
        let around = date.and_time(Default::default()).and_utc();
        // Forty days to get into step, and then all that this day can be anywhere in the world.
        let walked = walk(&told, around - TimeDelta::days(40), 42 * 1440);
        let near = &walked[walked.len() - 3 * 1440..];
        let on_the_day = near.iter().filter(|(now, open)| wall(told.zone, *now).date() == date && *open == Some(true));
        assert_eq!(on_the_day.count(), *expected, "{told:?} on {day}");
        hold(&told, near);
    }
}

#[test]
fn the_end_is_not_part_of_a_window_and_its_start_is() {
    let told = told("Europe/Berlin", "0 8 * * *", "0 18 * * *");
    let span = span(&told);
    for (now, since) in [
        ("2026-11-25T06:59:59.999Z", None),
        ("2026-11-25T07:00:00Z", Some("2026-11-25T07:00:00Z")),
        ("2026-11-25T16:59:59.999Z", Some("2026-11-25T07:00:00Z")),
        ("2026-11-25T17:00:00Z", None),
    ] {
        assert_eq!(span.open_since(at(now)), since.map(at), "{now}");
    }
    assert_eq!(span.next_change(at("2026-11-25T06:59:59.999Z")), Some(at("2026-11-25T07:00:00Z")));
    assert_eq!(span.next_change(at("2026-11-25T07:00:00Z")), Some(at("2026-11-25T17:00:00Z")));
    let once = Span::Dated { from: at("2026-11-27T08:00:00Z"), to: at("2026-11-27T09:00:00Z"), zone: Zone::utc() };
    for (now, open, next) in [
        ("2026-11-27T07:59:59.999Z", false, Some("2026-11-27T08:00:00Z")),
        ("2026-11-27T08:00:00Z", true, Some("2026-11-27T09:00:00Z")),
        ("2026-11-27T08:59:59.999Z", true, Some("2026-11-27T09:00:00Z")),
        ("2026-11-27T09:00:00Z", false, None),
    ] {
        assert_eq!((once.open_since(at(now)).is_some(), once.next_change(at(now))), (open, next.map(at)), "{now}");
    }
}

#[test]
fn nothing_breaks_at_the_ends_of_time() {
    let span = span(&told("Europe/Amsterdam", "0 8 * * *", "10h"));
    for millis in [i64::MIN, -62_135_596_800_000, -4_000_000_000_000, -1, 0, 1, 253_402_300_799_000, i64::MAX] {
        let now = Timestamp::from_millis(millis);
        let _ = (span.open_since(now), span.next_change(now)); // no panic is all that is asked
    }
}

const ZONES: [&str; 16] = [
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "Europe/Dublin",
    "America/New_York",
    "America/St_Johns",
    "America/Havana",
    "America/Sao_Paulo",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Asia/Tehran",
    "Africa/Casablanca",
    "Antarctica/Troll",
];

/// Instants at which the clocks of a zone are changed, from 2010 to 2024.
fn changes(zone: Tz) -> Vec<DateTime<Utc>> {
    let first = NaiveDate::from_ymd_opt(2010, 1, 1).expect("a date").and_time(Default::default()).and_utc();
    let differs = |day: &i64| {
        let noon = |day: i64| first + TimeDelta::days(day);
        wall(zone, noon(*day)) + TimeDelta::days(1) != wall(zone, noon(*day + 1))
    };
    (0..15 * 365).filter(differs).map(|day| first + TimeDelta::days(day)).collect()
}

fn any_pattern() -> impl Strategy<Value = String> {
    let minute = prop_oneof![
        (0..60u32).prop_map(|m| m.to_string()),
        Just("*/20".into()),
        Just("*/7".into()),
        Just("0,30".into()),
        Just("10-12".to_string()),
        Just("*".into()),
    ];
    let hour = prop_oneof![
        (0..24u32).prop_map(|h| h.to_string()),
        (0..4u32).prop_map(|h| h.to_string()),
        Just("*".into()),
        Just("*/3".into()),
        Just("0-3".into()),
    ];
    let day = prop_oneof![4 => Just("*".to_string()), 1 => (1..29u32).prop_map(|d| format!("{d}-{}", d + 3))];
    let weekday = prop_oneof![3 => Just("*".to_string()), 1 => Just("Mon-Fri".into()), 1 => Just("0,6".into())];
    (minute, hour, day, weekday).prop_map(|(m, h, d, w)| format!("{m} {h} {d} * {w}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Two days and a half around a change of the clock where the zone has one, else anywhere.
    #[test]
    fn any_window_is_as_the_walk_has_it(
        zone in 0..ZONES.len(), start in any_pattern(), end in prop_oneof![
            any_pattern().prop_map(ToldEnd::At),
            (1..600i64).prop_map(ToldEnd::Minutes),
        ], which in any::<prop::sample::Index>(), shift in 0..1440i64
    ) {
        let zone: Tz = ZONES[zone].parse().expect("a zone");
        let changes = changes(zone);
        let near = if changes.is_empty() { DateTime::UNIX_EPOCH } else { *which.get(&changes) };
        let told = Told { zone, start, end };
        let walked = walk(&told, near - TimeDelta::minutes(1440 - shift / 2), 3600);
        hold(&told, &walked);
    }
}

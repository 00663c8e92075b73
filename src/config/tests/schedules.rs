//! `schedules`: what is taken, and every refusal with its place and hint.

use super::*;
use crate::model::{Freeze, Timestamp};
use crate::schedule::{Span, Window};

fn windows(list: &str) -> Vec<std::sync::Arc<Window>> {
    pool(&format!("schedules: [{list}]")).schedules
}

#[test]
fn a_window_is_taken_with_its_defaults() {
    let taken = windows(
        "{name: office, start: '0 8 * * Mon-Fri', duration: 10h, timezone: Europe/Berlin, min_nodes: 5, desired_nodes: 6, \
         scale_up_cooldown: 1m, freeze: down, ahead: false}, {name: launch, from: 2026-11-27, to: 2026-11-28, freeze: all}",
    );
    let office = &taken[0];
    assert_eq!((&*office.name, office.span.zone().name(), office.ahead), ("office", "Europe/Berlin", false));
    assert_eq!((office.floor(), office.asks.freeze), (Some(6), Some(Freeze::Down)));
    assert_eq!(office.asks.in_words(), "min_nodes 5, scale_up_cooldown 60, desired_nodes 6, freeze down");
    let launch = &taken[1];
    assert_eq!((launch.span.zone().name(), launch.ahead, launch.floor()), ("UTC", true, None));
    assert!(pool("").schedules.is_empty() && windows("").is_empty());
}

#[test]
fn dates_are_instants_or_the_clock_of_the_zone() {
    let cases = [
        ("2026-11-27", "Europe/Berlin", "2026-11-26T23:00:00Z"),
        ("2026-11-27T08:00", "Europe/Berlin", "2026-11-27T07:00:00Z"),
        ("2026-11-27 08:00:30", "Europe/Berlin", "2026-11-27T07:00:30Z"),
        ("2026-11-27T08:00:00Z", "Europe/Berlin", "2026-11-27T08:00:00Z"),
        ("2026-11-27T08:00:00-05:00", "UTC", "2026-11-27T13:00:00Z"),
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T01:00:00Z"), // skipped: the instant of the jump
        ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25T00:30:00Z"), // shown twice: the first
        ("2026-10-25T02:30:00+01:00", "Europe/Berlin", "2026-10-25T01:30:00Z"),
        ("2026-04-05T01:45", "Australia/Lord_Howe", "2026-04-04T14:45:00Z"), // the clock goes back by half an hour
    ];
    for (text, zone, expected) in cases {
        let list = format!("{{name: w, from: '{text}', to: 2027-01-01, timezone: {zone}, freeze: all}}");
        let Span::Dated { from, .. } = &windows(&list)[0].span else { panic!("{list}") };
        assert_eq!(Some(*from), Timestamp::parse(expected), "{text} {zone}");
    }
}

#[test]
fn what_is_wrong_with_a_window_is_said_with_its_place() {
    let daily = "start: '0 8 * * *', duration: 1h";
    let cases: [(&str, &str, &str); 33] = [
        ("start: '0 8 * * *', duration: 1h, min_nodes: 5", "w[0].name: is missing", "such as `name: office`"),
        (&format!("name: 'o f', {daily}, min_nodes: 5"), "w[0].name: is not a name", "letters"),
        (&format!("name: o, {daily}"), "w[0]: sets nothing", "min_nodes: 5"),
        (
            &format!("name: o, {daily}, min_nods: 5, freeze: all"),
            "w[0].min_nods: is not known",
            "did you mean min_nodes?",
        ),
        (&format!("name: o, {daily}, freeze: up"), "w[0].freeze: \"up\" is not known", "one of: down, all"),
        (&format!("name: o, {daily}, freeze: off"), "w[0].freeze: \"off\" is not known", "one of: down, all"),
        (&format!("name: o, {daily}, min_nodes: 0"), "w[0].min_nodes: 0 is not allowed", "a whole number from 1"),
        (&format!("name: o, {daily}, min_nodes: many"), "w[0].min_nodes: \"many\" where a number is needed", ""),
        (&format!("name: o, {daily}, desired_nodes: 0"), "w[0].desired_nodes: 0 is not allowed", "allowed: 1 to 1000"),
        (&format!("name: o, {daily}, ahead: 5m, min_nodes: 5"), "w[0].ahead: \"5m\" where true or false is needed", ""),
        (
            &format!("name: o, {daily}, min_nodes: 12"),
            "w[0]: while it is open: max_nodes 10 is below min_nodes (12)",
            "raise max_nodes",
        ),
        (
            &format!("name: o, {daily}, min_nodes: 8, max_nodes: 6"),
            "w[0].max_nodes: while it is open: 6 is below min_nodes (8)",
            "raise max_nodes",
        ),
        (
            &format!("name: o, {daily}, min_nodes: 8, desired_nodes: 6"),
            "w[0].desired_nodes: while it is open: 6 is not between min_nodes (8) and max_nodes (10)",
            "may set min_nodes",
        ),
        (
            &format!("name: o, {daily}, desired_nodes: 11"),
            "w[0].desired_nodes: while it is open: 11 is not between min_nodes (3) and max_nodes (10)",
            "",
        ),
        (
            &format!("name: o, {daily}, cpu_threshold_low: 0.8"),
            "w[0].cpu_threshold_low: while it is open: 0.8 is not below cpu_threshold_high (0.75)",
            "leave a gap",
        ),
        (
            &format!("name: o, {daily}, cpu_threshold_high: 0.2"),
            "w[0]: while it is open: cpu_threshold_low 0.3 is not below cpu_threshold_high (0.2)",
            "leave a gap",
        ),
        ("name: o, freeze: all", "w[0]: says not when it is open", "either `start`"),
        ("name: o, freeze: all, start: '0 8 * * *'", "w[0].start: has no end", "`duration` (such as 10h)"),
        (
            "name: o, freeze: all, from: 2026-11-27",
            "w[0]: says when it is open in more than one way, or in half",
            "either",
        ),
        (
            &format!("name: o, freeze: all, {daily}, end: '0 9 * * *'"),
            "w[0]: says when it is open in more than one way, or in half of one",
            "either `start` with `end` or `duration`",
        ),
        (&format!("name: o, freeze: all, {daily}, to: 2026-11-27"), "w[0]: says when it is open in more than one", ""),
        (
            &format!("name: o, freeze: all, {daily}, timezone: Europe/Berlyn"),
            "w[0].timezone: \"Europe/Berlyn\" is not known",
            "did you mean Europe/Berlin?",
        ),
        (&format!("name: o, freeze: all, {daily}, timezone: here"), "w[0].timezone: \"here\" is not known", ""),
        (
            "name: o, freeze: all, start: '0 8 * *', duration: 1h",
            "w[0].start: \"0 8 * *\": has 4 fields, not 5",
            "five fields: minute, hour",
        ),
        (
            "name: o, freeze: all, start: '0 0 8 * * *', duration: 1h",
            "w[0].start: \"0 0 8 * * *\": has 6 fields, not 5",
            "five fields",
        ),
        ("name: o, freeze: all, start: '@daily', duration: 1h", "w[0].start: \"@daily\": has 1 fields, not 5", "five"),
        ("name: o, freeze: all, start: '61 8 * * *', duration: 1h", "w[0].start: \"61 8 * * *\": ", "five fields"),
        (
            "name: o, freeze: all, start: '0 8 31 2 *', duration: 1h",
            "w[0].start: \"0 8 31 2 *\": never comes",
            "five fields",
        ),
        (
            "name: o, freeze: all, start: '0 8 * * *', end: '0 8 30 2 *'",
            "w[0].end: \"0 8 30 2 *\": never comes",
            "five fields",
        ),
        (
            "name: o, freeze: all, start: '0 8,20 * * *', duration: 13h",
            "w[0].duration: 13.0 h is longer than from one start to the next (12.0 h)",
            "",
        ),
        ("name: o, freeze: all, start: '0 8 * * *', end: '0 8 * * *'", "w[0].end: the window never closes", "always"),
        ("name: o, freeze: all, from: yesterday, to: 2026-11-27", "w[0].from: \"yesterday\" is not a date", "such as"),
        (
            "name: o, freeze: all, from: 2026-11-27T09:00, to: 2026-11-27T09:00",
            "w[0].to: 2026-11-27T09:00:00.000Z is not after `from` (2026-11-27T09:00:00.000Z)",
            "",
        ),
    ];
    for (keys, expected, hint) in cases {
        let (problem, said) = only_problem(&format!("schedules: [{{{keys}}}]"));
        let problem = problem.replace("pools[0].schedules", "w");
        assert!(problem.starts_with(expected) && said.contains(hint), "{keys}:\n{problem}\n{said}");
    }
    let twice = format!("{{name: o, {daily}, freeze: all}}");
    let (problem, _) = only_problem(&format!("schedules: [{twice}, {twice}]"));
    assert_eq!(problem, "pools[0].schedules[1].name: o is the name of another window");
    let (problem, _) = only_problem("schedules: {name: office}");
    assert_eq!(problem, "pools[0].schedules: a mapping of keys where a list is needed");
    assert_eq!(
        problems(&with("schedules: [{name: o, freeze: up, start: '0 8 * *', duration: 1s, min_nodes: x}]")).len(),
        4,
        "all at once"
    );
}

#[test]
fn a_window_over_a_wrong_pool_is_not_blamed_for_it() {
    let (problem, _) = only_problem(
        "thresholds: {max_nodes: 2}\nschedules: [{name: o, start: '0 8 * * *', duration: 1h, min_nodes: 5}]",
    );
    assert_eq!(problem, "pools[0].thresholds.max_nodes: 2 is below min_nodes (3)");
}

#[test]
fn a_day_after_a_day_is_one_window() {
    let taken = windows("{name: week, start: '0 0 * * Mon-Fri', duration: 24h, timezone: Europe/Berlin, min_nodes: 5}");
    let at = Timestamp::parse("2026-11-25T12:00:00Z").expect("a time");
    assert_eq!(taken[0].span.next_change(at), Timestamp::parse("2026-11-27T23:00:00Z"), "closes on Saturday");
}

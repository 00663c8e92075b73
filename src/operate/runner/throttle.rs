//! How many transfers may be in flight: one at first, one more while those who search notice nothing, half as many when
//! they do, and no further one while it is bad. The level before, the reading now and the line -> slots. Pure.

use serde::{Deserialize, Serialize};

use crate::model::{Reading, Timestamp};

/// Calm checks in a row that earn one more transfer.
const STRETCH: u32 = 2;
/// Search latency above this multiple of its level has risen …
const LATENCY_RISES: f64 = 1.5;
/// … if it is this much above it, too: a millisecond more is nothing that anyone notices.
const LATENCY_SLACK_MS: f64 = 5.0;
/// An error ratio this much above its level has risen.
const ERRORS_RISE: f64 = 0.01;

/// What those who search notice, as of one check.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// When the check was.
    pub at: Timestamp,
    /// Milliseconds; `None` for a signal that nobody configured.
    pub latency: Option<Reading>,
    /// Share of failed requests, 0..1; `None` for a signal that nobody configured.
    pub error_rate: Option<Reading>,
    pub latency_high: f64,
    pub error_rate_high: f64,
}

/// How searching was when nothing moved yet; `None` where that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Level {
    latency: Option<f64>,
    error_rate: Option<f64>,
}

impl Level {
    /// Of some nodes only is better than nothing: when one is dead there is no more.
    pub fn of(service: &Service) -> Level {
        let known = |reading: &Option<Reading>| match reading {
            Some(Reading::Fresh { value } | Reading::Partial { value, .. }) => Some(*value),
            Some(Reading::Missing { .. } | Reading::Idle) | None => None,
        };
        Level { latency: known(&service.latency), error_rate: known(&service.error_rate) }
    }
}

/// What is allowed just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Transfers at once, at least 1.
    pub open: u32,
    /// None is begun; those in flight go on.
    pub paused: bool,
    /// Calm checks in a row.
    calm: u32,
}

impl Slots {
    /// At the start, and as long as nobody tells how searching goes.
    pub const ONE: Slots = Slots { open: 1, paused: false, calm: 0 };
}

/// How one signal stands; the later the worse.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Feel {
    Calm,
    /// Not known, or bad as it was before: one at a time, that is all that can be said.
    Careful(String),
    Risen(String),
    Over(String),
}

/// The slots after one more check, and why there are not more of them; `None` when all is calm.
pub fn next(now: Slots, level: &Level, service: &Service, most: u32) -> (Slots, Option<String>) {
    if service.latency.is_none() && service.error_rate.is_none() {
        return (Slots::ONE, None);
    }
    let latency = Signal {
        name: "search latency",
        say: |value| format!("{value:.0} ms"),
        limit: |level| (level * LATENCY_RISES).max(level + LATENCY_SLACK_MS),
        line: service.latency_high,
    };
    let errors = Signal {
        name: "error rate",
        say: |value| format!("{:.1} %", value * 100.0),
        limit: |level| level + ERRORS_RISE,
        line: service.error_rate_high,
    };
    let feels = [latency.feel(&service.latency, level.latency), errors.feel(&service.error_rate, level.error_rate)];
    let [one, other] = feels;
    let half = (now.open / 2).max(1);
    match if other > one { other } else { one } {
        Feel::Calm if now.calm + 1 >= STRETCH => (Slots { open: (now.open + 1).min(most), ..Slots::ONE }, None),
        Feel::Calm => (Slots { paused: false, calm: now.calm + 1, ..now }, None),
        Feel::Careful(why) => (Slots::ONE, Some(why)),
        Feel::Risen(why) => (Slots { open: half, ..Slots::ONE }, Some(why)),
        Feel::Over(why) => (Slots { open: half, paused: true, calm: 0 }, Some(why)),
    }
}

struct Signal {
    name: &'static str,
    say: fn(f64) -> String,
    /// The highest that counts as near its level.
    limit: fn(f64) -> f64,
    line: f64,
}

impl Signal {
    fn feel(&self, reading: &Option<Reading>, level: Option<f64>) -> Feel {
        let Signal { name, say, limit, line } = self;
        let (value, is_whole) = match reading {
            None | Some(Reading::Idle) => return Feel::Calm,
            Some(Reading::Missing { .. }) => return Feel::Careful(format!("{name} is not known")),
            Some(Reading::Fresh { value }) => (*value, true),
            Some(Reading::Partial { value, .. }) => (*value, false),
        };
        let has_risen = level.is_some_and(|level| value > limit(level));
        let was_over = level.is_some_and(|level| level > *line);
        let before = level.map(|level| format!(", {} before", say(level))).unwrap_or_default();
        if value > *line && (has_risen || !was_over) {
            Feel::Over(format!("{name} is {}, above {}", say(value), say(*line)))
        } else if has_risen {
            Feel::Risen(format!("{name} is {}{before}", say(value)))
        } else if value > *line {
            Feel::Careful(format!("{name} is {}, above {} as before", say(value), say(*line)))
        } else if !is_whole {
            Feel::Careful(format!("{name} is not known of every node"))
        } else {
            Feel::Calm
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(value: f64) -> Option<Reading> {
        Some(Reading::Fresh { value })
    }

    fn service(latency: Option<Reading>, error_rate: Option<Reading>) -> Service {
        Service { at: Timestamp::from_millis(0), latency, error_rate, latency_high: 500.0, error_rate_high: 0.05 }
    }

    /// `3` slots, `3!` none begun.
    fn shown(slots: Slots) -> String {
        format!("{}{}", slots.open, if slots.paused { "!" } else { "" })
    }

    #[test]
    fn slots_grow_while_it_is_calm_and_halve_when_it_is_not() {
        let missing = || Some(Reading::Missing { why: "silent".into() });
        let idle = || Some(Reading::Idle);
        let partial = |value| Some(Reading::Partial { value, floor: value / 2.0, silent: Vec::new() });
        let calm = || (fresh(60.0), fresh(0.002));
        // What, the level before, the readings in turn, the slots after each of them.
        type Turns = Vec<(Option<Reading>, Option<Reading>)>;
        let cases: [(&str, Turns, &str); 14] = [
            ("one more per good stretch, up to the most", vec![calm(); 8], "1 2 2 3 3 4 4 4"),
            ("idle is calm", vec![(idle(), idle()); 4], "1 2 2 3"),
            ("one signal is enough", vec![(fresh(60.0), None); 4], "1 2 2 3"),
            ("without any nobody can tell", vec![(None, None); 4], "1 1 1 1"),
            ("missing: one at most", vec![calm(), calm(), (missing(), fresh(0.0)), calm(), calm()], "1 2 1 1 2"),
            ("of some nodes only: one at most", vec![calm(), calm(), (partial(60.0), None)], "1 2 1"),
            (
                "latency rises: halved, and the stretch starts anew",
                [vec![calm(); 6], vec![(fresh(90.0), fresh(0.0)); 2], vec![calm(); 2]].concat(),
                "1 2 2 3 3 4 2 1 1 2",
            ),
            ("not quite risen", vec![(fresh(74.0), fresh(0.011)); 4], "1 2 2 3"),
            ("errors rise", [vec![calm(); 6], vec![(fresh(60.0), fresh(0.013))]].concat(), "1 2 2 3 3 4 2"),
            ("above the line: none begun", [vec![calm(); 6], vec![(fresh(501.0), None)]].concat(), "1 2 2 3 3 4 2!"),
            ("errors above theirs", vec![calm(), (fresh(50.0), fresh(0.06))], "1 1!"),
            ("of some nodes, and above", vec![calm(), (partial(600.0), None)], "1 1!"),
            ("calm again: goes on where it was", vec![(fresh(600.0), None), calm(), calm()], "1! 1 2"),
            ("the worse of the two counts", vec![(missing(), fresh(0.06)), (fresh(90.0), missing())], "1! 1"),
        ];
        let level = Level { latency: Some(50.0), error_rate: Some(0.002) };
        for (what, turns, expected) in cases {
            let mut slots = Slots::ONE;
            let mut got = Vec::new();
            for (latency, error_rate) in turns {
                slots = next(slots, &level, &service(latency, error_rate), 4).0;
                got.push(shown(slots));
            }
            assert_eq!(got.join(" "), expected, "{what}");
        }
    }

    #[test]
    fn it_says_why_and_knows_what_was_so_before() {
        let level = |latency| Level { latency, error_rate: None };
        let cases = [
            (Some(50.0), 180.0, "1", "search latency is 180 ms, 50 ms before"),
            (Some(50.0), 700.0, "1!", "search latency is 700 ms, above 500 ms"),
            (Some(600.0), 700.0, "1", "search latency is 700 ms, above 500 ms as before"),
            (Some(600.0), 950.0, "1!", "search latency is 950 ms, above 500 ms"),
            (None, 400.0, "1", ""),
            (None, 700.0, "1!", "search latency is 700 ms, above 500 ms"),
            (Some(1.0), 5.5, "1", ""),
        ];
        for (before, latency, slots, why) in cases {
            let got = next(Slots::ONE, &level(before), &service(fresh(latency), None), 4);
            assert_eq!((shown(got.0).as_str(), got.1.as_deref().unwrap_or_default()), (slots, why), "{before:?}");
        }
        let errors =
            next(Slots::ONE, &Level { latency: None, error_rate: Some(0.002) }, &service(None, fresh(0.03)), 4);
        assert_eq!(errors.1.as_deref(), Some("error rate is 3.0 %, 0.2 % before"));
    }
}

//! What open windows lay over the thresholds, alone and over each other, and how early a floor holds.

use std::collections::BTreeMap;

use super::*;
use crate::model::{Asks, Freeze, Profile, ScalingThresholds, Source, WindowsNow};

const NOW: &str = "2026-11-25T12:00:00Z";

/// Sets these; open at `NOW`, or opening an hour and a half later.
fn window(name: &str, open: bool, sets: &[(&'static str, f64)], more: Asks) -> Arc<Window> {
    let (from, to) = if open { ("2026-11-25T11:00:00Z", "2026-11-25T13:00:00Z") } else { OPENS_LATER };
    let asks = Asks { sets: sets.iter().copied().collect::<BTreeMap<_, _>>(), ..more };
    let span = Span::Dated { from: at(from), to: at(to), zone: Zone::utc() };
    Arc::new(Window { name: name.into(), span, asks, ahead: true })
}

const OPENS_LATER: (&str, &str) = ("2026-11-25T13:30:00Z", "2026-11-25T14:00:00Z");

fn desired(nodes: u32) -> Asks {
    Asks { desired_nodes: Some(nodes), ..Asks::default() }
}

fn freeze(freeze: Freeze) -> Asks {
    Asks { freeze: Some(freeze), ..Asks::default() }
}

/// A scale-up takes 20 minutes, and 5 are to pass before the next.
fn ahead() -> Ahead {
    Ahead { lead: Duration::from_secs(1200), cooldown: Duration::from_secs(300), step: 1, least: 3 }
}

fn standing(windows: &[Arc<Window>], ahead: &Ahead) -> Standing {
    Standing::at(windows, at(NOW), ahead, &Standing::default())
}

/// Over the defaults: 3 to 10 nodes.
fn over(windows: &[Arc<Window>]) -> Overlay {
    standing(windows, &ahead()).over(ScalingThresholds::of(Profile::Default))
}

/// min, max, floor, desired.
fn counts(windows: &[Arc<Window>]) -> (u32, u32, Option<u32>, Option<u32>) {
    let Overlay { thresholds, now: WindowsNow { floor, desired, .. }, .. } = over(windows);
    (thresholds.min_nodes, thresholds.max_nodes, floor.map(|f| f.nodes), desired.map(|f| f.nodes))
}

#[test]
fn counts_of_several_windows() {
    let open = |sets: &[(&'static str, f64)], more| window("w", true, sets, more);
    let later = |sets: &[(&'static str, f64)], more| window("later", false, sets, more);
    let none = Asks::default;
    type Counts = (u32, u32, Option<u32>, Option<u32>);
    let cases: [(&str, Vec<Arc<Window>>, Counts); 19] = [
        ("none", vec![], (3, 10, None, None)),
        ("higher", vec![open(&[("min_nodes", 5.0)], none())], (5, 10, Some(5), None)),
        ("lower", vec![open(&[("min_nodes", 2.0)], none())], (2, 10, Some(2), None)),
        (
            "the highest min",
            vec![open(&[("min_nodes", 5.0)], none()), open(&[("min_nodes", 4.0)], none())],
            (5, 10, Some(5), None),
        ),
        (
            "the lowest max",
            vec![open(&[("max_nodes", 8.0)], none()), open(&[("max_nodes", 12.0)], none())],
            (3, 8, None, None),
        ),
        ("one max may be more", vec![open(&[("max_nodes", 12.0)], none())], (3, 12, None, None)),
        (
            "min holds against max",
            vec![open(&[("min_nodes", 9.0)], none()), open(&[("max_nodes", 6.0)], none())],
            (9, 9, Some(9), None),
        ),
        ("desired", vec![open(&[], desired(6))], (3, 10, Some(6), Some(6))),
        ("the highest desired", vec![open(&[], desired(6)), open(&[], desired(4))], (3, 10, Some(6), Some(6))),
        (
            "a max of another bounds it",
            vec![open(&[], desired(8)), open(&[("max_nodes", 5.0)], none())],
            (3, 5, Some(5), Some(5)),
        ),
        (
            "a min of another, too",
            vec![open(&[], desired(4)), open(&[("min_nodes", 6.0)], none())],
            (6, 10, Some(6), Some(6)),
        ),
        // 90 minutes before: enough for 4 scale-ups (4 x 20 + 3 x 5 = 95), not for 3 (70).
        ("in time", vec![later(&[("min_nodes", 7.0)], none())], (7, 10, Some(7), None)),
        ("too early", vec![later(&[("min_nodes", 6.0)], none())], (3, 10, None, None)),
        ("wanted in time", vec![later(&[], desired(7))], (3, 10, Some(7), None)),
        (
            "more than is allowed until then",
            vec![later(&[("min_nodes", 12.0), ("max_nodes", 15.0)], none())],
            (12, 12, Some(12), None),
        ),
        (
            "but for an open window",
            vec![later(&[("max_nodes", 15.0)], desired(12)), open(&[("max_nodes", 8.0)], none())],
            (3, 8, Some(8), None),
        ),
        (
            "a min that is not open yet, too",
            vec![open(&[("max_nodes", 4.0)], none()), later(&[("min_nodes", 8.0)], none())],
            (4, 4, Some(4), None),
        ),
        (
            "as far as an open one leaves room",
            vec![later(&[("min_nodes", 12.0)], none()), open(&[("max_nodes", 12.0)], none())],
            (12, 12, Some(12), None),
        ),
        (
            "what is wanted now gives way to it",
            vec![later(&[], desired(7)), open(&[], desired(4))],
            (3, 10, Some(7), Some(7)),
        ),
    ];
    for (name, windows, expected) in cases {
        assert_eq!(counts(&windows), expected, "{name}");
    }
    let without = Window { ahead: false, ..Window::clone(&later(&[("min_nodes", 7.0)], none())) };
    assert_eq!(counts(&[Arc::new(without)]), (3, 10, None, None), "switched off");
    let nine = [later(&[("min_nodes", 9.0)], none())];
    let three = Ahead { step: 3, ..ahead() };
    let early = standing(&nine, &three);
    assert_eq!(early.over(ScalingThresholds::of(Profile::Default)).now.floor, None, "two scale-ups, 45 minutes");
    let quicker = Ahead { lead: Duration::from_secs(60), ..ahead() };
    let held = Standing::at(&nine, at(NOW), &quicker, &standing(&nine, &ahead()));
    assert!(held.over(ScalingThresholds::of(Profile::Default)).now.floor.is_some(), "what holds is not let go");
    assert!(!held.has_changed(&standing(&nine, &ahead())) && held.has_changed(&early));
}

#[test]
fn other_thresholds_are_of_the_last_window_that_fits() {
    let line = |name: &str, sets: &[(&'static str, f64)]| window(name, true, sets, Asks::default());
    let overlay = over(&[
        line("first", &[("cpu_threshold_high", 0.6), ("latency_threshold_high", 300.0)]),
        line("second", &[("cpu_threshold_high", 0.5)]),
        line("contradicts", &[("cpu_threshold_low", 0.55), ("memory_threshold_high", 0.7)]),
        window("closed", false, &[("storage_threshold_high", 0.7)], Asks::default()),
    ]);
    let lines = overlay.thresholds;
    assert_eq!((lines.cpu_threshold_high, lines.cpu_threshold_low, lines.latency_threshold_high), (0.5, 0.3, 300.0));
    assert_eq!((lines.memory_threshold_high, lines.storage_threshold_high), (0.8, 0.85), "whole or not at all");
    let by = |name: &str| overlay.sources.get(name).and_then(|source| source.by.as_deref());
    assert_eq!((by("cpu_threshold_high"), by("latency_threshold_high")), (Some("second"), Some("first")));
    assert_eq!((by("cpu_threshold_low"), by("storage_threshold_high")), (None, None));
    let source = &overlay.sources["cpu_threshold_high"];
    assert_eq!(
        (source.source, source.since, source.until),
        (Source::Window, Some(at("2026-11-25T11:00:00Z")), Some(at("2026-11-25T13:00:00Z")))
    );
}

#[test]
fn the_stricter_freeze() {
    let frozen =
        |windows: &[Arc<Window>]| over(windows).now.freeze.map(|frozen| (frozen.freeze, frozen.window.to_string()));
    let down = window("down", true, &[], freeze(Freeze::Down));
    let all = window("all", true, &[], freeze(Freeze::All));
    let later = window("later", false, &[], freeze(Freeze::All));
    assert_eq!(frozen(&[down.clone(), all]), Some((Freeze::All, "all".into())));
    assert_eq!(frozen(&[down, later.clone()]), Some((Freeze::Down, "down".into())));
    assert_eq!(frozen(&[later]), None);
}

proptest! {
    /// Whatever windows there are: the thresholds stand as a whole, and floors lie within the bounds.
    #[test]
    fn thresholds_under_windows_always_stand(
        drawn in prop::collection::vec((any::<bool>(), 1..20u32, 1..20u32, 1..20u32, 0.0..1.0f64, 0.0..1.0f64, any::<u8>()), 0..6)
    ) {
        let windows: Vec<Arc<Window>> = drawn.iter().map(|(open, min, max, wanted, low, high, which)| {
            let all = [("min_nodes", f64::from(*min)), ("max_nodes", f64::from(*max)), ("cpu_threshold_low", *low), ("cpu_threshold_high", *high)];
            let sets: Vec<(&'static str, f64)> = all.into_iter().enumerate().filter(|(i, _)| which >> i & 1 == 1).map(|(_, set)| set).collect();
            window("w", *open, &sets, if which >> 4 & 1 == 1 { desired(*wanted) } else { Asks::default() })
        }).collect();
        let overlay = over(&windows);
        prop_assert_eq!(overlay.thresholds.problems(), []);
        let bounds = overlay.thresholds.min_nodes..=overlay.thresholds.max_nodes;
        for count in overlay.now.floor.iter().chain(&overlay.now.desired) {
            prop_assert!(bounds.contains(&count.nodes), "{overlay:?}");
        }
    }
}

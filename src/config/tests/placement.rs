//! `placement`: what makes a node full, and what stays where it is.

use super::*;
use crate::operate::placement::{Rules, Strategy};

#[test]
fn every_key_of_placement() {
    assert_eq!(pool("").placement, Rules::default());
    let keys = "placement: {strategy: by_count, band: 0.1, node_bytes: 2KiB, pins: [docs, logs/3]}";
    let pins = ["docs", "logs/3"].map(String::from).into();
    let expected = Rules { strategy: Strategy::ByCount, band: 0.1, pins, node_bytes: Some(2048) };
    assert_eq!(pool(keys).placement, expected);
}

#[test]
fn what_cannot_be_placed_by_is_refused() {
    for (keys, place) in [
        ("strategy: by_luck", "strategy"),
        ("band: 2", "band"),
        ("node_bytes: 0", "node_bytes"),
        ("pins: [docs/x]", "pins[0]"),
        ("pins: [docs, docs]", "pins[1]"),
        ("pin: docs", "pin"),
    ] {
        let (said, _) = only_problem(&format!("placement: {{{keys}}}"));
        assert!(said.starts_with(&format!("pools[0].placement.{place}: ")), "{keys}: {said}");
    }
}

//! A pool's `placement` -> how its shards are spread. Pure.

use super::section::{Item, Section, set};
use crate::operate::placement::{Rules, Strategy};

pub(super) fn read(section: &Section<'_>) -> Rules {
    let mut rules = Rules::default();
    let strategies = Strategy::ALL.map(|strategy| (strategy.as_str(), strategy));
    set(&mut rules.strategy, section.choice("strategy", &strategies, &[]));
    set(&mut rules.band, section.number("band", 0.0..=1.0));
    rules.node_bytes = section.size("node_bytes", 1);
    for item in section.list("pins").unwrap_or_default() {
        let Some(pin) = pin(&item) else { continue };
        if !rules.pins.insert(pin.to_string()) {
            item.problem(format!("{pin} is listed twice"), "");
        }
    }
    section.close();
    rules
}

/// A collection, or one shard of it.
fn pin<'a>(item: &Item<'a>) -> Option<&'a str> {
    let pin = item.text()?;
    let (collection, shard) = pin.rsplit_once('/').unwrap_or((pin, "0"));
    if collection.is_empty() || shard.parse::<u32>().is_err() {
        item.problem(format!("{pin} is neither a collection nor a shard"), "such as docs, or docs/3 for its shard 3");
        return None;
    }
    Some(pin)
}

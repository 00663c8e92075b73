//! Entries of a pool's `alerts` -> which alerts are meant, and what they may ask for. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::alerts::{Matchers, Route};
use crate::decide::policy::AlertRule;
use crate::model::AlertAction;

use super::pool::named;
use super::section::{Item, Section};

const EXPIRES: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(31_536_000);

/// Rules and routes in the order of the file; one of each for every entry.
pub(super) fn read(pool: &Section<'_>) -> (Vec<AlertRule>, Vec<Route>) {
    let (mut rules, mut routes): (Vec<AlertRule>, Vec<Route>) = Default::default();
    for item in pool.list("alerts").unwrap_or_default() {
        let Some((rule, route)) = entry(&item) else { continue };
        if rules.iter().any(|other| other.name == rule.name) {
            item.problem(format!("{} is listed twice", rule.name), "each entry needs a name of its own");
        }
        rules.push(rule);
        routes.push(route);
    }
    (rules, routes)
}

/// `None` only together with a problem.
fn entry(item: &Item<'_>) -> Option<(AlertRule, Route)> {
    let entry = item.section();
    let name = entry.required("name", named(&entry, "name"), "such as `name: slow-search`");
    let name: Option<Arc<str>> = name.map(|name| name.as_str().into());
    let hint = "Alertmanager's own, such as ['alertname=\"VectorSearchSlow\"', 'severity=~\"page|critical\"']";
    let matchers = entry.required("matchers", matchers(&entry), hint);
    let actions = AlertAction::ALL.map(|action| (action.as_str(), action));
    let action =
        entry.required("action", entry.choice("action", &actions, &[]), "one of: scale_up, scale_down, hold, none");
    let nodes = entry.whole("nodes", 1..=100);
    let repeat = entry.flag("repeat");
    let expires = entry.duration("expires", EXPIRES);
    entry.close();
    let action = action?;
    if nodes.is_some_and(|nodes| nodes != 1) && action != AlertAction::ScaleUp {
        let hint = "only a scale-up can be of more than one node; leave it out";
        entry.problem("nodes", format!("has no meaning with action {}", action.as_str()), hint);
    }
    if repeat == Some(true) && matches!(action, AlertAction::Hold | AlertAction::None) {
        entry.problem("repeat", format!("has no meaning with action {}", action.as_str()), "leave it out");
    }
    let name = name?;
    let rule = AlertRule {
        name: name.clone(),
        action,
        nodes: nodes.unwrap_or(1),
        repeat: repeat.unwrap_or(false),
        expires: expires.unwrap_or(AlertRule::DEFAULT_EXPIRES),
    };
    Some((rule, Route { entry: name, matchers: matchers? }))
}

/// All texts of the list, each with its own problem.
fn matchers(entry: &Section<'_>) -> Option<Matchers> {
    let items = entry.list("matchers")?;
    if items.is_empty() {
        entry.problem("matchers", "is empty", "at least one: an entry is not for every alert there is");
        return None;
    }
    let texts: Vec<&str> = items.iter().filter_map(matcher).collect();
    if texts.len() == items.len() { Matchers::parse(texts).ok() } else { None }
}

fn matcher<'a>(item: &Item<'a>) -> Option<&'a str> {
    let text = item.text()?;
    let hint = "as in Alertmanager's own file: name=\"value\", !=, =~ or !~";
    Matchers::parse([text]).map_err(|why| item.problem(why.to_string(), hint)).ok()?;
    Some(text)
}

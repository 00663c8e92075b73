//! Trigger `alert`: an alert that fires asks once for nodes, or for one fewer. Pure.
//!
//! It asks no more once an operation was begun for it, or one of its direction ended after it began to fire: that was
//! the answer. With `repeat` it asks for as long as it fires; cooldowns pace it like everything else.

use std::time::Duration;

use super::threshold::{above_a_line, must_hold};
use super::{Heard, Look, Wish, schedule};
use crate::decide::memory::Memory;
use crate::decide::policy::{AlertRule, Policy};
use crate::decide::{victim, words};
use crate::model::{Alert, AlertAction, AlertStanding, Episode, Kind, Trigger};
use crate::units;

/// Alerts that a sentence names, and that a standing lists.
const MOST_NAMED: usize = 3;
const MOST_LISTED: usize = 20;

/// The direction that an action asks for.
fn direction(action: AlertAction) -> Option<Kind> {
    match action {
        AlertAction::ScaleUp => Some(Kind::ScaleUp),
        AlertAction::ScaleDown => Some(Kind::ScaleDown),
        AlertAction::Hold | AlertAction::None => None,
    }
}

/// The entry of an alert, if it is still configured.
fn rule_of<'p>(policy: &'p Policy, alert: &Alert) -> Option<&'p AlertRule> {
    policy.alerts.iter().find(|rule| rule.name == alert.entry)
}

/// Firing alerts of an action, with their entries, the longest-firing first.
fn firing<'a>(policy: &'a Policy, alerts: &'a [Alert], action: AlertAction) -> Vec<(&'a AlertRule, &'a Alert)> {
    let mut firing: Vec<_> = alerts
        .iter()
        .filter(|alert| alert.is_firing())
        .filter_map(|alert| Some((rule_of(policy, alert)?, alert)))
        .filter(|(rule, _)| rule.action == action)
        .collect();
    firing.sort_by_key(|(_, alert)| (alert.since(), &alert.entry, &alert.fingerprint));
    firing
}

/// Why an alert asks no more; `None` while it does.
fn answered(memory: &Memory, rule: &AlertRule, alert: &Alert, kind: Kind) -> Option<String> {
    if rule.repeat {
        return None;
    }
    if let Some(decision) = memory.answer_to(alert) {
        return Some(format!("answered by decision {decision}, and repeat is false"));
    }
    let ended = memory.last_end_of(kind).filter(|ended| alert.since() <= *ended)?;
    Some(format!("it began before the last {} ended ({ended}), and repeat is false", kind.as_str()))
}

/// The alerts that ask for a change now.
pub fn asking<'a>(
    policy: &'a Policy,
    memory: &Memory,
    alerts: &'a [Alert],
    kind: Kind,
) -> Vec<(&'a AlertRule, &'a Alert)> {
    let Some(action) = AlertAction::ALL.into_iter().find(|action| direction(*action) == Some(kind)) else {
        return Vec::new();
    };
    let mut firing = firing(policy, alerts, action);
    firing.retain(|(rule, alert)| answered(memory, rule, alert, kind).is_none());
    firing
}

pub fn vote_up<'a>(look: &Look<'a>) -> Heard<'a> {
    let asking = asking(look.policy, look.memory, look.now.alerts, Kind::ScaleUp);
    let notes = quiet(look, AlertAction::ScaleUp);
    let Some(nodes) = asking.iter().map(|(rule, _)| rule.nodes).max() else { return Heard { wish: None, notes } };
    let wish = Wish { nodes, ..Wish::new(Kind::ScaleUp, Trigger::Alert, told(&asking, "asks for more nodes")) };
    Heard { wish: Some(wish), notes }
}

pub fn vote_down<'a>(look: &Look<'a>) -> Heard<'a> {
    let asking = asking(look.policy, look.memory, look.now.alerts, Kind::ScaleDown);
    let mut notes = quiet(look, AlertAction::ScaleDown);
    if asking.is_empty() {
        return Heard { wish: None, notes };
    }
    let because = told(&asking, "asks for one node fewer");
    let above = above_a_line(look);
    if !above.is_empty() {
        notes.push(format!("{}, but {}", because.join("; "), above.join(", ")));
        return Heard { wish: None, notes };
    }
    if let Some(keeps) = schedule::keeps(look) {
        notes.push(format!("{}, but {keeps}", because.join("; ")));
        return Heard { wish: None, notes };
    }
    let victim = victim::choose(look.now, look.roster, None);
    // The longest-firing one shows for how long there were too many.
    let held = asking.first().map_or(Duration::ZERO, |(_, alert)| look.now.seen.at.since(alert.since()));
    let (needed, why) = must_hold(look, victim.drain_secs);
    if held < needed {
        let (held, needed) = (units::time(held), units::time(needed));
        notes.push(format!("{}: for {held} of the {needed} that {why}", because.join("; ")));
        return Heard { wish: None, notes };
    }
    Heard { wish: Some(Wish { victim, ..Wish::new(Kind::ScaleDown, Trigger::Alert, because) }), notes }
}

/// Alerts that ask for more nodes, answered or not: with one of them nothing shrinks.
pub fn against_shrinking(look: &Look) -> Option<String> {
    let up = firing(look.policy, look.now.alerts, AlertAction::ScaleUp);
    (!up.is_empty()).then(|| told(&up, "is for more nodes").join("; "))
}

/// In words, the alerts for which nothing automatic is begun.
pub fn holding(look: &Look) -> Option<String> {
    let holding = firing(look.policy, look.now.alerts, AlertAction::Hold);
    (!holding.is_empty()).then(|| told(&holding, "holds").join("; "))
}

/// Firing alerts of an action that ask for nothing any more, and why.
fn quiet(look: &Look, action: AlertAction) -> Vec<String> {
    let Some(kind) = direction(action) else { return Vec::new() };
    let firing = firing(look.policy, look.now.alerts, action);
    let quiet = firing.iter().filter_map(|(rule, alert)| {
        let why = answered(look.memory, rule, alert, kind)?;
        Some(format!("{}: {why}", fires(alert)))
    });
    named(quiet.collect())
}

/// "alert slow-search fires since 2026-01-31T03:12:00Z (VectorSearchSlow)".
fn fires(alert: &Alert) -> String {
    let name = if alert.alertname.is_empty() { &alert.fingerprint } else { &alert.alertname };
    format!("alert {} fires since {} ({name})", alert.entry, alert.since())
}

fn told(alerts: &[(&AlertRule, &Alert)], what: &str) -> Vec<String> {
    named(alerts.iter().map(|(_, alert)| format!("{} and {what}", fires(alert))).collect())
}

/// At most three sentences, and how many more there are.
fn named(sentences: Vec<String>) -> Vec<String> {
    if sentences.is_empty() { sentences } else { vec![words::some_of(&sentences, MOST_NAMED)] }
}

/// Every configured entry as it stands now.
pub fn standings(policy: &Policy, memory: &Memory, alerts: &[Alert]) -> Vec<AlertStanding> {
    policy.alerts.iter().map(|rule| standing(policy, memory, alerts, rule)).collect()
}

fn standing(policy: &Policy, memory: &Memory, alerts: &[Alert], rule: &AlertRule) -> AlertStanding {
    let mut of_rule = firing(policy, alerts, rule.action);
    of_rule.retain(|(other, _)| other.name == rule.name);
    let standing = |alert: &Alert| match direction(rule.action) {
        Some(kind) => answered(memory, rule, alert, kind).unwrap_or_else(|| format!("asks for {}", kind.as_str())),
        None if rule.action == AlertAction::Hold => "holds what would be begun by itself".into(),
        None => "is only recorded".into(),
    };
    let episode = |(_, alert): &(&AlertRule, &Alert)| Episode {
        alertname: alert.alertname.clone(),
        fingerprint: alert.fingerprint.clone(),
        starts_at: alert.starts_at,
        first_heard: alert.first_heard,
        last_heard: alert.last_heard,
        expires_at: alert.last_heard.plus(rule.expires),
        standing: standing(alert),
    };
    AlertStanding {
        name: rule.name.clone(),
        action: rule.action,
        nodes: rule.nodes,
        repeat: rule.repeat,
        expires: rule.expires,
        firing: of_rule.len() as u32,
        episodes: of_rule.iter().take(MOST_LISTED).map(episode).collect(),
    }
}

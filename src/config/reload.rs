//! Two checked configurations -> what differs, and what a reload cannot take. Pure.

use std::fmt::Debug;

use crate::model::ScalingThresholds;
use crate::operate::drivers::{DatastoreSettings, ProviderSettings, ServiceHookSettings};
use crate::scrape::prometheus::{Query, ServerSettings};

use super::{Config, PoolConfig, Problem};

impl Config {
    /// What a reload from `old` to `new` changes, one line each, for the log. Empty when nothing does.
    pub fn differences(old: &Config, new: &Config) -> Vec<String> {
        let mut lines = Vec::new();
        if old.mode != new.mode {
            let (old, new) = (old.mode.as_str(), new.mode.as_str());
            lines.push(format!("autoscaling.mode: {old} -> {new} (counts at the very first start only)"));
        }
        if old.access != new.access {
            lines.push("web: changed".into()); // who may call is said in the file, not in the log
        }
        for (old, new) in pairs(old, new) {
            pool_differences(old, new, &mut lines);
        }
        lines
    }

    /// Why a running vecscale cannot go from `old` to `new`; with any, the reload is refused whole.
    pub fn refused_at_reload(old: &Config, new: &Config) -> Vec<Problem> {
        let restart = |path: String, what: String| Problem {
            path,
            what,
            hint: Some("restart vecscale to take this change; until then everything stays as it was".into()),
        };
        let mut problems = Vec::new();
        for pool in &new.pools {
            if !old.pools.iter().any(|p| p.name == pool.name) {
                problems.push(restart("pools".into(), format!("pool {} is new", pool.name)));
            }
        }
        for pool in &old.pools {
            if !new.pools.iter().any(|p| p.name == pool.name) {
                problems.push(restart("pools".into(), format!("pool {} is gone", pool.name)));
            }
        }
        for (old, new) in pairs(old, new) {
            let types = [
                ("provider", provider_type(&old.provider), provider_type(&new.provider)),
                ("datastore", datastore_type(&old.datastore), datastore_type(&new.datastore)),
            ];
            for (what, old_type, new_type) in types.into_iter().filter(|(_, old, new)| old != new) {
                let path = format!("pools[{}].{what}.type", new.name);
                problems.push(restart(path, format!("cannot change from {old_type} to {new_type} while running")));
            }
            // The drivers are made once, at the start: a change that they do not hear of is not to be told as taken.
            let settings = [
                ("provider", old.provider != new.provider && types[0].1 == types[0].2),
                ("datastore", stores(old) != stores(new) && types[1].1 == types[1].2),
                ("nodes", addresses(old) != addresses(new)),
                ("scrape.health", new.datastore == DatastoreSettings::None && health(old) != health(new)),
            ];
            for (what, _) in settings.into_iter().filter(|(_, changed)| *changed) {
                let path = format!("pools[{}].{what}", new.name);
                problems.push(restart(path, "cannot change while running".into()));
            }
        }
        problems
    }
}

/// The pools that both have, in the new order.
fn pairs<'a>(old: &'a Config, new: &'a Config) -> impl Iterator<Item = (&'a PoolConfig, &'a PoolConfig)> {
    new.pools.iter().filter_map(|n| old.pools.iter().find(|o| o.name == n.name).map(|o| (o, n)))
}

fn pool_differences(old: &PoolConfig, new: &PoolConfig, lines: &mut Vec<String>) {
    let place = format!("pools[{}]", new.name);
    for name in ScalingThresholds::names() {
        let (old, new) = (old.policy.thresholds.get(name), new.policy.thresholds.get(name));
        if let (Some(old), Some(new)) = (old, new)
            && old != new
        {
            lines.push(format!("{place}.thresholds.{name}: {old} -> {new}"));
        }
    }
    let mut part = |what: &str, old: &dyn Debug, new: &dyn Debug| {
        let (old, new) = (format!("{old:?}"), format!("{new:?}"));
        if old != new {
            lines.push(format!("{place}.{what}: {old} -> {new}"));
        }
    };
    part("region", &old.region, &new.region);
    part("profile", &old.profile.as_str(), &new.profile.as_str());
    part("checks", &old.policy.checks, &new.policy.checks);
    part("scale_up", &old.policy.scale_up, &new.policy.scale_up);
    part("scale_down", &old.policy.scale_down, &new.policy.scale_down);
    part("replace", &old.policy.replace, &new.policy.replace);
    part("rebalance", &old.policy.rebalance, &new.policy.rebalance);
    part("budget", &old.policy.budget, &new.policy.budget);
    part("placement", &old.placement, &new.placement);
    part("manual_hold", &old.policy.manual_hold, &new.policy.manual_hold);
    part("alerts", &alerts(old), &alerts(new));
    part("custom", &old.policy.custom, &new.policy.custom);
    part("nodes", &addresses(old), &addresses(new));
    // Long, or with secrets in them: that they changed is said, not how.
    let mut silent = |what: &str, same: bool| {
        if !same {
            lines.push(format!("{place}.{what}: changed"));
        }
    };
    // Regular expressions cannot be compared; their printed form, which is their text, can.
    silent("scrape", format!("{:?}", old.scrape) == format!("{:?}", new.scrape));
    silent("schedules", old.schedules == new.schedules);
    silent("provider", old.provider == new.provider);
    silent("datastore", stores(old) == stores(new));
}

fn stores(pool: &PoolConfig) -> (&DatastoreSettings, Option<&ServiceHookSettings>) {
    (&pool.datastore, pool.service_hooks.as_ref())
}

/// Entries with their matchers as text: regular expressions cannot be compared.
fn alerts(pool: &PoolConfig) -> Vec<String> {
    let routes = pool.policy.alerts.iter().zip(&pool.alert_routes);
    routes.map(|(rule, route)| format!("{rule:?} for {}", route.matchers)).collect()
}

fn addresses(pool: &PoolConfig) -> Vec<String> {
    let machines = pool.nodes.iter().flatten().map(|m| format!("{} {}", m.id, m.address));
    machines.chain(pool.node_files.iter().map(|file| file.display().to_string())).collect()
}

/// Who is asked whether a node is well: without a datastore the driver asks it too.
fn health(pool: &PoolConfig) -> Option<(&ServerSettings, &Query)> {
    let asking = pool.scrape.prometheus.as_ref()?;
    Some((&asking.server, asking.health.as_ref()?))
}

fn provider_type(provider: &ProviderSettings) -> &'static str {
    match provider {
        ProviderSettings::Process(_) => "process",
        ProviderSettings::Script(_) => "script",
        ProviderSettings::Http(_) => "http",
        ProviderSettings::None => "none",
    }
}

fn datastore_type(datastore: &DatastoreSettings) -> &'static str {
    match datastore {
        DatastoreSettings::Vectornode => "vectornode",
        DatastoreSettings::Qdrant(_) => "qdrant",
        DatastoreSettings::Script(_) => "script",
        DatastoreSettings::None => "none",
    }
}

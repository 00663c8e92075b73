//! One entry of `pools`: its policy, its nodes, and what fits together. Pure but for the files that it names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::decide::Policy;
use crate::decide::policy::{Budget, Checks, Rebalance, Replace, ScaleDown, ScaleUp, StepSize};
use crate::http::origin;
use crate::model::{Machine, NodeId, Profile, ScalingThresholds, is_name};
use crate::operate::drivers::{DatastoreSettings, ProviderSettings, file_sd};

use super::drivers::{datastore, provider, service_hooks};
use super::section::{Item, Section, set};
use super::{PoolConfig, alerts, placement, schedules, scrape, signals};

/// Parts of the documentation that come with later versions.
const LATER: [&str; 3] = ["forecast", "rules", "group"];

/// Keys of deeper mappings that are easily put here.
const ELSEWHERE: [(&str, &str); 6] = [
    ("mode", "it stands under `autoscaling`, for all pools"),
    ("signals", "signals stand under `scrape`"),
    ("preset", "the preset stands under `scrape`"),
    ("static", "the list stands under `nodes`"),
    ("min_nodes", "bounds stand under `thresholds`"),
    ("max_nodes", "bounds stand under `thresholds`"),
];

const DEFAULT_REGION: &str = "local";

const YEAR: Duration = Duration::from_secs(31_536_000);

/// `None` only together with a problem.
pub(super) fn read(item: &Item<'_>, base_dir: &Path) -> Option<PoolConfig> {
    let pool = item.section();
    let name = pool.required("name", named(&pool, "name"), "such as `name: default`");
    let region = named(&pool, "region").unwrap_or_else(|| DEFAULT_REGION.into());
    let profiles = Profile::ALL.map(|p| (p.as_str(), p));
    let profile = pool.choice("profile", &profiles, &[]).unwrap_or_default();

    let mut policy = Policy::of(profile);
    let store = pool.section("datastore");
    let mut service_hooks = service_hooks(&store);
    let datastore = datastore(&store, base_dir);
    if let (Some(hooks), Some(DatastoreSettings::Script(scripts))) = (&mut service_hooks, &datastore) {
        hooks.env.clone_from(&scripts.env);
    }
    let provider = provider(&pool.section("provider"), base_dir);
    let page = scrape::preset_name(&pool, datastore.as_ref());
    if page == "qdrant" {
        policy.thresholds.max_vectors_per_node = 0; // its memory is what fills up, not a count of vectors
    }
    let from_file = thresholds(&pool.section("thresholds"), &mut policy.thresholds);
    checks(&pool.section("checks"), &mut policy.checks);
    scale_up(&pool.section("scale_up"), &mut policy.scale_up);
    scale_down(&pool.section("scale_down"), &mut policy.scale_down);
    replace(&pool.section("replace"), &mut policy.replace);
    rebalance(&pool.section("rebalance"), &mut policy.rebalance);
    policy.budget = budget(&pool.section("budget"));
    let placement = placement::read(&pool.section("placement"));
    let (rules, routes) = alerts::read(&pool);
    policy.alerts = rules;
    set(&mut policy.manual_hold, pool.duration("manual_hold", Duration::ZERO..=YEAR));

    let schedules = schedules::read(&pool, &policy.thresholds);
    let interval = Duration::from_secs_f64(policy.thresholds.health_check_interval);
    let custom = |format| signals::custom(&pool.section("custom"), format);
    let (scraped, lines) = scrape::read(&pool.section("scrape"), page, datastore.as_ref(), custom, interval, base_dir);
    policy.custom = lines;
    let configured = scraped.signals();
    policy.signals.retain(|signal| configured.contains(signal));

    let (nodes, node_files) = nodes(&pool.section("nodes"), base_dir);
    if let (Some(provider), Some(datastore)) = (&provider, &datastore) {
        fits_together(&pool, provider, datastore, nodes.is_some(), !node_files.is_empty());
    }
    pool.note_unknown(&LATER, &ELSEWHERE);
    Some(PoolConfig {
        name: name?.as_str().into(),
        region,
        profile,
        policy,
        placement,
        scrape: scraped,
        nodes,
        node_files,
        provider: provider?,
        datastore: datastore?,
        service_hooks,
        alert_routes: routes,
        schedules,
        threshold_names_from_file: from_file,
    })
}

/// A text that may be a label.
pub(super) fn named(section: &Section<'_>, key: &'static str) -> Option<String> {
    let text = section.text(key)?;
    if !is_name(text) {
        let hint = "letters, digits, '.', '_' and '-', starting with a letter or digit, at most 63";
        section.problem(key, "is not a name", hint);
        return None;
    }
    Some(text.into())
}

/// Gives the names that the file sets.
fn thresholds(section: &Section<'_>, thresholds: &mut ScalingThresholds) -> Vec<&'static str> {
    let mut from_file = Vec::new();
    let mut refused = Vec::new();
    for name in ScalingThresholds::names() {
        if !section.has(name) {
            continue;
        }
        match one_threshold(section, name, thresholds) {
            Some(_) => from_file.push(name),
            None => refused.push(name),
        }
    }
    // A refused value left its default in place: what that default does not go with is no problem of the file's.
    for problem in thresholds.problems() {
        if !refused.iter().any(|name| problem.name == *name || problem.what.contains(name)) {
            section.problem(problem.name, problem.what, problem.hint);
        }
    }
    section.close();
    from_file
}

/// Sets one threshold that the section has; its value, unless that is not allowed.
pub(super) fn one_threshold(
    section: &Section<'_>,
    name: &'static str,
    thresholds: &mut ScalingThresholds,
) -> Option<f64> {
    let is_time = name.ends_with("_cooldown") || name.ends_with("_interval");
    let value = if is_time {
        section.duration(name, Duration::ZERO..=YEAR)?.as_secs_f64()
    } else {
        section.number(name, f64::MIN..=f64::MAX)?
    };
    if let Err(problem) = thresholds.set(name, value)? {
        section.problem(name, problem.what, problem.hint);
        return None;
    }
    Some(value)
}

fn checks(section: &Section<'_>, checks: &mut Checks) {
    set(&mut checks.cpu_high, streak(section, "cpu_high"));
    set(&mut checks.memory_high, streak(section, "memory_high"));
    set(&mut checks.storage_high, streak(section, "storage_high"));
    set(&mut checks.latency_high, streak(section, "latency_high"));
    set(&mut checks.error_rate_high, streak(section, "error_rate_high"));
    set(&mut checks.hotspot, streak(section, "hotspot"));
    set(&mut checks.low, streak(section, "low"));
    set(&mut checks.low_required, section.whole("low_required", 1..=5));
    section.close();
}

/// A number of checks, or `off`.
fn streak(section: &Section<'_>, key: &'static str) -> Option<Option<u32>> {
    let item = section.item(key)?;
    match item.value {
        Value::Bool(false) => Some(None),
        Value::String(word) if word == "off" => Some(None),
        Value::Number(number) if number.as_u64().is_some_and(|n| (1..=1000).contains(&n)) => {
            number.as_u64().map(|n| Some(n as u32))
        }
        _ => {
            item.problem("a number of checks in a row is needed", "a whole number from 1 to 1000, or off");
            None
        }
    }
}

fn scale_up(section: &Section<'_>, scale_up: &mut ScaleUp) {
    set(&mut scale_up.enabled, section.flag("enabled"));
    let steps = [("one", StepSize::One), ("proportional", StepSize::Proportional)];
    set(&mut scale_up.step, section.choice("step", &steps, &[]));
    set(&mut scale_up.max_step, section.whole("max_step", 1..=100));
    section.note_unknown(&["target"], &[]);
}

fn scale_down(section: &Section<'_>, scale_down: &mut ScaleDown) {
    set(&mut scale_down.enabled, section.flag("enabled"));
    set(&mut scale_down.payback, section.number("payback", 0.0..=1000.0));
    set(&mut scale_down.at_least, section.duration("at_least", Duration::ZERO..=YEAR));
    set(&mut scale_down.when_idle, section.flag("when_idle"));
    section.close();
}

fn replace(section: &Section<'_>, replace: &mut Replace) {
    set(&mut replace.enabled, section.flag("enabled"));
    set(&mut replace.after, section.duration("after", Duration::ZERO..=YEAR));
    set(&mut replace.after_degraded, section.duration("after_degraded", Duration::ZERO..=YEAR));
    section.close();
}

fn rebalance(section: &Section<'_>, rebalance: &mut Rebalance) {
    set(&mut rebalance.enabled, section.flag("enabled"));
    set(&mut rebalance.uneven, section.number("uneven", 1.01..=100.0));
    set(&mut rebalance.gain, section.number("gain", 0.01..=0.99));
    set(&mut rebalance.full, section.number("full", 0.5..=1.0));
    section.close();
}

/// What is not given has no limit.
fn budget(section: &Section<'_>) -> Budget {
    let budget = Budget {
        nodes_per_hour: section.whole("nodes_per_hour", 1..=1000),
        nodes_per_day: section.whole("nodes_per_day", 1..=1000),
        bytes_per_day: section.size("bytes_per_day", 1),
    };
    if let (Some(hour), Some(day)) = (budget.nodes_per_hour, budget.nodes_per_day)
        && day < hour
    {
        let hint = "leave one of them out, or let the day allow more than an hour";
        section.problem("nodes_per_day", format!("{day} is below nodes_per_hour ({hour})"), hint);
    }
    section.close();
    budget
}

/// The static list, ordered by id (`None` when the file has none), and the patterns of files with further nodes.
fn nodes(section: &Section<'_>, base_dir: &Path) -> (Option<Vec<Machine>>, Vec<PathBuf>) {
    let list = section.list("static");
    let patterns = section.list("file_sd").unwrap_or_default();
    section.note_unknown(&["http_sd", "prometheus"], &[]);
    let files = patterns.iter().filter_map(|item| Some(base_dir.join(pattern(item)?))).collect();
    (list.map(|list| machines(section, list)), files)
}

/// As Prometheus takes them: one `*` at most, in the last part, and the ending of a known format.
fn pattern<'a>(item: &Item<'a>) -> Option<&'a str> {
    let text = item.text()?;
    let (folder, name) = text.rsplit_once('/').unwrap_or(("", text));
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    let fits = !folder.contains('*')
        && name.matches('*').count() <= 1
        && ending.is_some_and(|ending| file_sd::ENDINGS.contains(&ending));
    if !fits {
        let hint = "a path ending in .json, .yml or .yaml, with at most one * in its last part, such as nodes/*.json";
        item.problem("is not a pattern of file_sd", hint);
    }
    fits.then_some(text)
}

fn machines(section: &Section<'_>, list: Vec<Item<'_>>) -> Vec<Machine> {
    if list.is_empty() {
        section.problem("static", "is empty", "list at least one node, or leave `nodes` out");
    }
    let mut machines: Vec<Machine> = Vec::new();
    let mut addresses = BTreeSet::new();
    for item in list {
        let Some(machine) = machine(&item) else { continue };
        if machines.iter().any(|m| m.id == machine.id) {
            item.problem(format!("{} is listed twice", machine.id), "each node needs an id of its own");
        }
        if !addresses.insert(machine.address.clone()) {
            item.problem(
                format!("{} is listed twice", machine.address),
                "two ids at one address would count one node twice",
            );
        }
        machines.push(machine);
    }
    machines.sort_by(|a, b| a.id.cmp(&b.id));
    machines
}

fn machine(item: &Item<'_>) -> Option<Machine> {
    let node = item.section();
    let id = node.required("id", node.text("id"), "such as `id: n1`");
    let id = id.and_then(|text| NodeId::new(text).map_err(|e| node.problem("id", e.to_string(), "")).ok());
    let address = node.required("address", node.text("address"), "such as `address: http://10.0.0.1:6333`");
    let address = address.and_then(|text| {
        let read = origin(text);
        if read.is_none() {
            node.problem(
                "address",
                "is not the address of a node",
                "such as http://10.0.0.1:6333, without path or user",
            );
        }
        read
    });
    let zone = named(&node, "zone");
    node.close();
    Some(Machine { id: id?, address: address?, zone, instance: None, ready: None })
}

/// Whether the datastore itself tells who its members are and where. Qdrant's members list each other by the address that
/// they use among themselves.
fn lists_members(datastore: &DatastoreSettings) -> bool {
    match datastore {
        DatastoreSettings::Script(_) => true,
        DatastoreSettings::Vectornode | DatastoreSettings::Qdrant(_) | DatastoreSettings::None => false,
    }
}

/// What only together makes no sense.
fn fits_together(
    pool: &Section<'_>,
    provider: &ProviderSettings,
    datastore: &DatastoreSettings,
    has_static: bool,
    has_files: bool,
) {
    for (name, is_set) in [("nodes.static", has_static), ("nodes.file_sd", has_files)] {
        if is_set && *provider != ProviderSettings::None {
            let what = "the provider knows its own nodes";
            pool.problem(name, what, "leave it out, or set `provider: {type: none}`");
        }
    }
    match provider {
        ProviderSettings::Process(process) => {
            if process.qdrant.is_none() && *datastore != DatastoreSettings::Vectornode {
                let what = "provider process runs vector nodes, whose shards would be lost with them";
                pool.problem("datastore.type", what, "set `datastore: {type: vectornode}`, or choose another provider");
            }
            if process.qdrant.is_some() && !matches!(datastore, DatastoreSettings::Qdrant(_)) {
                let what = "provider process runs Qdrant, whose shards would be lost with it";
                pool.problem("datastore.type", what, "set `datastore: {type: qdrant}`, or leave `program` out");
            }
        }
        ProviderSettings::None if !has_static && !has_files && !lists_members(datastore) => {
            let hint = "with provider none, list the nodes under `nodes.static`, or name files in `nodes.file_sd`";
            pool.problem("nodes", "is missing", hint);
        }
        ProviderSettings::None | ProviderSettings::Script(_) | ProviderSettings::Http(_) => {}
    }
}

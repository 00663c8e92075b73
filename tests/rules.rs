//! The rules, and the configurations of Prometheus and Alertmanager that go with them, judged by Debian's promtool and amtool.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[path = "common/tools.rs"]
mod tools;
use tools::has;

const ALERTS: [&str; 2] = ["scaler", "database"];
const ALERTMANAGER: &str = "deploy/alertmanager/alertmanager.yml";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Runs a tool of Debian's package in the sources' folder; what it says when it finds nothing wrong.
fn satisfied(tool: &str, package: &str, args: &[&str]) -> String {
    let ran = Command::new(tool).args(args).current_dir(root()).output();
    let said = ran.unwrap_or_else(|e| panic!("{tool} cannot be run ({e}): it comes with Debian's package {package}"));
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(said.status.success(), "{tool} {}\n{text}", args.join(" "));
    text
}

fn promtool(args: &[&str]) -> String {
    satisfied("promtool", "prometheus", args)
}

fn amtool(args: &[&str]) -> String {
    satisfied("amtool", "prometheus-alertmanager", args)
}

/// The YAML files of a folder, relative to the sources.
fn files(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let paths = entries.map(|entry| entry.expect("a readable entry").path());
    let named = |path: PathBuf| format!("{folder}/{}", path.file_name().expect("a name").to_string_lossy());
    let mut found: Vec<String> = paths.filter(|p| p.extension().is_some_and(|e| e == "yml")).map(named).collect();
    found.sort();
    found
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer}: {value}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key}: {value}"))
}

/// Every alerting rule, with the file that it stands in.
fn alerts() -> Vec<(&'static str, Value)> {
    let of = |file: &'static str| {
        let groups = yaml(&format!("alerts/{file}.yml"));
        let rules: Vec<Value> = list(&groups, "groups").iter().flat_map(|g| list(g, "rules").to_vec()).collect();
        rules.into_iter().filter(|rule| rule.get("alert").is_some()).map(move |rule| (file, rule))
    };
    ALERTS.into_iter().flat_map(of).collect()
}

#[test]
fn promtool_has_nothing_to_say_about_the_rules() {
    if !has("promtool", "prometheus") {
        return;
    }
    let mut args = vec!["check", "rules", "--lint=all", "--lint-fatal"];
    let rules = files("alerts");
    args.extend(rules.iter().map(String::as_str));
    promtool(&args);
}

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    if !has("promtool", "prometheus") {
        return;
    }
    let tests = files("alerts/tests");
    let mut args = vec!["test", "rules"];
    args.extend(tests.iter().map(String::as_str));
    promtool(&args);

    // (alert, whether it fires): the cases that there are.
    let mut cases: BTreeSet<(String, bool)> = BTreeSet::new();
    for file in &tests {
        let written = yaml(file);
        for look in list(&written, "tests").iter().flat_map(|test| list(test, "alert_rule_test")) {
            cases.insert((text(look, "/alertname").into(), !list(look, "exp_alerts").is_empty()));
        }
    }
    for (_, rule) in alerts() {
        let name = text(&rule, "/alert");
        assert!(cases.contains(&(name.into(), true)), "no case in which {name} fires");
        let always = text(&rule, "/expr") == "vector(1)";
        assert!(always || cases.contains(&(name.into(), false)), "no case in which {name} does not fire");
    }
}

/// The part of a link behind the `#` for a heading, as forges and editors make it.
fn anchor(heading: &str) -> String {
    heading.trim().to_lowercase()
}

#[test]
fn each_alert_says_how_bad_it_is_and_what_to_do() {
    let runbooks = read("docs/runbooks.md");
    let mut sections: BTreeMap<String, &str> = BTreeMap::new();
    for section in runbooks.split("\n## ").skip(1) {
        let (heading, body) = section.split_once('\n').unwrap_or((section, ""));
        sections.insert(format!("docs/runbooks.md#{}", anchor(heading)), body);
    }
    for (file, rule) in alerts() {
        let name = text(&rule, "/alert");
        let severity = text(&rule, "/labels/severity");
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: severity {severity}");
        let component = text(&rule, "/labels/component");
        assert!([file, "watchdog"].contains(&component), "{name} in {file}.yml: component {component}");
        // A value in a summary would make a notification of its own of each new value.
        assert!(!text(&rule, "/annotations/summary").contains("$value"), "{name}: a value in the summary");
        assert!(text(&rule, "/annotations/description").len() > 40, "{name}: hardly a description");
        let url = text(&rule, "/annotations/runbook_url");
        assert_eq!(url, format!("docs/runbooks.md#{}", name.to_lowercase()), "{name}");
        let body = sections.remove(url).unwrap_or_else(|| panic!("{name} has no section in docs/runbooks.md"));
        for part in ["**It means**", "**Look at**", "**Do**"] {
            assert!(body.contains(part), "the runbook of {name} lacks {part}");
        }
    }
    assert!(sections.is_empty(), "sections without an alert: {:?}", sections.keys());
}

/// The only commands that runbooks may name are those that exist.
#[test]
fn runbooks_name_commands_that_exist() {
    let help = Command::new(env!("CARGO_BIN_EXE_vecscale")).arg("--help").output().expect("vecscale runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let command = regex::Regex::new("`vecscale ([a-z-]+)").expect("a valid expression");
    let runbooks = read("docs/runbooks.md");
    for found in command.captures_iter(&runbooks) {
        let known = help.lines().any(|line| line.trim_start().starts_with(&format!("{} ", &found[1])));
        assert!(known, "vecscale {} does not exist\n{help}", &found[1]);
    }
}

#[test]
fn prometheus_takes_its_example() {
    if !has("promtool", "prometheus") {
        return;
    }
    let said = promtool(&["check", "config", "deploy/prometheus/prometheus.yml"]);
    assert!(said.contains("2 rule files found"), "{said}");
}

#[test]
fn alertmanager_takes_its_example() {
    if !has("amtool", "prometheus-alertmanager") {
        return;
    }
    amtool(&["check-config", ALERTMANAGER]);
}

/// What is wrong with the scaler must never move the cluster; what is wrong with the cluster reaches both.
#[test]
fn database_alerts_drive_vecscale_and_alerts_about_it_never_do() {
    if !has("amtool", "prometheus-alertmanager") {
        return;
    }
    for (_, rule) in alerts() {
        let receivers = match text(&rule, "/labels/component") {
            "database" => "vecscale,people",
            "watchdog" => "vecscale",
            _ => "people",
        };
        let labels = rule["labels"].as_object().expect("labels");
        let labels = labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
        let labels: Vec<String> = labels.chain([format!("alertname={}", text(&rule, "/alert"))]).collect();
        let (config, verify) = (format!("--config.file={ALERTMANAGER}"), format!("--verify.receivers={receivers}"));
        let mut args = vec!["config", "routes", "test", &config, &verify];
        args.extend(labels.iter().map(String::as_str));
        amtool(&args);
    }
}

/// Alertmanager knows alerts by the names that the rules give them.
#[test]
fn inhibitions_name_alerts_that_exist() {
    let config = yaml(ALERTMANAGER);
    let names: BTreeSet<String> = alerts().iter().map(|(_, rule)| text(rule, "/alert").to_string()).collect();
    let named = regex::Regex::new(r#"alertname(?:=~|!=|=)"([^"]+)""#).expect("a valid expression");
    let written = config["inhibit_rules"].to_string().replace(r#"\""#, "\"");
    let found: Vec<&str> = named.captures_iter(&written).map(|c| c.get(1).expect("a name").as_str()).collect();
    assert!(found.len() >= 6, "{written}");
    for name in found.iter().flat_map(|names| names.split('|')) {
        assert!(names.contains(name), "no alert {name}");
    }
}

/// The `alerts:` section that goes with the route: every database alert has one meaning for vecscale, and alerts about vecscale
/// have none.
#[test]
fn the_section_for_vecscale_names_each_database_alert_once() {
    let readme = read("deploy/alertmanager/README.md");
    let block = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of YAML");
    let section: Value = serde_yaml::from_str(block).unwrap_or_else(|e| panic!("{block}: {e}"));
    let named = regex::Regex::new(r#"alertname=~?"([^"]+)""#).expect("a valid expression");
    let matchers = list(&section["pools"][0], "alerts").iter().map(|alert| text(alert, "/matchers/0").to_string());
    let names = matchers.flat_map(|m| named.captures(&m).map(|c| c[1].to_string()));
    let mut names: Vec<String> = names.flat_map(|n| n.split('|').map(Into::into).collect::<Vec<_>>()).collect();
    names.sort();
    let driving = |(_, rule): &(&str, Value)| text(rule, "/labels/component") != "scaler";
    let mut expected: Vec<String> =
        alerts().iter().filter(|a| driving(a)).map(|(_, rule)| text(rule, "/alert").into()).collect();
    expected.sort();
    assert_eq!(names, expected);
}

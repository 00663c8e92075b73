//! The dashboards: rules that hold for each file, and every query asked of a real Prometheus that scraped the real program
//! while it grew and shrank a cluster.

#[path = "../common/mod.rs"]
mod common;

mod board;
mod live;
mod promql;
mod server;

use std::collections::BTreeSet;

use board::{Board, boards, list, text};
use serde_json::{Value, json};

/// Checks every board; what is wrong with any of them is told at once.
fn holds(check: impl Fn(&Board, &mut Vec<String>)) {
    let mut wrong = Vec::new();
    for board in boards() {
        let mut here = Vec::new();
        check(&board, &mut here);
        wrong.extend(here.into_iter().map(|what| format!("{}: {what}", board.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

#[test]
fn there_are_four_of_them() {
    let names: Vec<String> = boards().into_iter().map(|board| board.name).collect();
    assert_eq!(names, ["decisions", "nodes", "operations", "overview"]);
}

/// `jq -S . FILE` writes a file as it is, so that a change shows as the lines that changed.
#[test]
fn written_as_jq_writes_them() {
    holds(|board, wrong| {
        let canonical = format!("{}\n", serde_json::to_string_pretty(&board.json).expect("JSON"));
        let first = board.text.lines().zip(canonical.lines()).position(|(is, should)| is != should);
        if board.text != canonical {
            wrong.push(format!("line {}: not as `jq -S .` writes it", first.map_or(0, |n| n + 1)));
        }
    });
}

#[test]
fn anyone_can_import_them() {
    let mut uids = BTreeSet::new();
    for board in boards() {
        assert!(uids.insert(text(&board.json, "/uid").to_string()), "{}: its uid is another's too", board.name);
    }
    holds(|board, wrong| {
        let json = &board.json;
        let mut demand = |what: &str, is: bool| {
            if !is {
                wrong.push(what.to_string());
            }
        };
        demand("uid", text(json, "/uid") == format!("vecscale-{}", board.name));
        demand("id must be null", json.get("id") == Some(&Value::Null));
        demand("title", text(json, "/title").starts_with("vecscale / "));
        demand("description", text(json, "/description").len() > 40);
        demand("tags", json["tags"] == json!(["vecscale"]));
        demand("schemaVersion", json["schemaVersion"].as_u64().is_some_and(|v| (36..=42).contains(&v)));
        demand("editable", json["editable"] == true);
        demand("shared crosshair", json["graphTooltip"] == 1);
        demand("the browser's time zone", json["timezone"] == "browser");
        demand("__inputs would ask at every import", json.get("__inputs").is_none());
        let link = &json["links"][0];
        demand("a link to the other boards", link["type"] == "dashboards" && link["tags"] == json!(["vecscale"]));
        demand("links keep variables and time", link["includeVars"] == true && link["keepTime"] == true);
    });
}

#[test]
fn every_query_goes_to_the_chosen_source() {
    fn sources(value: &Value, found: &mut Vec<Value>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("datasource").cloned());
                map.values().for_each(|v| sources(v, found));
            }
            Value::Array(all) => all.iter().for_each(|v| sources(v, found)),
            _ => {}
        }
    }
    holds(|board, wrong| {
        let mut found = Vec::new();
        sources(&board.json, &mut found);
        let own = json!({"type": "grafana", "uid": "-- Grafana --"});
        wrong.extend(found.iter().filter(|s| **s != source() && **s != own).map(|s| format!("datasource {s}")));
        for panel in board.panels() {
            let title = text(panel, "/title");
            let asked = list(panel, "/targets").iter().chain([panel]).all(|from| from["datasource"] == source());
            if !asked {
                wrong.push(format!("{title}: no datasource"));
            }
        }
    });
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    holds(|board, wrong| {
        let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
        for placed in board.placed() {
            let title = text(placed, "/title");
            if !ids.insert(placed["id"].as_u64().unwrap_or(0)) {
                wrong.push(format!("{title}: its id is another's too, or missing"));
            }
            if !titles.insert(title) {
                wrong.push(format!("{title}: twice"));
            }
        }
        for panel in board.panels() {
            let title = text(panel, "/title");
            if title.is_empty() || text(panel, "/fieldConfig/defaults/unit").is_empty() {
                wrong.push(format!("{title}: no title or no unit"));
            }
            let described = text(panel, "/description");
            if described.len() < 40 || !described.ends_with('.') {
                wrong.push(format!("{title}: no description"));
            }
            let targets = list(panel, "/targets");
            let refs: BTreeSet<&str> = targets.iter().map(|t| text(t, "/refId")).collect();
            if targets.is_empty() || refs.len() != targets.len() {
                wrong.push(format!("{title}: no target, or a refId twice"));
            }
            for target in targets {
                if target["instant"] == target["range"] || text(target, "/legendFormat").is_empty() {
                    wrong.push(format!("{title}: a target that is neither instant nor range, or without a legend"));
                }
            }
        }
    });
}

#[test]
fn panels_fill_their_rows_and_do_not_overlap() {
    const COLUMNS: u64 = 24;
    holds(|board, wrong| {
        let mut taken = BTreeSet::new();
        for panel in board.placed() {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap_or(0);
            for (x, y) in (at("y")..at("y") + at("h")).flat_map(|y| (at("x")..at("x") + at("w")).map(move |x| (x, y))) {
                if x >= COLUMNS || !taken.insert((x, y)) {
                    wrong.push(format!("{}: over the edge or over another at {x},{y}", text(panel, "/title")));
                    break;
                }
            }
        }
        let height = taken.iter().map(|(_, y)| y + 1).max().unwrap_or(0);
        for y in (0..height).filter(|&y| (0..COLUMNS).any(|x| !taken.contains(&(x, y)))) {
            wrong.push(format!("a hole in line {y}"));
        }
    });
}

#[test]
fn variables_are_declared_used_and_asked_of_the_chosen_source() {
    holds(|board, wrong| {
        let names: Vec<&str> = board.variables().iter().map(|v| text(v, "/name")).collect();
        let node: &[&str] = if board.name == "nodes" { &["node"] } else { &[] };
        let expected = [&["datasource", "job", "instance", "pool"], node].concat();
        if names != expected {
            wrong.push(format!("variables {names:?} instead of {expected:?}"));
        }
        for variable in &board.variables()[1..] {
            let good = variable["datasource"] == source()
                && variable["refresh"] == 2
                && variable["multi"] == true
                && variable["includeAll"] == true
                && variable["allValue"] == ".+"
                && variable["definition"] == variable["query"]["query"];
            if !good {
                wrong.push(format!("variable {}", text(variable, "/name")));
            }
        }
        let asked: Vec<String> = board.queries().into_iter().map(|q| q.expr).collect();
        let used: BTreeSet<String> = asked.iter().flat_map(|expr| promql::variables(expr)).collect();
        for name in used.iter().filter(|name| !name.starts_with("__") && !names.contains(&name.as_str())) {
            wrong.push(format!("${name} is not declared"));
        }
        for name in names.iter().filter(|name| **name != "datasource" && !used.contains(**name)) {
            wrong.push(format!("${name} is not used"));
        }
    });
}

#[test]
fn scaling_operations_are_marked() {
    holds(|board, wrong| {
        let series = |annotation: &Value| promql::names(text(annotation, "/target/expr"));
        for needed in ["vecscale_last_operation_timestamp_seconds", "vecscale_operation_running"] {
            if !board.annotations().any(|a| a["enable"] == true && series(a).contains(needed)) {
                wrong.push(format!("no annotation from {needed}"));
            }
        }
        for annotation in board.annotations() {
            let (name, expr) = (text(annotation, "/name"), text(annotation, "/target/expr"));
            // Grafana before 10 reads the one, since 10 the other.
            if text(annotation, "/expr") != expr {
                wrong.push(format!("annotation {name}: expr and target.expr differ"));
            }
            let moment = expr.contains("_timestamp_seconds");
            if moment != (annotation["useValueForTime"] == true) || moment != expr.ends_with("* 1000") {
                wrong.push(format!("annotation {name}: a moment is a value in milliseconds"));
            }
        }
    });
}

#[test]
fn ranges_follow_the_view() {
    let window = regex::Regex::new(r"\[([^\]]*)\]").expect("a valid expression");
    holds(|board, wrong| {
        for query in board.queries() {
            for found in window.captures_iter(&query.expr) {
                if !["$__rate_interval", "$__range", "$__range:"].contains(&&found[1]) {
                    wrong.push(format!("{}: a fixed range [{}]", query.place, &found[1]));
                }
            }
        }
    });
}

/// A signal that is shown by a panel of its own is shown beside its lines.
#[test]
fn lines_are_drawn_beside_their_signals() {
    let mut drawn = 0;
    holds(|board, wrong| {
        for panel in board.panels().filter(|p| text(p, "/type") == "timeseries") {
            let exprs: Vec<&str> = list(panel, "/targets").iter().map(|t| text(t, "/expr")).collect();
            for expr in exprs.iter().filter(|e| e.contains("vecscale_threshold{") && !e.contains('/')) {
                let bound = if expr.contains(r#"bound="high""#) { "high line" } else { "low line" };
                let overridden = list(panel, "/fieldConfig/overrides").iter().any(|o| {
                    text(o, "/matcher/options") == format!("/{bound}$/") && o["properties"].to_string().contains("dash")
                });
                if !overridden {
                    wrong.push(format!("{}: its {bound} is not dashed", text(panel, "/title")));
                }
            }
        }
    });
    for board in boards() {
        drawn += board.queries().iter().filter(|q| q.expr.starts_with("vecscale_threshold{")).count();
    }
    assert!(drawn >= 20, "{drawn} lines");
}

/// The provisioning files are YAML, and tie nothing to one Grafana.
#[test]
fn provisioning_can_be_read() {
    for (file, key) in [("datasources/prometheus.yaml", "datasources"), ("dashboards/vecscale.yaml", "providers")] {
        let path = board::folder().join("../deploy/grafana/provisioning").join(file);
        let written = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let read: Value = serde_yaml::from_str(&written).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(read["apiVersion"], 1, "{file}");
        let entries = list(&read, &format!("/{key}"));
        assert!(!entries.is_empty() && entries.iter().all(|e| e.get("uid").is_none()), "{file}: {read}");
    }
}

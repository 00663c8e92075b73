//! The dashboards as they are written: their panels, variables, annotations and queries.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// One file of `dashboards/`.
pub struct Board {
    /// The file's name without `.json`.
    pub name: String,
    pub text: String,
    pub json: Value,
}

/// One query, and where it stands.
#[derive(Clone)]
pub struct Query {
    /// "overview: Mode A".
    pub place: String,
    pub expr: String,
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

/// All dashboards, by name.
pub fn boards() -> Vec<Board> {
    let entries = std::fs::read_dir(folder()).expect("the folder of dashboards");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a readable dashboard");
        let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        Board { name, text, json }
    };
    paths.into_iter().map(read).collect()
}

pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl Board {
    /// Everything with a place on the grid, headings too.
    pub fn placed(&self) -> &[Value] {
        list(&self.json, "/panels")
    }

    /// The panels that show something.
    pub fn panels(&self) -> impl Iterator<Item = &Value> {
        self.placed().iter().filter(|panel| text(panel, "/type") != "row")
    }

    pub fn variables(&self) -> &[Value] {
        list(&self.json, "/templating/list")
    }

    /// Those that ask Prometheus, not Grafana's own.
    pub fn annotations(&self) -> impl Iterator<Item = &Value> {
        list(&self.json, "/annotations/list").iter().filter(|a| a["builtIn"] != 1)
    }

    /// What is asked of Prometheus for panels and annotations.
    pub fn queries(&self) -> Vec<Query> {
        let of_panel = |panel: &Value| {
            let title = text(panel, "/title").to_string();
            let name = self.name.clone();
            let targets = list(panel, "/targets").to_vec();
            targets.into_iter().map(move |target| Query {
                place: format!("{name}: {title} {}", text(&target, "/refId")),
                expr: text(&target, "/expr").into(),
            })
        };
        let annotations = self.annotations().map(|annotation| Query {
            place: format!("{}: annotation {}", self.name, text(annotation, "/name")),
            expr: text(annotation, "/target/expr").into(),
        });
        self.panels().flat_map(of_panel).chain(annotations).collect()
    }
}

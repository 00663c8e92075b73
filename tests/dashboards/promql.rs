//! What a PromQL expression names: as much of the language as the rules for dashboards need.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

macro_rules! expression {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($text).expect("a valid expression"));
    };
}

expression!(VARIABLE, r"\$(?:\{(\w+)\}|(\w+))");
expression!(SELECTOR, r#"\b(vecscale_\w+|process_\w+)(?:\{((?:[^}"]|"[^"]*")*)\})?"#);
expression!(MATCHER, r#"(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)""#);
expression!(GROUPING, r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)");
expression!(COUNTED, r"\b(?:rate|increase)\(\s*(vecscale_\w+|process_\w+)");

/// One series as a query selects it.
pub struct Selector {
    pub name: String,
    /// Label and what it must match.
    pub matchers: Vec<(String, String)>,
}

/// Names of the dashboard variables in an expression, Grafana's own too.
pub fn variables(expr: &str) -> Vec<String> {
    VARIABLE.captures_iter(expr).map(|c| c.get(1).or(c.get(2)).expect("a name").as_str().into()).collect()
}

pub fn selectors(expr: &str) -> Vec<Selector> {
    let matchers = |inside: &str| {
        let pairs = MATCHER.captures_iter(inside);
        pairs.map(|pair| (pair[1].to_string(), pair[2].to_string())).collect()
    };
    let found = SELECTOR.captures_iter(expr);
    found.map(|c| Selector { name: c[1].into(), matchers: matchers(c.get(2).map_or("", |m| m.as_str())) }).collect()
}

/// Names of the series in an expression.
pub fn names(expr: &str) -> BTreeSet<String> {
    selectors(expr).into_iter().map(|s| s.name).collect()
}

/// Labels that an expression groups or joins by.
pub fn grouping(expr: &str) -> BTreeSet<String> {
    let lists = GROUPING.captures_iter(expr).map(|c| c[1].to_string());
    lists.flat_map(|l| l.split(',').map(|label| label.trim().to_string()).collect::<Vec<_>>()).collect()
}

/// Series whose increase or rate is taken, once for each time.
pub fn counted(expr: &str) -> Vec<String> {
    COUNTED.captures_iter(expr).map(|c| c[1].to_string()).collect()
}

#[test]
fn what_an_expression_names() {
    let expr = r#"sum by (pool, le) (rate(vecscale_a_bucket{job=~"$job", kind!="x"}[$__rate_interval])) / on (job) vecscale_b"#;
    assert_eq!(variables(expr), ["job", "__rate_interval"]);
    assert_eq!(names(expr).into_iter().collect::<Vec<_>>(), ["vecscale_a_bucket", "vecscale_b"]);
    assert_eq!(selectors(expr)[0].matchers, [("job".into(), "$job".into()), ("kind".into(), "x".into())]);
    assert_eq!(grouping(expr).into_iter().collect::<Vec<_>>(), ["job", "le", "pool"]);
    assert_eq!(counted(expr), ["vecscale_a_bucket"]);
}

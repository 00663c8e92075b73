//! Entries of `alerts`: every key, its default, and every refusal.

use super::*;
use crate::decide::policy::AlertRule;
use crate::model::AlertAction;

#[test]
fn alerts_are_read_with_their_defaults() {
    let pool = pool(
        "alerts:\n  - {name: slow-search, matchers: ['alertname=\"VectorSearchSlow\"', 'severity=~\"page|critical\"'], action: scale_up}\n\
         \u{20} - {name: more, matchers: ['a=b'], action: scale_up, nodes: 3, repeat: true, expires: 90}\n\
         \u{20} - {name: fewer, matchers: ['a=b'], action: scale_down, nodes: 1, repeat: true}\n\
         \u{20} - {name: upgrade, matchers: ['{\"a b\"=\"c\", d!~e}'], action: hold}\n\
         \u{20} - {name: noted, matchers: ['a=b'], action: none}",
    );
    let rule = |name: &str, action, nodes, repeat, secs| AlertRule {
        name: name.into(),
        action,
        nodes,
        repeat,
        expires: Duration::from_secs(secs),
    };
    assert_eq!(
        pool.policy.alerts,
        [
            rule("slow-search", AlertAction::ScaleUp, 1, false, 18_000),
            rule("more", AlertAction::ScaleUp, 3, true, 90),
            rule("fewer", AlertAction::ScaleDown, 1, true, 18_000),
            rule("upgrade", AlertAction::Hold, 1, false, 18_000),
            rule("noted", AlertAction::None, 1, false, 18_000),
        ]
    );
    let routes: Vec<String> = pool.alert_routes.iter().map(|r| format!("{}: {}", r.entry, r.matchers)).collect();
    assert_eq!(routes[0], r#"slow-search: alertname="VectorSearchSlow",severity=~"page|critical""#);
    assert_eq!(routes[3], r#"upgrade: a b="c",d!~"e""#);
}

#[test]
fn what_is_wrong_with_an_alert_is_said() {
    let entry = "name: a, matchers: ['a=b'], action: scale_up";
    let cases: [(&str, &str, &str); 16] = [
        ("alerts: {}", "alerts: a mapping of keys where a list is needed", "starting with `- `"),
        ("alerts: [{matchers: ['a=b'], action: hold}]", "alerts[0].name: is missing", "such as `name: slow-search`"),
        ("alerts: [{name: 'a b', matchers: ['a=b'], action: hold}]", "alerts[0].name: is not a name", "letters"),
        ("alerts: [{name: a, action: hold}]", "alerts[0].matchers: is missing", "Alertmanager's own"),
        ("alerts: [{name: a, matchers: [], action: hold}]", "alerts[0].matchers: is empty", "at least one"),
        (
            "alerts: [{name: a, matchers: 'a=b', action: hold}]",
            "alerts[0].matchers: \"a=b\" where a list is needed",
            "- `",
        ),
        (
            "alerts: [{name: a, matchers: ['a'], action: hold}]",
            "alerts[0].matchers[0]: \"a\" is no matcher: after",
            "=~ or !~",
        ),
        (
            "alerts: [{name: a, matchers: ['a=~\"(\"'], action: hold}]",
            "matchers[0]: \"a=~\\\"(\\\"\" is no matcher: \"(\" is no regular expression",
            "as in Alertmanager",
        ),
        (
            "alerts: [{name: a, matchers: ['a=b']}]",
            "alerts[0].action: is missing",
            "one of: scale_up, scale_down, hold, none",
        ),
        ("alerts: [{name: a, matchers: ['a=b'], action: up}]", "alerts[0].action: \"up\" is not known", "one of"),
        (&format!("alerts: [{{{entry}, nodes: 0}}]"), "alerts[0].nodes: 0 is not allowed", "1 to 100"),
        (&format!("alerts: [{{{entry}, expires: 10s}}]"), "alerts[0].expires: 10 s is not allowed", "60 s to"),
        (&format!("alerts: [{{{entry}, repeat: often}}]"), "alerts[0].repeat: \"often\" where true or false", ""),
        (&format!("alerts: [{{{entry}, cooldown: 5m}}]"), "alerts[0].cooldown: is not known", "known: name"),
        (&format!("alerts: [{{{entry}}}, {{{entry}}}]"), "alerts[1]: a is listed twice", "a name of its own"),
        (
            "alerts: [{name: a, matchers: ['a=b'], action: scale_down, nodes: 2}]",
            "alerts[0].nodes: has no meaning",
            "leave it out",
        ),
    ];
    for (keys, what, hint) in cases {
        let (said, hinted) = only_problem(keys);
        assert!(said.contains(what) && hinted.contains(hint), "{keys}: {said} ({hinted})");
    }
    let (said, _) = only_problem("alerts: [{name: a, matchers: ['a=b'], action: hold, repeat: true}]");
    assert_eq!(said, "pools[0].alerts[0].repeat: has no meaning with action hold");
    let root = problems("alerts: []\npools: [{name: default}]");
    assert!(root[0].to_string().contains("they stand under each of the `pools`"), "{root:?}");
}

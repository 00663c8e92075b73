//! Trigger `alert` and guard `alert_hold`: one operation an episode, and what else counts as its answer.

use super::*;
use crate::decide::policy::AlertRule;

impl World {
    /// An alert of an entry with this action fires from now on; the entry is made when there is none yet.
    pub fn fires(&mut self, entry: &str, action: AlertAction) {
        if !self.policy.alerts.iter().any(|rule| *rule.name == *entry) {
            let expires = AlertRule::DEFAULT_EXPIRES;
            self.policy.alerts.push(AlertRule { name: entry.into(), action, nodes: 1, repeat: false, expires });
        }
        let now = self.seen.at;
        let alert = self.alert(entry, "a1");
        (alert.starts_at, alert.first_heard, alert.last_heard) = (now, now, now);
    }

    /// An alert of an entry, firing since the first check unless it is known already.
    fn alert(&mut self, entry: &str, fingerprint: &str) -> &mut Alert {
        let known = self.alerts.iter().position(|a| *a.entry == *entry && *a.fingerprint == *fingerprint);
        let at = known.unwrap_or_else(|| {
            self.alerts.push(Alert {
                entry: entry.into(),
                fingerprint: fingerprint.into(),
                alertname: "VectorSearchSlow".into(),
                starts_at: START,
                ends_at: None,
                first_heard: self.seen.at,
                last_heard: self.seen.at,
                expired: false,
            });
            self.alerts.len() - 1
        });
        &mut self.alerts[at]
    }

    fn resolved(&mut self) {
        let at = self.seen.at;
        self.alerts.iter_mut().for_each(|alert| alert.ends_at = Some(at));
    }

    /// What was decided runs for a minute and ends so.
    fn ends(&mut self, decision: &Decision, state: OperationState) {
        self.wait(Duration::from_secs(60));
        let kind = decision.action.kind().expect("it acts");
        let trigger = decision.trigger.expect("something wanted it");
        let operation = Operation { decision: Some(decision.id), ..operation(kind, state, trigger) };
        self.memory.operation_ended(&operation, self.seen.at);
    }

    fn rule(&mut self) -> &mut AlertRule {
        self.policy.alerts.last_mut().expect("an entry")
    }

    /// Checks past every cooldown, until something acts.
    fn acts_within_an_hour(&mut self) -> Option<Action> {
        (0..120).map(|_| self.check().action).find(|action| *action != Action::Hold)
    }
}

const SUCCEEDED: OperationState = OperationState::Succeeded;

#[test]
fn a_firing_alert_asks_at_once_and_once() {
    let mut world = World::nodes(4);
    world.fires("slow-search", AlertAction::ScaleUp);
    let decision = world.check();
    assert_eq!((&decision.action, decision.trigger), (&up(1, 5), Some(Trigger::Alert)));
    let since = START.plus(CHECK * 6);
    assert_eq!(
        decision.because,
        [format!("alert slow-search fires since {since} (VectorSearchSlow) and asks for more nodes")]
    );
    world.ends(&decision, SUCCEEDED);
    assert_eq!(world.acts_within_an_hour(), None, "it still fires, and is answered");
    let quiet = format!(
        "alert slow-search fires since {since} (VectorSearchSlow): answered by decision {}, and repeat is false",
        decision.id
    );
    assert_eq!(world.check().because, [quiet]);
}

#[test]
fn nodes_are_those_of_the_entry_that_wants_most_and_what_has_room() {
    let cases: [(&str, u32, u32, Action); 3] = [
        ("one", 1, 10, up(1, 5)),
        ("three at once", 3, 10, up(3, 7)),
        ("as many as there is room for", 5, 6, up(2, 6)),
    ];
    for (name, nodes, max, expected) in cases {
        let mut world = World::nodes(4);
        world.policy.thresholds.max_nodes = max;
        world.fires("few", AlertAction::ScaleUp);
        world.fires("many", AlertAction::ScaleUp);
        world.rule().nodes = nodes;
        assert_eq!(world.check().action, expected, "{name}");
    }
}

#[test]
fn what_an_alert_means_for_the_next_operation() {
    // First an operation for the alert that ends in some way; what comes after, within an hour.
    type Then = fn(&mut World);
    let cases: [(&str, OperationState, Then, Option<Action>); 9] = [
        ("it goes on firing", SUCCEEDED, |_| {}, None),
        ("it is resolved", SUCCEEDED, World::resolved, None),
        (
            "it is resolved and fires anew",
            SUCCEEDED,
            |w| {
                w.resolved();
                w.wait(CHECK);
                w.fires("slow-search", AlertAction::ScaleUp);
            },
            Some(up(1, 5)),
        ),
        (
            "a second one began before the end",
            SUCCEEDED,
            |w| {
                let before = w.seen.at.minus(Duration::from_secs(1));
                w.alert("slow-search", "a2").starts_at = before;
            },
            None,
        ),
        (
            "a second one begins after it",
            SUCCEEDED,
            |w| {
                w.wait(CHECK);
                let now = w.seen.at;
                w.alert("slow-search", "a2").starts_at = now;
            },
            Some(up(1, 5)),
        ),
        ("repeat is true", SUCCEEDED, |w| w.rule().repeat = true, Some(up(1, 5))),
        ("nothing came of it", OperationState::Failed, |_| {}, Some(up(1, 5))),
        ("a person cancelled it", OperationState::Cancelled, |_| {}, None),
        ("it ended in part", OperationState::Partial, |_| {}, None),
    ];
    for (name, ended, then, expected) in cases {
        let mut world = World::nodes(4);
        world.fires("slow-search", AlertAction::ScaleUp);
        let decision = world.check();
        assert_eq!(decision.action, up(1, 5), "{name}");
        world.ends(&decision, ended);
        then(&mut world);
        assert_eq!(world.acts_within_an_hour(), expected, "{name}");
    }
}

#[test]
fn repeat_waits_for_the_cooldown() {
    let mut world = World::nodes(4);
    world.fires("slow-search", AlertAction::ScaleUp);
    world.rule().repeat = true;
    let decision = world.check();
    world.ends(&decision, SUCCEEDED);
    assert_eq!(names(&world.check().guards), ["cooldown"]);
    world.wait(Duration::from_secs(300));
    assert_eq!(world.check().action, up(1, 5));
}

#[test]
fn an_operation_of_the_same_direction_answers_whoever_began_it() {
    let cases: [(&str, Kind, Trigger, Option<Action>); 4] = [
        ("by thresholds", Kind::ScaleUp, Trigger::Threshold, None),
        ("by a person", Kind::ScaleUp, Trigger::Manual, None),
        ("a rebalance is no answer", Kind::Rebalance, Trigger::Manual, Some(up(1, 5))),
        ("nor is one node fewer", Kind::ScaleDown, Trigger::Threshold, Some(up(1, 5))),
    ];
    for (name, kind, trigger, expected) in cases {
        let mut world = World::nodes(4);
        world.fires("slow-search", AlertAction::ScaleUp);
        world.wait(CHECK);
        world.memory.operation_ended(&operation(kind, SUCCEEDED, trigger), world.seen.at);
        assert_eq!(world.acts_within_an_hour(), expected, "{name}");
    }
}

#[test]
fn a_start_in_the_future_counts_from_when_it_was_heard() {
    let mut world = World::nodes(4);
    world.fires("slow-search", AlertAction::ScaleUp);
    world.alert("slow-search", "a1").starts_at = world.seen.at.plus(Duration::from_secs(86_400));
    world.wait(CHECK);
    world.memory.operation_ended(&operation(Kind::ScaleUp, SUCCEEDED, Trigger::Threshold), world.seen.at);
    assert_eq!(world.acts_within_an_hour(), None);
}

#[test]
fn resolved_and_expired_ask_for_nothing_and_end_nothing() {
    for action in [AlertAction::ScaleUp, AlertAction::ScaleDown, AlertAction::Hold] {
        for expired in [false, true] {
            let mut world = World::nodes(6);
            world.fires("entry", action);
            if expired {
                world.alert("entry", "a1").expired = true
            } else {
                world.resolved()
            }
            let decision = world.check();
            assert_eq!((decision.wanted, decision.guards), (None, vec![]), "{action:?}");
        }
    }
}

#[test]
fn a_scale_down_alert_needs_all_but_the_lows() {
    type Change = fn(&mut World);
    let cases: [(&str, Change, Result<Action, &str>); 7] = [
        ("nothing against it", |_| {}, Ok(down("n1", 5))),
        ("a signal above its line", |w| w.fresh(Signal::Latency, 600.0), Err("but search_latency is above 500")),
        ("a missing reading", |w| w.missing(Signal::Memory), Err("missing_data")),
        ("too few nodes", |w| w.policy.thresholds.min_nodes = 6, Err("min_nodes")),
        (
            "not long enough for the drain",
            |w| {
                w.outlook.scale_down[0].forecast.seconds = Some(600.0);
            },
            Err("of the 10 min that the drain is predicted to take"),
        ),
        (
            "an alert for more nodes",
            |w| {
                w.fires("slow-search", AlertAction::ScaleUp);
                w.policy.scale_up.enabled = false;
            },
            Err("is for more nodes"),
        ),
        ("an alert that holds", |w| w.fires("upgrade", AlertAction::Hold), Err("alert_hold")),
    ];
    for (name, change, expected) in cases {
        let mut world = World::nodes(6);
        world.policy.thresholds.min_nodes = 3;
        world.low();
        world.fires("too-big", AlertAction::ScaleDown);
        change(&mut world);
        let decision = world.check();
        match expected {
            Ok(action) => assert_eq!((decision.action, decision.trigger), (action, Some(Trigger::Alert)), "{name}"),
            Err(says) => {
                assert_eq!(decision.action, Action::Hold, "{name}");
                let told = explain(&decision);
                assert!(told.contains(says), "{name}: {told}");
            }
        }
    }
}

#[test]
fn an_alert_for_more_nodes_keeps_the_lows_from_shrinking_the_pool() {
    let mut world = World::shrinking(6);
    world.fires("slow-search", AlertAction::ScaleUp);
    let decision = world.check();
    assert_eq!(decision.action, up(1, 7));
    world.ends(&decision, SUCCEEDED);
    assert_eq!(world.acts_within_an_hour(), None, "answered, and it still fires");
    world.resolved();
    assert_eq!(world.check().action, down("n1", 5), "five low checks are long over");
}

#[test]
fn an_alert_that_is_only_recorded_changes_nothing() {
    let mut world = World::nodes(4);
    world.fires("noted", AlertAction::None);
    assert_eq!((world.check().wanted, world.check().guards), (None, vec![]));
    assert_eq!(standings(&world.policy, &world.memory, &world.alerts)[0].episodes[0].standing, "is only recorded");
}

#[test]
fn the_first_trigger_gives_its_name_and_all_their_reasons() {
    let mut world = World::growing(4);
    world.fires("slow-search", AlertAction::ScaleUp);
    let decision = world.check();
    assert_eq!(decision.trigger, Some(Trigger::Threshold));
    assert_eq!(decision.because.len(), 2, "{:?}", decision.because);
    world.ends(&decision, SUCCEEDED);
    world.fresh(Signal::Cpu, 0.5);
    assert_eq!(world.acts_within_an_hour(), None, "the alert was answered with it");
}

#[test]
fn a_hold_names_the_alerts_and_lets_replace_pass() {
    let mut world = World::with_dead_node(6);
    world.fires("upgrade", AlertAction::Hold);
    world.fresh(Signal::Cpu, 0.9);
    assert_eq!(world.check().action, Action::Replace { node: id("n1") });
    let mut world = World::growing(4);
    world.fires("upgrade", AlertAction::Hold);
    let decision = world.check();
    let since = world.alerts[0].starts_at;
    assert_eq!(decision.guards[0].detail, format!("alert upgrade fires since {since} (VectorSearchSlow) and holds"));
}

#[test]
fn many_alerts_are_named_in_part() {
    let mut world = World::nodes(4);
    world.fires("slow-search", AlertAction::ScaleUp);
    for i in 0..500 {
        world.alert("slow-search", &format!("b{i}"));
    }
    let decision = world.check();
    assert!(decision.because[0].ends_with("; and 498 more"), "{:?}", decision.because);
    let standing = &standings(&world.policy, &world.memory, &world.alerts)[0];
    assert_eq!((standing.firing, standing.episodes.len()), (501, 20));
}

#[test]
fn standings_say_what_each_does() {
    let mut world = World::nodes(4);
    world.fires("slow-search", AlertAction::ScaleUp);
    world.fires("upgrade", AlertAction::Hold);
    let told = |world: &World| -> Vec<String> {
        let all = standings(&world.policy, &world.memory, &world.alerts);
        all.iter().map(|s| s.episodes.first().map_or("quiet".into(), |e| e.standing.clone())).collect()
    };
    assert_eq!(told(&world), ["asks for scale_up", "holds what would be begun by itself"]);
    world.alerts.remove(1);
    let decision = world.check();
    assert_eq!(told(&world), [format!("answered by decision {}, and repeat is false", decision.id), "quiet".into()]);
}

#[test]
fn answers_survive_a_restart_and_go_with_their_episode() {
    let mut world = World::nodes(4);
    world.fires("slow-search", AlertAction::ScaleUp);
    let decision = world.check();
    world.ends(&decision, OperationState::Cancelled);
    let written = serde_json::to_string(&world.memory).expect("memory is written as JSON");
    world.memory = serde_json::from_str(&written).expect("and read back");
    assert_eq!(world.acts_within_an_hour(), None);
    world.alerts.clear();
    world.check();
    assert!(serde_json::to_string(&world.memory).expect("JSON").contains(r#""answered":{}"#));
}

#[test]
fn observing_answers_with_its_would_be_operation() {
    let mut world = World::nodes(4);
    world.mode = Mode::Observe;
    world.fires("slow-search", AlertAction::ScaleUp);
    assert_eq!(names(&world.check().guards), ["observe"]);
    let wants: Vec<u32> = (0..120).filter(|_| names(&world.check().guards) == ["observe"]).collect();
    assert_eq!(wants, [0u32; 0], "the would-be scale-up was its answer");
    world.mode = Mode::Active;
    assert_eq!(world.check().action, up(1, 5), "nothing of that was done in truth");
}

proptest::proptest! {
    /// Whatever fires, is resolved and ends how: never more operations than episodes, nor any without an alert that fires.
    #[test]
    fn never_more_operations_than_episodes(
        turns in proptest::collection::vec((0u8..3, 0u8..4, 0u8..3), 1..60),
    ) {
        let mut world = World::nodes(4);
        world.policy.thresholds.scale_up_cooldown = 0.0;
        world.policy.thresholds.max_nodes = 1000;
        world.fires("slow-search", AlertAction::ScaleUp);
        let (mut episodes, mut operations) = (1, 0);
        for (which, event, end) in turns {
            let now = world.seen.at;
            let is_new = !world.alerts.iter().any(|alert| *alert.fingerprint == *format!("a{which}"));
            let alert = world.alert("slow-search", &format!("a{which}"));
            match event {
                0 => {
                    episodes += u32::from(is_new || alert.starts_at != now);
                    (alert.starts_at, alert.first_heard, alert.last_heard) = (now, now, now);
                }
                1 => {
                    episodes += u32::from(is_new);
                    alert.ends_at = Some(now);
                }
                _ => episodes += u32::from(is_new), // it is repeated, or nothing is heard
            }
            let firing = world.alerts.iter().any(Alert::is_firing);
            let decision = world.check();
            if decision.action != Action::Hold {
                operations += 1;
                proptest::prop_assert!(firing, "{}", explain(&decision));
                let states = [SUCCEEDED, OperationState::Partial, OperationState::Cancelled];
                world.ends(&decision, states[usize::from(end)]);
            }
            proptest::prop_assert!(operations <= episodes, "{operations} operations, {episodes} episodes");
        }
    }
}

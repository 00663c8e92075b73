//! What the planner's outlook means for a decision: stairs, hotspots, who goes, what is proven before the first step.

use super::*;

type Turn = fn(&mut World);

/// "12 copies on 6 nodes": `useful` is the planner's answer.
fn stairs(useful: Option<u32>) -> Stairs {
    Stairs { useful, why: Some("12 shard copies on 6 nodes: with 7 the busiest node still holds 2".into()) }
}

/// A plan that takes a node from so many bytes to so many, by one move onto `n6`.
fn plan(node: &str, before: u64, after: u64) -> Forecast {
    let change = Change { node: id(node), shards_before: 4, shards_after: 3, bytes_before: before, bytes_after: after };
    Forecast {
        shards: 1,
        bytes: before - after,
        seconds: Some(240.0),
        balance: Some(Balance::default()),
        nodes: vec![change].into(),
        ..Forecast::default()
    }
}

impl World {
    /// Six nodes, `n3` with that CPU, the others with 0.5; a plan that lowers `n3` by a quarter.
    pub fn hot(cpu: f64) -> World {
        let mut world = World::nodes(6);
        world.values(Signal::Cpu, 0.5);
        world.node("n3").values.insert(Signal::Cpu, cpu);
        world.outlook.rebalance = plan("n3", 400, 300);
        world
    }

    fn values(&mut self, signal: Signal, value: f64) {
        for node in &mut self.seen.nodes {
            node.values.insert(signal.clone(), value);
        }
    }

    fn full(share: f64) -> World {
        let mut world = World::nodes(6);
        world.values(Signal::Storage, 0.55);
        world.node("n3").values.insert(Signal::Storage, share);
        world.outlook.rebalance = plan("n3", 400, 300);
        world
    }

    fn ended(&mut self, kind: Kind) {
        let ended = operation(kind, OperationState::Succeeded, Trigger::Hotspot);
        self.memory.operation_ended(&ended, self.seen.at);
    }
}

#[test]
fn a_growth_for_load_goes_to_the_next_count_that_helps() {
    // (name, what the planner says, change, what is done or what the guard says)
    let cases: [(&str, Stairs, Turn, Result<Action, &str>); 10] = [
        ("nothing is known", Stairs::default(), |_| {}, Ok(up(1, 7))),
        ("one is useful", Stairs { useful: Some(1), why: None }, |_| {}, Ok(up(1, 7))),
        ("two are", stairs(Some(2)), |_| {}, Ok(up(2, 8))),
        ("four are, and no max_step binds a growth by one", stairs(Some(4)), |_| {}, Ok(up(4, 10))),
        (
            "past max_nodes",
            stairs(Some(6)),
            |_| {},
            Err("6 more nodes would lower it, but max_nodes is 10: replicate or re-shard instead"),
        ),
        ("none is", stairs(None), |_| {}, Err("no number of nodes would lower it: replicate or re-shard instead")),
        (
            "past max_step of a proportional growth",
            stairs(Some(4)),
            |w| w.policy.scale_up.step = policy::StepSize::Proportional,
            Err("4 more nodes would lower it, but scale_up.max_step is 3: replicate or re-shard instead"),
        ),
        (
            "a proportional growth that goes further by itself",
            stairs(Some(2)),
            |w| {
                w.policy.scale_up.step = policy::StepSize::Proportional;
                w.fresh(Signal::Cpu, 1.0);
            },
            Ok(up(3, 9)),
        ),
        (
            "for vectors too",
            stairs(None),
            |w| {
                w.fresh(Signal::Cpu, 0.5);
                w.seen.avg_vectors_per_node = Some(2e6);
            },
            Err("no number of nodes would lower it: replicate or re-shard instead"),
        ),
        ("a floor is not stopped", stairs(None), |w| w.policy.thresholds.min_nodes = 7, Ok(up(1, 7))),
    ];
    for (name, stairs, change, expected) in cases {
        let mut world = World::growing(6);
        world.outlook.stairs = stairs;
        change(&mut world);
        let decision = world.check();
        match expected {
            Ok(action) => assert_eq!(decision.action, action, "{name}: {}", explain(&decision)),
            Err(says) => {
                assert_eq!(names(&decision.guards), ["placement"], "{name}: {}", explain(&decision));
                assert!(decision.guards[0].detail.ends_with(says), "{name}: {}", decision.guards[0].detail);
                assert!(decision.guards[0].detail.starts_with("12 shard copies on 6 nodes: with 7"), "{name}");
            }
        }
    }
}

#[test]
fn an_alert_climbs_the_stairs_and_a_window_and_a_person_do_not() {
    let mut world = World::nodes(6);
    world.outlook.stairs = stairs(Some(3));
    world.fires("slow", AlertAction::ScaleUp);
    let decision = world.check();
    assert_eq!((decision.action.clone(), decision.trigger), (up(3, 9), Some(Trigger::Alert)), "{}", explain(&decision));
    let why = "12 shard copies on 6 nodes: with 7 the busiest node still holds 2";
    assert_eq!(decision.because.last().unwrap(), &format!("{why}; 3 more nodes lower it"));

    let mut world = World::nodes(6);
    world.outlook.stairs = stairs(Some(3));
    let floor = Floor { nodes: 7, window: "launch".into(), since: None, opens: None };
    world.policy.windows.floor = Some(floor);
    let decision = world.check();
    assert_eq!((decision.action.clone(), decision.trigger), (up(1, 7), Some(Trigger::Schedule)));
    assert_eq!(decision.because.last().unwrap(), &format!("{why}; 3 more nodes would lower it"));

    let mut world = World::nodes(6);
    world.outlook.stairs = stairs(None);
    let asked = world.ask(&request(Kind::ScaleUp));
    assert_eq!(asked.action, up(1, 7), "{}", explain(&asked));
    assert_eq!(asked.because.last().unwrap(), &format!("{why}, and no number of nodes would lower it"));
}

#[test]
fn a_plan_asked_for_tells_the_stairs() {
    let mut world = World::nodes(6);
    world.outlook.stairs = stairs(None);
    let against = prospect(&world.policy, &world.memory, &world.situation(None)).against;
    assert_eq!(names(&against[&Kind::ScaleUp]), ["placement"]);
    world.outlook.stairs = stairs(Some(2));
    let against = prospect(&world.policy, &world.memory, &world.situation(None)).against;
    assert_eq!(names(&against[&Kind::ScaleUp]), [""; 0]);
}

#[test]
fn a_growth_takes_a_drain_back_whatever_the_stairs() {
    let mut world = World::growing(6);
    world.outlook.stairs = stairs(None);
    let drain = operation(Kind::ScaleDown, OperationState::Running, Trigger::Threshold);
    world.operation = Some(drain.clone());
    world.node("n2").state = NodeState::Draining;
    let decision = world.check();
    assert!(preempts(&decision, &drain), "{}", explain(&decision));
}

/// Each row: the world, and the check (counted from 1) that rebalances by itself.
#[test]
fn one_node_hot_or_too_large_for_five_checks_is_relieved() {
    let cases: [(&str, World, Turn, Option<u32>); 17] = [
        ("cpu of one node", World::hot(0.9), |_| {}, Some(5)),
        ("on the line is not above", World::hot(0.75), |_| {}, None),
        (
            "the mean is above as well",
            World::hot(0.9),
            |w| {
                w.values(Signal::Cpu, 0.8);
                w.policy.checks.cpu_high = None;
            },
            None,
        ),
        ("other checks", World::hot(0.9), |w| w.policy.checks.hotspot = Some(3), Some(3)),
        ("switched off", World::hot(0.9), |w| w.policy.checks.hotspot = None, None),
        ("the plan lowers another", World::hot(0.9), |w| w.outlook.rebalance = plan("n1", 400, 200), None),
        (
            "the plan lowers it by less than a tenth",
            World::hot(0.9),
            |w| w.outlook.rebalance = plan("n3", 400, 361),
            None,
        ),
        ("by a tenth", World::hot(0.9), |w| w.outlook.rebalance = plan("n3", 400, 360), Some(5)),
        ("empty shards count by number", World::hot(0.9), |w| w.outlook.rebalance = plan("n3", 0, 0), Some(5)),
        ("no plan is known", World::hot(0.9), |w| w.outlook.rebalance = Forecast::default(), None),
        (
            "it moves shards, and no more is known",
            World::hot(0.9),
            |w| w.outlook.rebalance = Forecast { shards: 3, bytes: 9, ..Forecast::default() },
            None,
        ),
        ("nodes without data", World::hot(0.9), |w| w.store = None, None),
        ("one that receives shards", World::hot(0.9), |w| w.node("n3").busy_with_data = true, None),
        ("one that leaves", World::hot(0.9), |w| w.node("n3").state = NodeState::Draining, None),
        (
            "latency",
            World::hot(0.5),
            |w| {
                w.values(Signal::Latency, 200.0);
                w.node("n3").values.insert(Signal::Latency, 900.0);
            },
            Some(5),
        ),
        (
            "bytes",
            World::hot(0.5),
            |w| {
                w.seen.nodes.iter_mut().for_each(|n| n.bytes = Some(100));
                w.node("n3").bytes = Some(130); // of a mean of 105
            },
            Some(5),
        ),
        (
            "bytes within their share",
            World::hot(0.5),
            |w| {
                w.seen.nodes.iter_mut().for_each(|n| n.bytes = Some(100));
                w.node("n3").bytes = Some(124);
            },
            None,
        ),
    ];
    for (name, mut world, change, expected) in cases {
        change(&mut world);
        let first = (1..=8).find(|_| {
            let decision = world.check();
            let rebalances = decision.action == Action::Rebalance {};
            assert!(rebalances || decision.action == Action::Hold, "{name}: {}", explain(&decision));
            assert!(!rebalances || decision.trigger == Some(Trigger::Hotspot), "{name}: {}", explain(&decision));
            rebalances
        });
        assert_eq!(first, expected, "{name}");
    }
}

#[test]
fn load_that_one_node_has_too_much_of() {
    for (load, expected) in [(1.3, Some(5)), (1.15, None)] {
        let mut world = World::hot(0.5);
        world.seen.nodes.iter_mut().for_each(|n| n.load = Some(1.0));
        world.node("n3").load = Some(load);
        assert_eq!((1..=8).find(|_| world.check().action != Action::Hold), expected, "{load}");
    }
}

/// Each row: what `n3` and `n4` show at successive checks (`None`: silent), and whether the last one rebalances.
#[test]
fn a_streak_belongs_to_a_node_and_silence_is_no_vote() {
    let (hot, calm) = (Some(0.9), Some(0.5));
    type Case = (&'static str, Vec<[Option<f64>; 2]>, bool);
    let cases: [Case; 5] = [
        ("five of one", vec![[hot, calm]; 5], true),
        ("another on top each time", [[hot, calm], [calm, hot]].repeat(4), false),
        ("a calm check starts over", [vec![[hot, calm]; 4], vec![[calm, calm]], vec![[hot, calm]; 4]].concat(), false),
        (
            "silence neither extends nor breaks",
            [vec![[hot, calm]; 4], vec![[None, calm]], vec![[hot, calm]]].concat(),
            true,
        ),
        ("silence starts nothing", [vec![[hot, calm]; 4], vec![[None, calm]; 3]].concat(), false),
    ];
    for (name, checks, expected) in cases {
        let mut world = World::hot(0.5);
        let mut last = None;
        for nodes in checks {
            for (node, value) in ["n3", "n4"].into_iter().zip(nodes) {
                match value {
                    Some(value) => _ = world.node(node).values.insert(Signal::Cpu, value),
                    None => _ = world.node(node).values.remove(&Signal::Cpu),
                }
            }
            match nodes {
                [Some(_), Some(_)] => world.fresh(Signal::Cpu, 0.5),
                _ => world.read(Signal::Cpu, Reading::Partial { value: 0.5, floor: 0.4, silent: vec![id("n3")] }),
            }
            last = Some(world.check().action);
        }
        assert_eq!(last == Some(Action::Rebalance {}), expected, "{name}: {last:?}");
    }
}

#[test]
fn a_rebalance_says_what_it_is_for_and_what_it_moves() {
    let mut world = World::hot(0.93);
    assert_eq!(world.checks(2).because, ["cpu_hot 0.93 > 0.75, 2 of 5 checks: n3, while the mean is 0.572"]);
    let decision = world.checks(3);
    assert_eq!(
        decision.because,
        ["cpu_hot 0.93 > 0.75, 5 of 5 checks: n3, while the mean is 0.572; a rebalance lowers n3 by 25 % (1 shard, \
             100 B, about 240 s)"]
    );
    let cpu_hot = decision.conditions.iter().find(|c| c.name == "cpu_hot").expect("a condition as the others");
    assert_eq!((cpu_hot.value, cpu_hot.streak, cpu_hot.needed, cpu_hot.active), (Some(0.93), 5, 5, true));
    assert_eq!(decision.triggered_at(CHECK), decision.at.minus(CHECK * 4));

    let mut world = World::hot(0.93);
    world.outlook.rebalance = plan("n3", 400, 392);
    let told = world.checks(5).because;
    assert!(told[0].ends_with("; a rebalance would lower n3 by 2 % only, 10 % are needed"), "{told:?}");
    world.outlook.rebalance = plan("n1", 400, 390);
    let told = world.check().because;
    assert!(told[0].ends_with("; no rebalance would lower it"), "{told:?}");
}

#[test]
fn the_same_hotspot_is_not_relieved_again_within_the_cooldown_nor_by_a_plan_that_moves_nothing() {
    let mut world = World::hot(0.9);
    assert_eq!(world.checks(5).action, Action::Rebalance {});
    world.ended(Kind::Rebalance);
    let again = (1..=60).find(|_| {
        let decision = world.check();
        assert!(decision.guards.iter().all(|g| g.name == Guard::Cooldown), "{}", explain(&decision));
        decision.action != Action::Hold
    });
    assert_eq!(again, Some(20), "600 s later, if it is as hot as before and the plan still helps");
    world.ended(Kind::Rebalance);
    world.outlook.rebalance = Forecast { balance: Some(Balance::default()), ..Forecast::default() };
    assert_eq!(world.checks(60).wanted, None, "the shards are spread: nothing is left to do");
}

/// Each row changes a pool whose next check would rebalance.
#[test]
fn what_holds_an_automatic_rebalance() {
    let cases: [(&str, Turn, &str); 19] = [
        ("stopped", |w| w.mode = Mode::Stopped, "stopped"),
        ("observing", |w| w.mode = Mode::Observe, "observe"),
        ("disabled", |w| w.policy.rebalance.enabled = false, "direction_disabled"),
        ("an alert that holds", |w| w.fires("upgrade", AlertAction::Hold), "alert_hold"),
        ("the cooldown of any operation", |w| w.memory.ends.any = Some(w.seen.at), "cooldown"),
        ("more bytes than a day allows", |w| w.policy.budget.bytes_per_day = Some(99), "budget"),
        (
            "everything is frozen",
            |w| w.policy.windows.freeze = Some(Frozen { freeze: Freeze::All, window: "x".into(), until: None }),
            "window_freeze",
        ),
        ("just started", |w| w.memory.recent.checks = 0, "settling"),
        ("an index is built", |w| w.inventory().members[0].indexing = true, "settling"),
        ("the breaker", |w| w.memory.operation_blocked(w.seen.at), "breaker_open"),
        ("a failure before", |w| w.memory.breaker.failed(w.seen.at), "backing_off"),
        ("an unhealthy node", |w| w.node("n5").up = false, "unhealthy_nodes"),
        (
            "an operation",
            |w| w.operation = Some(operation(Kind::ScaleUp, OperationState::Running, Trigger::Manual)),
            "operation_running",
        ),
        ("no quorum", |w| w.inventory().no_quorum = Some("no leader".into()), "quorum"),
        ("a silent store", |w| w.store = Some(Err("timed out".into())), "placement"),
        ("the plan moves nothing", |w| w.outlook.rebalance.shards = 0, "projection"),
        ("a transfer", |w| w.transfer("n1", "n2"), "data_moving"),
        ("a resharding", |w| w.inventory().foreign = vec!["docs is resharded".into()], "foreign_operation"),
        ("an upgrade", |w| w.inventory().members[2].version = Some("1.1".into()), "mixed_versions"),
    ];
    for (name, change, guard) in cases {
        let mut world = World::hot(0.9);
        world.checks(4);
        change(&mut world);
        let decision = world.check();
        assert_eq!((decision.action.clone(), decision.wanted), (Action::Hold, Some(Kind::Rebalance)), "{name}");
        assert!(names(&decision.guards).contains(&guard), "{name}: {}", explain(&decision));
    }
}

#[test]
fn what_does_not_hold_it() {
    let cases: [(&str, Turn); 5] = [
        ("no provider is needed", |w| w.can_change = false),
        ("nor room for more nodes", |w| w.policy.thresholds.max_nodes = 6),
        ("nor nodes to spare", |w| w.policy.thresholds.min_nodes = 6),
        ("a hold against shrinking", |w| w.memory.manual = Some((Kind::ScaleUp, w.seen.at))),
        ("missing data forbids a scale-down only", |w| w.missing(Signal::Throughput)),
    ];
    for (name, change) in cases {
        let mut world = World::hot(0.9);
        world.checks(4);
        change(&mut world);
        let decision = world.check();
        assert_eq!(decision.action, Action::Rebalance {}, "{name}: {}", explain(&decision));
    }
}

#[test]
fn a_full_node_is_acted_on_at_once_by_a_rebalance_if_that_helps_else_by_a_node_more() {
    let spread = Ok(Action::Rebalance {});
    let cases: [(&str, f64, Turn, Result<Action, &str>); 12] = [
        ("a rebalance helps", 0.95, |_| {}, spread.clone()),
        ("not full yet", 0.94, |_| {}, Ok(Action::Hold)),
        ("another line", 0.91, |w| w.policy.rebalance.full = 0.9, spread.clone()),
        ("no plan helps", 0.96, |w| w.outlook.rebalance = plan("n3", 400, 390), Ok(up(1, 7))),
        ("nodes without data", 0.96, |w| w.store = None, Ok(up(1, 7))),
        ("rebalancing is disabled", 0.96, |w| w.policy.rebalance.enabled = false, Ok(up(1, 7))),
        ("it waits for its cooldown", 0.96, |w| w.memory.ends.any = Some(w.seen.at), Err("cooldown")),
        ("an ill node forbids spreading, not growing", 0.96, |w| w.node("n5").up = false, Ok(up(1, 7))),
        (
            "and no node more would lower it",
            0.96,
            |w| {
                w.outlook.rebalance = Forecast::default();
                w.outlook.stairs = stairs(None);
            },
            Err("placement"),
        ),
        (
            "a rebalance that runs is waited for",
            0.96,
            |w| w.operation = Some(operation(Kind::Rebalance, OperationState::Running, Trigger::Hotspot)),
            Ok(Action::Hold),
        ),
        ("memory too", 0.5, |w| _ = w.node("n3").values.insert(Signal::Memory, 0.97), spread),
        ("a reading that is missing says nothing", 0.96, |w| w.missing(Signal::Storage), Ok(Action::Hold)),
    ];
    for (name, share, change, expected) in cases {
        let mut world = World::full(share);
        world.policy.checks.hotspot = None;
        change(&mut world);
        let decision = world.check();
        match expected {
            Ok(action) => {
                assert_eq!(decision.action, action, "{name}: {}", explain(&decision));
                assert_eq!(decision.guards, [], "{name}");
                let trigger = (action != Action::Hold).then_some(Trigger::Hotspot);
                assert_eq!(decision.trigger, trigger, "{name}");
            }
            Err(guard) => assert_eq!(names(&decision.guards), [guard], "{name}: {}", explain(&decision)),
        }
    }
}

#[test]
fn a_full_node_lets_nothing_shrink() {
    let mut world = World::shrinking(6);
    world.values(Signal::Storage, 0.1);
    world.node("n3").values.insert(Signal::Storage, 0.96);
    world.policy.scale_up.enabled = false;
    let decision = world.check();
    assert_eq!((decision.wanted, names(&decision.guards)), (Some(Kind::ScaleUp), vec!["direction_disabled"]));
    assert!(decision.because.iter().any(|b| b.contains("low conditions hold, but storage_full 0.96")), "{decision:?}");
}

/// Where readings are maxima, one node can push the whole pool over a line.
#[test]
fn a_growth_that_one_hot_node_asks_for_is_a_rebalance_if_that_helps() {
    let cases: [(&str, Turn, Option<Action>); 5] = [
        ("one node is hot", |_| {}, Some(Action::Rebalance {})),
        ("all are", |w| w.values(Signal::Cpu, 0.9), Some(up(1, 7))),
        ("no plan helps", |w| w.outlook.rebalance = plan("n1", 400, 300), Some(up(1, 7))),
        (
            "memory is short everywhere",
            |w| {
                w.fresh(Signal::Memory, 0.9);
                w.values(Signal::Memory, 0.9);
            },
            Some(up(1, 7)),
        ),
        (
            "it is being spread",
            |w| w.operation = Some(operation(Kind::Rebalance, OperationState::Running, Trigger::Hotspot)),
            None,
        ),
    ];
    for (name, change, expected) in cases {
        let mut world = World::hot(0.9);
        world.fresh(Signal::Cpu, 0.9);
        change(&mut world);
        let first = (0..2).map(|_| world.check()).last().expect("two checks");
        match expected {
            Some(action) => assert_eq!(first.action, action, "{name}: {}", explain(&first)),
            None => {
                assert_eq!((first.action.clone(), first.wanted), (Action::Hold, None), "{name}: {}", explain(&first))
            }
        }
        if first.action == (Action::Rebalance {}) {
            assert_eq!(
                first.because,
                [
                    "cpu_high 0.90 > 0.75, 2 of 2 checks",
                    "n3 alone is at 0.90, while the mean is 0.567; a rebalance lowers n3 by 25 % (1 shard, 100 B, about 240 s)"
                ]
            );
        }
    }
}

#[test]
fn growing_for_the_mean_cancels_a_rebalance_and_a_hot_node_does_not() {
    let running = operation(Kind::Rebalance, OperationState::Running, Trigger::Hotspot);
    for (mean, expected) in [(0.9, true), (0.5, false)] {
        let mut world = World::hot(0.9);
        world.values(Signal::Cpu, mean);
        world.node("n3").values.insert(Signal::Cpu, 0.95);
        world.fresh(Signal::Cpu, 0.95);
        world.operation = Some(running.clone());
        let decision = world.checks(6);
        assert_eq!(preempts(&decision, &running), expected, "{mean}: {}", explain(&decision));
    }
}

#[test]
fn the_order_is_down_before_rebalance() {
    let mut world = World::shrinking(6);
    world.values(Signal::Cpu, 0.1);
    world.node("n3").values.insert(Signal::Cpu, 0.9);
    world.outlook.rebalance = plan("n3", 400, 300);
    world.policy.checks.hotspot = Some(1);
    assert_eq!(world.clone().check().action, down("n1", 5));
    world.policy.thresholds.min_nodes = 6;
    assert_eq!(world.check().action, Action::Rebalance {}, "and the rebalance where the node may not go");
}

#[test]
fn observing_pretends_to_rebalance_for_as_long_as_it_would_take() {
    let mut world = World::hot(0.9);
    world.mode = Mode::Observe;
    assert_eq!(names(&world.checks(5).guards), ["observe"]);
    assert_eq!(names(&world.checks(7).guards), ["observe", "operation_running"], "240 s are eight checks");
    assert_eq!(world.check().wanted, None, "it would have ended, and streaks start over");
}

#[test]
fn the_ranking_of_victims_is_told() {
    let mut world = World::shrinking(6);
    for (i, drain) in world.outlook.scale_down.iter_mut().enumerate() {
        drain.forecast =
            Forecast { shards: 2, bytes: 1024 * (i as u64 + 1), seconds: Some(30.0), ..Forecast::default() };
    }
    world.outlook.scale_down[0].impossible = Some("docs/3 has no legal place elsewhere".into());
    world.inventory().members[1].leader = true;
    let asked = Request { node: Some(id("n4")), ..request(Kind::ScaleDown) };
    let named = world.clone().ask(&asked);
    assert_eq!(named.because[1..], ["n4 goes: 2 shards, 4.0 KiB, about 30 s to move".to_string()]);
    let decision = world.check();
    assert_eq!(decision.action, down("n2", 5));
    assert_eq!(
        decision.because[5..],
        [
            "n2 goes: 2 shards, 2.0 KiB, about 30 s to move; the next were n3: 2 shards, 3.0 KiB, about 30 s to move",
            "n2 leads the members' consensus: when it leaves they elect another",
            "not to be removed: n1: docs/3 has no legal place elsewhere",
        ]
    );
}

fn move_of(shard: u32, from: &str, to: &str) -> Move {
    let shard = ShardId { collection: "docs".into(), shard };
    Move { shard, from: id(from), to: id(to), bytes: 1, vectors: 1 }
}

#[test]
fn each_move_of_a_plan_is_proven_legal_before_the_first() {
    // Shards 1 on n1 and n2, 2 on n1.
    let cases: [(&str, Vec<Move>, Turn, Option<&str>); 8] = [
        ("legal", vec![move_of(1, "n1", "n3"), move_of(2, "n1", "n2")], |_| {}, None),
        ("by way of another", vec![move_of(2, "n1", "n2"), move_of(2, "n2", "n3")], |_| {}, None),
        ("two copies on one node", vec![move_of(1, "n1", "n2")], |_| {}, Some("n2 has a copy already")),
        ("not there", vec![move_of(2, "n2", "n3")], |_| {}, Some("n2 has no active copy")),
        (
            "not active",
            vec![move_of(2, "n1", "n3")],
            |w| w.inventory().shards[2].state = ReplicaState::Partial,
            Some("n1 has no active copy"),
        ),
        ("no member", vec![move_of(2, "n1", "n9")], |_| {}, Some("n9 is not open for shards")),
        (
            "cordoned",
            vec![move_of(2, "n1", "n3")],
            |w| w.inventory().members[2].cordoned = true,
            Some("n3 is not open for shards"),
        ),
        (
            "not healthy",
            vec![move_of(2, "n1", "n6")],
            |w| w.inventory().members[5].healthy = false,
            Some("n6 is not open for shards"),
        ),
    ];
    for (name, moves, change, wrong) in cases {
        let mut world = World::nodes(6);
        world.shard(1, &["n1", "n2"]);
        world.shard(2, &["n1"]);
        change(&mut world);
        world.outlook.rebalance.moves = moves.into();
        let decision = world.ask(&request(Kind::Rebalance));
        match wrong {
            None => assert_eq!(decision.action, Action::Rebalance {}, "{name}: {}", explain(&decision)),
            Some(why) => {
                assert_eq!(names(&decision.guards), ["placement"], "{name}: {}", explain(&decision));
                assert!(decision.guards[0].detail.ends_with(why), "{name}: {}", decision.guards[0].detail);
            }
        }
    }
}

#[test]
fn a_drain_has_to_leave_nothing_behind() {
    let cases: [(&str, Vec<Move>, Option<&str>); 3] = [
        ("all of it moves", vec![move_of(1, "n1", "n3"), move_of(2, "n1", "n3")], None),
        ("one is forgotten", vec![move_of(1, "n1", "n3")], Some("the plan leaves docs/2 on n1")),
        (
            "one comes back",
            vec![move_of(1, "n1", "n3"), move_of(2, "n1", "n3"), move_of(2, "n3", "n1")],
            Some("n1 is not open for shards"),
        ),
    ];
    for (name, moves, wrong) in cases {
        let mut world = World::shrinking(6);
        world.shard(1, &["n1", "n2"]);
        world.shard(2, &["n1"]);
        world.outlook.scale_down[0].forecast.moves = moves.into();
        let decision = world.check();
        match wrong {
            None => assert_eq!(decision.action, down("n1", 5), "{name}: {}", explain(&decision)),
            Some(why) => assert!(decision.guards[0].detail.ends_with(why), "{name}: {}", explain(&decision)),
        }
    }
}

#[test]
fn a_replacement_needs_a_place_for_every_lost_copy() {
    // (wanted copies, living nodes with one, cordoned nodes, whether it is begun)
    let cases: [(u32, &[&str], &[&str], bool); 4] = [
        (2, &["n2"], &[], true),
        (3, &["n2"], &[], true),
        (3, &["n2"], &["n3", "n4"], false),
        (2, &["n2"], &["n3", "n4"], true),
    ];
    for (wanted, living, cordoned, expected) in cases {
        let mut world = World::with_dead_node(4);
        world.shard(1, &["n1"]);
        world.shard(1, living);
        world.inventory().wanted_replicas.insert("docs".into(), wanted);
        for member in &mut world.inventory().members {
            member.cordoned = cordoned.contains(&member.id.as_str());
        }
        let decision = world.check();
        assert_eq!(decision.action != Action::Hold, expected, "{wanted} {cordoned:?}: {}", explain(&decision));
        if !expected {
            assert_eq!(
                decision.guards[0].detail,
                "docs/1 needs 2 new copies, and with the successor only 1 node could take one"
            );
        }
    }
}

/// Each row: what the store says, and the guard that then holds every kind of change, asked for or not.
#[test]
fn what_the_store_says_of_quorum_and_others() {
    let cases: [(&str, Turn, &str, &str); 2] = [
        (
            "no majority",
            |w| w.inventory().no_quorum = Some("n2 and n3 see no leader".into()),
            "quorum",
            "n2 and n3 see no leader",
        ),
        (
            "a resharding",
            |w| w.inventory().foreign = vec!["docs is resharded from 3 to 4 shards".into()],
            "foreign_operation",
            "work that vecscale did not start: docs is resharded from 3 to 4 shards",
        ),
    ];
    for (name, change, guard, detail) in cases {
        let mut growing = World::growing(6);
        let mut shrinking = World::shrinking(6);
        let mut dead = World::with_dead_node(6);
        let mut hot = World::hot(0.9);
        hot.checks(4);
        for world in [&mut growing, &mut shrinking, &mut dead, &mut hot] {
            change(world);
            let decision = world.check();
            assert_eq!(names(&decision.guards), [guard], "{name}: {}", explain(&decision));
            assert_eq!(decision.guards[0].detail, detail);
        }
        for kind in Kind::ALL {
            let asked = Request { node: Some(id("n1")), reason: Some("now".into()), ..request(kind) };
            assert!(names(&growing.ask(&asked).guards).contains(&guard), "{name}: {kind:?} by hand");
        }
    }
}

#[test]
fn an_index_build_is_waited_for_half_an_hour_at_a_stretch() {
    let mut world = World::nodes(6);
    world.inventory().members[3].indexing = true;
    world.fresh(Signal::Memory, 0.9);
    let first = (1..=80).find(|_| {
        let decision = world.check();
        assert!(names(&decision.guards).iter().all(|g| *g == "settling"), "{}", explain(&decision));
        decision.action != Action::Hold
    });
    assert_eq!(first, Some(61), "from then on it is the everyday work of a store that takes writes");
}

#[test]
fn a_node_that_builds_an_index_does_not_extend_cpu_and_latency() {
    for (indexing, expected) in [(true, None), (false, Some(Kind::ScaleUp))] {
        let mut world = World::nodes(4);
        world.values(Signal::Cpu, 0.6);
        world.node("n1").values.insert(Signal::Cpu, 1.4);
        world.fresh(Signal::Cpu, 0.8);
        world.inventory().members[0].indexing = indexing;
        assert_eq!(world.checks(4).wanted, expected, "indexing: {indexing}");
    }
}

//! What windows ask for: a floor, a count that is wanted, a freeze; and what they do not do.

use super::*;

fn floor(nodes: u32) -> Option<Floor> {
    Some(Floor { nodes, window: "office".into(), opens: None, since: Some(START) })
}

/// Six nodes, between all lines.
fn wanting(windows: WindowsNow) -> World {
    let mut world = World::nodes(6);
    world.policy.windows = windows;
    world
}

/// The same, with a projection that one node fewer passes.
fn idle(windows: WindowsNow) -> World {
    let mut world = World::shrinking(6);
    world.policy.windows = windows;
    world
}

fn frozen(freeze: Freeze) -> WindowsNow {
    let frozen = Frozen { freeze, window: "launch".into(), until: Some(START) };
    WindowsNow { freeze: Some(frozen), ..WindowsNow::default() }
}

#[test]
fn a_floor_above_the_count_wants_more_at_once() {
    let mut world = wanting(WindowsNow { floor: floor(8), ..WindowsNow::default() });
    let decision = world.check();
    assert_eq!((decision.action, decision.trigger), (up(1, 7), Some(Trigger::Schedule)));
    assert_eq!(decision.because, ["window office is open and wants 8 nodes, 6 placeable"]);

    let opens = Some(START);
    let mut world = wanting(WindowsNow {
        floor: Some(Floor { opens, since: None, ..floor(8).expect("one") }),
        ..WindowsNow::default()
    });
    world.policy.scale_up.step = policy::StepSize::Proportional;
    let decision = world.check();
    assert_eq!(decision.action, up(2, 8), "as many as are missing, three at most");
    assert_eq!(decision.because, [format!("window office opens at {START} and wants 8 nodes, 6 placeable")]);
}

#[test]
fn guards_bind_a_window_as_they_bind_a_signal() {
    let mut world = wanting(WindowsNow { floor: floor(8), ..WindowsNow::default() });
    world.mode = Mode::Observe;
    world.policy.thresholds.max_nodes = 6;
    world.memory.ends =
        super::super::memory::Ends { scale_up: Some(world.seen.at), scale_down: None, any: Some(world.seen.at) };
    let decision = world.check();
    assert_eq!((decision.wanted, decision.trigger), (Some(Kind::ScaleUp), Some(Trigger::Schedule)));
    assert_eq!(names(&decision.guards), ["observe", "cooldown", "max_nodes"]);
}

#[test]
fn up_triggers_may_exceed_what_a_window_wants() {
    let mut world = World::growing(6);
    world.policy.windows = WindowsNow { floor: floor(4), desired: floor(4), freeze: None };
    let decision = world.check();
    assert_eq!((decision.action, decision.trigger), (up(1, 7), Some(Trigger::Threshold)));
}

#[test]
fn lows_may_not_go_below_it() {
    let mut world = idle(WindowsNow { floor: floor(6), desired: floor(6), freeze: None });
    let decision = world.check();
    assert_eq!((decision.action, decision.wanted), (Action::Hold, None));
    assert!(
        decision.because.iter().any(|why| why.contains("low conditions hold, but window office is open and wants 6")),
        "{:?}",
        decision.because
    );
    world.policy.windows = WindowsNow { floor: floor(5), desired: floor(5), freeze: None };
    assert_eq!(world.check().action, down("n1", 5));
}

type Case = (&'static str, fn(&mut World), Action, &'static str);

#[test]
fn more_than_a_window_wants_are_brought_down_when_nothing_speaks_against_it() {
    let calm: fn(&mut World) = |w| w.low();
    let cases: [Case; 7] = [
        ("low", calm, down("n1", 5), "window office is open and wants 4 nodes, 6 placeable"),
        (
            "between the lines, for lows are not asked for",
            |w| {
                w.memory.recent.totals.clear();
                for signal in [Signal::Cpu, Signal::Memory, Signal::Storage] {
                    w.fresh(signal, 0.45);
                }
            },
            down("n1", 5),
            "window office is open",
        ),
        ("the projection forbids it", |w| w.fresh(Signal::Storage, 0.7), Action::Hold, "window office is open"),
        (
            "a signal above its line",
            |w| w.fresh(Signal::ErrorRate, 0.2),
            Action::Hold,
            "wants 4 nodes, 6 placeable, but error_rate is above 0.05",
        ),
        ("a reading is missing", |w| w.missing(Signal::Cpu), Action::Hold, "window office is open"),
        ("as many as min_nodes", |w| w.policy.thresholds.min_nodes = 6, Action::Hold, "window office is open"),
        ("observed only", |w| w.mode = Mode::Observe, Action::Hold, "window office is open"),
    ];
    for (name, change, action, because) in cases {
        let mut world = World::nodes(6);
        world.low();
        world.check();
        change(&mut world);
        world.policy.windows = WindowsNow { floor: floor(4), desired: floor(4), freeze: None };
        let decision = world.check();
        assert_eq!(decision.action, action, "{name}: {}", explain(&decision));
        assert!(decision.because.iter().any(|why| why.contains(because)), "{name}: {:?}", decision.because);
        if decision.wanted.is_some() {
            assert_eq!(decision.trigger, Some(Trigger::Schedule), "{name}");
        }
    }
}

#[test]
fn a_count_that_is_wanted_is_reached_and_then_nothing_more_is() {
    for nodes in [4, 5] {
        let mut world = World::nodes(nodes);
        world.low();
        world.check();
        world.policy.windows = WindowsNow { floor: floor(4), desired: floor(4), freeze: None };
        let expected = if nodes == 5 { down("n1", 4) } else { Action::Hold };
        assert_eq!(world.check().action, expected);
        // Closed again: what is there stays, as long as no trigger wants it otherwise.
        world.policy.windows = WindowsNow::default();
        world.fresh(Signal::Cpu, 0.5);
        world.fresh(Signal::Memory, 0.5);
        world.fresh(Signal::Storage, 0.55);
        assert_eq!(world.check().wanted, None);
    }
}

#[test]
fn a_freeze_of_scale_downs_binds_nothing_else() {
    let mut world = idle(frozen(Freeze::Down));
    let decision = world.check();
    assert_eq!(names(&decision.guards), ["window_freeze"]);
    assert_eq!(decision.guards[0].detail, "window launch is open (freeze: down)");
    assert_eq!(decision.guards[0].until, Some(START));
    let mut world = World::growing(6);
    world.policy.windows = frozen(Freeze::Down);
    assert_eq!(world.check().action, up(1, 7));
    let against = prospect(&world.policy, &world.memory, &world.situation(None)).against;
    let held = |kind| names(&against[&kind]).contains(&"window_freeze");
    assert_eq!([Kind::ScaleUp, Kind::ScaleDown, Kind::Rebalance].map(held), [false, true, false]);
    world.policy.windows = frozen(Freeze::All);
    let against = prospect(&world.policy, &world.memory, &world.situation(None)).against;
    let held = |kind| names(&against[&kind]).contains(&"window_freeze");
    assert_eq!([Kind::ScaleUp, Kind::ScaleDown, Kind::Rebalance].map(held), [true; 3]);
}

/// Name, open for and `at_least` in minutes, predicted drain in seconds, and what it is told to wait for.
type Opened<'a> = (&'a str, u64, u64, Option<f64>, Result<(), &'a str>);

#[test]
fn a_window_must_have_been_open_as_long_as_lows_must_hold() {
    let minutes = |n: u64| Duration::from_secs(n * 60);
    let cases: [Opened; 6] = [
        (
            "the production profile, too early",
            10,
            30,
            None,
            Err("for 10 min of the 30 min that the profile asks for at least"),
        ),
        ("in time", 30, 30, None, Ok(())),
        ("a long drain", 30, 30, Some(7200.0), Err("of the 2.0 h that the drain is predicted to take")),
        ("longer than the drain", 120, 30, Some(7200.0), Ok(())),
        ("any profile waits for the drain", 1, 0, Some(61.0), Err("of the 61 s that the drain is predicted to take")),
        ("nothing is asked for", 0, 0, None, Ok(())),
    ];
    for (name, open, at_least, drain, expected) in cases {
        let mut world = World::nodes(6);
        world.low();
        world.check();
        world.policy.scale_down.at_least = minutes(at_least);
        world.outlook.scale_down.iter_mut().for_each(|d| d.forecast.seconds = drain);
        let since = Some(world.seen.at.plus(CHECK).minus(minutes(open)));
        let wanted = floor(4).map(|floor| Floor { since, ..floor });
        world.policy.windows = WindowsNow { floor: wanted.clone(), desired: wanted, freeze: None };
        let decision = world.check();
        match expected {
            Ok(()) => assert_eq!(decision.action, down("n1", 5), "{name}: {}", explain(&decision)),
            Err(why) => {
                assert_eq!((&decision.action, decision.wanted), (&Action::Hold, None), "{name}");
                let told =
                    decision.because.iter().any(|b| b.contains("wants 4 nodes, 6 placeable: for") && b.contains(why));
                assert!(told, "{name}: {:?}", decision.because);
            }
        }
    }
}

#[test]
fn what_a_window_wanted_is_taken_back_when_no_window_wants_it_any_more() {
    let leaving = |state| step(StepAction::Leave { node: id("n1") }, state);
    let drain = || Operation {
        nodes: vec![id("n1")],
        steps: vec![leaving(StepState::Waiting)],
        ..operation(Kind::ScaleDown, OperationState::Running, Trigger::Schedule)
    };
    let closed = Some("the window that wanted fewer nodes has closed");
    let cases: [(&str, Option<Floor>, Operation, Option<&str>); 9] = [
        ("open still", floor(5), drain(), None),
        ("closed", None, drain(), closed),
        ("another wants more", floor(6), drain(), Some("window office is open and wants 6 nodes, 5 would stay")),
        ("lows wanted it too", None, Operation { trigger: Trigger::Threshold, ..drain() }, None),
        ("a person wants it", None, Operation { trigger: Trigger::Manual, ..drain() }, None),
        ("a person paused it", None, Operation { paused: true, ..drain() }, None),
        ("it is being taken back", None, Operation { cancel: Some("someone".into()), ..drain() }, None),
        ("past the point of no return", None, Operation { steps: vec![leaving(StepState::Intent)], ..drain() }, None),
        ("a scale-up stays", None, Operation { kind: Kind::ScaleUp, ..drain() }, None),
    ];
    for (name, desired, running, expected) in cases {
        let mut world = World::nodes(6);
        world.node("n1").state = NodeState::Draining;
        world.operation = Some(running);
        world.policy.windows.desired = desired;
        assert_eq!(let_go(&world.policy, &world.situation(None)).as_deref(), expected, "{name}");
    }
}

#[test]
fn checks_that_held_against_one_line_do_not_count_for_a_stricter_one() {
    let set: fn(&mut World, f64) = |w, line| w.policy.thresholds.cpu_threshold_low = line;
    let streak = |decision: &Decision, name: &str| {
        let condition = decision.conditions.iter().find(|c| c.name == name).expect("a condition");
        (condition.streak, condition.active)
    };
    let mut world = World::nodes(6);
    set(&mut world, 0.6);
    assert_eq!(streak(&world.checks(5), "cpu_low"), (5, true));
    set(&mut world, 0.3);
    world.fresh(Signal::Cpu, 0.29);
    let since = world.seen.at.plus(CHECK);
    assert_eq!(streak(&world.checks(1), "cpu_low"), (1, false), "five were above this line");
    assert_eq!(world.memory.recent.streaks["cpu_low"].since, Some(since));
    set(&mut world, 0.6);
    assert_eq!(streak(&world.checks(1), "cpu_low"), (2, false), "what was below 0.3 is below 0.6");

    // Thought through anew without a new check.
    world.fresh(Signal::Cpu, 0.29);
    assert_eq!(streak(&world.checks(3), "cpu_low"), (5, true));
    set(&mut world, 0.3);
    let again = decide(&world.policy, &world.memory, &world.situation(None));
    assert_eq!(streak(&again.decision, "cpu_low"), (0, false));

    let mut world = World::nodes(6);
    world.policy.checks.cpu_high = Some(2);
    world.policy.thresholds.cpu_threshold_high = 0.45;
    world.mode = Mode::Stopped;
    assert_eq!(streak(&world.checks(2), "cpu_high"), (2, true));
    world.policy.thresholds.cpu_threshold_high = 0.75;
    world.fresh(Signal::Cpu, 0.8);
    assert_eq!(streak(&world.checks(1), "cpu_high"), (1, false));
    world.policy.thresholds.cpu_threshold_high = 0.7;
    assert_eq!(streak(&world.checks(1), "cpu_high"), (2, true), "a lower line is less to ask");
}

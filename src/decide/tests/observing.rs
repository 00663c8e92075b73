//! Mode *observe*: a record as honest as if it had acted.

use super::*;

#[test]
fn what_would_have_been_done_starts_a_would_be_operation_and_cooldown() {
    let mut world = World::nodes(6);
    world.mode = Mode::Observe;
    world.lead_times = vec![Duration::from_secs(120); 3];
    world.fresh(Signal::Cpu, 0.9);
    let story: Vec<(Option<Kind>, Vec<&str>)> = (0..18)
        .map(|_| {
            let decision = world.check();
            assert_eq!(decision.action, Action::Hold);
            (decision.wanted, names(&decision.guards))
        })
        .collect();
    let up = Some(Kind::ScaleUp);
    assert_eq!(story[0], (None, vec![]), "the first of two checks");
    assert_eq!(story[1], (up, vec!["observe"]), "it would have acted");
    for (i, turn) in story[2..5].iter().enumerate() {
        assert_eq!(turn, &(up, vec!["observe", "operation_running"]), "check {}", i + 3);
    }
    assert_eq!(story[5], (None, vec![]), "it would have ended, and streaks start over");
    for (i, turn) in story[6..15].iter().enumerate() {
        assert_eq!(turn, &(up, vec!["observe", "cooldown"]), "check {}", i + 7);
    }
    assert_eq!(story[15], (up, vec!["observe"]), "300 s later it would have acted again");
    assert_eq!(story[16], (up, vec!["observe", "operation_running"]));
}

#[test]
fn the_pretence_ends_with_the_mode() {
    let mut world = World::nodes(6);
    world.mode = Mode::Observe;
    world.fresh(Signal::Cpu, 0.9);
    world.checks(3);
    assert!(world.memory.would_be.is_some());
    world.mode = Mode::Active;
    assert_eq!(world.check().action, up(1, 7), "nothing of it binds the active pool");
    assert_eq!(world.memory.would_be, None);
}

#[test]
fn a_guard_besides_observe_means_it_would_not_have_acted() {
    let mut world = World::nodes(6);
    world.mode = Mode::Observe;
    world.policy.thresholds.max_nodes = 6;
    world.fresh(Signal::Cpu, 0.9);
    assert_eq!(names(&world.checks(2).guards), ["observe", "max_nodes"]);
    assert_eq!(world.memory.would_be, None);
}

#[test]
fn observing_would_replace_once_an_hour() {
    let mut world = World::with_dead_node(6);
    world.mode = Mode::Observe;
    let would_act = |d: Decision| names(&d.guards) == ["observe"];
    let times: Vec<u32> = (0..=240).filter(|_| would_act(world.check())).collect();
    assert_eq!(times, [0, 120, 240]);
    assert_eq!(world.memory.last_replacement, None, "nothing was replaced in truth");
}

#[test]
fn what_would_have_acted_is_told_before_what_could_not() {
    let mut world = World::with_dead_node(6);
    world.mode = Mode::Observe;
    world.only_copy_on("n1");
    world.fresh(Signal::Cpu, 0.9);
    assert_eq!(world.check().wanted, Some(Kind::Replace), "the first of two checks");
    let decision = world.check();
    assert_eq!((decision.wanted, names(&decision.guards)), (Some(Kind::ScaleUp), vec!["observe"]));
    assert!(decision.because[1].starts_with("replace is wanted too"), "{:?}", decision.because);
    assert!(world.memory.would_be.is_some());
}

#[test]
fn what_is_only_pretended_is_in_nobodys_way() {
    let mut world = World::nodes(6);
    world.mode = Mode::Observe;
    world.fresh(Signal::Cpu, 0.9);
    assert!(names(&world.checks(3).guards).contains(&"operation_running"));
    let asked = Request { reason: Some("I know".into()), ..request(Kind::ScaleUp) };
    assert_eq!(world.ask(&asked).action, up(1, 7));
}

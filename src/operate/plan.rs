//! Decision -> operation: the steps of each kind of work, and those that take it back. Pure.

use std::time::Duration;

use crate::model::{
    Action, Decision, Kind, Move, NodeId, Operation, OperationId, OperationState, PoolName, ShardId, Step, StepAction,
    StepState, Timestamp, Trigger,
};

/// How long each kind of step may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// A creation, and separately the wait until the node is a healthy member.
    pub create: Duration,
    /// A call that returns soon: join, cordon, leave, destroy …; also a read that decides.
    pub call: Duration,
    /// A move or a drain without any progress.
    pub stuck: Duration,
    /// All attempts at a proof together.
    pub prove: Duration,
    /// The quiet at the end: one check.
    pub settle: Duration,
}

impl Deadlines {
    /// `create` is the provider's timeout, `check` the time between two checks.
    pub fn of(create: Duration, check: Duration) -> Deadlines {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Deadlines { create, call: minutes(2), stuck: minutes(15), prove: minutes(5), settle: check }
    }

    fn for_action(&self, action: &StepAction) -> Duration {
        use StepAction::*;
        match action {
            Create { .. } | Join { .. } => self.create,
            Rebalance | Drain { .. } | Restore { .. } | Move(_) | Replicate(_) => self.stuck,
            Prove { .. } => self.prove,
            Settle => self.settle,
            // Taking a machine away may take as long as making one.
            Destroy { .. } => self.create.max(self.call),
            Forget { .. } => self.prove.max(self.call),
            Validate
            | Cordon { .. }
            | OutOfService { .. }
            | InService { .. }
            | Leave { .. }
            | Uncordon { .. }
            | Unjoin { .. } => self.call,
        }
    }
}

/// What a plan needs besides the decision.
#[derive(Clone, Debug)]
pub struct Planning<'a> {
    pub id: OperationId,
    pub pool: PoolName,
    pub at: Timestamp,
    /// Who asked: `vecscale` or a person.
    pub who: &'a str,
    /// Names for the nodes to create (see [`new_names`]), as many as the decision wants.
    pub names: Vec<NodeId>,
    /// Whether nodes hold data at all.
    pub holds_data: bool,
    /// Whether clients are sent to nodes, and away from them, by hooks of the user's.
    pub has_service_hooks: bool,
    /// Whether the node that goes is cordoned and out of service on a person's word, and stays so whatever becomes of this.
    pub is_drained: bool,
    pub deadlines: Deadlines,
}

/// The operation that carries `decision` out; `None` for a hold.
pub fn plan(decision: &Decision, with: Planning) -> Option<Operation> {
    use StepAction as A;
    let mut replaces = None;
    let hooks = with.holds_data && with.has_service_hooks;
    let in_service = |nodes: &[NodeId]| -> Vec<StepAction> {
        let served = nodes.iter().filter(|_| hooks);
        served.map(|node| A::InService { node: node.clone() }).collect()
    };
    let (nodes, actions) = match &decision.action {
        Action::Hold => return None,
        Action::ScaleUp { nodes, .. } => {
            let names: Vec<NodeId> = with.names.iter().take(*nodes as usize).cloned().collect();
            let made = |node: &NodeId| [A::Create { node: node.clone() }, A::Join { node: node.clone() }];
            let mut actions = vec![A::Validate];
            actions.extend(names.iter().flat_map(made));
            actions.extend(with.holds_data.then_some(A::Rebalance));
            actions.extend(in_service(&names));
            actions.push(A::Settle);
            (names, actions)
        }
        Action::ScaleDown { node, .. } => {
            let node = node.clone();
            let closes = |action: &A| matches!(action, A::Cordon { .. } | A::OutOfService { .. });
            let emptied = emptied(&node, hooks).into_iter().filter(|action| !(with.is_drained && closes(action)));
            let leaves = emptied.chain([A::Leave { node: node.clone() }]);
            let mut actions = vec![A::Validate];
            actions.extend(leaves.filter(|_| with.holds_data));
            actions.extend([A::Destroy { node: node.clone() }, A::Settle]);
            (vec![node], actions)
        }
        Action::Replace { node: dead } => {
            let names: Vec<NodeId> = with.names.iter().take(1).cloned().collect();
            let made = |node: &NodeId| [A::Create { node: node.clone() }, A::Join { node: node.clone() }];
            let moved_over = [A::Restore { node: dead.clone() }, A::Forget { node: dead.clone() }];
            let mut actions = vec![A::Validate];
            actions.extend(names.iter().flat_map(made));
            actions.extend(moved_over.into_iter().filter(|_| with.holds_data));
            actions.extend(in_service(&names));
            actions.push(A::Settle);
            replaces = Some(dead.clone());
            (names, actions)
        }
        Action::Rebalance {} => (Vec::new(), vec![A::Validate, A::Rebalance, A::Settle]),
        Action::Drain { node } => (vec![node.clone()], [A::Validate].into_iter().chain(emptied(node, hooks)).collect()),
        Action::Adopt { node, joined } => {
            let mut actions = vec![A::Validate];
            actions.extend((!joined).then(|| A::Join { node: node.clone() }));
            actions.extend(with.holds_data.then_some(A::Rebalance));
            actions.extend(in_service(std::slice::from_ref(node)));
            actions.push(A::Settle);
            (vec![node.clone()], actions)
        }
        Action::Reap { node } => {
            let forgotten = with.holds_data.then(|| A::Forget { node: node.clone() });
            let mut actions = vec![A::Validate];
            actions.extend(forgotten);
            actions.push(A::Destroy { node: node.clone() });
            (vec![node.clone()], actions)
        }
    };
    let kind = decision.action.kind()?;
    let trigger = decision.trigger.unwrap_or(Trigger::Manual);
    let mut operation = Operation {
        because: decision.because.clone(),
        decision: Some(decision.id),
        nodes,
        replaces,
        ..Operation::new(with.id, with.pool, kind, trigger, with.who, with.at)
    };
    for action in actions {
        add_step(&mut operation, action, &with.deadlines, None);
    }
    Some(operation)
}

/// What makes a node empty, and says so.
fn emptied(node: &NodeId, hooks: bool) -> Vec<StepAction> {
    let mut actions = vec![StepAction::Cordon { node: node.clone() }];
    actions.extend(hooks.then(|| StepAction::OutOfService { node: node.clone() }));
    actions.extend([StepAction::Drain { node: node.clone() }, StepAction::Prove { node: node.clone() }]);
    actions
}

/// Adds a step, at the end or right after position `after`; gives its position. Keys never change: the next number
/// is one above any used.
pub fn add_step(operation: &mut Operation, action: StepAction, deadlines: &Deadlines, after: Option<usize>) -> usize {
    let seq = operation.steps.iter().map(|step| step.seq + 1).max().unwrap_or(0);
    let step = Step {
        seq,
        key: format!("{}/{seq}", operation.id),
        state: StepState::Waiting,
        attempts: 0,
        started_at: None,
        ended_at: None,
        deadline: deadlines.for_action(&action),
        output: None,
        error: None,
        late_drop: false,
        action,
    };
    let place = after.map_or(operation.steps.len(), |after| (after + 1).min(operation.steps.len()));
    operation.steps.insert(place, step);
    place
}

/// The steps that take an operation back, in order, from what was begun of it: none for what had no effect. Whether
/// it may be taken back at all is [`can_undo`]'s to say.
pub fn undo(operation: &Operation, holds_data: bool) -> Vec<StepAction> {
    let begun = |wanted: &StepAction| {
        // One that waits after an attempt waits on a person's word that it had no effect.
        let touched = |step: &Step| match step.state {
            StepState::Intent | StepState::Done | StepState::Unknown => true,
            StepState::Waiting => step.attempts > 0,
            StepState::Failed | StepState::Skipped => false,
        };
        operation.steps.iter().any(|step| &step.action == wanted && touched(step))
    };
    let mut undo = Vec::new();
    for node in operation.nodes.iter().rev() {
        let node = node.clone();
        match operation.kind {
            Kind::ScaleUp | Kind::Replace if begun(&StepAction::Create { node: node.clone() }) => {
                let joined = holds_data && was_begun(operation, &StepAction::Join { node: node.clone() });
                undo.extend(joined.then(|| StepAction::Unjoin { node: node.clone() }));
                undo.push(StepAction::Destroy { node });
            }
            Kind::Adopt if holds_data && was_begun(operation, &StepAction::Join { node: node.clone() }) => {
                undo.push(StepAction::Unjoin { node });
            }
            // Open for shards first: should the hook fail, no more than that is left.
            Kind::ScaleDown | Kind::Drain if begun(&StepAction::Cordon { node: node.clone() }) => {
                undo.push(StepAction::Uncordon { node: node.clone() });
                let was_out = begun(&StepAction::OutOfService { node: node.clone() });
                undo.extend(was_out.then_some(StepAction::InService { node }));
            }
            _ => {}
        }
    }
    undo
}

/// A join that failed or was given up may still have made the node a member.
fn was_begun(operation: &Operation, wanted: &StepAction) -> bool {
    operation.steps.iter().any(|step| &step.action == wanted && step.attempts > 0)
}

/// Whether the operation is still before its point of no return, as far as the journal knows: leaving the cluster
/// (or being destroyed, where nodes hold no data), the first shard on a new node, a new node that is filled and to be put
/// in service, or a member forgotten.
pub fn can_undo(operation: &Operation) -> bool {
    let begun = |step: &Step| !matches!(step.state, StepState::Waiting | StepState::Skipped | StepState::Failed);
    !operation.steps.iter().any(|step| match &step.action {
        StepAction::Leave { .. } | StepAction::Forget { .. } => begun(step),
        StepAction::Destroy { .. } => matches!(operation.kind, Kind::ScaleDown | Kind::Reap) && begun(step),
        StepAction::Move(_) | StepAction::Replicate(_) => {
            !matches!(operation.kind, Kind::ScaleDown | Kind::Drain) && begun(step)
        }
        StepAction::InService { .. } => !matches!(operation.kind, Kind::ScaleDown | Kind::Drain) && step.attempts > 0,
        _ => false,
    })
}

/// Whether the operation may still be cancelled.
///
/// # Errors
/// Why not: past leaving the cluster or forgetting a member work goes forward only, and with only the quiet at the end to
/// come there is nothing left to cancel.
pub fn can_cancel(operation: &Operation) -> Result<(), &'static str> {
    let forward_only = match operation.kind {
        Kind::ScaleDown | Kind::Reap => !can_undo(operation),
        Kind::Replace => operation.steps.iter().any(|step| {
            matches!(step.action, StepAction::Forget { .. })
                && !matches!(step.state, StepState::Waiting | StepState::Skipped | StepState::Failed)
        }),
        Kind::ScaleUp | Kind::Rebalance | Kind::Adopt | Kind::Drain => false,
    };
    if operation.state.is_final() {
        Err("it has ended")
    } else if is_being_undone(operation) {
        Err("it is being taken back already")
    } else if forward_only {
        Err("it is past its point of no return and goes forward only")
    } else if !operation.steps.iter().any(|step| step.state.is_open() && step.action != StepAction::Settle) {
        Err("only the quiet at its end is left")
    } else {
        Ok(())
    }
}

/// Whether the operation is on its way back, or is blocked on it.
pub fn is_being_undone(operation: &Operation) -> bool {
    match operation.state {
        OperationState::Undoing => true,
        OperationState::Blocked => operation.steps.iter().any(|step| is_undo(operation.kind, &step.action)),
        _ => false,
    }
}

/// Whether a step of this kind of operation takes something back.
fn is_undo(kind: Kind, action: &StepAction) -> bool {
    match action {
        StepAction::Uncordon { .. } | StepAction::Unjoin { .. } => true,
        StepAction::InService { .. } => matches!(kind, Kind::ScaleDown | Kind::Drain),
        StepAction::Destroy { .. } => matches!(kind, Kind::ScaleUp | Kind::Replace),
        _ => false,
    }
}

/// The step that is under way, or comes next, on the way that the operation goes. Single copies of shards are steps
/// within that one.
pub fn next_step(operation: &Operation) -> Option<usize> {
    let undoing = is_being_undone(operation);
    operation.steps.iter().position(|step| {
        let wanted = if undoing { is_undo(operation.kind, &step.action) } else { step.action.copy().is_none() };
        wanted && step.state.is_open()
    })
}

/// Nodes to which clients are not sent though they were to be, each with why, if it was tried.
pub fn not_in_service(operation: &Operation) -> impl Iterator<Item = (&NodeId, Option<&str>)> {
    let open = operation.steps.iter().filter(|step| step.state != StepState::Done);
    open.filter_map(|step| match &step.action {
        StepAction::InService { node } => Some((node, step.error.as_deref())),
        _ => None,
    })
}

/// Moves and copies that this operation has finished.
pub fn moved(operation: &Operation) -> impl Iterator<Item = &Move> {
    operation.steps.iter().filter(|step| step.state == StepState::Done).filter_map(|step| step.action.copy())
}

/// Copies that a node may yet drop, or would drop if they came back, because a request of this operation got no answer.
pub fn late_drops(operation: &Operation) -> impl Iterator<Item = (ShardId, NodeId)> {
    let late = operation.steps.iter().filter(|step| step.late_drop).filter_map(|step| step.action.copy());
    late.map(|copy| (copy.shard.clone(), copy.from.clone()))
}

/// Names for `count` new nodes, `{pool}-{n}`, above every number in a known name and above `used`, the highest ever
/// given. Returns the names and the new `used`, to be kept: a name is never given twice.
pub fn new_names<'a>(
    pool: &PoolName,
    known: impl IntoIterator<Item = &'a NodeId>,
    used: u64,
    count: u32,
) -> (Vec<NodeId>, u64) {
    let highest = known.into_iter().filter_map(ordinal).max().unwrap_or(0).max(used);
    let stem: String = pool.chars().take(40).collect(); // with 20 digits and a dash it stays a legal name
    let name = |n: u64| NodeId::new(&format!("{stem}-{n}")).ok();
    let names: Vec<NodeId> = (highest + 1..=highest + u64::from(count)).filter_map(name).collect();
    (names, highest + u64::from(count))
}

/// The number a name ends with: 12 of `qdrant-12`.
pub fn ordinal(node: &NodeId) -> Option<u64> {
    let digits = node.as_str().bytes().rev().take_while(u8::is_ascii_digit).count();
    // A number of more than 15 digits is a hash or a time, not an ordinal.
    (1..=15).contains(&digits).then(|| node.as_str()[node.as_str().len() - digits..].parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mode, ShardId};

    fn node(name: &str) -> NodeId {
        NodeId::new(name).expect("a name")
    }

    fn planned(action: Action, holds_data: bool) -> Option<Operation> {
        planned_with(action, holds_data, false)
    }

    fn planned_with(action: Action, holds_data: bool, has_service_hooks: bool) -> Option<Operation> {
        let decision = Decision {
            id: 3,
            at: Timestamp::from_millis(0),
            mode: Mode::Active,
            action,
            trigger: None,
            wanted: None,
            because: Vec::new(),
            conditions: Vec::new(),
            guards: Vec::new(),
            would_change: String::new(),
        };
        let with = Planning {
            id: OperationId("op".into()),
            pool: "p".into(),
            at: Timestamp::from_millis(0),
            who: "cli",
            names: vec![node("p-4"), node("p-5")],
            holds_data,
            has_service_hooks,
            is_drained: false,
            deadlines: Deadlines::of(Duration::from_secs(60), Duration::from_secs(30)),
        };
        plan(&decision, with)
    }

    fn steps(operation: &Operation) -> String {
        operation.steps.iter().map(|step| step.action.name()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_kind_of_work_has_its_steps() {
        let down = || Action::ScaleDown { node: node("p-1"), target: 2 };
        let up = |nodes| Action::ScaleUp { nodes, target: 3 + nodes };
        let cases = [
            (up(1), true, "validate create join rebalance settle"),
            (up(2), true, "validate create join create join rebalance settle"),
            (up(1), false, "validate create join settle"),
            (down(), true, "validate cordon drain prove leave destroy settle"),
            (down(), false, "validate destroy settle"),
            (Action::Rebalance {}, true, "validate rebalance settle"),
            (Action::Replace { node: node("p-2") }, true, "validate create join restore forget settle"),
            (Action::Replace { node: node("p-2") }, false, "validate create join settle"),
            (Action::Adopt { node: node("p-9"), joined: false }, true, "validate join rebalance settle"),
            (Action::Adopt { node: node("p-9"), joined: true }, true, "validate rebalance settle"),
            (Action::Drain { node: node("p-1") }, true, "validate cordon drain prove"),
            (Action::Reap { node: node("p-2") }, true, "validate forget destroy"),
            (Action::Reap { node: node("p-2") }, false, "validate destroy"),
        ];
        for (action, holds_data, expected) in cases {
            let operation = planned(action, holds_data).expect("something to do");
            assert_eq!(steps(&operation), expected);
            let keys: Vec<_> = operation.steps.iter().map(|step| step.key.clone()).collect();
            assert_eq!(keys, (0..keys.len()).map(|n| format!("op/{n}")).collect::<Vec<_>>());
        }
        assert_eq!(planned(Action::Hold, true), None);
        let with_hooks = [
            (up(2), true, "validate create join create join rebalance in_service in_service settle"),
            (up(1), false, "validate create join settle"),
            (down(), true, "validate cordon out_of_service drain prove leave destroy settle"),
            (down(), false, "validate destroy settle"),
            (Action::Rebalance {}, true, "validate rebalance settle"),
            (Action::Replace { node: node("p-2") }, true, "validate create join restore forget in_service settle"),
            (Action::Adopt { node: node("p-9"), joined: false }, true, "validate join rebalance in_service settle"),
        ];
        for (action, holds_data, expected) in with_hooks {
            assert_eq!(steps(&planned_with(action, holds_data, true).expect("something to do")), expected);
        }
    }

    #[test]
    fn a_node_that_was_taken_out_of_service_is_put_back() {
        let uncordon = StepAction::Uncordon { node: node("p-1") };
        let in_service = StepAction::InService { node: node("p-1") };
        let cases = [
            (StepState::Waiting, vec![uncordon.clone()]),
            (StepState::Failed, vec![uncordon.clone()]),
            (StepState::Intent, vec![uncordon.clone(), in_service.clone()]),
            (StepState::Unknown, vec![uncordon.clone(), in_service.clone()]),
            (StepState::Done, vec![uncordon, in_service.clone()]),
        ];
        let down = Action::ScaleDown { node: node("p-1"), target: 2 };
        let mut down = planned_with(down, true, true).expect("an operation");
        down.steps[1].state = StepState::Done;
        for (state, expected) in cases {
            down.steps[2].state = state;
            assert_eq!(undo(&down, true), expected, "{state:?}");
        }
        assert!(is_undo(Kind::ScaleDown, &in_service) && !is_undo(Kind::ScaleUp, &in_service));

        let up = Action::ScaleUp { nodes: 1, target: 4 };
        let mut up = planned_with(up, true, true).expect("an operation");
        assert!(can_undo(&up));
        (up.steps[4].state, up.steps[4].attempts) = (StepState::Failed, 3);
        assert!(!can_undo(&up), "a filled node stays, whatever the hook says");
        assert_eq!(not_in_service(&up).map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["p-4"]);
    }

    #[test]
    fn only_what_was_begun_is_undone_and_only_before_the_point_of_no_return() {
        let relocation = Move {
            shard: ShardId { collection: "docs".into(), shard: 0 },
            from: node("p-1"),
            to: node("p-4"),
            bytes: 1,
            vectors: 1,
        };
        let mut up = planned(Action::ScaleUp { nodes: 1, target: 4 }, true).expect("an operation");
        assert_eq!(undo(&up, true), []);
        up.steps[1].state = StepState::Unknown;
        assert_eq!(undo(&up, true), [StepAction::Destroy { node: node("p-4") }]);
        (up.steps[2].state, up.steps[2].attempts) = (StepState::Failed, 1);
        let both = [StepAction::Unjoin { node: node("p-4") }, StepAction::Destroy { node: node("p-4") }];
        assert_eq!((undo(&up, true), can_undo(&up)), (both.to_vec(), true));
        up.steps[1].state = StepState::Failed;
        assert_eq!(undo(&up, true), [], "a creation that had no effect leaves nothing to destroy");
        let deadlines = Deadlines::of(Duration::from_secs(60), Duration::from_secs(30));
        let place = add_step(&mut up, StepAction::Move(relocation.clone()), &deadlines, Some(3));
        assert_eq!((place, steps(&up)), (4, "validate create join rebalance move settle".to_string()));
        assert_eq!(up.steps[place].key, "op/5", "keys never change");
        for (state, undoable) in [
            (StepState::Waiting, true),
            (StepState::Intent, false),
            (StepState::Done, false),
            (StepState::Failed, true),
        ] {
            up.steps[place].state = state;
            assert_eq!(can_undo(&up), undoable, "{state:?}");
        }

        let mut drain = planned(Action::Drain { node: node("p-1") }, true).expect("an operation");
        assert_eq!((undo(&drain, true), can_undo(&drain)), (vec![], true));
        drain.steps[1].state = StepState::Done;
        let place = add_step(&mut drain, StepAction::Move(relocation), &deadlines, Some(2));
        drain.steps[place].state = StepState::Done;
        let lifted = vec![StepAction::Uncordon { node: node("p-1") }];
        assert_eq!((undo(&drain, true), can_undo(&drain), can_cancel(&drain)), (lifted, true, Ok(())));

        let mut down = planned(Action::ScaleDown { node: node("p-1"), target: 2 }, true).expect("an operation");
        for i in 0..4 {
            down.steps[i].state = StepState::Done;
        }
        assert_eq!((undo(&down, true), can_undo(&down)), (vec![StepAction::Uncordon { node: node("p-1") }], true));
        for state in [StepState::Intent, StepState::Unknown, StepState::Done] {
            down.steps[4].state = state;
            assert!(!can_undo(&down), "leave {state:?}");
        }
    }

    #[test]
    fn a_name_is_never_given_twice() {
        let pool: PoolName = "p".into();
        // known names, highest used, how many; names, then highest used
        type Case = (&'static [&'static str], u64, u32, &'static [&'static str], u64);
        let cases: [Case; 6] = [
            (&[], 0, 1, &["p-1"], 1),
            (&["p-1", "p-3"], 0, 2, &["p-4", "p-5"], 5),
            (&["p-1"], 7, 1, &["p-8"], 8),
            (&["qdrant-0", "qdrant-12"], 0, 1, &["p-13"], 13),
            (&["n9"], 0, 1, &["p-10"], 10),
            (&["host-99999999999999999999"], 0, 1, &["p-1"], 1),
        ];
        for (known, used, count, names, now_used) in cases {
            let known: Vec<NodeId> = known.iter().map(|name| node(name)).collect();
            let expected: Vec<NodeId> = names.iter().map(|name| node(name)).collect();
            assert_eq!(new_names(&pool, &known, used, count), (expected, now_used), "{known:?}, {used} used");
        }
        let long: PoolName = "p".repeat(63).into();
        assert_eq!(new_names(&long, [], 0, 1).0.len(), 1, "a long pool name still gives a legal one");
    }
}

//! operation + order -> operation, or why not and what can be done instead. Pure.
//!
//! | order | taken when | then |
//! |---|---|---|
//! | cancel | it can still be undone or cut short | it ends after the transfer in flight |
//! | pause | it is open and not paused | no further effect is begun |
//! | resume | it is paused | it goes on |
//! | retry | it is blocked | the step that it is blocked at is looked at again |
//! | resolve | it is blocked at a step in doubt | the step counts as done, or is tried again with the same key |

use serde_json::{Value, json};

use super::plan;
use crate::model::{
    Operation, OperationState, Order, PausedBy, Step, StepAction, StepEvent, StepState, Timestamp, Verb, Verdict,
};

/// An order that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obeyed {
    /// The step that it changed, if it changed one.
    pub step: Option<usize>,
    /// What is done now, for the audit trail: "is paused", "create n4 resolved as done".
    pub what: String,
}

/// Changes the operation as ordered.
///
/// # Errors
/// Why it cannot be done, and what can be done instead; nothing is changed then.
pub fn obey(operation: &mut Operation, order: &Order, at: Timestamp) -> Result<Obeyed, String> {
    if operation.state.is_final() {
        return Err(format!("it has ended: {}", operation.state.as_str()));
    }
    match order.what {
        Verb::Cancel => cancel(operation, order),
        Verb::Pause => pause(operation, order, at),
        Verb::Resume => resume(operation),
        Verb::Retry => retry(operation),
        Verb::Resolve(verdict) => resolve(operation, order, verdict, at),
    }
}

fn cancel(operation: &mut Operation, order: &Order) -> Result<Obeyed, String> {
    if let Some(by) = &operation.cancel {
        return Err(format!("it was cancelled already by {by}; {}", instead(operation)));
    }
    plan::can_cancel(operation).map_err(|why| format!("{why}; {}", instead(operation)))?;
    operation.cancel = Some(match &order.reason {
        Some(reason) => format!("{}: {reason}", order.who),
        None => order.who.clone(),
    });
    take_up(operation);
    Ok(Obeyed { step: None, what: "is to be cancelled".into() })
}

fn pause(operation: &mut Operation, order: &Order, at: Timestamp) -> Result<Obeyed, String> {
    if operation.paused {
        return Err(format!("it {}", paused(operation)));
    }
    operation.paused = true;
    operation.paused_by = Some(PausedBy { who: order.who.clone(), since: at, reason: order.reason.clone() });
    Ok(Obeyed { step: None, what: "is paused".into() })
}

fn resume(operation: &mut Operation) -> Result<Obeyed, String> {
    if !operation.paused {
        return Err(format!("it is not paused; {}", instead(operation)));
    }
    (operation.paused, operation.paused_by) = (false, None);
    Ok(Obeyed { step: None, what: "is resumed".into() })
}

fn retry(operation: &mut Operation) -> Result<Obeyed, String> {
    must_be_blocked(operation)?;
    take_up(operation);
    Ok(Obeyed { step: None, what: "is tried again".into() })
}

fn resolve(operation: &mut Operation, order: &Order, verdict: Verdict, at: Timestamp) -> Result<Obeyed, String> {
    must_be_blocked(operation)?;
    let (i, event) = match (in_doubt(operation), said_done(operation), verdict) {
        (Some(i), _, Verdict::Done) => (i, StepEvent::Succeeded),
        (Some(i), _, Verdict::Absent) => (i, StepEvent::Absent),
        (None, Some(i), Verdict::Absent) => (i, StepEvent::Withdrawn),
        (None, ..) => return Err(format!("no step of it is in doubt; {}", instead(operation))),
    };
    let step = &mut operation.steps[i];
    step.state = step.state.after(event).ok_or("that cannot happen to this step")?;
    (step.error, step.ended_at) = (None, (verdict == Verdict::Done).then_some(at));
    let word = json!({"as": verdict.as_str(), "by": order.who, "reason": order.reason, "at": at});
    match &mut step.output {
        Some(Value::Object(fields)) => drop(fields.insert(WORD.into(), word)),
        other => *other = Some(json!({WORD: word})),
    }
    let what = format!("goes on: {} resolved as {}", step.action, verdict.as_str());
    take_up(operation);
    Ok(Obeyed { step: Some(i), what })
}

/// Where a step's output has what a person said of it.
const WORD: &str = "resolved";

/// A blocked operation goes on, forward or back; any other goes on as it is.
pub fn take_up(operation: &mut Operation) {
    if operation.state != OperationState::Blocked {
        return;
    }
    let undoing = plan::is_being_undone(operation);
    operation.state = if undoing { OperationState::Undoing } else { OperationState::Running };
    let why = operation.detail.split(HINT).next().unwrap_or_default();
    operation.detail = if undoing { why.into() } else { String::new() };
}

fn must_be_blocked(operation: &Operation) -> Result<(), String> {
    if operation.state == OperationState::Blocked {
        return Ok(());
    }
    Err(format!("it is not blocked; {}", instead(operation)))
}

/// The step at which the operation is blocked, if nobody knows whether its effect is there.
fn in_doubt(operation: &Operation) -> Option<usize> {
    use StepAction::*;
    let i = plan::next_step(operation)?;
    let step = &operation.steps[i];
    let is_effect = !matches!(
        step.action,
        Validate | Rebalance | Drain { .. } | Restore { .. } | Prove { .. } | Settle | Move(_) | Replicate(_)
    );
    (is_effect && step.state.is_in_doubt()).then_some(i)
}

/// The step right before the one at which the operation is blocked, if it is done only because a person said so.
fn said_done(operation: &Operation) -> Option<usize> {
    let before = plan::next_step(operation)?.checked_sub(1)?;
    let said =
        |step: &Step| step.state == StepState::Done && step.output.as_ref().is_some_and(|o| o.get(WORD).is_some());
    said(&operation.steps[before]).then_some(before)
}

/// "is paused by api 127.0.0.1 since 2026-01-31T03:12:00.000Z (backup): resume it …"
pub fn paused(operation: &Operation) -> String {
    let by = operation.paused_by.as_ref().map_or_else(String::new, |by| {
        let reason = by.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
        format!(" by {} since {}{reason}", by.who, by.since)
    });
    format!("is paused{by}: nothing more is begun until `{} resume`", command(operation))
}

fn command(operation: &Operation) -> String {
    format!("vecscale operation {}", operation.id)
}

/// What can be ordered as it stands, for whoever ordered something else.
fn instead(operation: &Operation) -> String {
    if operation.state == OperationState::Blocked {
        return ways_out(operation);
    }
    if operation.paused {
        return format!("it {}", paused(operation));
    }
    format!("`{} pause` holds it where it is", command(operation))
}

/// What stands between the reason of a block and its ways out.
const HINT: &str = "\n    hint: ";

/// The detail of an operation that is now blocked: why, and every way out.
pub fn blocked(operation: &Operation, why: &str) -> String {
    format!("{why}{HINT}nothing more is done until a person has looked; {}", ways_out(operation))
}

fn ways_out(operation: &Operation) -> String {
    let command = command(operation);
    let mut ways = vec![format!("put right what is wrong and `{command} retry` looks again")];
    if let Some(i) = in_doubt(operation) {
        let step = &operation.steps[i].action;
        ways.push(format!(
            "if you know how \"{step}\" came out, `{command} resolve --as done --reason WHY` says that it happened, \
             `--as absent` that it did not"
        ));
    } else if let Some(i) = said_done(operation) {
        let step = &operation.steps[i].action;
        ways.push(format!("`{command} resolve --as absent --reason WHY` takes back that \"{step}\" happened"));
    }
    if operation.cancel.is_none() && plan::can_cancel(operation).is_ok() {
        ways.push(format!("`{command} cancel` takes it back"));
    }
    ways.join("; ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Kind, NodeId, OperationId, Trigger};
    use crate::operate::plan::{Deadlines, add_step};

    const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

    /// A scale-down of n1 with the states of its cordon, leave and destroy.
    fn down(state: OperationState, steps: [StepState; 3]) -> Operation {
        let node = NodeId::new("n1").expect("a name");
        let mut down =
            Operation::new(OperationId("op".into()), "p".into(), Kind::ScaleDown, Trigger::Manual, "vecscale", NOW);
        let deadlines = Deadlines::of(Duration::from_secs(60), Duration::from_secs(30));
        let [cordon, leave, destroy] = [
            StepAction::Cordon { node: node.clone() },
            StepAction::Leave { node: node.clone() },
            StepAction::Destroy { node: node.clone() },
        ];
        for (action, step) in [cordon, leave, destroy].into_iter().zip(steps) {
            let place = add_step(&mut down, action, &deadlines, None);
            down.steps[place].state = step;
        }
        if state == OperationState::Blocked {
            down.detail = blocked(&down, "leave n1: nobody knows");
        }
        Operation { state, nodes: vec![node], ..down }
    }

    #[test]
    fn what_is_taken_and_what_is_refused_with_another_way() {
        use OperationState::{Blocked, Running, Succeeded, Undoing};
        use StepState::{Done, Unknown, Waiting};
        use Verb::{Cancel, Pause, Resolve, Resume, Retry};
        let early = [Done, Waiting, Waiting];
        let leaving = [Done, Unknown, Waiting];
        // Before, steps, order; what it stands as then, or what the refusal says.
        type Case = (OperationState, [StepState; 3], Verb, Result<OperationState, [&'static str; 2]>);
        let cases: [Case; 17] = [
            (Running, early, Cancel, Ok(Running)),
            (Running, early, Pause, Ok(Running)),
            (Running, early, Resume, Err(["it is not paused", "pause` holds it"])),
            (Running, early, Retry, Err(["it is not blocked", "pause` holds it"])),
            (Running, early, Resolve(Verdict::Done), Err(["it is not blocked", "pause` holds it"])),
            (Running, leaving, Cancel, Err(["point of no return", "pause` holds it"])),
            (Undoing, early, Cancel, Err(["being taken back already", "pause` holds it"])),
            (Undoing, early, Pause, Ok(Undoing)),
            (Succeeded, [Done; 3], Cancel, Err(["it has ended", "succeeded"])),
            (Succeeded, [Done; 3], Pause, Err(["it has ended", "succeeded"])),
            (Blocked, leaving, Retry, Ok(Running)),
            (Blocked, leaving, Pause, Ok(Blocked)),
            (Blocked, leaving, Cancel, Err(["point of no return", "retry` looks again"])),
            (Blocked, leaving, Resolve(Verdict::Done), Ok(Running)),
            (Blocked, leaving, Resolve(Verdict::Absent), Ok(Running)),
            (Blocked, early, Resolve(Verdict::Done), Err(["no step of it is in doubt", "cancel` takes it back"])),
            (Blocked, early, Cancel, Ok(Running)),
        ];
        for (state, steps, what, expected) in cases {
            let mut operation = down(state, steps);
            let before = operation.clone();
            let order = Order { what, who: "someone".into(), reason: Some("why".into()) };
            match (obey(&mut operation, &order, NOW), expected) {
                (Ok(_), Ok(then)) => assert_eq!(operation.state, then, "{state:?} {steps:?} {what:?}"),
                (Err(said), Err(words)) => {
                    assert!(words.iter().all(|word| said.contains(word)), "{state:?} {steps:?} {what:?}: {said}");
                    assert_eq!(operation, before, "{state:?} {steps:?} {what:?}: a refusal changed something");
                }
                (got, _) => panic!("{state:?} {steps:?} {what:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn a_word_is_kept_with_who_said_it_and_can_be_taken_back() {
        use StepState::{Done, Unknown, Waiting};
        let mut operation = down(OperationState::Blocked, [Done, Unknown, Waiting]);
        operation.steps[1].output = Some(json!({"witnesses": ["n2"]}));
        let say = |operation: &mut Operation, verdict| {
            let order = Order { what: Verb::Resolve(verdict), who: "someone".into(), reason: Some("I looked".into()) };
            obey(operation, &order, NOW)
        };
        let obeyed = say(&mut operation, Verdict::Done).expect("in doubt");
        assert_eq!(obeyed, Obeyed { step: Some(1), what: "goes on: leave n1 resolved as done".into() });
        let output = operation.steps[1].output.clone().expect("an output");
        assert_eq!((&output["witnesses"][0], &output[WORD]["by"]), (&json!("n2"), &json!("someone")));
        assert_eq!((operation.steps[1].state, operation.steps[1].ended_at), (Done, Some(NOW)));

        operation.state = OperationState::Blocked;
        assert!(blocked(&operation, "destroy n1: still a member").contains("takes back that \"leave n1\" happened"));
        say(&mut operation, Verdict::Done).expect_err("nothing is in doubt");
        say(&mut operation, Verdict::Absent).expect("it was said by a person");
        assert_eq!((operation.steps[1].state, operation.steps[1].ended_at), (Waiting, None));
        operation.state = OperationState::Blocked;
        say(&mut operation, Verdict::Absent).expect_err("what was done by itself is not taken back");
    }
}

//! A good double passes; with one fault, exactly the check fails that is about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::*;
use crate::operate::drivers::Unanswered;

/// How a double breaks its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    ListFails,
    ListChanges,
    AnswersAnother,
    RefusesCreation,
    Hangs,
    NeverDone,
    ForgetsToList,
    ListLags,
    ListsElsewhere,
    HostileText,
    CreatesTwice,
    MakesItAnew,
    RefusesRepeat,
    CreatesTwiceUnderWay,
    AbsentIsRefused,
    AbsentTakesTheLast,
    TakesTheFirst,
    TakesTheLast,
    DestroysNothing,
    RepeatIsUnknown,
    IgnoresFence,
}

#[derive(Default)]
struct World {
    nodes: BTreeMap<NodeId, (Machine, Option<Instant>)>,
    keys: BTreeMap<String, NodeId>,
    gone: BTreeSet<NodeId>,
    fence: u64,
    lists: u32,
    made: u32,
}

struct Double {
    fault: Fault,
    victim: Victim,
    world: Arc<Mutex<World>>,
}

impl Double {
    fn new(fault: Fault, victim: Victim) -> Double {
        let double = Double { fault, victim, world: Arc::default() };
        for name in ["n1", "n2", "n3"] {
            let machine = double.machine(&NodeId::new(name).expect("a name"), 0);
            double.world().nodes.insert(machine.id.clone(), (machine, None));
        }
        double
    }

    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().expect("no panic")
    }

    fn machine(&self, id: &NodeId, instance: u32) -> Machine {
        let instance = match self.fault {
            Fault::HostileText if id.as_str().contains("test") => "i\u{1b}[2J".to_string(),
            _ => format!("i-{instance}"),
        };
        Machine { id: id.clone(), address: format!("http://{id}:1"), zone: None, instance: Some(instance), ready: None }
    }

    fn last(&self) -> NodeId {
        self.world().nodes.keys().max_by_key(|id| plan::ordinal(id)).expect("a node").clone()
    }
}

fn other(id: &NodeId) -> NodeId {
    NodeId::new(&format!("{id}x")).expect("a name")
}

#[async_trait]
impl Provider for Double {
    async fn list(&self) -> Result<Vec<Machine>, Unanswered> {
        let mut world = self.world();
        world.lists += 1;
        let shown = |(machine, since): &(Machine, Option<Instant>)| {
            let ours = since.is_some();
            match self.fault {
                Fault::ForgetsToList => !ours,
                Fault::ListLags => since.is_none_or(|since| since.elapsed() >= Duration::from_secs(5)),
                Fault::ListChanges => world.lists.is_multiple_of(2) || machine.id.as_str() != "n2",
                _ => true,
            }
        };
        if self.fault == Fault::ListFails {
            return Err(Unanswered("exit code 1".into()));
        }
        let mut list: Vec<Machine> =
            world.nodes.values().filter(|node| shown(node)).map(|node| node.0.clone()).collect();
        if self.fault == Fault::ListsElsewhere {
            list.iter_mut().for_each(|machine| machine.address.push('0'));
        }
        Ok(list)
    }

    /// Takes three seconds, and goes on when nobody waits any more.
    async fn create(&self, call: &Call, new: &NewNode) -> Effect<Machine> {
        let id = new.id.clone();
        match self.fault {
            Fault::RefusesCreation => return Effect::NoEffect("no quota".into()),
            Fault::Hangs => std::future::pending().await,
            Fault::NeverDone => return Effect::InProgress,
            _ => {}
        }
        let known = {
            let mut world = self.world();
            if call.fence < world.fence {
                return Effect::NoEffect("an old fence".into());
            }
            world.fence = call.fence;
            world.made += 1;
            let known = world.keys.insert(call.key.clone(), id.clone()).is_some();
            let there = world.nodes.get(&id).map(|node| node.0.clone());
            match (known, there) {
                (true, Some(machine)) => {
                    let number = world.made;
                    match self.fault {
                        Fault::CreatesTwice if world.keys.len() == 1 => {
                            let twin = self.machine(&other(&id), number);
                            world.nodes.insert(twin.id.clone(), (twin, None));
                        }
                        Fault::RefusesRepeat => return Effect::NoEffect("exists already".into()),
                        Fault::MakesItAnew => {
                            let anew = self.machine(&id, number);
                            world.nodes.insert(id, (anew.clone(), Some(Instant::now())));
                            return Effect::Done(anew);
                        }
                        _ => {}
                    }
                    return Effect::Done(machine);
                }
                (true, None) if self.fault != Fault::CreatesTwiceUnderWay => return Effect::InProgress,
                (known, _) => known,
            }
        };
        let named = if known { other(&id) } else { id.clone() };
        let made = self.machine(&named, 1);
        let world = self.world.clone();
        let inserted = made.clone();
        let work = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let mut world = world.lock().expect("no panic");
            world.nodes.insert(inserted.id.clone(), (inserted, Some(Instant::now())));
        });
        work.await.expect("no panic");
        let named = if self.fault == Fault::AnswersAnother { other(&id) } else { id };
        Effect::Done(Machine { id: named, ..made })
    }

    async fn destroy(&self, call: &Call, machine: &Machine) -> Effect<()> {
        let id = &machine.id;
        let last = self.last();
        let mut world = self.world();
        if call.fence < world.fence && self.fault != Fault::IgnoresFence {
            return Effect::NoEffect("an old fence".into());
        }
        let there = world.nodes.contains_key(id);
        let repeated = world.gone.contains(id);
        let victim = match self.fault {
            Fault::AbsentIsRefused if !there && !repeated => return Effect::NoEffect("no such node".into()),
            Fault::RepeatIsUnknown if repeated => return Effect::Unknown("exit code 1".into()),
            Fault::AbsentTakesTheLast if !there => last,
            Fault::TakesTheLast if there => last,
            Fault::TakesTheFirst if there => world.nodes.keys().next().expect("a node").clone(),
            Fault::DestroysNothing => return Effect::Done(()),
            _ if self.victim == Victim::Last && there && last != *id => {
                return Effect::NoEffect(format!("only {last} can go"));
            }
            _ => id.clone(),
        };
        if world.nodes.remove(&victim).is_some() {
            world.gone.insert(victim);
        }
        Effect::Done(())
    }

    fn victim(&self) -> Victim {
        self.victim
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }
}

async fn run(double: &Double) -> Report {
    let mut run = Conformance::new(double, "pool".into(), 7, "abc123");
    run.check_all().await;
    run.clean_up().await;
    run.report()
}

fn with(report: &Report, verdict: Verdict) -> Vec<&'static str> {
    let found = report.findings.iter().filter(|finding| finding.verdict == verdict);
    found.map(|finding| finding.check.name()).collect()
}

#[tokio::test(start_paused = true)]
async fn one_fault_fails_the_check_that_is_about_it() {
    use Fault::*;
    let (any, last) = (Victim::Any, Victim::Last);
    let cases: [(Fault, Victim, &[&str], &[&str]); 26] = [
        (None, any, &[], &[]),
        (None, last, &[], &[]),
        (ListFails, any, &["list"], &[]),
        (ListChanges, any, &["list"], &[]),
        (AnswersAnother, any, &["create"], &[]),
        (RefusesCreation, any, &["create"], &[]),
        (Hangs, any, &["deadline"], &[]),
        (NeverDone, any, &["deadline"], &[]),
        (ForgetsToList, any, &["listed"], &[]),
        (ListLags, any, &[], &["listed"]),
        (ListsElsewhere, any, &["listed"], &[]),
        (HostileText, any, &["plain"], &[]),
        (CreatesTwice, any, &["repeat_create"], &[]),
        (MakesItAnew, any, &["repeat_create"], &[]),
        (RefusesRepeat, any, &["repeat_create", "lost_answer"], &[]),
        (CreatesTwiceUnderWay, any, &["lost_answer"], &[]),
        (AbsentIsRefused, any, &["destroy_absent"], &[]),
        (AbsentTakesTheLast, any, &["destroy_absent"], &[]),
        (AbsentTakesTheLast, last, &["destroy_absent"], &[]),
        (TakesTheFirst, any, &["destroy"], &[]),
        (TakesTheLast, any, &["destroy"], &[]),
        (TakesTheLast, last, &["victim_last"], &[]),
        (DestroysNothing, any, &["destroy", "clean_up"], &[]),
        (RepeatIsUnknown, any, &["repeat_destroy"], &[]),
        (IgnoresFence, any, &[], &["old_fence"]),
        (IgnoresFence, last, &[], &["old_fence"]),
    ];
    for (fault, victim, failed, warned) in cases {
        let double = Double::new(fault, victim);
        let report = run(&double).await;
        assert_eq!(with(&report, Verdict::Failed), failed, "{fault:?}, {victim:?}: {report:#?}");
        assert_eq!(with(&report, Verdict::Warning), warned, "{fault:?}, {victim:?}: {report:#?}");
        assert_eq!(report.findings.len(), Check::ALL.len(), "{fault:?}: one row a check: {report:#?}");
        assert_eq!(report.all_hold(), failed.is_empty(), "{fault:?}: {report:#?}");

        let there: Vec<String> = double.world().nodes.keys().map(|id| id.to_string()).collect();
        let strangers = matches!(fault, CreatesTwice | CreatesTwiceUnderWay);
        assert_eq!(report.strangers.is_empty(), !strangers, "{fault:?}: {report:#?}");
        let ours: Vec<&String> = there.iter().filter(|id| !["n1", "n2", "n3"].contains(&id.as_str())).collect();
        let dangerous = matches!(fault, AbsentTakesTheLast | TakesTheFirst | TakesTheLast);
        assert_eq!(report.lost.is_empty(), !dangerous, "{fault:?}: {report:#?}");
        if dangerous {
            assert!(!report.left.is_empty(), "{fault:?}: nothing more is destroyed, and what is left is told");
        } else if fault != DestroysNothing && !strangers {
            assert!(ours.is_empty() && there.len() == 3, "{fault:?}: not cleaned up: {there:?}");
            assert!(report.left.is_empty(), "{fault:?}: {report:#?}");
        }
        if fault == None {
            let not_run: &[&str] = if victim == Victim::Any { &["victim_last"] } else { &[] };
            assert_eq!(with(&report, Verdict::NotRun), not_run, "{report:#?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_destruction_ends_the_run_at_once() {
    let double = Double::new(Fault::TakesTheFirst, Victim::Any);
    let report = run(&double).await;
    assert_eq!(report.lost, [NodeId::new("n1").expect("a name")]);
    assert_eq!(double.world().gone.len(), 1, "one node was lost, and not one more");
    assert_eq!(report.left.len(), 2, "{report:#?}");
    let said = &report.findings.iter().find(|finding| finding.check == Check::Destroy).expect("a finding").detail;
    assert!(said.contains("n1: there before, and gone now"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_run_is_cleaned_up_all_the_same() {
    let double = Double::new(Fault::None, Victim::Any);
    let mut run = Conformance::new(&double, "pool".into(), 7, "abc123");
    // The creation of the first node is under way: list, pause, list, and one of its three seconds.
    let interrupted = tokio::time::timeout(Duration::from_secs(3), run.check_all()).await;
    assert!(interrupted.is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(double.world().nodes.len(), 4, "the creation went on by itself");
    run.clean_up().await;
    let report = run.report();
    assert_eq!(double.world().nodes.len(), 3);
    assert!(report.left.is_empty() && with(&report, Verdict::Holds).contains(&"clean_up"), "{report:#?}");
}

#[test]
fn each_check_has_a_name_of_its_own_and_says_what_to_mend() {
    let names: BTreeSet<&str> = Check::ALL.iter().map(|check| check.name()).collect();
    assert_eq!(names.len(), Check::ALL.len());
    assert!(Check::ALL.is_sorted(), "the report has their order");
    assert!(Check::ALL.iter().all(|check| !check.promise().is_empty() && !check.mend().is_empty()));
}

//! What is looked at, in what order, and what to mend where it does not hold.

use tokio::time::Instant;

use super::{Conformance, DROPPED_AFTER, LONGEST_TEXT, PROBE, Said, Seen, Stop, Verdict, words};
use crate::model::{Machine, NodeId};
use crate::operate::drivers::{NewNode, Victim};
use crate::operate::plan;

/// One promise of a provider. The order is that of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    List,
    Create,
    Deadline,
    Listed,
    Plain,
    RepeatCreate,
    LostAnswer,
    DestroyAbsent,
    VictimLast,
    Destroy,
    RepeatDestroy,
    OldFence,
    CleanUp,
}

impl Check {
    pub const ALL: [Check; 13] = [
        Check::List,
        Check::Create,
        Check::Deadline,
        Check::Listed,
        Check::Plain,
        Check::RepeatCreate,
        Check::LostAnswer,
        Check::DestroyAbsent,
        Check::VictimLast,
        Check::Destroy,
        Check::RepeatDestroy,
        Check::OldFence,
        Check::CleanUp,
    ];

    /// The name, the promise, and what to mend where it is not kept.
    fn row(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Check::List => (
                "list",
                "the list can be read, and two readings agree",
                "exit 0, or answer 200, with {\"nodes\": [{\"id\", \"address\"}]} and nothing else; leave nodes out only when \
                 they are gone for good",
            ),
            Check::Create => (
                "create",
                "create makes a node of the name that was asked for",
                "answer {\"id\", \"address\"} with the id that was asked for; the platform's own name goes into `instance`",
            ),
            Check::Deadline => (
                "deadline",
                "a creation ends within the provider's timeout",
                "answer \"in progress\" (exit 11, 202) instead of waiting, or raise `provider.timeout`",
            ),
            Check::Listed => (
                "listed",
                "the list shows the node that was made, at the same address",
                "list every node from the moment it was asked for: a creation whose answer is lost is looked up there",
            ),
            Check::Plain => (
                "plain",
                "zones and instances are short texts without control characters",
                "answer the bare name of the zone and of the instance",
            ),
            Check::RepeatCreate => (
                "repeat_create",
                "the same creation asked for again, with the same key, is the same node",
                "look for the node or the key first; when it is there, answer it as before (exit 10, 200)",
            ),
            Check::LostAnswer => (
                "lost_answer",
                "a creation whose answer was lost, asked for again with the same key, makes one node",
                "write the key down before making anything; while it is under way, answer \"in progress\" (exit 11, 202)",
            ),
            Check::DestroyAbsent => (
                "destroy_absent",
                "destroying a name that does not exist changes nothing and is already done",
                "look the name up; when there is none, exit 10 or answer 404, and touch nothing",
            ),
            Check::VictimLast => (
                "victim_last",
                "with `victim: last`, a node that is not the last is refused and none is taken away",
                "compare the name with the last one before taking it away; when it is another, exit 20 or answer 409",
            ),
            Check::Destroy => (
                "destroy",
                "destroy takes away exactly the node it names",
                "select by name or by `instance`, never by count, age or position; be done only once it is gone",
            ),
            Check::RepeatDestroy => (
                "repeat_destroy",
                "the same destruction asked for again changes nothing and is already done",
                "when the node is gone, exit 10 or answer 404",
            ),
            Check::OldFence => (
                "old_fence",
                "a call with a lower fence than one seen before is refused",
                "keep the highest VECSCALE_FENCE (Vecscale-Fence) seen; refuse a lower one with exit 20 or 409",
            ),
            Check::CleanUp => {
                ("clean_up", "the throw-away nodes are gone in the end", "take them away by hand, and mend destroy")
            }
        }
    }

    /// As in the report.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    pub fn promise(self) -> &'static str {
        self.row().1
    }

    /// What to do where it does not hold.
    pub fn mend(self) -> &'static str {
        self.row().2
    }
}

impl Conformance<'_> {
    pub(super) async fn checks(&mut self) -> Result<(), Stop> {
        self.list().await?;
        let [first, second, absent] = [0, 1, 2].map(|i| self.names[i].clone());
        let made = self.creates(&first).await?;
        self.shows(&first, &made).await?;
        self.repeats_create(&first, &made).await?;
        self.loses_answer(&second).await?;
        self.destroys_absent(&absent).await?;
        self.destroys_one_only(&first, &second).await
    }

    fn begin(&self, check: Check) {
        self.now.send_replace(check);
    }

    async fn list(&mut self) -> Result<(), Stop> {
        self.begin(Check::List);
        let before = self.listed(Check::List).await?;
        tokio::time::sleep(PROBE).await;
        let after = self.listed(Check::List).await?;
        let ids = |list: &[Machine]| list.iter().map(|machine| machine.id.clone()).collect::<Vec<_>>();
        let same = |a: &Machine, b: &Machine| (&a.id, &a.address, &a.instance) == (&b.id, &b.address, &b.instance);
        if before.len() != after.len() || !before.iter().zip(&after).all(|(a, b)| same(a, b)) {
            let detail = format!("first {}; then {}", shown(&ids(&before)), shown(&ids(&after)));
            self.found(Check::List, Verdict::Failed, detail);
            return Err(Stop::Pointless("the list is not stable".into()));
        }
        self.others = ids(&after).into_iter().collect();
        let (names, _) = plan::new_names(&self.stem.as_str().into(), &self.others, 0, 3);
        if names.len() < 3 || names.iter().any(|name| self.others.contains(name)) {
            let detail = "there are no free names for throw-away nodes".to_string();
            self.found(Check::List, Verdict::Failed, detail.clone());
            return Err(Stop::Pointless(detail));
        }
        self.names = names;
        self.found(Check::List, Verdict::Holds, shown(&ids(&after)));
        Ok(())
    }

    async fn creates(&mut self, node: &NodeId) -> Result<Machine, Stop> {
        self.begin(Check::Create);
        let (began, limit) = (Instant::now(), self.provider.timeout());
        let call = self.call("create", 1);
        let said = self.create(node, &call).await;
        let took = format!("{:.1} s of {} s", began.elapsed().as_secs_f64(), limit.as_secs_f64());
        if matches!(said, Said::Late) {
            self.found(
                Check::Deadline,
                Verdict::Failed,
                format!("{node} was not made within {} s", limit.as_secs_f64()),
            );
            return Err(Stop::Pointless("no node was made in time".into()));
        }
        self.found(Check::Deadline, Verdict::Holds, took);
        let made = said.not_done().and_then(|made| named(made, node));
        if let Err(why) = &made {
            // What was made instead, if anything, is told too.
            let seen = self.look(Check::Create).await?;
            self.found(Check::Create, Verdict::Failed, format!("{why}{}", besides(&seen)));
        } else {
            self.found(Check::Create, Verdict::Holds, String::new());
        }
        made.map_err(|_| Stop::Pointless("no node was made".into()))
    }

    async fn shows(&mut self, node: &NodeId, made: &Machine) -> Result<(), Stop> {
        self.begin(Check::Listed);
        let (seen, after) = self.look_for(Check::Listed, node, true).await?;
        let listed = seen.machines.iter().find(|machine| machine.id == *node);
        let (verdict, detail) = match (listed, after) {
            _ if !seen.strangers.is_empty() => (Verdict::Failed, format!("one node was asked for{}", besides(&seen))),
            (Some(listed), _) if listed.address != made.address => {
                (Verdict::Failed, format!("create answered {}, the list says {}", made.address, listed.address))
            }
            (Some(_), Some(after)) if after < PROBE => (Verdict::Holds, String::new()),
            (Some(_), Some(after)) => {
                (Verdict::Warning, format!("only {:.0} s after create was done", after.as_secs_f64()))
            }
            _ => (Verdict::Failed, format!("{node} is not listed")),
        };
        self.found(Check::Listed, verdict, detail);
        if listed.is_none() {
            return Err(Stop::Pointless("what the list does not show cannot be judged".into()));
        }
        let odd = |text: &Option<String>| {
            text.as_ref().is_some_and(|text| text.chars().count() > LONGEST_TEXT || text.chars().any(char::is_control))
        };
        let hostile = seen.machines.iter().chain([made]).find(|machine| odd(&machine.zone) || odd(&machine.instance));
        match hostile {
            None => self.found(Check::Plain, Verdict::Holds, String::new()),
            Some(machine) => {
                self.found(Check::Plain, Verdict::Failed, format!("the zone or the instance of {}", machine.id));
            }
        }
        Ok(())
    }

    async fn repeats_create(&mut self, node: &NodeId, made: &Machine) -> Result<(), Stop> {
        self.begin(Check::RepeatCreate);
        let call = self.call("create", 1);
        let again = self.create(node, &call).await.not_done().and_then(|again| named(again, node));
        let seen = self.look(Check::RepeatCreate).await?;
        let (verdict, detail) = match again {
            _ if !seen.strangers.is_empty() => (Verdict::Failed, format!("asked twice for {node}{}", besides(&seen))),
            Err(why) => (Verdict::Failed, why),
            Ok(again) if (&again.address, &again.instance) != (&made.address, &made.instance) => {
                let (a, b) = (place(made), place(&again));
                (Verdict::Failed, format!("the first answer was {a}, the second {b}"))
            }
            Ok(_) => (Verdict::Holds, String::new()),
        };
        self.found(Check::RepeatCreate, verdict, detail);
        Ok(())
    }

    async fn loses_answer(&mut self, node: &NodeId) -> Result<(), Stop> {
        self.begin(Check::LostAnswer);
        let call = self.call("create", 2);
        self.made.push(node.clone());
        let new = NewNode::named(node.clone());
        let _ = tokio::time::timeout(DROPPED_AFTER, self.provider.create(&call, &new)).await; // dropped, whatever it is
        let made = self.create(node, &call).await.not_done().and_then(|made| named(made, node));
        let (seen, after) = self.look_for(Check::LostAnswer, node, true).await?;
        let (verdict, detail) = match made {
            _ if !seen.strangers.is_empty() => (Verdict::Failed, format!("asked twice for {node}{}", besides(&seen))),
            Err(why) => (Verdict::Failed, why),
            Ok(_) if after.is_none() => (Verdict::Failed, format!("{node} is not listed")),
            Ok(_) => (Verdict::Holds, String::new()),
        };
        self.found(Check::LostAnswer, verdict, detail);
        Ok(())
    }

    async fn destroys_absent(&mut self, absent: &NodeId) -> Result<(), Stop> {
        self.begin(Check::DestroyAbsent);
        let before = self.look(Check::DestroyAbsent).await?.ours;
        let machine = self.machine(absent).await;
        let call = self.call("destroy", 3);
        let said = self.destroy(&machine, &call).await.not_done();
        let seen = self.look(Check::DestroyAbsent).await?;
        self.none_of_ours_is_gone(Check::DestroyAbsent, absent, &before, &seen)?;
        match said {
            Ok(()) => self.found(Check::DestroyAbsent, Verdict::Holds, String::new()),
            Err(why) => self.found(Check::DestroyAbsent, Verdict::Failed, why),
        }
        Ok(())
    }

    /// Of two nodes, the one that is not the last is asked for where any may go: a count would take the other.
    async fn destroys_one_only(&mut self, first: &NodeId, second: &NodeId) -> Result<(), Stop> {
        let last_only = self.provider.victim() == Victim::Last;
        if last_only {
            self.takes_the_last_only(first, second).await?;
        } else {
            self.found(Check::VictimLast, Verdict::NotRun, "`victim` is any".into());
        }
        let there = self.look(Check::Destroy).await?.ours;
        let (target, other) = match (last_only, there.contains(first), there.contains(second)) {
            (true, _, true) | (false, false, true) => (second, first),
            _ => (first, second),
        };
        self.destroys(target).await?;
        self.refuses_old_fence(other).await
    }

    async fn takes_the_last_only(&mut self, first: &NodeId, second: &NodeId) -> Result<(), Stop> {
        self.begin(Check::VictimLast);
        let before = self.look(Check::VictimLast).await?.ours;
        if !before.contains(second) || !before.contains(first) {
            self.found(Check::VictimLast, Verdict::NotRun, "it takes two nodes".into());
            return Ok(());
        }
        let machine = self.machine(first).await;
        let call = self.call("destroy", 4);
        let said = self.destroy(&machine, &call).await;
        let seen = self.look(Check::VictimLast).await?;
        let mut others = before;
        others.remove(first);
        self.none_of_ours_is_gone(Check::VictimLast, first, &others, &seen)?;
        let (verdict, detail) = match (said, seen.ours.contains(first)) {
            (Said::Refused(_), true) => (Verdict::Holds, String::new()),
            (_, false) => (Verdict::Holds, format!("it took {first} and nothing else: `victim: any` would do")),
            (said, true) => {
                let why = said.not_done().err().unwrap_or_else(|| "it said done and did nothing".into());
                (Verdict::Failed, why)
            }
        };
        self.found(Check::VictimLast, verdict, detail);
        Ok(())
    }

    async fn destroys(&mut self, node: &NodeId) -> Result<(), Stop> {
        self.begin(Check::Destroy);
        let mut others = self.look(Check::Destroy).await?.ours;
        others.remove(node);
        let machine = self.machine(node).await;
        let call = self.call("destroy", 5);
        let said = self.destroy(&machine, &call).await.not_done();
        let (seen, after) = self.look_for(Check::Destroy, node, false).await?;
        self.none_of_ours_is_gone(Check::Destroy, node, &others, &seen)?;
        let (verdict, detail) = match (said, after) {
            (Err(why), _) => (Verdict::Failed, why),
            (Ok(()), None) => (Verdict::Failed, format!("it said done, but {node} is still listed")),
            (Ok(()), Some(after)) if after < PROBE => (Verdict::Holds, String::new()),
            (Ok(()), Some(after)) => {
                let took = after.as_secs_f64();
                (Verdict::Warning, format!("{node} was listed for {took:.0} s after destroy was done"))
            }
        };
        self.found(Check::Destroy, verdict, detail);
        if after.is_none() {
            self.found(Check::RepeatDestroy, Verdict::NotRun, format!("{node} is still there"));
            return Ok(());
        }
        self.made.retain(|made| made != node);

        self.begin(Check::RepeatDestroy);
        let said = self.destroy(&machine, &call).await.not_done();
        let seen = self.look(Check::RepeatDestroy).await?;
        self.none_of_ours_is_gone(Check::RepeatDestroy, node, &others, &seen)?;
        match said {
            Ok(()) => self.found(Check::RepeatDestroy, Verdict::Holds, String::new()),
            Err(why) => self.found(Check::RepeatDestroy, Verdict::Failed, why),
        }
        Ok(())
    }

    async fn refuses_old_fence(&mut self, node: &NodeId) -> Result<(), Stop> {
        self.begin(Check::OldFence);
        if !self.look(Check::OldFence).await?.ours.contains(node) {
            self.found(Check::OldFence, Verdict::NotRun, "it takes a second node".into());
            return Ok(());
        }
        let machine = self.machine(node).await;
        let mut call = self.call("destroy", 6);
        call.fence = self.fence.saturating_sub(1);
        let said = self.destroy(&machine, &call).await;
        let seen = self.look(Check::OldFence).await?;
        let (verdict, detail) = match (said, seen.ours.contains(node)) {
            (Said::Refused(_), true) => (Verdict::Holds, String::new()),
            (Said::Unknown(why), true) => (Verdict::Warning, format!("it was not done, but not refused either: {why}")),
            (Said::Late, true) => (Verdict::Warning, "it was not done, but not refused either".into()),
            (Said::Done(()), _) | (_, false) => {
                (Verdict::Warning, "the fence is ignored: an old controller that wakes up late would be obeyed".into())
            }
        };
        self.found(Check::OldFence, verdict, detail);
        if !seen.ours.contains(node) {
            self.made.retain(|made| made != node);
        }
        Ok(())
    }

    /// Of the throw-away nodes, none is gone but the one that was named.
    fn none_of_ours_is_gone(
        &mut self,
        check: Check,
        asked_for: &NodeId,
        before: &std::collections::BTreeSet<NodeId>,
        seen: &Seen,
    ) -> Result<(), Stop> {
        let gone: Vec<NodeId> = before.difference(&seen.ours).cloned().collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.made.retain(|made| !gone.contains(made));
        let detail = format!("asked to destroy {asked_for}, it took {}", words(&gone));
        self.found(check, Verdict::Failed, detail);
        self.lost = gone;
        Err(Stop::Dangerous)
    }
}

fn named(machine: Machine, node: &NodeId) -> Result<Machine, String> {
    if machine.id == *node { Ok(machine) } else { Err(format!("asked for {node}, it answered {}", machine.id)) }
}

fn besides(seen: &Seen) -> String {
    if seen.strangers.is_empty() { String::new() } else { format!("; new in the list: {}", words(&seen.strangers)) }
}

fn place(machine: &Machine) -> String {
    match &machine.instance {
        Some(instance) => format!("{} ({instance})", machine.address),
        None => machine.address.clone(),
    }
}

/// At most twelve names.
fn shown(nodes: &[NodeId]) -> String {
    let more = if nodes.len() > 12 { format!(" and {} more", nodes.len() - 12) } else { String::new() };
    format!("{} nodes: {}{more}", nodes.len(), words(&nodes[..nodes.len().min(12)]))
}
